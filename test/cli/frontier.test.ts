// The command as people type it: what it prints, what it writes, how it ends.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { command } from '../../src/cli/frontier.ts';
import { FRONTIER_OPTIONS, OPTIONS_OF } from '../../src/cli/frontier-options.ts';
import { printed } from '../fixtures/printed.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { UsageError } from '../../src/cli/command.ts';

const H200 = 'config/profiles/llama-3.1-8b.h200.json';
const TP4 = 'config/profiles/llama-3.1-70b.h100-tp4.json';
const TP8 = 'config/profiles/llama-3.1-70b.h100-tp8.json';
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'frontier-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

const run = (...argv: string[]): ReturnType<typeof printed> => printed(command, ...argv);

test('show prints both phases, and writes a plot and a page', async () => {
  const [svg, html] = [join(directory, 'f.svg'), join(directory, 'f.html')];
  const { code, text } = await run('show', H200, '--sequences', '32', '--svg', svg, '--html', html);
  expect(code).toBe(0);
  expect(text).toContain('Prefill of 1024 tokens');
  expect(text).toMatch(/Decode step of 32 sequences.*\npoint .*efficient\n780 MHz/);
  expect(readFileSync(svg, 'utf8')).toMatch(/^<svg .*1500 MHz.*<\/svg>\n$/s);
  expect(readFileSync(html, 'utf8')).toMatch(/^<!doctype html>.*Decode step of 32 sequences/s);
});

test('show says as JSON what it says as text', async () => {
  const { text } = await run('show', H200, '--json', '--horizon-ms', '50');
  const shown = JSON.parse(text) as { horizonMs: number; phases: { phase: string; points: { id: string; efficient: boolean }[] }[] };
  expect(shown.horizonMs).toBe(50);
  expect(shown.phases.map(({ phase, points }) => [phase, points.length])).toEqual([['prefill', 15], ['decode', 15]]);
});

test('compare says which of two takes less, at equal time', async () => {
  const { code, text } = await run('compare', TP4, TP8);
  expect(code).toBe(0);
  expect(text).toMatch(/llama-3.1-70b.h100-tp8 beside llama-3.1-70b.h100-tp4: decode step/);
  expect(text).toMatch(/At equal time: 1\.\d\d × the energy on the mean\./);
});

test('compose names the cheapest way in time, and fails where there is none', async () => {
  const { code, text } = await run('compose', H200, '--within-ms', '2000');
  expect(code).toBe(0);
  expect(text).toMatch(/Cheapest within 2000 ms: \d+ MHz → \d+ MHz, \d+ ms, [\d.]+ J\./);
  const short = await run('compose', H200, '--within-ms', '10');
  expect(short.code).toBe(1);
  expect(short.text).toMatch(/Nothing within 10 ms: the fastest takes \d+ ms\./);
});

test('validate passes what is shipped, names what is wrong, and says which by its exit code', async () => {
  expect((await run('validate', H200, TP4)).code).toBe(0);
  const bad = join(directory, 'bad.json');
  writeFileSync(bad, JSON.stringify({ ...(JSON.parse(readFileSync(H200, 'utf8')) as object), knobs: {} }));
  const { code, text } = await run('validate', H200, bad);
  expect(code).toBe(1);
  expect(text).toMatch(/bad\.json: refused\n.*knobs: got none/);
});

test('convert makes of a sweep what show shows', async () => {
  const [csv, out] = [join(directory, 's.csv'), join(directory, 's.json')];
  writeFileSync(csv, 'stage,instruction,frequency,time,energy\n0,forward,1410,0.050,12.5\n0,forward,1200,0.056,10.9\n0,forward,900,0.060,11\n');
  expect((await run('convert', csv, '--from', 'perseus-profile', '--source', 'ours', '--licence', 'CC0-1.0', '--out', out)).code).toBe(0);
  const { text } = await run('show', out, '--html', join(directory, 's.html'));
  expect(text).toContain('stage 0, forward (2 of 3 points are efficient)');
});

