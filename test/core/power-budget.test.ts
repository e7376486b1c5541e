import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ReplicaId } from '../../src/core/job.ts';
import { allotPower, assertFeasible, InfeasibleBudget, leastToServeW, limitsOnTheWay, type LossAtLimit, type PowerBudget, type PowerClaim } from '../../src/core/power-budget.ts';

const id = (index: number): ReplicaId => `r${index}` as ReplicaId;
const IDLE_W = 100;
const FLOOR_W = 200;
const PEAK_W = 600;
/** Losses at 100 (nothing sent), 200, 300, … 600 W. */
const LEVELS_W = [200, 300, 400, 500, 600];

function claim(index: number, over: Partial<Omit<PowerClaim, 'losses'>> & { readonly losses?: readonly LossAtLimit[] } = {}): PowerClaim {
  const { losses = [{ limitW: IDLE_W, loss: 1 }, { limitW: FLOOR_W, loss: 0 }], ...rest } = over;
  return { replicaId: id(index), idleW: IDLE_W, floorW: FLOOR_W, peakW: PEAK_W, busy: true, wantedW: PEAK_W, ...rest, losses: () => losses };
}

const fleet = (watts: number, count: number): PowerBudget => ({ name: 'fleet', watts, replicaIds: Array.from({ length: count }, (_, index) => id(index)) });
const sumOf = (limitsW: readonly number[], { replicaIds }: PowerBudget): number => replicaIds.reduce((sum, replicaId) => sum + (limitsW[Number(replicaId.slice(1))] as number), 0);

/** What each step of 100 W saves, the first from 200 W on; convex where they fall. */
function curve(savings: readonly number[]): LossAtLimit[] {
  let loss = savings.reduce((sum, saved) => sum + saved, 0);
  const losses = [{ limitW: IDLE_W, loss: loss + 100 }, { limitW: FLOOR_W, loss }];
  for (const [step, saved] of savings.entries()) {
    loss -= saved;
    losses.push({ limitW: LEVELS_W[step + 1] as number, loss });
  }
  return losses;
}

const lossAt = (losses: readonly LossAtLimit[], limitW: number): number => {
  const after = losses.findIndex((point) => point.limitW >= limitW - 1e-6);
  if (after < 0) return losses.at(-1)?.loss ?? 0;
  const [from, to] = [losses[Math.max(0, after - 1)] as LossAtLimit, losses[after] as LossAtLimit];
  return to.limitW === from.limitW ? to.loss : to.loss + ((from.loss - to.loss) * (to.limitW - limitW)) / (to.limitW - from.limitW);
};

const savings = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 4, maxLength: 4 });
const convex = savings.map((all) => all.toSorted((a, b) => b - a));
/** A fleet of two racks of two. */
const nested = fc.record({ fleetW: fc.integer({ min: 8, max: 24 }), firstW: fc.integer({ min: 4, max: 12 }), secondW: fc.integer({ min: 4, max: 12 }) }).map(({ fleetW, firstW, secondW }): PowerBudget[] => [
  { name: 'fleet', watts: 100 * fleetW, replicaIds: [id(0), id(1), id(2), id(3)] },
  { name: 'rack a', watts: 100 * firstW, replicaIds: [id(0), id(1)] },
  { name: 'rack b', watts: 100 * secondW, replicaIds: [id(2), id(3)] },
]);

