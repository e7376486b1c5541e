import { describe, expect, test } from 'vitest';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { parseProfile } from '../../src/profile-file.ts';
import type { Measurement, Work } from '../../src/profiler/measurement.ts';
import { profileOf, type ProfileFacts } from '../../src/profiler/profile-of.ts';
import { worksOf } from '../../src/profiler/works.ts';

const serving = { maxBatchTokens: 2_048, maxSequences: 64, kvTokens: 100_000 };
const { works } = worksOf(serving, 0.1);
const FACTS: ProfileFacts = { name: 'made', model: 'm', engine: { name: 'vllm' }, deviceGroup: { device: 'd', devices: 1 }, serving, switch: { latencyMs: 20 }, provenance: { measuredBy: 'a test', measuredOn: 'd', measuredAt: '2026-11-26', method: 'a formula', sources: [], licence: 'CC0-1.0', madeBy: 'a test' } };

/** A device that is exactly of the form that is fitted: prefill 2 + 0.05·n + 1e-6·n·(n/2 + context), decode 5 + 0.1·B + 2e-5·K. */
function measured(work: Work, clockMhz: number | null, over: Partial<Measurement> = {}): Measurement {
  const common = { clockMhz, work, windowMs: 1_000, count: 50, actualClockMhz: 1_400, throttleReasons: [] };
  if (work.kind === 'idle') return { ...common, timeMs: null, powerW: 100, tokens: 0, ...over };
  if (work.kind === 'decode') {
    const tokens = work.sequences * (work.promptTokens + 50);
    return { ...common, timeMs: 5 + 0.1 * work.sequences + 2e-5 * tokens, powerW: 300, tokens, ...over };
  }
  let timeMs = 0;
  for (let from = 0; from < work.tokens; from += serving.maxBatchTokens) {
    const n = Math.min(serving.maxBatchTokens, work.tokens - from);
    timeMs += 2 + 0.05 * n + 1e-6 * n * (n / 2 + from);
  }
  return { ...common, timeMs, powerW: 500, tokens: work.tokens, ...over };
}

describe('a profile of measurements', () => {
  test('has them as its rows, and the function they were of comes back from it, contexts included', () => {
    const profile = profileOf(works.map((work) => measured(work, 1_400)), [1_400], FACTS);
    const model = createPerformanceModel(parseProfile(profile, 'made'));
    expect(model.fitError.prefill.timePct).toBeLessThan(0.1);
    expect(model.prefillTimeMs({ tokens: 1_000, contextTokens: 6_000 }, 0)).toBeCloseTo(2 + 50 + 1e-3 * 6_500, 1);
    expect(model.decodeTimeMs({ sequences: 20, contextTokens: 50_000 }, 0)).toBeCloseTo(5 + 2 + 1, 1);
    expect(profile?.points).toEqual([{ id: '1400', knobs: { clockMhz: 1_400 }, idlePowerW: 100 }]);
  });

  test('has only the clocks that were measured whole', () => {
    const done = [...works.map((work) => measured(work, 1_400)), measured(works[1] as Work, 900)];
    expect(profileOf(done, [1_400], FACTS)?.points.map(({ id }) => id)).toEqual(['1400']);
  });

  test('is none where energy was not measured: nothing is invented', () => {
    expect(profileOf(works.map((work) => measured(work, 1_400, { powerW: null })), [1_400], FACTS)).toBeNull();
    expect(profileOf(works.slice(1).map((work) => measured(work, 1_400)), [1_400], FACTS)).toBeNull();
  });

  test('at the clock that was found has that clock, and what the device did to itself', () => {
    const profile = profileOf(works.map((work) => measured(work, null, { actualClockMhz: 1_327.4, throttleReasons: ['sw_power_cap'] })), [null], FACTS);
    expect(profile?.points[0]?.knobs).toEqual({ clockMhz: 1_327 });
    expect(profile?.decode[0]?.hardware).toEqual({ actualClockMhz: 1_327, throttleReasons: ['sw_power_cap'] });
  });
});
