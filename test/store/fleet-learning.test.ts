// What gateways have learnt, shared through a real Redis that comes and goes.
import { Redis } from 'ioredis';
import { afterEach, expect, test } from 'vitest';
import type { ReplicaId } from '../../src/core/job.ts';
import type { Learning } from '../../src/core/shared-learning.ts';
import { createFleetLearning } from '../../src/store/fleet-learning.ts';
import { singleRedis } from '../../src/store/redis-connection.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';
import type { RedisServer } from '../fixtures/redis.ts';
import { startRedis } from '../fixtures/redis.ts';

const KEY = 'paceline:{test}:learnt:1';
const R0 = 'r0' as ReplicaId;
const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function redis(port?: number): Promise<RedisServer> {
  const server = await startRedis(port === undefined ? {} : { port });
  opened.push({ close: server.stop });
  return server;
}
interface Member {
  decode: number;
  readonly heard: Learning[];
  close(): Promise<void>;
}
/** `decode`: what it has learnt of r0; 0: nothing. */
function gateway(url: string, gatewayId: string, decode = 0): Member {
  const member = { decode, heard: [] as Learning[] };
  const learning = createFleetLearning({
    target: singleRedis(url), fleet: 'test', gatewayId,
    read: () => ({ timeScales: new Map([[R0, { prefill: { value: 1, samples: 0 }, decode: { value: member.decode, samples: member.decode === 0 ? 0 : 9 } }]]), bytesPerToken: new Map() }),
    onPeers: (heard) => member.heard.push(heard),
    log: { info: () => {}, warn: () => {} },
    everyMs: { first: 20, usual: 50 },
  });
  opened.push(learning);
  return Object.assign(member, { close: learning.close });
}
const heardOf = ({ heard }: Member): number | undefined => heard.at(-1)?.timeScales.get(R0)?.decode.value;

test('a gateway that starts hears what another one has learnt, and later what that one has learnt since', async () => {
  const { url } = await redis();
  const first = gateway(url, 'first', 1.5);
  const observer = new Redis(url);
  opened.push({ close: () => observer.disconnect() });
  await eventually(async () => (await observer.hlen(KEY)) === 1);
  expect(await observer.pttl(KEY)).toBeGreaterThan(60_000);
  const second = gateway(url, 'second');
  await eventually(() => second.heard.length > 0);
  expect(heardOf({ ...second, heard: second.heard.slice(0, 1) })).toBe(1.5);
  first.decode = 1.25;
  await eventually(() => heardOf(second) === 1.25);
  // The second has nothing to say.
  expect(await observer.hlen(KEY)).toBe(1);
  expect(first.heard).toEqual([]);
});

test('what a gateway has learnt outlives it, for the one that is started in its place', async () => {
  const { url } = await redis();
  const first = gateway(url, 'same', 1.5);
  const witness = gateway(url, 'witness');
  await eventually(() => heardOf(witness) === 1.5);
  await first.close();
  const again = gateway(url, 'same');
  await eventually(() => heardOf(again) === 1.5);
});

test('without Redis nothing is heard, and once it is there again all is told anew', async () => {
  const server = await redis();
  const [first, second] = [gateway(server.url, 'first', 1.5), gateway(server.url, 'second')];
  await eventually(() => heardOf(second) === 1.5);
  await server.stop();
  // What was on its way may still come.
  await new Promise((resolve) => setTimeout(resolve, 100));
  const count = second.heard.length;
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(second.heard.length).toBe(count);
  first.decode = 0.75;
  await redis(server.port);
  await eventually(() => heardOf(second) === 0.75, 15_000);
});

test('rubbish in the hash, or another type in its place, does no harm', async () => {
  const { url } = await redis();
  const observer = new Redis(url);
  opened.push({ close: () => observer.disconnect() });
  await observer.set(KEY, 'text');
  const second = gateway(url, 'second', 1.25);
  await new Promise((resolve) => setTimeout(resolve, 150));
  expect(second.heard).toEqual([]);
  await observer.del(KEY);
  await observer.hset(KEY, { a: 'rubbish', b: JSON.stringify({ count: 1, scales: { r0: [1, 0, 9, 9] }, bytes: {} }), c: JSON.stringify({ count: 1, scales: { r0: [1, 0, 1.75, 9] }, bytes: {} }) });
  await eventually(() => heardOf(second) === 1.75);
});
