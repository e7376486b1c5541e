// The store in Redis, beside what every store does: answers that are lost, clocks that differ, a memory that is full, a Redis that is gone.
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { BatchStore } from '../../src/batch/batch-store.ts';
import { BatchStoreError } from '../../src/batch/batch-store.ts';
import type { BatchRedis } from '../../src/batch/redis-store.ts';
import { createRedisStore } from '../../src/batch/redis-store.ts';
import { singleRedis } from '../../src/store/redis-connection.ts';
import type { RedisTarget } from '../../src/store/redis-target.ts';
import { openRedisScripting } from '../../src/store/redis-scripting.ts';
import { batch, DONE, file, withLines } from '../fixtures/batch-records.ts';
import type { RedisServer } from '../fixtures/redis.ts';
import { freePort, startRedis } from '../fixtures/redis.ts';

let server: RedisServer;
let opened: { close(): unknown }[];
beforeEach(async () => {
  server = await startRedis();
  opened = [];
});
afterEach(async () => {
  for (const thing of opened.reverse()) await thing.close();
  await server.stop();
});

function connect(target: RedisTarget = singleRedis(server.url)): BatchRedis {
  const redis = openRedisScripting({ target, connectionName: 'test', what: 'batches', log: { warn: () => {} } });
  opened.push(redis);
  return redis;
}
function observer(port = server.port): Redis {
  const redis = new Redis(port, '127.0.0.1');
  redis.on('error', () => {});
  opened.push({ close: () => redis.disconnect() });
  return redis;
}
/** `lose`: the next answer is lost on its way; what was asked is done. */
function losing(redis: BatchRedis): { readonly redis: BatchRedis; lose(): void } {
  let next = false;
  return {
    redis: {
      ...redis,
      evaluate: async (...call) => {
        const reply = await redis.evaluate(...call);
        if (!next) return reply;
        next = false;
        throw new Error('the connection closed');
      },
    },
    lose: () => (next = true),
  };
}
async function eventually<Value>(ask: () => Promise<Value>): Promise<Value> {
  const untilMs = performance.now() + 15_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > untilMs) throw error;
      await delay(20);
    }
  }
}
const numbers = async (lines: ReturnType<BatchStore['claimLines']>): Promise<number[]> => (await lines).map(({ line }) => line);

test('lines of a claim whose answer was lost are not lost: the next claim has them', async () => {
  const { redis, lose } = losing(connect());
  const store = createRedisStore({ redis, fleet: 'f', lives: 'caller' });
  await withLines(store);
  await store.beat('one', 0, 1_000);
  expect(await numbers(store.claimLines('batch_1', 'one', 1, 0))).toEqual([1]);
  lose();
  await expect(store.claimLines('batch_1', 'one', 1, 0)).rejects.toThrow(BatchStoreError);
  expect(await store.claimedLines('batch_1', 0)).toBe(2);
  expect(await numbers(store.claimLines('batch_1', 'one', 9, 0))).toEqual([2, 3]);
  expect(await numbers(store.claimLines('batch_1', 'one', 9, 0))).toEqual([]);
});

test('a claim that Redis reads only after a later one claims nothing, and takes nothing away', async () => {
  const redis = connect();
  const late: (() => Promise<unknown>)[] = [];
  let hold = false;
  const store = createRedisStore({
    fleet: 'f',
    lives: 'caller',
    redis: {
      ...redis,
      evaluate: (...call) => {
        if (!hold) return redis.evaluate(...call);
        hold = false;
        late.push(() => redis.evaluate(...call));
        return Promise.reject(new Error('Command timed out'));
      },
    },
  });
  await withLines(store);
  await store.beat('one', 0, 1_000);
  hold = true;
  await expect(store.claimLines('batch_1', 'one', 1, 0)).rejects.toThrow(/timed out/);
  expect(await numbers(store.claimLines('batch_1', 'one', 2, 0))).toEqual([1, 2]);
  expect(await late[0]?.()).toEqual([]);
  expect(await numbers(store.claimLines('batch_1', 'one', 9, 0))).toEqual([3]);
});

