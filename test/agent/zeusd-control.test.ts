// zeusd keeps what it was told for ever: here it is seen that nothing stays slow, whoever dies, hangs or is silent.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { resolve } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import type { ClockDemand, ClockGroup, NodeControl, NodeState } from '../../src/agent/node-control.ts';
import { createZeusdControl } from '../../src/agent/zeusd-control.ts';
import type { ReplicaId } from '../../src/core/job.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';
import type { StubZeusd } from '../fixtures/stub-zeusd.ts';
import { createStubZeusd } from '../fixtures/stub-zeusd.ts';

const opened: { close(): Promise<void> }[] = [];
const stubs: StubZeusd[] = [];
let client: ChildProcess | null = null;
afterEach(async () => {
  // Watchdogs that cannot reset go on trying for minutes: here they can.
  for (const stub of stubs.splice(0)) {
    stub.failing.clear();
    stub.hang = false;
    stub.delayMs = 0;
    client?.kill('SIGKILL');
    if (client !== null) await eventually(() => stub.locks.every((lock) => lock === null));
  }
  client = null;
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const R0 = 'r0' as ReplicaId;
const R1 = 'r1' as ReplicaId;
interface Watched extends NodeControl {
  state(): NodeState;
  readonly told: { replicaId: ReplicaId; controlled: boolean; pointId: string | null }[];
  readonly states: NodeState[];
  readonly whys: string[];
  readonly warnings: string[];
}

async function zeusd(gpus = 2): Promise<StubZeusd> {
  const stub = await createStubZeusd(gpus);
  opened.push(stub);
  stubs.push(stub);
  return stub;
}

function control(stub: StubZeusd, options: { groups?: ClockGroup[]; watchdogMs?: number; lowestClockMhz?: number } = {}): Watched {
  const told: Watched['told'] = [];
  const states: NodeState[] = [];
  const whys: string[] = [];
  const warnings: string[] = [];
  const zeusdControl = createZeusdControl({
    address: { kind: 'socket', path: stub.socketPath },
    watchdogMs: options.watchdogMs ?? 2_000,
    lowestClockMhz: options.lowestClockMhz ?? null,
    holder: 'test',
    groups: options.groups ?? [{ replicaId: R0, devices: ['zeusd:0', 'zeusd:1'] }],
    now: () => performance.now(),
    onControl: (replicaId, controlled, pointId) => told.push({ replicaId, controlled, pointId }),
    onState: (state, why) => {
      states.push(state);
      whys.push(why);
    },
    onWarning: (warning) => warnings.push(warning),
  });
  opened.push(zeusdControl);
  return { ...zeusdControl, state: () => states.at(-1) ?? 'connecting', told, states, whys, warnings };
}

function demand(clockMhz: number | null, options: { replicaId?: ReplicaId; holdMs?: number; change?: ClockDemand['change'] } = {}): ClockDemand {
  const { replicaId = R0, holdMs = 500, change = 'lower' } = options;
  return { replicaId, holdMs, change, point: clockMhz === null ? null : { id: `c${clockMhz}`, knobs: { clockMhz }, idlePowerW: 90 } };
}

const held = (watched: Watched) => eventually(() => watched.state() === 'held');
test('a power limit is not set, for nobody could put it back, which is said once; the clocks of the same demand are', async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  for (const powerLimitW of [700, 600, null]) watched.demand({ ...demand(900), powerLimitW });
  await eventually(() => watched.told.at(-1)?.pointId === 'c900');
  expect(watched.warnings.filter((warning) => warning.includes('power limit'))).toHaveLength(1);
  expect(watched.powerLimits()).toBe('refused');
  expect(new Set(stub.commands.map(({ what }) => what))).toEqual(new Set(['reset', 'lock']));
});

const locks = ({ commands }: StubZeusd) => commands.filter(({ what }) => what === 'lock');

test('warns once of what it means that there are no leases, and first resets what an earlier gateway left', async () => {
  const stub = await zeusd();
  stub.locks.fill(600);
  const watched = control(stub);
  await held(watched);
  expect(watched.warnings).toEqual([expect.stringMatching(/^zeusd has no leases: only a watchdog process of this gateway \(2000 ms\) puts its GPUs back to default clocks.*nvidia-smi -rgc/)]);
  expect(stub.locks).toEqual([null, null]);
  expect(stub.commands).toMatchObject([{ what: 'reset', gpuIds: [0, 1] }]);
  expect(watched.told).toEqual([{ replicaId: R0, controlled: true, pointId: null }]);
});

test('a demand locks all GPUs of the group in one request, and its point is told when zeusd has answered', async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  watched.demand(demand(1290));
  await eventually(() => watched.told.at(-1)?.pointId === 'c1290');
  expect(locks(stub)).toMatchObject([{ gpuIds: [0, 1], minMhz: 1290, maxMhz: 1290 }]);
});

