// What a client may ask of the listener: each bound passes what is at it, refuses one more in OpenAI's shape, and leaves nothing behind.
import { once } from 'node:events';
import { constants } from 'node:http2';
import { afterEach, describe, expect, test } from 'vitest';
import { answerOf, http2Client, rawAnswer, rawClient, TLS } from '../fixtures/clients.ts';
import type { Http2Client, RawClient } from '../fixtures/clients.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, startGateway } from '../fixtures/gateway-under-test.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(more: string, options: { answer?: Answer; listen?: string } = {}): Promise<{ gateway: GatewayUnderTest; upstream: StubUpstream }> {
  const upstream = await createStubUpstream(options.answer);
  opened.push(upstream);
  const gateway = await startGateway([upstream], { more: `${more.includes('timeouts:') ? more : `${more}\ntimeouts: { drainMs: 100 }`}\nlisten: { port: 0, ${options.listen ?? ''} }` });
  opened.push(gateway);
  return { gateway, upstream };
}

function raw(gateway: GatewayUnderTest): RawClient {
  const client = rawClient(gateway.url);
  opened.push(client);
  return client;
}

async function http2(gateway: GatewayUnderTest): Promise<Http2Client> {
  const client = await http2Client(gateway.url);
  opened.push(client);
  return client;
}

const POST = { ':method': 'POST', ':path': '/v1/chat/completions' };
const chat = (more: object = {}): string => JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], ...more });
/** A chat request of so many bytes. */
const chatOf = (bytes: number): string => chat({ user: 'x'.repeat(bytes - chat({ user: '' }).length) });
const refusals = async (gateway: GatewayUnderTest, kind: string): Promise<number> => count(gateway, `paceline_requests_refused_total{kind="${kind}"}`);
async function count(gateway: GatewayUnderTest, series: string): Promise<number> {
  const line = (await (await fetch(`${gateway.adminUrl}/metrics`)).text()).split('\n').find((text) => text.startsWith(series));
  return Number(line?.slice(series.length) ?? 0);
}

