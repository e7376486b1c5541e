// Where requests come in: both versions of HTTP, with and without TLS, on ports and Unix sockets, through a whole gateway.
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { constants } from 'node:http2';
import { request as requestTls } from 'node:https';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { createGateway } from '../../src/gateway.ts';
import { watchCertificate } from '../../src/http/certificate.ts';
import { answerOf, http2Client, rawAnswer, rawClient, TLS, TRUSTED } from '../fixtures/clients.ts';
import type { Http2Client } from '../fixtures/clients.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startGateway, testConfig } from '../fixtures/gateway-under-test.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { createStubUpstream, endless, streamEvents } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const TLS_LINE = `tls: { certFile: ${TLS.first.cert}, keyFile: ${TLS.first.key} }`;
const PORTS = [
  { name: 'h2c', listen: '' },
  { name: 'h2 over TLS', listen: TLS_LINE },
];

async function start(options: { listen?: string; answer?: Answer; replica?: string; more?: string } = {}): Promise<{ gateway: GatewayUnderTest; upstream: StubUpstream }> {
  const upstream = await createStubUpstream(options.answer);
  opened.push(upstream);
  const { listen = '' } = options;
  const gateway = await startGateway([upstream], {
    ...(options.replica === undefined ? {} : { replica: options.replica }),
    more: `listen: { ${listen.includes('socket:') ? '' : 'port: 0, '}${listen} }\n${options.more ?? 'timeouts: { drainMs: 100 }'}`,
  });
  opened.push(gateway);
  return { gateway, upstream };
}

async function clientOf(gateway: GatewayUnderTest, options?: Parameters<typeof http2Client>[1]): Promise<Http2Client> {
  const client = await http2Client(gateway.url, options);
  opened.push(client);
  return client;
}

function temporary(): string {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-listen-'));
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) });
  return directory;
}

const POST = { ':method': 'POST', ':path': '/v1/chat/completions', 'content-type': 'application/json' };
const chat = (more: object = {}): string => JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], ...more });
const ended = (gateway: GatewayUnderTest): unknown[] => gateway.events.filter(({ kind }) => kind === 'ended');
const inFlight = async (gateway: GatewayUnderTest): Promise<number> => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { inFlight: number }).inFlight;

