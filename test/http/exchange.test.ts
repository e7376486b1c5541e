// Requests through a whole gateway: what reaches the server, what comes back, and who is let go when somebody leaves.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect, createServer } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { rawClient } from '../fixtures/clients.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startConfigured, startGateway, testConfig } from '../fixtures/gateway-under-test.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { createStubUpstream, endless, streamEvents } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(options: { answer?: Answer; replica?: string; more?: string; waitUp?: boolean } = {}): Promise<{ gateway: GatewayUnderTest; upstream: StubUpstream }> {
  const upstream = await createStubUpstream(options.answer);
  opened.push(upstream);
  const gateway = await startGateway([upstream], { more: 'timeouts: { drainMs: 100 }', ...options });
  opened.push(gateway);
  return { gateway, upstream };
}

const CHAT = { model: 'm', messages: [{ role: 'user', content: 'hi' }] };
function post(gateway: GatewayUnderTest, body: unknown = CHAT, headers: Record<string, string> = {}, path = '/v1/chat/completions', signal: AbortSignal | null = null): Promise<Response> {
  return fetch(gateway.url + path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers }, signal });
}

test.each(['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/embeddings', '/v1/messages', '/v1/rerank', '/score', '/tokenize', '/v1/images/generations'])('%s goes to the same path with the body as it came', async (path) => {
  const { gateway, upstream } = await start();
  const body = '{ "model":"m",  "input":"x","prompt":"x","temperature":1.0,"messages":[] }';
  const answer = await post(gateway, body, {}, path);
  expect(answer.status).toBe(200);
  expect(await answer.json()).toMatchObject({ choices: [{ message: { content: 'Hello there!' } }] });
  expect(upstream.requests).toMatchObject([{ path, body }]);
});

