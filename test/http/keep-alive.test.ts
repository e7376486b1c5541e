// A stream that waits, for a place or for its server's first byte, is kept alive with comments; what its client then gets is
// one event stream, whatever becomes of the request.
import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import type { Config, TenantConfig } from '../../src/config.ts';
import { createKeepAlive } from '../../src/http/keep-alive.ts';
import { REFUSED_BYTES_MAX } from '../../src/http/refused-answer.ts';
import { http2Client } from '../fixtures/clients.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startConfigured, testConfig } from '../fixtures/gateway-under-test.ts';
import { ENDPOINT_PATHS, EVENT, leavingBody } from '../fixtures/leaving.ts';
import type { RawClient, RawResponse } from '../fixtures/raw-client.ts';
import { headerOf, openRawClient, rawPost } from '../fixtures/raw-client.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { completion, createStubUpstream, streamEvents } from '../fixtures/stub-upstream.ts';

const COMMENT = ': keep-alive\n\n';
/** Shorter than the config allows, which is for people: a test is to see several. */
const EVERY_MS = 30;

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

interface Fleet {
  readonly gateway: GatewayUnderTest;
  readonly upstreams: readonly StubUpstream[];
}

async function start(answers: readonly Answer[], { more = '', replica = '', everyMs = EVERY_MS }: { readonly more?: string; readonly replica?: string; readonly everyMs?: number } = {}): Promise<Fleet> {
  const upstreams: StubUpstream[] = [];
  for (const answer of answers) upstreams.push(await createStubUpstream(answer));
  opened.push(...upstreams);
  const replicas = upstreams.map(({ url }, index) => `  - { id: r${index}, url: '${url}', models: [m], profile: ${PROFILE}${replica} }\n`).join('');
  const config = testConfig(`replicas:\n${replicas}planner: { policy: max-clock }\n${more.includes('timeouts:') ? '' : 'timeouts: { drainMs: 0 }\n'}${more}`);
  const gateway = await startConfigured(withKeepAlive(config, everyMs));
  opened.push(gateway);
  await eventually(() => gateway.events.filter(({ kind }) => kind === 'replica-health').length >= answers.length);
  return { gateway, upstreams };
}

function withKeepAlive(config: Config, keepAliveMs: number): Config {
  const of = (tenant: TenantConfig): TenantConfig => ({ ...tenant, admission: { ...tenant.admission, keepAliveMs } });
  return { ...config, anonymous: config.anonymous === null ? null : of(config.anonymous), tenantsByKeySha256: new Map([...config.tenantsByKeySha256].map(([hash, tenant]) => [hash, of(tenant)])) };
}

async function client({ gateway }: Fleet): Promise<RawClient> {
  const raw = await openRawClient(gateway.url);
  opened.push({ close: async () => void raw.socket.destroy() });
  return raw;
}

/** Sends a stream's request and waits until two comments have come for it. */
async function kept(fleet: Fleet, path: string = ENDPOINT_PATHS.chat, headers: readonly string[] = []): Promise<RawClient> {
  const raw = await client(fleet);
  raw.write(rawPost(path, leavingBody(true), headers));
  await comments(raw, 2);
  return raw;
}

async function comments(raw: RawClient, count: number): Promise<void> {
  await eventually(() => raw.rest().toString('latin1').split(COMMENT).length > count);
}

/** What came behind the comments, which all stand in front. */
function behind({ body }: RawResponse): string {
  const text = body.toString('utf8');
  let at = 0;
  while (text.startsWith(COMMENT, at)) at += COMMENT.length;
  expect(at).toBeGreaterThanOrEqual(2 * COMMENT.length);
  expect(text.slice(at)).not.toContain(COMMENT);
  return text.slice(at);
}

function errorIn(answer: RawResponse): { message: string; type: string; code: string | null } {
  expect(answer).toMatchObject({ status: 200, whole: true });
  const text = behind(answer);
  const lines = text.trimEnd().split('\n');
  expect(text.endsWith('\n\n')).toBe(true);
  expect(lines).toHaveLength(1);
  return (JSON.parse((lines[0] as string).slice('data: '.length)) as { error: { message: string; type: string; code: string | null } }).error;
}

const inFlight = async ({ gateway }: Fleet): Promise<number> => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { inFlight: number }).inFlight;

