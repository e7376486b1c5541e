import { expect, test } from 'vitest';
import { startingProfile } from '../../src/cold-start/starting-profile.ts';
import { type SimulatedRun, type SimulationOptions, simulate } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const DURATION_S = 240;
const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: 4 }, durationS: DURATION_S, seed: 5, promptTokens: { kind: 'lognormal', meanTokens: 800, cv: 0.8 }, outputTokens: { kind: 'lognormal', meanTokens: 150, cv: 0.8 } });
const nothingKnown = startingProfile({ name: 's', model: 'm', engine: 'e', device: 'd', devices: 4, clocksMhz: CLOCK_PROFILE.points.map(({ knobs }) => Number(knobs['clockMhz'])), powerLimitW: 700, serving: CLOCK_PROFILE.serving });

function run(over: Partial<SimulationOptions>): SimulatedRun {
  return simulate({ requests, classes: requests.map(() => ({ name: 'chat', slo: { ttftMs: 1000, tpotMs: 50 } })), replicas: 3, truth: CLOCK_PROFILE, belief: CLOCK_PROFILE, policy: { kind: 'paceline' }, seed: 1, metered: true, sampleEnergyEveryMs: 1_000, untilMs: 250_000, ...over });
}

function met({ reports }: SimulatedRun, fromS: number, untilS: number): number {
  const within = reports.filter(({ jobId }) => (requests[Number(jobId)]?.atMs ?? 0) >= fromS * 1000 && (requests[Number(jobId)]?.atMs ?? 0) < untilS * 1000);
  return within.filter((report) => report.met === true).length / within.length;
}

function joules({ energySamples = [] }: SimulatedRun, fromS: number, untilS: number): number {
  const at = (atS: number): number => energySamples.find(({ atMs }) => atMs >= atS * 1000)?.energyJ ?? 0;
  return at(untilS) - at(fromS);
}

test('a fleet of which only the clocks are known keeps its deadlines from the first request on, and soon takes little more than with the right profile', () => {
  const [cold, right, maximum] = [run({ belief: nothingKnown, learns: true }), run({}), run({ policy: { kind: 'max-clock' } })];
  for (const [fromS, untilS] of [[0, 20], [20, 60], [60, DURATION_S]] as const) expect(met(cold, fromS, untilS)).toBeGreaterThan(met(maximum, fromS, untilS) - 0.02);
  expect(joules(cold, 120, DURATION_S)).toBeLessThan(1.1 * joules(right, 120, DURATION_S));
  expect(joules(cold, 120, DURATION_S)).toBeLessThan(0.8 * joules(maximum, 120, DURATION_S));
});

test('before it has seen enough it runs as a plain gateway does', () => {
  const untilMs = 2_000;
  const few = requests.filter(({ atMs }) => atMs < untilMs);
  const options = { requests: few, classes: few.map(() => ({ name: 'chat', slo: { ttftMs: 1000, tpotMs: 50 } })), untilMs: 3_000 };
  const demands: (string | null)[] = [];
  run({ ...options, belief: nothingKnown, learns: true, observer: { onEffect: (effect, nowMs) => void (effect.kind === 'demand' && nowMs < 1_000 && demands.push(effect.point?.id ?? null)), onRoute: () => {} } });
  expect(new Set(demands)).toEqual(new Set(['c1830']));
});
