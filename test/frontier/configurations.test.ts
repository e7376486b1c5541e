import { expect, test } from 'vitest';
import { configurationsOf, settingsName } from '../../src/frontier/configurations.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE, madeProfile } from '../fixtures/profiles.ts';

test('a profile whose knobs all move while it serves is one configuration: itself', () => {
  expect(configurationsOf(CLOCK_PROFILE)).toEqual([{ settings: {}, profile: CLOCK_PROFILE }]);
});

test('settings that only a restart changes are servers of their own, each with its points and rows', () => {
  const degrees = [2, 4].map((degree) => {
    const { points, prefill, decode } = madeProfile({ knob: 'anything', settings: [1, 2, 3].map((value) => ({ value, speed: value / 3 })), devices: degree });
    const named = (id: string): string => `${degree}-${id}`;
    return { points: points.map((point) => ({ ...point, id: named(point.id), knobs: { ...point.knobs, degree } })), prefill: prefill.map((row) => ({ ...row, point: named(row.point) })), decode: decode.map((row) => ({ ...row, point: named(row.point) })) };
  });
  const whole = { ...CLOCK_PROFILE, knobs: { anything: { unit: 'level' }, degree: { unit: 'devices', changes: 'restart' as const } }, points: degrees.flatMap(({ points }) => points), prefill: degrees.flatMap(({ prefill }) => prefill), decode: degrees.flatMap(({ decode }) => decode) };
  const configurations = configurationsOf(whole);
  expect(configurations.map(({ settings }) => settingsName(settings))).toEqual(['degree 2', 'degree 4']);
  for (const [index, { profile }] of configurations.entries()) {
    expect(profile.points).toEqual(degrees[index]?.points);
    expect([profile.prefill, profile.decode]).toEqual([degrees[index]?.prefill, degrees[index]?.decode]);
    expect(createPerformanceModel(profile).fitError.decode.timePct).toBeLessThan(25);
  }
});
