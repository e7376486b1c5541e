import { describe, expect, test } from 'vitest';
import { compareProfiles } from '../../src/frontier-view/comparison.ts';
import { phasePoints } from '../../src/frontier-view/phase-points.ts';
import { doubtsOf, notesOf } from '../../src/frontier-view/plausibility.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { DecodeRow, Profile } from '../../src/frontier/profile.ts';
import { loadProfile } from '../../src/profile-file.ts';

const PROFILE = loadProfile('config/profiles/llama-3.1-8b.h200.json');
const model = createPerformanceModel(PROFILE);
const WORK = { promptTokens: 1_000, sequences: 16, contextTokens: 1_000 };
const scaled = (time: number, energy: number): Profile => ({ ...PROFILE, prefill: PROFILE.prefill.map((row) => ({ ...row, timeMs: row.timeMs * time, energyJ: row.energyJ * energy })), decode: PROFILE.decode.map((row) => ({ ...row, timeMs: row.timeMs * time, energyJ: row.energyJ * energy })) });
const changed = (rows: (row: DecodeRow) => DecodeRow, more: Partial<Profile> = {}): Profile => ({ ...PROFILE, ...more, decode: PROFILE.decode.map(rows) });

describe('points of a phase', () => {
  test('that are efficient are beaten by none, and the others by one', () => {
    for (const phase of ['prefill', 'decode'] as const) {
      const points = phasePoints(model, phase, WORK);
      for (const one of points) expect(points.some((other) => other.timeMs <= one.timeMs && other.energyJ <= one.energyJ && (other.timeMs < one.timeMs || other.energyJ < one.energyJ))).toBe(!one.efficient);
    }
  });

  test('of a prompt longer than a batch are of all its chunks', () => {
    const { maxBatchTokens } = PROFILE.serving;
    const one = phasePoints(model, 'prefill', { ...WORK, promptTokens: maxBatchTokens })[0]?.timeMs ?? 0;
    expect(phasePoints(model, 'prefill', { ...WORK, promptTokens: 3 * maxBatchTokens })[0]?.timeMs).toBeGreaterThan(3 * one);
  });

  test('with a horizon count the idling until then, and no more', () => {
    const [plain, idling] = [phasePoints(model, 'decode', WORK), phasePoints(model, 'decode', WORK, 100)];
    for (const [index, { point, timeMs, energyJ }] of plain.entries()) expect(idling[index]?.energyJ).toBeCloseTo(energyJ + (point.idlePowerW * (100 - timeMs)) / 1000, 6);
  });
});

describe('two profiles', () => {
  test('that are one are alike', () => {
    for (const { fastestTimeRatio, leastEnergyRatio, meanEnergyRatio } of compareProfiles(model, model, WORK)) expect([fastestTimeRatio, leastEnergyRatio, meanEnergyRatio]).toEqual([1, 1, expect.closeTo(1, 9)]);
  });

  test('of which one takes less energy for the same time, and the other cannot be as fast, are told so', () => {
    const [, thrifty] = compareProfiles(model, createPerformanceModel(scaled(1, 0.8)), WORK);
    expect(thrifty?.meanEnergyRatio).toBeCloseTo(0.8, 2);
    const [, slow] = compareProfiles(model, createPerformanceModel(scaled(3, 3)), WORK);
    expect(slow?.points[0]?.other).toBeNull();
    expect(slow?.fastestTimeRatio).toBeGreaterThan(2.9);
    expect(slow?.meanEnergyRatio).toBeNull();
  });
});

describe('what is doubted of a profile', () => {
  const whatOf = (profile: Profile): string => doubtsOf(createPerformanceModel(profile)).map(({ where, what }) => `${where}: ${what}`).join('\n');

  test('is nothing of those that are shipped', () => {
    for (const name of ['llama-3.1-8b.h200', 'llama-3.1-70b.h100-tp2', 'llama-3.1-70b.h100-tp4', 'llama-3.1-70b.h100-tp8', 'mistral-7b.v100']) expect(whatOf(loadProfile(`config/profiles/${name}.json`))).toBe('');
  });

  test.each([
    ['a row that took three times as long as the others let expect', changed((row) => (row === PROFILE.decode[20] ? { ...row, timeMs: row.timeMs * 3, energyJ: row.energyJ * 3 } : row)), /decode\[20\]: took/],
    ['rows that no line goes through', changed((row) => ({ ...row, timeMs: row.timeMs * (row.sequences % 3 === 1 ? 2 : 1) })), /the fit of time is off by/],
    ['a faster clock that is slower', changed((row) => (row.point === '1500' ? { ...row, timeMs: row.timeMs * 1.4, energyJ: row.energyJ * 1.4 } : row)), /points "1410" and "1500": a decode step takes .* more should not be slower/],
    ['a faster clock that idles for less', { ...PROFILE, points: PROFILE.points.map((point) => (point.id === '1500' ? { ...point, idlePowerW: 90 } : point)) }, /points "1410" and "1500": idle it draws 90 W/],
    ['batches far smaller than those that will come', { ...PROFILE, decode: PROFILE.decode.filter(({ sequences }) => sequences <= 32) }, /the largest batch measured has \d+ sequences, and the engine takes/],
  ])('is %s', (_, profile, message) => {
    expect(whatOf(profile)).toMatch(message);
  });

  test('is bounded, and the rest is counted', () => {
    const bad = changed((row, ) => ({ ...row, timeMs: row.timeMs * (Math.round(row.contextTokens) % 7 < 3 ? 4 : 1) }));
    const doubts = doubtsOf(createPerformanceModel(bad));
    expect(doubts).toHaveLength(41);
    expect(doubts.at(-1)?.what).toMatch(/^and \d+ more$/);
  });

  test('is not what a device did to itself: that is noted, a line for each point', () => {
    const notes = notesOf(model);
    expect(notes.find(({ where }) => where === 'prefill at "1980"')?.what).toMatch(/^21 of 21 rows were throttled \(sw_power_cap\); it ran at 1667 MHz at the slowest$/);
    expect(new Set(notes.map(({ where }) => where)).size).toBe(notes.length);
  });
});
