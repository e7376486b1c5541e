import fc from 'fast-check';
import { expect, test } from 'vitest';
import { plannedBatchCap } from '../../src/core/batch-cap-plan.ts';
import { evenScale } from '../../src/core/corrections.ts';
import type { LoadShape } from '../../src/core/point-rate.ts';
import { createPerformanceModel, NO_PREFILL } from '../../src/frontier/performance-model.ts';
import type { Profile } from '../../src/frontier/profile.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const LOAD: LoadShape = { promptTokensMean: 600, prefillTokensMean: 600, outputTokensMean: 400, tpotMs: 100 };

function cap(load: Partial<LoadShape> = {}, profile: Profile = CLOCK_PROFILE, sequencesMax = 256): number {
  const model = createPerformanceModel(profile);
  return plannedBatchCap(model, { ...LOAD, ...load }, { timeScale: evenScale(model.points.length, { prefill: 1, decode: 1 }), priced: model }, sequencesMax);
}

test('is what is configured where memory, steps and energy speak against nothing', () => {
  expect(cap()).toBe(256);
  expect(cap({}, CLOCK_PROFILE, 100)).toBe(100);
});

test('leaves room in memory for contexts of the mean size', () => {
  expect(cap({}, { ...CLOCK_PROFILE, serving: { ...CLOCK_PROFILE.serving, kvTokens: 26_000 } })).toBe(Math.floor((0.9 * 26_000) / 800));
  expect(cap({}, { ...CLOCK_PROFILE, serving: { ...CLOCK_PROFILE.serving, kvTokens: 300 } }), 'one is always sent').toBe(1);
});

test('keeps the TPOT at the fastest point, and no sequence more would', () => {
  // With one point: with several a larger batch may be dearer because it has to run faster.
  const { id } = CLOCK_PROFILE.points.at(-1) as Profile['points'][number];
  const only: Profile = { ...CLOCK_PROFILE, points: CLOCK_PROFILE.points.slice(-1), prefill: CLOCK_PROFILE.prefill.filter(({ point }) => point === id), decode: CLOCK_PROFILE.decode.filter(({ point }) => point === id) };
  const model = createPerformanceModel(only);
  const stepMs = (sequences: number): number => model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences, contextTokens: sequences * 800 } }, model.fastest);
  fc.assert(
    fc.property(fc.integer({ min: 20, max: 60 }), (tpotMs) => {
      const planned = cap({ tpotMs }, only);
      if (planned > 1) expect(stepMs(planned)).toBeLessThanOrEqual(0.9 * tpotMs);
      if (planned < 256) expect(stepMs(planned + 1)).toBeGreaterThan(0.9 * tpotMs);
    }),
  );
});

test('stops where a token takes more energy again', () => {
  const dearer = { ...CLOCK_PROFILE, decode: CLOCK_PROFILE.decode.map((row) => (row.sequences <= 64 ? row : { ...row, energyJ: row.energyJ * 4 })) };
  expect(cap({ tpotMs: Number.POSITIVE_INFINITY }, dearer)).toBeGreaterThanOrEqual(64);
  expect(cap({ tpotMs: Number.POSITIVE_INFINITY }, dearer)).toBeLessThan(128);
});
