import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createEnergyMeter, energyBetween } from '../../src/loadgen/energy-meter.ts';
import { runLoad } from '../../src/loadgen/run-load.ts';
import { startStub, streamTokens } from './stub-server.ts';

let directory = '';
const closers: (() => Promise<unknown>)[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-agent-'));
});
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  rmSync(directory, { recursive: true });
});

const nowMs = () => performance.now();

/** An agent whose samples are what the function says at that moment. */
async function startAgent(samples: () => object[], status = 200): Promise<string> {
  const socketPath = join(directory, `${closers.length}.sock`);
  const server = createServer((_, response) => void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ at_ns: 1, samples: samples() })));
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  closers.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return socketPath;
}

/** A device at constant power whose counter ticks every 100 ms. */
function tickingDevice(device: string, powerW: number): () => object {
  const startedAtMs = nowMs();
  return () => {
    const elapsedMs = nowMs() - startedAtMs;
    const tickMs = Math.floor(elapsedMs / 100) * 100;
    return { device, power_mw: powerW * 1000, energy_mj: 5_000_000 + Math.round(powerW * tickMs), energy_age_ms: Math.round(elapsedMs - tickMs), clock_mhz: 1980 };
  };
}

function meterOf(sockets: readonly string[], devices: readonly string[] = []) {
  const meter = createEnergyMeter({ sockets, devices, nowMs });
  closers.push(meter.close);
  return meter;
}

test('a reading is carried forward from the last tick with the power of now', async () => {
  const meter = meterOf([await startAgent(() => [{ device: 'sim:0', energy_mj: 99_120, energy_age_ms: 40, power_mw: 310_000 }, { device: 'sim:1', energy_mj: 1000, energy_age_ms: null, power_mw: null }])]);
  const reading = await meter.read();
  expect([...reading.energyJByDevice.values()]).toEqual([(99_120 + 0.04 * 310_000) / 1000, 1]);
  expect(reading.powerW).toBeNull();
});

test('energy over a time that is no whole number of ticks is right all the same', async () => {
  const [one, other] = [tickingDevice('sim:0', 500), tickingDevice('sim:1', 200)];
  const meter = meterOf([await startAgent(() => [one(), other()])]);
  const start = await meter.read();
  await new Promise((resolve) => setTimeout(resolve, 333));
  const use = energyBetween(start, await meter.read());
  expect(use.kind).toBe('measured');
  if (use.kind !== 'measured') return;
  expect(use.energyJ / use.windowS / 700).toBeCloseTo(1, 1);
});

test('devices are chosen by name, from several agents', async () => {
  const sockets = [await startAgent(() => [{ device: 'sim:0', energy_mj: 1000 }, { device: 'sim:1', energy_mj: 2000 }]), await startAgent(() => [{ device: 'nvml:GPU-1', energy_mj: 4000 }])];
  expect((await meterOf(sockets).read()).energyJByDevice.size).toBe(3);
  expect([...(await meterOf(sockets, ['sim:1', 'nvml:GPU-1']).read()).energyJByDevice.values()]).toEqual([2, 4]);
  await expect(meterOf(sockets, ['sim:7']).read()).rejects.toThrow("no device 'sim:7'; there are: sim:0, sim:1, nvml:GPU-1");
});

test.each([
  { sample: { device: 'sim:0', energy_mj: null }, message: 'tells no energy' },
  { sample: { device: 'sim:0', error: 'GPU is lost' }, message: 'cannot be read: GPU is lost' },
  { sample: { device: 'sim:0', energy_mj: 5, energy_age_ms: 60_000, power_mw: 1 }, message: 'has not ticked for 60000 ms' },
  { sample: { energy_mj: 5 }, message: 'answered what is no list of samples' },
])('refuses to measure with $sample', async ({ sample, message }) => {
  await expect(meterOf([await startAgent(() => [sample])]).read()).rejects.toThrow(message);
});

test('says that no agent is there, or that it refuses', async () => {
  await expect(meterOf([join(directory, 'none.sock')]).read()).rejects.toThrow(/none\.sock: ENOENT; is paceline-agent running\?/);
  await expect(meterOf([await startAgent(() => [], 403)]).read()).rejects.toThrow('GET /v1/samples answered 403');
  await expect(meterOf([await startAgent(() => [])]).read()).rejects.toThrow('has no devices');
});

test.each([
  { start: [['a', 10]], end: [['a', 25]], use: { kind: 'measured', energyJ: 15, windowS: 2 } },
  { start: [['a', 10], ['b', 1]], end: [['a', 25]], use: { kind: 'unknown', why: 'device b went away' } },
  { start: [['a', 10]], end: [['a', 5]], use: { kind: 'unknown', why: 'the energy counter of a fell from 10 to 5 J' } },
] as const)('between $start and $end lies $use', ({ start, end, use }) => {
  const reading = (atMs: number, devices: readonly (readonly [string, number])[]) => ({ atMs, energyJByDevice: new Map(devices), powerW: 0 });
  expect(energyBetween(reading(1000, start), reading(3000, end))).toEqual(use);
});

async function play(socket: string, windowS?: number) {
  const server = await startStub((_, response) => streamTokens(response, { tokens: 10, ttftMs: 50, tpotMs: 20 }));
  closers.push(server.close);
  const requests = [{ atMs: 0, promptTokens: 5, outputTokens: 10 }, { atMs: 100, promptTokens: 5, outputTokens: 10 }];
  return runLoad({ url: server.url, workload: { name: 'test', requests }, agentSockets: [socket], ...(windowS === undefined ? {} : { windowS }) });
}

test('a run measures energy from the first intended send to the last answer', async () => {
  const device = tickingDevice('sim:0', 600);
  const result = await play(await startAgent(() => [device()]));
  expect(result.energyWindowS! / result.durationS).toBeCloseTo(1, 1);
  expect(result.meanPowerW! / 600).toBeCloseTo(1, 1);
  expect(result.energyJ).toBeCloseTo(result.meanPowerW! * result.energyWindowS!, 6);
  expect(result.joulesPerOutputToken).toBeCloseTo(result.energyJ! / 20, 6);
});

test('a fixed window holds idle time after the last answer, to the same length for every run', async () => {
  const device = tickingDevice('sim:0', 600);
  const result = await play(await startAgent(() => [device()]), 1);
  expect(result.durationS).toBeLessThan(0.9);
  expect(Math.abs(result.energyWindowS! - 1)).toBeLessThan(0.1);
  expect(result.energyJ! / 600).toBeCloseTo(1, 0.5);
});

test('a window that ends before the last answer is said to', async () => {
  const device = tickingDevice('sim:0', 600);
  const result = await play(await startAgent(() => [device()]), 0.1);
  expect(result.completed).toBe(2);
  expect(result.energyWindowS).toBeLessThan(0.2);
  expect(result.notes.join()).toMatch(/the last answer ended 0\.\d s after the energy window/);
});

test('an agent that goes away leaves energy unknown, and the rest of the result stands', async () => {
  const device = tickingDevice('sim:0', 600);
  let reads = 0;
  const result = await play(await startAgent(() => [reads++ === 0 ? device() : { device: 'sim:0', error: 'gone' }]));
  expect(result).toMatchObject({ completed: 2, energyJ: null, meanPowerW: null, joulesPerOutputToken: null });
  expect(result.notes.join()).toContain('energy unknown: agent: device');
});