test('where the lowest clock is configured an idle GPU may go down to it', async () => {
  const stub = await zeusd();
  const watched = control(stub, { lowestClockMhz: 210 });
  await held(watched);
  watched.demand(demand(1290));
  await eventually(() => locks(stub).length === 1);
  expect(locks(stub)).toMatchObject([{ minMhz: 210, maxMhz: 1290 }]);
});

test('a slow-down that is not renewed lapses after its hold', async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  const demandedAtMs = performance.now();
  watched.demand(demand(900, { holdMs: 150 }));
  await eventually(() => stub.locks[0] === 900);
  await eventually(() => stub.locks.every((lock) => lock === null));
  expect(performance.now() - demandedAtMs).toBeLessThan(400);
  await eventually(() => watched.told.at(-1)?.pointId === null);
  expect(watched.told.at(-1)).toEqual({ replicaId: R0, controlled: true, pointId: null });
});

test('a hold that is longer than the watchdog is cut to it', async () => {
  const stub = await zeusd();
  const watched = control(stub, { watchdogMs: 250 });
  await held(watched);
  const demandedAtMs = performance.now();
  watched.demand(demand(900, { holdMs: 60_000 }));
  await eventually(() => stub.locks[0] === 900);
  await eventually(() => stub.locks.every((lock) => lock === null));
  expect(performance.now() - demandedAtMs).toBeLessThan(600);
});

test('renewing the same clock asks nothing of zeusd and keeps it', async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  for (let times = 0; times < 12; times++) {
    watched.demand(demand(900, { holdMs: 200, change: 'renew' }));
    await new Promise((done) => setTimeout(done, 50));
  }
  expect(locks(stub)).toHaveLength(1);
  expect(stub.locks).toEqual([900, 900]);
});

test('the newest demand wins, with one request under way for each GPU', async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  stub.delayMs = 40;
  for (const clockMhz of [600, 700, 800, 1980]) watched.demand(demand(clockMhz));
  await eventually(() => watched.told.at(-1)?.pointId === 'c1980');
  expect(locks(stub).map(({ maxMhz }) => maxMhz)).toEqual([600, 1980]);
  expect(stub.concurrencyMax()).toBe(1);
});

test('default clocks are asked for as a reset', async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  watched.demand(demand(900));
  await eventually(() => stub.locks[0] === 900);
  watched.demand(demand(null, { change: 'raise' }));
  await eventually(() => stub.locks.every((lock) => lock === null));
});

test('one GPU that fails brings its whole group to default, and no other group', async () => {
  const stub = await zeusd(3);
  const watched = control(stub, { groups: [{ replicaId: R0, devices: ['zeusd:0', 'zeusd:1'] }, { replicaId: R1, devices: ['zeusd:2'] }] });
  await held(watched);
  stub.failing.add(1);
  watched.demand(demand(900, { holdMs: 1_900 }));
  watched.demand(demand(1200, { replicaId: R1, holdMs: 1_900 }));
  await eventually(() => watched.told.some(({ replicaId, controlled }) => replicaId === R0 && !controlled));
  await eventually(() => stub.locks[0] === null && stub.locks[2] === 1200);
  expect(watched.warnings.at(-1)).toMatch(/replica r0: POST \/gpu\/\S+ was answered 500: zeusd:1: NVML error/);
  expect(watched.state()).toBe('held');
});

test('a zeusd that dies is lost, the watchdog keeps asking, and the one that comes back is reset first', { timeout: 15_000 }, async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  watched.demand(demand(900));
  await eventually(() => stub.locks[0] === 900);
  await stub.die();
  watched.demand(demand(1200));
  await eventually(() => watched.state() === 'lost');
  expect(watched.told.at(-1)).toEqual({ replicaId: R0, controlled: false, pointId: null });
  await stub.comeBack();
  await held(watched);
  expect(stub.locks).toEqual([null, null]);
  watched.demand(demand(900));
  await eventually(() => watched.told.at(-1)?.pointId === 'c900');
});

test('a zeusd that hangs is lost', { timeout: 15_000 }, async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  stub.hang = true;
  watched.demand(demand(900));
  await eventually(() => watched.state() === 'lost');
  stub.hang = false;
  await eventually(() => watched.state() === 'held', 10_000);
});

test('one without gpu-control, or without our GPUs, has nothing for us', async () => {
  const stub = await zeusd();
  stub.apiGroups = ['gpu-read'];
  const watched = control(stub);
  await eventually(() => watched.state() === 'none');
  expect(watched.warnings.at(-1)).toBe('zeusd has only gpu-read enabled; clocks need gpu-control; they stay at default');
  const other = control(await zeusd(1), { groups: [{ replicaId: R0, devices: ['zeusd:0', 'zeusd:4'] }] });
  await eventually(() => other.state() === 'none');
  expect(other.warnings.at(-1)).toBe('replica r0: zeusd has no zeusd:4; it has zeusd:0; clocks stay at default');
});

