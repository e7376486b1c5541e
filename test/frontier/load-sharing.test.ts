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

test('no split of the load draws less than the bound, and the split that is told draws that but for one replica between two of its points', () => {
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
      expect(shared.replicas.reduce((sum, each) => sum + each.ratePerS, 0)).toBeCloseTo(ratePerS, 6);
      for (const { ratePerS: part, point } of shared.replicas) expect(point.ratePerS).toBeGreaterThanOrEqual(part - 1e-6);
      const between = shared.replicas.map((each, index) => each.point.powerW - hullPowerW(hulls[index] as RatePoint<number>[], each.ratePerS)).filter((extraW) => extraW > 1e-6);
      expect(between.length).toBeLessThanOrEqual(1);
      expect(shared.powerW).toBeCloseTo(shared.boundW + (between[0] ?? 0), 6);
    }),
    { numRuns: 3_000, seed: 51 },
  );
});

test('nobody hurries while another could do it for less: moving a little of the load never saves, and the marginal power is what one more costs', () => {
  fc.assert(
    fc.property(replicasOf, fc.double({ min: 0, max: 15, noNaN: true }), (replicas, ratePerS) => {
      const shared = shareLoad(replicas, ratePerS);
      const little = 1e-4;
      const more = shareLoad(replicas, ratePerS + little);
      if (shared.kind === 'infeasible') return;
      if (more.kind === 'meets') expect((more.boundW - shared.boundW) / little).toBeGreaterThanOrEqual(shared.marginalJ - 1e-3);
      const hulls = replicas.map(rateHull);
      for (const [from, { ratePerS: fromRate }] of shared.replicas.entries()) {
        for (const [to, { ratePerS: toRate }] of shared.replicas.entries()) {
          if (from === to || fromRate < little) continue;
          const before = hullPowerW(hulls[from] as RatePoint<number>[], fromRate) + hullPowerW(hulls[to] as RatePoint<number>[], toRate);
          const after = hullPowerW(hulls[from] as RatePoint<number>[], fromRate - little) + hullPowerW(hulls[to] as RatePoint<number>[], toRate + little);
          expect(after).toBeGreaterThanOrEqual(before - 1e-6);
        }
      }
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

test('more than all can serve is infeasible and says what they can; nobody at all can serve nothing', () => {
  expect(shareLoad([[{ ratePerS: 3, powerW: 10, choice: 0 }], [{ ratePerS: 1, powerW: 4, choice: 0 }]], 5)).toEqual({ kind: 'infeasible', mostPerS: 4 });
  expect(shareLoad([], 0)).toEqual({ kind: 'infeasible', mostPerS: 0 });
});

test('a replica without a way, and a load that is none, are refused', () => {
  expect(() => shareLoad([[{ ratePerS: 3, powerW: 10, choice: 0 }], []], 1)).toThrow('replica 1: has no way to serve or to wait');
  for (const ratePerS of [-1, Number.NaN]) expect(() => shareLoad([], ratePerS)).toThrow(`got a load of ${ratePerS} requests/s, want 0 or more`);
});
