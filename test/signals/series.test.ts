import { describe, expect, test } from 'vitest';
import { nextChangeAfter, parseSeries, SERIES_POINTS_MAX, SeriesError, valueAt } from '../../src/signals/series.ts';

const at = (time: string): number => Date.parse(time);
const ARRAY = '[{"time":"2026-11-26T18:00:00Z","value":4200},{"time":"2026-11-26T20:00:00+01:00","value":3000.5}]';

describe('a series', () => {
  test.each([
    ['a list', ARRAY],
    ['a list under points', `{"points":${ARRAY}}`],
    ['CSV', 'time,value\n2026-11-26T18:00:00Z,4200\n2026-11-26T20:00:00+01:00,3000.5\n'],
    ['CSV of Windows, with a byte order mark', '\uFEFFtime,value\r\n2026-11-26T18:00Z, 4200\r\n\r\n2026-11-26T20:00:00+01:00,3000.5'],
  ])('is read from %s, and ends as long after its last point as that was after the one before', (_what, text) => {
    expect(parseSeries(text)).toEqual({
      points: [
        { atUnixMs: at('2026-11-26T18:00:00Z'), value: 4_200 },
        { atUnixMs: at('2026-11-26T19:00:00Z'), value: 3_000.5 },
      ],
      endsAtUnixMs: at('2026-11-26T20:00:00Z'),
    });
  });

  test('says its end itself, and has none where it is one point that does not', () => {
    expect(parseSeries('{"points":[{"time":"2026-11-26T18:00:00Z","value":0}],"until":"2026-11-27T00:00:00Z"}').endsAtUnixMs).toBe(at('2026-11-27T00:00:00Z'));
    expect(parseSeries('[{"time":"2026-11-26T18:00:00Z","value":0}]').endsAtUnixMs).toBe(Number.POSITIVE_INFINITY);
  });

  test('holds each value until the next, and has none before its first', () => {
    const series = parseSeries(ARRAY);
    expect([at('2026-11-26T18:00:00Z') - 1, at('2026-11-26T18:00:00Z'), at('2026-11-26T19:00:00Z') - 1, at('2026-11-26T19:00:00Z'), at('2027-01-01T00:00:00Z')].map((unixMs) => valueAt(series, unixMs))).toEqual([null, 4_200, 4_200, 3_000.5, 3_000.5]);
    expect([0, at('2026-11-26T18:00:00Z'), at('2026-11-26T19:00:00Z'), at('2026-11-26T20:00:00Z')].map((unixMs) => nextChangeAfter(series, unixMs))).toEqual([at('2026-11-26T18:00:00Z'), at('2026-11-26T19:00:00Z'), at('2026-11-26T20:00:00Z'), Number.POSITIVE_INFINITY]);
  });

  const point = (time: unknown, value: unknown): string => JSON.stringify([{ time, value }]);
  test.each([
    ['', "line 1: got , want JSON, or CSV with the heading time,value"],
    ['<html>', 'line 1: got <html>, want JSON'],
    ['[', 'it begins like JSON and is none'],
    ['[]', 'it has no point'],
    ['{}', 'points: got nothing, want a list'],
    ['{"points":[],"unit":"W"}', "got the key 'unit'"],
    ['[17]', '[0]: got 17, want {"time"'],
    ['[{"time":"2026-11-26T18:00:00Z","value":1,"unit":"W"}]', "[0]: got the key 'unit'"],
    [point('2026-11-26T18:00:00', 1), '[0].time: got 2026-11-26T18:00:00, want an instant of ISO 8601 with its offset'],
    [point('2026-02-30T18:00:00Z', 1), '[0].time: got 2026-02-30T18:00:00Z'],
    [point('2026-11-26T25:00:00Z', 1), '[0].time: got 2026-11-26T25:00:00Z'],
    [point(1_764_180_000, 1), '[0].time: got 1764180000'],
    [point('2026-11-26T18:00:00Z', -1), '[0].value: got -1, want a number of 0 to'],
    [point('2026-11-26T18:00:00Z', '7'), '[0].value: got 7'],
    ['[{"time":"2026-11-26T18:00:00Z","value":1e999}]', '[0].value: got null'],
    [point('2026-11-26T18:00:00Z', null), '[0].value: got null'],
    ['[{"time":"2026-11-26T18:00:00Z","value":1},{"time":"2026-11-26T18:00:00Z","value":2}]', '[1]: 2026-11-26T18:00:00.000Z is not after'],
    ['{"points":[{"time":"2026-11-26T18:00:00Z","value":1}],"until":"2026-11-26T18:00:00Z"}', 'until: 2026-11-26T18:00:00.000Z is not after the last point'],
    ['time,value\n2026-11-26T18:00:00Z,', 'line 2, value: got , want a number'],
    ['time,value\n2026-11-26T18:00:00Z,NaN', 'line 2, value: got NaN'],
    ['time,value\n2026-11-26T18:00:00Z', 'line 2: got 2026-11-26T18:00:00Z, want a time and a value'],
    ['time,value\n2026-11-26T18:00:00Z,1\n\n2026-11-26T17:00:00Z,1', 'line 4: 2026-11-26T17:00:00.000Z is not after'],
  ])('of %j is refused whole, with the place', (text, message) => {
    expect(() => parseSeries(text)).toThrow(SeriesError);
    expect(() => parseSeries(text)).toThrow(message);
  });

  test('has a bound', () => {
    const points = (count: number): string => JSON.stringify(Array.from({ length: count }, (_, index) => ({ time: new Date(index * 60_000).toISOString(), value: index })));
    expect(parseSeries(points(SERIES_POINTS_MAX)).points).toHaveLength(SERIES_POINTS_MAX);
    expect(() => parseSeries(points(SERIES_POINTS_MAX + 1))).toThrow('it has 10001 points, want at most 10000');
  });
});
