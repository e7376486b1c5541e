import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import type { AnswerSink } from '../../src/upstream/replica-client.ts';
import { createReplicaClient } from '../../src/upstream/replica-client.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const REQUEST = { method: 'POST', path: '/v1/chat/completions', headers: [], body: Buffer.from('{}'), hideUsage: false };

/** Where nobody listens. */
async function deadPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

// undici asserts that nothing is asked of a client while it tells of its error: the gateway would end.
test('a request that is sent as soon as another one has failed is not given the connection that fails right then', async () => {
  const client = createReplicaClient({ origin: `http://127.0.0.1:${await deadPort()}`, apiKey: null, connectMs: 500, firstByteMs: 1_000, stallMs: 1_000, now: () => performance.now() });
  opened.push(client);
  const failures: string[] = [];
  await new Promise<void>((resolve) => {
    const sink: AnswerSink = {
      answered: () => {},
      data: () => {},
      ended: () => {},
      failed: ({ kind }) => {
        if (failures.push(kind) < 4) client.send(REQUEST, sink);
        else resolve();
      },
    };
    client.send(REQUEST, sink);
  });
  expect(failures).toEqual(['unreachable', 'unreachable', 'unreachable', 'unreachable']);
});

// uvicorn, when a handler throws: transformers serve answers so to a body that it cannot make sense of.
test('the connection of a 500 is not used again: its server may close it without having said so', async () => {
  const used: number[] = [];
  let connections = 0;
  const server = createServer((socket) => {
    const connection = ++connections;
    socket.on('error', () => {});
    socket.on('data', () => {
      used.push(connection);
      const crashes = used.length === 1;
      socket.write(`HTTP/1.1 ${crashes ? '500 Internal Server Error' : '200 OK'}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 2\r\n\r\nno`);
      if (crashes) setTimeout(() => socket.destroy(), 20);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = createReplicaClient({ origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, apiKey: null, connectMs: 500, firstByteMs: 1_000, stallMs: 1_000, now: () => performance.now() });
  opened.push(client, { close: async () => void server.close() });
  const outcome = (): Promise<string> =>
    new Promise((resolve) => {
      let status = 0;
      client.send(REQUEST, { answered: (code) => (status = code), data: () => {}, ended: () => resolve(String(status)), failed: ({ error }) => resolve(error.message) });
    });
  expect([await outcome(), await outcome(), await outcome()]).toEqual(['500', '200', '200']);
  // And the others are.
  expect(used).toEqual([1, 2, 2]);
});