test('scale makes the profile of a GPU that is not there yet, which says so and is as good as the one it is made of', async () => {
  const next = join(directory, 'next.json');
  const { code, text } = await run('scale', H200, '--time', '0.5', '--power', '1.2', '--idle-power', '0.8', '--name', 'next.gpu');
  expect(code).toBe(0);
  writeFileSync(next, text);
  const [made, measured] = [loadProfile(next), loadProfile(H200)];
  expect(made.decode.map(({ timeMs }) => timeMs)).toEqual(measured.decode.map(({ timeMs }) => expect.closeTo(0.5 * timeMs, 3)));
  expect(made.prefill.map(({ energyJ }) => energyJ)).toEqual(measured.prefill.map(({ energyJ }) => expect.closeTo(0.6 * energyJ, 2)));
  expect(made.points.map(({ id, idlePowerW }) => [id, idlePowerW])).toEqual(measured.points.map(({ id, idlePowerW }) => [id, expect.closeTo(0.8 * idlePowerW, 2)]));
  expect([made.name, made.deviceGroup.device]).toEqual(['next.gpu', 'next.gpu (hypothetical)']);
  expect(made.provenance.measuredOn).toBe(`No device: the profile ${measured.name} with times × 0.5, power × 1.2 (energies × 0.6), idle power × 0.8.`);
  expect((await run('validate', next)).code).toBe(0);
});

test('scale leaves idle power in step with power where nothing is said, and scales what sleeping costs', async () => {
  const [asleep, out] = [join(directory, 'asleep.json'), join(directory, 'out.json')];
  writeFileSync(asleep, JSON.stringify({ ...loadProfile(H200), sleep: { powerW: 60, sleepMs: 2000, wakeMs: 5000, wakeEnergyJ: 800 } }));
  await run('scale', asleep, '--power', '0.5', '--name', 'thrifty', '--out', out);
  const made = loadProfile(out);
  expect(made.points[0]?.idlePowerW).toBeCloseTo(0.5 * (loadProfile(H200).points[0]?.idlePowerW ?? 0), 2);
  expect(made.sleep).toEqual({ powerW: 30, sleepMs: 2000, wakeMs: 5000, wakeEnergyJ: 400 });
  await expect(run('scale', asleep, '--power', '0.5', '--name', 'thrifty', '--out', asleep)).rejects.toThrow(/is one of the files that are read/);
});

test.each([
  [['scale', H200, '--time', '0.7'], /--name is missing/],
  [['scale', H200, '--name', 'same'], /got no factor other than 1/],
  [['scale', H200, '--name', 'next', '--time', '0'], /--time.*0\.01/],
  [['scale', H200, '--name', 'next', '--time=-1'], /--time.*0\.01/],
  [['scale', H200, '--name', 'next', '--power', '11'], /--power.*10/],
  [['scale', H200, '--name', 'next', '--idle-power', 'NaN'], /--idle-power/],
  [['scale', H200, '--name', 'llama-3.1-8b.h200', '--time', '0.7'], /is the name of what was measured/],
  [['scale', H200, '--name', 'next', '--idle-power', '9'], /is no device: points\[\d+\]\.idlePowerW: .*far above/],
  [['scale', '--name', 'next', '--time', '0.7'], /scale: got 0 files, want one/],
  [[], /got '', want one of show, compare/],
  [['draw', H200], /got 'draw', want one of show/],
  [['show'], /show: got 0 files, want one/],
  [['show', H200, TP4], /show: got 2 files, want one/],
  [['compare', H200], /compare: got 1 files, want two or more/],
  [['validate'], /got no file/],
  [['show', 'nowhere.json'], /nowhere\.json: cannot be read/],
  [['show', 'package.json'], /package\.json: /],
  [['convert', 'package.json'], /--from FORMAT is missing; there are:\n {2}perseus-profile/],
  [['convert', 'package.json', '--from', 'load-test'], /--source and --licence are wanted/],
  [['show', H200, '--svg', '/dev/null/x.svg'], /--svg \/dev\/null\/x\.svg: ENOTDIR/],
])('%j is refused with what was given and what is wanted', async (argv, message) => {
  await expect(async () => run(...argv)).rejects.toThrow(UsageError);
  await expect(async () => run(...argv)).rejects.toThrow(message);
});

