// What a fleet truly draws under budgets, whatever is believed of it.
import { describe, expect, test } from 'vitest';
import type { ReplicaId } from '../../src/core/job.ts';
import { CONTROL_PERIOD_MS } from '../../src/core/limits.ts';
import type { PowerBudget } from '../../src/core/power-budget.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { powerRange } from '../../src/frontier/power-limited.ts';
import { createPowerMeter } from '../../src/simulator/power-meter.ts';
import { type SimulatedRun, simulate, type SimulationOptions, SimulationStalled } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const REPLICAS = 3;
const { peakW, idleW, floorW } = powerRange(createPerformanceModel(CLOCK_PROFILE));
const IDS = Array.from({ length: REPLICAS }, (_, index) => `r${index}` as ReplicaId);
const rack = (share: number): PowerBudget => ({ name: 'rack', watts: share * REPLICAS * peakW, replicaIds: IDS });

function run(ratePerS: number, over: Partial<SimulationOptions> = {}, cv = 1): SimulatedRun {
  const { requests } = makeSynthetic({ arrivals: cv === 1 ? { kind: 'poisson', ratePerS } : { kind: 'bursty', ratePerS, cv }, durationS: 40, seed: 7, promptTokens: { kind: 'lognormal', meanTokens: 1_000, cv: 1 }, outputTokens: { kind: 'lognormal', meanTokens: 150, cv: 0.8 } });
  return simulate({ requests, classes: requests.map((_, index) => (index % 3 === 0 ? { name: 'premium', slo: { ttftMs: 800, tpotMs: 40 }, worth: 4 } : { name: 'plain', slo: { ttftMs: 2_000, tpotMs: 70 } })), replicas: REPLICAS, truth: CLOCK_PROFILE, belief: CLOCK_PROFILE, policy: { kind: 'paceline' }, seed: 1, ...over });
}

const CAPPED = { schedule: [{ atMs: 0, budgets: [rack(0.6)] }], how: 'allotted' } as const;

describe('a budget is kept', () => {
  test.each([
    { power: 1, time: 1, ratePerS: 6, cv: 1 },
    { power: 1, time: 1, ratePerS: 25, cv: 1 },
    { power: 1.15, time: 1.1, ratePerS: 10, cv: 3 },
    { power: 1.15, time: 1, ratePerS: 25, cv: 1 },
    { power: 0.85, time: 0.9, ratePerS: 20, cv: 3 },
  ])('by what devices truly draw, at $power x the believed power and $ratePerS requests per second', ({ power, time, ratePerS, cv }) => {
    const { budgets = [], reports } = run(ratePerS, { truthScale: { power, time }, power: CAPPED }, cv);
    expect(budgets).toHaveLength(1);
    expect(budgets[0]?.overMs).toBeLessThanOrEqual(CONTROL_PERIOD_MS.default);
    expect(budgets[0]?.peakW).toBeGreaterThan(0.3 * REPLICAS * peakW);
    expect(reports.length).toBeGreaterThan(100);
  });

  test('within one control period of its being lowered, and no longer than that above it while limits move', () => {
    const schedule = [{ atMs: 0, budgets: [rack(1)] }, { atMs: 15_030, budgets: [rack(0.5)] }, { atMs: 30_050, budgets: [rack(1)] }];
    const { budgets = [] } = run(25, { truthScale: { power: 1.1 }, power: { schedule, how: 'allotted' } });
    expect(budgets[0]?.longestOverMs).toBeLessThanOrEqual(CONTROL_PERIOD_MS.default);
    expect(budgets[0]?.peakW).toBeGreaterThan(0.6 * REPLICAS * peakW);
  });

  test('each of several that nest', () => {
    const node: PowerBudget = { name: 'node', watts: 1.1 * peakW, replicaIds: [IDS[0] as ReplicaId, IDS[1] as ReplicaId] };
    const { budgets = [] } = run(20, { power: { schedule: [{ atMs: 0, budgets: [rack(0.8), node] }], how: 'allotted' } });
    expect(budgets.map(({ name }) => name)).toEqual(['rack', 'node']);
    for (const { overMs } of budgets) expect(overMs).toBeLessThanOrEqual(CONTROL_PERIOD_MS.default);
  });

  test('by equal limits on all devices as well, which fewer deadlines outlast', () => {
    const worthOf = ({ reports }: SimulatedRun): number => reports.reduce((sum, { met, sloClass }) => sum + (met === true ? (sloClass === 'premium' ? 4 : 1) : 0), 0);
    const uniform = run(25, { policy: { kind: 'max-clock' }, power: { ...CAPPED, how: 'uniform' } });
    expect(uniform.budgets?.[0]?.overMs).toBe(0);
    expect(worthOf(run(25, { power: CAPPED }))).toBeGreaterThan(worthOf(uniform));
  });
});