describe.each(PORTS)('over $name', ({ listen }) => {
  test('an answer without streaming comes whole, with no header of a connection and no trailers', async () => {
    const { gateway, upstream } = await start({ listen });
    const answer = await (await clientOf(gateway)).ask({ ...POST, 'x-request-id': 'mine-1' }, chat());
    expect(answer).toMatchObject({ status: 200, code: constants.NGHTTP2_NO_ERROR, trailers: null, headers: { 'content-type': 'application/json', 'x-request-id': 'mine-1', 'x-paceline-replica': 'r0' } });
    expect(JSON.parse(answer.text)).toMatchObject({ choices: [{ message: { content: 'Hello there!' } }] });
    for (const name of ['connection', 'keep-alive', 'transfer-encoding']) expect(answer.headers[name]).toBeUndefined();
    expect(upstream.requests).toMatchObject([{ path: '/v1/chat/completions', body: chat() }]);
    expect(await gateway.event('ended')).toMatchObject({ outcome: 'finished' });
  });

  test('a stream comes through byte for byte, its headers first', async () => {
    let finish = (): void => {};
    const events = streamEvents({ id: 'chatcmpl-1', created: 1, model: 'm' });
    const { gateway } = await start({
      listen,
      answer: (_request, _incoming, outgoing) => {
        outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
        outgoing.flushHeaders();
        finish = () => outgoing.end(events.join(''));
      },
    });
    const stream = (await clientOf(gateway)).open(POST);
    const answer = answerOf(stream);
    stream.end(chat({ stream: true, stream_options: { include_usage: true } }));
    const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
    expect(headers).toMatchObject({ ':status': 200, 'content-type': 'text/event-stream' });
    finish();
    expect(await answer).toMatchObject({ text: events.join(''), code: constants.NGHTTP2_NO_ERROR });
    expect(await gateway.event('ended')).toMatchObject({ outcome: 'finished', usage: { outputTokens: 3 } });
  });

  test('a hundred requests share a connection', async () => {
    const { gateway } = await start({ listen });
    const client = await clientOf(gateway);
    const answers = await Promise.all(Array.from({ length: 100 }, (_, index) => client.ask(POST, chat({ stream: index % 2 === 0 }))));
    expect(answers.filter(({ status, code }) => status === 200 && code === 0)).toHaveLength(100);
    expect(ended(gateway)).toHaveLength(100);
  });

  test('a body of megabytes comes whole, slowly or at once', async () => {
    const { gateway, upstream } = await start({ listen });
    const client = await clientOf(gateway);
    const body = chat({ user: 'x'.repeat(3_000_000) });
    expect((await client.ask(POST, body)).status).toBe(200);
    const stream = client.open(POST);
    const answer = answerOf(stream);
    stream.write(body.slice(0, 10));
    await new Promise((resolve) => setTimeout(resolve, 30));
    stream.end(body.slice(10));
    expect((await answer).status).toBe(200);
    expect(upstream.requests.map((seen) => seen.body.length)).toEqual([body.length, body.length]);
  });

  test('an answer of megabytes comes whole to a client that reads it bit by bit', async () => {
    const events = Array.from({ length: 2_000 }, (_, index) => `data: {"choices":[{"delta":{"content":"${index} ${'x'.repeat(4000)}"}}]}\n\n`);
    const { gateway } = await start({ listen, answer: (_request, _incoming, outgoing) => void outgoing.writeHead(200, { 'content-type': 'text/event-stream' }).end(events.join('')) });
    const stream = (await clientOf(gateway)).open(POST);
    const answer = answerOf(stream);
    const breath = setInterval(() => {
      stream.pause();
      setTimeout(() => stream.resume(), 5);
    }, 10);
    stream.end(chat({ stream: true }));
    const { text, code } = await answer;
    clearInterval(breath);
    expect(code).toBe(constants.NGHTTP2_NO_ERROR);
    expect(text === events.join('')).toBe(true);
    expect(await gateway.event('ended')).toMatchObject({ outcome: 'finished' });
  });

  test.each([
    { headers: { ':method': 'GET', ':path': '/nope' }, status: 404, code: 'unknown_url' },
    { headers: { ':method': 'DELETE', ':path': '/v1/chat/completions' }, status: 405, code: 'method_not_supported' },
    { headers: { ':method': 'GET', ':path': '/v1/models/none' }, status: 404, code: 'model_not_found' },
    { headers: { ':method': 'CONNECT', ':authority': 'x:1' }, status: 400, code: 'malformed_request' },
    { headers: { ':method': 'GET', ':path': '/v1/models', ':authority': 'a:99999' }, status: 400, code: 'malformed_request' },
  ])('$headers is refused with $code', async ({ headers, status, code }) => {
    const { gateway } = await start({ listen });
    const answer = await (await clientOf(gateway)).ask(headers);
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.text)).toMatchObject({ error: { code } });
  });

  test('HEAD is answered without a body', async () => {
    const { gateway } = await start({ listen });
    const client = await clientOf(gateway);
    expect(await client.ask({ ':method': 'HEAD', ':path': '/v1/models' })).toMatchObject({ status: 200, text: '', code: 0 });
    expect(await client.ask({ ':method': 'HEAD', ':path': '/v1/chat/completions' })).toMatchObject({ status: 405, text: '', code: 0 });
  });

  test.each([true, false])('a body that is too large is 413 and its upload ended, whether it tells its size or not (%s)', async (tells) => {
    const { gateway, upstream } = await start({ listen, more: 'limits: { bodyBytesMax: 4096 }\ntimeouts: { drainMs: 100 }' });
    const stream = (await clientOf(gateway)).open({ ...POST, ...(tells ? { 'content-length': 10_000_000 } : {}) });
    const answer = answerOf(stream);
    stream.write('x'.repeat(4097));
    const { status, text } = await answer;
    expect(status).toBe(413);
    expect(JSON.parse(text)).toMatchObject({ error: { code: 'request_too_large' } });
    expect(upstream.requests).toHaveLength(0);
  });

  test.each([
    { when: 'before headers', answer: (() => {}) as Answer },
    {
      when: 'after headers',
      answer: ((_request, _incoming, outgoing) => {
        outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
        outgoing.write('data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n');
      }) as Answer,
    },
  ])('a client that cancels $when frees the server at once, and its connection lives on', async ({ when, answer }) => {
    const { gateway, upstream } = await start({ listen, answer });
    const client = await clientOf(gateway);
    const stream = client.open(POST);
    stream.end(chat({ stream: true }));
    if (when === 'after headers') await once(stream, 'response');
    else await eventually(() => upstream.requests.length === 1);
    const leftAtMs = performance.now();
    stream.close(constants.NGHTTP2_CANCEL);
    await upstream.requests[0]?.aborted;
    expect(performance.now() - leftAtMs).toBeLessThan(500);
    expect(await gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
    expect(await inFlight(gateway)).toBe(0);
    expect((await client.ask({ ':path': '/v1/models' })).status).toBe(200);
  });

  test.each(['the session is destroyed', 'the socket is cut'])('when %s all of its requests are freed', async (how) => {
    const { gateway, upstream } = await start({ listen, answer: () => {} });
    const client = await clientOf(gateway);
    for (let count = 0; count < 3; count++) void client.ask(POST, chat({ stream: true }));
    await eventually(() => upstream.requests.length === 3);
    if (how === 'the socket is cut') rawDestroy(client);
    else client.session.destroy();
    await Promise.all(upstream.requests.map(({ aborted }) => aborted));
    await eventually(() => ended(gateway).length === 3);
    expect(await inFlight(gateway)).toBe(0);
  });

  test('a request cancelled while queued is never sent on', async () => {
    const { gateway, upstream } = await start({ listen, answer: () => {}, replica: 'concurrencyMax: 1' });
    const client = await clientOf(gateway);
    void client.ask(POST, chat());
    await eventually(() => upstream.requests.length === 1);
    const second = client.open(POST);
    second.end(chat());
    await eventually(() => gateway.events.filter(({ kind }) => kind === 'arrived').length === 2);
    second.close(constants.NGHTTP2_CANCEL);
    expect(await gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
    client.session.destroy();
    await eventually(() => ended(gateway).length === 2);
    expect(upstream.requests).toHaveLength(1);
  });

  test('a request cancelled in the middle of its body leaves nothing behind', async () => {
    const { gateway } = await start({ listen });
    const client = await clientOf(gateway);
    const stream = client.open(POST);
    stream.write('{"model"');
    await eventually(() => stream.id !== undefined);
    stream.close(constants.NGHTTP2_CANCEL);
    expect((await client.ask(POST, chat())).status).toBe(200);
    expect(gateway.events.filter(({ kind }) => kind === 'arrived')).toHaveLength(1);
  });

  test('an answer that the server breaks off is an error of its stream, never passed off as whole', async () => {
    const { gateway } = await start({
      listen,
      answer: (_request, incoming, outgoing) => {
        outgoing.writeHead(200, { 'content-type': 'application/json' });
        outgoing.write('{"half":', () => setTimeout(() => incoming.socket.destroy(), 20));
      },
    });
    const answer = await (await clientOf(gateway)).ask(POST, chat());
    expect(answer).toMatchObject({ status: 200, code: constants.NGHTTP2_INTERNAL_ERROR });
  });

  test('a client that reads slowly slows the server down, and one that never reads is cut', async () => {
    let written = 0;
    const { gateway, upstream } = await start({
      listen,
      more: 'timeouts: { stallMs: 300, drainMs: 0 }',
      answer: endless((bytes) => (written += bytes)),
    });
    const client = await clientOf(gateway);
    const stream = client.open(POST);
    stream.pause();
    const closed = new Promise((resolve) => stream.once('close', resolve));
    stream.end(chat({ stream: true }));
    await eventually(() => upstream.requests.length === 1);
    await upstream.requests[0]?.aborted;
    expect(written).toBeLessThan(24 * 1024 * 1024);
    expect(await gateway.event('ended')).toMatchObject({ outcome: 'failed' });
    await closed;
    expect(stream.rstCode).toBe(constants.NGHTTP2_INTERNAL_ERROR);
    expect((await client.ask({ ':path': '/v1/models' })).status).toBe(200);
  });

  test('at shutdown a session is told to go away, and its requests end', async () => {
    let finish = (): void => {};
    const { gateway, upstream } = await start({
      listen,
      more: 'timeouts: { drainMs: 3000 }',
      answer: (_request, _incoming, outgoing) => {
        finish = () => outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{"choices":[]}');
      },
    });
    const client = await clientOf(gateway);
    const answer = client.ask(POST, chat());
    await eventually(() => upstream.requests.length === 1);
    const goaway = once(client.session, 'goaway');
    const closing = gateway.close();
    expect((await goaway)[0]).toBe(constants.NGHTTP2_NO_ERROR);
    finish();
    expect(await answer).toMatchObject({ status: 200, text: '{"choices":[]}', code: 0 });
    const fromMs = performance.now();
    await closing;
    expect(performance.now() - fromMs).toBeLessThan(1_500);
  });

  test('what does not end in time at shutdown is cut, and the server is let go', async () => {
    const { gateway, upstream } = await start({ listen, more: 'timeouts: { drainMs: 50 }', answer: () => {} });
    const client = await clientOf(gateway);
    const answer = client.ask(POST, chat());
    await eventually(() => upstream.requests.length === 1);
    await gateway.close();
    expect((await answer).status).toBeUndefined();
    await upstream.requests[0]?.aborted;
  });
});

