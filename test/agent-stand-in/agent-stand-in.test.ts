import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:http';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AgentStandIn } from '../../src/agent-stand-in/agent-stand-in.ts';
import { startAgentStandIn } from '../../src/agent-stand-in/agent-stand-in.ts';
import { LEASES_MAX } from '../../src/agent-stand-in/arbitration.ts';
import { createLeaseControl } from '../../src/agent/lease-control.ts';
import type { ReplicaId } from '../../src/core/job.ts';
import type { DeviceStateFile } from '../../src/engine/device-file.ts';
import { createDeviceStateFile } from '../../src/engine/device-file.ts';
import { createEnergyMeter } from '../../src/loadgen/energy-meter.ts';

const CLOCKS_MHZ = [345, 990, 1005, 1980];
let directory: string;
let socketPath: string;
let files: DeviceStateFile[];
const opened: { close(): void | Promise<void> }[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'stand-in-'));
  socketPath = join(directory, 'agent.sock');
  files = [0, 1].map((index) => createDeviceStateFile(directory, index, { uuid: `GPU-${index}`, name: 'Emulated test', clocksMhz: CLOCKS_MHZ, defaultPowerLimitMw: 700_000 }));
});
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
  for (const file of files) file.close();
  rmSync(directory, { recursive: true, force: true });
});

async function standIn(): Promise<AgentStandIn> {
  const agent = await startAgentStandIn({ socketPath, deviceDir: directory });
  opened.push(agent);
  return agent;
}

