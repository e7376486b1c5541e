import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cheapestWithin, type Frontier, type FrontierPoint, parallel, paretoFrontier, sequence, sequenceAtOnePoint, thin, withIdleUntil } from '../../src/frontier/frontier.ts';

// Whole numbers add exactly, so that laws can be checked for equality.
const point = fc.record({ timeMs: fc.integer({ min: 1, max: 500 }), energyJ: fc.integer({ min: 1, max: 500 }), choice: fc.nat(99) });
const candidates = fc.array(point, { minLength: 1, maxLength: 12 });

function leastEnergyWithin(all: readonly FrontierPoint<unknown>[], limitMs: number): number {
  return Math.min(Number.POSITIVE_INFINITY, ...all.filter(({ timeMs }) => timeMs <= limitMs).map(({ energyJ }) => energyJ));
}

function energyOf(frontier: Frontier<unknown>, limitMs: number): number {
  const choice = cheapestWithin(frontier, limitMs);
  return choice.kind === 'meets' ? choice.point.energyJ : Number.POSITIVE_INFINITY;
}

/** Every way to pick one of each. */
function combinations<T>(parts: readonly (readonly T[])[]): T[][] {
  return parts.reduce<T[][]>((begun, part) => begun.flatMap((head) => part.map((next) => [...head, next])), [[]]);
}

describe('a frontier', () => {
  test('holds no point that another beats on both time and energy', () => {
    fc.assert(
      fc.property(candidates, (all) => {
        const frontier = paretoFrontier(all);
        for (const [index, { timeMs, energyJ }] of frontier.entries()) {
          const beaten = all.some((other) => other.timeMs <= timeMs && other.energyJ <= energyJ && (other.timeMs < timeMs || other.energyJ < energyJ));
          expect(beaten).toBe(false);
          const next = frontier[index + 1];
          if (next !== undefined) expect(next.timeMs > timeMs && next.energyJ < energyJ).toBe(true);
        }
      }),
    );
  });

  test('gives the least energy of all candidates within any limit', () => {
    fc.assert(
      fc.property(candidates, fc.integer({ min: 0, max: 600 }), (all, limitMs) => {
        expect(energyOf(paretoFrontier(all), limitMs)).toBe(leastEnergyWithin(all, limitMs));
      }),
    );
  });

  test('never costs more energy when more time is allowed', () => {
    fc.assert(
      fc.property(candidates, fc.nat(600), fc.nat(600), (all, limitMs, moreMs) => {
        const frontier = paretoFrontier(all);
        expect(energyOf(frontier, limitMs + moreMs)).toBeLessThanOrEqual(energyOf(frontier, limitMs));
      }),
    );
  });

  test('names the fastest point as infeasible, not as a plan, when nothing is in time', () => {
    const frontier = paretoFrontier([
      { timeMs: 20, energyJ: 9, choice: 'fast' },
      { timeMs: 40, energyJ: 5, choice: 'slow' },
    ]);
    expect(cheapestWithin(frontier, 19.9)).toEqual({ kind: 'infeasible', fastest: { timeMs: 20, energyJ: 9, choice: 'fast' } });
    expect(cheapestWithin(frontier, 40)).toMatchObject({ kind: 'meets', point: { choice: 'slow' } });
    expect(cheapestWithin([], 40)).toEqual({ kind: 'infeasible', fastest: null });
  });

  test('counts waiting until the horizon: a slow point wins as soon as idling costs more than it saves', () => {
    const race = { timeMs: 10, energyJ: 10, choice: 0 };
    const crawl = { timeMs: 50, energyJ: 12, choice: 1 };
    const idle = (powerW: number) => withIdleUntil([race, crawl], 50, () => powerW).map(({ energyJ }) => energyJ);
    expect(idle(0)).toEqual([10, 12]);
    expect(idle(100)).toEqual([14, 12]);
    expect(withIdleUntil([race], 5, () => 100)).toEqual([race]);
  });
});

describe('composing then choosing is choosing the best composition', () => {
  const parts = fc.array(fc.array(point, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 4 });

  test('of a sequence', () => {
    fc.assert(
      fc.property(parts, fc.nat(2000), (all, limitMs) => {
        const composed = sequence(all.map((part) => paretoFrontier(part)));
        const brute = combinations(all).map((ways) => ({ timeMs: sum(ways, 'timeMs'), energyJ: sum(ways, 'energyJ'), choice: 0 }));
        expect(energyOf(composed, limitMs)).toBe(leastEnergyWithin(brute, limitMs));
      }),
    );
  });

  test('of parallel parts, who waits burning idle power', () => {
    fc.assert(
      fc.property(parts, fc.nat(600), fc.array(fc.constantFrom(0, 1000, 2000), { minLength: 4, maxLength: 4 }), (all, limitMs, idleW) => {
        const composed = parallel(all, (_, part) => idleW[part] as number);
        const brute = combinations(all).map((ways) => {
          const timeMs = Math.max(...ways.map((way) => way.timeMs));
          const waitedJ = ways.map((way, part) => way.energyJ + (timeMs - way.timeMs) * ((idleW[part] as number) / 1000));
          return { timeMs, energyJ: waitedJ.reduce((a, b) => a + b, 0), choice: 0 };
        });
        expect(energyOf(composed, limitMs)).toBe(leastEnergyWithin(brute, limitMs));
      }),
    );
  });

  test('of a sequence that may not switch between its parts', () => {
    const first = [{ timeMs: 1, energyJ: 9, choice: 0 }, { timeMs: 2, energyJ: 4, choice: 1 }];
    const second = [{ timeMs: 10, energyJ: 90, choice: 0 }, { timeMs: 20, energyJ: 40, choice: 1 }];
    expect(sequenceAtOnePoint([first, second])).toEqual([{ timeMs: 11, energyJ: 99, choice: 0 }, { timeMs: 22, energyJ: 44, choice: 1 }]);
  });

  test('names for each part the choice that makes up the whole', () => {
    fc.assert(
      fc.property(parts, (all) => {
        const marked = all.map((part, partIndex) => part.map((way, wayIndex) => ({ ...way, choice: `${partIndex}.${wayIndex}` })));
        for (const { timeMs, energyJ, choice } of sequence(marked.map((part) => paretoFrontier(part)))) {
          const ways = choice.map((name, part) => (marked[part] ?? []).find((way) => way.choice === name) as FrontierPoint<string>);
          expect([sum(ways, 'timeMs'), sum(ways, 'energyJ')]).toEqual([timeMs, energyJ]);
        }
      }),
    );
  });
});

test('a composition with too many points is thinned to its bound, both ends kept, every point real', () => {
  const part = Array.from({ length: 30 }, (_, index) => ({ timeMs: 10 + index * index, energyJ: 2000 - index * 31, choice: index }));
  const whole = sequence([part, part], 10_000);
  const thinned = sequence([part, part], 20);
  expect(whole.length).toBeGreaterThan(20);
  expect(thinned).toHaveLength(20);
  expect([thinned[0], thinned.at(-1)]).toEqual([whole[0], whole.at(-1)]);
  for (const { timeMs, energyJ, choice } of thinned) {
    const ways = choice.map((index) => part[index] as FrontierPoint<number>);
    expect([sum(ways, 'timeMs'), sum(ways, 'energyJ')]).toEqual([timeMs, energyJ]);
  }
  expect(thin(whole, 1)).toHaveLength(1);
});

function sum(points: readonly FrontierPoint<unknown>[], field: 'timeMs' | 'energyJ'): number {
  return points.reduce((total, each) => total + each[field], 0);
}