test('a result whose answer was lost is there once, and so are the files of a finished batch', async () => {
  const { redis, lose } = losing(connect());
  const store = createRedisStore({ redis, fleet: 'f', lives: 'caller' });
  await withLines(store);
  await store.beat('one', 0, 1_000);
  lose();
  await expect(store.recordLine('batch_1', 1, DONE)).rejects.toThrow(BatchStoreError);
  expect(await store.recordLine('batch_1', 1, DONE)).toBe(false);
  expect((await store.batch('t', 'batch_1'))?.counts.completed).toBe(1);
  await store.claimBatch('batch_1', 'one', 0);
  await store.beginFile('out', 'one');
  await store.appendFile('out', Buffer.from('abc'), null);
  lose();
  await expect(store.finishBatch(batch({ status: 'completed' }), 'one', [file('out')])).rejects.toThrow(BatchStoreError);
  // As the runner does then.
  await store.dropFile('out');
  expect(await store.file('t', 'out')).toEqual(file('out'));
});

test('a half-written file that could not be dropped is dropped by the next sweep', async () => {
  const redis = connect();
  let broken = false;
  const store = createRedisStore({ redis: { ...redis, evaluate: (...call) => (broken ? Promise.reject(new Error('gone')) : redis.evaluate(...call)) }, fleet: 'f' });
  await store.beat('one', Date.now(), Date.now() + 60_000);
  await store.beginFile('f', 'one');
  await store.appendFile('f', Buffer.from('abc'), null);
  broken = true;
  await expect(store.dropFile('f')).rejects.toThrow(BatchStoreError);
  broken = false;
  await store.sweep(Date.now(), 0);
  await store.beginFile('g', 'one');
  expect(await store.appendFile('g', Buffer.from('abc'), 3)).toBe('ok');
});

test('gateways whose clocks differ by an hour do not take each other for dead', async () => {
  const [one, two] = [createRedisStore({ redis: connect(), fleet: 'f' }), createRedisStore({ redis: connect(), fleet: 'f' })];
  await withLines(one);
  const [oneMs, twoMs] = [1_000_000, 1_000_000 + 3_600_000];
  await one.beat('one', oneMs, oneMs + 400);
  await one.claimLines('batch_1', 'one', 2, oneMs);
  await two.beat('two', twoMs, twoMs + 60_000);
  const beatenAtMs = performance.now();
  const taken = await numbers(two.claimLines('batch_1', 'two', 9, twoMs));
  if (performance.now() - beatenAtMs < 300) expect(taken).toEqual([3]);
  // Redis' own clock says when the first one's time is over.
  await delay(500);
  taken.push(...(await numbers(two.claimLines('batch_1', 'two', 9, twoMs))));
  expect(taken.toSorted()).toEqual([1, 2, 3]);
});

test('another fleet at the same Redis has its own, every key has the hash tag, and nothing is left of what was deleted', async () => {
  const [store, other] = [createRedisStore({ redis: connect(), fleet: 'f', lives: 'caller' }), createRedisStore({ redis: connect(), fleet: 'other' })];
  await withLines(store);
  expect(await other.openBatches()).toEqual([]);
  await store.beat('one', 0, 1_000);
  await store.claimLines('batch_1', 'one', 2, 0);
  await store.returnLine('batch_1', 1, { tries: 1, failures: 0 }, 10);
  await store.recordLine('batch_1', 2, DONE);
  await store.claimBatch('batch_1', 'one', 0);
  await store.beginFile('out', 'one');
  await store.appendFile('out', Buffer.from('abc'), null);
  const keys = await observer().keys('*');
  expect(keys.filter((key) => !key.startsWith('paceline:{f}:batch:1'))).toEqual([]);
  expect(keys.length).toBeGreaterThan(10);
  await store.finishBatch(batch({ status: 'completed' }), 'one', [file('out')]);
  await store.leave('one');
  await store.sweep(1e9, 101);
  expect(await observer().keys('*')).toEqual(['paceline:{f}:batch:1']);
  expect(await observer().hget('paceline:{f}:batch:1', 'bytes')).toBe('0');
});

