// Byte for byte through a whole gateway: a server made of bytes behind it, a client made of bytes before it. What it is
// known to do otherwise than HTTP wants stands in ARCHITECTURE.md.
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { CorpusItem } from '../fixtures/corpus/corpus.ts';
import { CORPUS, HUGE_STREAM } from '../fixtures/corpus/corpus.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';
import { ENDPOINT_PATHS, EVENT, leavingBody, PHASES, STREAM_HEAD, writes } from '../fixtures/leaving.ts';
import type { RawClient, RawResponse } from '../fixtures/raw-client.ts';
import { headerOf, openRawClient, rawPost } from '../fixtures/raw-client.ts';
import type { RawGateway } from '../fixtures/raw-gateway.ts';
import { startRawGateway } from '../fixtures/raw-gateway.ts';
import type { RawAnswer } from '../fixtures/raw-upstream.ts';
import { chunked } from '../fixtures/raw-upstream.ts';

const CHAT = '/v1/chat/completions';
const BODY = '{"model":"m","messages":[{"role":"user","content":"hi"}]}';
/** It asks for the usage itself, so that nothing is taken out of what comes back. */
const STREAM_BODY = '{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}';
let under: RawGateway;
const clients: RawClient[] = [];
beforeAll(async () => {
  under = await startRawGateway();
});
afterAll(() => under.close());
beforeEach(async () => {
  under.upstream.early = () => false;
  under.upstream.requests.length = 0;
  under.gateway.events.length = 0;
  await eventually(async () => (await fetch(`${under.gateway.adminUrl}/readyz`)).status === 200);
});
afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy();
  await under.idle();
});

async function client(options: { readonly allowHalfOpen?: boolean } = {}): Promise<RawClient> {
  const opened = await openRawClient(under.gateway.url, options);
  clients.push(opened);
  return opened;
}

/** One request on its own connection. */
async function ask(answer: RawAnswer, body: string = BODY, headers: readonly string[] = [], path = CHAT): Promise<RawResponse> {
  under.upstream.answer = answer;
  const { write, read } = await client();
  write(rawPost(path, body, headers));
  return read();
}

/** Of every connection a request came over, within a second. */
function upstreamClosed(): Promise<void> {
  return eventually(() => under.upstream.requests.length > 0 && under.upstream.requests.every(({ socket }) => socket.destroyed), 1_000);
}

function okJson(body: string, headers: readonly string[] = []): string {
  return `HTTP/1.1 200 OK\r\n${['content-type: application/json', `content-length: ${Buffer.byteLength(body)}`, ...headers].join('\r\n')}\r\n\r\n${body}`;
}

