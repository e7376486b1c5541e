import { afterEach, describe, expect, test } from 'vitest';
import { createLeaseControl } from '../../src/agent/lease-control.ts';
import type { ClockDemand, ClockGroup, NodeControl, NodeState } from '../../src/agent/node-control.ts';
import type { ReplicaId } from '../../src/core/job.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';
import type { StubAgent } from '../fixtures/stub-agent.ts';
import { createStubAgent } from '../fixtures/stub-agent.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const R0 = 'r0' as ReplicaId;
const R1 = 'r1' as ReplicaId;
interface Watched extends NodeControl {
  state(): NodeState;
  readonly told: { replicaId: ReplicaId; controlled: boolean; pointId: string | null }[];
  readonly states: NodeState[];
  readonly warnings: string[];
}

function control(socketPath: string, options: { groups?: ClockGroup[]; ttlMs?: number } = {}): Watched {
  const told: Watched['told'] = [];
  const states: NodeState[] = [];
  const warnings: string[] = [];
  const clockControl = createLeaseControl({
    address: { kind: 'socket', path: socketPath },
    holder: 'test',
    ttlMs: options.ttlMs ?? 3_000,
    groups: options.groups ?? [{ replicaId: R0, devices: ['sim:0'] }],
    now: () => performance.now(),
    onControl: (replicaId, controlled, pointId) => told.push({ replicaId, controlled, pointId }),
    onState: (state) => states.push(state),
    onWarning: (warning) => warnings.push(warning),
  });
  opened.push(clockControl);
  return { ...clockControl, state: () => states.at(-1) ?? 'connecting', told, states, warnings };
}

async function agent(devices?: readonly string[]): Promise<StubAgent> {
  const stub = await createStubAgent(devices);
  opened.push(stub);
  return stub;
}

function demand(clockMhz: number | null, change: ClockDemand['change'] = 'raise', replicaId = R0, holdMs = 500): ClockDemand {
  return { replicaId, holdMs, change, point: clockMhz === null ? null : { id: `c${clockMhz}`, knobs: { clockMhz }, idlePowerW: 90 } };
}

const held = (watched: Watched) => eventually(() => watched.state() === 'held');

test('takes one lease over all devices, tells the replicas, and gives it back at the end', async () => {
  const stub = await agent(['sim:0', 'sim:1', 'sim:2']);
  const watched = control(stub.socketPath, { groups: [{ replicaId: R0, devices: ['sim:0', 'sim:1'] }, { replicaId: R1, devices: ['sim:2'] }] });
  await held(watched);
  expect(stub.leases).toMatchObject([{ devices: ['sim:0', 'sim:1', 'sim:2'], holder: 'test', ttlMs: 3000, ended: 'open' }]);
  expect(watched.told).toEqual([{ replicaId: R0, controlled: true, pointId: null }, { replicaId: R1, controlled: true, pointId: null }]);
  await watched.close();
  expect(stub.leases[0]?.ended).toBe('released');
});

test('a raise goes out in the same turn, a group as one target, and its point is told when it is applied', async () => {
  const stub = await agent(['sim:0', 'sim:1']);
  const watched = control(stub.socketPath, { groups: [{ replicaId: R0, devices: ['sim:0', 'sim:1'] }] });
  await held(watched);
  watched.demand(demand(1290));
  await eventually(() => watched.told.length === 2);
  expect(stub.puts).toMatchObject([{ epoch: 1, seq: 1, targets: [{ devices: ['sim:0', 'sim:1'], clock_mhz: 1290 }] }]);
  expect(stub.puts[0]?.targets[0]?.hold_ms).toBeGreaterThan(400);
  expect(stub.puts[0]?.targets[0]?.hold_ms).toBeLessThanOrEqual(500);
  expect(watched.told[1]).toEqual({ replicaId: R0, controlled: true, pointId: 'c1290' });
});

