// A load shared by unlike replicas: against every split, and at equal marginal power.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type RatePoint, rateHull, shareLoad } from '../../src/frontier/load-sharing.ts';

const replicasOf = fc.array(fc.array(fc.record({ ratePerS: fc.integer({ min: 1, max: 6 }), powerW: fc.integer({ min: 20, max: 200 }) }), { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 4 }).map((replicas) =>
  replicas.map((points): RatePoint<number>[] => [{ ratePerS: 0, powerW: 20, choice: 0 }, ...points.map((point, index) => ({ ...point, choice: index + 1 }))]),
);

/** On the hull; beyond its end there is nothing. */
function hullPowerW(hull: readonly RatePoint<number>[], ratePerS: number): number {
  const upper = hull.findIndex((point) => point.ratePerS >= ratePerS);
  if (upper < 0) return Number.POSITIVE_INFINITY;
  const [to, from] = [hull[upper] as RatePoint<number>, hull[upper - 1]];
  return from === undefined ? to.powerW : from.powerW + ((to.powerW - from.powerW) * (ratePerS - from.ratePerS)) / (to.ratePerS - from.ratePerS);
}

/** With whole rates some best split has whole parts. */
function bestOfAll(hulls: readonly (readonly RatePoint<number>[])[], left: number): number {
  const [hull, ...others] = hulls;
  if (hull === undefined) return left === 0 ? 0 : Number.POSITIVE_INFINITY;
  let best = Number.POSITIVE_INFINITY;
  for (let rate = 0; rate <= left; rate++) best = Math.min(best, hullPowerW(hull, rate) + bestOfAll(others, left - rate));
  return best;
}

test('no split of the load draws less than the bound, and of the split that is told all replicas but one are at bends of their hulls', () => {
  fc.assert(
    fc.property(replicasOf, fc.integer({ min: 0, max: 24 }), (replicas, ratePerS) => {
      const hulls = replicas.map(rateHull);
      const best = bestOfAll(hulls, ratePerS);
      const shared = shareLoad(replicas, ratePerS);
      if (shared.kind === 'infeasible') {
        expect(best).toBe(Number.POSITIVE_INFINITY);
        return;
      }
      expect(shared.boundW).toBeCloseTo(best, 6);
      expect(shared.powerW).toBeGreaterThanOrEqual(best - 1e-6);
      expect(shared.replicas.reduce((sum, each) => sum + each.ratePerS, 0)).toBeCloseTo(ratePerS, 6);
      expect(shared.replicas.reduce((sum, { point }) => sum + point.powerW, 0)).toBeCloseTo(shared.powerW, 6);
      const between = shared.replicas.filter(({ point }, index) => !(hulls[index] as RatePoint<number>[]).some(({ choice }) => choice === point.choice) || point.powerW - hullPowerW(hulls[index] as RatePoint<number>[], point.ratePerS) > 1e-6);
      expect(between.length).toBeLessThanOrEqual(1);
    }),
    { numRuns: 3_000, seed: 51 },
  );
});

test('nobody hurries to wait: no replica has a cheaper point that serves its part, and one more request costs what it is said to', () => {
  fc.assert(
    fc.property(replicasOf, fc.double({ min: 0, max: 15, noNaN: true }), (replicas, ratePerS) => {
      const shared = shareLoad(replicas, ratePerS);
      if (shared.kind === 'infeasible') return;
      for (const [replica, { ratePerS: part, point }] of shared.replicas.entries()) {
        for (const way of replicas[replica] as readonly RatePoint<number>[]) expect(way.ratePerS < part || way.powerW >= point.powerW).toBe(true);
      }
      // On the hulls one more costs what it is said to, and one less saves no more.
      const little = 1e-4;
      const [more, fewer] = [shareLoad(replicas, ratePerS + little), shareLoad(replicas, Math.max(0, ratePerS - little))];
      if (more.kind === 'meets') expect((more.boundW - shared.boundW) / little).toBeGreaterThanOrEqual(shared.marginalJ - 1e-3);
      if (more.kind === 'meets' && fewer.kind === 'meets' && ratePerS > little) expect((shared.boundW - fewer.boundW) / little).toBeLessThanOrEqual((more.boundW - shared.boundW) / little + 1e-3);
    }),
    { numRuns: 2_000, seed: 52 },
  );
});

test('like replicas are alike but for one, and the dear one is used last', () => {
  const cheap = [{ ratePerS: 0, powerW: 100, choice: 'waits' }, { ratePerS: 4, powerW: 300, choice: 'slow' }, { ratePerS: 6, powerW: 600, choice: 'fast' }];
  const dear = [{ ratePerS: 0, powerW: 100, choice: 'waits' }, { ratePerS: 4, powerW: 900, choice: 'slow' }];
  const shared = shareLoad([dear, cheap, cheap], 11);
  expect(shared.kind === 'meets' ? shared.replicas.map(({ ratePerS, point }) => [ratePerS, point.choice]) : []).toEqual([[0, 'waits'], [6, 'fast'], [5, 'fast']]);
  expect(shared.kind === 'meets' ? [shared.boundW, shared.powerW, shared.marginalJ] : []).toEqual([1_150, 1_300, 150]);
});

test('a rest goes to whom it costs least at the points that there are, not where the next piece of a hull would be', () => {
  const large = [{ ratePerS: 0, powerW: 700, choice: 'waits' }, { ratePerS: 1, powerW: 1_500, choice: 'few streams' }, { ratePerS: 10, powerW: 1_900, choice: 'many streams' }];
  const small = [{ ratePerS: 0, powerW: 300, choice: 'waits' }, { ratePerS: 1, powerW: 800, choice: 'few streams' }, { ratePerS: 3, powerW: 1_000, choice: 'many streams' }];
  const shared = shareLoad([large, small], 1);
  expect(shared.kind === 'meets' ? shared.replicas.map(({ ratePerS, point }) => [ratePerS, point.choice]) : []).toEqual([[0, 'waits'], [1, 'few streams']]);
  expect(shared.kind === 'meets' ? [shared.powerW, shared.boundW, shared.marginalJ] : []).toEqual([1_500, 1_120, 120]);
});

test('more than all can serve is infeasible and says what they can; nobody at all can serve nothing', () => {
  expect(shareLoad([[{ ratePerS: 3, powerW: 10, choice: 0 }], [{ ratePerS: 1, powerW: 4, choice: 0 }]], 5)).toEqual({ kind: 'infeasible', mostPerS: 4 });
  expect(shareLoad([], 0)).toEqual({ kind: 'infeasible', mostPerS: 0 });
});

test('a replica without a way, and a load that is none, are refused', () => {
  expect(() => shareLoad([[{ ratePerS: 3, powerW: 10, choice: 0 }], []], 1)).toThrow('replica 1: has no way to serve or to wait');
  for (const ratePerS of [-1, Number.NaN]) expect(() => shareLoad([], ratePerS)).toThrow(`got a load of ${ratePerS} requests/s, want 0 or more`);
});
