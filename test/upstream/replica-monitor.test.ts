import { afterEach, expect, test } from 'vitest';
import { createReplicaClient } from '../../src/upstream/replica-client.ts';
import { createReplicaMonitor } from '../../src/upstream/replica-monitor.ts';
import type { ServerLoad } from '../../src/upstream/server-metrics.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';
import type { StubUpstream } from '../fixtures/stub-upstream.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> | void }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function watch(upstream: StubUpstream, failuresMax = 3) {
  const client = createReplicaClient({ origin: upstream.url, apiKey: null, connectMs: 200, firstByteMs: 1_000, stallMs: 1_000, now: () => performance.now() });
  const health: string[] = [];
  const loads: ServerLoad[] = [];
  const monitor = createReplicaMonitor({ client, everyMs: 20, timeoutMs: 200, failuresMax, onHealth: (state) => health.push(state), onLoad: (load) => loads.push(load) });
  opened.push(upstream, client, monitor);
  return { monitor, health, loads };
}

test('a replica is up after its first good probe and tells its load', async () => {
  const upstream = await createStubUpstream();
  upstream.metricsPage = 'vllm:num_requests_running 7\nvllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc 0.5\n';
  const { health, loads } = await watch(upstream);
  await eventually(() => loads.length >= 2);
  expect(health).toEqual(['up']);
  expect(loads[0]).toEqual({ running: 7, waiting: 2, kvUsage: 0.5 });
});

test('one failed probe does not bring it down, several in a row do, one good one brings it back', async () => {
  const upstream = await createStubUpstream();
  const { health, loads } = await watch(upstream);
  await eventually(() => health.length === 1);
  upstream.healthStatus = 503;
  await eventually(() => health.length === 2);
  const loadsWhenDown = loads.length;
  upstream.healthStatus = 200;
  await eventually(() => health.length === 3);
  expect(health).toEqual(['up', 'down', 'up']);
  expect(loadsWhenDown).toBeGreaterThan(0);
});

test('a server that has no such route is well: something answers', async () => {
  const upstream = await createStubUpstream();
  upstream.healthStatus = 404;
  const { health } = await watch(upstream);
  await eventually(() => health.length === 1);
  expect(health).toEqual(['up']);
});

test('a server without metrics is up, and its load is not guessed', async () => {
  const upstream = await createStubUpstream();
  upstream.metricsPage = 'nothing\n';
  const { health, loads } = await watch(upstream);
  await eventually(() => health.length === 1);
  expect(loads).toEqual([]);
});

test('a server that was never there is down after as many failures, not before', async () => {
  const upstream = await createStubUpstream();
  upstream.healthStatus = 500;
  const { health } = await watch(upstream);
  await eventually(() => health.length === 1);
  expect(health).toEqual(['down']);
});
