import { expect, test } from 'vitest';
import { standingWatts, type WattsKnown } from '../../src/signals/standing-watts.ts';

const SERIES = { points: [{ atUnixMs: 100, value: 5_000 }, { atUnixMs: 200, value: 3_000 }], endsAtUnixMs: 300 };
const NEVER = Number.POSITIVE_INFINITY;

function at(unixMs: number, { fallbackW = null, override = null, lastW = null, ...more }: { fallbackW?: number | null; failingForMs?: number; series?: typeof SERIES | null; override?: WattsKnown['override']; lastW?: number | null } = {}) {
  const { watts, from, changesAtUnixMs, staleMs } = standingWatts({ configured: { kind: 'schedule', series: SERIES, failingForMs: 0, staleAfterMs: 50, fallbackW, ...more }, override, lastW }, unixMs);
  return [watts, from, changesAtUnixMs, staleMs];
}

test('a series says what it is now, and when that changes', () => {
  expect(at(150)).toEqual([5_000, 'schedule', 200, 0]);
  expect(at(250)).toEqual([3_000, 'schedule', 300, 0]);
});

test('before its first point what was in force goes on, else what is said for such a case, else there is no limit', () => {
  expect(at(50, { lastW: 4_000, fallbackW: 900 })).toEqual([4_000, 'held', 100, 0]);
  expect(at(50, { fallbackW: 900 })).toEqual([900, 'fallback', 100, 0]);
  expect(at(50)).toEqual([null, 'nothing', 100, 0]);
});

test('where it has run out its last value is held, or the watts that are said for it are taken', () => {
  expect(at(340)).toEqual([3_000, 'held', NEVER, 40]);
  expect(at(340, { fallbackW: 900 })).toEqual([900, 'fallback', NEVER, 40]);
});

test('where it cannot be had it goes on for as long as it may be old, and then is held or left', () => {
  expect(at(150, { failingForMs: 50, fallbackW: 900 })).toEqual([5_000, 'schedule', 200, 50]);
  expect(at(150, { failingForMs: 51, fallbackW: 900 })).toEqual([900, 'fallback', 200, 51]);
  expect(at(150, { failingForMs: 51 })).toEqual([5_000, 'held', 200, 51]);
});

test('where there was none yet, nothing is known', () => {
  expect(at(150, { series: null, failingForMs: 7 })).toEqual([null, 'nothing', NEVER, 7]);
  expect(at(150, { series: null, fallbackW: 900 })).toEqual([900, 'fallback', NEVER, 0]);
  expect(at(150, { series: null, lastW: 4_000 })).toEqual([4_000, 'held', NEVER, 0]);
});

test('what an operator says comes before all of it, until its end', () => {
  expect(at(150, { override: { watts: 100, endsAtUnixMs: 170 } })).toEqual([100, 'override', 170, 0]);
  expect(standingWatts({ configured: { kind: 'fixed', watts: 7 }, override: { watts: 8, endsAtUnixMs: 1 }, lastW: null }, 0)).toMatchObject({ watts: 8, from: 'override' });
  expect(standingWatts({ configured: { kind: 'fixed', watts: 7 }, override: null, lastW: 9 }, 0)).toEqual({ watts: 7, from: 'configuration', changesAtUnixMs: NEVER, staleMs: 0 });
});
