import { expect, test } from 'vitest';
import { loadProfile } from '../../src/profile-file.ts';
import { type SimulatedRun, simulate } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';

/** Two GPUs hold the weights of this model and few contexts beside them: long answers fill what is left. */
const PROFILE = loadProfile('config/profiles/llama-3.1-70b.h100-tp2.json');

function run(durationS: number, over: Partial<Parameters<typeof simulate>[0]> = {}): SimulatedRun {
  const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: 0.8 }, durationS, seed: 1, promptTokens: { kind: 'fixed', tokens: 600 }, outputTokens: { kind: 'lognormal', meanTokens: 800, cv: 0.5 } });
  return simulate({ requests, classes: requests.map(() => ({ name: 'chat', slo: { ttftMs: 20_000, tpotMs: 150 } })), replicas: 2, truth: PROFILE, belief: PROFILE, policy: { kind: 'paceline' }, seed: 1, ...over });
}

const attainment = ({ reports }: SimulatedRun): number => reports.filter(({ met }) => met === true).length / reports.length;
const perTokenJ = ({ reports, energyJ }: SimulatedRun): number => energyJ / reports.reduce((sum, { outputTokens }) => sum + outputTokens, 0);

test('a cap planned from the profile keeps what is begun in memory: more deadlines are met for no more energy', () => {
  const [without, planned] = [run(400), run(400, { batchCap: 'plan' })];
  expect(attainment(without)).toBeLessThan(0.9);
  expect(attainment(planned)).toBeGreaterThan(0.98);
  expect(perTokenJ(planned)).toBeLessThan(1.01 * perTokenJ(without));
});

test('a learnt cap ends near the best fixed one, and is the same for the same seed', () => {
  const learnt = run(1_500, { batchCap: 'learn' });
  const fixed = [8, 16, 24, 48].map((concurrencyMax) => run(1_500, { concurrencyMax })).filter((one) => attainment(one) >= 0.95);
  expect(fixed.length).toBeGreaterThan(0);
  expect(perTokenJ(learnt)).toBeLessThan(1.15 * Math.min(...fixed.map(perTokenJ)));
  expect(attainment(learnt)).toBeGreaterThan(attainment(run(1_500)));
  expect(JSON.stringify(run(200, { batchCap: 'learn' }))).toBe(JSON.stringify(run(200, { batchCap: 'learn' })));
});
