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
