// What the gateway does otherwise than HTTP wants, or than its users would: each of these tests fails until that is
// mended, and then moves to exactness.test.ts.
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RawClient, RawResponse } from '../fixtures/raw-client.ts';
import { headerOf, openRawClient, rawPost } from '../fixtures/raw-client.ts';
import type { RawGateway } from '../fixtures/raw-gateway.ts';
import { startRawGateway } from '../fixtures/raw-gateway.ts';
import type { RawAnswer } from '../fixtures/raw-upstream.ts';

const CHAT = '/v1/chat/completions';
const BODY = '{"model":"m","messages":[{"role":"user","content":"hi"}]}';
const STREAM_BODY = '{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}';
const EVENT = 'data: {"id":"e","choices":[{"index":0,"delta":{"content":"Oars"},"finish_reason":null}]}\n\n';
const JSON_ANSWER = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}';

let under: RawGateway;
const clients: RawClient[] = [];
beforeEach(async () => {
  under = await startRawGateway();
});
afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy();
  await under.close();
});

async function client(): Promise<RawClient> {
  const opened = await openRawClient(under.gateway.url);
  clients.push(opened);
  return opened;
}

async function ask(answer: RawAnswer, body: string = BODY, headers: readonly string[] = [], version = '1.1'): Promise<RawResponse> {
  under.upstream.answer = answer;
  const { write, read } = await client();
  write(rawPost(CHAT, body, headers, version));
  return read();
}

function writes(...parts: (string | Buffer)[]): RawAnswer {
  return ({ socket }) => void socket.write(Buffer.concat(parts.map((part) => Buffer.from(part))));
}

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

// RFC 9110, 8.6: a 204 must not have a content-length; one above 0 makes some clients wait for a body.
test('a 204 is passed on without the length that its server gave it', async () => {
  const answer = await ask(writes('HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n'));
  expect(headerOf(answer, 'content-length')).toBeUndefined();
});

// RFC 9110, 15.2: a client must be able to read one or more 1xx before the final answer, even when it expects none.
test('a server that says 100 Continue unasked is heard out', async () => {
  const answer = await ask(writes('HTTP/1.1 100 Continue\r\n\r\n', JSON_ANSWER));
  expect(answer.status).toBe(200);
});

// RFC 9110, 10.1.1: a final status that the header alone decides comes instead of 100 Continue.
test.each([
  ['too large', CHAT, [`content-length: ${1e12}`], 413],
  ['compressed', CHAT, ['content-length: 100', 'content-encoding: gzip'], 415],
  ['for no route', '/v1/files', ['content-length: 100'], 404],
])('a body that is %s is refused before it is asked for', async (_what, path, headers, status) => {
  const { write, read } = await client();
  write(`POST ${path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n${headers.join('\r\n')}\r\n\r\n`);
  expect((await read()).status).toBe(status);
});

// RFC 9112, 3.2: more than one Host must be answered with 400.
test('a request with two hosts is refused', async () => {
  expect((await ask(writes(JSON_ANSWER), BODY, ['host: other.test'])).status).toBe(400);
});

// RFC 9110, 7.6.3: a gateway must send Via in each request it passes on.
test('requests to a server say Via', async () => {
  await ask(writes(JSON_ANSWER));
  expect(under.upstream.requests[0]?.headers['via']).toMatch(/^1\.1 /);
});

// RFC 9110, 15.5.6 and 9.1: a known target with another method is 405, and says which are allowed; OpenAI does that too.
test.each(['GET', 'PUT', 'DELETE'])('%s of an inference route is 405 and says what is allowed', async (method) => {
  const { write, read } = await client();
  write(`${method} ${CHAT} HTTP/1.1\r\nhost: x\r\n\r\n`);
  const answer = await read();
  expect({ status: answer.status, allow: headerOf(answer, 'allow') }).toEqual({ status: 405, allow: expect.stringContaining('POST') });
});

// RFC 9110, 9.1: a method that is not recognized is 501.
test('a method that nobody knows is 501', async () => {
  const { write, read } = await client();
  write(`BREW ${CHAT} HTTP/1.1\r\nhost: x\r\n\r\n`);
  expect((await read()).status).toBe(501);
});

// RFC 9110, 8.4.1: codings are case-insensitive.
test('a request whose coding is Identity is not compressed', async () => {
  expect((await ask(writes(JSON_ANSWER), BODY, ['content-encoding: Identity'])).status).toBe(200);
});

// RFC 9112, 8: what is delimited by the close is told from a whole answer by an error alone, so it must look like one.
test('a client of HTTP/1.0 is not told by an orderly close that half an answer is whole', async () => {
  const answer = await ask(({ socket }) => void socket.end('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"half":\r\n'), BODY, [], '1.0');
  expect(answer.whole).toBe(false);
});

// RFC 9112, 8: a reset is an incomplete close, so what it delimits is not whole.
test('an answer delimited by the close is not whole where that close is a reset', async () => {
  const answer = await ask(({ socket }) => {
    socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"half":');
    setTimeout(() => socket.resetAndDestroy(), 50);
  });
  expect(answer.whole).toBe(false);
});

test('a stream delimited by the close ends with an error event where that close is a reset', async () => {
  const answer = await ask(({ socket }) => {
    socket.write(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n${EVENT}`);
    setTimeout(() => socket.resetAndDestroy(), 50);
  }, STREAM_BODY);
  expect(answer.body.toString()).toContain('upstream_broken');
});

test('an error in the middle of a stream does not say that the server had not answered', async () => {
  const answer = await ask(({ socket }) => void socket.end(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n${EVENT.length.toString(16)}\r\n${EVENT}\r\n`), STREAM_BODY);
  expect(answer.body.toString()).not.toContain('before it answered');
});

test('a redirect says where to', async () => {
  const answer = await ask(writes('HTTP/1.1 307 Temporary Redirect\r\nlocation: /v1/chat/completions/\r\ncontent-length: 0\r\n\r\n'));
  expect(answer.status === 307 ? headerOf(answer, 'location') : 'another answer').toBeDefined();
});