describe('watts are shared out', () => {
  test('so that where they do not reach as little is lost as by trying every way, with nested budgets and convex losses', () => {
    fc.assert(
      fc.property(fc.array(convex, { minLength: 4, maxLength: 4 }), nested, (all, budgets) => {
        const curves = all.map(curve);
        const { limitsW, exceeded } = allotPower(curves.map((losses, index) => claim(index, { losses })), budgets);
        expect(exceeded).toEqual([]);
        let best = Number.POSITIVE_INFINITY;
        for (const a of LEVELS_W) for (const b of LEVELS_W) for (const c of LEVELS_W) for (const d of LEVELS_W) {
          const tried = [a, b, c, d];
          if (budgets.some((budget) => sumOf(tried, budget) > budget.watts)) continue;
          best = Math.min(best, curves.reduce((sum, losses, index) => sum + lossAt(losses, tried[index] as number), 0));
        }
        const lost = curves.reduce((sum, losses, index) => sum + lossAt(losses, limitsW[index] as number), 0);
        expect(lost).toBeLessThanOrEqual(best + 1e-6);
      }),
      { numRuns: 400 },
    );
  });

  test('within every budget, whatever is claimed and however budgets overlap; never below idle power, nor below the floor of what has work', () => {
    const any = fc.record({ busy: fc.boolean(), wantedW: fc.integer({ min: 100, max: 700 }), savings });
    const budget = fc.record({ watts: fc.integer({ min: 0, max: 3_000 }), members: fc.subarray([0, 1, 2, 3, 4]) });
    fc.assert(
      fc.property(fc.array(any, { minLength: 5, maxLength: 5 }), fc.array(budget, { maxLength: 4 }), (all, told) => {
        const claims = all.map(({ busy, wantedW, savings: saved }, index) => claim(index, { busy, wantedW, losses: curve(saved) }));
        const budgets = told.map(({ watts, members }, index): PowerBudget => ({ name: `b${index}`, watts, replicaIds: members.map(id) }));
        const { limitsW, exceeded, closed } = allotPower(claims, budgets);
        for (const one of budgets) {
          const lowestW = one.replicaIds.reduce((sum, replicaId) => sum + (claims[Number(replicaId.slice(1))]?.busy === true ? FLOOR_W : IDLE_W), 0);
          expect(exceeded.includes(one.name)).toBe(lowestW > one.watts);
          if (exceeded.length === 0) expect(sumOf(limitsW, one)).toBeLessThanOrEqual(one.watts + 1e-3);
        }
        for (const [index, limitW] of limitsW.entries()) {
          expect(limitW).toBeGreaterThanOrEqual(all[index]?.busy === true ? FLOOR_W : IDLE_W);
          expect(limitW).toBeLessThanOrEqual(PEAK_W + 1e-6);
          // Who has less than its floor is sent nothing.
          expect(closed[index] === true || limitW >= FLOOR_W - 1e-3).toBe(true);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test('where all get what they want, the rest is room for what comes, to all the same part of what they lack', () => {
    const { limitsW, enough } = allotPower([claim(0, { wantedW: 200 }), claim(1, { wantedW: 500 })], [fleet(950, 2)]);
    expect(enough).toBe(true);
    expect(limitsW).toEqual([400, 550]);
  });

  test('without a budget over it a replica gets its peak', () => {
    expect(allotPower([claim(0), claim(1)], [{ name: 'one', watts: 300, replicaIds: [id(0)] }]).limitsW).toEqual([300, PEAK_W]);
  });

  test('losses are not asked for where there is enough', () => {
    const lazy: PowerClaim = { ...claim(0, { wantedW: 300 }), losses: () => expect.fail('asked for') };
    expect(allotPower([lazy], [fleet(300, 1)]).enough).toBe(true);
  });

  test('watts go to whom they save more', () => {
    const { limitsW } = allotPower([claim(0, { losses: curve([1, 1, 1, 1]) }), claim(1, { losses: curve([4, 4, 4, 4]) })], [fleet(800, 2)]);
    expect(limitsW).toEqual([200, 600]);
  });

  test('what a replica had of watts and could not open with goes to one that can', () => {
    // Room for the smaller one alone; the larger one saves more for a watt.
    const larger = claim(0, { busy: false, floorW: 250, losses: [{ limitW: IDLE_W, loss: 100 }, { limitW: 250, loss: 0 }] });
    const smaller = claim(1, { busy: false, losses: [{ limitW: IDLE_W, loss: 1 }, { limitW: FLOOR_W, loss: 0 }] });
    const { closed, limitsW } = allotPower([larger, smaller], [fleet(IDLE_W + FLOOR_W + 1, 2)]);
    expect(closed).toEqual([true, false]);
    expect(limitsW[0]).toBeCloseTo(IDLE_W);
  });

  test('the least that serves anything is one floor beside the others idle', () => {
    expect(leastToServeW([{ idleW: 100, floorW: 200 }, { idleW: 50, floorW: 180 }, { idleW: 70, floorW: 90 }])).toBe(100 + 50 + 90);
    expect(leastToServeW([])).toBe(0);
  });

  test('where not all can be at their floor the idle ones that are worth least are closed, and idle', () => {
    const worth = (loss: number): LossAtLimit[] => [{ limitW: IDLE_W, loss }, { limitW: FLOOR_W, loss: 0 }];
    const { limitsW, closed, exceeded } = allotPower([claim(0, { busy: false, losses: worth(1) }), claim(1, { busy: false, losses: worth(5) }), claim(2, { busy: false, losses: worth(2) })], [fleet(450, 3)]);
    expect(closed).toEqual([true, false, true]);
    expect(limitsW[0]).toBe(IDLE_W);
    expect(limitsW[1]).toBeGreaterThanOrEqual(FLOOR_W);
    expect(exceeded).toEqual([]);
  });

  test('where what has work does not fit at its lowest, all are there, the budget is named, and who is to get nothing more as well', () => {
    const { limitsW, closed, exceeded } = allotPower([claim(0, { losses: curve([9, 9, 9, 9]) }), claim(1)], [fleet(350, 2)]);
    expect(exceeded).toEqual(['fleet']);
    expect(limitsW).toEqual([FLOOR_W, FLOOR_W]);
    expect(closed.filter(Boolean)).toHaveLength(1);
  });

  test('what cannot be limited counts with its peak', () => {
    const { limitsW, closed } = allotPower([claim(0, { fixed: true }), claim(1)], [fleet(900, 2)]);
    expect(limitsW).toEqual([PEAK_W, 300]);
    expect(closed).toEqual([false, false]);
  });
});

describe('limits on their way', () => {
  test('are lowered at once and raised as far as is free by then', () => {
    const before = [{ replicaId: id(0), holdsW: 500, targetW: 200 }, { replicaId: id(1), holdsW: 300, targetW: 600 }];
    expect(limitsOnTheWay(before, [fleet(800, 2)])).toEqual([200, 300]);
    expect(limitsOnTheWay([{ replicaId: id(0), holdsW: 200, targetW: 200 }, before[1] as (typeof before)[number]], [fleet(800, 2)])).toEqual([200, 600]);
  });

  test('never let what may be drawn rise above a budget that was kept before', () => {
    const one = fc.record({ holdsW: fc.integer({ min: 100, max: 600 }), targetW: fc.integer({ min: 100, max: 600 }) });
    fc.assert(
      fc.property(fc.array(one, { minLength: 3, maxLength: 3 }), (all) => {
        const replicas = all.map((state, index) => ({ replicaId: id(index), ...state }));
        const cap = Math.max(replicas.reduce((sum, { holdsW }) => sum + holdsW, 0), replicas.reduce((sum, { targetW }) => sum + targetW, 0));
        const limitsW = limitsOnTheWay(replicas, [fleet(cap, 3)]);
        expect(replicas.reduce((sum, { holdsW }, index) => sum + Math.max(holdsW, limitsW[index] as number), 0)).toBeLessThanOrEqual(cap + 1e-6);
        for (const [index, limitW] of limitsW.entries()) expect(limitW).toBeLessThanOrEqual(replicas[index]?.targetW as number);
      }),
    );
  });

  test('are none for who is under no budget', () => {
    expect(limitsOnTheWay([{ replicaId: id(0), holdsW: 500, targetW: Number.POSITIVE_INFINITY }], [])).toEqual([Number.POSITIVE_INFINITY]);
  });
});

test('a budget below the idle power of what is under it is refused, with both figures', () => {
  const told = (): void => assertFeasible([fleet(150, 2)], () => IDLE_W);
  expect(told).toThrow(InfeasibleBudget);
  expect(told).toThrow(/'fleet': got 150 W, .* draws 200 W with nothing to do/);
  expect(() => assertFeasible([fleet(200, 2)], () => IDLE_W)).not.toThrow();
});
