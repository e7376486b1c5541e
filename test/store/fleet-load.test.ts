import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterEach, describe, expect, test } from 'vitest';
import type { ReplicaId } from '../../src/core/job.ts';
import type { FleetLoad, FleetLoadOptions, FleetLoadState } from '../../src/store/fleet-load.ts';
import { createFleetLoad } from '../../src/store/fleet-load.ts';
import { singleRedis } from '../../src/store/redis-connection.ts';
import type { ReplicaLoads } from '../../src/store/peer-loads.ts';
import type { RedisServer } from '../fixtures/redis.ts';
import { freePort, startRedis } from '../fixtures/redis.ts';

const KEY = 'paceline:{test}:load:1';
const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function redis(options?: Parameters<typeof startRedis>[0]): Promise<RedisServer> {
  const server = await startRedis(options);
  opened.push({ close: server.stop });
  return server;
}
/** Looks into the server beside the gateways. */
function observer(url: string): Redis {
  const client = new Redis(url);
  opened.push({ close: () => client.disconnect() });
  return client;
}

type Loads = Record<string, readonly [running: number, waiting: number]>;
interface Watched extends FleetLoad {
  /** What `read` says. */
  mine: Loads;
  /** All that was told, and what it adds up to. */
  readonly told: Loads[];
  readonly peers: Loads;
  readonly states: FleetLoadState[];
  readonly logged: string[];
}
function gateway(url: string, gatewayId: string, options: Partial<FleetLoadOptions> & { readonly mine?: Loads } = {}): Watched {
  const told: Loads[] = [];
  const states: FleetLoadState[] = [];
  const logged: string[] = [];
  const peers: Loads = {};
  const log = (...line: unknown[]): void => void logged.push(JSON.stringify(line));
  const mine = { value: options.mine ?? {} };
  const fleetLoad = createFleetLoad({
    target: singleRedis(url), fleet: 'test', gatewayId,
    read: () => new Map(Object.entries(mine.value).map(([replicaId, [running, waiting]]) => [replicaId as ReplicaId, { running, waiting }])),
    onPeers: (loads) => {
      const plain = asPlain(loads);
      told.push(plain);
      Object.assign(peers, plain);
    },
    onState: (state) => states.push(state),
    log: { info: log, warn: log },
    ...options,
  });
  opened.push(fleetLoad);
  return { ...fleetLoad, told, peers, states, logged, get mine() { return mine.value; }, set mine(value) { mine.value = value; } };
}
function asPlain(loads: ReplicaLoads): Loads {
  return Object.fromEntries([...loads].map(([replicaId, { running, waiting }]) => [replicaId, [running, waiting]]));
}
const connected = (watched: Watched) => eventually(() => watched.state().kind === 'connected');

