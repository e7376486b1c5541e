import { describe, expect, test } from 'vitest';
import { createBandit } from '../../../src/simulator/rivals/bandit.ts';
import { RIVALS } from '../../../src/simulator/rivals/rivals.ts';
import { simulate } from '../../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../../src/workload/synthetic.ts';
import { CLOCK_PROFILE } from '../../fixtures/profiles.ts';

const POINTS = [0, 1, 2, 3, 4, 5, 6, 7];
const CONTEXT = [1, 0.3];

/** Costs with a valley at a point, and some deterministic wobble. */
function costOf(point: number, valley: number, round: number): number {
  return 100 * (1 + 0.08 * Math.abs(point - valley)) * (1 + 0.02 * Math.sin(7 * round));
}

function play(valley: number, rounds: number, bandit = createBandit(POINTS, CONTEXT.length, 0)): { readonly bandit: typeof bandit; readonly chosen: readonly number[] } {
  const chosen: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const point = bandit.choose(CONTEXT);
    expect(bandit.open()).toContain(point);
    chosen.push(point);
    bandit.learn(point, CONTEXT, costOf(point, valley, round));
  }
  return { bandit, chosen };
}

describe("AGFT's bandit", () => {
  test.each([0, 3, 5, 7])('converges on a stationary load whose cheapest point is %d', (valley) => {
    const { bandit, chosen } = play(valley, 400);
    expect(bandit.phase).toBe('exploiting');
    const late = chosen.slice(-100);
    expect(late.filter((point) => Math.abs(point - valley) <= 1).length).toBeGreaterThan(90);
  });

  test('tries every point at first', () => {
    expect(new Set(play(4, 10).chosen).size).toBe(POINTS.length);
  });

  test('prunes a point that is far too dear after two tries, and whatever is slower still', () => {
    const bandit = createBandit(POINTS, CONTEXT.length, 0);
    for (const point of [7, 7, 3, 3]) bandit.learn(point, CONTEXT, point === 3 ? 250 : 100);
    expect(bandit.open()).toEqual([4, 5, 6, 7]);
  });

  test('never prunes below three points', () => {
    const bandit = createBandit(POINTS, CONTEXT.length, 0);
    for (const point of POINTS) for (let round = 0; round < 6; round++) bandit.learn(point, CONTEXT, 100 * 3 ** (7 - point));
    expect(bandit.open().length).toBeGreaterThanOrEqual(3);
    expect(bandit.open()).toContain(7);
  });

  test('begins anew when costs drift up, so that what was pruned may be right again', () => {
    const { bandit } = play(1, 300);
    expect(bandit.open()).not.toContain(7);
    for (let round = 0; round < 200; round++) {
      const point = bandit.choose(CONTEXT);
      bandit.learn(point, CONTEXT, 3 ** Math.min(5, round / 10) * costOf(point, 7, round));
    }
    expect(bandit.open()).toContain(7);
  });
});

test('AGFT ends near the least energy-delay product of all static points under a steady load', () => {
  const workload = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: 4 }, durationS: 400, seed: 2, promptTokens: { kind: 'fixed', tokens: 800 }, outputTokens: { kind: 'fixed', tokens: 150 } });
  const shared = { requests: workload.requests, classes: workload.requests.map(() => ({ name: 'any', slo: {} })), replicas: 2, truth: CLOCK_PROFILE, belief: CLOCK_PROFILE, seed: 1 };
  const productOf = (policy: Parameters<typeof simulate>[0]['policy']): number => {
    const { reports, energyJ, durationMs } = simulate({ ...shared, policy });
    return (energyJ / durationMs) * reports.reduce((sum, { tpotMs }) => sum + (tpotMs ?? 0), 0);
  };
  const products = CLOCK_PROFILE.points.map(({ id }) => productOf({ kind: 'static', pointId: id }));
  const learnt = productOf({ kind: 'rival-factory', create: RIVALS.agft, margin: 0 });
  expect(learnt).toBeLessThan(1.06 * Math.min(...products));
  expect(learnt).toBeLessThan(Math.max(...products));
}, 60_000);
