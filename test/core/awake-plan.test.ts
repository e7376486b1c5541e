import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type AwakeLoad, type AwakePlan, COMBINATIONS_MAX, LOAD_PARTS, planAwake, type ReplicaKind } from '../../src/core/awake-plan.ts';
import { evenScale } from '../../src/core/corrections.ts';
import { pointRate } from '../../src/core/point-rate.ts';
import { parkedPowerW } from '../../src/core/work-energy.ts';
import { createPerformanceModel, type PerformanceModel } from '../../src/frontier/performance-model.ts';
import { madeProfile } from '../fixtures/profiles.ts';

const model = (devices: number, speed: number): PerformanceModel => createPerformanceModel(madeProfile({ knob: 'level', settings: [0.5, 0.75, 1].map((value) => ({ value, speed: value * speed })), devices }));
const [SMALL, MIDDLE, LARGE] = [model(2, 0.5), model(4, 1), model(8, 1.6)] as const;
const scaleOf = (of: PerformanceModel) => evenScale(of.points.length, { prefill: 1, decode: 1 });

function kind(of: PerformanceModel, over: Partial<ReplicaKind> = {}): ReplicaKind {
  return { model: of, timeScale: scaleOf(of), priced: of, sequencesMax: 256, replicas: 2, alwaysAwake: 0, sleepPowerW: 50, ...over };
}

const LOAD: AwakeLoad = { arrivalsPerMs: 0.004, peakPerMs: 0.006, promptTokensMean: 800, prefillTokensMean: 800, outputTokensMean: 150, tpotMs: 50, ttftMs: 2_000 };

const kinds = fc.array(
  fc.record({ of: fc.constantFrom(SMALL, MIDDLE, LARGE), replicas: fc.integer({ min: 1, max: 3 }), alwaysAwake: fc.integer({ min: 0, max: 1 }), sleepPowerW: fc.integer({ min: 0, max: 400 }), sequencesMax: fc.constantFrom(8, 64, 256) }).map(({ of, ...over }) => kind(of, over)),
  { minLength: 1, maxLength: 3 },
);
const loads = fc.record({ arrivalsPerMs: fc.double({ min: 0, max: 0.02, noNaN: true }), burst: fc.double({ min: 1, max: 3, noNaN: true }), tpotMs: fc.constantFrom(30, 50, 100, Number.POSITIVE_INFINITY), ttftMs: fc.constantFrom(300, 1_000, Number.POSITIVE_INFINITY) }).map(
  ({ arrivalsPerMs, burst, ...slo }): AwakeLoad => ({ ...LOAD, ...slo, arrivalsPerMs, peakPerMs: arrivalsPerMs * burst }),
);

/** Every count of every kind, and every way to give the parts of the load to them, each replica at whichever point is cheapest. */
function bruteForce(all: readonly ReplicaKind[], load: AwakeLoad, awakeMin: number): number {
  let leastW = Number.POSITIVE_INFINITY;
  const rates = all.map(({ model: of, timeScale, priced, sequencesMax }) => of.points.map((_, point) => pointRate(of, point, load, { timeScale, priced, parkedW: parkedPowerW(priced) }, sequencesMax)));
  const eachW = (index: number, perMs: number): number => {
    const parkedW = parkedPowerW((all[index] as ReplicaKind).priced);
    if (perMs === 0) return parkedW;
    return Math.min(...(rates[index] ?? []).map((rate) => (perMs <= rate.mostPerMs && rate.firstTokenMs(perMs) <= load.ttftMs ? parkedW + 1000 * perMs * rate.excessJ(perMs) : Number.POSITIVE_INFINITY)));
  };
  const visit = (index: number, awake: number, roomPerMs: number, partsLeft: number, powerW: number): void => {
    const own = all[index];
    if (own === undefined) {
      if (awake >= awakeMin && roomPerMs >= load.peakPerMs && partsLeft === 0) leastW = Math.min(leastW, powerW);
      return;
    }
    for (let count = own.alwaysAwake; count <= own.replicas; count++) {
      for (let parts = 0; parts <= (count === 0 ? 0 : partsLeft); parts++) {
        const busyW = count === 0 ? 0 : count * eachW(index, (parts * load.arrivalsPerMs) / LOAD_PARTS / count);
        const room = Math.max(0, rates[index]?.[own.model.fastest]?.mostPerMs ?? 0);
        visit(index + 1, awake + count, roomPerMs + count * room, partsLeft - parts, powerW + busyW + (own.replicas - count) * own.sleepPowerW);
      }
    }
  };
  visit(0, 0, 0, load.arrivalsPerMs > 0 ? LOAD_PARTS : 0, 0);
  return leastW;
}