test('a plot was written over the profile that it was made of', async () => {
  const own = join(directory, 'own.json');
  const profile = readFileSync(H200, 'utf8');
  writeFileSync(own, profile);
  await expect(run('show', own, '--html', own)).rejects.toThrow(/--html .*own\.json: is one of the files that are read/);
  await expect(run('compare', H200, own, '--svg', join(directory, '.', 'own.json'))).rejects.toThrow(UsageError);
  expect(readFileSync(own, 'utf8')).toBe(profile);
});

test('fleet names the cheapest servers for a load, sleeping and chunked where that is asked', async () => {
  const asked = ['fleet', TP4, TP8, '--devices', '8', '--rate', '4', '--prompt-tokens', '1000', '--output-tokens', '100', '--ttft-ms', '1500', '--tpot-ms', '50'];
  const { text } = await run(...asked);
  expect(text).toMatch(/cheapest first:\n\npower W .*\n\d+ .* 4 +1 x llama-3.1-70b.h100-tp4 +1 +855/);
  const { text: json } = await run(...asked, '--sleep', '200:2000:5000', '--batch-tokens', '512,1024', '--json');
  const { fleets, looked } = JSON.parse(json) as { looked: number; fleets: { powerW: number; parts: { name: string; awake: number; replicas: number }[] }[] };
  expect(looked).toBeGreaterThan(fleets.length);
  expect(fleets.some(({ parts }) => parts.some(({ awake, replicas }) => awake < replicas))).toBe(true);
  expect((await run('fleet', TP4, '--devices', '2', '--rate', '1')).text).toContain('none of 0 fleets serves that');
});

test.each([
  { argv: ['fleet'], says: /want at least one profile/ },
  { argv: ['fleet', TP4, '--batch-tokens', 'many'], says: /--batch-tokens: got 'many'/ },
  { argv: ['fleet', TP4, '--sleep', '9000:1:1'], says: /--sleep: .*above the .* W that the group idles at/ },
  { argv: ['fleet', TP4, TP4, TP4, TP4, TP8, TP8, '--devices', '400'], says: /at most 20000 are looked at/ },
])('fleet says what is wrong: $argv', async ({ argv, says }) => {
  await expect(run(...argv)).rejects.toThrow(says);
});

test('fleet of a load of nothing tells no joules of a token', async () => {
  const { code, text } = await run('fleet', TP4, '--rate', '0');
  expect(code).toBe(0);
  expect(text).toMatch(/\n378\.1 +- +4 /);
});

test('every option is taken by some action, and refused by the others, which name theirs', async () => {
  const options = Object.entries(FRONTIER_OPTIONS);
  for (const [option, spec] of options) {
    const argv = spec.type === 'flag' ? [`--${option}`] : [`--${option}`, 'default' in spec ? String(spec.default) : 'oneOf' in spec ? (spec.oneOf[0] as string) : 'min' in spec ? String(spec.min) : 'x'];
    const takers = Object.entries(OPTIONS_OF).filter(([, taken]) => (taken as readonly string[]).includes(option));
    expect([option, takers.length > 0]).toEqual([option, true]);
    for (const [asked, taken] of Object.entries(OPTIONS_OF)) {
      if ((taken as readonly string[]).includes(option) || option === 'as') continue;
      await expect(async () => run(...asked.split(' '), ...argv)).rejects.toThrow(`frontier ${asked}: got --${option}, which it does not take; its options are ${taken.map((one) => `--${one}`).join(', ')}`);
    }
  }
  await expect(async () => run('show', H200, '--as', 'pools')).rejects.toThrow('frontier show: got --as, which it does not take');
});
