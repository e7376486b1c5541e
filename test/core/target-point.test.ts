import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { evenScale } from '../../src/core/corrections.ts';
import { type FleetLoad, leastPower, marginalJ, targetPoint } from '../../src/core/target-point.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const model = createPerformanceModel(CLOCK_PROFILE);

function load(over: Partial<FleetLoad> = {}): FleetLoad {
  return { arrivalsPerMs: 0.004, replicas: 4, promptTokensMean: 800, prefillTokensMean: 800, outputTokensMean: 150, tpotMs: 50, timeScale: evenScale(model.points.length, { prefill: 1, decode: 1 }), priced: model, ...over };
}

function target(over: Partial<FleetLoad> = {}): number {
  return targetPoint(model, load(over));
}

describe('the point that a fleet does best at', () => {
  test('is the fastest where no point keeps the limit, or the fleet is too small for all others', () => {
    expect(target({ tpotMs: 5 })).toBe(model.fastest);
    expect(target({ arrivalsPerMs: 10 })).toBe(model.fastest);
  });

  test('is no slower for a load that is heavier, a limit that is tighter or machines that are slower than believed', () => {
    fc.assert(
      fc.property(fc.double({ min: 0.001, max: 0.03, noNaN: true }), fc.integer({ min: 22, max: 100 }), (arrivalsPerMs, tpotMs) => {
        // One replica: with more, a heavier load may open another, and all then run slower.
        const at = (over: Partial<FleetLoad>): number => target({ arrivalsPerMs, tpotMs, replicas: 1, ...over });
        expect(at({ arrivalsPerMs: arrivalsPerMs * 1.5 })).toBeGreaterThanOrEqual(at({}));
        expect(at({ tpotMs: tpotMs * 0.8 })).toBeGreaterThanOrEqual(at({}));
        expect(at({ timeScale: evenScale(model.points.length, { prefill: 1.3, decode: 1.3 }) })).toBeGreaterThanOrEqual(at({}));
      }),
    );
  });

  test('counts whole replicas: just more than one takes is shared by two slower ones', () => {
    const points = Array.from({ length: 60 }, (_, index) => target({ replicas: 2, arrivalsPerMs: 0.0005 * (index + 1), tpotMs: 30 }));
    expect(points.some((point, index) => index > 0 && point < (points[index - 1] as number)), 'it slows down where a second one opens').toBe(true);
  });

  test('is one that is known, also without limits and without load', () => {
    for (const over of [{ tpotMs: Infinity }, { arrivalsPerMs: 0 }, { outputTokensMean: 1 }, { promptTokensMean: 1, prefillTokensMean: 1 }]) {
      expect(model.points[target(over)]).toBeDefined();
    }
  });
});

describe('what one more takes', () => {
  const one = (over: Partial<FleetLoad>): number => marginalJ(model, load(over));

  test('is most where nothing runs yet, least where a batch has room, and more again where more would take a faster point', () => {
    const [empty, halfFull, full] = [0.0001, 0.002, 0.02].map((arrivalsPerMs) => one({ arrivalsPerMs, replicas: 1, tpotMs: 30 }));
    expect(empty).toBeGreaterThan(halfFull as number);
    expect(full).toBeGreaterThan(halfFull as number);
  });

  test('is infinite where the fleet cannot serve as many', () => {
    expect(leastPower(model, load({ arrivalsPerMs: 10 }))).toBe(null);
    expect(one({ arrivalsPerMs: 10 })).toBe(Number.POSITIVE_INFINITY);
  });

  test('has its part of a replica that would sleep without it', () => {
    expect(one({ arrivalsPerMs: 0.02, awakeW: 100 })).toBeGreaterThan(one({ arrivalsPerMs: 0.02 }));
  });
});
