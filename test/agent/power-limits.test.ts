// Power limits at the agent: through a lease of their own, taken when there is something to limit. Against a stand-in that remembers
// what it was told, and against paceline-agent itself where it is built.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { createLeaseControl } from '../../src/agent/lease-control.ts';
import type { ClockGroup } from '../../src/agent/node-control.ts';
import { createPowerLimits, type PowerLimits } from '../../src/agent/power-limits.ts';
import type { ReplicaId } from '../../src/core/job.ts';
import { createDeviceStateFile, type DeviceStateFile } from '../../src/engine/device-file.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';
import { createStubAgent, type StubAgent } from '../fixtures/stub-agent.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const R0 = 'r0' as ReplicaId;
const R1 = 'r1' as ReplicaId;
const BOTH: readonly ClockGroup[] = [{ replicaId: R0, devices: ['sim:0', 'sim:1'] }, { replicaId: R1, devices: ['sim:2'] }];

async function agent(controls: (device: string) => string[] = () => ['clock', 'power_limit']): Promise<StubAgent> {
  const stub = await createStubAgent(['sim:0', 'sim:1', 'sim:2']);
  stub.devices = stub.devices.map(({ device }) => ({ device, controls: controls(device) }));
  opened.push(stub);
  return stub;
}

function limits(socketPath: string, groups = BOTH): PowerLimits & { readonly warnings: string[]; readonly told: [ReplicaId, number | null][] } {
  const warnings: string[] = [];
  const told: [ReplicaId, number | null][] = [];
  const created = createPowerLimits({ address: { kind: 'socket', path: socketPath }, holder: 'test', ttlMs: 1_000, groups, now: () => performance.now(), onWarning: (message) => warnings.push(message), onLimit: (...limit) => told.push(limit) });
  opened.push(created);
  return { ...created, warnings, told };
}

const sentTo = ({ limitPuts }: StubAgent) => limitPuts.flatMap(({ targets }) => targets.map(({ devices, power_limit_mw: limitMw }) => [devices.join(), limitMw]));

