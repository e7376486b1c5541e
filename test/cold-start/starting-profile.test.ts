import { describe, expect, test } from 'vitest';
import { startingProfile } from '../../src/cold-start/starting-profile.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { profileProblems } from '../../src/profile-file.ts';

const facts = { name: 's', model: 'm', engine: 'e', device: 'd', devices: 2, powerLimitW: 700, serving: { maxBatchTokens: 2048, maxSequences: 128, kvTokens: 100_000 } };
const all = Array.from({ length: 119 }, (_, index) => 210 + 15 * index);

describe('a profile made from a list of clocks', () => {
  test('is one that is taken, with few points between the highest clock and two fifths of it, all from the list', () => {
    const profile = startingProfile({ ...facts, clocksMhz: all });
    expect(profileProblems(profile)).toEqual([]);
    const clocks = profile.points.map(({ knobs }) => Number(knobs['clockMhz']));
    expect(clocks).toHaveLength(12);
    expect(Math.max(...clocks)).toBe(1980);
    expect(Math.min(...clocks)).toBeGreaterThanOrEqual(0.4 * 1980);
    expect(clocks.every((clockMhz) => all.includes(clockMhz))).toBe(true);
  });

  test('calls no point slower than its clock is lower', () => {
    const model = createPerformanceModel(startingProfile({ ...facts, clocksMhz: all }));
    expect(model.points[model.fastest]?.knobs['clockMhz']).toBe(1980);
    for (const [point, { knobs }] of model.points.entries()) {
      const ratio = model.decodeTimeMs({ sequences: 8, contextTokens: 8000 }, point) / model.decodeTimeMs({ sequences: 8, contextTokens: 8000 }, model.fastest);
      expect(ratio).toBeCloseTo(1980 / Number(knobs['clockMhz']), 6);
    }
  });

  test('can do with a device of one clock, in any order and listed twice, and with none cannot', () => {
    expect(startingProfile({ ...facts, clocksMhz: [900, 1200, 900] }).points.map(({ id }) => id)).toEqual(['c1200', 'c900']);
    expect(profileProblems(startingProfile({ ...facts, clocksMhz: [1200] }))).toEqual([]);
    expect(() => startingProfile({ ...facts, clocksMhz: [] })).toThrow('at least one clock');
  });
});
