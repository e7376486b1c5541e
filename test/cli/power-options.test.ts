import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readPower } from '../../src/cli/power-options.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { powerRange } from '../../src/frontier/power-limited.ts';
import type { SimulatedPower } from '../../src/simulator/simulate.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const FLEET = [{ truth: CLOCK_PROFILE, belief: CLOCK_PROFILE }, { truth: CLOCK_PROFILE, belief: CLOCK_PROFILE }];
const { idleW, floorW } = powerRange(createPerformanceModel(CLOCK_PROFILE));
const LEAST_W = idleW + floorW;
const PEAK_W = 2 * powerRange(createPerformanceModel(CLOCK_PROFILE)).peakW;
type Options = Parameters<typeof readPower>[0];
const read = (over: Partial<Options>, policy = 'paceline'): SimulatedPower | undefined => readPower({ 'power-budget': undefined, 'power-schedule': undefined, 'power-policy': undefined, ...over }, FLEET)?.(policy);

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-power-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function written(text: string): string {
  const path = join(directory, 'schedule.json');
  writeFileSync(path, text);
  return path;
}

describe('a power budget', () => {
  test("is watts, or a part of the fleet's peak, over all replicas", () => {
    expect(read({ 'power-budget': '3000' })?.schedule).toEqual([{ atMs: 0, budgets: [{ name: 'fleet', watts: 3000, replicaIds: ['r0', 'r1'] }] }]);
    expect(read({ 'power-budget': '75%' })?.schedule[0]?.budgets[0]?.watts).toBeCloseTo(0.75 * PEAK_W);
  });

  test('in time is what the file says', () => {
    expect(read({ 'power-schedule': written('[{"atMs":0,"watts":4000},{"atMs":1000,"watts":3000}]') })?.schedule.map(({ atMs, budgets }) => [atMs, budgets[0]?.watts])).toEqual([[0, 4000], [1000, 3000]]);
  });

  test('is allotted by paceline and uniform under the others, unless it is said otherwise', () => {
    expect([read({ 'power-budget': '75%' })?.how, read({ 'power-budget': '75%' }, 'max-clock')?.how, read({ 'power-budget': '75%', 'power-policy': 'uniform' })?.how]).toEqual(['allotted', 'uniform', 'uniform']);
  });

  test.each([
    [{ 'power-budget': '5x' }, /got '5x', want watts such as 8000, or a part/],
    [{ 'power-budget': '120%' }, /got '120%'/],
    [{ 'power-budget': '0' }, /got '0'/],
    [{ 'power-budget': '10' }, /got 10 W, and what is under it draws \d+ W with nothing to do/],
    [{ 'power-budget': String(Math.floor(LEAST_W - 1)) }, /at which not even one replica can work at its slowest clock while the others idle: .*want at least \d+ W/],
    [{ 'power-policy': 'uniform' }, /give one with --power-budget/],
    [{ 'power-budget': '75%', 'power-schedule': 'x.json' }, /leave one of the two out/],
    [{ 'power-schedule': '/nowhere/x.json' }, /--power-schedule: .*x.json/],
  ])('%j is refused with what is wanted', (over, message) => {
    expect(() => read(over)).toThrow(message);
  });

  test.each([
    ['no JSON', /schedule.json/],
    ['[]', /schedule.json/],
    ['[{"atMs":0,"watts":-1}]', /0\.watts/],
    ['[{"atMs":5,"watts":4000},{"atMs":5,"watts":3000}]', /1\.atMs: got 5, want more than the 5 before it/],
    ['[{"atMs":0,"watts":4000},{"atMs":9,"watts":3}]', /got 3 W/],
  ])('a schedule of %s is refused, with where', (text, message) => {
    expect(() => read({ 'power-schedule': written(text) })).toThrow(message);
  });
});
