import { describe, expect, test } from 'vitest';
import { startingProfile } from '../../src/cold-start/starting-profile.ts';
import { createLearnedModel, type LearnedModel } from '../../src/core/learned-model.ts';
import { learntProfile } from '../../src/core/learnt-profile.ts';
import { createPerformanceModel, NO_DECODE, NO_PREFILL, type PointIndex, promptTimeMs } from '../../src/frontier/performance-model.ts';
import { profileProblems } from '../../src/profile-file.ts';
import { createRandom } from '../../src/random/random.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const truth = createPerformanceModel(CLOCK_PROFILE);
const clocksMhz = CLOCK_PROFILE.points.map(({ knobs }) => Number(knobs['clockMhz']));
const STARTING = startingProfile({ name: 's', model: 'm', engine: 'e', device: 'd', devices: 4, clocksMhz, powerLimitW: 700, serving: CLOCK_PROFILE.serving });
const SEED = 3;

/** The truth's point of the same clock. */
function trueOf({ model }: LearnedModel, point: PointIndex): PointIndex {
  return truth.points.findIndex(({ knobs }) => knobs['clockMhz'] === model.points[point]?.knobs['clockMhz']);
}

function learned(samples: number, pointOf: (learner: LearnedModel, sample: number) => PointIndex, noise = 0.03): LearnedModel {
  const learner = createLearnedModel(STARTING);
  const random = createRandom(SEED, 'learned');
  const noisy = (): number => 1 + noise * (2 * random() - 1);
  for (let sample = 0; sample < samples; sample++) {
    const point = pointOf(learner, sample);
    const real = trueOf(learner, point);
    const sequences = 1 + Math.floor(random() ** 2 * 40);
    const decode = { sequences, contextTokens: sequences * (200 + Math.floor(random() * 1_500)) };
    learner.decodeSeen({ point, decode, stepMs: truth.iterationTimeMs({ prefill: NO_PREFILL, decode }, real) * noisy() });
    const promptTokens = 50 + Math.floor(random() * 3_000);
    const beside = sample % 2 === 0 ? NO_DECODE : decode;
    const tookMs = promptTimeMs(promptTokens, CLOCK_PROFILE.serving.maxBatchTokens, (prefill) => truth.iterationTimeMs({ prefill, decode: beside }, real)) * noisy();
    learner.prefillSeen({ point, promptTokens, cachedTokens: 0, decode: beside, tookMs });
  }
  return learner;
}

const STEPS = [1, 8, 32].map((sequences) => ({ sequences, contextTokens: sequences * 1_000 }));
const PROMPTS = [256, 1024, 2048].map((tokens) => ({ tokens, contextTokens: 0 }));

describe('a model that is learnt', () => {
  test('plans nothing but the fastest point before enough was seen', () => {
    const learner = learned(5, ({ model }) => model.fastest);
    expect(learner.isWarm()).toBe(false);
    for (const point of learner.model.bySlowness) {
      if (point !== learner.model.fastest) expect(learner.model.decodeTimeMs(STEPS[0] as (typeof STEPS)[number], point)).toBeGreaterThan(1_000);
    }
    // Nor where nothing has a deadline: it looks as dear as it looks slow.
    expect(learner.model.decodeEnergyJ(STEPS[0] as (typeof STEPS)[number], 1)).toBeGreaterThan(1e6);
  });

  test('finds the times of the fastest point within a tenth, whatever the starting profile has for them', () => {
    const learner = learned(80, ({ model }) => model.fastest);
    const { fastest } = learner.model;
    for (const decode of STEPS) expect(Math.abs(Math.log(learner.model.decodeTimeMs(decode, fastest) / truth.iterationTimeMs({ prefill: NO_PREFILL, decode }, truth.fastest)))).toBeLessThan(0.1);
    for (const prompt of PROMPTS) expect(Math.abs(Math.log(learner.model.prefillTimeMs(prompt, fastest) / truth.prefillTimeMs(prompt, truth.fastest)))).toBeLessThan(0.12);
  });

  test('says of no point that it has not seen that it is faster than it is', () => {
    const learner = learned(80, ({ model }) => model.fastest);
    for (const point of learner.model.bySlowness) {
      for (const step of STEPS) expect(learner.model.decodeTimeMs(step, point)).toBeGreaterThan(0.93 * truth.decodeTimeMs(step, trueOf(learner, point)));
      for (const prompt of PROMPTS) expect(learner.model.prefillTimeMs(prompt, point)).toBeGreaterThan(0.88 * truth.prefillTimeMs(prompt, trueOf(learner, point)));
    }
  });

  test('knows the points that it has seen within a tenth, from samples of all together', () => {
    const learner = learned(400, ({ model }, sample) => (sample < 60 ? model.fastest : (sample % model.points.length)));
    for (const point of learner.model.bySlowness) {
      for (const step of STEPS) expect(Math.abs(Math.log(learner.model.decodeTimeMs(step, point) / truth.decodeTimeMs(step, trueOf(learner, point))))).toBeLessThan(0.12);
    }
  });

  test('takes no point that it has seen for as slow as a faster one could be that it has not', () => {
    const learner = learned(300, ({ model }, sample) => (sample % 2 === 0 ? model.fastest : (model.bySlowness[0] as number)));
    const slowest = learner.model.bySlowness[0] as number;
    for (const step of STEPS) expect(learner.model.decodeTimeMs(step, slowest) / truth.decodeTimeMs(step, trueOf(learner, slowest))).toBeLessThan(1.12);
    for (const point of learner.model.bySlowness) for (const step of STEPS) expect(learner.model.decodeTimeMs(step, point)).toBeLessThanOrEqual(learner.model.decodeTimeMs(step, slowest));
  });

  test('is not led away by samples that are no measurements', () => {
    const learner = learned(100, ({ model }) => model.fastest);
    const before = learner.model.decodeTimeMs(STEPS[1] as (typeof STEPS)[number], learner.model.fastest);
    for (const stepMs of [1e6, 0, -5, Number.NaN, 1e-6]) learner.decodeSeen({ point: learner.model.fastest, decode: STEPS[1] as (typeof STEPS)[number], stepMs });
    expect(learner.model.decodeTimeMs(STEPS[1] as (typeof STEPS)[number], learner.model.fastest)).toBe(before);
  });

  test('keeps the order of its points, which nobody can learn anew while plans are made by it', () => {
    const learner = learned(300, ({ model }, sample) => sample % model.points.length);
    const times = learner.model.bySlowness.map((point) => learner.model.decodeTimeMs(STEPS[1] as (typeof STEPS)[number], point));
    expect(times).toEqual(times.toSorted((a, b) => b - a));
  });

  test('is written out as a profile that is taken, and says the same', () => {
    const learner = learned(300, ({ model }, sample) => sample % model.points.length);
    const profile = learntProfile({ model: learner.model, priced: learner.model, seenPoints: ['c1830'] }, '2026-11-26');
    expect(profileProblems(profile)).toEqual([]);
    expect(profile.provenance.measuredBy).toContain('learned while serving');
    const again = createPerformanceModel(profile);
    expect(again.points[again.fastest]?.id).toBe(learner.model.points[learner.model.fastest]?.id);
    for (const step of STEPS) expect(again.decodeTimeMs(step, again.fastest)).toBeCloseTo(learner.model.decodeTimeMs(step, learner.model.fastest), 1);
  });
});