test('a knob that is no clock leaves the replica at default clocks, and is said once', async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  for (let times = 0; times < 3; times++) watched.demand({ replicaId: R0, point: { id: 'p400', knobs: { powerLimitW: 400 }, idlePowerW: 90 }, holdMs: 500, change: 'lower' });
  expect(watched.warnings.slice(1)).toEqual(['replica r0: zeusd is only asked for clocks, not for powerLimitW of point p400; clocks stay at default']);
  expect(watched.told.at(-1)).toEqual({ replicaId: R0, controlled: false, pointId: null });
  expect(locks(stub)).toEqual([]);
});

test('closing resets the GPUs before it resolves, a slow-down under way included', async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  stub.delayMs = 50;
  watched.demand(demand(900, { holdMs: 1_900 }));
  await eventually(() => locks(stub).length === 1);
  await watched.close();
  expect(stub.locks).toEqual([null, null]);
  expect(stub.commands.at(-1)?.what).toBe('reset');
});

test('after an orderly end no watchdog is left', async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  const watchdogs = (): string => execFileSync('sh', ['-c', `cat /proc/${process.pid}/task/*/children`], { encoding: 'utf8' });
  const before = watchdogs().trim().split(/\s+/).length;
  await watched.close();
  await eventually(() => watchdogs().trim().split(/\s+/).length < before);
  expect(stub.commands.map(({ what }) => what)).toEqual(['reset']);
});

test('where closing cannot reset, the watchdog goes on until it can', { timeout: 15_000 }, async () => {
  const stub = await zeusd();
  const watched = control(stub);
  await held(watched);
  watched.demand(demand(900, { holdMs: 1_900 }));
  await eventually(() => stub.locks[0] === 900);
  stub.failing.add(0).add(1);
  await watched.close();
  expect(watched.warnings.at(-1)).toContain('the watchdog process goes on asking');
  expect(stub.locks).toEqual([900, 900]);
  stub.failing.clear();
  await eventually(() => stub.locks.every((lock) => lock === null), 8_000);
});

describe('a process that drives zeusd', () => {
  /** Slows both GPUs down and renews that for ever. */
  async function startClient(stub: StubZeusd, watchdogMs = 2_000): Promise<ChildProcess> {
    client = spawn(process.execPath, [resolve('test/fixtures/zeusd-client-process.ts'), stub.socketPath, String(watchdogMs)], { stdio: ['ignore', 'pipe', 'inherit'] });
    await eventually(() => stub.locks.every((lock) => lock === 900), 10_000);
    return client;
  }
  const backWithin = async (stub: StubZeusd, limitMs: number): Promise<number> => {
    const fromMs = performance.now();
    await eventually(() => stub.locks.every((lock) => lock === null), limitMs);
    return performance.now() - fromMs;
  };

  test.each(['SIGKILL', 'SIGTERM', 'SIGABRT'] as const)('that dies of %s leaves no GPU slow: its watchdog process resets them at once', async (signal) => {
    const stub = await zeusd();
    const child = await startClient(stub);
    child.kill(signal);
    expect(await backWithin(stub, 2_000)).toBeLessThan(300);
  });

  test('that throws leaves no GPU slow', async () => {
    const stub = await zeusd();
    const child = await startClient(stub);
    child.kill('SIGUSR2');
    expect(await backWithin(stub, 2_000)).toBeLessThan(1_000);
  });

  test('that is stopped in its tracks is put right when its slow-down is not renewed', async () => {
    const stub = await zeusd();
    const child = await startClient(stub);
    child.kill('SIGSTOP');
    expect(await backWithin(stub, 3_000)).toBeLessThan(1_000);
    child.kill('SIGCONT');
  });

  test('that dies while zeusd is away is put right when zeusd is back', { timeout: 15_000 }, async () => {
    const stub = await zeusd();
    const child = await startClient(stub);
    await stub.die();
    child.kill('SIGKILL');
    await new Promise((done) => setTimeout(done, 500));
    expect(stub.locks).toEqual([900, 900]);
    await stub.comeBack();
    await backWithin(stub, 8_000);
  });

  test('whose watchdog is killed slows nothing down until it has another', { timeout: 15_000 }, async () => {
    const stub = await zeusd();
    const child = await startClient(stub);
    const pids = execFileSync('pgrep', ['-P', String(child.pid)], { encoding: 'utf8' }).trim().split('\n');
    expect(pids).toHaveLength(1);
    const before = stub.commands.length;
    process.kill(Number(pids[0]), 'SIGKILL');
    // Reset by the gateway itself, then slowed down again under a new watchdog.
    await eventually(() => stub.commands.slice(before).some(({ what }) => what === 'reset'), 5_000);
    await eventually(() => stub.locks.every((lock) => lock === 900), 10_000);
    child.kill('SIGKILL');
    expect(await backWithin(stub, 2_000)).toBeLessThan(300);
  });
});
