// Sends lines of batches through the gateway's own front door without a socket: an HTTP/1.1 connection in memory to a server
// that listens nowhere. A line is then a request like any other, whatever the gateway does to requests.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Agent, createServer, request } from 'node:http';
import { duplexPair } from 'node:stream';
import type { Duplex } from 'node:stream';

export type LineAnswer =
  | { readonly kind: 'answered'; readonly statusCode: number; readonly requestId: string; readonly retryAfterMs: number | null; /** It was said that coming back is of no use. */ readonly final: boolean; readonly text: string }
  | { readonly kind: 'too-large'; readonly requestId: string }
  /** The connection broke, or the line was aborted. */
  | { readonly kind: 'lost' };

export interface LineCall {
  readonly answer: Promise<LineAnswer>;
  abort(): void;
}

export interface LineClient {
  send(line: { readonly path: string; readonly headers: Readonly<Record<string, string>>; readonly body: string }): LineCall;
  close(): void;
}

export function createLineClient(serve: (incoming: IncomingMessage, outgoing: ServerResponse) => void, answerBytesMax: number): LineClient {
  // The front door bounds what comes from outside; these requests are ours and wait as long as they must.
  const server = createServer({ requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 }, serve);
  const createConnection = (): Duplex => {
    const [ours, theirs] = duplexPair();
    // A pair does not tell its other side by itself that one is gone.
    ours.once('close', () => theirs.destroy());
    theirs.once('close', () => ours.destroy());
    server.emit('connection', asSocket(theirs));
    return asSocket(ours);
  };
  const agent = Object.assign(new Agent({ keepAlive: false, maxSockets: Number.POSITIVE_INFINITY }), { createConnection });

  return {
    send({ path, headers, body }) {
      const outgoing = request({ method: 'POST', path, host: 'localhost', agent, headers: { ...headers, 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) } });
      const answer = new Promise<LineAnswer>((resolve) => {
        outgoing.on('error', () => resolve({ kind: 'lost' }));
        outgoing.on('close', () => resolve({ kind: 'lost' }));
        outgoing.on('response', (incoming) => {
          const requestId = String(incoming.headers['x-request-id'] ?? '');
          const chunks: Buffer[] = [];
          let bytes = 0;
          incoming.on('error', () => resolve({ kind: 'lost' }));
          incoming.on('data', (chunk: Buffer) => {
            bytes += chunk.length;
            if (bytes <= answerBytesMax) return void chunks.push(chunk);
            resolve({ kind: 'too-large', requestId });
            outgoing.destroy();
          });
          incoming.on('end', () => {
            if (!incoming.complete) return resolve({ kind: 'lost' });
            resolve({ kind: 'answered', statusCode: incoming.statusCode ?? 0, requestId, retryAfterMs: retryAfterMs(incoming.headers), final: incoming.headers['x-should-retry'] === 'false', text: Buffer.concat(chunks).toString('utf8') });
          });
        });
      });
      outgoing.end(body);
      return { answer, abort: () => outgoing.destroy() };
    },
    close: () => {
      agent.destroy();
      server.closeAllConnections();
    },
  };
}

function retryAfterMs(headers: IncomingMessage['headers']): number | null {
  const ms = Number(headers['retry-after-ms'] ?? Number(headers['retry-after'] ?? Number.NaN) * 1_000);
  return Number.isFinite(ms) && ms >= 0 ? ms : null;
}

/** What Node's HTTP asks of a socket beyond what any stream has. */
function asSocket(stream: Duplex): Duplex {
  return Object.assign(stream, { setTimeout: () => stream, setKeepAlive: () => stream, setNoDelay: () => stream, ref: () => stream, unref: () => stream });
}
