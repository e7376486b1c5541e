// A number that changes in time, as somebody else tells it: the watts of a budget, the price or the carbon of a kilowatt-hour.
// Piecewise constant. Read from text, refused whole when anything in it is wrong; where the text comes from is `series-source.ts`'s.

export interface SeriesPoint {
  readonly atUnixMs: number;
  readonly value: number;
}

export interface Series {
  /** Ascending, at least one; each value holds until the next. */
  readonly points: readonly SeriesPoint[];
  /** Until when the last value holds; `Infinity` where a series of one point does not say. */
  readonly endsAtUnixMs: number;
}

/** Says what is wrong with a series, and where in it. */
export class SeriesError extends Error {
  override name = 'SeriesError';
}

/** A week in minutes; more is no forecast, and is parsed between two requests. */
export const SERIES_POINTS_MAX = 10_000;
/** Ten thousand points take some 600 KB, written with indents twice that. */
export const SERIES_BYTES_MAX = 2_097_152;
/** More than any site draws, and more than any price in any currency. */
const VALUE_MAX = 1e12;

/**
 * From JSON, `[{"time": "2026-11-26T18:00:00Z", "value": 4200}, …]` or `{"points": […], "until": "…"}`, or from CSV with the heading
 * `time,value`. Without `until` the last value holds as long as the one before it did. Throws `SeriesError`.
 */
export function parseSeries(text: string): Series {
  const bare = text.replace(/^\uFEFF/, '').trim();
  return /^[[{]/.test(bare) ? fromJson(bare) : fromCsv(bare);
}

/** `null` before the first point. The last value holds beyond the series' end: whether it still counts is for who asks. */
export function valueAt({ points }: Series, unixMs: number): number | null {
  const place = placeAt(points, unixMs);
  return place < 0 ? null : (points[place] as SeriesPoint).value;
}

/** When the value changes next, or the series ends; `Infinity`: never. */
export function nextChangeAfter({ points, endsAtUnixMs }: Series, unixMs: number): number {
  const next = points[placeAt(points, unixMs) + 1];
  if (next !== undefined) return next.atUnixMs;
  return endsAtUnixMs > unixMs ? endsAtUnixMs : Number.POSITIVE_INFINITY;
}

/** The last point that is not after the instant; -1 where there is none. */
function placeAt(points: readonly SeriesPoint[], unixMs: number): number {
  let from = 0;
  let to = points.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((points[middle] as SeriesPoint).atUnixMs <= unixMs) from = middle + 1;
    else to = middle;
  }
  return from - 1;
}

function fromJson(text: string): Series {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new SeriesError(`it begins like JSON and is none: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (Array.isArray(content)) return seriesOf(content.map((point, index) => jsonPoint(point, `[${index}]`)), null);
  const { points, until, ...others } = content as { points?: unknown; until?: unknown };
  const [stranger] = Object.keys(others);
  if (stranger !== undefined) throw new SeriesError(`got the key '${shown(stranger)}', want points, and until where the end is known`);
  if (!Array.isArray(points)) throw new SeriesError(`points: got ${shown(points)}, want a list of {"time": …, "value": …}`);
  return seriesOf(points.map((point, index) => jsonPoint(point, `points[${index}]`)), until === undefined ? null : instantOf(until, 'until'));
}

interface Placed extends SeriesPoint {
  readonly where: string;
}

function jsonPoint(point: unknown, where: string): Placed {
  if (typeof point !== 'object' || point === null || Array.isArray(point)) throw new SeriesError(`${where}: got ${shown(point)}, want {"time": …, "value": …}`);
  const { time, value, ...others } = point as { time?: unknown; value?: unknown };
  const [stranger] = Object.keys(others);
  if (stranger !== undefined) throw new SeriesError(`${where}: got the key '${shown(stranger)}', want time and value`);
  return { where, atUnixMs: instantOf(time, `${where}.time`), value: valueOf(value, `${where}.value`) };
}

function fromCsv(text: string): Series {
  const [heading = '', ...lines] = text.split(/\r\n|\n/);
  if (heading.trim() !== 'time,value') throw new SeriesError(`line 1: got ${shown(heading)}, want JSON, or CSV with the heading time,value`);
  const points = lines.flatMap((line, index) => {
    if (line.trim() === '') return [];
    const where = `line ${index + 2}`;
    const [time, value, ...others] = line.split(',').map((cell) => cell.trim());
    if (value === undefined || others.length > 0) throw new SeriesError(`${where}: got ${shown(line)}, want a time and a value with a comma between`);
    return [{ where, atUnixMs: instantOf(time, `${where}, time`), value: valueOf(value === '' ? value : Number(value), `${where}, value`, value) }];
  });
  return seriesOf(points, null);
}

function seriesOf(points: readonly Placed[], untilUnixMs: number | null): Series {
  const [first] = points;
  if (first === undefined) throw new SeriesError('it has no point, want at least one');
  if (points.length > SERIES_POINTS_MAX) throw new SeriesError(`it has ${points.length} points, want at most ${SERIES_POINTS_MAX}`);
  for (const [index, { where, atUnixMs }] of points.entries()) {
    const before = points[index - 1];
    if (before !== undefined && atUnixMs <= before.atUnixMs) throw new SeriesError(`${where}: ${new Date(atUnixMs).toISOString()} is not after ${new Date(before.atUnixMs).toISOString()}, which stands before it`);
  }
  const last = points.at(-1) as Placed;
  const before = points.at(-2);
  if (untilUnixMs !== null && untilUnixMs <= last.atUnixMs) throw new SeriesError(`until: ${new Date(untilUnixMs).toISOString()} is not after the last point, ${new Date(last.atUnixMs).toISOString()}`);
  return {
    points: points.map(({ atUnixMs, value }) => ({ atUnixMs, value })),
    endsAtUnixMs: untilUnixMs ?? (before === undefined ? Number.POSITIVE_INFINITY : 2 * last.atUnixMs - before.atUnixMs),
  };
}

const INSTANT = /^(\d{4})-(\d{2})-(\d{2})T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})$/;

function instantOf(time: unknown, where: string): number {
  const parts = typeof time === 'string' ? INSTANT.exec(time) : null;
  const unixMs = parts === null ? Number.NaN : Date.parse(time as string);
  // JavaScript takes the 30th of February for the 2nd of March.
  const daysInMonth = parts === null ? 0 : new Date(Date.UTC(Number(parts[1]), Number(parts[2]), 0)).getUTCDate();
  if (Number.isNaN(unixMs) || Number(parts?.[3]) > daysInMonth) throw new SeriesError(`${where}: got ${shown(time)}, want an instant of ISO 8601 with its offset, such as 2026-11-26T18:00:00Z or 2026-11-26T19:00:00+01:00`);
  return unixMs;
}

function valueOf(value: unknown, where: string, written: unknown = value): number {
  if (typeof value !== 'number' || !(value >= 0 && value <= VALUE_MAX)) throw new SeriesError(`${where}: got ${shown(written)}, want a number of 0 to ${VALUE_MAX}`);
  return value;
}

function shown(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing');
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