/** Answers when it is told to. */
function held(answer: Answer): { readonly answer: Answer; release(): void } {
  const gate = Promise.withResolvers<void>();
  return {
    answer: async (...args) => {
      await gate.promise;
      await answer(...args);
    },
    release: () => gate.resolve(),
  };
}

const silent: Answer = () => {};
const says = (status: number, body: string, headers: Record<string, string> = { 'content-type': 'application/json' }): Answer => (_request, _incoming, outgoing) => void outgoing.writeHead(status, headers).end(body);

describe('a stream that waits for its server', () => {
  test.each([ENDPOINT_PATHS.chat, ENDPOINT_PATHS.completions, ENDPOINT_PATHS.responses, ENDPOINT_PATHS.messages])('gets headers and comments, and then the answer, byte for byte (%s)', async (path) => {
    const stream = `${EVENT}${EVENT}data: [DONE]\n\n`;
    const late = held(says(200, stream, { 'content-type': 'text/event-stream', 'openai-version': '2020-10-01' }));
    const fleet = await start([late.answer]);
    const raw = await kept(fleet, path, ['x-request-id: mine-1']);
    late.release();
    const answer = await raw.read();
    expect([answer.status, answer.framing, answer.whole]).toEqual([200, 'chunked', true]);
    expect(behind(answer)).toBe(stream);
    expect(Object.fromEntries(answer.headers.map(([name, value]) => [name.toLowerCase(), value]))).toEqual({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-request-id': 'mine-1',
      date: expect.any(String),
      connection: 'keep-alive',
      'keep-alive': expect.any(String),
      'transfer-encoding': 'chunked',
    });
    expect(await fleet.gateway.event('ended')).toMatchObject({ outcome: 'finished' });
    // The connection serves the next one.
    raw.write(rawPost(path, leavingBody(false)));
    expect((await raw.read()).status).toBe(200);
  });

  test('which sends headers and nothing else gets those, and comments until the first byte', async () => {
    const gate = Promise.withResolvers<void>();
    const fleet = await start([
      async (_request, _incoming, outgoing) => {
        outgoing.writeHead(200, { 'content-type': 'text/event-stream', 'openai-version': '2020-10-01' }).flushHeaders();
        await gate.promise;
        outgoing.end(`${EVENT}data: [DONE]\n\n`);
      },
    ], { everyMs: 500 });
    const raw = await kept(fleet);
    gate.resolve();
    const answer = await raw.read();
    expect([headerOf(answer, 'openai-version'), headerOf(answer, 'x-paceline-replica')]).toEqual(['2020-10-01', 'r0']);
    expect(behind(answer)).toBe(`${EVENT}data: [DONE]\n\n`);
  });

  test.each([
    { what: 'that is no stream', status: 400, headers: { 'content-type': 'application/json' }, body: '{"error":{"message":"no"}}' },
    { what: 'that is a compressed stream', status: 200, headers: { 'content-type': 'text/event-stream', 'content-encoding': 'gzip' }, body: 'zzzz' },
    { what: 'that is a stream with a length', status: 200, headers: { 'content-type': 'text/event-stream', 'content-length': String(EVENT.length) }, body: EVENT, asksUsage: false },
  ])('gets an answer $what, whose headers came in time, without a comment in it', async ({ status, headers, body, asksUsage = true }) => {
    const gate = Promise.withResolvers<void>();
    const fleet = await start([
      async (_request, _incoming, outgoing) => {
        outgoing.writeHead(status, headers).flushHeaders();
        await gate.promise;
        outgoing.end(body);
      },
    ], { everyMs: 500, replica: `, asksUsage: ${asksUsage}` });
    const raw = await client(fleet);
    raw.write(rawPost(ENDPOINT_PATHS.chat, leavingBody(true)));
    await eventually(() => raw.rest().includes('\r\n\r\n'));
    await new Promise((resolve) => setTimeout(resolve, 700));
    gate.resolve();
    const answer = await raw.read();
    expect([answer.status, answer.body.toString()]).toEqual([status, body]);
  });

  test('gets no comment once its answer has begun, nor in the middle of an event', async () => {
    const late = held(async (_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      for (const piece of [EVENT.slice(0, 20), EVENT.slice(20), 'data: '.padEnd(9_000, 'x'), '\n\n', EVENT]) {
        outgoing.write(piece);
        await new Promise((resolve) => setTimeout(resolve, 4 * EVERY_MS));
      }
      outgoing.end('data: [DONE]\n\n');
    });
    const raw = await kept(await start([late.answer]));
    late.release();
    expect(behind(await raw.read())).toBe(`${EVENT}${'data: '.padEnd(9_000, 'x')}\n\n${EVENT}data: [DONE]\n\n`);
  });

  test('whose answer begins with a byte order mark gets it without: it would not stand at the beginning', async () => {
    const late = held(says(200, `\ufeff${EVENT}`, { 'content-type': 'text/event-stream' }));
    const raw = await kept(await start([late.answer]));
    late.release();
    expect(behind(await raw.read())).toBe(EVENT);
  });

  test('is sent to another replica all the same where the first refuses it', async () => {
    const late = held(says(503, '{"error":{"message":"full"}}', { 'content-type': 'application/json', 'retry-after': '1' }));
    const fleet = await start([late.answer, completion]);
    const raw = await kept(fleet);
    late.release();
    expect(behind(await raw.read())).toBe(streamEvents({ id: 'chatcmpl-1', created: 1, model: 'm' }).filter((event) => !event.includes('"choices":[]')).join(''));
    expect(fleet.upstreams.map(({ requests }) => requests.length)).toEqual([1, 1]);
    await eventually(async () => (await inFlight(fleet)) === 0);
  });

  test('tells the refusal of the last server in its own words where no other is left, though they have several lines', async () => {
    const body = JSON.stringify({ error: { message: 'full\nindeed', type: 'rate_limit_error', param: null, code: 'x' } }, null, 2);
    const late = held(says(429, body));
    const fleet = await start([late.answer, says(503, body, { 'content-type': 'application/json', 'retry-after': '1' })]);
    const raw = await kept(fleet);
    late.release();
    expect(errorIn(await raw.read())).toEqual({ message: 'full\nindeed', type: 'rate_limit_error', param: null, code: 'x' });
    expect(await fleet.gateway.event('ended')).toMatchObject({ outcome: 'failed' });
    await eventually(async () => (await inFlight(fleet)) === 0);
  });

  test.each([
    { what: "the server's own error", answer: says(400, '{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":null}}'), error: { message: 'too long', type: 'invalid_request_error', param: 'messages', code: null } },
    { what: 'JSON that is no error of this dialect', answer: says(422, '{"object":"error","message":"no"}'), error: { message: 'The model server answered 422: {"object":"error","message":"no"}', type: 'invalid_request_error', param: null, code: null } },
    { what: 'an error that is no JSON', answer: says(500, 'oops\nagain'), error: { message: 'The model server answered 500: oops\nagain', type: 'server_error', param: null, code: null } },
    { what: 'an error without a body', answer: says(429, ''), error: { message: 'The model server answered 429', type: 'rate_limit_error', param: null, code: null } },
    { what: 'an error that cannot be read', answer: says(500, 'zzzz', { 'content-type': 'application/json', 'content-encoding': 'gzip' }), error: { message: 'The model server answered 500', type: 'server_error', param: null, code: null } },
    { what: 'an endless error, quoted as far as it goes', answer: says(500, 'x'.repeat(2 * REFUSED_BYTES_MAX)), error: { message: `The model server answered 500: ${'x'.repeat(500)}`, type: 'server_error', param: null, code: null } },
    { what: 'a refused key of ours', answer: says(401, '{"error":{"message":"sk-replica"}}'), error: { message: expect.stringContaining("gateway's own credentials"), type: 'server_error', param: null, code: 'upstream_refused' } },
    { what: 'an answer that is no stream', answer: says(200, '{"choices":[]}'), error: { message: expect.stringContaining('200, application/json'), type: 'server_error', param: null, code: 'upstream_no_stream' } },
    { what: 'a compressed stream', answer: says(200, 'zzzz', { 'content-type': 'text/event-stream', 'content-encoding': 'gzip' }), error: { message: expect.stringContaining('gzip'), type: 'server_error', param: null, code: 'upstream_no_stream' } },
    { what: 'a broken connection', answer: ((_request, _incoming, outgoing) => void outgoing.destroy()) as Answer, error: { message: expect.stringContaining('before it answered'), type: 'server_error', param: null, code: 'upstream_broken' } },
  ])('gets $what as an event, and the end', async ({ answer, error }) => {
    const late = held(answer);
    const fleet = await start([late.answer]);
    const raw = await kept(fleet);
    late.release();
    expect(errorIn(await raw.read())).toEqual(error);
    expect(await fleet.gateway.event('ended')).toMatchObject({ outcome: 'failed' });
    await eventually(async () => (await inFlight(fleet)) === 0);
    raw.write(rawPost('/v1/unknown', '{}'));
    expect((await raw.read()).status).toBe(404);
  });

  test.each([
    { body: '{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', error: { type: 'overloaded_error', message: 'busy' } },
    { body: '{"error":{"message":"not in its words"}}', error: { type: 'api_error', message: 'The model server answered 500: {"error":{"message":"not in its words"}}' } },
  ])("gets errors of Anthropic's endpoint in Anthropic's words: $body", async ({ body, error }) => {
    const late = held(says(500, body));
    const raw = await kept(await start([late.answer]), ENDPOINT_PATHS.messages);
    late.release();
    const [name, data = ''] = behind(await raw.read()).trimEnd().split('\n');
    expect(name).toBe('event: error');
    expect(JSON.parse(data.slice('data: '.length))).toEqual({ type: 'error', error });
  });

  test('gets the time-out of its server as an event', async () => {
    const fleet = await start([silent], { more: 'timeouts: { drainMs: 0, firstByteMs: 1500 }' });
    expect(errorIn(await (await kept(fleet)).read())).toMatchObject({ code: 'upstream_timeout' });
  });

  test('that breaks off after its headers and before a byte gets the error as an event', async () => {
    const gate = Promise.withResolvers<void>();
    const fleet = await start([
      async (_request, _incoming, outgoing) => {
        await new Promise((resolve) => setTimeout(resolve, 3 * EVERY_MS));
        outgoing.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
        await gate.promise;
        outgoing.destroy();
      },
    ]);
    const raw = await kept(fleet);
    await comments(raw, 6);
    gate.resolve();
    expect(errorIn(await raw.read())).toMatchObject({ code: 'upstream_broken' });
  });

  test.each(Object.entries({ 'an answer without a stream': [ENDPOINT_PATHS.chat, false], embeddings: [ENDPOINT_PATHS.embeddings, true], 'a prompt': [ENDPOINT_PATHS.prompt, true], 'an image': [ENDPOINT_PATHS.opaque, true] } as const))('is not %s: that gets no comments', async (_what, [path, stream]) => {
    const late = held(says(200, '{"whole":1}'));
    const fleet = await start([late.answer]);
    const raw = await client(fleet);
    raw.write(rawPost(path, leavingBody(stream)));
    // Another one's comments show that there was time for them.
    await kept(fleet);
    expect(raw.rest()).toHaveLength(0);
    late.release();
    expect((await raw.read()).body.toString()).toBe('{"whole":1}');
  });

  test('tells its limits with the early headers', async () => {
    const tenant = `tenants:\n  - { name: acme, apiKeySha256: [${createHash('sha256').update('sk-acme').digest('hex')}], limits: { requestsPerMinute: 7 } }\n`;
    const late = held(completion);
    const raw = await kept(await start([late.answer], { more: tenant }), ENDPOINT_PATHS.chat, ['authorization: Bearer sk-acme']);
    late.release();
    const answer = await raw.read();
    expect([headerOf(answer, 'x-ratelimit-limit-requests'), headerOf(answer, 'x-ratelimit-remaining-requests'), headerOf(answer, 'x-paceline-replica')]).toEqual(['7', '6', undefined]);
  });

  test('works over HTTP/2, for an answer and for an error', async () => {
    const late = held(completion);
    const refused = held(says(400, '{"error":{"message":"no"}}'));
    let asked = 0;
    const fleet = await start([(...args) => (asked++ === 0 ? late : refused).answer(...args)]);
    const http2 = await http2Client(fleet.gateway.url);
    opened.push(http2);
    for (const { gate, wanted } of [{ gate: late, wanted: 'Hello' }, { gate: refused, wanted: 'data: {"error":{"message":"no"}}\n\n' }]) {
      const stream = http2.open({ ':method': 'POST', ':path': ENDPOINT_PATHS.chat, 'content-type': 'application/json' });
      stream.end(leavingBody(true));
      let text = '';
      stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
      const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
      expect(headers).toMatchObject({ ':status': 200, 'content-type': 'text/event-stream; charset=utf-8' });
      await eventually(() => text.startsWith(COMMENT + COMMENT));
      gate.release();
      await once(stream, 'close');
      expect(text.replaceAll(COMMENT, '')).toContain(wanted);
      expect(stream.rstCode).toBe(0);
    }
  });
});

