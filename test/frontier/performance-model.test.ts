import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { nonNegativeLeastSquares } from '../../src/frontier/least-squares.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { frontierOf } from '../../src/frontier/work-frontier.ts';
import { CLOCK_PROFILE, madeProfile } from '../fixtures/profiles.ts';

const SPEEDS = [0.45, 0.6, 0.75, 0.9, 1];
const KNOBS = {
  clockMhz: SPEEDS.map((speed) => ({ value: Math.round(1830 * speed), speed })),
  powerLimitW: SPEEDS.map((speed) => ({ value: 250 + Math.round(450 * speed), speed })),
  warpFactor: SPEEDS.map((speed, index) => ({ value: ['crawl', 'walk', 'trot', 'run', 'fly'][index] as string, speed })),
};
const work = fc.record({
  prefill: fc.record({ tokens: fc.nat(4096), contextTokens: fc.nat(8192) }),
  decode: fc.record({ sequences: fc.nat(256), contextTokens: fc.nat(500_000) }),
});

describe('a performance model', () => {
  test('reproduces the rows it was made from and reports by how much it does not', () => {
    const { fitError } = createPerformanceModel(CLOCK_PROFILE);
    expect(fitError.prefill.rows).toBe(CLOCK_PROFILE.prefill.length);
    expect(fitError.prefill.timePct).toBeLessThan(1);
    expect(fitError.decode.timePct).toBeLessThan(3);
    expect(fitError.decode.energyPct).toBeLessThan(4);
    const doubled = { ...CLOCK_PROFILE, decode: CLOCK_PROFILE.decode.map((row, index) => (index % 2 === 0 ? { ...row, timeMs: row.timeMs * 2 } : row)) };
    expect(createPerformanceModel(doubled).fitError.decode.timePct).toBeGreaterThan(10);
  });

  test('is the same whatever the knob is called', () => {
    const [clock, limit, invented] = Object.entries(KNOBS).map(([knob, settings]) => createPerformanceModel(madeProfile({ knob, settings })));
    fc.assert(
      fc.property(work, fc.nat(SPEEDS.length - 1), (each, index) => {
        for (const other of [limit, invented]) {
          expect(other?.iterationTimeMs(each, index)).toBe(clock?.iterationTimeMs(each, index));
          expect(other?.iterationEnergyJ(each, index)).toBe(clock?.iterationEnergyJ(each, index));
        }
      }),
    );
    expect([clock?.fastest, limit?.fastest, invented?.fastest]).toEqual([4, 4, 4]);
  });

  test('takes at least as long and as much energy for more work', () => {
    const model = createPerformanceModel(CLOCK_PROFILE);
    fc.assert(
      fc.property(work, work, fc.nat(model.points.length - 1), (some, more, index) => {
        const both = {
          prefill: { tokens: some.prefill.tokens + more.prefill.tokens, contextTokens: some.prefill.contextTokens + more.prefill.contextTokens },
          decode: { sequences: some.decode.sequences + more.decode.sequences, contextTokens: some.decode.contextTokens + more.decode.contextTokens },
        };
        expect(model.iterationTimeMs(both, index)).toBeGreaterThanOrEqual(model.iterationTimeMs(some, index) - 1e-9);
        expect(model.iterationEnergyJ(both, index)).toBeGreaterThanOrEqual(model.iterationEnergyJ(some, index) - 1e-9);
      }),
    );
  });

  test('makes a mixed batch cheaper than its parts apart, and dearer than either', () => {
    const model = createPerformanceModel(CLOCK_PROFILE);
    fc.assert(
      fc.property(work, fc.nat(model.points.length - 1), (both, index) => {
        fc.pre(both.prefill.tokens > 0 && both.decode.sequences > 0);
        const prefillMs = model.iterationTimeMs({ ...both, decode: { sequences: 0, contextTokens: 0 } }, index);
        const decodeMs = model.iterationTimeMs({ ...both, prefill: { tokens: 0, contextTokens: 0 } }, index);
        const mixedMs = model.iterationTimeMs(both, index);
        expect(mixedMs).toBeLessThan(prefillMs + decodeMs);
        expect(mixedMs).toBeGreaterThanOrEqual(Math.max(prefillMs, decodeMs) - 1e-9);
      }),
    );
  });

  test('draws in a mixed batch no more power than its hungrier part, as a board limit would have it', () => {
    const model = createPerformanceModel(CLOCK_PROFILE);
    fc.assert(
      fc.property(work, fc.nat(model.points.length - 1), (both, index) => {
        fc.pre(both.prefill.tokens > 0 && both.decode.sequences > 0);
        const powerW = (energyJ: number, timeMs: number): number => (1000 * energyJ) / timeMs;
        const prefillW = powerW(model.prefillEnergyJ(both.prefill, index), model.prefillTimeMs(both.prefill, index));
        const decodeW = powerW(model.decodeEnergyJ(both.decode, index), model.decodeTimeMs(both.decode, index));
        const mixedW = powerW(model.iterationEnergyJ(both, index), model.iterationTimeMs(both, index));
        expect(mixedW).toBeLessThanOrEqual(Math.max(prefillW, decodeW, model.idlePowerW(index)) + 1e-6);
      }),
    );
  });

  test('costs nothing where there is nothing to do', () => {
    const model = createPerformanceModel(CLOCK_PROFILE);
    const nothing = { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };
    expect([model.iterationTimeMs(nothing, 0), model.iterationEnergyJ(nothing, 0)]).toEqual([0, 0]);
  });
});

test('a false optimum of busy energy disappears when idling until the horizon counts', () => {
  const model = createPerformanceModel(CLOCK_PROFILE);
  const steps = [{ prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 4, contextTokens: 4000 } }];
  const busy = frontierOf(model, steps);
  const slowestMs = model.iterationTimeMs(steps[0] as (typeof steps)[number], 0);
  const withIdle = frontierOf(model, steps, { horizonMs: slowestMs });
  const saved = (frontier: typeof busy): number => 1 - (frontier.at(-1)?.energyJ ?? 0) / (frontier[0]?.energyJ ?? 1);
  expect(saved(withIdle)).toBeGreaterThan(saved(busy));
});

describe('non-negative least squares', () => {
  test('finds the coefficients that made the data', () => {
    const coefficient = fc.double({ min: 0, max: 50, noNaN: true });
    fc.assert(
      fc.property(coefficient, coefficient, coefficient, (a, b, c) => {
        const rows = [1, 2, 3, 5, 8, 13].map((x) => [1, x, x * x * 1000]);
        const fit = nonNegativeLeastSquares(rows, rows.map(([one = 0, x = 0, square = 0]) => a * one + b * x + c * square));
        [a, b, c].forEach((want, index) => expect(Math.abs((fit[index] as number) - want)).toBeLessThan(1e-4));
      }),
    );
  });

  test('gives 0 rather than a negative coefficient, and all zeros without rows', () => {
    expect(nonNegativeLeastSquares([[1, 1], [1, 2], [1, 3]], [3, 2, 1]).every((value) => value >= 0)).toBe(true);
    expect(nonNegativeLeastSquares([], [])).toEqual([]);
  });
});
