// The fidelity bench: its table is read strictly, its JSON has the promised shape, and equal seeds give equal errors.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fidelity } from '../../bench/fidelity/fidelity.ts';
import { HEADER, parseLoadTests } from '../../bench/fidelity/load-test-table.ts';
import { checkSweeps } from '../../bench/fidelity/phase-sweeps.ts';
import { dampedLeastSquares } from '../../bench/fidelity/damped-least-squares.ts';
import { loadProfile } from '../../src/profile-file.ts';

const BENCH = join(import.meta.dirname, '../../bench/fidelity/fidelity.ts');
const ROW = '4,1023,99,1080,2.0993,1172.23,0.3216,0.03152';
/** Made up, so that nothing measured is carried here; near what the engine gives. */
const ROWS = ['2,1023,99,1455,1.0,820,0.33,0.036', ROW, '8,1023,99,1830,6,3500,0.21,0.021'].join('\n');

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fidelity-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

function parse(rows: string): unknown {
  return parseLoadTests(`${HEADER}\n${rows}`, 'rows.csv', [2, 4, 8]);
}

test('a row is read with its latencies in milliseconds', () => {
  expect(parse(`${ROW}\r\n\r\n`)).toEqual([{ devices: 4, promptTokens: 1023, outputTokens: 99, clockMhz: 1080, requestsPerS: 2.0993, powerW: 1172.23, ttftP99Ms: 321.6, tpotP99Ms: 31.52 }]);
});

test.each([
  { rows: ROW.replace('2.0993', 'fast'), says: 'rows.csv line 2, column rps: got "fast", want a number from 0.001 to 1000' },
  { rows: `${ROW}\n${ROW.replace('1172.23', '')}`, says: 'rows.csv line 3, column power_w_sum: got "", want a number from 1 to 100000' },
  { rows: `\n${ROW.replace('1080', '-1080')}`, says: 'rows.csv line 3, column freq_mhz: got "-1080", want a number from 345 to 1980' },
  { rows: ROW.replace(',99,', ',1,'), says: 'rows.csv line 2, column output_len: got "1", want a whole number from 2 to 131072' },
  { rows: ROW.replace('1023', '1023.5'), says: 'rows.csv line 2, column input_len: got "1023.5", want a whole number' },
  { rows: ROW.replace('0.3216', 'NaN'), says: 'rows.csv line 2, column ttft_p99_s: got "NaN", want a number' },
  { rows: ROW.replace('0.3216', '0x10'), says: 'rows.csv line 2, column ttft_p99_s: got "0x10", want a number' },
  { rows: ROW.replace('0.3216', 'Infinity'), says: 'rows.csv line 2, column ttft_p99_s: got "Infinity", want a number' },
  { rows: ROW.replace(/^4/, '16'), says: 'rows.csv line 2, column tp: got 16, want one of 2, 4, 8' },
  { rows: ROW.replace(',0.03152', ''), says: 'rows.csv line 2: got 7 columns, want 8' },
  { rows: '', says: 'rows.csv: got 0 rows below the header' },
])('a table is refused where it is not what it should be: $says', ({ rows, says }) => {
  expect(() => parse(rows)).toThrow(says);
});

test('a table with another header is refused', () => {
  expect(() => parseLoadTests(`tp,freq\n${ROW}`, 'rows.csv', [4])).toThrow(`rows.csv line 1: got the header "tp,freq", want "${HEADER}"`);
});

test('with --json one object of four numbers is printed, the same for the same seed and another for another', () => {
  const path = join(folder, 'rows.csv');
  writeFileSync(path, `${HEADER}\n${ROWS}\n`);
  const printed = (seed: string): string => execFileSync(process.execPath, [BENCH, '--rows', path, '--json', '--requests', '50', '--tests', '3', '--seed', seed], { encoding: 'utf8' });
  const first = printed('1');
  const result = JSON.parse(first) as Record<string, number>;
  expect(Object.keys(result).sort()).toEqual(['powerMedianErrorPct', 'rows', 'tpotP99MedianErrorPct', 'ttftP99MedianErrorPct']);
  expect(result['rows']).toBe(3);
  for (const value of Object.values(result)) expect(value).toBeGreaterThanOrEqual(0);
  expect(result['powerMedianErrorPct']).toBeLessThan(5);
  expect(printed('1')).toBe(first);
  expect(printed('2')).not.toBe(first);
});

test('a malformed row ends the bench with its place on stderr and nothing on stdout', () => {
  const path = join(folder, 'rows.csv');
  writeFileSync(path, `${HEADER}\n${ROW.replace('1080', 'high')}\n`);
  const { status, stdout, stderr } = spawnSync(process.execPath, [BENCH, '--rows', path, '--json'], { encoding: 'utf8' });
  expect({ status, stdout, stderr }).toEqual({ status: 1, stdout: '', stderr: `${path} line 2, column freq_mhz: got "high", want a number from 345 to 1980\n` });
});

test('without the table the bench says so and checks itself on generated rows', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [BENCH, '--json', '--requests', '50', '--tests', '20'], { encoding: 'utf8', cwd: folder });
  expect(stderr).toContain('no table at');
  expect(status).toBe(0);
  const result = JSON.parse(stdout) as Record<string, number>;
  expect(result['rows']).toBe(15);
  expect(result['powerMedianErrorPct']).toBeLessThan(2);
  expect(result['tpotP99MedianErrorPct']).toBeLessThan(5);
  expect(result['ttftP99MedianErrorPct']).toBeLessThan(10);
});

test('a request that the engine could never hold is refused with the row it stands in', () => {
  const [row] = parseLoadTests(`${HEADER}\n${ROW.replace(/^4,1023/, '2,100000')}`, 'rows.csv', [2]);
  expect(() => fidelity([row as never], { requests: 10, tests: 1, seed: 1 }, 'rows.csv')).toThrow(/^rows.csv, row of tp 2, 1080 MHz, 2.0993 requests\/s: 100000 tokens in and 99 out: .*exceeds-kv/);
});

test('a rate far beyond what the group serves still gives numbers', () => {
  const [row] = parseLoadTests(`${HEADER}\n${ROW.replace('2.0993', '500')}`, 'rows.csv', [4]);
  const [result] = fidelity([row as never], { requests: 100, tests: 2, seed: 1 }, 'rows.csv');
  expect(result?.outcome.ttftP99Ms).toBeGreaterThan(1000);
});

test('outside of the clocks of the profile the form goes on: faster above, slower below', () => {
  const rows = [600, 780, 1830, 1980].map((clockMhz) => parseLoadTests(`${HEADER}\n${ROW.replace('1080', String(clockMhz))}`, 'rows.csv', [4])[0] as never);
  const tpots = fidelity(rows, { requests: 50, tests: 5, seed: 1 }, 'rows.csv').map(({ outcome }) => outcome.tpotP99Ms);
  expect(tpots).toEqual([...tpots].sort((a, b) => b - a));
  expect(new Set(tpots).size).toBe(4);
});

test('the V100 profile follows the curves of its sweep between its points as well', () => {
  for (const { curve, meanErrorPct } of checkSweeps(loadProfile('config/profiles/mistral-7b.v100.json'))) expect(meanErrorPct, curve).toBeLessThan(3);
});

test('damped least squares finds the bottom of a curved valley', () => {
  const { x, sum } = dampedLeastSquares(([a = 0, b = 0]) => [10 * (b - a * a), 1 - a], [-1.2, 1], 200);
  expect(sum).toBeLessThan(1e-3);
  expect(x[0]).toBeCloseTo(1, 1);
});