describe('a stream that waits in the queue', () => {
  async function full(more = '', everyMs = EVERY_MS): Promise<Fleet & { readonly first: RawClient }> {
    const fleet = await start([silent], { replica: ', concurrencyMax: 1', more, everyMs });
    const first = await client(fleet);
    first.write(rawPost(ENDPOINT_PATHS.chat, leavingBody(true)));
    await eventually(() => fleet.upstreams[0]?.requests.length === 1);
    return { ...fleet, first };
  }

  test('gets comments there, and its answer when a place is free', async () => {
    const fleet = await full();
    const raw = await kept(fleet);
    expect(fleet.upstreams[0]?.requests).toHaveLength(1);
    (fleet.upstreams[0] as StubUpstream).answer = completion;
    fleet.first.socket.destroy();
    expect(behind(await raw.read())).toContain('Hello');
    await eventually(async () => (await inFlight(fleet)) === 0);
  });

  test('for too long is told so by an event', async () => {
    const raw = await kept(await full('admission: { queueTimeoutMs: 1500 }'));
    expect(errorIn(await raw.read())).toMatchObject({ code: 'queue_timeout', type: 'rate_limit_error' });
  });

  test('and whose server goes away is told so by an event', async () => {
    const fleet = await full('health: { everyMs: 50, timeoutMs: 500, failuresMax: 1 }');
    const raw = await kept(fleet);
    (fleet.upstreams[0] as StubUpstream).healthStatus = 500;
    expect(errorIn(await raw.read())).toMatchObject({ code: 'no_replica', type: 'server_error' });
  });

  test('is refused with its status as long as no comment has gone out', async () => {
    const fleet = await full('admission: { queueTimeoutMs: 100 }', 60_000);
    const raw = await client(fleet);
    raw.write(rawPost(ENDPOINT_PATHS.chat, leavingBody(true)));
    expect((await raw.read()).status).toBe(429);
  });
});