test('lowerings of one turn are one request', async () => {
  const stub = await agent(['sim:0', 'sim:1']);
  const watched = control(stub.socketPath, { groups: [{ replicaId: R0, devices: ['sim:0'] }, { replicaId: R1, devices: ['sim:1'] }] });
  await held(watched);
  watched.demand(demand(900, 'lower'));
  watched.demand(demand(1200, 'renew', R1));
  await eventually(() => stub.puts.length === 1);
  expect(stub.puts[0]?.targets).toMatchObject([{ devices: ['sim:0'], clock_mhz: 900 }, { devices: ['sim:1'], clock_mhz: 1200 }]);
});

test('while a request is under way the newest demand waits and the older ones are forgotten', async () => {
  const stub = await agent();
  stub.putDelayMs = 40;
  const watched = control(stub.socketPath);
  await held(watched);
  watched.demand(demand(600, 'lower'));
  await eventually(() => stub.puts.length === 1);
  for (const clockMhz of [700, 800, 1980]) watched.demand(demand(clockMhz));
  await eventually(() => watched.told.at(-1)?.pointId === 'c1980');
  expect(stub.puts.map(({ seq, targets }) => [seq, targets[0]?.clock_mhz])).toEqual([[1, 600], [2, 1980]]);
  expect((stub.puts[1]?.atMs ?? 0) - (stub.puts[0]?.atMs ?? 0)).toBeGreaterThanOrEqual(39);
});

test('a demand that lapsed while it waited asks for default clocks, as it would have lapsed there', async () => {
  const stub = await agent();
  stub.putDelayMs = 40;
  const watched = control(stub.socketPath);
  await held(watched);
  watched.demand(demand(600, 'lower'));
  await eventually(() => stub.puts.length === 1);
  watched.demand(demand(900, 'lower', R0, 10));
  await eventually(() => stub.puts.length === 2);
  expect(stub.puts[1]?.targets).toMatchObject([{ clock_mhz: null }]);
});

test('default clocks are asked for as null', async () => {
  const stub = await agent();
  const watched = control(stub.socketPath);
  await held(watched);
  watched.demand(demand(null));
  await eventually(() => stub.puts.length === 1);
  expect(stub.puts[0]?.targets).toMatchObject([{ devices: ['sim:0'], clock_mhz: null }]);
});

test('without demands the lease is renewed, at least three times in its life', async () => {
  const stub = await agent();
  const watched = control(stub.socketPath, { ttlMs: 300 });
  await held(watched);
  const heldAtMs = performance.now();
  await eventually(() => stub.puts.length === 3);
  expect(performance.now() - heldAtMs).toBeLessThan(350);
  expect(stub.puts.map(({ targets }) => targets)).toEqual([[], [], []]);
});

test('an agent that is not there is waited for, and is said once', async () => {
  const stub = await agent();
  await stub.die();
  const watched = control(stub.socketPath);
  await eventually(() => watched.states.includes('lost'));
  watched.demand(demand(600));
  await new Promise((resolve) => setTimeout(resolve, 250));
  expect(watched.states).toEqual(['lost']);
  await stub.comeBack();
  await held(watched);
  expect(watched.told).toEqual([{ replicaId: R0, controlled: true, pointId: null }]);
});

test('a dying agent leaves the replica uncontrolled; a new one is leased from anew, with its new epoch', async () => {
  const stub = await agent();
  const watched = control(stub.socketPath);
  await held(watched);
  watched.demand(demand(600, 'lower'));
  await eventually(() => watched.told.at(-1)?.pointId === 'c600');
  await stub.die();
  await eventually(() => watched.state() === 'lost');
  expect(watched.told.at(-1)).toEqual({ replicaId: R0, controlled: false, pointId: null });
  await stub.comeBack();
  await held(watched);
  expect(watched.told.at(-1)).toEqual({ replicaId: R0, controlled: true, pointId: null });
  watched.demand(demand(700));
  await eventually(() => watched.told.at(-1)?.pointId === 'c700');
  expect(stub.puts.at(-1)).toMatchObject({ epoch: 2, seq: 1 });
});

