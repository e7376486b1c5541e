// Counters of nodes over real sockets: what is read, how often, and every way in which a counter or its daemon fails.
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { COUNTER_AGE_MS_MAX, type CounterReading, createEnergyCounters } from '../../src/agent/energy-counters.ts';
import { createCountedGroup, createEnergyFeed, type EnergyNode } from '../../src/agent/energy-feed.ts';
import type { ReplicaId } from '../../src/core/job.ts';
import type { MeterReading } from '../../src/core/meter-window.ts';

const opened: { close(): Promise<void> | void }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const eventually = (check: () => void, timeout = 8_000): Promise<void> => vi.waitFor(check, { timeout, interval: 5 });

interface Daemon {
  readonly socketPath: string;
  answer: (path: string) => { readonly status?: number; readonly body: string } | 'hang';
  asked: string[];
  die(): Promise<void>;
  comeBack(): Promise<void>;
}

async function daemon(answer: Daemon['answer']): Promise<Daemon> {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-counters-'));
  const socketPath = join(directory, 'd.sock');
  let server: Server | null = null;
  const stub: Daemon = {
    socketPath,
    answer,
    asked: [],
    die: async () => {
      server?.closeAllConnections();
      server?.close();
      if (server !== null) await once(server, 'close');
      server = null;
    },
    comeBack: async () => {
      rmSync(socketPath, { force: true });
      server = createServer((incoming, outgoing) => {
        stub.asked.push(incoming.url ?? '');
        const said = stub.answer(incoming.url ?? '');
        if (said !== 'hang') outgoing.writeHead(said.status ?? 200, { 'content-type': 'application/json' }).end(said.body);
      }).listen(socketPath);
      await once(server, 'listening');
    },
  };
  await stub.comeBack();
  opened.push({ close: async () => {
    await stub.die();
    rmSync(directory, { recursive: true, force: true });
  } });
  return stub;
}

const samples = (...list: object[]): { readonly body: string } => ({ body: JSON.stringify({ at_ns: 1, samples: list }) });
const sample = (device: string, energyMj: number, more: object = {}): object => ({ device, clock_mhz: 1_000, power_mw: 300_000, energy_mj: energyMj, energy_age_ms: 50, ...more });
const read = (counterMj: number, energyJ = counterMj / 1_000, powerW: number | null = null): CounterReading => ({ kind: 'read', sample: { counterMj, energyJ, powerW } });
const group = (id: string, ...devices: string[]): { readonly replicaId: ReplicaId; readonly devices: readonly string[] } => ({ replicaId: id as ReplicaId, devices });

function feedOf(nodes: readonly Omit<EnergyNode, 'name'>[], options: { readonly isBusy?: (id: string) => boolean; readonly idleEveryMs?: number } = {}) {
  const readings: { readonly id: string; readonly reading: MeterReading | null }[] = [];
  const states: [string, string | null][] = [];
  const feed = createEnergyFeed({
    nodes: nodes.map((node, index) => ({ name: `node-${index}`, ...node })),
    everyMs: 10,
    idleEveryMs: options.idleEveryMs ?? 20,
    isBusy: (id) => options.isBusy?.(id) ?? true,
    onReading: (id, reading) => readings.push({ id, reading }),
    onState: (id, why) => states.push([id, why]),
    now: () => performance.now(),
  });
  opened.push(feed);
  const last = (id: string): MeterReading | null | undefined => readings.findLast((entry) => entry.id === id)?.reading;
  return { feed, readings, states, last };
}