test('is the least power of all counts and all ways to share the load, on every fleet small enough to enumerate', () => {
  fc.assert(
    fc.property(kinds, loads, fc.integer({ min: 0, max: 3 }), (all, load, awakeMin) => {
      const plan = planAwake(all, load, awakeMin);
      const leastW = bruteForce(all, load, awakeMin);
      expect(plan.sustains).toBe(leastW < Number.POSITIVE_INFINITY);
      if (plan.sustains) expect(plan.powerW).toBeCloseTo(leastW, 6);
      else expect(plan.awake).toEqual(all.map(({ replicas }) => replicas));
    }),
    { numRuns: 200 },
  );
});

test('keeps those awake that must be, serves all that comes, and has room for the peak', () => {
  fc.assert(
    fc.property(kinds, loads, (all, load) => {
      const { awake, perMsEach, sustains } = planAwake(all, load, 1);
      for (const [index, { alwaysAwake, replicas }] of all.entries()) {
        expect(awake[index]).toBeGreaterThanOrEqual(alwaysAwake);
        expect(awake[index]).toBeLessThanOrEqual(replicas);
      }
      if (sustains) expect(awake.reduce((sum, count, index) => sum + count * (perMsEach[index] as number), 0)).toBeCloseTo(load.arrivalsPerMs, 9);
    }),
  );
});

const total = ({ awake }: AwakePlan): number => awake.reduce((sum, count) => sum + count, 0);

test('with nothing to do only the least that may be is awake', () => {
  const nothing = { ...LOAD, arrivalsPerMs: 0, peakPerMs: 0 };
  expect([0, 1, 3].map((awakeMin) => total(planAwake([kind(MIDDLE, { replicas: 4 })], nothing, awakeMin)))).toEqual([0, 1, 3]);
});

test('more may come, and as many are awake as that needs, never fewer', () => {
  const counts = [0.002, 0.008, 0.016, 0.03].map((peakPerMs) => total(planAwake([kind(MIDDLE, { replicas: 8 })], { ...LOAD, arrivalsPerMs: 0.002, peakPerMs }, 1)));
  expect(counts).toEqual(counts.toSorted((a, b) => a - b));
  expect(counts.at(-1)).toBeGreaterThan(counts[0] as number);
});

test('of unlike replicas those are woken that serve the load for fewer watts, and not where they are too slow for what is wanted', () => {
  const fleet = [kind(SMALL, { replicas: 4 }), kind(LARGE, { replicas: 4 })];
  const little = { ...LOAD, arrivalsPerMs: 0.0005, peakPerMs: 0.001 };
  expect(planAwake(fleet, little, 1).awake).toEqual([1, 0]);
  expect(planAwake(fleet, { ...little, tpotMs: 22 }, 1).awake).toEqual([0, 1]);
});

test('a cap on what one is sent at once takes more of them', () => {
  const at = (sequencesMax: number): number => total(planAwake([kind(MIDDLE, { replicas: 8, sequencesMax })], { ...LOAD, arrivalsPerMs: 0.01, peakPerMs: 0.012 }, 1));
  expect(at(8)).toBeGreaterThan(at(256));
});

test('of a fleet too large for every count evenly spaced ones are looked at, all awake and the fewest among them', () => {
  const plan = planAwake([kind(MIDDLE, { replicas: 1_000 }), kind(LARGE, { replicas: 1_000 })], { ...LOAD, arrivalsPerMs: 1, peakPerMs: 1.3 }, 1);
  expect(plan.sustains).toBe(true);
  expect(total(plan)).toBeLessThan(1_000);
  expect(COMBINATIONS_MAX).toBeLessThan(1_000 * 1_000);
});