test('a full memory is an error that says so, results are still kept, and what is deleted makes room', async () => {
  const store = createRedisStore({ redis: connect(), fleet: 'f', lives: 'caller' });
  await withLines(store);
  await store.beginFile('f', 'one');
  await store.appendFile('f', Buffer.alloc(1_000_000), null);
  await store.commitFile(file('f'), null);
  await store.beginFile('g', 'one');
  const admin = observer();
  const used = Number(/used_memory:(\d+)/.exec(await admin.info('memory'))?.[1]);
  await admin.config('SET', 'maxmemory', String(used - 100_000));
  const refused = store.appendFile('g', Buffer.from('abc'), null);
  await expect(refused).rejects.toThrow(BatchStoreError);
  await expect(refused).rejects.toThrow(/OOM/);
  expect(await store.recordLine('batch_1', 1, DONE)).toBe(true);
  expect((await store.batch('t', 'batch_1'))?.counts.completed).toBe(1);
  expect(await store.deleteFile('t', 'f')).toBe(true);
  expect(await eventually(() => store.appendFile('g', Buffer.from('abc'), 3))).toBe('ok');
});

test('without Redis every step is an error at once, and once it is back they work again', async () => {
  const { port } = server;
  const store = createRedisStore({ redis: connect(), fleet: 'f' });
  await withLines(store);
  await server.stop();
  await expect(store.openBatches()).rejects.toThrow(BatchStoreError);
  const startedAtMs = performance.now();
  await expect(store.openBatches()).rejects.toThrow(BatchStoreError);
  expect(performance.now() - startedAtMs).toBeLessThan(1_000);
  server = await startRedis({ port });
  expect(await eventually(() => store.openBatches())).toEqual([]);
});

test('what somebody else has written over is an error, and no batch', async () => {
  const store = createRedisStore({ redis: connect(), fleet: 'f' });
  await withLines(store);
  await observer().hset('paceline:{f}:batch:1:batch:batch_1', 'doc', 'rubbish');
  await expect(store.openBatches()).rejects.toThrow(BatchStoreError);
  await observer().del('paceline:{f}:batch:1:batch:batch_1');
  expect(await store.openBatches()).toEqual([]);
});

test('in a Cluster all steps work, their keys being of one slot', async () => {
  const node = await startRedis({ arguments: ['--cluster-enabled', 'yes', '--cluster-config-file', 'nodes.conf', '--cluster-announce-ip', '127.0.0.1'] });
  opened.push({ close: node.stop });
  const inside = observer(node.port);
  await inside.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383');
  await eventually(async () => {
    if (!String(await inside.call('CLUSTER', 'INFO')).includes('cluster_state:ok')) throw new Error('not yet');
  });
  const target: RedisTarget = { kind: 'cluster', nodes: [{ host: '127.0.0.1', port: node.port }, { host: '127.0.0.1', port: await freePort() }], ca: null, tls: false, username: null, password: null };
  const store = createRedisStore({ redis: connect(target), fleet: 'f' });
  await eventually(() => store.beat('one', 0, 60_000));
  await withLines(store);
  expect(await numbers(store.claimLines('batch_1', 'one', 9, 0))).toEqual([1, 2, 3]);
  expect(await store.recordLine('batch_1', 1, DONE)).toBe(true);
  await store.beginFile('f', 'one');
  await store.appendFile('f', Buffer.from([0, 255]), null);
  await store.commitFile(file('f'), null);
  for await (const piece of store.readFile('f')) expect([...piece]).toEqual([0, 255]);
  await store.leave('one');
  await store.sweep(0, 0);
});