test('a lease that the agent no longer knows is taken anew', async () => {
  const stub = await agent();
  const watched = control(stub.socketPath);
  await held(watched);
  const lease = stub.leases[0];
  if (lease !== undefined) lease.ended = 'closed';
  watched.demand(demand(600));
  await eventually(() => stub.leases.length === 2 && watched.state() === 'held');
});

test('an agent that hangs is let go when its heartbeats stay away', { timeout: 10_000 }, async () => {
  const stub = await agent();
  const watched = control(stub.socketPath, { ttlMs: 60_000 });
  await held(watched);
  stub.heartbeats = false;
  await eventually(() => watched.states.includes('lost'), 6_000);
  // The agent's side hears of it a moment later.
  await eventually(() => stub.leases[0]?.ended === 'closed');
});

test('devices that the agent does not know, or may not be set, leave their replica at default clocks and the others controlled', async () => {
  const stub = await agent(['sim:0', 'sim:1']);
  stub.devices.push({ device: 'sim:2', controls: [] });
  const R2 = 'r2' as ReplicaId;
  const watched = control(stub.socketPath, { groups: [{ replicaId: R0, devices: ['sim:0'] }, { replicaId: R1, devices: ['sim:1', 'sim:9'] }, { replicaId: R2, devices: ['sim:2'] }] });
  await held(watched);
  expect(stub.leases[0]?.devices).toEqual(['sim:0']);
  expect(watched.told).toEqual([{ replicaId: R0, controlled: true, pointId: null }]);
  expect(watched.warnings).toEqual([
    'replica r1: the agent does not know sim:9; it has sim:0, sim:1, sim:2; clocks stay at default',
    "replica r2: the agent's policy lets us set no clock of sim:2; clocks stay at default",
  ]);
  watched.demand(demand(600, 'raise', R1));
  watched.demand(demand(600));
  await eventually(() => stub.puts.length === 1);
  expect(stub.puts[0]?.targets).toMatchObject([{ devices: ['sim:0'] }]);
});

test('an agent without any of our devices is no failure, and is asked again', async () => {
  const stub = await agent([]);
  const watched = control(stub.socketPath);
  await eventually(() => watched.state() === 'none');
  stub.devices.push({ device: 'sim:0', controls: ['clock'] });
  await held(watched);
});

test('a knob that is no clock leaves the replica at default clocks, and is said once', async () => {
  const stub = await agent();
  const watched = control(stub.socketPath);
  await held(watched);
  const point = { id: 'p400', knobs: { powerLimitW: 400 }, idlePowerW: 90 };
  for (let times = 0; times < 3; times++) watched.demand({ replicaId: R0, point, holdMs: 500, change: 'raise' });
  await eventually(() => stub.puts.length > 0);
  expect(watched.warnings).toEqual(['replica r0: the agent cannot set the knob powerLimitW of point p400, only clockMhz; clocks stay at default']);
  expect(watched.told.at(-1)).toEqual({ replicaId: R0, controlled: false, pointId: null });
  expect(stub.puts[0]?.targets).toMatchObject([{ clock_mhz: null }]);
});

test.each([
  ['a failed group is uncontrolled', { status: 'failed', demand_mhz: 600, target_mhz: null }, { controlled: false, pointId: null }],
  ['a stuck device is uncontrolled', { status: 'stuck', demand_mhz: 600, target_mhz: null }, { controlled: false, pointId: null }],
  ["another gateway's faster demand is not our point", { status: 'applied', demand_mhz: 600, target_mhz: 1980 }, { controlled: true, pointId: null }],
  ['a deferred lowering is not there yet', { status: 'deferred', demand_mhz: 600, target_mhz: 600 }, { controlled: true, pointId: 'c900' }],
])('%s', async (_what, result, expected) => {
  const stub = await agent();
  const watched = control(stub.socketPath);
  await held(watched);
  watched.demand(demand(900));
  await eventually(() => watched.told.at(-1)?.pointId === 'c900');
  stub.result = (device) => ({ device, ...result });
  watched.demand(demand(600));
  await eventually(() => stub.puts.length === 2);
  watched.demand(demand(600));
  await eventually(() => stub.puts.length === 3);
  expect(watched.told.at(-1)).toEqual({ replicaId: R0, ...expected });
});

