// A model server that can be told to misbehave: garbage, resets, silence, single bytes, refusals. It numbers its tokens by
// the request's id, and writes down what became of each request. Its probes are answered well as long as it lives.
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { monotonicMs } from '../../src/engine/real-time.ts';
import type { RequestNote } from '../../src/engine/server.ts';
import { askedId } from './executions.ts';
import { stubToken } from './expected-text.ts';
import { lastingPort } from './lasting-port.ts';

export type Mood = 'well' | 'garbage' | 'reset' | 'hang' | 'slow' | 'refuse';

export interface FaultyServer {
  readonly url: string;
  readonly notes: readonly (Omit<RequestNote, 'kind'> & { readonly kind: RequestNote['kind'] | 'refused' | 'broken'; readonly atMs: number })[];
  mood: Mood;
  /** Nobody listens, and what was under way is cut off. */
  die(): Promise<void>;
  /** At the same port again. */
  revive(): Promise<void>;
  /** Requests whose connection is not closed and whose answer is not at its end. */
  open(): number;
  close(): Promise<void>;
}

interface Asked {
  readonly stream?: boolean;
  readonly model: string;
  readonly stream_options?: { readonly include_usage?: boolean };
  readonly metadata: { readonly emulate_output_tokens: string };
}

/** As fast as an emulated server of a small model. */
const TOKEN_MS = 10;
/** Of one that is slow: in all, an answer stays well within any timeout for a whole one. */
const SLOW_TOKEN_MS = 25;

export async function createFaultyServer(): Promise<FaultyServer> {
  const notes: FaultyServer['notes'][number][] = [];
  const sockets = new Set<Socket>();
  const open = new Set<ServerResponse>();
  let answers = 0;

  const server = createServer((incoming, outgoing) => {
    if (incoming.url === '/health' || incoming.url === '/metrics') outgoing.end();
    else void answer(incoming, outgoing).catch(() => outgoing.destroy());
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });

  async function answer(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const requestId = askedId(String(incoming.headers['x-request-id']));
    const note = (kind: FaultyServer['notes'][number]['kind']): void => void notes.push({ requestId, kind, atMs: monotonicMs() });
    open.add(outgoing);
    outgoing.once('close', () => open.delete(outgoing));
    let text = '';
    for await (const piece of incoming.setEncoding('utf8')) text += String(piece);
    const asked = JSON.parse(text) as Asked;
    // It has read the request: from here on it counts as taken, whatever comes.
    if (stub.mood === 'refuse') {
      note('refused');
      outgoing.writeHead(503, { 'content-type': 'application/json', 'retry-after': '1' }).end('{"error":{"message":"too many requests wait here","type":"server_error","param":null,"code":"queue_full"}}');
      return;
    }
    note('accepted');
    outgoing.once('close', () => !outgoing.writableFinished && note('cancelled'));
    const wanted = Number(asked.metadata.emulate_output_tokens);
    const generation = { requestId, endpoint: incoming.url === '/v1/chat/completions' ? 'chat' : 'completion', asked, wanted, id: `stub-${++answers}`, outgoing, note } as const;
    await (asked.stream === true ? streamed(generation) : whole(generation));
  }

  /** Waits for the next token; `false` where there will be none, since the connection is gone. */
  async function turn(outgoing: ServerResponse, note: (kind: 'broken') => void, garbage: string): Promise<boolean> {
    await delay(stub.mood === 'slow' ? SLOW_TOKEN_MS : TOKEN_MS);
    // For ever: only the other end can end it.
    if (stub.mood === 'hang' && !outgoing.destroyed) await once(outgoing, 'close');
    if (outgoing.destroyed) return false;
    if (stub.mood === 'reset') {
      note('broken');
      outgoing.socket?.resetAndDestroy();
      return false;
    }
    if (stub.mood === 'garbage') {
      note('broken');
      // Past Node's framing, so that no reader can take it for a part of the answer.
      outgoing.socket?.write(garbage);
      outgoing.socket?.end();
      return false;
    }
    return true;
  }

  interface Generation {
    readonly requestId: string;
    readonly endpoint: 'chat' | 'completion';
    readonly asked: Asked;
    readonly wanted: number;
    readonly id: string;
    readonly outgoing: ServerResponse;
    readonly note: (kind: 'first-token' | 'finished' | 'broken') => void;
  }

  async function streamed({ requestId, endpoint, asked, wanted, id, outgoing, note }: Generation): Promise<void> {
    if (!(await turn(outgoing, note, '\u0000\u0001 this is no HTTP\r\n\r\n'))) return;
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    outgoing.flushHeaders();
    const event = (of: object): string => `data: ${JSON.stringify({ id, object: 'chunk', created: 1, model: asked.model, ...of })}\n\n`;
    for (let token = 0; token < wanted; token++) {
      if (!(await turn(outgoing, note, 'zz\r\nthis is no chunk\r\n'))) return;
      if (token === 0) note('first-token');
      const piece = stubToken(requestId, token);
      await write(outgoing, event({ choices: [endpoint === 'chat' ? { index: 0, delta: { content: piece } } : { index: 0, text: piece }] }));
    }
    if (outgoing.destroyed) return;
    const usage = asked.stream_options?.include_usage === true ? event({ choices: [], usage: usageOf(wanted) }) : '';
    note('finished');
    outgoing.end(`${event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] })}${usage}data: [DONE]\n\n`);
  }

  /** Half of the body goes out first: what breaks it breaks it in the middle. */
  async function whole({ requestId, endpoint, asked, wanted, id, outgoing, note }: Generation): Promise<void> {
    let content = '';
    for (let token = 0; token < wanted; token++) {
      if (!(await turn(outgoing, note, '\u0000\u0001 this is no HTTP\r\n\r\n'))) return;
      content += stubToken(requestId, token);
    }
    const body = JSON.stringify({ id, created: 1, model: asked.model, choices: [{ index: 0, finish_reason: 'stop', ...(endpoint === 'chat' ? { message: { role: 'assistant', content } } : { text: content }) }], usage: usageOf(wanted) });
    note('first-token');
    outgoing.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
    outgoing.write(body.slice(0, body.length / 2));
    // With a length there is no framing to break: garbage is then an early end.
    if (!(await turn(outgoing, note, ''))) return;
    note('finished');
    outgoing.end(body.slice(body.length / 2));
  }

  async function write(outgoing: ServerResponse, text: string): Promise<void> {
    if (stub.mood !== 'slow') return void outgoing.write(text);
    // In pieces, each a chunk of its own.
    for (let at = 0; at < text.length && !outgoing.destroyed; at += 40) {
      outgoing.write(text.slice(at, at + 40));
      await delay(1);
    }
  }

  server.listen(await lastingPort(), '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  async function die(): Promise<void> {
    const closed = once(server, 'close');
    server.close();
    for (const socket of sockets) socket.resetAndDestroy();
    await closed;
  }
  const stub: FaultyServer = {
    url: `http://127.0.0.1:${port}`,
    notes,
    mood: 'well',
    die,
    revive: async () => {
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
    },
    open: () => open.size,
    close: async () => void (server.listening && (await die())),
  };
  return stub;
}

function usageOf(tokens: number): object {
  return { prompt_tokens: 40, completion_tokens: tokens, total_tokens: 40 + tokens };
}