/** Milliseconds until it was so. */
async function eventually(check: () => boolean | Promise<boolean>, limitMs = 5_000): Promise<number> {
  const startedAtMs = performance.now();
  while (!(await check())) {
    if (performance.now() - startedAtMs > limitMs) throw new Error(`not within ${limitMs} ms: ${check.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - startedAtMs;
}
/** The longest that a timer was late meanwhile. */
async function longestWaitMs(during: () => Promise<void>): Promise<number> {
  let lastAtMs = performance.now();
  let longestMs = 0;
  const look = (): void => {
    const nowMs = performance.now();
    longestMs = Math.max(longestMs, nowMs - lastAtMs);
    lastAtMs = nowMs;
  };
  const timer = setInterval(look, 5);
  await during();
  clearInterval(timer);
  look();
  return longestMs;
}
const wait = (forMs: number) => new Promise((resolve) => setTimeout(resolve, forMs));

describe('with Redis', () => {
  test('gateways hear the sum of the others, and of every change within two beats', async () => {
    const { url } = await redis();
    const [a, b, c] = [gateway(url, 'a', { mine: { r0: [3, 1] } }), gateway(url, 'b', { mine: { r0: [2, 0], r1: [5, 5] } }), gateway(url, 'c')];
    await eventually(() => c.peers['r0']?.[0] === 5 && a.peers['r1'] !== undefined && b.peers['r0']?.[0] === 3);
    expect({ a: a.peers, b: b.peers, c: c.peers }).toEqual({ a: { r0: [2, 0], r1: [5, 5] }, b: { r0: [3, 1] }, c: { r0: [5, 1], r1: [5, 5] } });
    expect(a.state()).toMatchObject({ kind: 'connected', gateways: 2 });
    a.mine = { r0: [9, 1] };
    expect(await eventually(() => b.peers['r0']?.[0] === 9 && c.peers['r0']?.[0] === 11)).toBeLessThan(700);
    expect(a.states.map(({ kind }) => kind)).toEqual(['connected']);
  });

  test('nothing is told while nothing changes', async () => {
    const { url } = await redis();
    const [a] = [gateway(url, 'a', { everyMs: 50 }), gateway(url, 'b', { everyMs: 50, mine: { r0: [2, 0] } })];
    await eventually(() => a.told.length > 0);
    await wait(300);
    expect(a.told).toEqual([{ r0: [2, 0] }]);
  });

  test('a gateway that closes is gone at once and leaves nothing in Redis', async () => {
    const { url } = await redis();
    const [a, b] = [gateway(url, 'a'), gateway(url, 'b', { mine: { r0: [2, 0] } })];
    const inside = observer(url);
    await eventually(() => a.peers['r0']?.[0] === 2);
    expect(await inside.hlen(KEY)).toBe(2);
    expect(await inside.pttl(KEY)).toBeLessThanOrEqual(60_000);
    await b.close();
    expect(await inside.hlen(KEY)).toBe(1);
    expect(await eventually(() => a.peers['r0']?.[0] === 0)).toBeLessThan(500);
    expect(a.told).toEqual([{ r0: [2, 0] }, { r0: [0, 0] }]);
    await a.close();
    expect(await inside.keys('*')).toEqual([]);
    expect(await inside.client('LIST')).not.toContain('paceline-');
  });

  test('a gateway that is killed is gone within a second and a half, and the others stay', async () => {
    const { url } = await redis();
    const program = `
      const { createFleetLoad } = await import(${JSON.stringify(join(process.cwd(), 'src/store/fleet-load.ts'))});
      createFleetLoad({ target: { kind: 'single', ca: null, url: ${JSON.stringify(url)} }, fleet: 'test', gatewayId: 'b', read: () => new Map([['r0', { running: 7, waiting: 2 }]]), onPeers: () => {}, log: console });`;
    const [a] = [gateway(url, 'a'), gateway(url, 'c', { mine: { r0: [1, 0] } })];
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'ignore' });
    opened.push({ close: () => child.kill('SIGKILL') });
    await eventually(() => a.peers['r0']?.[0] === 8);
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(await eventually(() => a.peers['r0']?.[0] === 1)).toBeLessThan(1_500);
    expect(a.peers).toEqual({ r0: [1, 0] });
    expect(a.states.map(({ kind }) => kind)).toEqual(['connected']);
  });

  test('namesakes are two, and a restarted gateway does not count what its former self left', async () => {
    const { url } = await redis();
    await observer(url).hset(KEY, 'a/0123456789ab', '{"count":1,"loads":{"r0":[100,100]}}');
    const [a] = [gateway(url, 'a', { everyMs: 50 }), gateway(url, 'a', { everyMs: 50, mine: { r0: [2, 0] } })];
    await eventually(() => a.told.length > 0);
    expect(a.peers).toEqual({ r0: [2, 0] });
  });

  test('another fleet on the same Redis is not heard', async () => {
    const { url } = await redis();
    const [a] = [gateway(url, 'a', { everyMs: 50 }), gateway(url, 'b', { everyMs: 50, mine: { r0: [2, 0] }, fleet: 'other' })];
    await wait(300);
    expect(a.told).toEqual([]);
    expect(a.state()).toMatchObject({ kind: 'connected', gateways: 0 });
  });
});

describe('without Redis', () => {
  test('frozen for more than a second: lost once, the others at zero, back by itself, and nobody waited', async () => {
    const { url, pid } = await redis();
    const [a] = [gateway(url, 'a'), gateway(url, 'b', { mine: { r0: [2, 0] } })];
    await eventually(() => a.peers['r0']?.[0] === 2);
    const inside = observer(url);
    const connectionsBefore = connectionsIn(await inside.info('stats'));
    const waitedMs = await longestWaitMs(async () => {
      process.kill(pid, 'SIGSTOP');
      const frozenAtMs = performance.now();
      expect(await eventually(() => a.state().kind === 'lost')).toBeLessThan(600);
      await eventually(() => a.peers['r0']?.[0] === 0);
      await wait(Math.max(0, frozenAtMs + 1_200 - performance.now()));
      process.kill(pid, 'SIGCONT');
      expect(await eventually(() => a.peers['r0']?.[0] === 2)).toBeLessThan(2_500);
    });
    expect(waitedMs).toBeLessThan(100);
    expect(a.states.map(({ kind }) => kind)).toEqual(['connected', 'lost', 'connected']);
    expect(a.logged.filter((line) => line.includes('Redis is lost'))).toHaveLength(1);
    expect(connectionsIn(await inside.info('stats')) - connectionsBefore).toBeLessThan(20);
  });

  test('taking everything and answering nothing: a connection carries one question and is cut', async () => {
    const connections: { questions: number; open: boolean }[] = [];
    // Half open, so that it does not even answer when we hang up: as a frozen process.
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      const connection = { questions: 0, open: true };
      connections.push(connection);
      opened.push({ close: () => socket.destroy() });
      socket.on('data', (chunk: Buffer) => (connection.questions += chunk.toString('latin1').split('hset').length - 1));
      socket.on('end', () => (connection.open = false));
      socket.on('error', () => (connection.open = false));
    }).listen(0, '127.0.0.1');
    opened.push({ close: () => server.close() });
    await once(server, 'listening');
    const a = gateway(`redis://127.0.0.1:${(server.address() as AddressInfo).port}`, 'a', { everyMs: 20 });
    await eventually(() => connections.length >= 3, 2_500);
    expect(connections.slice(0, 2)).toEqual([{ questions: 1, open: false }, { questions: 1, open: false }]);
    expect(a.states.map(({ kind }) => kind)).toEqual(['lost']);
  });

  test('killed: lost, and connected again to the one that takes its place', async () => {
    const server = await redis();
    const a = gateway(server.url, 'a', { mine: { r0: [1, 0] } });
    await connected(a);
    await server.stop();
    expect(await eventually(() => a.state().kind === 'lost')).toBeLessThan(500);
    await redis({ port: server.port });
    await connected(a);
    const b = gateway(server.url, 'b');
    await eventually(() => b.peers['r0']?.[0] === 1);
  });

  test('not there: lost with the reason, and closing takes no time', async () => {
    const a = gateway(`redis://127.0.0.1:${await freePort()}`, 'a');
    await eventually(() => a.state().kind === 'lost');
    expect(a.state()).toMatchObject({ why: expect.stringContaining('ECONNREFUSED') });
    const startedAtMs = performance.now();
    await a.close();
    await a.close();
    expect(performance.now() - startedAtMs).toBeLessThan(50);
    expect(a.state().kind).toBe('closed');
  });

  test('frozen before we came, and at closing: lost, and closing is as quick', async () => {
    const { url, pid } = await redis();
    process.kill(pid, 'SIGSTOP');
    const a = gateway(url, 'a');
    expect(await eventually(() => a.state().kind === 'lost')).toBeLessThan(1_000);
    process.kill(pid, 'SIGCONT');
    await connected(a);
    process.kill(pid, 'SIGSTOP');
    const startedAtMs = performance.now();
    await a.close();
    expect(performance.now() - startedAtMs).toBeLessThan(300);
  });

  test('the key of another type: lost, with what Redis says', async () => {
    const { url } = await redis();
    await observer(url).set(KEY, 'mine');
    const a = gateway(url, 'a');
    await eventually(() => a.state().kind === 'lost');
    expect(a.state()).toMatchObject({ why: expect.stringContaining('WRONGTYPE') });
  });

  test('a wrong password is said, but not which; the right one connects', async () => {
    const { port } = await redis({ arguments: ['--requirepass', 'right-secret'] });
    const a = gateway(`redis://:wrong-secret@127.0.0.1:${port}`, 'a');
    await eventually(() => a.state().kind === 'lost');
    expect(a.state()).toMatchObject({ why: expect.stringContaining('WRONGPASS') });
    expect(a.logged.join()).toContain('WRONGPASS');
    expect([a.logged, JSON.stringify(a.states)].join()).not.toContain('secret');
    const b = gateway(`redis://:right-secret@127.0.0.1:${port}`, 'b');
    await connected(b);
    expect(b.logged.join()).not.toContain('secret');
  });

  test.each([
    { options: { target: singleRedis('redis://u:secret@host:port') }, says: "redis url 'redis://***@host:port': not a URL" },
    { options: { fleet: 'a b' }, says: "fleet: got 'a b', want 1 to 64" },
    { options: { gatewayId: '' }, says: "gatewayId: got '', want 1 to 64" },
  ])('wrong options are refused at once: $says', ({ options, says }) => {
    expect(() => gateway('redis://127.0.0.1', 'a', options)).toThrow(says);
  });
});

function connectionsIn(stats: string): number {
  return Number(/total_connections_received:(\d+)/.exec(stats)?.[1]);
}