/** Under the session, as when a machine is switched off; what is on the way is lost. */
function rawDestroy({ session }: Http2Client): void {
  const symbol = Object.getOwnPropertySymbols(session).find(({ description }) => description === 'socket');
  (session as unknown as Record<symbol, { destroy(): void }>)[symbol as symbol]?.destroy();
}

describe('without TLS', () => {
  test('HTTP/1.1 and HTTP/2 share the port, and connections are kept alive', async () => {
    const { gateway } = await start();
    const client = rawClient(gateway.url);
    opened.push(client);
    client.write('GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n');
    await eventually(() => client.received().includes('"list"'));
    client.write('GET /v1/models/m HTTP/1.1\r\nhost: x\r\n\r\n');
    await eventually(() => client.received().includes('"model"') && client.received().split('HTTP/1.1 200').length === 3);
    expect((await (await clientOf(gateway)).ask({ ':path': '/v1/models' })).status).toBe(200);
  });

  test('a protocol that shows itself byte by byte is told all the same', async () => {
    const { gateway } = await start();
    const client = rawClient(gateway.url);
    opened.push(client);
    client.socket.setNoDelay(true);
    for (const byte of 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n') {
      client.write(byte);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    // An empty SETTINGS frame; the server's own comes first, then its acknowledgement.
    client.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
    await eventually(() => client.received().length >= 9 && client.received().charCodeAt(3) === 4);
    const other = rawClient(gateway.url);
    opened.push(other);
    for (const piece of ['P', 'RI', ' /v1/models HTTP/1.1\r\nhost: x\r\n\r\n']) {
      other.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(rawAnswer(await other.ended)).toMatchObject({ status: 400, body: { error: { code: 'malformed_request' } } });
  });

  test('a first packet as large as the buffers loses nothing', async () => {
    const { gateway, upstream } = await start();
    const body = chat({ user: 'x'.repeat(2_000_000) });
    const client = rawClient(gateway.url);
    opened.push(client);
    client.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    expect(rawAnswer(await client.ended).status).toBe(200);
    expect(upstream.requests[0]?.body).toBe(body);
  });

  test('HTTP/2 can be switched off; its preface is then refused like everything that is no request', async () => {
    const { gateway } = await start({ listen: 'http2: false' });
    const client = rawClient(gateway.url);
    opened.push(client);
    client.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    expect(rawAnswer(await client.ended)).toMatchObject({ status: 400, body: { error: { code: 'malformed_request' } } });
    expect((await fetch(`${gateway.url}/v1/models`)).status).toBe(200);
  });

  test('a connection that says nothing is no reason to wait at shutdown', async () => {
    const { gateway } = await start({ more: 'timeouts: { drainMs: 10000 }' });
    const client = rawClient(gateway.url);
    await once(client.socket, 'connect');
    await eventually(async () => (await fetch(`${gateway.url}/v1/models`)).ok);
    const fromMs = performance.now();
    await gateway.close();
    expect(performance.now() - fromMs).toBeLessThan(2_000);
    await client.close();
  });
});

describe('with TLS', () => {
  const overTls = async (gateway: GatewayUnderTest, alpn?: string[]): Promise<{ protocol: string | false | null; subject: unknown }> => {
    const { port } = new URL(gateway.url);
    const socket = connectTls({ port: Number(port), host: '127.0.0.1', ca: TRUSTED, ...(alpn === undefined ? {} : { ALPNProtocols: alpn }) });
    await once(socket, 'secureConnect');
    const seen = { protocol: socket.alpnProtocol, subject: socket.getPeerCertificate().subject.CN };
    socket.destroy();
    return seen;
  };

  test('HTTP/1.1 is served to who asks for it or for nothing, HTTP/2 to who offers it', async () => {
    const { gateway } = await start({ listen: TLS_LINE });
    expect(gateway.url).toMatch(/^https:/);
    expect(await overTls(gateway, ['h2', 'http/1.1'])).toMatchObject({ protocol: 'h2' });
    expect(await overTls(gateway, ['http/1.1'])).toMatchObject({ protocol: 'http/1.1' });
    expect(await overTls(gateway)).toMatchObject({ protocol: false });
    const asked = requestTls(`${gateway.url}/v1/chat/completions`, { method: 'POST', ca: TRUSTED });
    asked.end(chat());
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    expect(answer).toMatchObject({ statusCode: 200, httpVersion: '1.1' });
    answer.resume();
  });

  test('HTTP/2 can be switched off', async () => {
    const { gateway } = await start({ listen: `${TLS_LINE}, http2: false` });
    expect(await overTls(gateway, ['h2', 'http/1.1'])).toMatchObject({ protocol: 'http/1.1' });
    await expect(overTls(gateway, ['h2'])).rejects.toThrow(/no application protocol/i);
  });

  test('a client that speaks no TLS is dropped, counted, and harms nobody', async () => {
    const { gateway } = await start({ listen: TLS_LINE });
    const client = rawClient(gateway.url.replace('https', 'http'));
    client.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    await client.ended;
    expect(await (await fetch(`${gateway.adminUrl}/metrics`)).text()).toContain('paceline_connections_dropped_total{why="tls-handshake"} 1');
    expect((await (await clientOf(gateway)).ask({ ':path': '/v1/models' })).status).toBe(200);
  });

  test('a new certificate is taken when it is said so, a broken one is not, and open connections stay', async () => {
    const directory = temporary();
    const [certFile, keyFile] = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
    const put = (pair: { cert: string; key: string }): void => {
      copyFileSync(pair.cert, certFile);
      copyFileSync(pair.key, keyFile);
    };
    put(TLS.first);
    const { gateway } = await start({ listen: `tls: { certFile: ${certFile}, keyFile: ${keyFile} }` });
    const old = await clientOf(gateway);
    expect((await overTls(gateway)).subject).toBe('first.test');
    put(TLS.second);
    gateway.reloadCertificate();
    expect((await overTls(gateway, ['h2'])).subject).toBe('second.test');
    copyFileSync(TLS.first.cert, certFile);
    gateway.reloadCertificate();
    expect((await overTls(gateway)).subject).toBe('second.test');
    rmSync(keyFile);
    gateway.reloadCertificate();
    expect((await overTls(gateway)).subject).toBe('second.test');
    expect((await old.ask({ ':path': '/v1/models' })).status).toBe(200);
    const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
    expect(metrics).toContain('paceline_tls_certificate_loads_total{result="loaded"} 2');
    expect(metrics).toContain('paceline_tls_certificate_loads_total{result="refused"} 2');
    expect(metrics).toMatch(/paceline_tls_certificate_expiry_timestamp_seconds 49\d{8}/);
  });

  test('files that change are read again by themselves', async () => {
    const directory = temporary();
    const paths = { certPath: join(directory, 'cert.pem'), keyPath: join(directory, 'key.pem') };
    copyFileSync(TLS.first.cert, paths.certPath);
    copyFileSync(TLS.first.key, paths.keyPath);
    const [subjects, troubles]: [string[], string[]] = [[], []];
    const watch = watchCertificate(paths, { everyMs: 10, changed: ({ subject }) => subjects.push(subject), broken: (why) => troubles.push(why) });
    opened.push({ close: async () => watch.close() });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect([subjects, troubles]).toEqual([[], []]);
    copyFileSync(TLS.second.cert, paths.certPath);
    await eventually(() => troubles.length === 1);
    expect(troubles[0]).toContain(`listen.tls.keyFile: ${paths.keyPath} is not the key of the certificate in ${paths.certPath}`);
    copyFileSync(TLS.second.key, paths.keyPath);
    await eventually(() => subjects.length === 1);
    expect(subjects).toEqual(['CN=second.test']);
    rmSync(paths.certPath);
    await eventually(() => troubles.length === 2);
    expect(troubles[1]).toMatch(/listen\.tls\.certFile: .* cannot be read: ENOENT/);
  });

  test.each([
    ['a certificate that is not there', { cert: '/nowhere/cert.pem' }, /^listen\.tls\.certFile: \/nowhere\/cert\.pem cannot be read: ENOENT/],
    ['a key that is not there', { key: '/nowhere/key.pem' }, /^listen\.tls\.keyFile: \/nowhere\/key\.pem cannot be read: ENOENT/],
    ['a certificate that is none', { cert: 'README.md' }, /^listen\.tls\.certFile: .*README\.md is not a PEM certificate/],
    ['a key that is none', { key: TLS.first.cert }, /^listen\.tls\.keyFile: .*first\.cert\.pem is not a PEM private key/],
    ['a key of another certificate', { key: TLS.second.key }, /^listen\.tls\.keyFile: .*second\.key\.pem is not the key of the certificate in .*first\.cert\.pem$/],
  ])('%s is refused at the start, by name', async (_what, { cert = TLS.first.cert, key = TLS.first.key }: { cert?: string; key?: string }, message) => {
    await expect(start({ listen: `tls: { certFile: ${cert}, keyFile: ${key} }` })).rejects.toThrow(message);
  });
});

describe('on a Unix socket', () => {
  const modelsAt = async (socketPath: string): Promise<number | undefined> => {
    const asked = request({ socketPath, path: '/v1/models' });
    asked.end();
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    answer.resume();
    return answer.statusCode;
  };

  test('requests are served, with the mode that was asked for, and nothing is left at the end', async () => {
    const path = join(temporary(), 'gateway.sock');
    const { gateway } = await start({ listen: `socket: ${path}` });
    expect(gateway.url).toBe(`unix:${path}`);
    expect(statSync(path).mode & 0o777).toBe(0o660);
    expect(await modelsAt(path)).toBe(200);
    const client = rawClient(gateway.url);
    client.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
    await eventually(() => client.received().charCodeAt(3) === 4);
    await client.close();
    await gateway.close();
    expect(existsSync(path)).toBe(false);
  });

  test('its mode can be chosen', async () => {
    const path = join(temporary(), 'gateway.sock');
    await start({ listen: `socket: ${path}, socketMode: '0600'` });
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test('what a dead process has left is replaced, what a live one uses is not', async () => {
    const path = join(temporary(), 'gateway.sock');
    // Killed while it listens: the file stays.
    spawnSync(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`]);
    expect(statSync(path).isSocket()).toBe(true);
    const { gateway } = await start({ listen: `socket: ${path}` });
    expect(await modelsAt(path)).toBe(200);
    await expect(start({ listen: `socket: ${path}` })).rejects.toThrow(`listen.socket: another process listens on ${path}; stop it or choose another path`);
    expect(await modelsAt(path)).toBe(200);
    await gateway.close();
  });

  test('a file that is no socket is left alone', async () => {
    const path = join(temporary(), 'notes.txt');
    writeFileSync(path, 'mine');
    await expect(start({ listen: `socket: ${path}` })).rejects.toThrow(`listen.socket: ${path} is there and is no socket`);
    expect(statSync(path).size).toBe(4);
  });

  test('a directory that is not there is a problem of the configuration', async () => {
    await expect(start({ listen: 'socket: /nowhere/gateway.sock' })).rejects.toThrow('there is no directory');
  });

  test('a live socket of another program is not taken over', async () => {
    const path = join(temporary(), 'other.sock');
    const other = createServer().listen(path);
    await once(other, 'listening');
    opened.push({ close: async () => void other.close() });
    await expect(start({ listen: `socket: ${path}` })).rejects.toThrow(/another process listens/);
  });
});

test.each(['listen', 'admin'] as const)('a port of %s that is taken is told by its key, and nothing stays open', async (key) => {
  const upstream = await createStubUpstream();
  const taken = createServer();
  taken.listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  const free = createServer();
  free.listen(0, '127.0.0.1');
  await once(free, 'listening');
  const { port: other } = free.address() as AddressInfo;
  await new Promise((resolve) => free.close(resolve));
  const config = testConfig(`replicas:\n  - { id: a, url: '${upstream.url}', models: [m], profile: ${PROFILE} }`);
  const address = (name: string) => ({ host: '127.0.0.1', port: name === key ? port : other });
  const starting = createGateway({ ...config, listen: { ...config.listen, address: { kind: 'port', ...address('listen') } }, admin: { ...config.admin, ...address('admin') } });
  await expect(starting).rejects.toThrow(`${key}: EADDRINUSE: another process listens on 127.0.0.1:${port}; choose another with ${key}.port or --${key} HOST:PORT`);
  const again = createServer();
  again.listen(other, '127.0.0.1');
  await once(again, 'listening');
  for (const server of [taken, again]) server.close();
  await upstream.close();
});