describe('the counters of an agent', () => {
  test('are carried forward from their last tick by the power of now', async () => {
    const agent = await daemon(() => samples(sample('sim:0', 10_000), sample('sim:1', 2_000, { power_mw: null }), sample('sim:2', 5_000, { energy_age_ms: null })));
    const counters = createEnergyCounters('paceline', { kind: 'socket', path: agent.socketPath });
    opened.push(counters);
    const all = await counters.read();
    expect(all.get('sim:0')).toEqual(read(10_000, 10 + 0.05 * 300, 300));
    expect(all.get('sim:1')).toEqual(read(2_000, 2, null));
    expect(all.get('sim:2')).toEqual(read(5_000, 5, 300));
  });

  test.each([
    { what: 'has an error', more: { error: 'GPU is lost' }, why: 'cannot be read: GPU is lost' },
    { what: 'tells no energy', more: { energy_mj: null }, why: 'tells no energy' },
    { what: 'has a counter that has stopped', more: { energy_age_ms: COUNTER_AGE_MS_MAX + 1 }, why: `its counter has not ticked for ${COUNTER_AGE_MS_MAX + 1} ms` },
  ])('say why of a device that $what', async ({ more, why }) => {
    const agent = await daemon(() => samples(sample('sim:0', 1, more)));
    const counters = createEnergyCounters('paceline', { kind: 'socket', path: agent.socketPath });
    opened.push(counters);
    expect((await counters.read()).get('sim:0')).toEqual({ kind: 'unread', why });
  });

  test('of a daemon that says something else are an error that shows what it said', async () => {
    const agent = await daemon(() => ({ body: '{"samples":[{"device":"sim:0","energy_mj":-5}]}' }));
    const counters = createEnergyCounters('paceline', { kind: 'socket', path: agent.socketPath });
    opened.push(counters);
    await expect(counters.read()).rejects.toThrow(/no list of energy counters: .*-5/);
  });

  test('of zeusd stand as they are', async () => {
    const zeusd = await daemon((path) => (path === '/gpu/get_cumulative_energy' ? { body: '{"0":{"energy_mj":4000},"1":{"energy_mj":7}}' } : { status: 404, body: '{}' }));
    const counters = createEnergyCounters('zeusd', { kind: 'socket', path: zeusd.socketPath });
    opened.push(counters);
    expect(await counters.read()).toEqual(new Map([['zeusd:0', read(4_000, 4, null)], ['zeusd:1', read(7, 0.007, null)]]));
  });
});

describe('the counters of a group', () => {
  test('are one: the sum of its devices', () => {
    const counted = createCountedGroup(group('r', 'a', 'b'));
    expect(counted.reading(new Map([['a', read(1_000, 1, 100)], ['b', read(2_000, 2, 50)], ['c', read(9_000)]]))).toEqual({ reading: { energyJ: 3, epoch: 1, powerW: 150 }, why: null });
  });

  test('have no power where one device tells none', () => {
    expect(createCountedGroup(group('r', 'a', 'b')).reading(new Map([['a', read(1, 1, 100)], ['b', read(1)]])).reading?.powerW).toBeNull();
  });

  test('begin anew where one of them goes back, and not where it was only carried on less far', () => {
    const counted = createCountedGroup(group('r', 'a', 'b'));
    const at = (a: CounterReading, b: CounterReading): number | undefined => counted.reading(new Map([['a', a], ['b', b]])).reading?.epoch;
    expect(at(read(1_000, 1.03), read(5_000))).toBe(1);
    expect(at(read(1_000, 1.01), read(5_000))).toBe(1);
    expect(at(read(3_000), read(10))).toBe(2);
    expect(at(read(4_000), read(20))).toBe(2);
  });

  test('cannot be read while one of them is away, and go on where they were when it is back', () => {
    const counted = createCountedGroup(group('r', 'a', 'b'));
    counted.reading(new Map([['a', read(1_000)], ['b', read(5_000)]]));
    expect(counted.reading(new Map([['a', read(1_500)]]))).toEqual({ reading: null, why: 'b is not there' });
    expect(counted.failing()).toBe(true);
    expect(counted.reading(new Map([['a', read(2_000)], ['b', read(6_000)]])).reading).toEqual({ energyJ: 8, epoch: 1, powerW: null });
    expect(counted.reading(new Map([['a', read(2_100)], ['b', { kind: 'unread', why: 'tells no energy' }]])).why).toBe('b tells no energy');
    expect(counted.reading(new Map([['a', read(2_200)], ['b', read(100)]])).reading?.epoch).toBe(2);
  });
});

