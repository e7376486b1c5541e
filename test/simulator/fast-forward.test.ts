import { describe, expect, test } from 'vitest';
import { ALL_MECHANISMS } from '../../src/core/mechanisms.ts';
import { percentiles } from '../../src/statistics/percentiles.ts';
import { type SimulatedRun, type SimulationOptions, simulate } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const workload = makeSynthetic({
  arrivals: { kind: 'bursty', ratePerS: 4, cv: 2 },
  durationS: 60,
  seed: 11,
  promptTokens: { kind: 'lognormal', meanTokens: 900, cv: 1 },
  outputTokens: { kind: 'lognormal', meanTokens: 150, cv: 1 },
});
/** So little memory that sequences are thrown out and computed again. */
const CROWDED = { ...CLOCK_PROFILE, serving: { ...CLOCK_PROFILE.serving, kvTokens: 16_000 } };

function run(over: Partial<SimulationOptions>): SimulatedRun {
  const { requests } = { ...workload, ...over };
  const classes = requests.map(() => ({ name: 'chat', slo: { ttftMs: 1000, tpotMs: 50 } }));
  return simulate({ requests, classes, replicas: 2, truth: CLOCK_PROFILE, belief: CLOCK_PROFILE, policy: { kind: 'max-clock' }, seed: 1, ...over });
}

function timesOf({ reports }: SimulatedRun): Map<string, (number | null)[]> {
  return new Map(reports.map(({ jobId, ttftMs, tpotMs, e2eMs, outputTokens, replicaId }) => [`${jobId} on ${replicaId}`, [ttftMs, tpotMs, e2eMs, outputTokens]]));
}

describe('tokens told in bulk', () => {
  test.each([
    { policy: { kind: 'max-clock' }, truth: CLOCK_PROFILE },
    { policy: { kind: 'max-clock' }, truth: CROWDED },
    { policy: { kind: 'static', pointId: '1230' }, truth: CLOCK_PROFILE },
    // Without residuals: those are learnt from stretches of tokens, which are not cut alike, and one route that is a near tie then goes the other way.
    { policy: { kind: 'paceline' }, truth: CLOCK_PROFILE, mechanisms: { ...ALL_MECHANISMS, residuals: false } },
  ] as const)('give the same reports and energy as token by token under $policy', ({ policy, truth, ...over }) => {
    const [bulk, each] = (['first-and-last', 'each'] as const).map((tokenEvents) => run({ policy, truth, belief: truth, tokenEvents, untilMs: 100_000, ...over })) as [SimulatedRun, SimulatedRun];
    const [bulkTimes, eachTimes] = [timesOf(bulk), timesOf(each)];
    expect([...bulkTimes.keys()].sort()).toEqual([...eachTimes.keys()].sort());
    for (const [job, times] of eachTimes) times.forEach((time, index) => expect(bulkTimes.get(job)?.[index], job).toBeCloseTo(time as number, 5));
    expect(bulk.durationMs).toBe(100_000);
    expect(bulk.energyJ / each.energyJ).toBeCloseTo(1, 6);
    expect(bulk.utilisation).toBeCloseTo(each.utilisation, 8);
    expect(bulk.clockMhzMean).toBeCloseTo(each.clockMhzMean, 4);
  });

  test('make the scheduler no wiser or duller: it predicts the same under a belief that is wrong', () => {
    const [bulk, each] = (['first-and-last', 'each'] as const).map((tokenEvents) => run({ policy: { kind: 'paceline' }, truthScale: { time: 1.2 }, tokenEvents }));
    const mean = (measured: SimulatedRun | undefined): number => (measured?.reports ?? []).reduce((sum, { prediction }) => sum + (prediction?.e2eMs ?? 0), 0);
    expect(mean(bulk) / mean(each)).toBeCloseTo(1, 1);
    expect(percentiles(bulk?.reports.flatMap(({ tpotMs }) => tpotMs ?? []) ?? []).p99).toBeLessThan(55);
  });
});

test('a thousand replicas run, each as it would alone', () => {
  const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: 800 }, durationS: 4, seed: 3, promptTokens: { kind: 'fixed', tokens: 800 }, outputTokens: { kind: 'fixed', tokens: 100 } });
  const many = run({ requests, replicas: 1000 });
  expect(many.reports).toHaveLength(requests.length);
  expect(new Set(many.reports.map(({ replicaId }) => replicaId)).size).toBe(1000);
  const alone = run({ requests: [{ atMs: 0, promptTokens: 800, outputTokens: 100 }], replicas: 1 });
  const first = many.reports.find(({ jobId }) => String(jobId) === '0');
  expect(first?.ttftMs).toBeCloseTo(alone.reports[0]?.ttftMs as number, 6);
});

test('hours with nothing to do cost nothing at maximum clock, but their idle energy counts', () => {
  const dayMs = 86_400_000;
  const one = { atMs: 0, promptTokens: 800, outputTokens: 100 };
  const startedAtMs = performance.now();
  const { energyJ, durationMs } = run({ requests: [one, { ...one, atMs: dayMs }], replicas: 1 });
  expect(performance.now() - startedAtMs).toBeLessThan(1000);
  expect(durationMs).toBeGreaterThan(dayMs);
  const idleW = CLOCK_PROFILE.points.at(-1)?.idlePowerW as number;
  expect((1000 * energyJ) / durationMs).toBeCloseTo(idleW, 0);
});
