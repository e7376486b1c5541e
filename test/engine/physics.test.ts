import { describe, expect, test } from 'vitest';
import { createPhysics } from '../../src/engine/physics.ts';
import type { IterationWork } from '../../src/frontier/performance-model.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { fixtureProfile } from './fixture-profile.ts';

const profile = fixtureProfile();
const physics = createPhysics(profile);
const WORKS: Readonly<Record<string, IterationWork>> = {
  prefill: { prefill: { tokens: 1000, contextTokens: 500 }, decode: { sequences: 0, contextTokens: 0 } },
  decode: { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 32, contextTokens: 30_000 } },
  mixed: { prefill: { tokens: 300, contextTokens: -20 }, decode: { sequences: 12, contextTokens: 9000 } },
};

describe.each(Object.entries(WORKS))('%s', (_, work) => {
  test('costs at a measured clock what the performance model says', () => {
    const model = createPerformanceModel(profile);
    model.points.forEach((point, index) => {
      const clockMhz = point.knobs['clockMhz'] as number;
      expect(physics.iterationTimeMs(work, clockMhz)).toBeCloseTo(model.iterationTimeMs(work, index), 9);
      expect(physics.iterationEnergyJ(work, clockMhz)).toBeCloseTo(model.iterationEnergyJ(work, index), 9);
      expect(physics.idlePowerW(clockMhz)).toBeCloseTo(point.idlePowerW, 9);
    });
  });

  test('takes no longer and draws no less the higher the clock, between measured clocks too', () => {
    for (let clockMhz = 345; clockMhz < 1980; clockMhz += 15) {
      expect(physics.iterationTimeMs(work, clockMhz + 15)).toBeLessThanOrEqual(physics.iterationTimeMs(work, clockMhz) + 1e-9);
      expect(physics.iterationPowerW(work, clockMhz + 15)).toBeGreaterThanOrEqual(physics.iterationPowerW(work, clockMhz) - 1e-9);
    }
  });

  test('saves nothing below the lowest measured clock', () => {
    expect(physics.iterationTimeMs(work, 397.5)).toBeCloseTo(2 * physics.iterationTimeMs(work, 795), 9);
    expect(physics.iterationPowerW(work, 397.5)).toBe(physics.iterationPowerW(work, 795));
    expect(physics.idlePowerW(397.5)).toBe(physics.idlePowerW(795));
  });

  test('is scaled where the truth differs from the profile', () => {
    const truth = createPhysics(profile, { time: 1.2, power: 0.85 });
    expect(truth.iterationTimeMs(work, 1500)).toBeCloseTo(1.2 * physics.iterationTimeMs(work, 1500), 9);
    expect(truth.iterationEnergyJ(work, 1500)).toBeCloseTo(1.2 * 0.85 * physics.iterationEnergyJ(work, 1500), 9);
  });
});

test('a prefill between two clocks follows 1/clock, the form the fixture is made of', () => {
  const work = { prefill: { tokens: 2048, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };
  const expectedMs = 0.5 + 2 + (0.02 * 2048 + 4e-7 * 2048 ** 2) / (1400 / 1980);
  expect(physics.iterationTimeMs(work, 1400) / expectedMs).toBeCloseTo(1, 2);
});

test('nothing to do takes no time and draws the idle power', () => {
  const nothing = { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };
  expect(physics.iterationTimeMs(nothing, 1300)).toBe(0);
  expect(physics.iterationPowerW(nothing, 1300)).toBeCloseTo(physics.idlePowerW(1300), 9);
});

test.each([1, 17, 64])('so many decode steps fit into a time as fit one after the other, with %i sequences', (sequences) => {
  const contextTokens = 500 * sequences;
  let passedMs = 0;
  for (let step = 0; step < 200; step++) {
    const stepMs = physics.iterationTimeMs({ prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences, contextTokens: contextTokens + step * sequences } }, 1300);
    expect(physics.decodeStepsWithin({ sequences, contextTokens }, 1300, passedMs + stepMs * 0.999)).toBe(step);
    passedMs += stepMs;
    expect(physics.decodeStepsWithin({ sequences, contextTokens }, 1300, passedMs + 1e-6)).toBe(step + 1);
  }
});

test('points without a clock, or two at one clock, are refused by name', () => {
  const [point, ...others] = profile.points;
  expect(() => createPhysics({ ...profile, points: [{ id: '795MHz', knobs: { powerW: 300 }, idlePowerW: 1 }, ...others] })).toThrow("point '795MHz': the emulated device needs a knob clockMhz");
  expect(() => createPhysics({ ...profile, points: [{ id: '795MHz', knobs: { clockMhz: 1980 }, idlePowerW: point?.idlePowerW ?? 0 }, ...others] })).toThrow('are both at 1980 MHz');
});