describe('bodies', () => {
  const contentType = ({ kind }: CorpusItem): string => (kind === 'stream' ? 'text/event-stream; charset=utf-8' : 'application/json');
  const FRAMINGS: Readonly<Record<'length' | 'chunked' | 'close', (item: CorpusItem) => Buffer>> = {
    length: (item) => Buffer.concat([Buffer.from(`HTTP/1.1 ${item.status} Status\r\ncontent-type: ${contentType(item)}\r\ncontent-length: ${item.bytes.length}\r\n\r\n`), item.bytes]),
    chunked: (item) => Buffer.concat([Buffer.from(`HTTP/1.1 ${item.status} Status\r\ncontent-type: ${contentType(item)}\r\ntransfer-encoding: chunked\r\n\r\n`), chunked(item.bytes, [1, 250, 7, 3_000, 64])]),
    close: (item) => Buffer.concat([Buffer.from(`HTTP/1.1 ${item.status} Status\r\ncontent-type: ${contentType(item)}\r\nconnection: close\r\n\r\n`), item.bytes]),
  };
  const cases = [...CORPUS, HUGE_STREAM].flatMap((item) => (['length', 'chunked', 'close'] as const).map((framing) => ({ item, framing, name: item.name })));

  test.each(cases)('$name comes through as it was ($framing)', async ({ item, framing }) => {
    const bytes = FRAMINGS[framing](item);
    const answer = await ask(({ socket }) => void (framing === 'close' ? socket.end(bytes) : socket.write(bytes)), STREAM_BODY, [], ENDPOINT_PATHS[item.endpoint]);
    expect(answer.status).toBe(item.status);
    expect(headerOf(answer, 'content-type')).toBe(contentType(item));
    expect(answer.framing).toBe(framing === 'length' ? 'length' : 'chunked');
    expect(answer.whole).toBe(true);
    expect(answer.body.equals(item.bytes)).toBe(true);
    const ended = await under.gateway.event('ended');
    expect({ outcome: ended.outcome, usage: ended.usage ?? null }).toEqual({ outcome: item.errorInside || item.status >= 400 ? 'failed' : 'finished', usage: item.usage });
  });

  test.each(CORPUS.filter(({ kind, bytes }) => kind === 'stream' && bytes.length < 3_000))('$name comes through in small writes, and its tokens are counted', async (item) => {
    const answer = await ask(({ socket }) => {
      socket.setNoDelay(true);
      const bytes = FRAMINGS.chunked(item);
      let at = 0;
      const next = (): void => {
        socket.write(bytes.subarray(at, at + 97));
        at += 97;
        if (at < bytes.length) setImmediate(next);
      };
      next();
    }, STREAM_BODY);
    expect(answer.body.equals(item.bytes)).toBe(true);
    await under.gateway.event('ended');
    expect(under.gateway.events.reduce((sum, event) => sum + (event.kind === 'tokens' ? event.tokens : 0), 0)).toBe(item.outputEvents);
  });

  test('all of the corpus goes over one connection, without waiting', async () => {
    let answered = 0;
    under.upstream.answer = ({ socket, body }) => {
      const { item } = JSON.parse(body.toString()) as { item: number };
      const bytes = FRAMINGS[(['length', 'chunked'] as const)[item % 2] as 'length' | 'chunked'](CORPUS[item] as CorpusItem);
      // Later ones are sooner ready than those before them.
      setTimeout(() => socket.write(bytes), 20 - (answered++ % 20));
    };
    const { write, read, rest } = await client();
    write(Buffer.concat(CORPUS.map((_, item) => rawPost(CHAT, JSON.stringify({ model: 'm', stream: true, stream_options: { include_usage: true }, messages: [], item })))));
    for (const item of CORPUS) {
      const { status, whole, body } = await read();
      expect({ name: item.name, status, whole, same: body.equals(item.bytes) }).toEqual({ name: item.name, status: item.status, whole: true, same: true });
    }
    expect(rest()).toHaveLength(0);
  });

  test.each(['1.0', '1.1'])('all of the corpus comes through to a client of HTTP/%s that closes', async (version) => {
    for (const item of CORPUS) {
      under.upstream.answer = ({ socket }) => void socket.write(FRAMINGS.chunked(item));
      const { write, read, closed } = await client();
      write(rawPost(ENDPOINT_PATHS[item.endpoint], STREAM_BODY, ['connection: close'], version));
      const { status, whole, body, framing } = await read();
      expect({ name: item.name, status, whole, framing, same: body.equals(item.bytes) }).toEqual({ name: item.name, status: item.status, whole: true, framing: version === '1.0' ? 'close' : 'chunked', same: true });
      expect(await closed).toBe('ended');
    }
  });

  test('a stream that is compressed is passed on compressed', async () => {
    const packed = gzipSync(EVENT.repeat(50));
    const answer = await ask(writes('HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n', chunked(packed, [5, 90])), STREAM_BODY);
    expect(headerOf(answer, 'content-encoding')).toBe('gzip');
    expect(answer.body.equals(packed)).toBe(true);
  });

  test('an answer that is compressed is passed on compressed', async () => {
    const packed = gzipSync(BODY);
    const answer = await ask(writes(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: ${packed.length}\r\n\r\n`, packed), BODY, ['accept-encoding: gzip']);
    expect(headerOf(answer, 'content-encoding')).toBe('gzip');
    expect(answer.body.equals(packed)).toBe(true);
    expect(gunzipSync(answer.body).toString()).toBe(BODY);
  });

  test('trailers end an answer and do not become a part of it', async () => {
    under.upstream.answer = writes(STREAM_HEAD, chunked(Buffer.from(EVENT), [20], 'x-checksum: abc\r\nretry-after: 3\r\n'));
    const { write, read } = await client();
    for (let round = 0; round < 2; round++) {
      write(rawPost(CHAT, STREAM_BODY));
      const answer = await read();
      expect({ body: answer.body.toString(), whole: answer.whole, retryAfter: headerOf(answer, 'retry-after') }).toEqual({ body: EVENT, whole: true, retryAfter: undefined });
    }
  });

  test.each(['HTTP/1.0 200 OK', 'HTTP/1.1 200', 'HTTP/1.1 200 '])('a server that begins with %j is understood, and what it closes is not used again', async (statusLine) => {
    under.upstream.answer = ({ socket }) => void socket.end(`${statusLine}\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n{"n":1}`);
    const { write, read } = await client();
    for (let round = 0; round < 3; round++) {
      write(rawPost(CHAT, BODY));
      const answer = await read();
      expect(answer.statusLine).toBe('HTTP/1.1 200 OK');
      expect(answer.body.toString()).toBe('{"n":1}');
    }
  });

  test('extensions of chunks are no part of a body', async () => {
    const answer = await ask(writes(STREAM_HEAD, `${EVENT.length.toString(16)};name=value;other="x y"\r\n${EVENT}\r\n0;last\r\n\r\n`), STREAM_BODY);
    expect(answer).toMatchObject({ whole: true, framing: 'chunked' });
    expect(answer.body.toString()).toBe(EVENT);
  });

  test.each([204, 304])('a %i has no body and the connection goes on', async (status) => {
    under.upstream.answer = writes(`HTTP/1.1 ${status} None\r\n${status === 304 ? 'content-length: 77\r\n' : ''}\r\n`);
    const { write, read, rest } = await client();
    write(rawPost(CHAT, BODY));
    expect(await read()).toMatchObject({ status, framing: 'none' });
    under.upstream.answer = writes(okJson('{"second":true}'));
    write(rawPost(CHAT, BODY));
    expect((await read()).body.toString()).toBe('{"second":true}');
    expect(rest()).toHaveLength(0);
  });

  test('an empty body stays empty', async () => {
    expect(await ask(writes('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'))).toMatchObject({ status: 200, framing: 'length', whole: true });
    expect((await ask(writes('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n'))).body).toHaveLength(0);
  });
});

describe('statuses and headers', () => {
  test.each([400, 404, 409, 413, 422, 429, 500, 502, 503, 529])('a server that says %i is heard as it said it', async (status) => {
    const body = `{"error":{"message":"status ${status}","type":"t","param":null,"code":${status}}}`;
    const answer = await ask(writes(`HTTP/1.1 ${status} Whatever\r\nContent-Type: application/json\r\nRetry-After: 7\r\nContent-Length: ${body.length}\r\n\r\n${body}`));
    expect(answer.status).toBe(status);
    expect(answer.body.toString()).toBe(body);
    expect(headerOf(answer, 'retry-after')).toBe('7');
    expect(await under.gateway.event('ended')).toMatchObject({ outcome: 'failed' });
  });

  test('a status that says something before the answer is not taken for it', async () => {
    const answer = await ask(writes('HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n', okJson('{"final":true}')));
    expect(answer.status).toBe(200);
    expect(answer.body.toString()).toBe('{"final":true}');
    expect(headerOf(answer, 'link')).toBeUndefined();
  });

  test('headers are known whatever their case', async () => {
    const answer = await ask(writes('HTTP/1.1 200 OK\r\nCONTENT-TYPE: application/json\r\ncOnTeNt-LeNgTh: 2\r\nRetry-AFTER:9\r\n\r\n{}'), BODY, ['X-REQUEST-ID: Mine', 'X-Slo-E2E-MS: 60000']);
    expect(answer.body.toString()).toBe('{}');
    expect(headerOf(answer, 'retry-after')).toBe('9');
    expect(headerOf(answer, 'x-request-id')).toBe('Mine');
    expect(headerOf(answer, 'x-paceline-slack-ms')).toBeDefined();
  });

  test("what belongs to the server's connection stays there", async () => {
    const answer = await ask(writes(okJson('{}', ['connection: keep-alive, x-odd', 'keep-alive: timeout=1', 'x-odd: 1', 'upgrade: h2c', 'proxy-authenticate: Basic', 'set-cookie: a=b', 'te: trailers', 'date: Thu, 01 Jan 1970 00:00:00 GMT'])));
    const names = answer.headers.map(([name]) => name.toLowerCase());
    for (const name of ['x-odd', 'upgrade', 'proxy-authenticate', 'set-cookie', 'te']) expect(names).not.toContain(name);
    expect(names.filter((name) => name === 'date')).toHaveLength(1);
    expect(headerOf(answer, 'date')).not.toContain('1970');
    expect(headerOf(answer, 'keep-alive')).toBe('timeout=75');
    expect(new Set(names).size).toBe(names.length);
  });

  test('bytes beyond ASCII in headers come through as they were, in both directions', async () => {
    const value = Buffer.from('k="café ✓ 🛶"').toString('latin1');
    under.upstream.answer = writes(Buffer.from(`HTTP/1.1 200 OK\r\ncontent-type: text/plain; ${value}\r\ncontent-length: 2\r\n\r\n{}`, 'latin1'));
    const { write, read } = await client();
    write(Buffer.concat([Buffer.from(`POST ${CHAT} HTTP/1.1\r\nhost: x\r\nbaggage: ${value}\r\ncontent-length: ${BODY.length}\r\n\r\n`, 'latin1'), Buffer.from(BODY)]));
    expect(headerOf(await read(), 'content-type')).toBe(`text/plain; ${value}`);
    expect(under.upstream.requests[0]?.headers['baggage']).toBe(value);
  });
});

describe('connections of clients', () => {
  const byUser: RawAnswer = ({ socket, body }) => {
    const { user, waitMs } = JSON.parse(body.toString()) as { user: string; waitMs: number };
    setTimeout(() => socket.write(okJson(`{"to":"${user}"}`)), waitMs);
  };
  const requestOf = (user: string, waitMs = 0): Buffer => rawPost(CHAT, JSON.stringify({ model: 'm', user, waitMs, messages: [] }));

  test('one connection carries several requests', async () => {
    under.upstream.answer = byUser;
    const { write, read, rest } = await client();
    for (const user of ['a', 'b', 'c', 'd', 'e']) {
      write(requestOf(user));
      expect((await read()).body.toString()).toBe(`{"to":"${user}"}`);
    }
    expect(rest()).toHaveLength(0);
  });

  test('requests that come without waiting are answered in their order, though the servers answer in another', async () => {
    under.upstream.answer = byUser;
    const { write, read } = await client();
    const users = ['a', 'b', 'c', 'd', 'e'];
    write(Buffer.concat(users.map((user, index) => requestOf(user, 60 - 15 * index))));
    const bodies: string[] = [];
    for (let index = 0; index < users.length; index++) bodies.push((await read()).body.toString());
    expect(bodies).toEqual(users.map((user) => `{"to":"${user}"}`));
  });

  test('requests that come without waiting may be refusals, streams and answers of any framing', async () => {
    under.upstream.answer = ({ socket, body }) => void socket.write(body.includes('"stream":true') ? Buffer.concat([Buffer.from(STREAM_HEAD), chunked(Buffer.from(EVENT), [9])]) : okJson('{"plain":1}'));
    const { write, read } = await client();
    write(Buffer.concat([rawPost(CHAT, STREAM_BODY), rawPost(CHAT, '{"bro'), rawPost(CHAT, BODY), rawPost('/v1/none', BODY), rawPost(CHAT, '{"model":"other","messages":[]}'), rawPost(CHAT, STREAM_BODY)]));
    const answers: string[] = [];
    for (let index = 0; index < 6; index++) {
      const { status, body, whole } = await read();
      answers.push(`${status} ${whole} ${body.toString().slice(0, 12)}`);
    }
    expect(answers).toEqual(['200 true data: {"id":', '400 true {"error":{"m', '200 true {"plain":1}', '404 true {"error":{"m', '404 true {"error":{"m', '200 true data: {"id":']);
  });

  test('a request in pieces of one byte is the same request', async () => {
    under.upstream.answer = writes(okJson('{}'));
    const { socket, read } = await client();
    socket.setNoDelay(true);
    for (const byte of rawPost(CHAT, BODY)) {
      socket.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await read()).status).toBe(200);
    expect(under.upstream.requests[0]?.body.toString()).toBe(BODY);
  });

  test('a request in chunks, with extensions and trailers, is the same request with its length told', async () => {
    under.upstream.answer = writes(okJson('{}'));
    const { write, read } = await client();
    write(`POST ${CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n`);
    write(`5;ext=1\r\n${BODY.slice(0, 5)}\r\n${(BODY.length - 5).toString(16)}\r\n${BODY.slice(5)}\r\n0\r\nx-sum: 1\r\n\r\n`);
    expect((await read()).status).toBe(200);
    expect(under.upstream.requests[0]?.body.toString()).toBe(BODY);
    expect(under.upstream.requests[0]?.headers).toMatchObject({ 'content-length': String(BODY.length) });
    expect(under.upstream.requests[0]?.headers).not.toHaveProperty('transfer-encoding');
  });

  test('a client that wants the connection closed gets that', async () => {
    const { socket, write, read, closed } = await client();
    under.upstream.answer = writes(okJson('{}'));
    write(rawPost(CHAT, BODY, ['connection: close']));
    const answer = await read();
    expect(headerOf(answer, 'connection')).toBe('close');
    expect(answer.whole).toBe(true);
    await closed;
    expect(socket.destroyed).toBe(true);
  });

  test.each([false, true])('a client of HTTP/1.0 gets no chunks (stream %s)', async (stream) => {
    under.upstream.answer = stream ? writes(STREAM_HEAD, chunked(Buffer.from(EVENT.repeat(3)), [30])) : writes(okJson('{"old":1}'));
    const { write, read, closed } = await client();
    write(rawPost(CHAT, stream ? STREAM_BODY : BODY, [], '1.0'));
    const answer = await read();
    expect(headerOf(answer, 'transfer-encoding')).toBeUndefined();
    expect(answer.body.toString()).toBe(stream ? EVENT.repeat(3) : '{"old":1}');
    expect(await closed).toBe('ended');
  });

  test('a client of HTTP/1.0 keeps its connection where it asks for it and the length is known', async () => {
    under.upstream.answer = writes(okJson('{"old":1}'));
    const { write, read } = await client();
    for (let round = 0; round < 3; round++) {
      write(rawPost(CHAT, BODY, ['connection: keep-alive'], '1.0'));
      const answer = await read();
      expect(answer.body.toString()).toBe('{"old":1}');
      expect(headerOf(answer, 'connection')).toBe('keep-alive');
    }
  });

  test('a client of HTTP/1.0 that asks to keep its connection gets a stream that ends with it', async () => {
    under.upstream.answer = writes(STREAM_HEAD, chunked(Buffer.from(EVENT), [30]));
    const { write, read, closed } = await client();
    write(rawPost(CHAT, STREAM_BODY, ['connection: keep-alive'], '1.0'));
    const answer = await read();
    expect(answer.framing).toBe('close');
    expect(answer.body.toString()).toBe(EVENT);
    await closed;
  });

  test('a client that waits for 100 Continue is told to go on, and gets its answer', async () => {
    under.upstream.answer = writes(okJson('{"big":1}'));
    const { write, read } = await client();
    write(`POST ${CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: ${BODY.length}\r\nexpect: 100-continue\r\n\r\n`);
    expect((await read()).status).toBe(100);
    write(BODY);
    const answer = await read();
    expect(answer.body.toString()).toBe('{"big":1}');
    expect(under.upstream.requests[0]?.headers).not.toHaveProperty('expect');
  });

  test('a client of HTTP/1.0 that would wait is not told to go on, which it could not understand', async () => {
    under.upstream.answer = writes(okJson('{}'));
    const { write, read } = await client();
    write(rawPost(CHAT, BODY, ['expect: 100-continue'], '1.0'));
    expect((await read()).status).toBe(200);
  });

  test('an expectation that nobody knows is passed over', async () => {
    const answer = await ask(writes(okJson('{}')), BODY, ['expect: miracles']);
    expect(answer.status).toBe(200);
    expect(under.upstream.requests[0]?.headers['expect']).toBeUndefined();
  });

  test.each(['h2c', 'websocket'])('a client that would rather speak %s is answered in HTTP/1.1', async (protocol) => {
    const answer = await ask(writes(okJson('{"one":1}')), BODY, ['connection: Upgrade, HTTP2-Settings', `upgrade: ${protocol}`, 'http2-settings: AAMAAABkAAQAAP__']);
    expect(answer.statusLine).toBe('HTTP/1.1 200 OK');
    expect(answer.body.toString()).toBe('{"one":1}');
  });

  test('a client that has said all it wants and closes its half is taken for one that has left, at once', async () => {
    under.upstream.answer = () => {};
    const { socket, write, closed } = await client({ allowHalfOpen: true });
    write(rawPost(CHAT, BODY));
    await eventually(() => under.upstream.requests.length === 1);
    socket.end();
    await upstreamClosed();
    await under.idle();
    await closed;
  });

  test.each([
    ['a body too large by its length', [`content-length: ${1e12}`], 413],
    ['a body that is compressed', ['content-length: 3', 'content-encoding: gzip'], 415],
  ])('after %s the refusal is read before anything is cut', async (_what, headers, status) => {
    const { write, read } = await client();
    write(`POST ${CHAT} HTTP/1.1\r\nhost: x\r\n${headers.join('\r\n')}\r\n\r\nabc`);
    const answer = await read();
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.body.toString())).toHaveProperty('error.type', 'invalid_request_error');
  });

  test('a body for a route that does not exist is read over, and the next request is answered', async () => {
    under.upstream.answer = writes(okJson('{"next":1}'));
    const { write, read } = await client();
    write(rawPost('/v1/files', 'x'.repeat(200_000)));
    write(rawPost(CHAT, BODY));
    expect((await read()).status).toBe(404);
    expect((await read()).body.toString()).toBe('{"next":1}');
  });

  test.each([
    ['two lengths', ['content-length: 3', 'content-length: 4']],
    ['a length and chunks', ['content-length: 3', 'transfer-encoding: chunked']],
    ['a coding that is not known', ['transfer-encoding: chunked, gzip']],
    ['a length that is no number', ['content-length: +3']],
    ['a negative length', ['content-length: -1']],
    ['a header without a name', [': x']],
    ['a name with a blank', ['content-length : 3']],
    ['no host', []],
  ])('%s could be read in two ways, and is refused before any server hears of it', async (what, headers) => {
    const { write, read, closed } = await client();
    write(`POST ${CHAT} HTTP/1.1\r\n${[...(what === 'no host' ? [] : ['host: x']), ...headers].join('\r\n')}\r\n\r\nabc`);
    expect((await read()).status).toBe(400);
    await closed;
    expect(under.upstream.requests).toHaveLength(0);
  });
});

describe('methods and targets', () => {
  const send = async (request: string, options: { readonly toHead?: boolean } = {}): Promise<RawResponse> => {
    const { write, read } = await client();
    write(`${request}\r\nhost: gateway.test\r\n\r\n`);
    return read(options);
  };

  test('HEAD is GET without the body', async () => {
    const { write, read, rest } = await client();
    write('HEAD /v1/models HTTP/1.1\r\nhost: x\r\n\r\n');
    const head = await read({ toHead: true });
    write('GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n');
    const get = await read();
    expect(get.status).toBe(200);
    expect({ status: head.status, type: headerOf(head, 'content-type') }).toEqual({ status: get.status, type: headerOf(get, 'content-type') });
    expect(rest()).toHaveLength(0);
  });

  test('HEAD of a route that does not exist has no body either', async () => {
    const { write, read } = await client();
    write('HEAD /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n');
    expect((await read({ toHead: true })).status).toBe(404);
    expect((await read()).status).toBe(200);
  });

  test.each(['PUT', 'PATCH', 'DELETE', 'PROPFIND', 'PURGE', 'QUERY', 'GET'])('%s of an inference route is refused in the shape of OpenAI and costs no server anything', async (method) => {
    const answer = await send(`${method} ${CHAT} HTTP/1.1`);
    expect({ status: answer.status, allow: headerOf(answer, 'allow') }).toEqual({ status: 405, allow: expect.stringContaining('POST') });
    expect(JSON.parse(answer.body.toString())).toHaveProperty('error.code');
    expect(under.upstream.requests).toHaveLength(0);
  });

  test('OPTIONS of an inference route tells what is allowed and costs no server anything', async () => {
    const answer = await send(`OPTIONS ${CHAT} HTTP/1.1`);
    expect({ status: answer.status, allow: headerOf(answer, 'allow') }).toEqual({ status: 204, allow: 'POST, OPTIONS' });
    expect(under.upstream.requests).toHaveLength(0);
  });

  test('a method that nobody knows is refused and the gateway goes on', async () => {
    const answer = await send(`BREW ${CHAT} HTTP/1.1`);
    expect([400, 501]).toContain(answer.status);
    expect((await send('GET /v1/models HTTP/1.1')).status).toBe(200);
  });

  test('a target that names the host is the same target', async () => {
    const answer = await send('GET http://gateway.test/v1/models HTTP/1.1');
    expect(answer.status).toBe(200);
    under.upstream.answer = writes(okJson('{}'));
    const { write, read } = await client();
    write(rawPost(`http://gateway.test${CHAT}`, BODY));
    expect((await read()).status).toBe(200);
    expect(under.upstream.requests[0]?.requestLine).toBe(`POST ${CHAT} HTTP/1.1`);
  });

  test('a query is sent on', async () => {
    expect((await ask(writes(okJson('{}')), BODY, [], `${CHAT}?api-version=2024-10-21`)).status).toBe(200);
    expect(under.upstream.requests[0]?.path).toBe(`${CHAT}?api-version=2024-10-21`);
  });

  test.each(['OPTIONS * HTTP/1.1', 'TRACE /v1/models HTTP/1.1', 'GET /v1/models?\u007F HTTP/1.1', 'GET http:// HTTP/1.1', 'GET http://[ HTTP/1.1', 'POST /%zz HTTP/1.1', 'GET /v1/models#x HTTP/1.1'])('%s is no fault of the gateway', async (request) => {
    expect((await send(request)).status).toBeLessThan(500);
  });

  test.each(['a b', 'a/b', '[', 'a:b'])('a host such as %s is refused', async (host) => {
    const { write, read } = await client();
    write(`GET /v1/models HTTP/1.1\r\nhost: ${host}\r\n\r\n`);
    expect((await read()).status).toBe(400);
  });

  test.each(['/v1//chat/completions', '/v1/chat/completions/', '/V1/chat/completions', '/v1/../v1/files', '//v1/models', '/%', '/v1/models/%ff', '/v1/models/%00'])('%s is answered with a 4xx', async (path) => {
    const answer = await send(`GET ${path} HTTP/1.1`);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
  });
});

describe('a server that breaks', () => {
  test.each([
    ['closes', ({ socket }) => void socket.end()],
    ['resets', ({ socket }) => void socket.resetAndDestroy()],
    ['stops in the middle of its status line', ({ socket }) => void socket.end('HTTP/1.1 2')],
    ['stops in the middle of its headers', ({ socket }) => void socket.end('HTTP/1.1 200 OK\r\ncontent-type: appl')],
    ['says only that it is working', ({ socket }) => void socket.end('HTTP/1.1 103 Early Hints\r\n\r\n')],
    ['speaks no HTTP', ({ socket }) => void socket.end('SSH-2.0-OpenSSH_9.6\r\n\r\n')],
    ['speaks HTTP/2', ({ socket }) => void socket.end(Buffer.from('00000604000000000000040001000000', 'hex'))],
    ['has a status that is no number', ({ socket }) => void socket.end('HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n')],
    ['has two lengths', ({ socket }) => void socket.end('HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}')],
    ['has a length and chunks', ({ socket }) => void socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n')],
    ['has headers without end', ({ socket }) => void socket.write(`HTTP/1.1 200 OK\r\nx: ${'x'.repeat(200_000)}`)],
    ['switches protocols unasked', ({ socket }) => void socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n')],
  ] satisfies [string, RawAnswer][])('before its answer (it %s) is 502, said once and not to be tried again', async (_what, answer) => {
    const answered = await ask(answer);
    expect(answered.status).toBe(502);
    expect(JSON.parse(answered.body.toString())).toMatchObject({ error: { type: 'server_error', code: 'upstream_broken' } });
    expect(headerOf(answered, 'x-should-retry')).toBe('false');
    expect(await under.gateway.event('ended')).toMatchObject({ outcome: 'failed' });
    expect(under.upstream.requests).toHaveLength(1);
    await upstreamClosed();
  });

  const BREAKS: readonly { readonly how: string; readonly end: RawAnswer }[] = [
    { how: 'closes', end: ({ socket }) => void socket.end() },
    { how: 'resets', end: ({ socket }) => void setTimeout(() => socket.resetAndDestroy(), 30) },
    { how: 'sends a chunk whose size is no number', end: ({ socket }) => void socket.write('zz\r\nabc\r\n') },
    { how: 'sends a chunk that is longer than it says', end: ({ socket }) => void socket.write('2\r\n: toolong\r\n') },
  ];

  test.each(BREAKS)('a stream whose server $how after an event ends with an error event', async ({ end }) => {
    const answer = await ask((request) => {
      request.socket.write(`${STREAM_HEAD}${EVENT.length.toString(16)}\r\n${EVENT}\r\n`);
      end(request);
    }, STREAM_BODY);
    expect(answer.whole).toBe(true);
    const text = answer.body.toString();
    expect(text.startsWith(EVENT)).toBe(true);
    const last = text.trimEnd().split('\n').at(-1) ?? '';
    expect(JSON.parse(last.slice('data: '.length))).toMatchObject({ error: { message: expect.any(String), type: 'server_error', param: null, code: 'upstream_broken' } });
    expect(text.endsWith('\n\n')).toBe(true);
    expect(text).not.toContain('[DONE]');
    await upstreamClosed();
  });

  test.each(Array.from({ length: Math.floor((EVENT.length - 1) / 5) }, (_, index) => 5 * index + 5))('a stream that breaks %i bytes into an event is not half said, and the error event follows what was', async (bytes) => {
    const part = EVENT.slice(0, bytes);
    const answer = await ask(({ socket }) => void socket.end(`${STREAM_HEAD}${EVENT.length.toString(16)}\r\n${EVENT}\r\n${part.length.toString(16)}\r\n${part}\r\n`), STREAM_BODY);
    const text = answer.body.toString();
    expect(text.startsWith(`${EVENT}data: {"error"`)).toBe(true);
    expect(JSON.parse((text.split('\n\n').findLast((event) => event !== '') ?? '').slice('data: '.length))).toHaveProperty('error.code', 'upstream_broken');
  });

  test('a stream whose lines end with CR alone gets its error event as an event of its own', async () => {
    const part = 'data: {"a":1}\r\rdata: {"b';
    const answer = await ask(({ socket }) => void socket.end(`${STREAM_HEAD}${part.length.toString(16)}\r\n${part}\r\n`), STREAM_BODY);
    expect(answer.body.toString()).toMatch(/^data: \{"a":1\}\r\rdata: \{"error"/);
  });

  test.each([
    ['with a length', 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"half":'],
    ['in chunks', 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"half":\r\n'],
  ])('an answer %s that breaks off is cut, never passed off as whole', async (_what, bytes) => {
    const answer = await ask(({ socket }) => void socket.end(bytes));
    expect(answer).toMatchObject({ status: 200, whole: false });
    expect(answer.body.toString()).toBe('{"half":');
  });

  // Chunks without the last one are an incomplete message, whatever the header says of the connection.
  const ENDS: readonly { readonly ends: string; readonly end: RawAnswer }[] = [
    { ends: 'closes', end: ({ socket }) => void socket.end() },
    { ends: 'resets', end: ({ socket }) => void setTimeout(() => socket.resetAndDestroy(), 50) },
  ];
  test.each(ENDS)('chunks without end of a server that says connection: close and then $ends it are not passed off as whole', async ({ end }) => {
    const answer = await ask((request) => {
      request.socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"half":\r\n');
      end(request);
    });
    expect(answer.whole).toBe(false);
  });

  test.each(ENDS)('a stream in chunks without end of a server that says connection: close and then $ends it ends with an error event', async ({ end }) => {
    const answer = await ask((request) => {
      request.socket.write(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n${EVENT.length.toString(16)}\r\n${EVENT}\r\n`);
      end(request);
    }, STREAM_BODY);
    expect(answer.body.toString()).toContain('upstream_broken');
  });

  test('an answer with a length of a server that says connection: close and closes it too early is not passed off as whole', async () => {
    const answer = await ask(({ socket }) => void socket.end('HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{"half":'));
    expect(answer.whole).toBe(false);
  });

  const ODD_HEADS: readonly (readonly [what: string, head: string, status: number])[] = [
    ['a blank line first', '\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}', 200],
    ['a control character in a header', 'HTTP/1.1 200 OK\r\nretry-after: a\u0001b\r\ncontent-length: 2\r\n\r\n{}', 502],
    ['a delete in a header', 'HTTP/1.1 200 OK\r\nretry-after: a\u007fb\r\ncontent-length: 2\r\n\r\n{}', 502],
    ['a header folded over two lines', 'HTTP/1.1 200 OK\r\nretry-after: 1,\r\n 2\r\ncontent-length: 2\r\n\r\n{}', 502],
    ['a header without a colon', 'HTTP/1.1 200 OK\r\nretry-after\r\ncontent-length: 2\r\n\r\n{}', 502],
    ['a length that is empty', 'HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n{}', 502],
    ['a length beyond all bounds', 'HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n{}', 502],
    ['a list of lengths', 'HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\n{}', 502],
    ['lines that end with LF alone', 'HTTP/1.1 200 OK\ncontent-length: 2\n\n{}', 502],
    ['the status 000', 'HTTP/1.1 000 X\r\ncontent-length: 2\r\n\r\n{}', 502],
    ['the status 099', 'HTTP/1.1 099 X\r\ncontent-length: 2\r\n\r\n{}', 502],
    ['a status of four digits', 'HTTP/1.1 2000 X\r\ncontent-length: 2\r\n\r\n{}', 502],
    ['the status 999', 'HTTP/1.1 999 X\r\ncontent-length: 2\r\n\r\n{}', 999],
    ['a version that does not exist', 'HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\n{}', 502],
    ['nine hundred headers', `HTTP/1.1 200 OK\r\n${'x: 1\r\n'.repeat(900)}content-length: 2\r\n\r\n{}`, 200],
  ];
  test.each(ODD_HEADS)('%s of a server is either understood or 502, and the gateway goes on', async (_what, head, status) => {
    const answer = await ask(({ socket }) => void socket.end(head, 'latin1'));
    expect(answer).toMatchObject({ status, whole: true });
    expect((await ask(writes(okJson('{"next":1}')))).body.toString()).toBe('{"next":1}');
  });

  test('what a server says behind the end of its answer reaches nobody', async () => {
    under.upstream.answer = ({ socket }) => void socket.write(`${okJson('{"first":1}')}HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"not asked":1}`);
    const { write, read, rest } = await client();
    write(rawPost(CHAT, BODY));
    expect((await read()).body.toString()).toBe('{"first":1}');
    under.upstream.answer = writes(okJson('{"second":1}'));
    write(rawPost(CHAT, BODY));
    expect((await read()).body.toString()).toBe('{"second":1}');
    expect(rest()).toHaveLength(0);
  });

  test('a server that closes its connection behind each answer without a word costs no request', async () => {
    under.upstream.answer = ({ socket }) => void socket.end(okJson('{"n":1}'));
    const { write, read } = await client();
    for (let round = 0; round < 10; round++) {
      write(rawPost(CHAT, BODY));
      expect((await read()).status).toBe(200);
    }
  });

  test('a server that answers before it has read all of a request is heard', async () => {
    under.upstream.answer = () => {};
    under.upstream.early = (_head, socket) => {
      under.upstream.early = () => false;
      socket.write('HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\ncontent-length: 16\r\nconnection: close\r\n\r\n{"error":"size"}');
      return true;
    };
    const { write, read } = await client();
    write(rawPost(CHAT, JSON.stringify({ model: 'm', messages: [], user: 'x'.repeat(4_000_000) })));
    const answer = await read();
    expect(answer.status).toBe(413);
    expect(answer.body.toString()).toBe('{"error":"size"}');
  });
});

test('a server that does nothing but say that it is at work is 504 in time', async () => {
  const slow = await startRawGateway(
    ({ socket }) => {
      const timer = setInterval(() => socket.write('HTTP/1.1 102 Processing\r\n\r\n'), 10);
      socket.once('close', () => clearInterval(timer));
    },
    { more: 'timeouts: { firstByteMs: 200, drainMs: 0 }' },
  );
  try {
    const { write, read, socket } = await openRawClient(slow.gateway.url);
    write(rawPost(CHAT, BODY));
    expect((await read()).status).toBe(504);
    socket.destroy();
    await slow.idle();
  } finally {
    await slow.close();
  }
});

describe('a client that leaves', () => {
  const ENDPOINTS = Object.values(ENDPOINT_PATHS);
  const WAYS = { closing: ({ socket }: RawClient) => socket.destroy(), resetting: ({ socket }: RawClient) => socket.resetAndDestroy() } as const;
  const ways = ['closing', 'resetting'] as const;
  const cases = PHASES.flatMap((phase) => ENDPOINTS.flatMap((path) => ways.map((way) => ({ ...phase, path, way }))));

  test.each(cases)('$phase ($path, $way) frees the server within a second', async ({ stream, answer, bytes, path, way }) => {
    under.upstream.answer = answer;
    const leaving = await client();
    leaving.write(rawPost(path, leavingBody(stream)));
    await eventually(() => under.upstream.requests.length === 1);
    await leaving.received(bytes);
    WAYS[way](leaving);
    await upstreamClosed();
    await under.idle();
    expect(await under.gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
    expect(under.gateway.events.filter(({ kind }) => kind === 'ended')).toHaveLength(1);
  });

  test.each(ENDPOINTS.flatMap((path) => ways.map((way) => ({ path, way }))))('in the middle of its own body ($path, $way) leaves nothing behind', async ({ path, way }) => {
    const leaving = await client();
    const request = rawPost(path, leavingBody(true));
    leaving.write(request.subarray(0, request.length - 10));
    // The head has been read when what comes behind it is: a request on another connection is served meanwhile.
    expect((await ask(writes(okJson('{}')))).status).toBe(200);
    WAYS[way](leaving);
    await leaving.closed;
    await under.idle();
    expect(under.gateway.events.filter(({ kind }) => kind === 'arrived')).toHaveLength(1);
    expect(under.upstream.requests).toHaveLength(1);
  });

  test.each(ENDPOINTS.flatMap((path) => ways.flatMap((way) => [true, false].map((stream) => ({ path, way, stream })))))('while its request is queued ($path, $way, stream: $stream) is forgotten within a second, and never sent on', async ({ path, way, stream }) => {
    const narrow = await startRawGateway(() => {}, { replica: 'concurrencyMax: 1' });
    try {
      const first = await openRawClient(narrow.gateway.url);
      first.write(rawPost(path, leavingBody(true)));
      await eventually(() => narrow.upstream.requests.length === 1);
      const second = await openRawClient(narrow.gateway.url);
      second.write(rawPost(path, leavingBody(stream)));
      await eventually(() => narrow.gateway.events.filter(({ kind }) => kind === 'arrived').length === 2);
      const inFlight = async (): Promise<number> => ((await (await fetch(`${narrow.gateway.adminUrl}/paceline/status`)).json()) as { inFlight: number }).inFlight;
      expect(await inFlight()).toBe(2);
      WAYS[way](second);
      await eventually(async () => (await inFlight()) === 1, 1_000);
      expect(await narrow.gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
      narrow.upstream.requests[0]?.socket.write(okJson('{"one":1}'));
      expect((await first.read()).body.toString()).toBe('{"one":1}');
      await narrow.idle();
      expect(narrow.upstream.requests).toHaveLength(1);
      first.socket.destroy();
    } finally {
      await narrow.close();
    }
  });

  test('with several requests on one connection frees all of them', async () => {
    under.upstream.answer = () => {};
    const leaving = await client();
    leaving.write(Buffer.concat([rawPost(CHAT, STREAM_BODY), rawPost(CHAT, BODY), rawPost(CHAT, BODY)]));
    await eventually(() => under.upstream.requests.length === 3);
    leaving.socket.destroy();
    await upstreamClosed();
    await under.idle();
  });
});

describe('what an intermediary is to keep to', () => {
  // RFC 9112, 6.3 and 8: fewer bytes than the length told are an incomplete message, and the connection cannot go on.
  test('an event stream with a length that breaks off ends its connection instead of leaving the client to wait', async () => {
    const answer = await ask(({ socket }) => void socket.end(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n${EVENT}`), STREAM_BODY);
    expect(answer.whole).toBe(false);
  });

  // RFC 9112, 6.2: a body is never longer than its length; what is longer is read as the next answer.
  test('an event stream with a length that breaks off shortly before it is not answered with more than that length', async () => {
    under.upstream.answer = ({ socket }) => void socket.end(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: ${EVENT.length + 20}\r\n\r\n${EVENT}`);
    const { write, read, rest } = await client();
    write(rawPost(CHAT, STREAM_BODY));
    await read();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(rest().toString()).toBe('');
  });

  // RFC 9110, 8.4: all of the content is coded as content-encoding says.
  test('a compressed event stream that breaks off is not followed by text that is not compressed', async () => {
    const packed = gzipSync(EVENT.repeat(20));
    const answer = await ask(({ socket }) => void socket.end(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n${packed.length.toString(16)}\r\n${packed.toString('latin1')}\r\n`, 'latin1'), STREAM_BODY, ['accept-encoding: gzip']);
    expect(answer.whole ? gunzipSync(answer.body).toString() : EVENT.repeat(20)).toBe(EVENT.repeat(20));
  });

  // RFC 9110, 8.3.1: types are case-insensitive.
  test('an event stream is one whatever the case of its type', async () => {
    const answer = await ask(({ socket }) => void socket.end(`HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream\r\ntransfer-encoding: chunked\r\n\r\n${EVENT.length.toString(16)}\r\n${EVENT}\r\n`), STREAM_BODY);
    expect(answer.body.toString()).toContain('upstream_broken');
  });

  // RFC 9110, 5.3: lines of one name are a list.
  test('a header that the server says in two lines is passed on', async () => {
    const answer = await ask(writes('HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncache-control: no-cache\r\ncache-control: no-transform\r\n\r\n{}'));
    expect(answer.headers.filter(([name]) => name === 'cache-control').map(([, value]) => value).join(', ')).toBe('no-cache, no-transform');
  });

  test('a content type that the server says twice is passed on', async () => {
    const answer = await ask(writes('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}'));
    expect(headerOf(answer, 'content-type')).toContain('application/json');
  });

  test('codings that the server says in two lines are passed on, for without them nobody can read the body', async () => {
    const packed = gzipSync(gzipSync('{}'));
    const answer = await ask(writes(`HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-encoding: gzip\r\ncontent-length: ${packed.length}\r\n\r\n`, packed));
    expect(answer.headers.filter(([name]) => name === 'content-encoding').map(([, value]) => value).join(', ')).toBe('gzip, gzip');
  });

  // RFC 9110, 7.6.3: a gateway must send Via in each request it passes on.
  test('requests to a server say Via', async () => {
    await ask(writes(okJson('{}')));
    expect(under.upstream.requests[0]?.headers['via']).toMatch(/^1\.1 /);
  });

  // RFC 9110, 8.4.1: codings are case-insensitive.
  test('a request whose coding is Identity is not compressed', async () => {
    expect((await ask(writes(okJson('{}')), BODY, ['content-encoding: Identity'])).status).toBe(200);
  });

  // RFC 9112, 8: what is delimited by the close is told from a whole answer by an error alone, so it must look like one.
  test('a client of HTTP/1.0 is not told by an orderly close that half an answer is whole', async () => {
    under.upstream.answer = ({ socket }) => void socket.end('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"half":\r\n');
    const { write, read } = await client();
    write(rawPost(CHAT, BODY, [], '1.0'));
    expect((await read()).whole).toBe(false);
  });

  test('an error in the middle of a stream does not say that the server had not answered', async () => {
    const answer = await ask(({ socket }) => void socket.end(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n${EVENT.length.toString(16)}\r\n${EVENT}\r\n`), STREAM_BODY);
    expect(answer.body.toString()).not.toContain('before it answered');
  });

  // RFC 9110, 8.6: a 204 must not have a content-length; one above 0 makes some clients wait for a body.
  test('a 204 is passed on without the length that its server gave it', async () => {
    const answer = await ask(writes('HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n'));
    expect(headerOf(answer, 'content-length')).toBeUndefined();
  });

  test('a redirect says where to', async () => {
    const answer = await ask(writes('HTTP/1.1 307 Temporary Redirect\r\nlocation: /v1/chat/completions/\r\ncontent-length: 0\r\n\r\n'));
    expect(answer.status === 307 ? headerOf(answer, 'location') : 'another answer').toBeDefined();
  });

  // RFC 9110, 10.1.1: a final status that the header alone decides comes instead of 100 Continue. Whether the body follows nobody
  // knows then, so that the connection cannot go on.
  test.each([
    ['too large', CHAT, [`content-length: ${1e12}`], 413],
    ['compressed', CHAT, ['content-length: 100', 'content-encoding: gzip'], 415],
    ['for no route', '/v1/files', ['content-length: 100'], 404],
  ])('a body that is %s is refused before it is asked for', async (_what, path, headers, status) => {
    const { write, read } = await client();
    write(`POST ${path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n${headers.join('\r\n')}\r\n\r\n`);
    const answer = await read();
    expect({ status: answer.status, connection: headerOf(answer, 'connection') }).toEqual({ status, connection: 'close' });
  });
});
