import { describe, expect, test } from 'vitest';
import { simulateClairvoyant } from '../../src/simulator/clairvoyant.ts';
import { type SimulatedRun, type SimulationOptions, simulate } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const { requests } = makeSynthetic({
  arrivals: { kind: 'bursty', ratePerS: 2, cv: 2 },
  durationS: 60,
  seed: 7,
  promptTokens: { kind: 'lognormal', meanTokens: 800, cv: 0.8 },
  outputTokens: { kind: 'lognormal', meanTokens: 150, cv: 0.8 },
});
const chat = requests.map(() => ({ name: 'chat', slo: { ttftMs: 1000, tpotMs: 50 } }));
const options: Omit<SimulationOptions, 'policy'> = { requests, classes: chat, replicas: 3, truth: CLOCK_PROFILE, belief: CLOCK_PROFILE, seed: 1, untilMs: (requests.at(-1)?.atMs ?? 0) + 20_000 };

function metCount({ reports }: SimulatedRun): number {
  return reports.filter(({ met }) => met === true).length;
}

describe('the clairvoyant policy', () => {
  const run = simulateClairvoyant(options);

  test('meets every SLO that can be met, and ends every request once', () => {
    expect(run.reports.filter(({ met, prediction }) => prediction?.feasible === true && met !== true)).toEqual([]);
    expect(new Set(run.reports.map(({ jobId }) => jobId)).size).toBe(requests.length);
    expect(run.rejected).toBe(0);
  });

  test('takes less than the policies that do not know the future, over the same window', () => {
    for (const policy of [{ kind: 'max-clock' }, { kind: 'paceline' }, { kind: 'static', pointId: CLOCK_PROFILE.points[0]?.id ?? '' }] as const) {
      const other = simulate({ ...options, policy, routing: 'energy' });
      expect(metCount(run)).toBeGreaterThanOrEqual(metCount(other));
      expect(run.energyJ).toBeLessThan(other.energyJ);
      // The other one stops at the first event after the window.
      expect(Math.abs(other.durationMs - run.durationMs)).toBeLessThanOrEqual(100);
    }
  });

  test('gives the same bytes for the same options', () => {
    expect(JSON.stringify(simulateClairvoyant(options))).toBe(JSON.stringify(run));
  });

  test('serves what cannot meet its SLO, and lets nobody else miss for it', () => {
    const hopeless = { name: 'hopeless', slo: { ttftMs: 1, tpotMs: 50 } };
    const mixed = simulateClairvoyant({ ...options, classes: chat.map((own, index) => (index % 10 === 0 ? hopeless : own)), effort: 0.3 });
    expect(mixed.reports.filter(({ sloClass, met }) => sloClass === 'hopeless' && met === true)).toEqual([]);
    expect(mixed.reports.filter(({ sloClass, met }) => sloClass === 'chat' && met !== true)).toEqual([]);
    expect(mixed.reports.every(({ outcome }) => outcome === 'finished')).toBe(true);
  });

  test('lets requests wait that only have to be done in time, within the window, and takes less for it', () => {
    const batch = requests.map((_, index) => (index % 2 === 0 ? { name: 'batch', slo: { e2eMs: 60_000 } } : { name: 'chat', slo: { ttftMs: 1000, tpotMs: 50 } }));
    const patient = simulateClairvoyant({ ...options, classes: batch });
    expect(patient.reports.every(({ met }) => met === true)).toBe(true);
    expect(patient.durationMs).toBe(options.untilMs);
    expect(patient.energyJ).toBeLessThan(run.energyJ);
  });

  test('serves requests without any SLO, and a workload of none', () => {
    const free = simulateClairvoyant({ ...options, classes: requests.map(() => ({ name: 'best-effort', slo: {} })), effort: 0.2 });
    expect(free.reports.every(({ outcome, met }) => outcome === 'finished' && met === null)).toBe(true);
    expect(simulateClairvoyant({ ...options, requests: [], classes: [] }).reports).toEqual([]);
  });
});
