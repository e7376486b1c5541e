import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createPerformanceModel, type IterationWork, NO_PREFILL } from '../../src/frontier/performance-model.ts';
import { limitedModel, peakPowerW, powerRange } from '../../src/frontier/power-limited.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const { floorW, peakW, idleW } = powerRange(model);
const work: fc.Arbitrary<IterationWork> = fc.record({
  prefill: fc.record({ tokens: fc.integer({ min: 0, max: 2048 }), contextTokens: fc.integer({ min: 0, max: 8000 }) }),
  decode: fc.integer({ min: 0, max: 128 }).map((sequences) => ({ sequences, contextTokens: 900 * sequences })),
});
const powerW = (at: IterationWork, point: number): number => (1000 * model.iterationEnergyJ(at, point)) / model.iterationTimeMs(at, point);
const limit = fc.double({ min: 0.5 * idleW, max: 1.2 * peakW, noNaN: true });
const isWork = ({ prefill, decode }: IterationWork): boolean => prefill.tokens + decode.sequences > 0;

describe('a model under a power limit', () => {
  test('takes each work to the fastest point within the limit, not faster than the one asked for', () => {
    fc.assert(
      fc.property(work.filter(isWork), limit, fc.nat(model.points.length - 1), (at, limitW, point) => {
        const held = limitedModel(model, limitW).heldAt(at, point);
        const rank = (of: number): number => model.speedRank[of] as number;
        expect(rank(held)).toBeGreaterThanOrEqual(rank(point));
        const within = model.points.map((_, index) => index).filter((index) => rank(index) >= rank(point) && powerW(at, index) <= limitW);
        if (within.length === 0) expect(rank(held)).toBe(model.points.length - 1);
        else expect(rank(held)).toBe(Math.min(...within.map(rank)));
      }),
    );
  });

  test('is no faster under a lower limit, and is the model itself under one that no work reaches', () => {
    fc.assert(
      fc.property(work.filter(isWork), limit, limit, (at, a, b) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)];
        const timeMs = (limitW: number): number => limitedModel(model, limitW).iterationTimeMs(at, model.fastest);
        expect(timeMs(low)).toBeGreaterThanOrEqual(timeMs(high));
        expect(timeMs(peakW + 1)).toBe(model.iterationTimeMs(at, model.fastest));
      }),
    );
  });

  test('says the same of a work whatever it was asked before', () => {
    fc.assert(
      fc.property(fc.array(work.filter(isWork), { minLength: 1, maxLength: 8 }), limit, (works, limitW) => {
        const used = limitedModel(model, limitW);
        for (const at of works) expect(used.iterationTimeMs(at, model.fastest)).toBe(limitedModel(model, limitW).iterationTimeMs(at, model.fastest));
      }),
    );
  });

  test('idles as it did, and takes no time for nothing', () => {
    const limited = limitedModel(model, floorW);
    for (const point of model.points.keys()) expect(limited.idlePowerW(point)).toBe(model.idlePowerW(point));
    expect(limited.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences: 0, contextTokens: 0 } }, model.fastest)).toBe(0);
  });
});

test('a group draws the most at a point by what was measured there', () => {
  for (const point of model.points.keys()) {
    const peak = peakPowerW(model, point);
    fc.assert(fc.property(work.filter(isWork), (at) => powerW(at, point) <= peak * 1.0001));
  }
  expect(idleW).toBeLessThan(floorW);
  expect(floorW).toBeLessThan(peakW);
});
