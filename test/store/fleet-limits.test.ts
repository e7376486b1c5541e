// Limits that several gateways keep together in a real Redis, and what becomes of them while it is frozen, slow, gone or read-only.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterEach, describe, expect, test } from 'vitest';
import type { LimitKind, LimitedTenant, LostWay } from '../../src/core/tenant-limits.ts';
import type { FleetLimits } from '../../src/store/fleet-limits.ts';
import { createFleetLimits } from '../../src/store/fleet-limits.ts';
import { singleRedis } from '../../src/store/redis-connection.ts';
import type { RedisTarget } from '../../src/store/redis-target.ts';
import type { TenantLimiter } from '../../src/tenant-limiter.ts';
import { createTenantLimiter } from '../../src/tenant-limiter.ts';
import type { Asked } from '../fixtures/limits.ts';
import { ask, limitRequest, limitedTenant } from '../fixtures/limits.ts';
import type { RedisServer } from '../fixtures/redis.ts';
import { startRedis } from '../fixtures/redis.ts';

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function redis(options?: Parameters<typeof startRedis>[0]): Promise<RedisServer> {
  const server = await startRedis(options);
  opened.push({ close: server.stop });
  return server;
}
function observer(url: string): Redis {
  const client = new Redis(url);
  opened.push({ close: () => client.disconnect() });
  return client;
}

interface Gateway extends TenantLimiter {
  readonly fleet: FleetLimits;
  readonly logged: string[];
  readonly decided: string[];
  take(tenant: LimitedTenant, size?: Parameters<typeof limitRequest>[1]): Promise<Asked>;
}
interface GatewayOptions {
  readonly timeoutMs?: number;
  readonly whenLost?: LostWay | Partial<Record<LimitKind, LostWay>>;
  readonly gatewaysExpected?: number;
}
/** The timeout is generous where it is not what is tested: the machine may be busy. */
async function gateway(where: string | RedisTarget, { timeoutMs = 2_000, whenLost = 'local-share', gatewaysExpected = 1 }: GatewayOptions = {}, waitUp = true): Promise<Gateway> {
  const [logged, decided]: [string[], string[]] = [[], []];
  const log = (...line: unknown[]): void => void logged.push(JSON.stringify(line));
  const fleet = createFleetLimits({ target: typeof where === 'string' ? singleRedis(where) : where, fleet: 'test', gatewayId: `g${opened.length}`, log: { info: log, warn: log }, everyMs: 100 });
  const ways = typeof whenLost === 'string' ? { requests: whenLost, tokens: whenLost, concurrency: whenLost, energy: whenLost } : { requests: 'local-share' as const, tokens: 'local-share' as const, concurrency: 'local-share' as const, energy: 'local-share' as const, ...whenLost };
  const limiter = createTenantLimiter({ fleet, timeoutMs, whenLost: ways, gatewaysExpected, now: () => performance.now(), unixNowMs: Date.now, decided: (...words) => decided.push(words.join(' ')) });
  opened.push({ close: () => (limiter.close(), fleet.close()) });
  if (waitUp) await eventually(() => fleet.state().kind === 'up');
  return { ...limiter, fleet, logged, decided, take: (tenant, size) => ask(limiter, limitRequest(tenant, size)) };
}
async function fleetOf(count: number, url: string, options?: GatewayOptions): Promise<Gateway[]> {
  const gateways: Gateway[] = [];
  for (let index = 0; index < count; index++) gateways.push(await gateway(url, options));
  await eventually(() => gateways.every(({ fleet }) => gatewaysIn(fleet) === count));
  return gateways;
}
function gatewaysIn(fleet: FleetLimits): number {
  const state = fleet.state();
  return state.kind === 'up' || state.kind === 'lost' ? state.gateways : 0;
}
/** Over the slots of requests (r) or tokens (k). */
function sum(fields: Readonly<Record<string, string>>, slot: 'r' | 'k'): number {
  return Object.entries(fields).reduce((total, [name, value]) => total + (name.startsWith(slot) ? Number(value) : 0), 0);
}
const admitted = (asked: readonly Asked[]): Asked[] => asked.filter(({ decision }) => decision.kind === 'admitted');