/** What the devices are locked to; 0 = not locked. */
function locksMhz(): number[] {
  return files.map((file) => file.readCommand()?.lockMaxMhz ?? -1);
}
async function eventually(check: () => boolean, limitMs = 5_000): Promise<void> {
  const untilMs = performance.now() + limitMs;
  while (!check()) {
    if (performance.now() > untilMs) throw new Error(`not within ${limitMs} ms: ${check.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

interface Answered {
  readonly status: number;
  readonly contentType: string | undefined;
  readonly body: any;
}
function send(method: string, path: string, body?: unknown): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, method, path, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        resolve({ status: response.statusCode ?? 0, contentType: response.headers['content-type'], body: text === '' ? null : JSON.parse(text) });
      });
    });
    sent.on('error', reject);
    sent.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body));
  });
}

interface LifeLine {
  readonly leaseId: string;
  readonly epoch: number;
  readonly lines: any[];
  readonly ended: Promise<void>;
  hangUp(): void;
  put(seq: number, targets: readonly object[], epoch?: number): Promise<Answered>;
}
async function lease(body: object): Promise<LifeLine> {
  const sent = request({ socketPath, method: 'POST', path: '/v1/leases', agent: false });
  sent.on('error', () => {});
  sent.end(JSON.stringify(body));
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  expect(response.statusCode).toBe(201);
  response.on('error', () => {});
  const lines: any[] = [];
  const ended = new Promise<void>((resolve) => response.once('close', resolve));
  // The agent writes each line in one piece, and a Unix socket delivers it so.
  response.on('data', (chunk: Buffer) => lines.push(...chunk.toString('utf8').trim().split('\n').map((line) => JSON.parse(line))));
  await eventually(() => lines.length > 0);
  const { lease_id: leaseId, epoch: ownEpoch } = lines[0];
  opened.push({ close: () => void sent.destroy() });
  return { leaseId, epoch: ownEpoch, lines, ended, hangUp: () => sent.destroy(), put: (seq, targets, epoch = ownEpoch) => send('PUT', `/v1/leases/${leaseId}/targets`, { epoch, seq, targets }) };
}
const both = ['sim:0', 'sim:1'];

describe('reading', () => {
  test('tells that it is a stand-in for emulated devices, on a socket of its user alone', async () => {
    await standIn();
    expect(statSync(socketPath).mode & 0o777).toBe(0o600);
    expect(await send('GET', '/healthz')).toMatchObject({ status: 200, body: { status: 'ok' } });
    expect(await send('GET', '/readyz')).toMatchObject({ status: 200, body: { status: 'ready', mode: 'control', restores_pending: [], stand_in: true } });
    const { body } = await send('GET', '/v1/devices');
    expect(body.devices).toHaveLength(2);
    expect(body.devices[0]).toEqual({
      device: 'sim:0', driver: 'sim', name: 'Emulated test', uuid: 'GPU-0', clocks_mhz: CLOCKS_MHZ, default_clock_mhz: 1980, power_limit_mw: 700_000,
      controls: ['clock'], floor_mhz: 345, ceiling_mhz: 1980, holders: [], target_mhz: null, switch: { count: 0, call_us_p50: null, call_us_max: null },
    });
  });

  test('samples say what the emulator wrote, and null before its first word', async () => {
    await standIn();
    const energyAtNs = process.hrtime.bigint() - 40_000_000n;
    files[0]?.writeTelemetry({ clockMhz: 1005, powerMw: 310_000, energyMj: 99_120n, energyAtNs, utilizationPct: 97, temperatureC: 51, throttleReasons: 0x24n });
    const { body } = await send('GET', '/v1/samples');
    expect(body.samples[0]).toMatchObject({ device: 'sim:0', clock_mhz: 1005, power_mw: 310_000, energy_mj: 99_120, utilization_pct: 97, temperature_c: 51, throttle_reasons: ['sw_power_cap', 'sw_thermal_slowdown'], target_mhz: null });
    expect(body.samples[0].energy_age_ms).toBeGreaterThanOrEqual(40);
    expect(body.samples[1]).toMatchObject({ device: 'sim:1', clock_mhz: null, energy_mj: null, energy_age_ms: null });
    expect((await send('GET', '/v1/samples?device=sim:1')).body.samples.map(({ device }: { device: string }) => device)).toEqual(['sim:1']);
  });

  test('the load generator reads its energy', async () => {
    await standIn();
    files[0]?.writeTelemetry({ clockMhz: 1980, powerMw: 1_000, energyMj: 2_000n, energyAtNs: process.hrtime.bigint(), utilizationPct: 1, temperatureC: 30, throttleReasons: 0n });
    const meter = createEnergyMeter({ sockets: [socketPath], devices: ['sim:0'], nowMs: () => performance.now() });
    opened.push(meter);
    const { powerW, energyJByDevice } = await meter.read();
    expect(powerW).toBe(1);
    expect([...energyJByDevice.values()][0]).toBeCloseTo(2, 0);
  });
});

describe('a lease', () => {
  test('sets its devices, counts the switches, and shows who holds them', async () => {
    await standIn();
    const mine = await lease({ holder: 'gateway-1', devices: both });
    expect(mine.lines[0]).toMatchObject({ type: 'granted', ttl_ms: 3000, devices: both });
    const put = await mine.put(1, [{ devices: ['sim:0'], clock_mhz: 991, hold_ms: 5000 }, { devices: ['sim:1'], clock_mhz: 100, hold_ms: 5000 }]);
    expect(put).toMatchObject({ status: 200, body: { lease_id: mine.leaseId, ttl_ms: 3000 } });
    expect(put.body.results).toEqual([
      { device: 'sim:0', control: 'clock', requested_mhz: 991, demand_mhz: 1005, target_mhz: 1005, clamped: 'quantized', status: 'applied' },
      { device: 'sim:1', control: 'clock', requested_mhz: 100, demand_mhz: 345, target_mhz: 345, clamped: 'floor', status: 'applied' },
    ]);
    expect(files[0]?.readCommand()).toMatchObject({ lockMinMhz: 345, lockMaxMhz: 1005, writerPid: process.pid });
    const { devices } = (await send('GET', '/v1/devices')).body;
    expect(devices[0]).toMatchObject({ target_mhz: 1005, holders: [{ lease_id: mine.leaseId, holder: 'gateway-1', clock_mhz: 1005 }], switch: { count: 1 } });
    expect(devices[0].holders[0].hold_left_ms).toBeLessThanOrEqual(5000);
  });

  test('ends by DELETE, with the devices at default before the answer and its stream told why', async () => {
    await standIn();
    const mine = await lease({ holder: 'a', devices: both });
    await mine.put(1, [{ devices: both, clock_mhz: 990, hold_ms: 5000 }]);
    expect(locksMhz()).toEqual([990, 990]);
    expect((await send('DELETE', `/v1/leases/${mine.leaseId}`)).status).toBe(204);
    expect(locksMhz()).toEqual([0, 0]);
    await mine.ended;
    expect(mine.lines.at(-1)).toEqual({ type: 'ended', reason: 'released' });
    expect((await send('DELETE', `/v1/leases/${mine.leaseId}`)).body.type).toBe('urn:paceline:problem:unknown-lease');
    expect((await mine.put(2, [])).status).toBe(404);
  });

  test('ends when its client hangs up', async () => {
    await standIn();
    const mine = await lease({ holder: 'a', devices: both });
    await mine.put(1, [{ devices: both, clock_mhz: 990, hold_ms: 60_000 }]);
    const goneAtMs = performance.now();
    mine.hangUp();
    await eventually(() => locksMhz().every((lockMhz) => lockMhz === 0));
    expect(performance.now() - goneAtMs).toBeLessThan(500);
  });

  test('ends when its client closes its half of the stream', async () => {
    await standIn();
    const body = JSON.stringify({ holder: 'half', devices: both });
    const socket = createConnection({ path: socketPath, allowHalfOpen: true });
    opened.push({ close: () => void socket.destroy() });
    socket.write(`POST /v1/leases HTTP/1.1\r\nhost: agent\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    await once(socket, 'data');
    const holders = async () => (await send('GET', '/v1/devices')).body.devices[0].holders.length;
    expect(await holders()).toBe(1);
    socket.end();
    await once(socket, 'end');
    expect(await holders()).toBe(0);
  });

  test('ends when nobody renews it, and beats every second until then', async () => {
    await standIn();
    const mine = await lease({ holder: 'a', devices: both, ttl_ms: 1200 });
    await mine.put(1, [{ devices: both, clock_mhz: 990, hold_ms: 60_000 }]);
    await mine.ended;
    expect(mine.lines.map(({ type, reason }) => reason ?? type)).toEqual(['granted', 'heartbeat', 'expired']);
    expect(locksMhz()).toEqual([0, 0]);
  });

  test('whose hold passes is at default clocks while it lives on', async () => {
    await standIn();
    const mine = await lease({ holder: 'a', devices: both });
    await mine.put(1, [{ devices: ['sim:0'], clock_mhz: 990, hold_ms: 100 }, { devices: ['sim:1'], clock_mhz: 1005, hold_ms: 60_000 }]);
    await eventually(() => locksMhz()[0] === 0, 1000);
    expect(locksMhz()).toEqual([0, 1005]);
    expect((await mine.put(2, [])).status).toBe(200);
  });

  test('beside a faster one gives way, and gets its way when that one ends', async () => {
    await standIn();
    const slow = await lease({ holder: 'slow', devices: ['sim:0'] });
    const fast = await lease({ holder: 'fast', devices: ['sim:0'] });
    expect(fast.epoch).toBeGreaterThan(slow.epoch);
    expect((await slow.put(1, [{ devices: ['sim:0'], clock_mhz: 345, hold_ms: 5000 }])).body.results[0]).toMatchObject({ demand_mhz: 345, target_mhz: null });
    await fast.put(1, [{ devices: ['sim:0'], clock_mhz: 1005, hold_ms: 5000 }]);
    expect(locksMhz()).toEqual([1005, 0]);
    fast.hangUp();
    await eventually(() => locksMhz()[0] === 345);
  });

  test('is refused a stale seq and another epoch, and nothing changes', async () => {
    await standIn();
    const mine = await lease({ holder: 'a', devices: both });
    await mine.put(7, [{ devices: both, clock_mhz: 990, hold_ms: 5000 }]);
    const lower = [{ devices: both, clock_mhz: 345, hold_ms: 5000 }];
    expect(await mine.put(7, lower)).toMatchObject({ status: 412, contentType: 'application/problem+json', body: { type: 'urn:paceline:problem:stale-seq', field: 'seq', given: 7 } });
    expect(await mine.put(8, lower, mine.epoch - 1)).toMatchObject({ status: 412, body: { type: 'urn:paceline:problem:stale-epoch', allowed: mine.epoch } });
    expect(locksMhz()).toEqual([990, 990]);
  });

  test('is one of a bounded number', async () => {
    await standIn();
    for (let number = 0; number < LEASES_MAX; number++) await lease({ holder: `h${number}`, devices: ['sim:0'], ttl_ms: 60_000 });
    expect(await send('POST', '/v1/leases', { holder: 'late', devices: ['sim:0'] })).toMatchObject({ status: 429, body: { allowed: LEASES_MAX } });
  });
});

