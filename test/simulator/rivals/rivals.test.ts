import { describe, expect, test } from 'vitest';
import { RIVALS, type RivalName, isRivalName } from '../../../src/simulator/rivals/rivals.ts';
import { type SimulatedRun, simulate } from '../../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../../src/workload/synthetic.ts';
import { CLOCK_PROFILE } from '../../fixtures/profiles.ts';

const NAMES = Object.keys(RIVALS) as RivalName[];
const SLO_AWARE: readonly RivalName[] = ['voltanallm', 'throttllem', 'dynamollm', 'greenllm'];

const workload = makeSynthetic({
  arrivals: { kind: 'poisson', ratePerS: 4 },
  durationS: 60,
  seed: 3,
  promptTokens: { kind: 'lognormal', meanTokens: 800, cv: 0.8 },
  outputTokens: { kind: 'lognormal', meanTokens: 150, cv: 0.8 },
});
const SLOS = [{ ttftMs: 1000, tpotMs: 50 }, { ttftMs: 600, tpotMs: 30 }, { e2eMs: 20_000 }, {}] as const;

function run(name: RivalName, over: { readonly margin?: number; readonly seed?: number; readonly slo?: (typeof SLOS)[number] } = {}): SimulatedRun {
  const { margin = 0, seed = 1, slo } = over;
  return simulate({
    requests: workload.requests,
    classes: workload.requests.map((_, index) => ({ name: 'any', slo: slo ?? SLOS[index % SLOS.length] ?? {} })),
    replicas: 2,
    truth: CLOCK_PROFILE,
    belief: CLOCK_PROFILE,
    policy: { kind: 'rival-factory', create: RIVALS[name], margin },
    seed,
    untilMs: 90_000,
  });
}

describe.each(NAMES)('the rival %s', (name) => {
  const first = run(name);

  test('finishes a small workload of all kinds of limits, with every job ended once', () => {
    expect(first.rejected).toBe(0);
    expect(new Set(first.reports.map(({ jobId }) => jobId)).size).toBe(workload.requests.length);
    expect(first.reports.every(({ outcome }) => outcome === 'finished')).toBe(true);
  });

  test('gives the same bytes for the same seed', () => {
    expect(JSON.stringify(run(name))).toBe(JSON.stringify(first));
  });

  test('never takes more energy than the default clocks', () => {
    expect(first.energyJ).toBeLessThanOrEqual(run('driver').energyJ);
  });
});

describe.each(SLO_AWARE)('the SLO-aware rival %s', (name) => {
  const slo = { ttftMs: 1000, tpotMs: 50 };

  test('saves at least a third of the default energy and keeps nineteen in twenty jobs within loose limits', () => {
    const { reports, energyJ } = run(name, { slo });
    expect(energyJ).toBeLessThan(run('driver', { slo }).energyJ * (2 / 3));
    expect(reports.filter(({ met }) => met === true).length).toBeGreaterThan(0.95 * reports.length);
  });

  test('runs no slower with a margin', () => {
    expect(run(name, { margin: 0.4 }).clockMhzMean).toBeGreaterThanOrEqual(run(name).clockMhzMean);
  });

  test('is bound by nothing where jobs carry no limit', () => {
    expect(run(name, { slo: {} }).clockMhzMean).toBeLessThan(1000);
  });
});

test('a rival is known by its name and by no other', () => {
  expect(NAMES.every(isRivalName)).toBe(true);
  expect(['paceline', 'toString', ''].some(isRivalName)).toBe(false);
});
