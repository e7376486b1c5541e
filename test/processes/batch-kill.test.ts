// Real gateway processes on one store of batches, a file or Redis: whatever is killed in the middle, each line has one result.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BatchClient, BatchObject } from '../fixtures/batch-client.ts';
import { batchClient, chatLines } from '../fixtures/batch-client.ts';
import type { RedisServer } from '../fixtures/redis.ts';
import { startRedis } from '../fixtures/redis.ts';
import type { Served } from '../fixtures/served.ts';
import { startServed } from '../fixtures/served.ts';
import type { StubUpstream } from '../fixtures/stub-upstream.ts';
import { completion, createStubUpstream } from '../fixtures/stub-upstream.ts';

const PROFILE = resolve('config/profiles/llama-3.1-8b.h200.json');
const LINES = 120;
/** Claims of a killed gateway run out by themselves, which takes a quarter of a minute. */
const LIMIT_MS = 90_000;

let directory: string;
let upstream: StubUpstream;
let redis: RedisServer | null;
const served: Served[] = [];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'batch-kill-'));
  upstream = await createStubUpstream(async (request, incoming, outgoing) => {
    await delay(60);
    return completion(request, incoming, outgoing);
  });
  redis = null;
});
/** As one must be that keeps batches. */
function startKeepingRedis(port?: number): Promise<RedisServer> {
  return startRedis({ ...(port === undefined ? {} : { port }), arguments: ['--appendonly', 'yes', '--dir', directory] });
}
async function configure(store: 'sqlite' | 'redis'): Promise<void> {
  if (store === 'redis') redis = await startKeepingRedis();
  const kept = redis === null ? ['batch: { store: { sqlite: b.sqlite }, concurrencyMax: 4 }'] : ['batch: { store: redis, concurrencyMax: 4 }', `store: { redisUrl: '${redis.url}' }`];
  // Nothing is held for a cheaper moment: what takes seconds here is only what dies.
  const lines = [`replicas:\n  - { id: r0, url: '${upstream.url}', models: [m], profile: '${PROFILE}' }`, ...kept, 'planner: { policy: max-clock }', 'listen: { port: 0 }', 'admin: { port: 0 }', 'timeouts: { drainMs: 1000 }', 'health: { everyMs: 50 }'];
  writeFileSync(join(directory, 'paceline.yaml'), lines.join('\n'));
}
afterEach(async () => {
  for (const gateway of served.splice(0)) await gateway.close();
  await upstream.close();
  await redis?.stop();
  rmSync(directory, { recursive: true, force: true });
});

async function start(): Promise<{ gateway: Served; client: BatchClient }> {
  const gateway = await startServed(['src/main.ts', 'serve', '--config', join(directory, 'paceline.yaml')]);
  served.push(gateway);
  expect(gateway.url, gateway.stderr()).not.toBe('');
  return { gateway, client: batchClient(gateway.url) };
}

async function untilDone(client: BatchClient, id: string, lines: number): Promise<void> {
  while ((await client.batch(id)).request_counts.completed < lines) await delay(10);
}

async function expectEachOnce(client: BatchClient, batch: BatchObject): Promise<void> {
  expect(batch).toMatchObject({ status: 'completed', request_counts: { total: LINES, completed: LINES, failed: 0 }, error_file_id: null });
  const ids = (await client.lines(batch.output_file_id)).map((line) => line.custom_id);
  expect(ids).toEqual(Array.from({ length: LINES }, (_, index) => `line-${index + 1}`));
}

/** How often each line was sent to the model server. */
function sent(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { body } of upstream.requests) {
    const content = (JSON.parse(body) as { messages: { content: string }[] }).messages[0]?.content ?? '';
    counts.set(content, (counts.get(content) ?? 0) + 1);
  }
  return counts;
}

describe.each([{ store: 'sqlite' }, { store: 'redis' }] as const)('with batches in $store', ({ store }) => {
  beforeEach(() => configure(store));

  test('a gateway killed in the middle goes on after its restart: no line is lost, none is there twice, and none with a result is sent again', async () => {
    const first = await start();
    const { id } = await first.client.create(chatLines(LINES));
    await untilDone(first.client, id, 30);
    first.gateway.signal('SIGKILL');
    await first.gateway.exited;
    const again = await start();
    const batch = await again.client.until(id, ['completed', 'failed', 'expired'], LIMIT_MS);
    await expectEachOnce(again.client, batch);
    // Only what was in flight without a result when it died.
    const twice = [...sent().values()].filter((count) => count > 1);
    expect(twice.length).toBeLessThanOrEqual(4);
    expect(Math.max(...twice, 1)).toBeLessThanOrEqual(2);
  }, LIMIT_MS + 30_000);

  test('of two gateways on it one is killed, and the other finishes the batch', async () => {
    const [one, two] = [await start(), await start()];
    const { id } = await one.client.create(chatLines(LINES));
    await untilDone(two.client, id, 20);
    one.gateway.signal('SIGKILL');
    const batch = await two.client.until(id, ['completed', 'failed', 'expired'], LIMIT_MS);
    await expectEachOnce(two.client, batch);
  }, LIMIT_MS + 30_000);

  test('a gateway that is told to end gives its lines back at once, and ends well', async () => {
    const first = await start();
    const { id } = await first.client.create(chatLines(LINES));
    await untilDone(first.client, id, 10);
    first.gateway.signal('SIGTERM');
    expect(await first.gateway.exited).toBe(0);
    const startedAtMs = performance.now();
    const again = await start();
    await untilDone(again.client, id, (await again.client.batch(id)).request_counts.completed + 8);
    const firstMs = performance.now() - startedAtMs;
    await expectEachOnce(again.client, await again.client.until(id, ['completed'], LIMIT_MS));
    // Claims of a dead gateway would have kept the first lines back until the very end; they were among the first to go on.
    const order = upstream.requests.map(({ body }) => (JSON.parse(body) as { messages: { content: string }[] }).messages[0]?.content);
    const repeated = order.findIndex((content, index) => order.indexOf(content) < index);
    expect(repeated, `${firstMs} ms`).toBeLessThan(LINES / 2);
  }, LIMIT_MS + 30_000);
});

test('a Redis that is killed and comes back has lost nothing that it had, and gateways go on by themselves; meanwhile clients are told', async () => {
  await configure('redis');
  const [one, two] = [await start(), await start()];
  const { id } = await one.client.create(chatLines(LINES));
  await untilDone(two.client, id, 20);
  const { port, stop } = redis as RedisServer;
  await stop();
  const refused = await one.client.ask(`/v1/batches/${id}`);
  expect(refused.status).toBe(503);
  expect(await refused.json()).toMatchObject({ error: { code: 'batch_store_unavailable' } });
  expect(refused.headers.get('retry-after')).not.toBeNull();
  const upload = await two.client.upload(chatLines(1));
  expect(upload.status).toBe(503);
  // Answers of model servers come meanwhile, and are kept until there is somewhere to keep them.
  await delay(500);
  redis = await startKeepingRedis(port);
  let batch: BatchObject | null = null;
  for (const untilMs = performance.now() + LIMIT_MS; batch?.status !== 'completed' && performance.now() < untilMs; await delay(50)) batch = await one.client.batch(id).catch(() => null);
  await expectEachOnce(two.client, batch as BatchObject);
  // What was in flight was not sent again either: its gateways lived.
  expect([...sent().values()].filter((count) => count > 1)).toEqual([]);
}, LIMIT_MS + 30_000);