describe('refuses', () => {
  test.each([
    { name: 'a body that is not JSON', method: 'POST', path: '/v1/leases', body: '{', status: 400 },
    { name: 'a holder with a space', method: 'POST', path: '/v1/leases', body: { holder: 'a b', devices: ['sim:0'] }, status: 400, field: 'holder' },
    { name: 'no device', method: 'POST', path: '/v1/leases', body: { holder: 'a', devices: [] }, status: 400, field: 'devices' },
    { name: 'a device twice', method: 'POST', path: '/v1/leases', body: { holder: 'a', devices: ['sim:0', 'sim:0'] }, status: 400, field: 'devices' },
    { name: 'a short TTL', method: 'POST', path: '/v1/leases', body: { holder: 'a', devices: ['sim:0'], ttl_ms: 99 }, status: 400, field: 'ttl_ms', given: 99 },
    { name: 'a field it does not know', method: 'POST', path: '/v1/leases', body: { holder: 'a', devices: ['sim:0'], ttl: 99 }, status: 400 },
    { name: 'an unknown device', method: 'POST', path: '/v1/leases', body: { holder: 'a', devices: ['sim:0', 'sim:7'] }, status: 404, field: 'devices[1]', given: 'sim:7' },
    { name: 'an unknown lease', method: 'PUT', path: '/v1/leases/ff/targets', body: { epoch: 1, seq: 1, targets: [] }, status: 404 },
    { name: 'a slow-down that would never lapse', method: 'PUT', path: '/v1/leases/ff/targets', body: { epoch: 1, seq: 1, targets: [{ devices: ['sim:0'], clock_mhz: 990 }] }, status: 400, field: 'targets[0].hold_ms' },
    { name: 'a target without a clock', method: 'PUT', path: '/v1/leases/ff/targets', body: { epoch: 1, seq: 1, targets: [{ devices: ['sim:0'], hold_ms: 5 }] }, status: 400, field: 'targets[0].clock_mhz' },
    { name: 'one byte too many', method: 'POST', path: '/v1/leases', body: ' '.repeat(65_537), status: 413 },
    { name: 'another method', method: 'POST', path: '/v1/devices', status: 405 },
    { name: 'what a stand-in has not', method: 'GET', path: '/v1/stream', status: 404 },
    { name: 'a query key it does not know', method: 'GET', path: '/v1/samples?devices=sim:0', status: 400, field: 'devices' },
    { name: 'samples of an unknown device', method: 'GET', path: '/v1/samples?device=nvml:0', status: 404, given: 'nvml:0' },
  ])('$name', async ({ method, path, body, status, field, given }) => {
    await standIn();
    const answered = await send(method, path, body);
    expect(answered).toMatchObject({ status, contentType: 'application/problem+json', body: { status, ...(field === undefined ? {} : { field }), ...(given === undefined ? {} : { given }) } });
  });

  test('a device of another lease', async () => {
    await standIn();
    const mine = await lease({ holder: 'a', devices: ['sim:0'] });
    expect(await mine.put(1, [{ devices: ['sim:0', 'sim:1'], clock_mhz: 990, hold_ms: 500 }])).toMatchObject({ status: 400, body: { field: 'targets[0].devices[1]', given: 'sim:1' } });
    expect(locksMhz()).toEqual([0, 0]);
  });
});

