import { describe, expect, test } from 'vitest';
import { type SimulatedRun, simulate } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const workload = makeSynthetic({
  arrivals: { kind: 'poisson', ratePerS: 4 },
  durationS: 150,
  seed: 5,
  promptTokens: { kind: 'lognormal', meanTokens: 800, cv: 0.8 },
  outputTokens: { kind: 'lognormal', meanTokens: 150, cv: 0.8 },
});
const classes = workload.requests.map(() => ({ name: 'chat', slo: { ttftMs: 1000, tpotMs: 50 } }));

function run(over: Partial<Parameters<typeof simulate>[0]> = {}): SimulatedRun {
  return simulate({ requests: workload.requests, classes, replicas: 3, truth: CLOCK_PROFILE, belief: CLOCK_PROFILE, policy: { kind: 'paceline' }, seed: 1, ...over });
}

function attainment({ reports }: SimulatedRun): number {
  return reports.filter(({ met }) => met === true).length / workload.requests.length;
}

/** Energy over the same span: what one run did not need it idles away, which the mean power counts in. */
function meanPowerW({ energyJ, durationMs }: SimulatedRun): number {
  return (1000 * energyJ) / durationMs;
}

describe('the decision code on virtual time', () => {
  test('keeps attainment and saves at least 20 % of the energy of the maximum clock', () => {
    const maximum = run({ policy: { kind: 'max-clock' } });
    const paced = run();
    expect(attainment(maximum)).toBeGreaterThan(0.99);
    expect(attainment(paced)).toBeGreaterThan(attainment(maximum) - 0.01);
    expect(meanPowerW(paced)).toBeLessThan(0.8 * meanPowerW(maximum));
  });

  test.each([0.8, 1.2])('keeps attainment when the truth takes %d times what is believed', (time) => {
    expect(attainment(run({ truthScale: { time } }))).toBeGreaterThan(0.98);
  });

  test('gives the same bytes for the same seed, and others for another', () => {
    expect(JSON.stringify(run())).toBe(JSON.stringify(run()));
    expect(JSON.stringify(run({ seed: 2 }))).not.toBe(JSON.stringify(run()));
  });

  test('ends every job exactly once', () => {
    const { reports, rejected } = run();
    expect(new Set(reports.map(({ jobId }) => jobId)).size).toBe(reports.length);
    expect(reports.length + rejected).toBe(workload.requests.length);
  });
});
