import { describe, expect, test } from 'vitest';
import { createCorrections } from '../../src/core/corrections.ts';
import type { EnergyWindow } from '../../src/core/energy-ledger.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const SLOWEST = model.bySlowness[0] as number;
const STEP = { sequences: 8, contextTokens: 8_000 };

function window(over: Partial<EnergyWindow> = {}): EnergyWindow {
  return { group: null, point: model.fastest, steady: true, windowMs: 500, busyMs: 500, measuredWorkJ: 100, modelledWorkJ: 100, prefillShare: 0, othersShare: 0, idlePowerW: null, ...over };
}

function after(play: (corrections: ReturnType<typeof createCorrections>) => void, times = 60): ReturnType<typeof createCorrections> {
  const corrections = createCorrections(model);
  for (let round = 0; round < times; round++) play(corrections);
  return corrections;
}

describe('times', () => {
  test('are as believed before anything is seen', () => {
    const { time, priced } = createCorrections(model);
    expect([...time.prefill, ...time.decode].every((scale) => scale === 1)).toBe(true);
    expect(priced.decodeEnergyJ(STEP, SLOWEST)).toBe(model.decodeEnergyJ(STEP, SLOWEST));
  });

  test('that are off throughout are corrected at points that were never seen', () => {
    const { time } = after((corrections) => corrections.timeSeen('decode', 3, 1.2));
    for (const scale of time.decode) expect(scale).toBeCloseTo(1.2, 1);
    expect([...time.prefill].every((scale) => scale === 1)).toBe(true);
  });

  test('that are right at one point and wrong at another are corrected there', () => {
    const { time } = after((corrections) => {
      corrections.timeSeen('decode', model.fastest, 1);
      corrections.timeSeen('decode', SLOWEST, 1.3);
    });
    expect(time.decode[model.fastest]).toBeGreaterThan(0.97);
    expect(time.decode[model.fastest]).toBeLessThan(1.06);
    expect(time.decode[SLOWEST]).toBeGreaterThan(1.22);
  });

  test('that get worse from point to point are not taken for better where nobody looked', () => {
    const { time } = after((corrections) => {
      corrections.timeSeen('decode', model.fastest, 1.1);
      corrections.timeSeen('decode', model.bySlowness.at(-2) as number, 1.0);
    });
    expect(time.decode[SLOWEST]).toBeGreaterThan(0.97);
  });

  test('of nonsense are bounded or ignored', () => {
    const { time } = after((corrections) => {
      corrections.timeSeen('decode', 0, 1e9);
      corrections.timeSeen('decode', 0, Number.NaN);
      corrections.timeSeen('decode', 0, -1);
    });
    expect(Math.max(...time.decode)).toBeLessThanOrEqual(2.01);
    expect([...time.decode].every(Number.isFinite)).toBe(true);
  });
});

describe('joules', () => {
  test('follow the time where nobody meters, for power is believed', () => {
    const { priced } = after((corrections) => corrections.timeSeen('decode', 2, 1.2));
    expect(priced.decodeEnergyJ(STEP, 2) / model.decodeEnergyJ(STEP, 2)).toBeCloseTo(1.2, 1);
  });

  test('are as measured, at the point and phase where they were, whatever times do', () => {
    const { priced } = after((corrections) => {
      corrections.timeSeen('decode', 2, 1.2);
      corrections.energySeen(window({ point: 2, measuredWorkJ: 90 }));
    }, 200);
    expect(priced.decodeEnergyJ(STEP, 2) / model.decodeEnergyJ(STEP, 2)).toBeCloseTo(0.9, 1);
  });

  test('of prompts and of tokens are told apart by windows with more of the one or the other', () => {
    const { priced } = after((corrections) => {
      for (const prefillShare of [0.1, 0.9]) corrections.energySeen(window({ prefillShare, measuredWorkJ: 100 * (prefillShare * 1.3 + (1 - prefillShare) * 0.8) }));
    }, 300);
    const prompt = { tokens: 500, contextTokens: 0 };
    expect(priced.prefillEnergyJ(prompt, model.fastest) / model.prefillEnergyJ(prompt, model.fastest)).toBeCloseTo(1.3, 1);
    expect(priced.decodeEnergyJ(STEP, model.fastest) / model.decodeEnergyJ(STEP, model.fastest)).toBeCloseTo(0.8, 1);
  });

  test.each([{ steady: false }, { busyMs: 100 }, { othersShare: 0.5 }, { modelledWorkJ: 0 }, { measuredWorkJ: 0 }])('of a window that says nothing are left: %o', (over) => {
    const { priced } = after((corrections) => corrections.energySeen(window({ measuredWorkJ: 200, ...over })));
    expect(priced.decodeEnergyJ(STEP, model.fastest)).toBe(model.decodeEnergyJ(STEP, model.fastest));
  });

  test('of idling are as measured; a slower point that was never measured idles at no more', () => {
    const { priced } = after((corrections) => corrections.energySeen(window({ modelledWorkJ: 0, idlePowerW: 123 })), 1);
    expect(priced.idlePowerW(model.fastest)).toBe(123);
    expect(priced.idlePowerW(SLOWEST)).toBe(123);
  });
});