describe('a feed', () => {
  test('tells each replica of a node its own devices, groups of a disaggregated one too', async () => {
    const agent = await daemon(() => samples(sample('sim:0', 1_000, { energy_age_ms: 0 }), sample('sim:1', 2_000, { energy_age_ms: 0 }), sample('sim:2', 4_000, { energy_age_ms: 0 })));
    const { last } = feedOf([{ kind: 'paceline', address: { kind: 'socket', path: agent.socketPath }, groups: [group('a', 'sim:0'), group('b/prefill', 'sim:1'), group('b/decode', 'sim:2')] }]);
    await eventually(() => expect(['a', 'b/prefill', 'b/decode'].map((id) => last(id)?.energyJ)).toEqual([1, 2, 4]));
  });

  test('reads seldom while nothing is under way, and often while something is', async () => {
    const agent = await daemon(() => samples(sample('sim:0', 1_000)));
    let busy = false;
    feedOf([{ kind: 'paceline', address: { kind: 'socket', path: agent.socketPath }, groups: [group('a', 'sim:0')] }], { isBusy: () => busy, idleEveryMs: 60_000 });
    await eventually(() => expect(agent.asked).toHaveLength(1));
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(agent.asked).toHaveLength(1);
    busy = true;
    await eventually(() => expect(agent.asked.length).toBeGreaterThan(3));
  });

  test('goes on with a device where another of the same node has vanished, and says which', async () => {
    const agent = await daemon(() => samples(sample('sim:0', 1_000), sample('sim:1', 1_000)));
    const { states, last } = feedOf([{ kind: 'paceline', address: { kind: 'socket', path: agent.socketPath }, groups: [group('a', 'sim:0'), group('b', 'sim:1')] }]);
    await eventually(() => expect(last('b')?.epoch).toBe(1));
    agent.answer = () => samples(sample('sim:0', 2_000, { energy_age_ms: 0 }));
    await eventually(() => expect(last('b')).toBeNull());
    await eventually(() => expect(last('a')?.energyJ).toBe(2));
    expect(states).toEqual([['a', null], ['b', null], ['b', 'sim:1 is not there']]);
  });

  test('says that nothing can be read while an agent is away, at each try, and goes on when it is back', async () => {
    const agent = await daemon(() => samples(sample('sim:0', 1_000)));
    const other = await daemon(() => samples(sample('sim:0', 7_000, { energy_age_ms: 0 })));
    const { readings, states, last } = feedOf([agent, other].map(({ socketPath }, index) => ({ kind: 'paceline' as const, address: { kind: 'socket' as const, path: socketPath }, groups: [group(index === 0 ? 'a' : 'b', 'sim:0')] })));
    await eventually(() => expect(last('a')?.epoch).toBe(1));
    await agent.die();
    await eventually(() => expect(readings.filter(({ id, reading }) => id === 'a' && reading === null).length).toBeGreaterThanOrEqual(2));
    expect(last('b')?.energyJ).toBe(7);
    await agent.comeBack();
    agent.answer = () => samples(sample('sim:0', 9_000, { energy_age_ms: 0 }));
    await eventually(() => expect(last('a')).toEqual({ energyJ: 9, epoch: 1, powerW: 300 }));
    expect(states.filter(([id]) => id === 'a').map(([, why]) => why === null)).toEqual([true, false, true]);
  });

  test('waits for a daemon that hangs no longer than for any, and asks it nothing more meanwhile', async () => {
    const agent = await daemon(() => 'hang');
    const { last } = feedOf([{ kind: 'paceline', address: { kind: 'socket', path: agent.socketPath }, groups: [group('a', 'sim:0')] }]);
    await eventually(() => expect(agent.asked.length).toBe(1));
    await eventually(() => expect(last('a')).toBeNull(), 5_000);
    expect(agent.asked.length).toBeLessThanOrEqual(2);
  });

  test('says nothing more once it is closed', async () => {
    const agent = await daemon(() => samples(sample('sim:0', 1_000)));
    const { feed, readings, last } = feedOf([{ kind: 'paceline', address: { kind: 'socket', path: agent.socketPath }, groups: [group('a', 'sim:0')] }]);
    await eventually(() => expect(last('a')?.epoch).toBe(1));
    await feed.close();
    const told = readings.length;
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(readings).toHaveLength(told);
  });
});