describe('headers', () => {
  const LIMITS = 'limits: { headerBytesMax: 4096, headersMax: 16 }';
  const ask = async (gateway: GatewayUnderTest, headers: Record<string, string>): Promise<ReturnType<typeof rawAnswer>> => {
    const client = raw(gateway);
    client.write(`GET /v1/models HTTP/1.1\r\n${Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`);
    return rawAnswer(await client.ended);
  };

  test('their bytes: as many as allowed pass, one more is 431 (HTTP/1.1)', async () => {
    const { gateway } = await start(LIMITS);
    const fixed = ['/v1/models', 'host', 'x', 'connection', 'close', 'a'].join('');
    const sized = (bytes: number): Record<string, string> => ({ host: 'x', connection: 'close', a: 'x'.repeat(bytes - fixed.length) });
    expect((await ask(gateway, sized(4096))).status).toBe(200);
    const refused = await ask(gateway, sized(4097));
    expect(refused).toMatchObject({ status: 431, body: { error: { code: 'headers_too_large', message: 'The request has more than the 4096 bytes of target and headers allowed, or more than 16 headers' } } });
    expect(refused.head).toContain('connection: close');
    expect((await ask(gateway, sized(400_000))).status).toBe(431);
    expect(await refusals(gateway, 'headers-too-large')).toBe(2);
  });

  test('their bytes: as many as allowed pass, one more is 431, and far more end the stream (HTTP/2)', async () => {
    const { gateway } = await start(LIMITS);
    const client = await http2(gateway);
    const fixed = ['/v1/models', 'a'].join('');
    const sized = (bytes: number) => client.ask({ ':path': '/v1/models', a: 'x'.repeat(bytes - fixed.length) });
    expect((await sized(4096)).status).toBe(200);
    const refused = await sized(4097);
    expect(refused.status).toBe(431);
    expect(JSON.parse(refused.text)).toMatchObject({ error: { code: 'headers_too_large' } });
    expect(await sized(40_000)).toMatchObject({ status: undefined, code: constants.NGHTTP2_ENHANCE_YOUR_CALM });
    expect((await sized(100)).status).toBe(200);
  });

  test('their number: as many as allowed pass, more are 431 and none is passed over (HTTP/1.1)', async () => {
    const { gateway } = await start(LIMITS);
    const numbered = (headers: number): Record<string, string> => ({ host: 'x', connection: 'close', ...Object.fromEntries(Array.from({ length: headers - 2 }, (_, index) => [`a${index}`, 'x'])) });
    expect((await ask(gateway, numbered(16))).status).toBe(200);
    for (const headers of [17, 18, 100, 300]) expect(await ask(gateway, numbered(headers))).toMatchObject({ status: 431, body: { error: { code: 'headers_too_large' } } });
    expect(await refusals(gateway, 'headers-too-large')).toBe(4);
  });

  test('their number: as many as allowed pass, one more is 431, and far more end the stream (HTTP/2)', async () => {
    const { gateway } = await start(LIMITS);
    const client = await http2(gateway);
    const numbered = (headers: number) => client.ask({ ':path': '/v1/models', ...Object.fromEntries(Array.from({ length: headers }, (_, index) => [`a${index}`, 'x'])) });
    expect((await numbered(16)).status).toBe(200);
    const refused = await numbered(17);
    expect(refused.status).toBe(431);
    expect(JSON.parse(refused.text)).toMatchObject({ error: { code: 'headers_too_large' } });
    expect(await numbered(100)).toMatchObject({ status: undefined, code: constants.NGHTTP2_ENHANCE_YOUR_CALM });
  });

  test.each([
    ['no method', 'HELLO\r\n\r\n'],
    ['no Host', 'GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n'],
    ['a Host that is none', 'GET /v1/models HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n'],
    ['two lengths', 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}'],
    ['a length and chunks', 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n'],
    ['a chunk that is none', 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n'],
  ])('a request with %s is 400 in our shape, and its connection closed', async (_what, text) => {
    const { gateway } = await start('');
    const client = raw(gateway);
    client.write(text);
    expect(rawAnswer(await client.ended)).toMatchObject({ status: 400, body: { error: { code: 'malformed_request' } } });
    expect(await refusals(gateway, 'malformed')).toBe(1);
  });

  test('an expectation that is not known is passed over', async () => {
    const { gateway } = await start('');
    expect(await ask(gateway, { host: 'x', expect: 'wonders', connection: 'close' })).toMatchObject({ status: 200 });
  });

  test('what is no request after one that waits lets go of that too', async () => {
    const { gateway, upstream } = await start('', { answer: () => {} });
    const client = raw(gateway);
    const body = chat();
    client.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    await eventually(() => upstream.requests.length === 1);
    client.write('HELLO\r\n\r\n');
    await upstream.requests[0]?.aborted;
    expect(await gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
    expect(rawAnswer(await client.ended).status).toBe(400);
  });

  test('what is no request during an answer only ends it', async () => {
    const { gateway, upstream } = await start('', {
      answer: (_request, _incoming, outgoing) => {
        outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
        outgoing.write('data: {}\n\n');
      },
    });
    const client = raw(gateway);
    const body = chat({ stream: true });
    client.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    await eventually(() => client.received().includes('data: {}'));
    client.write('HELLO\r\n\r\n');
    const text = await client.ended;
    expect(text.match(/HTTP\/1\.1/g)).toHaveLength(1);
    await upstream.requests[0]?.aborted;
  });
});

describe('the body', () => {
  test('as many bytes as allowed pass, one more is 413 (HTTP/2)', async () => {
    const { gateway, upstream } = await start('limits: { bodyBytesMax: 4096 }');
    const client = await http2(gateway);
    expect((await client.ask(POST, chatOf(4096))).status).toBe(200);
    const refused = await client.ask(POST, chatOf(4097));
    expect(refused.status).toBe(413);
    expect(JSON.parse(refused.text)).toMatchObject({ error: { code: 'request_too_large', message: 'The request body is larger than the 4096 bytes allowed' } });
    expect(upstream.requests).toHaveLength(1);
  });

  test('one that goes on after its refusal is cut off (HTTP/2)', async () => {
    const { gateway } = await start('limits: { bodyBytesMax: 4096 }');
    const client = await http2(gateway);
    const stream = client.open(POST);
    const answer = answerOf(stream);
    const more = setInterval(() => stream.write('x'.repeat(4096)), 20);
    expect((await answer).status).toBe(413);
    clearInterval(more);
    expect((await client.ask({ ':path': '/v1/models' })).status).toBe(200);
  });

  test('one that is refused unread does not hold its stream either (HTTP/2)', async () => {
    const { gateway } = await start(`tenants: [{ name: a, apiKeySha256: [${'a'.repeat(64)}] }]`);
    const client = await http2(gateway);
    const stream = client.open(POST);
    const answer = answerOf(stream);
    stream.write('x'.repeat(1_000_000));
    expect(await answer).toMatchObject({ status: 401, code: constants.NGHTTP2_NO_ERROR });
  });
});

describe('time', () => {
  const SLOW = 'timeouts: { headersMs: 200, requestMs: 1500, drainMs: 5000 }';
  const head = (length: number): string => `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: ${length}\r\n`;

  test('headers that take too long are 408, and their connection is closed', async () => {
    const { gateway } = await start(SLOW);
    const client = raw(gateway);
    client.write('POST /v1/chat/completions HTTP/1.1\r\n');
    const drip = setInterval(() => client.write('a: b\r\n'), 20);
    const text = await client.ended;
    clearInterval(drip);
    expect(rawAnswer(text)).toMatchObject({ status: 408, body: { error: { code: 'request_timeout' } } });
    expect(await refusals(gateway, 'request-timeout')).toBe(1);
  });

  test('a body that takes too long is 408 and nothing is left of it; one that is in time passes', async () => {
    const { gateway, upstream } = await start(SLOW);
    const body = chat();
    const [slow, inTime] = [raw(gateway), raw(gateway)];
    inTime.write(`${head(body.length)}\r\n`);
    slow.write(`${head(10_000)}\r\n`);
    const drip = setInterval(() => slow.write('{'), 20);
    await new Promise((resolve) => setTimeout(resolve, 400));
    inTime.write(body);
    expect(rawAnswer(await inTime.ended).status).toBe(200);
    expect(rawAnswer(await slow.ended)).toMatchObject({ status: 408, body: { error: { code: 'request_timeout' } } });
    clearInterval(drip);
    expect(upstream.requests).toHaveLength(1);
    const fromMs = performance.now();
    await gateway.close();
    expect(performance.now() - fromMs).toBeLessThan(2_000);
  });

  test('a body that takes too long is 408 and its stream ended; one that is in time passes (HTTP/2)', async () => {
    const { gateway, upstream } = await start(SLOW);
    const client = await http2(gateway);
    const [slow, inTime] = [client.open(POST), client.open(POST)];
    const [slowAnswer, answer] = [answerOf(slow), answerOf(inTime)];
    inTime.write(chat().slice(0, 5));
    const drip = setInterval(() => slow.write('{'), 20);
    await new Promise((resolve) => setTimeout(resolve, 400));
    inTime.end(chat().slice(5));
    expect((await answer).status).toBe(200);
    const { status, text, code } = await slowAnswer;
    clearInterval(drip);
    expect({ status, code }).toEqual({ status: 408, code: constants.NGHTTP2_NO_ERROR });
    expect(JSON.parse(text)).toMatchObject({ error: { code: 'request_timeout' } });
    expect(await refusals(gateway, 'request-timeout')).toBe(1);
    expect(upstream.requests).toHaveLength(1);
  });

  test('an answer may take longer than its request was allowed to', async () => {
    const { gateway } = await start('timeouts: { headersMs: 400, requestMs: 400, keepAliveMs: 400, drainMs: 100 }', {
      answer: (_request, _incoming, outgoing) => void setTimeout(() => outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{}'), 1_300),
    });
    const client = await http2(gateway);
    const [first, second] = await Promise.all([client.ask(POST, chat()), fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: chat() })]);
    expect([first.status, second.status]).toEqual([200, 200]);
  });

  test('a bound for requests that is below the one for headers holds for both', async () => {
    const { gateway } = await start('timeouts: { requestMs: 90, drainMs: 100 }');
    const client = raw(gateway);
    client.write('GET /v1/models HTTP/1.1\r\n');
    expect(rawAnswer(await client.ended).status).toBe(408);
  });

  test.each(['', 'http2: false'])('a connection that says nothing is closed without a word (%s)', async (listen) => {
    const { gateway } = await start(SLOW, { listen });
    expect(await raw(gateway).ended).toBe('');
    expect(await refusals(gateway, 'request-timeout')).toBe(0);
  });

  test('a beginning that may become either protocol is closed too', async () => {
    const { gateway } = await start(SLOW);
    const client = raw(gateway);
    client.write('PRI * HT');
    expect(await client.ended).toBe('');
  });

  test('a connection without a request is closed after a while', async () => {
    const { gateway } = await start('timeouts: { keepAliveMs: 100, drainMs: 100 }');
    const client = raw(gateway);
    client.write('GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n');
    expect(rawAnswer(await client.ended).status).toBe(200);
  });

  test('a session without a request is told to go away, though it pings; one that never had one too (HTTP/2)', async () => {
    const { gateway } = await start('timeouts: { headersMs: 1000, keepAliveMs: 300, drainMs: 100 }');
    const [served, silent] = [await http2(gateway), await http2(gateway)];
    const gone = [served, silent].map(({ session }) => Promise.all([once(session, 'goaway'), once(session, 'close')]));
    expect((await served.ask({ ':path': '/v1/models' })).status).toBe(200);
    const ping = setInterval(() => void (served.session.closed || served.session.ping(() => {})), 20);
    for (const [[code]] of await Promise.all(gone)) expect(code).toBe(constants.NGHTTP2_NO_ERROR);
    clearInterval(ping);
  });

  test('a client that answers no goodbye is cut (HTTP/2)', async () => {
    const { gateway } = await start('timeouts: { headersMs: 100, drainMs: 100 }');
    const client = raw(gateway);
    client.socket.allowHalfOpen = true;
    client.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
    await once(client.socket, 'end');
    await eventually(async () => {
      client.write('\0');
      return client.socket.destroyed;
    });
  });
});

describe('connections', () => {
  /** Open, and known to the gateway as such. */
  const connected = async (gateway: GatewayUnderTest): Promise<RawClient> => {
    const client = raw(gateway);
    client.write('GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n');
    await eventually(() => client.received().includes('\r\n\r\n'));
    return client;
  };

  test.each(['', 'http2: false'])('as many as allowed are served, one more is 503 and told to come back, and its place is free again (%s)', async (listen) => {
    const { gateway } = await start('limits: { connectionsMax: 3 }', { listen });
    const clients = [await connected(gateway), await connected(gateway), await connected(gateway)];
    expect(clients.map((client) => rawAnswer(client.received()).status)).toEqual([200, 200, 200]);
    const refused = rawAnswer(await raw(gateway).ended);
    expect(refused).toMatchObject({ status: 503, body: { error: { code: 'too_many_connections' } } });
    expect(refused.head).toContain('retry-after: 1\r\n');
    expect(await refusals(gateway, 'too-many-connections')).toBe(1);
    await clients[0]?.close();
    await eventually(async () => rawAnswer((await connected(gateway)).received()).status === 200);
  });

  test('far more at once are closed without a word, and counted', async () => {
    const { gateway } = await start('limits: { connectionsMax: 1 }');
    await connected(gateway);
    const flood = Array.from({ length: 100 }, () => {
      const client = raw(gateway);
      // It does not close its end, so the refused ones stay for as long as they may.
      client.socket.allowHalfOpen = true;
      return client;
    });
    const texts = await Promise.all(flood.map(({ ended }) => ended));
    expect(texts.filter((text) => text.startsWith('HTTP/1.1 503'))).toHaveLength(64);
    expect(texts.filter((text) => text === '')).toHaveLength(36);
    expect(await count(gateway, 'paceline_connections_dropped_total{why="connections-max"}')).toBe(36);
  });

  test('with TLS one more is closed before its handshake', async () => {
    const { gateway } = await start('limits: { connectionsMax: 1 }', { listen: `tls: { certFile: ${TLS.first.cert}, keyFile: ${TLS.first.key} }` });
    const client = await http2(gateway);
    await expect(http2Client(gateway.url)).rejects.toThrow();
    expect(await count(gateway, 'paceline_connections_dropped_total{why="connections-max"}')).toBe(1);
    expect((await client.ask({ ':path': '/v1/models' })).status).toBe(200);
    await client.close();
    await eventually(async () => {
      const next = await http2Client(gateway.url).catch(() => null);
      if (next !== null) opened.push(next);
      return next !== null;
    });
  });

  test('operators get in while requests do not', async () => {
    const { gateway } = await start('limits: { connectionsMax: 1 }');
    await connected(gateway);
    expect((await fetch(`${gateway.adminUrl}/healthz`)).status).toBe(200);
  });
});

describe('streams of a connection', () => {
  test('as many as allowed are served at once, one more waits for its turn or is refused unprocessed', async () => {
    const finish: (() => void)[] = [];
    const { gateway, upstream } = await start('limits: { streamsPerConnectionMax: 2 }', {
      answer: (_request, _incoming, outgoing) => void finish.push(() => outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{}')),
    });
    const client = await http2(gateway);
    await eventually(() => client.session.remoteSettings.maxConcurrentStreams === 2);
    const answers = [client.ask(POST, chat()), client.ask(POST, chat()), client.ask(POST, chat())];
    await eventually(() => upstream.requests.length === 2);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(upstream.requests).toHaveLength(2);
    finish[0]?.();
    await eventually(() => upstream.requests.length === 3);
    for (const end of finish.slice(1)) end();
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200, 200]);
  });

  test('hundreds whose client reads slowly are all served to their end', async () => {
    const piece = `data: {"choices":[{"delta":{"content":"${'x'.repeat(60_000)}"}}]}\n\n`;
    const { gateway } = await start('limits: { streamsPerConnectionMax: 300 }\nhealth: { everyMs: 60000, timeoutMs: 30000, failuresMax: 9 }', {
      answer: (_request, _incoming, outgoing) => {
        outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
        for (let count = 0; count < 4; count++) outgoing.write(piece);
        outgoing.end();
      },
    });
    const client = await http2Client(gateway.url, { settings: { initialWindowSize: 1_000 } });
    opened.push(client);
    const answers = await Promise.all(Array.from({ length: 300 }, () => client.ask(POST, chat({ stream: true, user: 'x'.repeat(20_000) }))));
    expect(answers.filter(({ code, text }) => code !== constants.NGHTTP2_NO_ERROR || text.length !== 4 * piece.length)).toEqual([]);
  });

  test('a flood of streams that are taken back ends with its connection, and frees everything', async () => {
    const { gateway, upstream } = await start('', { answer: () => {} });
    const client = await http2(gateway);
    const closed = new Promise((resolve) => client.session.once('close', resolve));
    const body = chat();
    const flood = setInterval(() => {
      for (let index = 0; index < 200 && !client.session.destroyed && !client.session.closed; index++) {
        const stream = client.open(POST);
        stream.end(body);
        setImmediate(() => stream.close(constants.NGHTTP2_CANCEL));
      }
    }, 1);
    await closed;
    clearInterval(flood);
    await Promise.all(upstream.requests.map(({ aborted }) => aborted));
    await eventually(async () => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { inFlight: number }).inFlight === 0);
    expect((await (await http2(gateway)).ask({ ':path': '/v1/models' })).status).toBe(200);
  });

  test.each([
    ['pings', Buffer.from([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])],
    ['settings', Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])],
  ])('a flood of %s whose answers nobody reads ends with its connection', async (_what, frame) => {
    const { gateway } = await start('');
    const client = raw(gateway);
    client.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
    await eventually(() => client.received().length > 9);
    client.socket.pause();
    const flood = Buffer.concat(Array.from({ length: 4_000 }, () => frame));
    await eventually(() => {
      if (!client.socket.destroyed && client.socket.writableLength < 10_000_000) client.write(flood);
      return client.socket.destroyed;
    }, 20_000);
    expect((await fetch(`${gateway.url}/v1/models`)).status).toBe(200);
  });
});
