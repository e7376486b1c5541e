// Requests that two readers could understand differently, as bytes. Either the gateway refuses one, closes the connection and no
// server hears of it; or it reads it one way only, and the server hears exactly that, framed anew.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { eventually } from '../fixtures/gateway-under-test.ts';
import { openRawClient } from '../fixtures/raw-client.ts';
import type { RawGateway } from '../fixtures/raw-gateway.ts';
import { startRawGateway } from '../fixtures/raw-gateway.ts';

const PATH = '/v1/chat/completions';
const BODY = '{"model":"m","n":1}';
/** What a smuggler wants to have read as a request of its own. */
const HIDDEN = `POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 13\r\nconnection: close\r\n\r\n{"model":"m"}`;
const CHUNKS = `${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`;
const length = `content-length: ${BODY.length}`;
const chunked = 'transfer-encoding: chunked';

let under: RawGateway;
beforeAll(async () => {
  under = await startRawGateway(({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}'), { more: 'timeouts: { drainMs: 0 }\nlimits: { headersMax: 20 }' });
});
afterAll(() => under.close());
beforeEach(() => void under.upstream.requests.splice(0));

const head = (lines: readonly string[], requestLine = `POST ${PATH} HTTP/1.1`): string => `${[requestLine, 'host: x', ...lines].join('\r\n')}\r\n\r\n`;

/** Sends it, and gives all that comes until the gateway closes, which it does after the last one or after a refusal. */
async function answersTo(text: string): Promise<number[]> {
  const client = await openRawClient(under.gateway.url);
  client.write(Buffer.from(text, 'latin1'));
  const statuses: number[] = [];
  for (;;) {
    const answer = await client.read().catch((error: Error) => error);
    if (answer instanceof Error) {
      client.socket.destroy();
      expect(answer.message).toContain('the connection ended');
      return statuses;
    }
    statuses.push(answer.status);
  }
}

describe('is refused, and its connection closed, before any server hears of it', () => {
  test.each([
    ['a length and chunks', head([length, chunked]) + CHUNKS],
    ['chunks and a length', head([chunked, length]) + CHUNKS],
    ['a length of 0 and chunks', head(['content-length: 0', chunked]) + CHUNKS],
    ['two lengths that differ', head([length, `content-length: ${BODY.length + HIDDEN.length}`]) + BODY],
    ['two lengths that are equal', head([length, length]) + BODY],
    ['a list of lengths', head([`content-length: ${BODY.length}, ${BODY.length}`]) + BODY],
    ['a length with a plus', head([`content-length: +${BODY.length}`]) + BODY],
    ['a length with a minus', head(['content-length: -1']) + BODY],
    ['a length in hexadecimal', head(['content-length: 0x13']) + BODY],
    ['a length with a blank in it', head(['content-length: 1 9']) + BODY],
    ['a length with a fraction', head([`content-length: ${BODY.length}.0`]) + BODY],
    ['a length with an underscore', head(['content-length: 1_9']) + BODY],
    ['a length without digits', head(['content-length:']) + BODY],
    ['a length beyond 64 bits', head(['content-length: 18446744073709551635']) + BODY],
    ['a blank before the colon of a length', head([`content-length : ${BODY.length}`]) + BODY],
    ['a tab before the colon of a length', head([`content-length\t: ${BODY.length}`]) + BODY],
    ['a blank before the colon of a coding', head(['transfer-encoding : chunked', length]) + BODY],
    ['a name that begins with a blank', `POST ${PATH} HTTP/1.1\r\nhost: x\r\n ${chunked}\r\n${length}\r\n\r\n${BODY}`],
    ['a header folded onto a second line', head(['transfer-encoding:\r\n chunked', length]) + BODY],
    ['a coding that is not chunked', head(['transfer-encoding: xchunked']) + CHUNKS],
    ['a coding in quotes', head(['transfer-encoding: "chunked"']) + CHUNKS],
    ['a coding behind chunked', head(['transfer-encoding: chunked, identity']) + CHUNKS],
    ['chunked that is not last', head(['transfer-encoding: chunked, gzip']) + CHUNKS],
    ['a coding that is no coding beside a length', head(['transfer-encoding: identity', length]) + BODY],
    ['a coding with a vertical tab', head(['transfer-encoding: \vchunked']) + CHUNKS],
    ['a coding with a zero byte', head(['transfer-encoding: chunked\0']) + CHUNKS],
    ['two codings in two lines, and chunked first', head([chunked, 'transfer-encoding: identity']) + CHUNKS],
    ['a name with a zero byte', head(['content\0-length: 0', length]) + BODY],
    ['a value with a bare CR', head([`x: a\r${chunked}`, length]) + BODY],
    ['a line that ends in LF alone', `POST ${PATH} HTTP/1.1\r\nhost: x\n${length}\r\n\r\n${BODY}`],
    ['a head that ends in LF alone', `POST ${PATH} HTTP/1.1\r\nhost: x\r\n${length}\r\n\n${BODY}`],
    ['a request line that ends in LF alone', `POST ${PATH} HTTP/1.1\nhost: x\r\n${length}\r\n\r\n${BODY}`],
    ['a line without a colon', head(['hello', length]) + BODY],
    ['no name before the colon', head([': x', length]) + BODY],
    ['no host', `POST ${PATH} HTTP/1.1\r\n${length}\r\n\r\n${BODY}`],
    ['a blank in the target', head([length], `POST ${PATH} x HTTP/1.1`) + BODY],
    ['another protocol', head([length], `POST ${PATH} HTTP/3.7`) + BODY],
    ['a chunk size with a plus', `${head([chunked])}+13\r\n${BODY}\r\n0\r\n\r\n`],
    ['a chunk size with a minus', `${head([chunked])}-13\r\n${BODY}\r\n0\r\n\r\n`],
    ['a chunk size with 0x', `${head([chunked])}0x13\r\n${BODY}\r\n0\r\n\r\n`],
    ['a chunk size with an underscore', `${head([chunked])}1_3\r\n${BODY}\r\n0\r\n\r\n`],
    ['a chunk size that is empty', `${head([chunked])}\r\n${BODY}\r\n0\r\n\r\n`],
    ['a chunk size beyond 64 bits', `${head([chunked])}10000000000000013\r\n${BODY}\r\n0\r\n\r\n`],
    ['a chunk size that ends in LF alone', `${head([chunked])}13\n${BODY}\r\n0\r\n\r\n`],
    ['an extension that ends in LF alone', `${head([chunked])}13;x\n${BODY}\r\n0\r\n\r\n`],
    ['an extension with a bare CR', `${head([chunked])}13;x\rx\r\n${BODY}\r\n0\r\n\r\n`],
    ['a chunk longer than its size', `${head([chunked])}12\r\n${BODY}\r\n0\r\n\r\n`],
    ['a chunk that ends in LF alone', `${head([chunked])}13\r\n${BODY}\n0\r\n\r\n`],
    ['a length among the trailers', `${head([chunked])}13\r\n${BODY}\r\n0\r\ncontent-length: 500\r\n\r\n`],
    ['a coding among the trailers', `${head([chunked])}13\r\n${BODY}\r\n0\r\n${chunked}\r\n\r\n`],
    ['a chunk that ends in CR and something else', `${head([chunked])}13\r\n${BODY}\rX0\r\n\r\n`],
  ])('%s', async (_what, text) => {
    expect(await answersTo(text + HIDDEN)).toEqual([400]);
    expect(under.upstream.requests).toEqual([]);
  });
});

describe('is read in one way, and sent on framed by a length', () => {
  const plain = head([length]) + BODY;
  const last = head([length, 'connection: close']) + BODY;
  test.each([
    ['a length', plain],
    ['a length with blanks around', head([`content-length: \t ${BODY.length} \t`]) + BODY],
    ['a length with zeros before it', head([`content-length: 00000${BODY.length}`]) + BODY],
    ['chunks', head([chunked]) + CHUNKS],
    ['chunked in another case', head(['Transfer-Encoding: ChUnKeD']) + CHUNKS],
    ['chunked behind a tab', head(['transfer-encoding:\tchunked']) + CHUNKS],
    ['an extension of a chunk', `${head([chunked])}13;a=b;c="d e"\r\n${BODY}\r\n0;e\r\n\r\n`],
    ['a chunk size with zeros before it', `${head([chunked])}0000000013\r\n${BODY}\r\n000\r\n\r\n`],
    ['a trailer that names another host', `${head([chunked])}13\r\n${BODY}\r\n0\r\nhost: elsewhere\r\n\r\n`],
    ['a header that resembles a length', head([length, 'content_length: 500', 'x-content-length: 500', 'contentlength: 500']) + BODY],
    ['a hop-by-hop mark on the length', head([length, 'connection: content-length, transfer-encoding, host']) + BODY],
    ['a target that names another host', head([length], `POST http://elsewhere.test${PATH} HTTP/1.1`) + BODY],
    ['a method in a header', head([length, 'x-http-method-override: GET', 'x-http-method: DELETE']) + BODY],
  ])('%s', async (_what, text) => {
    expect(await answersTo(text + last)).toEqual([200, 200]);
    expect(under.upstream.requests.map(({ path, body }) => [path, body.toString()])).toEqual([[PATH, BODY], [PATH, BODY]]);
    for (const { headers, head: sent } of under.upstream.requests) {
      expect(headers['content-length']).toBe(String(BODY.length));
      expect(headers['host']).toBe(new URL(under.upstream.url).host);
      expect(sent).not.toMatch(/transfer-encoding|upgrade|elsewhere|: 500\r|method-override/i);
    }
  });

  test('what stands in a body stays a body, whatever it looks like', async () => {
    const inner = JSON.stringify({ model: 'm', note: HIDDEN });
    expect(await answersTo(head([`content-length: ${inner.length}`, 'connection: close']) + inner)).toEqual([200]);
    expect(under.upstream.requests.map(({ path, body }) => [path, body.toString()])).toEqual([[PATH, inner]]);
  });

  test('what follows a request to upgrade is not read as another protocol, nor as a part of that request', async () => {
    const client = await openRawClient(under.gateway.url);
    client.write(head([length, 'upgrade: h2c', 'connection: upgrade, http2-settings', 'http2-settings: AAMAAABkAAQAAP__']) + BODY + HIDDEN);
    expect((await client.read()).statusLine).toBe('HTTP/1.1 200 OK');
    expect(under.upstream.requests[0]).toMatchObject({ path: PATH, body: Buffer.from(BODY) });
    expect(under.upstream.requests[0]?.head).not.toMatch(/upgrade|http2-settings/i);
    client.socket.destroy();
  });

  test('a body that HTTP/1.0 could not frame is none', async () => {
    expect(await answersTo(`POST ${PATH} HTTP/1.0\r\nhost: x\r\n\r\n${HIDDEN}`)).toEqual([400]);
    expect(under.upstream.requests).toEqual([]);
  });
});

describe('HTTP/2: does not reach a server', () => {
  const PSEUDO: readonly Field[] = [[':method', 'POST'], [':scheme', 'http'], [':authority', 'x'], [':path', PATH]];
  test.each<[string, readonly Field[]]>([
    ['a length that is too short', [...PSEUDO, ['content-length', String(BODY.length - 1)]]],
    ['a length that is too long', [...PSEUDO, ['content-length', String(BODY.length + 1)]]],
    ['two lengths', [...PSEUDO, ['content-length', String(BODY.length)], ['content-length', '3']]],
    ['a coding', [...PSEUDO, ['transfer-encoding', 'chunked']]],
    ['a header of one connection', [...PSEUDO, ['connection', 'content-length']]],
    ['a request to upgrade', [...PSEUDO, ['upgrade', 'websocket']]],
    ['a name in upper case', [...PSEUDO, ['Content-Length', '3']]],
    ['two targets', [...PSEUDO, [':path', '/v1/embeddings']]],
    ['a target behind the headers', [...PSEUDO.slice(0, 3), ['accept', 'x'], [':path', PATH]]],
    ['line ends in the target', [...PSEUDO.slice(0, 3), [':path', `${PATH} HTTP/1.1\r\nx-evil: 1\r\n\r\n`]]],
    ['a blank in the method', [[':method', 'POST /v1/embeddings HTTP/1.1\r\nx'], ...PSEUDO.slice(1)]],
  ])('%s', async (_what, fields) => {
    const client = await openRawClient(under.gateway.url);
    client.write(http2Request(fields));
    // One of these comes once the stream, or all of the connection, is dealt with.
    await eventually(() => client.socket.destroyed || framesOf(client.rest()).some(({ type, stream }) => type === FRAME.goaway || (stream === 1 && (type === FRAME.reset || type === FRAME.headers))));
    expect(under.upstream.requests).toEqual([]);
    client.socket.destroy();
  });

  test.each<[string, readonly Field[]]>([
    ['nothing', PSEUDO],
    ['line ends in a value', [...PSEUDO, ['traceparent', 'a\r\nx-evil: 1']]],
    ['a zero byte in a value', [...PSEUDO, ['traceparent', 'a\0b']]],
    ['line ends in a name', [...PSEUDO, ['accept: a\r\nx-evil', '1']]],
    ['a name with a colon', [...PSEUDO, ['accept: x', '1']]],
  ])('but with %s in a header it does, without that header', async (_what, fields) => {
    const client = await openRawClient(under.gateway.url);
    client.write(http2Request(fields));
    await eventually(() => under.upstream.requests.length === 1);
    expect(under.upstream.requests[0]).toMatchObject({ path: PATH, body: Buffer.from(BODY) });
    expect(Object.keys(under.upstream.requests[0]?.headers ?? {})).toEqual(['host', 'connection', 'content-type', 'x-request-id', 'via', 'content-length']);
    client.socket.destroy();
  });
});

type Field = readonly [name: string, value: string];
const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, goaway: 7 } as const;

function http2Request(fields: readonly Field[]): Buffer {
  const parts = [frame(FRAME.settings, 0, 0, Buffer.alloc(0)), frame(FRAME.headers, 0x4, 1, Buffer.concat(fields.map(literal))), frame(FRAME.data, 0x1, 1, Buffer.from(BODY))];
  return Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), ...parts]);
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const out = Buffer.alloc(9);
  out.writeUIntBE(payload.length, 0, 3);
  out.writeUInt8(type, 3);
  out.writeUInt8(flags, 4);
  out.writeUInt32BE(stream, 5);
  return Buffer.concat([out, payload]);
}

/** HPACK, never indexed and without Huffman's code: what a client library would refuse to say. */
function literal([name, value]: Field): Buffer {
  if (name.length > 126 || value.length > 126) throw new Error('longer than one byte of length tells');
  return Buffer.concat([Buffer.from([0x10, name.length]), Buffer.from(name, 'latin1'), Buffer.from([value.length]), Buffer.from(value, 'latin1')]);
}

function framesOf(bytes: Buffer): { readonly type: number; readonly stream: number }[] {
  const frames: { type: number; stream: number }[] = [];
  for (let at = 0; at + 9 <= bytes.length; at += 9 + bytes.readUIntBE(at, 3)) frames.push({ type: bytes.readUInt8(at + 3), stream: bytes.readUInt32BE(at + 5) });
  return frames;
}
