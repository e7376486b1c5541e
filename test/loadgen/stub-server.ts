// A stand-in for a model server with known timing: what it does to a request is said by the request's prompt size,
// through the function the test gives. Sits on a real socket.
import { createServer } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface SeenRequest {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: {
    readonly model: string;
    readonly messages?: readonly { readonly content: string }[];
    readonly prompt?: string;
    readonly max_tokens: number;
    readonly stream: boolean;
    readonly ignore_eos?: boolean;
    readonly metadata?: { readonly emulate_output_tokens?: string };
    readonly stream_options?: { readonly include_usage?: boolean };
  };
  readonly atMs: number;
}

export interface StubServer {
  readonly url: string;
  readonly seen: SeenRequest[];
  readonly close: () => Promise<void>;
}

export async function startStub(answer: (request: SeenRequest, response: ServerResponse) => void | Promise<void>): Promise<StubServer> {
  const seen: SeenRequest[] = [];
  const server = createServer(async (incoming, response) => {
    if (incoming.method === 'GET') {
      response.setHeader('content-type', 'application/json').end(JSON.stringify({ object: 'list', data: [{ id: 'stub-model' }] }));
      return;
    }
    const request = { path: incoming.url ?? '', headers: incoming.headers, body: JSON.parse(await readAll(incoming)) as SeenRequest['body'], atMs: performance.now() };
    seen.push(request);
    await answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A chat stream: first token after `ttftMs`, each further one `tpotMs` later, then usage and `[DONE]`. */
export async function streamTokens(response: ServerResponse, { tokens, ttftMs, tpotMs, usage = true }: { readonly tokens: number; readonly ttftMs: number; readonly tpotMs: number; readonly usage?: boolean }): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(`: a comment\n\n${chunk({ choices: [{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }], usage: null })}`);
  await sleep(ttftMs);
  for (let token = 0; token < tokens; token++) {
    if (token > 0) await sleep(tpotMs);
    response.write(chunk({ choices: [{ index: 0, delta: { content: ' a' }, finish_reason: null }], usage: null }));
  }
  response.write(chunk({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }], usage: null }));
  if (usage) response.write(chunk({ choices: [], usage: { prompt_tokens: 11, completion_tokens: tokens, total_tokens: 11 + tokens, prompt_tokens_details: { cached_tokens: 4 } } }));
  response.end('data: [DONE]\n\n');
}

export function chunk(event: object): string {
  return `data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', ...event })}\n\n`;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function readAll(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const part of incoming) chunks.push(part as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}