describe('power limits', () => {
  test('take no lease until there is one, and then one of their own', async () => {
    const stub = await agent();
    const power = limits(stub.socketPath);
    power.want(R0, null, 500);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect([stub.leases, power.state()]).toEqual([[], 'unused']);
    power.want(R0, 800, 500);
    await eventually(() => stub.limitPuts.length === 1);
    expect(stub.leases).toMatchObject([{ devices: ['sim:0', 'sim:1', 'sim:2'], controls: ['power_limit'] }]);
    expect(power.state()).toBe('held');
  });

  test('are divided over the devices of the group, the newest counts, and no limit releases', async () => {
    const stub = await agent();
    stub.putDelayMs = 20;
    const power = limits(stub.socketPath);
    power.want(R0, 801, 500);
    power.want(R1, 300, 500);
    await eventually(() => stub.limitPuts.length === 1);
    power.want(R0, 700, 500);
    power.want(R0, 600, 500);
    await eventually(() => stub.limitPuts.length === 2);
    power.want(R0, null, 500);
    await eventually(() => stub.limitPuts.length === 3);
    expect(sentTo(stub)).toEqual([['sim:0,sim:1', 400_500], ['sim:2', 300_000], ['sim:0,sim:1', 300_000], ['sim:0,sim:1', null]]);
    await eventually(() => power.told.length === 4);
    expect(power.told).toEqual([[R0, 801], [R1, 300], [R0, 600], [R0, null]]);
  });

  test('that stay as they are are sent again before they lapse, and not at every period', async () => {
    const stub = await agent();
    const power = limits(stub.socketPath);
    const untilMs = performance.now() + 600;
    while (performance.now() < untilMs) {
      power.want(R0, 800, 200);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const gapsMs = stub.limitPuts.slice(1).map(({ atMs }, index) => atMs - (stub.limitPuts[index]?.atMs ?? 0));
    expect(gapsMs.length).toBeGreaterThan(2);
    expect(gapsMs.length).toBeLessThan(12);
  });

  test('of a replica that the policy keeps from us are left out, which is said once', async () => {
    const stub = await agent((device) => (device === 'sim:1' ? ['clock'] : ['clock', 'power_limit']));
    const power = limits(stub.socketPath);
    for (let time = 0; time < 3; time++) {
      power.want(R0, 800, 500);
      power.want(R1, 300, 500);
      await eventually(() => stub.limitPuts.length > 0);
    }
    expect(sentTo(stub)).toEqual([['sim:2', 300_000]]);
    expect(power.warnings).toEqual(["replica r0: the agent's policy lets us set no power limit of sim:1; power budgets are kept by its clocks alone"]);
  });

  test('that the policy forbids altogether take no lease; the state says so', async () => {
    const stub = await agent(() => ['clock']);
    const power = limits(stub.socketPath);
    power.want(R0, 800, 500);
    await eventually(() => power.state() === 'refused');
    expect([stub.leases, power.warnings.length]).toEqual([[], 2]);
  });

  test('are set again at an agent that came back', async () => {
    const stub = await agent();
    const power = limits(stub.socketPath);
    const asking = setInterval(() => power.want(R0, 800, 500), 20);
    opened.push({ close: async () => clearInterval(asking) });
    await eventually(() => stub.limitPuts.length > 0);
    await stub.die();
    await eventually(() => power.state() === 'lost');
    expect(power.told).toEqual([[R0, 800], [R0, null]]);
    await stub.comeBack();
    await eventually(() => stub.leases.length === 2 && stub.limitPuts.at(-1)?.epoch === 2);
    expect(power.state()).toBe('held');
  });

  test.each([
    [{ status: 'failed' }, /^the agent says 'failed' of the power limit of sim:2/],
    [{ status: 'applied', clamped: 'floor', demand_mw: 200_000 }, /^the power limit of sim:2 can go no lower than 200 W/],
  ])('that come out otherwise are told of once: %j', async (result, message) => {
    const stub = await agent();
    stub.limitResult = (device) => ({ device, control: 'power_limit', ...result });
    const power = limits(stub.socketPath, BOTH.slice(1));
    power.want(R1, 150, 500);
    await eventually(() => stub.limitPuts.length === 1);
    power.want(R1, 160, 500);
    await eventually(() => stub.limitPuts.length === 2);
    expect(power.warnings).toEqual([expect.stringMatching(message)]);
  });

  test('end with their lease at the close, and a while after the last of them', async () => {
    const stub = await agent();
    const power = limits(stub.socketPath);
    power.want(R0, 800, 500);
    await eventually(() => stub.limitPuts.length === 1);
    await power.close();
    expect(stub.leases[0]?.ended).toBe('released');
    const later = limits(stub.socketPath);
    later.want(R0, 800, 100);
    await eventually(() => stub.leases.length === 2);
    later.want(R0, null, 100);
    await eventually(() => stub.leases[1]?.ended === 'released', 8_000);
    expect(later.state()).toBe('unused');
  }, 15_000);

  test('go beside the clocks of the same demand, and take nothing from them when they fail', async () => {
    const stub = await agent();
    stub.limitResult = (device) => ({ device, control: 'power_limit', status: 'failed' });
    const told: unknown[] = [];
    const control = createLeaseControl({ address: { kind: 'socket', path: stub.socketPath }, holder: 'test', ttlMs: 1_000, groups: BOTH, now: () => performance.now(), onControl: (...what) => told.push(what), onLimit: () => {}, onState: () => {}, onWarning: () => {} });
    opened.push(control);
    await eventually(() => told.length === 2);
    control.demand({ replicaId: R0, holdMs: 500, change: 'raise', powerLimitW: 800, point: { id: 'c1290', knobs: { clockMhz: 1_290 }, idlePowerW: 90 } });
    await eventually(() => told.length === 3 && stub.limitPuts.length === 1);
    expect(told[2]).toEqual([R0, true, 'c1290']);
    control.demand({ replicaId: R0, holdMs: 500, change: 'renew', point: null });
    await eventually(() => told.length === 4);
    expect(stub.limitPuts).toHaveLength(1);
  });
});

const AGENT = 'agent/target/release/paceline-agent';

describe.runIf(existsSync(AGENT))('at paceline-agent', () => {
  async function startAgent(controls: readonly string[]): Promise<{ socketPath: string; states: readonly DeviceStateFile[] }> {
    const directory = mkdtempSync(join(tmpdir(), 'paceline-limits-'));
    const devices = join(directory, 'devices');
    const states = [0, 1].map((index) => createDeviceStateFile(devices, index, { uuid: `GPU-${index}`, name: 'Emulated H100', clocksMhz: [210, 990, 1_980], defaultPowerLimitMw: 700_000 }));
    for (const state of states) state.writeTelemetry({ clockMhz: 1_980, powerMw: 310_000, energyMj: 99_120n, energyAtNs: process.hrtime.bigint(), utilizationPct: 97, temperatureC: 51, throttleReasons: 0n });
    const policy = join(directory, 'policy.json');
    writeFileSync(policy, JSON.stringify({ format: 'paceline-agent-policy/1', principals: [{ name: 'test', uids: [process.getuid?.() ?? 0], devices: ['*'], controls, lowering_min_interval_ms: 0 }] }), { mode: 0o600 });
    const socketPath = join(directory, 'agent.sock');
    const child: ChildProcess = spawn(AGENT, ['serve', '--driver', 'sim', '--sim-dir', devices, '--socket', socketPath, '--state-dir', join(directory, 'state'), '--policy', policy], { stdio: 'ignore' });
    opened.push({
      close: async () => {
        child.kill('SIGTERM');
        if (child.exitCode === null) await once(child, 'exit');
        for (const state of states) state.close();
        rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
      },
    });
    await eventually(() => isReady(socketPath), 10_000);
    return { socketPath, states };
  }

  function isReady(socketPath: string): Promise<boolean> {
    return new Promise((resolve) => {
      const asked = request({ socketPath, path: '/readyz' }, (answer) => {
        answer.resume();
        resolve(answer.statusCode === 200);
      });
      asked.once('error', () => resolve(false));
      asked.end();
    });
  }

  const GROUP: readonly ClockGroup[] = [{ replicaId: R0, devices: ['sim:0', 'sim:1'] }];
  const limitsOf = (states: readonly DeviceStateFile[]): (number | undefined)[] => states.map((state) => state.readCommand()?.powerLimitMw);

  test('the devices get their parts, lose them when nobody says so any more, and at the end', async () => {
    const { socketPath, states } = await startAgent(['clock', 'power_limit']);
    const power = limits(socketPath, GROUP);
    power.want(R0, 900, 400);
    await eventually(() => limitsOf(states).every((limitMw) => limitMw === 450_000));
    await eventually(() => limitsOf(states).every((limitMw) => limitMw === 0), 2_000);
    power.want(R0, 800, 60_000);
    await eventually(() => limitsOf(states).every((limitMw) => limitMw === 400_000));
    await power.close();
    expect(limitsOf(states)).toEqual([0, 0]);
    expect(power.warnings).toEqual([]);
  });

  test('no device goes below its lowest, and a policy of clocks alone sets none', async () => {
    const { socketPath, states } = await startAgent(['clock', 'power_limit']);
    const power = limits(socketPath, GROUP);
    power.want(R0, 20, 60_000);
    await eventually(() => power.warnings.length > 0);
    expect(power.warnings[0]).toMatch(/^the power limit of sim:\d can go no lower than [\d.]+ W/);
    expect(limitsOf(states)[0]).toBeGreaterThan(10_000);
    const other = await startAgent(['clock']);
    const refused = limits(other.socketPath, GROUP);
    refused.want(R0, 900, 60_000);
    await eventually(() => refused.state() === 'refused');
    expect(limitsOf(other.states).every((limitMw) => (limitMw ?? 0) === 0)).toBe(true);
  });
});