test('a stream comes through byte for byte, its tokens counted and its usage read', async () => {
  const { gateway } = await start();
  const answer = await post(gateway, { ...CHAT, stream: true, stream_options: { include_usage: true } });
  expect(answer.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  expect(answer.headers.get('openai-processing-ms')).toBeNull();
  expect(await answer.text()).toBe(streamEvents({ id: 'chatcmpl-1', created: 1, model: 'm' }).join(''));
  const ended = await gateway.event('ended');
  expect(ended).toMatchObject({ outcome: 'finished', usage: { promptTokens: 9, cachedTokens: 4, outputTokens: 3 } });
  expect(gateway.events.reduce((sum, event) => sum + (event.kind === 'tokens' ? event.tokens : 0), 0)).toBe(3);
});

test('usage is asked for where the client did not, and the event that tells it does not reach it', async () => {
  const { gateway, upstream } = await start();
  const answer = await post(gateway, { ...CHAT, stream: true });
  const events = streamEvents({ id: 'chatcmpl-1', created: 1, model: 'm' });
  expect(await answer.text()).toBe(events.filter((event) => !event.includes('"choices":[]')).join(''));
  expect(JSON.parse(upstream.requests[0]?.body ?? '')).toEqual({ ...CHAT, stream: true, stream_options: { include_usage: true } });
  expect(await gateway.event('ended')).toMatchObject({ outcome: 'finished', usage: { promptTokens: 9, cachedTokens: 4, outputTokens: 3 } });
});

test('a server that knows no stream_options is not asked for usage', async () => {
  const { gateway, upstream } = await start({ replica: 'asksUsage: false' });
  const answer = await post(gateway, { ...CHAT, stream: true });
  expect(await answer.text()).toBe(streamEvents({ id: 'chatcmpl-1', created: 1, model: 'm' }).join(''));
  expect(JSON.parse(upstream.requests[0]?.body ?? '')).toEqual({ ...CHAT, stream: true });
});

test('a stream that ends in the middle of an event passes that half on, and counts no token twice', async () => {
  const [first, half] = [streamEvents({ id: 'c', created: 1, model: 'm' })[1] as string, 'data: {"id":"c"'];
  const { gateway } = await start({
    answer: async (_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      // Each in a read of its own: the half is there when the end comes alone.
      for (const bytes of [first, half]) {
        outgoing.write(bytes);
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
      outgoing.end();
    },
  });
  expect(await (await post(gateway, { ...CHAT, stream: true })).text()).toBe(first + half);
  await gateway.event('ended');
  expect(gateway.events.reduce((sum, event) => sum + (event.kind === 'tokens' ? event.tokens : 0), 0)).toBe(1);
});

test('tokens of the last read are not counted again when half an event is left at the end', async () => {
  const bytes = `${streamEvents({ id: 'c', created: 1, model: 'm' })[1]}data: {"id":"c"`;
  const { gateway } = await start({
    answer: async (_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      outgoing.write(bytes);
      await new Promise((resolve) => setTimeout(resolve, 30));
      outgoing.end();
    },
  });
  expect(await (await post(gateway, { ...CHAT, stream: true })).text()).toBe(bytes);
  await gateway.event('ended');
  expect(gateway.events.reduce((sum, event) => sum + (event.kind === 'tokens' ? event.tokens : 0), 0)).toBe(1);
});

test('an answer without streaming tells its usage', async () => {
  const { gateway } = await start();
  await (await post(gateway)).text();
  expect(await gateway.event('ended')).toMatchObject({ outcome: 'finished', usage: { promptTokens: 9, cachedTokens: 4, outputTokens: 3 } });
});

test('answers say who served them, what was predicted and how long it took', async () => {
  const { gateway } = await start();
  const { headers } = await post(gateway, CHAT, { 'x-request-id': 'mine-1', 'x-slo-e2e-ms': '5000' });
  expect(headers.get('x-request-id')).toBe('mine-1');
  expect(headers.get('x-paceline-replica')).toBe('r0');
  expect(Number(headers.get('x-paceline-predicted-ttft-ms'))).toBeGreaterThanOrEqual(0);
  expect(Number(headers.get('x-paceline-slack-ms'))).toBeGreaterThan(0);
  expect(Number(headers.get('openai-processing-ms'))).toBeLessThan(5000);
});

// transformers serve keeps its books by it: the tokens of both came to one of the two, and the other never ended.
test('requests that come under one id have each their own at the server, which begins with it', async () => {
  const { gateway, upstream } = await start();
  const answers = await Promise.all([1, 2].map(() => post(gateway, CHAT, { 'x-request-id': 'same' })));
  expect(answers.map(({ headers }) => headers.get('x-request-id'))).toEqual(['same', 'same']);
  const ids = upstream.requests.map(({ headers }) => headers['x-request-id']);
  expect(ids).toEqual([expect.stringMatching(/^same-[0-9a-f]{12}$/), expect.stringMatching(/^same-[0-9a-f]{12}$/)]);
  expect(new Set(ids).size).toBe(2);
});

test('a request id that could break a log line is replaced', async () => {
  const { gateway, upstream } = await start();
  const { headers } = await post(gateway, CHAT, { 'x-request-id': 'a b"c' });
  expect(headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
  expect(upstream.requests[0]?.headers['x-request-id']).toBe(headers.get('x-request-id'));
});

test("of the client's headers only those allowed reach the server, and never its key", async () => {
  const { gateway, upstream } = await start({ replica: 'apiKeyEnv: STUB_KEY' });
  const secrets = { authorization: 'Bearer sk-client', cookie: 'a=b', 'x-api-key': 'sk-client', 'openai-organization': 'org', 'x-forwarded-for': '1.2.3.4', 'x-gateway-destination-endpoint': '10.0.0.1:80', 'x-prefiller-host-port': '10.0.0.1:80' };
  await post(gateway, CHAT, { ...secrets, traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', accept: 'application/json' });
  const { host: _host, ...headers } = upstream.requests[0]?.headers ?? {};
  expect(headers).toEqual({
    accept: 'application/json',
    authorization: 'Bearer sk-replica',
    connection: 'keep-alive',
    'content-length': '57',
    'content-type': 'application/json',
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    via: '1.1 paceline',
    'x-request-id': expect.any(String),
  });
});

test('SLO headers are said anew upstream, less what has been spent', async () => {
  const { gateway, upstream } = await start();
  await post(gateway, CHAT, { 'x-llm-d-slo-ttft-ms': '800', 'x-slo-tpot-ms': '40', 'x-llm-d-inference-ttl': '9s' });
  const headers = upstream.requests[0]?.headers ?? {};
  expect(Number(headers['x-slo-ttft-ms'])).toBeLessThanOrEqual(800);
  expect(Number(headers['x-slo-ttft-ms'])).toBeGreaterThan(300);
  expect(headers['x-slo-tpot-ms']).toBe('40');
  expect(Number(headers['x-request-deadline-ms'])).toBeGreaterThan(8000);
  expect(headers['x-llm-d-inference-ttl']).toBeUndefined();
});

test("of the server's headers only those allowed reach the client", async () => {
  const { gateway } = await start({
    answer: (_request, _incoming, outgoing) => {
      outgoing.writeHead(429, { 'content-type': 'application/json', server: 'uvicorn', 'set-cookie': 'a=b', 'x-internal': 'x', 'retry-after': '3', 'x-request-id': 'theirs' });
      outgoing.end('{"error":{"message":"slow down"}}');
    },
  });
  const answer = await post(gateway, CHAT, { 'x-request-id': 'mine' });
  expect(answer.status).toBe(429);
  expect(await answer.json()).toEqual({ error: { message: 'slow down' } });
  expect([...answer.headers.keys()].sort()).toEqual(['connection', 'content-type', 'date', 'keep-alive', 'openai-processing-ms', 'retry-after', 'transfer-encoding', 'x-paceline-predicted-ttft-ms', 'x-paceline-replica', 'x-request-id']);
  expect(answer.headers.get('x-request-id')).toBe('mine');
  expect(await gateway.event('ended')).toMatchObject({ outcome: 'failed' });
});

test('a model that the server knows by another name is sent by that name', async () => {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const { startConfigured, testConfig, PROFILE } = await import('../fixtures/gateway-under-test.ts');
  const gateway = await startConfigured(testConfig(`replicas: [{ id: r0, url: '${upstream.url}', models: { short: org/long-name }, profile: ${PROFILE} }]`));
  opened.push(gateway);
  await post(gateway, '{"n":1.0,"model":"short","messages":[]}');
  expect(upstream.requests[0]?.body).toBe('{"n":1.0,"model":"org/long-name","messages":[]}');
});

test.each([
  ['broken JSON', '{"model":', {}, 400, { type: 'invalid_request_error', param: null, code: null }],
  ['no model', {}, {}, 400, { param: 'model' }],
  ['an unknown model', { model: 'gpt-9' }, {}, 404, { code: 'model_not_found', param: 'model' }],
  ['a bad SLO header', CHAT, { 'x-slo-ttft-ms': '-1' }, 400, { param: 'x-slo-ttft-ms', message: expect.stringContaining("got '-1'") }],
  ['a compressed body', CHAT, { 'content-encoding': 'gzip' }, 415, { type: 'invalid_request_error' }],
])('%s is refused in the shape of OpenAI, with a request id, and costs no server anything', async (_what, body, headers, status, error) => {
  const { gateway, upstream } = await start();
  const answer = await post(gateway, body, headers as Record<string, string>);
  expect(answer.status).toBe(status);
  expect(answer.headers.get('x-request-id')).toBeTruthy();
  const parsed = (await answer.json()) as { error: object };
  expect(Object.keys(parsed.error)).toEqual(['message', 'type', 'param', 'code']);
  expect(parsed.error).toMatchObject(error);
  expect(upstream.requests).toHaveLength(0);
});

test.each([
  ['DELETE', '/v1/chat/completions', 'POST, OPTIONS'],
  ['GET', '/v1/messages', 'POST, OPTIONS'],
  ['POST', '/v1/models', 'GET, HEAD, OPTIONS'],
])('%s %s is refused with the methods that there are', async (method, path, allowed) => {
  const { gateway } = await start();
  const answer = await fetch(gateway.url + path, { method });
  expect(answer.status).toBe(405);
  expect(answer.headers.get('allow')).toBe(allowed);
  expect(JSON.stringify(await answer.json())).toContain(method);
  const options = await fetch(gateway.url + path, { method: 'OPTIONS' });
  expect([options.status, options.headers.get('allow'), await options.text()]).toEqual([204, allowed, '']);
});

test.each([
  ['POST', '/v1/files'],
  ['GET', '/metrics'],
  ['GET', '/paceline/status'],
])('%s %s is no route here', async (method, path) => {
  const { gateway } = await start();
  const answer = await fetch(gateway.url + path, { method });
  expect(answer.status).toBe(404);
  expect(await answer.json()).toMatchObject({ error: { code: 'unknown_url' } });
});

test('a body of the largest size passes, one byte more does not', async () => {
  const { gateway, upstream } = await start({ more: 'limits: { bodyBytesMax: 4096 }' });
  const bodyOf = (bytes: number): string => {
    const empty = JSON.stringify({ ...CHAT, user: '' });
    return JSON.stringify({ ...CHAT, user: 'x'.repeat(bytes - empty.length) });
  };
  expect((await post(gateway, bodyOf(4096))).status).toBe(200);
  const refused = await post(gateway, bodyOf(4097));
  expect(refused.status).toBe(413);
  expect(await refused.json()).toMatchObject({ error: { message: 'The request body is larger than the 4096 bytes allowed', code: 'request_too_large' } });
  expect(upstream.requests).toHaveLength(1);
});

test('a body that does not tell its size is refused where it passes the bound', async () => {
  const { gateway } = await start({ more: 'limits: { bodyBytesMax: 4096 }' });
  const stream = new ReadableStream({
    start(controller) {
      for (let index = 0; index < 5; index++) controller.enqueue(Buffer.alloc(1000, 0x20));
      controller.close();
    },
  });
  const answer = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: stream, duplex: 'half' } as RequestInit);
  expect(answer.status).toBe(413);
});

test('tenants are known by their keys, others are sent away', async () => {
  const hash = createHash('sha256').update('sk-acme').digest('hex');
  const { gateway } = await start({ more: `tenants: [{ name: acme, apiKeySha256: [${hash}] }]` });
  expect((await post(gateway)).status).toBe(401);
  const wrong = await post(gateway, CHAT, { authorization: 'Bearer sk-other' });
  expect(wrong.status).toBe(401);
  expect(await wrong.json()).toMatchObject({ error: { code: 'invalid_api_key' } });
  expect((await post(gateway, CHAT, { authorization: 'Bearer sk-acme' })).status).toBe(200);
  expect(await gateway.event('arrived')).toMatchObject({ job: { tenant: 'acme' } });
  expect((await fetch(`${gateway.url}/v1/models`)).status).toBe(401);
});

test('without a replica that is up the answer is 503 and says when to come back', async () => {
  const upstream = await createStubUpstream();
  upstream.healthStatus = 503;
  opened.push(upstream);
  const gateway = await startGateway([upstream], { waitUp: false });
  opened.push(gateway);
  const answer = await post(gateway);
  expect(answer.status).toBe(503);
  expect(Object.fromEntries(answer.headers)).toMatchObject({ 'x-should-retry': 'true', 'retry-after': '1', 'retry-after-ms': '1000', 'x-llm-d-request-dropped-reason': 'rejected-no-endpoints' });
});

test('a full queue is 429 and says when to come back', async () => {
  const { gateway, upstream } = await start({ answer: () => {}, replica: 'concurrencyMax: 1', more: 'limits: { queuedMax: 0 }\ntimeouts: { drainMs: 0 }' });
  const first = new AbortController();
  const held = post(gateway, CHAT, {}, undefined, first.signal).catch(() => {});
  await eventually(() => upstream.requests.length === 1);
  const answer = await post(gateway);
  expect(answer.status).toBe(429);
  expect(Object.fromEntries(answer.headers)).toMatchObject({ 'x-should-retry': 'true', 'retry-after': '1', 'x-llm-d-request-dropped-reason': 'rejected-saturated' });
  first.abort();
  await held;
});

test.each([
  ['before its answer', ((_request, incoming) => void incoming.socket.destroy()) as Answer, 'upstream_broken'],
  ["because it refuses the gateway's key", ((_request, _incoming, outgoing) => void outgoing.writeHead(401).end('{}')) as Answer, 'upstream_refused'],
])('a server that breaks off %s is 502', async (_what, answer, code) => {
  const { gateway } = await start({ answer });
  const answered = await post(gateway);
  expect(answered.status).toBe(502);
  expect(await answered.json()).toMatchObject({ error: { code, type: 'server_error' } });
  expect(await gateway.event('ended')).toMatchObject({ outcome: 'failed' });
});

test.each([
  ['whether usage was asked for by the gateway alone', {}],
  ['or by the client', { stream_options: { include_usage: true } }],
])('a stream that the server breaks off ends with an error event of its own, and without the half of one, %s', async (_what, more) => {
  const { gateway } = await start({
    answer: (_request, incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      outgoing.write('data: {"choices":[{"delta":{"content":"Hi"}}]}\n\ndata: {"cho', () => incoming.socket.destroy());
    },
  });
  const text = await (await post(gateway, { ...CHAT, stream: true, ...more })).text();
  const events = text.split('\n\n');
  expect(events.slice(0, -2)).toEqual(['data: {"choices":[{"delta":{"content":"Hi"}}]}']);
  expect(JSON.parse((events.at(-2) ?? '').slice('data: '.length))).toMatchObject({ error: { type: 'server_error', code: 'upstream_broken' } });
  expect(await gateway.event('ended')).toMatchObject({ outcome: 'failed' });
});

test('an answer without streaming that breaks off is cut, never passed off as whole', async () => {
  const { gateway } = await start({
    answer: (_request, incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'application/json' });
      outgoing.write('{"half":', () => incoming.socket.destroy());
    },
  });
  const answer = await post(gateway);
  await expect(answer.text()).rejects.toThrow();
});

test('a server that does not begin in time is 504, and its connection is closed', async () => {
  const { gateway, upstream } = await start({ answer: () => {}, more: 'timeouts: { firstByteMs: 60, drainMs: 0 }' });
  const answer = await post(gateway);
  expect(answer.status).toBe(504);
  await upstream.requests[0]?.aborted;
});

test('a client that never reads its answer is cut, and so is the server', async () => {
  const piece = Buffer.from(`data: {"choices":[{"delta":{"content":"${'x'.repeat(60_000)}"}}]}\n\n`);
  const { gateway, upstream } = await start({
    more: 'timeouts: { stallMs: 200, drainMs: 0 }',
    answer: (_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      const fill = (): void => {
        while (!outgoing.destroyed && outgoing.write(piece));
      };
      outgoing.on('drain', fill);
      fill();
    },
  });
  const { hostname, port } = new URL(gateway.url);
  const socket = connect(Number(port), hostname);
  const body = JSON.stringify({ ...CHAT, stream: true });
  socket.pause();
  socket.on('error', () => {});
  socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  await eventually(() => upstream.requests.length === 1);
  await upstream.requests[0]?.aborted;
  expect(await gateway.event('ended')).toMatchObject({ outcome: 'failed' });
  // As long again for what was left; only then is the client's end looked at.
  await new Promise((resolve) => setTimeout(resolve, 500));
  socket.resume();
  await once(socket, 'close');
});

test('headers of a stream are not held back until its first token', async () => {
  let finish = (): void => {};
  const { gateway } = await start({
    answer: (_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      outgoing.flushHeaders();
      finish = () => outgoing.end('data: [DONE]\n\n');
    },
  });
  const answer = await post(gateway, { ...CHAT, stream: true });
  expect(answer.status).toBe(200);
  finish();
  expect(await answer.text()).toBe('data: [DONE]\n\n');
});

// Complaints 1 to 8: every way in which a gateway forgets that its client has left.
const PHASES: readonly { readonly name: string; readonly answer: Answer; readonly reached: (upstream: StubUpstream) => boolean }[] = [
  { name: 'before headers', answer: () => {}, reached: (upstream) => upstream.requests.length === 1 },
  {
    name: 'after headers',
    answer: (_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      outgoing.flushHeaders();
    },
    reached: (upstream) => upstream.requests.length === 1,
  },
  {
    name: 'in the middle of the body',
    answer: (_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      const timer = setInterval(() => outgoing.write('data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'), 2);
      outgoing.once('close', () => clearInterval(timer));
    },
    reached: (upstream) => upstream.requests.length === 1,
  },
];
const CANCELLATIONS = PHASES.flatMap((phase) => ['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/embeddings'].flatMap((path) => [true, false].map((stream) => ({ ...phase, path, stream }))));

test.each(CANCELLATIONS)('a client that leaves $name ($path, stream $stream) frees the server at once', async ({ answer, reached, path, stream }) => {
  const { gateway, upstream } = await start({ answer, more: 'timeouts: { drainMs: 0 }' });
  const leave = new AbortController();
  const asked = post(gateway, { ...CHAT, stream }, {}, path, leave.signal).then((response) => response.text()).catch(() => 'left');
  await eventually(() => reached(upstream));
  const leftAtMs = performance.now();
  leave.abort();
  await upstream.requests[0]?.aborted;
  expect(performance.now() - leftAtMs).toBeLessThan(500);
  expect(await gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
  expect(await asked).toBe('left');
});

test.each([true, false])('a client that leaves while queued is never sent on (stream %s)', async (stream) => {
  const { gateway, upstream } = await start({ answer: () => {}, replica: 'concurrencyMax: 1', more: 'timeouts: { drainMs: 0 }' });
  const [first, second] = [new AbortController(), new AbortController()];
  void post(gateway, { ...CHAT, stream }, {}, undefined, first.signal).catch(() => {});
  await eventually(() => upstream.requests.length === 1);
  void post(gateway, { ...CHAT, stream }, {}, undefined, second.signal).catch(() => {});
  await eventually(() => gateway.events.filter(({ kind }) => kind === 'arrived').length === 2);
  second.abort();
  expect(await gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
  first.abort();
  await eventually(() => gateway.events.filter(({ kind }) => kind === 'ended').length === 2);
  expect(upstream.requests).toHaveLength(1);
});

test('a client that leaves with several requests on one connection frees all of them', async () => {
  const { gateway, upstream } = await start({ answer: () => {}, more: 'timeouts: { drainMs: 0 }' });
  const { hostname, port } = new URL(gateway.url);
  const socket = connect(Number(port), hostname);
  const body = JSON.stringify(CHAT);
  const request = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
  socket.write(request + request);
  await eventually(() => upstream.requests.length === 2);
  socket.destroy();
  await Promise.all(upstream.requests.map(({ aborted }) => aborted));
  await eventually(() => gateway.events.filter((event) => event.kind === 'ended' && event.outcome === 'cancelled').length === 2);
});

test('a client that leaves in the middle of its own body leaves nothing behind', async () => {
  const { gateway } = await start();
  const { hostname, port } = new URL(gateway.url);
  const socket = connect(Number(port), hostname);
  socket.write('POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"model"');
  await once(socket, 'connect');
  socket.destroy();
  expect((await post(gateway)).status).toBe(200);
  expect(gateway.events.filter(({ kind }) => kind === 'arrived')).toHaveLength(1);
});

test('a client that reads slowly slows the server down instead of filling memory', async () => {
  let written = 0;
  const { gateway, upstream } = await start({
    more: 'timeouts: { drainMs: 0 }',
    answer: endless((bytes) => (written += bytes)),
  });
  const { hostname, port } = new URL(gateway.url);
  const socket = connect(Number(port), hostname);
  const body = JSON.stringify({ ...CHAT, stream: true });
  socket.pause();
  socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  await eventually(() => upstream.requests.length === 1);
  let before = -1;
  await eventually(async () => {
    if (written === before && written > 0) return true;
    before = written;
    await new Promise((resolve) => setTimeout(resolve, 200));
    return false;
  });
  // What fits into the sockets' buffers of four ends, and our own 64 KB.
  expect(written).toBeLessThan(24 * 1024 * 1024);
  const stalled = written;
  let read = 0;
  socket.on('data', (chunk) => (read += chunk.length));
  socket.resume();
  await eventually(() => read > stalled + 1_000_000);
  socket.destroy();
  await upstream.requests[0]?.aborted;
});

test('an upload goes on as it came, to the model that its form names', async () => {
  const { gateway, upstream } = await start({ answer: (_request, _incoming, outgoing) => void outgoing.writeHead(200, { 'content-type': 'text/plain', 'content-disposition': 'inline' }).end('said') });
  const form = new FormData();
  form.set('file', new Blob([Buffer.from([0, 255, 13, 10])]), 'a.wav');
  form.set('model', 'm');
  const answer = await fetch(`${gateway.url}/v1/audio/transcriptions?x=1`, { method: 'POST', body: form });
  expect([answer.status, await answer.text(), answer.headers.get('content-disposition')]).toEqual([200, 'said', 'inline']);
  expect(upstream.requests[0]).toMatchObject({ path: '/v1/audio/transcriptions?x=1', headers: { 'content-type': expect.stringMatching(/^multipart\/form-data; boundary=/) } });
  expect(upstream.requests[0]?.body).toContain('name="model"\r\n\r\nm\r\n');
});

test('paths of the allow-list go on with any method; others do not, however they are written', async () => {
  const { gateway, upstream } = await start({ more: "passThrough: ['/v1/files/*', /v1/load]", answer: ({ path }, incoming, outgoing) => void outgoing.end(`${incoming.method} ${path}`) });
  const asked = async (method: string, path: string): Promise<string> => (await fetch(gateway.url + path, { method })).text();
  expect(await asked('GET', '/v1/files/f-1?after=2')).toBe('GET /v1/files/f-1?after=2');
  expect(await asked('DELETE', '/v1/files/f-1')).toBe('DELETE /v1/files/f-1');
  expect(await asked('POST', '/v1/load')).toBe('POST /v1/load');
  expect((await fetch(`${gateway.url}/v1/files/f-1`, { method: 'HEAD' })).status).toBe(200);
  const seen = upstream.requests.length;
  for (const path of ['/v1/loads', '/v1/files', '/v1/files/..%2f..%2fmetrics', '/v1/files/%2e%2e/metrics', '/v1/files//x', '/v1/files/%00', '/v1/files/%252e%252e/x', '/v1/files/a;b/x']) expect(await asked('GET', path)).toContain('unknown_url');
  // `fetch` sends neither.
  for (const [method, path] of [['TRACE', '/v1/files/x'], ['GET', '/v1/files/./x'], ['GET', '/v1/files/../x']] as const) expect(await raw(gateway, `${method} ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`)).toContain('unknown_url');
  expect(upstream.requests).toHaveLength(seen);
});

test('a request that names no model goes where there is one, and is told so where there are several', async () => {
  const { gateway } = await start();
  expect((await post(gateway, { prompt: 'x' }, {}, '/tokenize')).status).toBe(200);
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const two = await startConfigured(testConfig(`replicas:\n  - { id: a, url: '${upstream.url}', models: [m, n], profile: ${PROFILE} }\n`));
  opened.push(two);
  const refused = await post(two, { prompt: 'x' }, {}, '/tokenize');
  expect([refused.status, await refused.json()]).toEqual([400, { error: expect.objectContaining({ param: 'model', message: expect.stringContaining('?model=') }) }]);
  expect((await post(two, { prompt: 'x' }, {}, '/tokenize?model=n')).status).toBe(200);
});

test("Anthropic's endpoint is refused in Anthropic's words, and its key is looked for where its SDK sends it", async () => {
  const { gateway, upstream } = await start({ more: `tenants: [{ name: t, apiKeySha256: ['${createHash('sha256').update('sk-t').digest('hex')}'] }]` });
  const message = { ...CHAT, max_tokens: 5 };
  const refused = await post(gateway, message, {}, '/v1/messages');
  expect([refused.status, await refused.json()]).toEqual([401, { type: 'error', error: { type: 'authentication_error', message: expect.any(String) } }]);
  expect((await post(gateway, message, { 'x-api-key': 'sk-t', 'anthropic-version': '2023-06-01' }, '/v1/messages')).status).toBe(200);
  expect(upstream.requests[0]?.headers).toMatchObject({ 'anthropic-version': '2023-06-01' });
  expect(upstream.requests[0]?.headers['x-api-key']).toBeUndefined();
});

test('trailers that the server announced follow the answer, those that would change its meaning do not', async () => {
  const { gateway } = await start({
    answer: (_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'application/json', trailer: 'x-checksum, set-cookie, keep-alive, upgrade' });
      outgoing.write('{}');
      outgoing.addTrailers({ 'x-checksum': 'abc', 'set-cookie': 'a=b', 'x-unannounced': '1', 'keep-alive': 'timeout=1', upgrade: 'x' });
      outgoing.end();
    },
  });
  const request = httpRequest(`${gateway.url}/v1/chat/completions`, { method: 'POST', agent: false });
  request.end(JSON.stringify(CHAT));
  const [answer] = (await once(request, 'response')) as [IncomingMessage];
  answer.resume();
  await once(answer, 'end');
  expect(answer.trailers).toEqual({ 'x-checksum': 'abc' });
});

test('a request whose replica cannot be reached goes to another, with its body as it came, once and under one id', async () => {
  const [dead, alive] = [await createStubUpstream(), await createStubUpstream()];
  opened.push(alive);
  // Probes are too rare to tell: the request is the first to find out.
  const gateway = await startGateway([dead, alive], { more: 'health: { everyMs: 60000, timeoutMs: 500, failuresMax: 3 }\ntimeouts: { drainMs: 100 }' });
  opened.push(gateway);
  await eventually(async () => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { replicas: { state: string }[] }).replicas.every(({ state }) => state === 'up'));
  await dead.close();
  const answers = await Promise.all(Array.from({ length: 8 }, (_, index) => post(gateway, { ...CHAT, index }, { 'x-request-id': `id-${index}` })));
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
  expect(answers.map(({ headers }) => headers.get('x-paceline-replica'))).toEqual(answers.map(() => 'r1'));
  expect(alive.requests.map(({ body, headers }) => [(JSON.parse(body) as { index: number }).index, String(headers['x-request-id']).slice(0, 5)]).sort()).toEqual(answers.map((_, index) => [index, `id-${index}-`]));
  const events = gateway.events.filter(({ kind }) => kind === 'returned' || kind === 'ended');
  expect(events.filter(({ kind }) => kind === 'returned').length).toBeGreaterThan(0);
  await eventually(() => gateway.events.filter(({ kind }) => kind === 'ended').length === answers.length);
});