describe('a lease that the agent no longer knows', () => {
  test.each([404, 412])('after %i another one is taken at once, the replica is not told, and what has not lapsed is sent again', async (status) => {
    const stub = await agent();
    const watched = control(stub.socketPath);
    await held(watched);
    watched.demand(demand(900, 'raise', R0, 5_000));
    await eventually(() => watched.told.at(-1)?.pointId === 'c900');
    stub.misbehave = (method) => (method === 'PUT' && stub.leases.length === 1 ? { status } : null);
    watched.demand(demand(1200, 'raise', R0, 5_000));
    await eventually(() => watched.told.at(-1)?.pointId === 'c1200');
    expect(stub.leases).toHaveLength(2);
    expect(stub.puts.at(-1)).toMatchObject({ epoch: 2, seq: 1, targets: [{ clock_mhz: 1200 }] });
    expect(watched.told.map(({ controlled }) => controlled)).not.toContain(false);
    expect(watched.states).toEqual(['held']);
  });

  test('what has lapsed meanwhile is not sent again', async () => {
    const stub = await agent();
    const watched = control(stub.socketPath, { ttlMs: 300 });
    await held(watched);
    watched.demand(demand(900, 'raise', R0, 30));
    await eventually(() => stub.puts.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 40));
    stub.endLease('expired');
    await eventually(() => stub.leases.length === 2 && stub.puts.length > 1);
    expect(stub.puts.slice(1).every(({ targets }) => targets.length === 0)).toBe(true);
  });

  test('what was demanded while another one was taken is sent, and the older demand is not', async () => {
    const stub = await agent();
    const watched = control(stub.socketPath);
    await held(watched);
    watched.demand(demand(900, 'raise', R0, 5_000));
    await eventually(() => stub.puts.length === 1);
    stub.endLease('expired');
    await eventually(() => stub.leases[0]?.ended === 'closed');
    watched.demand(demand(1500, 'raise', R0, 5_000));
    await eventually(() => stub.puts.length === 2 && watched.told.at(-1)?.pointId === 'c1500');
    expect(stub.puts[1]?.targets).toMatchObject([{ clock_mhz: 1500 }]);
  });

  test('an agent that says so every time counts as lost, and is not asked in a circle', async () => {
    const stub = await agent();
    const watched = control(stub.socketPath);
    await held(watched);
    stub.misbehave = (method) => (method === 'PUT' ? { status: 412 } : null);
    for (let times = 0; times < 20; times++) {
      watched.demand(demand(900 + times, 'raise', R0, 5_000));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await eventually(() => watched.states.includes('lost'));
    expect(stub.leases.length).toBeLessThanOrEqual(3);
  });

  test('one that was revoked is taken anew after a pause', async () => {
    const stub = await agent();
    const watched = control(stub.socketPath);
    await held(watched);
    const revokedAtMs = performance.now();
    stub.endLease('revoked');
    await eventually(() => watched.state() === 'lost');
    expect(watched.told.at(-1)).toEqual({ replicaId: R0, controlled: false, pointId: null });
    await held(watched);
    expect(performance.now() - revokedAtMs).toBeGreaterThanOrEqual(990);
  });
});