test('a client that does not read its comments has one of them waiting for it, and no more', async () => {
  const written: string[] = [];
  const outgoing = Object.assign(new EventEmitter(), { destroyed: false, writableEnded: false, headersSent: true, writableLength: 0, write: (text: string) => written.push(text) });
  const keepAlive = createKeepAlive({ outgoing: outgoing as unknown as ServerResponse, requestId: 'r', everyMs: 1 });
  await eventually(() => written.length >= 2);
  outgoing.writableLength = 1;
  const before = written.length;
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(written).toHaveLength(before);
  outgoing.writableLength = 0;
  await eventually(() => written.length > before);
  keepAlive.stop();
});

describe('a client that leaves while only comments have come', () => {
  const paths = [ENDPOINT_PATHS.chat, ENDPOINT_PATHS.completions, ENDPOINT_PATHS.responses, ENDPOINT_PATHS.messages];
  const WAYS = { closing: ({ socket }: RawClient) => socket.destroy(), resetting: ({ socket }: RawClient) => socket.resetAndDestroy() } as const;

  test.each(paths.flatMap((path) => (['closing', 'resetting'] as const).map((way) => ({ path, way }))))('frees its server and its place ($path, $way)', async ({ path, way }) => {
    const fleet = await start([silent]);
    const raw = await kept(fleet, path);
    WAYS[way](raw);
    await fleet.upstreams[0]?.requests[0]?.aborted;
    expect(await fleet.gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
    await eventually(async () => (await inFlight(fleet)) === 0);
  });

  test('frees its place in the queue, and is never sent on', async () => {
    const fleet = await start([silent], { replica: ', concurrencyMax: 1' });
    const first = await kept(fleet);
    const second = await kept(fleet);
    second.socket.destroy();
    await eventually(async () => (await inFlight(fleet)) === 1);
    first.socket.destroy();
    await eventually(async () => (await inFlight(fleet)) === 0);
    expect(fleet.upstreams[0]?.requests).toHaveLength(1);
  });
});
