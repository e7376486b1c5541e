// `paceline profile` on real processes: an emulated engine, the agent, and a sweep that is interrupted and goes on.
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { recoveryOf } from '../../bench/profile/recovery.ts';
import { startSweepRig, type SweepRig } from '../../bench/profile/sweep-rig.ts';
import { openDeviceStateFile } from '../../src/engine/device-file.ts';
import { loadProfile } from '../../src/profile-file.ts';

const TRUTH = resolve(import.meta.dirname, '../../config/profiles/llama-3.1-8b.h200.json');
let rig: SweepRig | null = null;
afterEach(async () => {
  await rig?.close();
  rig = null;
});

const argsOf = ({ url, agentSocket, devices, directory }: SweepRig, ...more: string[]): string[] => ['--url', url, '--agent-socket', agentSocket, '--devices', devices.join(','), '--max-batch-tokens', '8192', '--max-sequences', '16', '--kv-tokens', '888032', '--out', join(directory, 'p.json'), ...more];

test('a sweep that is interrupted gives the clocks back, goes on where it was, and finds the truth at the clocks it measured', async () => {
  rig = await startSweepRig(TRUTH);
  const args = argsOf(rig, '--clock-min', '1590', '--clock-max', '1590', '--json');
  const stop = new AbortController();
  const journal = join(rig.directory, 'p.sweep.ndjson');
  const first = rig.profile(args, stop.signal);
  while (linesOf(journal) < 3) await delay(50);
  stop.abort();
  const interrupted = await first;
  expect(interrupted.code).toBe(130);
  expect(interrupted.stderr).toMatch(/stopped after \d+ measurements; devices are at default clocks/);
  const device = openDeviceStateFile(rig.deviceDir, 0);
  expect(device.readCommand()).toMatchObject({ lockMinMhz: 0, lockMaxMhz: 0 });
  device.close();
  const before = linesOf(journal);
  expect(before).toBeGreaterThanOrEqual(3);

  const second = await rig.profile(args);
  expect(second.stderr).toContain(`going on after ${before - 1} measurements`);
  expect(second.code).toBe(0);
  const { points, measurements } = JSON.parse(second.stdout) as { points: string[]; measurements: number };
  expect(points).toEqual(['1590']);
  expect(measurements).toBe(9);
  const found = loadProfile(join(rig.directory, 'p.json'));
  const clocks = new Set(found.points.map(({ knobs }) => knobs['clockMhz']));
  const truth = loadProfile(TRUTH);
  const inRange = (row: { readonly point: string }): boolean => clocks.has(Number(row.point));
  const recovery = recoveryOf({ ...truth, points: truth.points.filter(({ knobs }) => clocks.has(knobs['clockMhz'])), prefill: truth.prefill.filter(inRange), decode: truth.decode.filter((row) => inRange(row) && row.sequences <= 16) }, found);
  // The bench has the figures; a busy machine must not fail this. Wrong by a factor, or a wrong unit, does.
  expect(recovery.timeErrorPct).toBeLessThan(60);
  expect(recovery.energyErrorPct).toBeLessThan(60);
  expect(readFileSync(join(rig.directory, 'p.html'), 'utf8')).toContain('Frontiers');
}, 240_000);

test('what is missing or wrong is said before anything is set', async () => {
  rig = await startSweepRig(TRUTH);
  const { url, agentSocket, devices, directory } = rig;
  const said = async (...args: string[]): Promise<[number | null, string]> => {
    const { code, stderr } = await (rig as SweepRig).profile(args);
    return [code, stderr.trim()];
  };
  expect(await said('--url', url)).toEqual([2, expect.stringContaining('--agent-socket PATH is missing')]);
  expect(await said('--url', url, '--agent-socket', agentSocket)).toEqual([2, expect.stringContaining('--devices IDS is missing')]);
  expect(await said('--url', url, '--agent-socket', agentSocket, '--devices', 'sim:7')).toEqual([1, expect.stringMatching(/the agent has no device 'sim:7'; it has: sim:0/)]);
  expect(await said('--url', url, '--agent-socket', join(directory, 'none.sock'), '--devices', 'sim:0')).toEqual([1, expect.stringContaining('ENOENT')]);
  expect(await said('--url', 'http://127.0.0.1:9', '--agent-socket', agentSocket, '--devices', 'sim:0')).toEqual([1, expect.stringMatching(/127\.0\.0\.1:9 cannot be reached/)]);
  expect(await said(...argsOf(rig, '--clock-min', '5000'))).toEqual([2, expect.stringMatching(/no clock is left to measure: the devices have \d+ to 1980 MHz/)]);
  // It was told after the sweep, and by a stack of calls.
  expect(await said(...argsOf(rig, '--measurements', '5'))).toEqual([2, expect.stringMatching(/--measurements: got 5, want at least 9/)]);
  expect(await said(...argsOf(rig), '--html', join(directory, 'none', 'p.html'))).toEqual([2, expect.stringMatching(/none\/p\.html: cannot be written there: ENOENT/)]);
  expect(await said('--url', url, '--agent-socket', agentSocket, '--devices', devices.join(','))).toEqual([2, expect.stringMatching(/--max-batch-tokens, --max-sequences: missing/)]);
}, 120_000);

function linesOf(path: string): number {
  try {
    return readFileSync(path, 'utf8').split('\n').length - 1;
  } catch {
    return 0;
  }
}