describe('coming and going', () => {
  test('close ends the leases and brings the devices to default', async () => {
    const agent = await standIn();
    const mine = await lease({ holder: 'a', devices: both });
    await mine.put(1, [{ devices: both, clock_mhz: 990, hold_ms: 60_000 }]);
    await agent.close();
    expect(locksMhz()).toEqual([0, 0]);
    await mine.ended;
    expect(mine.lines.at(-1)).toEqual({ type: 'ended', reason: 'shutdown' });
    expect(process.listeners('SIGTERM').filter(({ name }) => name === 'onSignal')).toEqual([]);
  });

  test('a socket that a killed one left is taken over, a served one is not', async () => {
    const dead = spawn(process.execPath, ['-e', `require('node:net').createServer().listen(${JSON.stringify(socketPath)}, () => process.kill(process.pid, 'SIGKILL'))`]);
    await once(dead, 'exit');
    expect(statSync(socketPath).isSocket()).toBe(true);
    await standIn();
    await expect(startAgentStandIn({ socketPath, deviceDir: directory })).rejects.toThrow(/something is there already/);
    const alive = createConnection(socketPath);
    await once(alive, 'connect');
    alive.destroy();
  });

  test('a directory without devices is named', async () => {
    await expect(startAgentStandIn({ socketPath, deviceDir: join(directory, 'none') })).rejects.toThrow(/none: no emulated devices in it; start `paceline emulate` first/);
  });

  test.each([
    { how: 'SIGTERM', end: 'SIGTERM', status: 'SIGTERM' },
    { how: 'an exception that nobody caught', end: 'throw', status: 1 },
  ])('the devices are at default after $how', async ({ end, status }) => {
    const program = `
      const { startAgentStandIn } = await import(${JSON.stringify(join(process.cwd(), 'src/agent-stand-in/agent-stand-in.ts'))});
      await startAgentStandIn({ socketPath: ${JSON.stringify(socketPath)}, deviceDir: ${JSON.stringify(directory)} });
      process.stdin.once('data', () => { throw new Error('nobody catches this') });
      console.log('ready');`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['pipe', 'pipe', 'ignore'] });
    const exited = once(child, 'exit');
    await once(child.stdout, 'data');
    const mine = await lease({ holder: 'a', devices: both });
    await mine.put(1, [{ devices: both, clock_mhz: 990, hold_ms: 60_000 }]);
    expect(locksMhz()).toEqual([990, 990]);
    if (end === 'SIGTERM') child.kill('SIGTERM');
    else child.stdin.write('now\n');
    const [code, signal] = await exited;
    expect(signal ?? code).toBe(status);
    expect(locksMhz()).toEqual([0, 0]);
  });
});

