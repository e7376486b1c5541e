// Several agents, one per node: what happens on one disturbs no other.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { ClockControl, ClockNode } from '../../src/agent/clock-control.ts';
import { createClockControl } from '../../src/agent/clock-control.ts';
import type { ReplicaId } from '../../src/core/job.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';
import type { StubAgent } from '../fixtures/stub-agent.ts';
import { createStubAgent } from '../fixtures/stub-agent.ts';

const opened: { close(): Promise<void> | void }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const R0 = 'r0' as ReplicaId;
const R1 = 'r1' as ReplicaId;

async function agent(options: { tcp?: boolean } = {}): Promise<StubAgent> {
  const stub = await createStubAgent(['sim:0'], options);
  opened.push(stub);
  return stub;
}

function node(name: string, replicaId: ReplicaId, address: ClockNode['address']): ClockNode {
  return { name, kind: 'paceline', address, ttlMs: 3_000, groups: [{ replicaId, devices: ['sim:0'] }] };
}

interface Watched extends ClockControl {
  readonly told: Map<ReplicaId, { controlled: boolean; pointId: string | null }>;
  readonly states: string[];
  readonly warnings: string[];
}

function control(nodes: readonly ClockNode[]): Watched {
  const told: Watched['told'] = new Map();
  const states: string[] = [];
  const warnings: string[] = [];
  const clockControl = createClockControl({
    nodes,
    holder: 'test',
    now: () => performance.now(),
    onControl: (replicaId, controlled, pointId) => told.set(replicaId, { controlled, pointId }),
    onState: (name, state) => states.push(`${name} ${state}`),
    onWarning: (warning) => warnings.push(warning),
  });
  opened.push(clockControl);
  return { ...clockControl, told, states, warnings };
}

function slowDown(clockControl: ClockControl, replicaId: ReplicaId, clockMhz: number): void {
  clockControl.demand({ replicaId, holdMs: 5_000, change: 'raise', point: { id: `c${clockMhz}`, knobs: { clockMhz }, idlePowerW: 90 } });
}

const socket = ({ socketPath }: StubAgent): ClockNode['address'] => ({ kind: 'socket', path: socketPath });

test('each replica is driven on its own node, though the devices have one name', async () => {
  const [a, b] = [await agent(), await agent()];
  const watched = control([node('node-a', R0, socket(a)), node('node-b', R1, socket(b))]);
  await eventually(() => watched.state() === 'held');
  slowDown(watched, R0, 900);
  slowDown(watched, R1, 1200);
  await eventually(() => watched.told.get(R0)?.pointId === 'c900' && watched.told.get(R1)?.pointId === 'c1200');
  expect(a.puts[0]?.targets).toMatchObject([{ devices: ['sim:0'], clock_mhz: 900 }]);
  expect(b.puts[0]?.targets).toMatchObject([{ devices: ['sim:0'], clock_mhz: 1200 }]);
});

test('an agent that dies costs its own replica the control, no other, and comes back by itself', async () => {
  const [a, b] = [await agent(), await agent()];
  const watched = control([node('node-a', R0, socket(a)), node('node-b', R1, socket(b))]);
  await eventually(() => watched.state() === 'held');
  slowDown(watched, R1, 1200);
  await eventually(() => watched.told.get(R1)?.pointId === 'c1200');
  await a.die();
  await eventually(() => watched.nodes().get('node-a')?.state === 'lost');
  expect(watched.state()).toBe('partial');
  expect(watched.told.get(R0)).toEqual({ controlled: false, pointId: null });
  expect(watched.told.get(R1)).toEqual({ controlled: true, pointId: 'c1200' });
  slowDown(watched, R1, 1500);
  await eventually(() => watched.told.get(R1)?.pointId === 'c1500');
  await a.comeBack();
  await eventually(() => watched.state() === 'held');
  expect(b.leases).toHaveLength(1);
  expect(watched.states).toEqual(expect.arrayContaining(['node-a held', 'node-b held', 'node-a lost']));
});

test('one that hangs at the start keeps no other waiting', async () => {
  const [a, b] = [await agent(), await agent()];
  a.misbehave = () => 'hang';
  const watched = control([node('node-a', R0, socket(a)), node('node-b', R1, socket(b))]);
  await eventually(() => watched.nodes().get('node-b')?.state === 'held', 1_000);
  expect(watched.nodes().get('node-a')?.state).toBe('connecting');
});

test('at the end every lease is given back', async () => {
  const [a, b] = [await agent(), await agent()];
  const watched = control([node('node-a', R0, socket(a)), node('node-b', R1, socket(b))]);
  await eventually(() => watched.state() === 'held');
  await watched.close();
  expect([a.leases[0]?.ended, b.leases[0]?.ended]).toEqual(['released', 'released']);
});

test('on a port every request carries the token of the file, the newer one after a refusal', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-token-'));
  opened.push({ close: () => rmSync(directory, { recursive: true }) });
  const tokenPath = join(directory, 'token');
  writeFileSync(tokenPath, 'first-token\n');
  const a = await agent({ tcp: true });
  const watched = control([node('node-a', R0, { kind: 'tcp', origin: `http://127.0.0.1:${a.port}`, tokenPath })]);
  await eventually(() => watched.state() === 'held');
  slowDown(watched, R0, 900);
  await eventually(() => watched.told.get(R0)?.pointId === 'c900');
  expect(new Set(a.authorizations)).toEqual(new Set(['Bearer first-token']));

  writeFileSync(tokenPath, 'second-token\n');
  a.misbehave = () => (a.authorizations.at(-1) === 'Bearer second-token' ? null : { status: 401 });
  slowDown(watched, R0, 1200);
  await eventually(() => watched.nodes().get('node-a')?.state === 'lost');
  await eventually(() => watched.state() === 'held');
  expect(a.authorizations.at(-1)).toBe('Bearer second-token');
});

test('a token file that has gone is said, and is no crash', async () => {
  const a = await agent({ tcp: true });
  const watched = control([node('node-a', R0, { kind: 'tcp', origin: `http://127.0.0.1:${a.port}`, tokenPath: '/nowhere/token' })]);
  await eventually(() => watched.state() === 'lost');
  expect(watched.nodes().get('node-a')?.why).toContain('the token file /nowhere/token cannot be read');
});
