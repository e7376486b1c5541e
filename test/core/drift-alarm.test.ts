import { describe, expect, test } from 'vitest';
import { createDriftAlarm, DRIFT_BATCH, type Drift } from '../../src/core/drift-alarm.ts';
import { standardNormal } from '../../src/random/distributions.ts';
import { createRandom } from '../../src/random/random.ts';

const SEED = 11;

/** Samples whose batches have this standard deviation, one a second. */
function played(batches: number, { mean, deviation, seed = SEED, alarm = createDriftAlarm(), fromMs = 0 }: { mean: number; deviation: number; seed?: number; alarm?: ReturnType<typeof createDriftAlarm>; fromMs?: number }): { alarm: ReturnType<typeof createDriftAlarm>; firstAt: number | null; states: readonly Drift['kind'][] } {
  const random = createRandom(seed, 'drift');
  const normal = (): number => standardNormal(random);
  let firstAt: number | null = null;
  const states: Drift['kind'][] = [];
  for (let batch = 0; batch < batches; batch++) {
    for (let sample = 0; sample < DRIFT_BATCH; sample++) alarm.observe(Math.exp(mean + deviation * Math.sqrt(DRIFT_BATCH) * normal()), fromMs + 1_000 * (batch * DRIFT_BATCH + sample));
    const { kind } = alarm.state();
    if (kind === 'drifted') firstAt ??= batch + 1;
    states.push(kind);
  }
  return { alarm, firstAt, states };
}

describe('a replica that is what its profile says', () => {
  test.each([0.02, 0.05, 0.1])('raises no false alarm in 20 000 batches whose deviation is %d', (deviation) => {
    expect(played(20_000, { mean: 0, deviation }).firstAt).toBeNull();
  });

  test('raises none where it is off by less than is tolerated', () => {
    expect(played(5_000, { mean: Math.log(1.05), deviation: 0.04 }).firstAt).toBeNull();
    expect(played(5_000, { mean: Math.log(0.95), deviation: 0.04 }).firstAt).toBeNull();
  });

  test('in very noisy batches raises one about as rarely as the approximation says, and not ten times as often', () => {
    // σ = 0.25: k = 0.38, b = 9.166; (exp(2kb) − 2kb − 1)/(2k²) = 3 700 batches a side, half of that for both, less for an estimated deviation.
    const runs = Array.from({ length: 30 }, (_, run) => played(20_000, { mean: 0, deviation: 0.25, seed: run + 1 }).firstAt ?? 20_000);
    const mean = runs.reduce((sum, batches) => sum + batches, 0) / runs.length;
    expect(mean).toBeGreaterThan(400);
    expect(mean).toBeLessThan(8_000);
  });
});

describe('a replica that has left its profile', () => {
  test.each([
    { ratio: 1.23, within: 8 },
    { ratio: 0.8, within: 8 },
    { ratio: 1.15, within: 30 },
  ])('by $ratio is told of within $within batches, with its ratio and when it began', ({ ratio, within }) => {
    const { alarm } = played(200, { mean: 0, deviation: 0.05 });
    const fromMs = 200 * DRIFT_BATCH * 1_000;
    const { firstAt } = played(within, { mean: Math.log(ratio), deviation: 0.05, alarm, fromMs, seed: SEED + 1 });
    expect(firstAt).not.toBeNull();
    played(40, { mean: Math.log(ratio), deviation: 0.05, alarm, fromMs: fromMs + within * DRIFT_BATCH * 1_000, seed: SEED + 2 });
    const state = alarm.state();
    if (state.kind !== 'drifted') throw new Error('it is over too soon');
    expect(state.ratio).toBeGreaterThan(ratio * 0.93);
    expect(state.ratio).toBeLessThan(ratio * 1.07);
    expect(Math.abs(state.sinceMs - fromMs)).toBeLessThanOrEqual(3 * DRIFT_BATCH * 1_000);
  });

  test('is told of once, and no more when it is back', () => {
    const { alarm } = played(30, { mean: Math.log(1.3), deviation: 0.05 });
    expect(alarm.state().kind).toBe('drifted');
    const { states } = played(60, { mean: 0, deviation: 0.05, alarm, seed: SEED + 3 });
    expect(states.at(-1)).toBe('steady');
    expect(states.filter((kind, batch) => batch > 0 && kind !== states[batch - 1])).toHaveLength(1);
  });

  test('one sample that is far off is none', () => {
    const { alarm } = played(50, { mean: 0, deviation: 0.03 });
    alarm.observe(1_000, 0);
    for (const ratio of [Number.NaN, 0, -1]) alarm.observe(ratio, 0);
    played(3, { mean: 0, deviation: 0.03, alarm });
    expect(alarm.state()).toEqual({ kind: 'steady' });
  });
});