describe("the gateway's clock control", () => {
  const R0 = 'r0' as ReplicaId;

  test('holds a lease, sets clocks, is told of the point, and gives the devices back', async () => {
    await standIn();
    const told: (string | null)[] = [];
    const states: string[] = [];
    const control = createLeaseControl({
      address: { kind: 'socket', path: socketPath }, holder: 'gateway-1', ttlMs: 3000, groups: [{ replicaId: R0, devices: both }], now: () => performance.now(),
      onControl: (_, controlled, pointId) => told.push(controlled ? pointId : 'uncontrolled'),
      onState: (state) => states.push(state),
      onWarning: (message) => { throw new Error(message); },
    });
    opened.push(control);
    await eventually(() => states.at(-1) === 'held');
    control.demand({ replicaId: R0, point: { id: 'c990', knobs: { clockMhz: 990 }, idlePowerW: 90 }, holdMs: 300, change: 'raise' });
    await eventually(() => told.at(-1) === 'c990');
    expect(locksMhz()).toEqual([990, 990]);
    // Nobody renews it: the demand lapses by itself.
    await eventually(() => locksMhz().every((lockMhz) => lockMhz === 0), 1000);
    control.demand({ replicaId: R0, point: { id: 'c1005', knobs: { clockMhz: 1005 }, idlePowerW: 90 }, holdMs: 60_000, change: 'lower' });
    await eventually(() => locksMhz().every((lockMhz) => lockMhz === 1005));
    await control.close();
    expect(locksMhz()).toEqual([0, 0]);
    expect((await send('GET', '/v1/devices')).body.devices[0].holders).toEqual([]);
  });

  test('finds it again after it was restarted', async () => {
    const first = await standIn();
    const states: string[] = [];
    const control = createLeaseControl({ address: { kind: 'socket', path: socketPath }, holder: 'gateway-1', ttlMs: 3000, groups: [{ replicaId: R0, devices: both }], now: () => performance.now(), onControl: () => {}, onState: (state) => states.push(state), onWarning: () => {} });
    opened.push(control);
    await eventually(() => states.at(-1) === 'held');
    await first.close();
    await eventually(() => states.at(-1) === 'lost');
    await standIn();
    await eventually(() => states.at(-1) === 'held');
    expect(states).toEqual(['held', 'lost', 'held']);
  });
});