describe('an agent that misbehaves is lost, tried again, and found when it is well', () => {
  const well = (stub: StubAgent): void => {
    stub.misbehave = () => null;
  };
  test.each([
    ['answers 500', { status: 500 }],
    ['has a restore pending', { status: 503 }],
    ['answers garbage', { text: '{"results": "yes"}' }],
    ['answers no JSON', { text: '<html>' }],
  ] as const)('it %s', async (_what, instead) => {
    const stub = await agent();
    const watched = control(stub.socketPath);
    await held(watched);
    stub.misbehave = (_method, path) => (path === '/v1/devices' ? null : instead);
    watched.demand(demand(900));
    await eventually(() => watched.state() === 'lost');
    expect(watched.told.at(-1)).toEqual({ replicaId: R0, controlled: false, pointId: null });
    well(stub);
    await held(watched);
    watched.demand(demand(900));
    await eventually(() => watched.told.at(-1)?.pointId === 'c900');
  });

  test('it hangs in the middle of a request', { timeout: 10_000 }, async () => {
    const stub = await agent();
    const watched = control(stub.socketPath);
    await held(watched);
    stub.misbehave = (method) => (method === 'PUT' ? 'hang' : null);
    watched.demand(demand(900));
    await eventually(() => watched.state() === 'lost');
    well(stub);
    await held(watched);
  });
});

describe('an agent that does not set clocks', () => {
  test('one that observes is told of as observing, whichever way it says so', async () => {
    const stub = await agent();
    stub.mode = 'observe';
    stub.devices = [{ device: 'sim:0', controls: [] }];
    const watched = control(stub.socketPath);
    await eventually(() => watched.state() === 'observing');
    expect(watched.told).toEqual([]);

    const refusing = await agent();
    refusing.misbehave = (method, path) => (method === 'POST' && path === '/v1/leases' ? { status: 409 } : null);
    const refused = control(refusing.socketPath);
    await eventually(() => refused.state() === 'observing');

    const granting = await agent();
    granting.result = (device, clockMhz) => ({ device, control: 'clock', demand_mhz: clockMhz, target_mhz: null, status: 'observed' });
    const granted = control(granting.socketPath);
    await held(granted);
    granted.demand(demand(900));
    await eventually(() => granted.state() === 'observing');
    expect(granted.told.at(-1)).toEqual({ replicaId: R0, controlled: false, pointId: null });
  });

  test.each([
    ['yielded', "replica r0: somebody else sets the clocks of sim:0, and the agent yields; they are not ours for now"],
    ['philosophising', "replica r0: the agent says 'philosophising' of sim:0; its group counts as at default clocks"],
  ])('a device that is %s is not controlled, said once, and the lease is kept', async (status, warning) => {
    const stub = await agent();
    stub.result = (device, clockMhz) => ({ device, control: 'clock', demand_mhz: clockMhz, target_mhz: clockMhz, status });
    const watched = control(stub.socketPath);
    await held(watched);
    for (let times = 1; times <= 3; times++) {
      watched.demand(demand(900));
      await eventually(() => stub.puts.length === times);
    }
    await eventually(() => watched.told.at(-1)?.controlled === false);
    expect(watched.warnings).toEqual([warning]);
    expect(watched.states).toEqual(['held']);
  });

  test('a group that failed is offered to the planner again after five seconds', { timeout: 15_000 }, async () => {
    const stub = await agent();
    stub.result = (device) => ({ device, demand_mhz: 900, target_mhz: null, status: 'failed' });
    const watched = control(stub.socketPath);
    await held(watched);
    watched.demand(demand(900));
    await eventually(() => watched.told.at(-1)?.controlled === false);
    const failedAtMs = performance.now();
    await eventually(() => watched.told.at(-1)?.controlled === true, 8_000);
    expect(performance.now() - failedAtMs).toBeGreaterThan(4_900);
  });

  test('a power limit in the place of a clock is no point of the profile', async () => {
    const stub = await agent();
    stub.result = (device, clockMhz) => ({ device, control: 'power_limit', demand_mhz: clockMhz, target_mhz: clockMhz, status: 'applied' });
    const watched = control(stub.socketPath);
    await held(watched);
    watched.demand(demand(900));
    await eventually(() => stub.puts.length === 1);
    watched.demand(demand(900));
    await eventually(() => stub.puts.length === 2);
    expect(watched.told.at(-1)).toEqual({ replicaId: R0, controlled: true, pointId: null });
  });
});
