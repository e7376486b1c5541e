// Servers that close a connection behind an answer, having said that it stays open: no request may be written to one that is closing.
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { createReplicaClient } from '../../src/upstream/replica-client.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const REQUEST = { method: 'POST', path: '/v1/chat/completions', headers: [], body: Buffer.from('{}'), hideUsage: false };
const STREAM = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nkeep-alive: timeout=5, max=100\r\n\r\n7\r\ndata: x\r\n0\r\n\r\n';
const WHOLE = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}';
const CRASH = 'HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 2\r\n\r\nno';

/** Answers the nth request (from 1) as `answer` says; `send` resolves with the status, or with what went wrong. */
async function start(answer: (socket: Socket, request: number) => void): Promise<{ send: () => Promise<string>; /** The connection that each request came by. */ usedBy: number[] }> {
  const usedBy: number[] = [];
  let connections = 0;
  const server = createServer((socket) => {
    const connection = ++connections;
    socket.on('error', () => {});
    socket.on('data', () => answer(socket, usedBy.push(connection)));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = createReplicaClient({ origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, apiKey: null, connectMs: 500, firstByteMs: 1_000, stallMs: 1_000, now: () => performance.now() });
  opened.push({ close: async () => void server.close() }, client);
  const send = (): Promise<string> =>
    new Promise((resolve) => {
      let status = 0;
      client.send(REQUEST, { answered: (code) => (status = code), data: () => {}, ended: () => resolve(String(status)), failed: ({ error }) => resolve(error.message) });
    });
  return { send, usedBy };
}

// cpp-httplib under llama.cpp's server does so behind each stream: 8 of 24 requests that were sent at once failed.
test('one that closes it behind every stream is sent each request by another one, and none is lost', async () => {
  const { send, usedBy } = await start((socket) => {
    socket.write(STREAM);
    setTimeout(() => socket.destroy(), 3);
  });
  const outcomes: string[] = [];
  for (let request = 0; request < 30; request++) outcomes.push(await send());
  expect(outcomes).toEqual(outcomes.map(() => '200'));
  expect(new Set(usedBy).size).toBe(30);
});

test('one that keeps it open is sent the next request at once, as soon as that has been seen', async () => {
  const { send, usedBy } = await start((socket) => void socket.write(STREAM));
  await send();
  await delay(100);
  usedBy.length = 0;
  for (let request = 0; request < 30; request++) expect(await send()).toBe('200');
  expect(new Set(usedBy).size).toBe(1);
});

test('that it is kept behind other answers says nothing of streams', async () => {
  const { send } = await start((socket, request) => {
    socket.write(request === 1 ? WHOLE : STREAM);
    if (request > 1) setTimeout(() => socket.destroy(), 3);
  });
  await send();
  await delay(100);
  const outcomes: string[] = [];
  for (let request = 0; request < 10; request++) outcomes.push(await send());
  expect(outcomes).toEqual(outcomes.map(() => '200'));
});

test('one that begins to close it takes one request with it, and not a second', async () => {
  const { send } = await start((socket, request) => {
    socket.write(STREAM);
    if (request > 3) setTimeout(() => socket.destroy(), 3);
  });
  await send();
  await delay(100);
  const outcomes: string[] = [];
  for (let request = 0; request < 30; request++) outcomes.push(await send());
  expect(outcomes.filter((outcome) => outcome !== '200').length).toBeLessThanOrEqual(1);
});

// uvicorn, when a handler throws: transformers serve answers so to a body that it cannot make sense of.
test('the connection of a 500 is never used again', async () => {
  const { send, usedBy } = await start((socket, request) => {
    socket.write(request % 4 === 0 ? CRASH : WHOLE);
    if (request % 4 === 0) setTimeout(() => socket.destroy(), 20);
  });
  await send();
  await delay(100);
  const outcomes: string[] = [];
  for (let request = 1; request < 12; request++) outcomes.push(await send());
  expect(outcomes).toEqual(['200', '200', '500', '200', '200', '200', '500', '200', '200', '200', '500']);
  expect(usedBy).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
});