test('a run without budgets has none to tell of, and one with a budget that never binds meets as much', () => {
  const without = run(6);
  expect(without.budgets).toBeUndefined();
  const loose = run(6, { power: { schedule: [{ atMs: 0, budgets: [rack(2)] }], how: 'allotted' } });
  const met = ({ reports }: SimulatedRun): number => reports.filter((report) => report.met === true).length;
  expect(met(loose)).toBeGreaterThanOrEqual(0.995 * met(without));
});

test('gives the same bytes for the same seed', () => {
  expect(JSON.stringify(run(15, { power: CAPPED }))).toBe(JSON.stringify(run(15, { power: CAPPED })));
});

describe('the meter of budgets', () => {
  const over = (watts: number): PowerBudget => ({ name: 'b', watts, replicaIds: IDS });

  test('tells the longest time above in one go, all of it, and how much', () => {
    const meter = createPowerMeter();
    meter.budgetsAre([over(300)], 0);
    for (const [atMs, powerW] of [[0, 200], [10, 400], [30, 500], [40, 250], [50, 350], [55, 100]] as const) meter.draws(IDS[0] as ReplicaId, powerW, atMs);
    expect(meter.read(100)).toEqual([{ name: 'b', peakW: 500, meanW: (10 * 200 + 20 * 400 + 10 * 500 + 10 * 250 + 5 * 350 + 45 * 100) / 100, longestOverMs: 30, overMs: 35, mostOverW: 200, overJ: (20 * 100 + 10 * 200 + 5 * 50) / 1_000 }]);
  });

  test('counts from the instant at which a cap is lowered, and no draw that lasts no time', () => {
    const meter = createPowerMeter();
    meter.budgetsAre([over(300)], 0);
    meter.draws(IDS[0] as ReplicaId, 280, 0);
    meter.draws(IDS[1] as ReplicaId, 200, 10);
    meter.draws(IDS[1] as ReplicaId, 0, 10);
    meter.budgetsAre([over(250)], 20);
    meter.draws(IDS[0] as ReplicaId, 240, 32);
    expect(meter.read(50)).toMatchObject([{ peakW: 280, longestOverMs: 12, overMs: 12 }]);
  });
});

describe('a fleet under a budget that is too low for all of its replicas', () => {
  const SLEEPER = { ...CLOCK_PROFILE, sleep: { powerW: 40, sleepMs: 2_000, wakeMs: 5_000 } };
  const scarce = (over: Partial<SimulationOptions> = {}): SimulatedRun => run(9, { truth: SLEEPER, belief: SLEEPER, power: { schedule: [{ atMs: 0, budgets: [rack(0.42)] }], how: 'allotted' }, ...over });

  test('keeps it and meets more deadlines where those that get nothing sleep', () => {
    const [awake, sleeping] = [scarce(), scarce({ sleep: { awakeMin: 1 } })];
    const met = ({ reports, rejected }: SimulatedRun): number => reports.filter((report) => report.met === true).length / (reports.length + rejected);
    expect(sleeping.budgets?.[0]?.overMs).toBeLessThanOrEqual(CONTROL_PERIOD_MS.default);
    expect(met(sleeping)).toBeGreaterThan(met(awake) + 0.05);
  });
});

describe('a budget that is nearly too low', () => {
  const LEAST_W = (REPLICAS - 1) * idleW + floorW;
  const underW = (watts: number): NonNullable<SimulationOptions['power']> => ({ schedule: [{ atMs: 0, budgets: [{ name: 'rack', watts, replicaIds: IDS }] }], how: 'allotted' });

  test('is kept by one replica at its slowest, which serves everything in the end', () => {
    const { budgets = [], reports, rejected } = run(0.5, { power: underW(1.02 * LEAST_W) });
    expect(reports.length).toBeGreaterThan(10);
    expect(rejected).toBe(0);
    expect(budgets[0]?.overMs).toBeLessThanOrEqual(CONTROL_PERIOD_MS.default);
  });

  test('below that serves nothing, and a simulation says so instead of going on for ever', () => {
    expect(() => run(0.5, { power: underW(0.98 * LEAST_W) })).toThrow(SimulationStalled);
  });
});
