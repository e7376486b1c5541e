// The checking client takes no answer for whole that is not, to the letter, the one that was to come.
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { createAnswerCheck } from '../../bench/faults/answer-check.ts';
import type { Seen } from '../../bench/faults/checking-client.ts';
import { sendChecked } from '../../bench/faults/checking-client.ts';
import { stubToken } from '../../bench/faults/expected-text.ts';
import type { PlannedRequest } from '../../bench/faults/schedule.ts';

const REQUEST: PlannedRequest = { id: 'r-1', atMs: 0, gateway: 0, endpoint: 'chat', stream: true, asksUsage: false, promptWords: 40, outputTokens: 3, slo: {}, leavesAfterMs: null };
const HEAD = 'HTTP/1.1 200 OK\r\nx-request-id: r-1\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n';
const ERROR = 'data: {"error":{"message":"m","type":"server_error","param":null,"code":"upstream_broken"}}\n\n';
const DONE = 'data: [DONE]\n\n';

function token(index: number, id = 'one'): string {
  return `data: ${JSON.stringify({ id, choices: [{ delta: { content: stubToken(REQUEST.id, index) } }] })}\n\n`;
}

const WHOLE = `${HEAD}${chunk(token(0) + token(1) + token(2) + DONE)}0\r\n\r\n`;

function reading(text: string, request = REQUEST): string {
  const check = createAnswerCheck(request, 200, 'text/event-stream', 'stub');
  check.push(Buffer.from(text));
  return check.end().kind;
}

describe('a stream is', () => {
  const all = token(0) + token(1) + token(2);
  test.each([
    ['whole with all of its tokens, in order, and [DONE]', all + DONE, 'whole'],
    ['whole with comments between', `: keep-alive\n\n${all}: keep-alive\n\n${DONE}`, 'whole'],
    ['broken off with an error at its end', token(0) + ERROR, 'broken-off'],
    ['unfinished with neither', token(0) + token(1), 'unfinished'],
    ['malformed where a token is lost', token(0) + token(2) + DONE, 'malformed'],
    ['malformed where the last token is lost', token(0) + token(1) + DONE, 'malformed'],
    ['malformed where a token comes twice', token(0) + token(1) + token(1) + token(2) + DONE, 'malformed'],
    ['malformed where tokens change places', token(1) + token(0) + token(2) + DONE, 'malformed'],
    ['malformed where another answer goes on', token(0) + token(1, 'two') + token(2) + DONE, 'malformed'],
    ['malformed where something comes behind [DONE]', all + DONE + token(2), 'malformed'],
    ['malformed where half an event comes behind [DONE]', `${all}${DONE}data: {`, 'malformed'],
    ['malformed where it goes on behind an error', token(0) + ERROR + token(1), 'malformed'],
    ['malformed where an event is no JSON', `${token(0)}data: {"id"\n\n`, 'malformed'],
    ['malformed where an error has another shape', `${token(0)}data: {"error":"no"}\n\n`, 'malformed'],
    ['malformed where a usage comes that nobody asked for', `${all}data: {"id":"one","choices":[],"usage":{"completion_tokens":3}}\n\n${DONE}`, 'malformed'],
  ])('%s', (_, text, kind) => {
    expect(reading(text)).toBe(kind);
  });

  test('malformed where the usage that was asked for is missing or wrong, whole where it is right', () => {
    const asks = { ...REQUEST, asksUsage: true };
    const usage = (tokens: number): string => `data: {"id":"one","choices":[],"usage":{"completion_tokens":${tokens}}}\n\n`;
    expect([all + DONE, all + usage(4) + DONE, all + usage(3) + DONE].map((text) => reading(text, asks))).toEqual(['malformed', 'malformed', 'whole']);
  });
});

describe('an answer without a stream is', () => {
  const whole = { ...REQUEST, stream: false };
  const text = [0, 1, 2].map((index) => stubToken(REQUEST.id, index)).join('');
  const body = (content: string): string => JSON.stringify({ choices: [{ message: { content } }], usage: { completion_tokens: 3 } });
  test.each([
    ['whole with all of its text', 200, body(text), 'whole'],
    ['malformed with less', 200, body(text.slice(0, -1)), 'malformed'],
    ['malformed with the text of another', 200, body(text.replaceAll('r-1', 'r-2')), 'malformed'],
    ['malformed cut off, though its framing ends', 200, body(text).slice(0, 20), 'malformed'],
    ['refused with an error in OpenAI’s shape', 503, '{"error":{"message":"m","type":"server_error","param":null,"code":"no_replica"}}', 'refused'],
    ['malformed with an error in another', 503, '<html>Bad gateway</html>', 'malformed'],
  ])('%s', (_, status, said, kind) => {
    const check = createAnswerCheck(whole, status, 'application/json', 'stub');
    check.push(Buffer.from(said));
    expect(check.end().kind).toBe(kind);
  });
});

describe('the client says of a server that', () => {
  test.each([
    ['resets a stream', (socket: Socket) => socket.write(HEAD, () => socket.resetAndDestroy()), 'cut'],
    ['ends a stream by its framing alone', (socket: Socket) => socket.end(`${HEAD}${chunk(token(0))}0\r\n\r\n`), 'malformed'],
    ['closes without an answer', (socket: Socket) => socket.end(), 'cut'],
    ['says nothing', () => {}, 'hung'],
    ['answers whole', (socket: Socket) => socket.end(WHOLE), 'whole'],
    ['answers twice', (socket: Socket) => socket.end(WHOLE + WHOLE), 'whole, malformed'],
    ['answers another request', (socket: Socket) => socket.end(`${HEAD.replace('r-1', 'r-2')}0\r\n\r\n`), 'malformed'],
    ['talks no HTTP', (socket: Socket) => socket.end('what?\r\n\r\n'), 'malformed'],
  ] as const)('%s', async (_, answer, kind) => {
    const server = createServer((incoming) => {
      incoming.resume();
      answer(incoming.socket);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const seen: Seen[] = [];
    sendChecked(REQUEST, { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, model: 'm', gateway: 0, hungAfterMs: 300, serverKind: () => 'stub' }, (one) => void seen.push(one));
    await new Promise((resolve) => setTimeout(resolve, 600));
    server.closeAllConnections();
    server.close();
    expect(seen.map(({ outcome }) => outcome.kind).join(', ')).toBe(kind);
  });

  test('nobody is, that nobody listens', async () => {
    const seen: Seen[] = [];
    sendChecked(REQUEST, { url: 'http://127.0.0.1:9', model: 'm', gateway: 0, hungAfterMs: 5_000, serverKind: () => 'stub' }, (one) => void seen.push(one));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(seen.map(({ outcome }) => outcome.kind)).toEqual(['unreachable']);
  });
});

/** As bytes, with its framing. */
function chunk(text: string): string {
  return `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;
}