async function eventually(check: () => boolean | Promise<boolean>, limitMs = 10_000): Promise<number> {
  const startedAtMs = performance.now();
  while (!(await check())) {
    if (performance.now() - startedAtMs > limitMs) throw new Error(`not within ${limitMs} ms: ${check.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - startedAtMs;
}
function freeze({ pid }: RedisServer): () => void {
  process.kill(pid, 'SIGSTOP');
  opened.push({ close: () => thaw() });
  const thaw = (): void => {
    try {
      process.kill(pid, 'SIGCONT');
    } catch {
      // It has been stopped for good.
    }
  };
  return thaw;
}
/** In front of a Redis: later, or with answers of its own. */
async function proxy(target: number, between: { readonly delayMs: () => number; readonly answer?: (command: string) => string | null }): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1');
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
    }
    client.on('data', (chunk) => {
      const own = between.answer?.(chunk.toString('latin1')) ?? null;
      if (own !== null) return void client.write(own);
      setTimeout(() => upstream.write(chunk), between.delayMs());
    });
    upstream.on('data', (chunk) => client.write(chunk));
    client.on('close', () => upstream.destroy());
    upstream.on('close', () => client.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  opened.push({
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  });
  return `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe('three gateways and one Redis', () => {
  test('let exactly as many requests of a minute through as one would', async () => {
    const gateways = await fleetOf(3, (await redis()).url);
    const tenant = limitedTenant({ requestsPerMinute: 200 });
    const asked = await Promise.all(Array.from({ length: 450 }, (_, index) => (gateways[index % 3] as Gateway).take(tenant)));
    expect(admitted(asked)).toHaveLength(200);
    expect(asked.find(({ decision }) => decision.kind === 'refused')?.decision).toMatchObject({ limit: 'requests', standings: { requests: { limit: 200, remaining: 0 } } });
    expect(new Set(gateways.flatMap(({ decided }) => decided))).toEqual(new Set(['none admitted fleet', 'requests refused fleet']));
  });

  test('count tokens together, what was kept and not taken given back', async () => {
    const server = await redis();
    const gateways = await fleetOf(3, server.url);
    const inside = observer(server.url);
    const tenant = limitedTenant({ tokensPerMinute: 10_000 });
    const first = await Promise.all(Array.from({ length: 120 }, (_, index) => (gateways[index % 3] as Gateway).take(tenant)));
    expect(admitted(first)).toHaveLength(100);
    for (const { jobId } of first) for (const limiter of gateways) limiter.settle(jobId, { promptTokens: 10, outputTokens: 30, energyJ: 0 });
    // 100 × 40 are spent, so 60 of these fit.
    await eventually(async () => sum(await inside.hgetall('paceline:{test}:limits:1:acme'), 'k') === 4_000);
    const second = await Promise.all(Array.from({ length: 90 }, (_, index) => (gateways[index % 3] as Gateway).take(tenant)));
    expect(admitted(second)).toHaveLength(60);
  });

  test('never hold more places than there are, and fill those that are freed', async () => {
    const gateways = await fleetOf(3, (await redis()).url);
    const tenant = limitedTenant({ concurrencyMax: 10 });
    let held = 0;
    let most = 0;
    let served = 0;
    async function client(limiter: Gateway): Promise<void> {
      for (let turn = 0; turn < 20; turn++) {
        const { jobId, decision } = await limiter.take(tenant);
        if (decision.kind === 'refused') {
          expect(decision.limit).toBe('concurrency');
          await new Promise((resolve) => setTimeout(resolve, 2));
          continue;
        }
        served++;
        most = Math.max(most, ++held);
        await new Promise((resolve) => setTimeout(resolve, 3));
        held--;
        limiter.settle(jobId, null);
      }
    }
    await Promise.all(Array.from({ length: 30 }, (_, index) => client(gateways[index % 3] as Gateway)));
    expect(most).toBe(10);
    expect(served).toBeGreaterThan(50);
    await eventually(async () => {
      const { decision, jobId } = await (gateways[0] as Gateway).take(tenant);
      (gateways[0] as Gateway).settle(jobId, null);
      return decision.kind === 'admitted' && gateways.every((limiter) => limiter.tenants()[0]?.concurrent === 0);
    });
  });

  test('count what is only counted as a request, though all places and tokens are taken, and free no place by it', async () => {
    const gateways = await fleetOf(3, (await redis()).url);
    const tenant = limitedTenant({ requestsPerMinute: 20, tokensPerMinute: 100, concurrencyMax: 1 });
    const [first] = gateways as [Gateway];
    expect((await first.take(tenant, { promptTokens: 50, maxOutputTokens: 50 })).decision.kind).toBe('admitted');
    const asked = await Promise.all(Array.from({ length: 30 }, async (_, index) => {
      const limiter = gateways[index % 3] as Gateway;
      const taken = await limiter.take(tenant, { promptTokens: 0, maxOutputTokens: null, work: 'declare' });
      limiter.settle(taken.jobId, null);
      return taken;
    }));
    expect(admitted(asked)).toHaveLength(19);
    expect(asked.find(({ decision }) => decision.kind === 'refused')?.decision).toMatchObject({ limit: 'requests' });
    expect((await first.take(limitedTenant({ concurrencyMax: 1 }))).decision).toMatchObject({ kind: 'refused', limit: 'concurrency' });
  });

  test('spend one energy budget', async () => {
    const [a, b] = await fleetOf(2, (await redis()).url) as [Gateway, Gateway];
    const tenant = limitedTenant({}, { energyBudget: { joulesPerDay: 100, atEnd: 'refuse' } });
    a.settle((await a.take(tenant)).jobId, { promptTokens: 1, outputTokens: 1, energyJ: 60 });
    b.settle((await b.take(tenant)).jobId, { promptTokens: 1, outputTokens: 1, energyJ: 50 });
    await eventually(async () => (await a.take(tenant)).decision.kind === 'refused');
    const { decision } = await b.take(tenant);
    expect(decision).toMatchObject({ kind: 'refused', limit: 'energy', allowed: 100 });
    expect(decision.kind === 'refused' && decision.retryAfterMs).toBeLessThanOrEqual(86_400_000);
    expect(b.tenants()).toMatchObject([{ joulesRemaining: 0 }]);
    const slower = limitedTenant({}, { energyBudget: { joulesPerDay: 100, atEnd: { class: 'batch' } } });
    expect((await a.take(slower)).decision).toMatchObject({ kind: 'admitted', sloClass: 'batch' });
  });

  test('get the places of a gateway that was killed back when it has been silent for five seconds', async () => {
    const { url } = await redis();
    const tenant = limitedTenant({ concurrencyMax: 3 });
    const program = `
      const load = (file) => import(${JSON.stringify(join(process.cwd(), 'src/'))} + file);
      const { createFleetLimits } = await load('store/fleet-limits.ts');
      const { createTenantLimiter } = await load('tenant-limiter.ts');
      const fleet = createFleetLimits({ target: { kind: 'single', ca: null, url: ${JSON.stringify(url)} }, fleet: 'test', gatewayId: 'victim', log: { info() {}, warn() {} }, everyMs: 100 });
      await fleet.ready(5000);
      const limiter = createTenantLimiter({ fleet, timeoutMs: 2000, whenLost: {}, gatewaysExpected: 1, now: () => performance.now(), unixNowMs: Date.now, decided() {} });
      for (const jobId of ['1', '2']) limiter.admit({ jobId, tenant: ${JSON.stringify(tenant)}, model: 'm', promptBytes: 1, promptTokens: 1, maxOutputTokens: 1, work: 'generate' }, ({ kind }) => console.log(kind));
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    opened.push({ close: () => child.kill('SIGKILL') });
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
    await eventually(() => said === 'admitted\nadmitted\n', 20_000);
    const a = await gateway(url);
    expect((await a.take(tenant)).decision.kind).toBe('admitted');
    // It says again and again that it has them.
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await a.take(tenant)).decision).toMatchObject({ kind: 'refused', limit: 'concurrency' });
    const killedAtMs = performance.now();
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect((await a.take(tenant)).decision.kind).toBe('refused');
    await eventually(async () => (await a.take(tenant)).decision.kind === 'admitted');
    const freeAfterMs = performance.now() - killedAtMs;
    expect(freeAfterMs).toBeGreaterThan(3_000);
    expect(freeAfterMs).toBeLessThan(7_000);
    expect((await a.take(tenant)).decision.kind).toBe('admitted');
    expect((await a.take(tenant)).decision.kind).toBe('refused');
  }, 40_000);

  test('one whose limits are of each gateway asks nobody', async () => {
    const server = await redis();
    const [a, b] = await fleetOf(2, server.url) as [Gateway, Gateway];
    const tenant = limitedTenant({ requestsPerMinute: 5, scope: 'gateway' });
    for (const limiter of [a, b]) expect(admitted(await Promise.all(Array.from({ length: 8 }, () => limiter.take(tenant))))).toHaveLength(5);
    expect(await observer(server.url).keys('*limits*')).toEqual([]);
    expect(a.tenants()).toMatchObject([{ scope: 'gateway' }]);
  });

  test('leave nothing behind that does not end by itself, all under the tag of the fleet', async () => {
    const server = await redis();
    const limiter = await gateway(server.url);
    await limiter.take(limitedTenant({ requestsPerMinute: 5, concurrencyMax: 2 }, { energyBudget: { joulesPerDay: 1, atEnd: 'refuse' } }));
    const inside = observer(server.url);
    const keys = (await inside.keys('*')).toSorted();
    expect(keys).toEqual(['paceline:{test}:gateways:1', 'paceline:{test}:limits:1:acme', 'paceline:{test}:places:1:acme']);
    for (const key of keys) expect(await inside.pttl(key)).toBeGreaterThan(0);
  });
});

describe('one round trip', () => {
  test('per request, by EVALSHA, and EVAL where the server does not know the script; never SCRIPT LOAD', async () => {
    const server = await redis();
    const seen: string[] = [];
    const limiter = await gateway(await proxy(server.port, { delayMs: () => 0, answer: (text) => (seen.push(...(text.match(/\r\n(evalsha|eval|script|multi|watch)\r\n/gi) ?? [])), null) }));
    const tenant = limitedTenant({ requestsPerMinute: 500, tokensPerMinute: 1_000_000, concurrencyMax: 100 });
    await limiter.take(tenant);
    const inside = observer(server.url);
    await eventually(() => limiter.tenants()[0]?.concurrent === 1);
    const before = Number(/cmdstat_evalsha:calls=(\d+)/.exec(await inside.info('commandstats'))?.[1] ?? 0);
    for (let index = 0; index < 50; index++) await limiter.take(tenant);
    const after = Number(/cmdstat_evalsha:calls=(\d+)/.exec(await inside.info('commandstats'))?.[1] ?? 0);
    // Beside them the beat's two, ten times a second.
    expect(after - before).toBeGreaterThanOrEqual(50);
    expect(after - before).toBeLessThan(50 + 40);
    await inside.script('FLUSH');
    expect((await limiter.take(tenant)).decision.kind).toBe('admitted');
    expect(seen.some((word) => /script|multi|watch/i.test(word))).toBe(false);
  });

  test.each(["-ERR unknown command 'evalsha'\r\n", "-NOPERM this user has no permissions to run the 'evalsha' command\r\n"])('works behind what answers EVALSHA with %j', async (error) => {
    const server = await redis();
    const url = await proxy(server.port, { delayMs: () => 0, answer: (text) => (/^\*\d+\r\n\$7\r\nevalsha/i.test(text) ? error : null) });
    const limiter = await gateway(url);
    const asked = [];
    for (let index = 0; index < 4; index++) asked.push(await limiter.take(limitedTenant({ requestsPerMinute: 2 })));
    expect(asked.map(({ decision }) => decision.kind)).toEqual(['admitted', 'admitted', 'refused', 'refused']);
    expect(limiter.decided.every((words) => words.endsWith(' fleet'))).toBe(true);
  });
});

describe('without an answer of Redis', () => {
  test('frozen: one request waits its time, those after it do not, shares are kept, and what was admitted is told when it is back', async () => {
    const server = await redis();
    const gateways = await fleetOf(2, server.url, { timeoutMs: 100 });
    const [a, b] = gateways as [Gateway, Gateway];
    const tenant = limitedTenant({ requestsPerMinute: 20 });
    expect((await a.take(tenant)).decision.kind).toBe('admitted');
    const thaw = freeze(server);
    const first = await a.take(tenant);
    expect(first.tookMs).toBeGreaterThan(90);
    expect(first.tookMs).toBeLessThan(1_000);
    const asked = [first];
    for (let index = 0; index < 30; index++) {
      const one = await a.take(tenant);
      expect(one.tookMs).toBeLessThan(50);
      asked.push(one);
    }
    // Its half of twenty, the one before included.
    expect(admitted(asked)).toHaveLength(9);
    expect(a.decided.slice(1)).toEqual([...Array<string>(9).fill('none admitted local-share'), ...Array<string>(22).fill('requests refused local-share')]);
    expect(a.tenants()).toMatchObject([{ scope: 'local-share' }]);
    expect(a.logged.filter((line) => line.includes('no longer kept fleet-wide'))).toHaveLength(1);
    expect(b.decided).toEqual([]);
    thaw();
    await eventually(() => a.fleet.state().kind === 'up' && b.fleet.state().kind === 'up');
    expect(a.logged.filter((line) => line.includes('limits are kept fleet-wide'))).toHaveLength(2);
    // What a admitted meanwhile counts for b, the call under way perhaps twice.
    const inside = observer(server.url);
    await eventually(async () => sum(await inside.hgetall('paceline:{test}:limits:1:acme'), 'r') >= 10);
    const left = admitted(await Promise.all(Array.from({ length: 20 }, () => b.take(tenant)))).length;
    expect(left).toBeGreaterThanOrEqual(9);
    expect(left).toBeLessThanOrEqual(10);
  }, 20_000);

  test('slow: nobody waits longer than the timeout', async () => {
    const server = await redis();
    let delayMs = 0;
    const limiter = await gateway(await proxy(server.port, { delayMs: () => delayMs }), { timeoutMs: 100, whenLost: 'open' });
    const tenant = limitedTenant({ requestsPerMinute: 2 });
    await limiter.take(tenant);
    delayMs = 400;
    const asked = await Promise.all(Array.from({ length: 10 }, () => limiter.take(tenant)));
    expect(admitted(asked)).toHaveLength(10);
    for (const { tookMs } of asked) expect(tookMs).toBeLessThan(1_000);
    expect(limiter.decided.slice(1)).toEqual(Array<string>(10).fill('none admitted open'));
    delayMs = 0;
    await eventually(async () => limiter.fleet.state().kind === 'up' && (await limiter.take(tenant)).decision.kind === 'refused');
  });

  test('gone, and back: nothing fails, and places are said anew', async () => {
    const server = await redis();
    const limiter = await gateway(server.url);
    const tenant = limitedTenant({ concurrencyMax: 3 });
    const { jobId } = await limiter.take(tenant);
    await server.stop();
    await eventually(() => limiter.fleet.state().kind === 'lost');
    expect((await limiter.take(tenant)).decision.kind).toBe('admitted');
    limiter.settle(jobId, null);
    await redis({ port: server.port });
    await eventually(() => limiter.fleet.state().kind === 'up');
    const other = await gateway(server.url);
    await eventually(() => limiter.tenants()[0]?.concurrentInFleet === 1);
    expect(admitted(await Promise.all([1, 2, 3, 4].map(() => other.take(tenant))))).toHaveLength(2);
  });

  test.each([
    { whenLost: 'open', kinds: ['admitted', 'admitted', 'admitted', 'admitted'], scope: 'open' },
    { whenLost: 'closed', kinds: ['refused', 'refused', 'refused', 'refused'], scope: 'closed' },
    { whenLost: 'local-share', kinds: ['admitted', 'admitted', 'refused', 'refused'], scope: 'local-share' },
    { whenLost: { requests: 'open', concurrency: 'closed' }, kinds: ['refused', 'refused', 'refused', 'refused'], scope: 'mixed' },
  ] as const)('never there: $whenLost, and the status says so', async ({ whenLost, kinds, scope }) => {
    const limiter = await gateway('redis://127.0.0.1:1', { whenLost, gatewaysExpected: 3 }, false);
    const tenant = limitedTenant({ requestsPerMinute: 6, concurrencyMax: 6 });
    const asked = [];
    for (let index = 0; index < 4; index++) asked.push(await limiter.take(tenant));
    expect(asked.map(({ decision }) => decision.kind)).toEqual(kinds);
    expect(limiter.tenants()).toMatchObject([{ scope }]);
  });

  test.each([
    { what: 'a replica that takes no writes', set: ['REPLICAOF', '127.0.0.1', '1'], unset: ['REPLICAOF', 'NO', 'ONE'], why: 'READONLY' },
    { what: 'a full memory', set: ['CONFIG', 'SET', 'maxmemory', '1'], unset: ['CONFIG', 'SET', 'maxmemory', '0'], why: 'OOM' },
  ])('$what is as good as lost, and found again', async ({ set, unset, why }) => {
    const server = await redis();
    const limiter = await gateway(server.url, { whenLost: 'open' });
    const inside = observer(server.url);
    const tenant = limitedTenant({ requestsPerMinute: 1 });
    await limiter.take(tenant);
    await inside.call(set[0] as string, ...set.slice(1));
    await eventually(() => limiter.fleet.state().kind === 'lost');
    expect((await limiter.take(tenant)).decision.kind).toBe('admitted');
    expect(limiter.logged.join()).toContain(why);
    await inside.call(unset[0] as string, ...unset.slice(1));
    await eventually(() => limiter.fleet.state().kind === 'up');
    expect((await limiter.take(tenant)).decision.kind).toBe('refused');
  });

  test.each(['-LOADING Redis is loading the dataset in memory\r\n', '-CLUSTERDOWN The cluster is down\r\n', '+what is this\r\n', '*1\r\n:1\r\n'])('so is a server that answers %j', async (answer) => {
    const server = await redis();
    let broken = false;
    const limiter = await gateway(await proxy(server.port, { delayMs: () => 0, answer: () => (broken ? answer : null) }), { whenLost: 'open' });
    const tenant = limitedTenant({ requestsPerMinute: 1 });
    await limiter.take(tenant);
    broken = true;
    expect((await limiter.take(tenant)).decision.kind).toBe('admitted');
    expect(limiter.fleet.state().kind).toBe('lost');
    broken = false;
    await eventually(async () => limiter.fleet.state().kind === 'up' && (await limiter.take(tenant)).decision.kind === 'refused');
  });
});