/** All that a connection is answered until it closes. */
function raw(gateway: GatewayUnderTest, text: string): Promise<string> {
  const client = rawClient(gateway.url);
  opened.push(client);
  client.write(text);
  return client.ended;
}

test.each([
  ['UTF-8', Buffer.from('attachment; filename="日本é.txt"'), Buffer.from('attachment; filename="日本é.txt"').toString('latin1')],
  ['bytes that are none', Buffer.from([0x61, 0xe9, 0xff]), 'a\u00e9\u00ff'],
])('a header of the server in %s spoils no answer', async (_what, bytes, expected) => {
  const { gateway } = await start({
    answer: (_request, incoming) => void incoming.socket.write(Buffer.concat([Buffer.from('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\ntrailer: x-sum\r\ncontent-disposition: '), bytes, Buffer.from('\r\n\r\n{}')])),
  });
  const body = JSON.stringify(CHAT);
  const answer = await raw(gateway, `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  expect(answer.endsWith('\r\n\r\n{}')).toBe(true);
  expect(/^content-disposition: (.*)$/m.exec(answer)?.[1]?.trim() ?? null).toBe(expected);
});

test('a server that answers before it has read the request keeps no later request waiting behind what is unread', async () => {
  let asked = 0;
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (chunk) => {
      const text = chunk.toString('latin1');
      if (text.startsWith('GET')) return void socket.end('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
      asked += 1;
      // The first is refused by its head alone, and nobody reads on.
      if (asked === 1) socket.pause();
      socket.write(asked === 1 ? 'HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n' : 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const gateway = await startConfigured(testConfig(`replicas:\n  - { id: a, url: 'http://127.0.0.1:${(server.address() as AddressInfo).port}', models: [m], profile: ${PROFILE} }\ntimeouts: { firstByteMs: 3000, drainMs: 100 }\n`));
  opened.push({ close: async () => void server.close() }, gateway);
  expect((await post(gateway, { ...CHAT, user: 'x'.repeat(9_000_000) })).status).toBe(413);
  expect((await post(gateway)).status).toBe(200);
});

test('a tenant sees and uses the models it may, and the others are to it as if they were not there', async () => {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const hash = (key: string): string => createHash('sha256').update(key).digest('hex');
  const gateway = await startConfigured(testConfig(`replicas:\n  - { id: a, url: '${upstream.url}', models: [m, n], profile: ${PROFILE} }\ntenants:\n  - { name: some, apiKeySha256: ['${hash('sk-some')}'], models: [m] }\n  - { name: all, apiKeySha256: ['${hash('sk-all')}'] }\n`));
  opened.push(gateway);
  const as = (key: string) => ({ authorization: `Bearer ${key}` });
  const listed = async (key: string): Promise<unknown> => ((await (await fetch(`${gateway.url}/v1/models`, { headers: as(key) })).json()) as { data: { id: string }[] }).data.map(({ id }) => id);
  expect([await listed('sk-some'), await listed('sk-all')]).toEqual([['m'], ['m', 'n']]);
  expect((await fetch(`${gateway.url}/v1/models/n`, { headers: as('sk-some') })).status).toBe(404);
  const refused = await post(gateway, { ...CHAT, model: 'n' }, as('sk-some'));
  expect([refused.status, await refused.json()]).toEqual([404, { error: expect.objectContaining({ code: 'model_not_found' }) }]);
  expect((await post(gateway, CHAT, as('sk-some'))).status).toBe(200);
  expect((await post(gateway, { ...CHAT, model: 'n' }, as('sk-all'))).status).toBe(200);
  // Of what it may use there is one alone, so that it need not be named.
  expect((await post(gateway, { prompt: 'x' }, as('sk-some'), '/tokenize')).status).toBe(200);
  expect((await post(gateway, { prompt: 'x' }, as('sk-all'), '/tokenize')).status).toBe(400);
});
