import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createFairShares } from '../../src/core/fair-shares.ts';

describe('shares of a fleet', () => {
  test('a tenant that was given more than the others is ahead of them by as long as the fleet served it alone', () => {
    const shares = createFairShares();
    shares.waits('a', 1, 1, 0);
    shares.waits('b', 1, 1, 0);
    shares.charge('a', 1, 4_000, 10);
    expect(shares.aheadMs('a', 4)).toBe(1_000);
    expect(shares.aheadMs('b', 4)).toBe(0);
    shares.charge('b', 1, 1_000, 20);
    expect(shares.aheadMs('a', 4)).toBe(750);
  });

  test('what counts is what was given over the weight', () => {
    const shares = createFairShares();
    for (const [name, weight] of [['a', 1], ['b', 3]] as const) shares.waits(name, weight, 1, 0);
    shares.charge('a', 1, 1_000, 1);
    shares.charge('b', 3, 3_000, 1);
    expect([shares.aheadMs('a', 1), shares.aheadMs('b', 1)]).toEqual([0, 0]);
  });

  test('what a tenant took while nobody waited is neither credit nor debt', () => {
    const shares = createFairShares();
    for (let at = 0; at < 60_000; at += 500) shares.charge('a', 1, 500, at);
    shares.waits('a', 1, 1, 70_000);
    shares.waits('b', 1, 1, 70_000);
    expect([shares.aheadMs('a', 1), shares.aheadMs('b', 1)]).toEqual([0, 0]);
  });

  test('a queue that is empty for a moment ends no busy time', () => {
    const shares = createFairShares();
    shares.waits('a', 1, 1, 0);
    shares.waits('b', 1, 1, 0);
    shares.charge('a', 1, 2_000, 10);
    for (const name of ['a', 'b']) shares.waits(name, 1, -1, 100);
    for (const name of ['a', 'b']) shares.waits(name, 1, 1, 400);
    expect(shares.aheadMs('a', 1)).toBe(2_000);
  });

  test('who comes late to a queue starts where the least served of it is, not at the beginning', () => {
    const shares = createFairShares();
    shares.waits('a', 1, 1, 0);
    shares.charge('a', 1, 9_000, 5);
    shares.waits('b', 1, 1, 6);
    expect([shares.aheadMs('a', 1), shares.aheadMs('b', 1)]).toEqual([0, 0]);
  });

  test('what was charged too much is given back', () => {
    const shares = createFairShares();
    shares.waits('a', 1, 1, 0);
    shares.waits('b', 1, 1, 0);
    shares.charge('a', 1, 2_000, 1);
    shares.charge('a', 1, -1_500, 2);
    expect(shares.aheadMs('a', 1)).toBe(500);
  });

  test('a tenant has had more while its part of what was given lately is above its part of the weights', () => {
    const shares = createFairShares();
    shares.waits('a', 1, 1, 0);
    shares.charge('a', 1, 600, 1);
    shares.charge('b', 1, 400, 1);
    expect([shares.hasHadMore('a', 2), shares.hasHadMore('b', 2), shares.hasHadMore('unknown', 2)]).toEqual([true, false, false]);
    shares.charge('b', 1, 500, 30_000);
    expect([shares.hasHadMore('a', 30_001), shares.hasHadMore('b', 30_001)]).toEqual([false, true]);
  });

  test('served whoever is least ahead, tenants that always wait get their weights, whatever their jobs are worth', () => {
    const tenant = fc.record({ weight: fc.integer({ min: 1, max: 20 }), workMs: fc.integer({ min: 10, max: 400 }) });
    fc.assert(
      fc.property(fc.array(tenant, { minLength: 2, maxLength: 6 }), (tenants) => {
        const shares = createFairShares();
        const names = tenants.map((_, index) => `t${index}`);
        for (const [index, { weight }] of tenants.entries()) shares.waits(`t${index}`, weight, 1, 0);
        const given = tenants.map(() => 0);
        for (let turn = 0; turn < 4_000; turn++) {
          const ahead = names.map((name, index) => shares.aheadMs(name, 1) / (tenants[index]?.weight ?? 1));
          const next = ahead.indexOf(Math.min(...ahead));
          const { weight, workMs } = tenants[next] as (typeof tenants)[number];
          shares.charge(`t${next}`, weight, workMs, turn);
          given[next] = (given[next] as number) + workMs;
        }
        const perWeight = given.map((work, index) => work / (tenants[index]?.weight ?? 1));
        // Nobody is ahead of anybody by more than a job of each.
        const largest = Math.max(...tenants.map(({ weight, workMs }) => workMs / weight));
        expect(Math.max(...perWeight) - Math.min(...perWeight)).toBeLessThanOrEqual(2 * largest + 1e-6);
      }),
    );
  });
});
