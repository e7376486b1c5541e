// The ways to Redis, each on real servers: one with a password and TLS, a Cluster, and Sentinels through a failover.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Redis } from 'ioredis';
import { afterEach, expect, test } from 'vitest';
import { createFleetLimits } from '../../src/store/fleet-limits.ts';
import type { FleetLimits } from '../../src/store/fleet-limits.ts';
import { createFleetLoad } from '../../src/store/fleet-load.ts';
import { shownRedis, singleRedis } from '../../src/store/redis-connection.ts';
import type { RedisTarget } from '../../src/store/redis-target.ts';
import { createTenantLimiter } from '../../src/tenant-limiter.ts';
import { ask, limitRequest, limitedTenant } from '../fixtures/limits.ts';
import type { RedisServer } from '../fixtures/redis.ts';
import { freePort, startRedis } from '../fixtures/redis.ts';

const TLS = resolve(import.meta.dirname, '../fixtures/tls');
const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function redis(...args: string[]): Promise<RedisServer> {
  const server = await startRedis({ arguments: args });
  opened.push({ close: server.stop });
  return server;
}
function client(port: number): Redis {
  const observer = new Redis(port, '127.0.0.1');
  observer.on('error', () => {});
  opened.push({ close: () => observer.disconnect() });
  return observer;
}
function limits(target: RedisTarget): { readonly fleet: FleetLimits; readonly logged: string[]; take(): Promise<string> } {
  const logged: string[] = [];
  const log = (...line: unknown[]): void => void logged.push(JSON.stringify(line));
  const fleet = createFleetLimits({ target, fleet: 'test', gatewayId: 'g', log: { info: log, warn: log }, everyMs: 100 });
  const limiter = createTenantLimiter({ fleet, timeoutMs: 2_000, gatewaysExpected: 1, whenLost: { requests: 'closed', tokens: 'closed', concurrency: 'closed', energy: 'closed' }, now: () => performance.now(), unixNowMs: Date.now, decided: () => {} });
  opened.push({ close: () => (limiter.close(), fleet.close()) });
  const tenant = limitedTenant({ requestsPerMinute: 3, tokensPerMinute: 10_000, concurrencyMax: 3 });
  return { fleet, logged, take: async () => (await ask(limiter, limitRequest(tenant))).decision.kind };
}
async function eventually(check: () => boolean | Promise<boolean>, limitMs = 15_000): Promise<void> {
  const untilMs = performance.now() + limitMs;
  while (!(await check())) {
    if (performance.now() > untilMs) throw new Error(`not within ${limitMs} ms: ${check.toString()}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}
const up = ({ fleet }: { readonly fleet: FleetLimits }) => eventually(() => fleet.state().kind === 'up');

test('a server with a password, by TLS, its certificate checked against the given CA', async () => {
  const tlsPort = await freePort();
  await redis('--tls-port', String(tlsPort), '--tls-cert-file', join(TLS, 'first.cert.pem'), '--tls-key-file', join(TLS, 'first.key.pem'), '--tls-auth-clients', 'no', '--requirepass', 'pass-word');
  const url = `rediss://:pass-word@localhost:${tlsPort}`;
  const trusted = limits(singleRedis(url, readFileSync(join(TLS, 'first.cert.pem'), 'utf8')));
  await up(trusted);
  expect([await trusted.take(), await trusted.take(), await trusted.take(), await trusted.take()]).toEqual(['admitted', 'admitted', 'admitted', 'refused']);
  const stranger = limits(singleRedis(url, readFileSync(join(TLS, 'second.cert.pem'), 'utf8')));
  await eventually(() => stranger.fleet.state().kind === 'lost');
  expect(stranger.fleet.state()).toMatchObject({ why: expect.stringMatching(/certificate/i) });
  expect([...trusted.logged, ...stranger.logged].join()).not.toContain('pass-word');
});

test('a Cluster: limits and load have keys of one slot, whatever nodes are named', async () => {
  const server = await redis('--cluster-enabled', 'yes', '--cluster-config-file', 'nodes.conf', '--cluster-announce-ip', '127.0.0.1');
  const inside = client(server.port);
  await inside.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383');
  await eventually(async () => String(await inside.call('CLUSTER', 'INFO')).includes('cluster_state:ok'));
  const target: RedisTarget = { kind: 'cluster', nodes: [{ host: '127.0.0.1', port: server.port }, { host: '127.0.0.1', port: await freePort() }], ca: null, tls: false, username: null, password: null };
  const gateway = limits(target);
  await up(gateway);
  expect([await gateway.take(), await gateway.take(), await gateway.take(), await gateway.take()]).toEqual(['admitted', 'admitted', 'admitted', 'refused']);
  const states: string[] = [];
  const load = createFleetLoad({ target, fleet: 'test', gatewayId: 'g', read: () => new Map(), onPeers: () => {}, onState: ({ kind }) => states.push(kind), log: { info: () => {}, warn: () => {} } });
  opened.push(load);
  await eventually(() => states.includes('connected'));
  const keys = await inside.keys('*');
  expect(keys.toSorted()).toEqual(['paceline:{test}:gateways:1', 'paceline:{test}:limits:1:acme', 'paceline:{test}:load:1', 'paceline:{test}:places:1:acme']);
  expect(new Set(await Promise.all(keys.map((key) => inside.call('CLUSTER', 'KEYSLOT', key)))).size).toBe(1);
});

test('Sentinels: the server to write to is found, and found again when another takes its place', async () => {
  const [first, second] = [await redis(), await redis()];
  await client(second.port).call('REPLICAOF', '127.0.0.1', String(first.port));
  const sentinelPort = await freePort();
  const directory = mkdtempSync(join(tmpdir(), 'sentinel-'));
  writeFileSync(join(directory, 'sentinel.conf'), `port ${sentinelPort}\nbind 127.0.0.1\ndir ${directory}\nsentinel monitor fleet 127.0.0.1 ${first.port} 1\nsentinel down-after-milliseconds fleet 500\nsentinel failover-timeout fleet 3000\n`);
  const sentinel = spawn('redis-server', [join(directory, 'sentinel.conf'), '--sentinel'], { stdio: 'ignore' });
  const exited = once(sentinel, 'exit');
  opened.push({
    close: async () => {
      sentinel.kill('SIGKILL');
      await exited;
      rmSync(directory, { recursive: true, force: true });
    },
  });
  const watcher = client(sentinelPort);
  await eventually(async () => Number(((await watcher.call('SENTINEL', 'REPLICAS', 'fleet').catch(() => [])) as unknown[]).length) === 1);
  await eventually(async () => (await client(second.port).info('replication')).includes('master_link_status:up'));
  const gateway = limits({ kind: 'sentinel', name: 'fleet', nodes: [{ host: '127.0.0.1', port: await freePort() }, { host: '127.0.0.1', port: sentinelPort }], sentinelPassword: null, ca: null, tls: false, username: null, password: null });
  await up(gateway);
  expect(await gateway.take()).toBe('admitted');
  const inside = client(second.port);
  await eventually(async () => (await inside.exists('paceline:{test}:limits:1:acme')) === 1);
  await first.stop();
  await eventually(() => gateway.fleet.state().kind === 'lost');
  expect(await gateway.take()).toBe('refused');
  await eventually(() => gateway.fleet.state().kind === 'up', 30_000);
  expect((await inside.info('replication')).includes('role:master')).toBe(true);
  // What the first had told the second counts on.
  expect([await gateway.take(), await gateway.take(), await gateway.take()]).toEqual(['admitted', 'admitted', 'refused']);
}, 60_000);

test('what is shown of a target has no password in it', () => {
  const secured = { ca: null, tls: true, username: 'u', password: 'hidden' };
  const nodes = [{ host: 'a', port: 1 }, { host: 'b', port: 2 }];
  expect(shownRedis(singleRedis('rediss://u:hidden@a:1'))).toBe('rediss://***@a:1');
  expect(shownRedis({ kind: 'sentinel', name: 'm', nodes, sentinelPassword: 'hidden', ...secured })).toBe('sentinels a:1,b:2 of m');
  expect(shownRedis({ kind: 'cluster', nodes, ...secured })).toBe('cluster a:1,b:2');
});
