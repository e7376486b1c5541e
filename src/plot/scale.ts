// From values to places on an axis, and the round values that are written beside it.

export type ScaleKind = 'linear' | 'log';

export interface Scale {
  /** Pixels; a value outside of the axis is outside of its pixels, too. */
  at(value: number): number;
  /** Ascending, within the axis. */
  readonly ticks: readonly number[];
  readonly from: number;
  readonly to: number;
}

export interface ScaleOptions {
  readonly kind: ScaleKind;
  readonly values: readonly number[];
  /** Ends of the axis; what is not given is a round value beyond the data, 0 for linear axes whose data is near it. */
  readonly from?: number | undefined;
  readonly to?: number | undefined;
  readonly pixels: { readonly from: number; readonly to: number };
  /** About so many ticks. */
  readonly ticks?: number;
}

/** Never throws: without any finite value (log: positive) the axis goes from 0 to 1 (log: 1 to 10). */
export function createScale({ kind, values, pixels, ticks: wanted = 6, ...ends }: ScaleOptions): Scale {
  const usable = values.filter((value) => Number.isFinite(value) && (kind === 'linear' || value > 0));
  const { from, to, ticks } = kind === 'log' ? logTicks(usable, ends) : linearTicks(usable, ends, wanted);
  const map = kind === 'log' ? Math.log : (value: number): number => value;
  const [low, high] = [map(from), map(to)];
  return { from, to, ticks, at: (value) => pixels.from + ((map(value) - low) / (high - low)) * (pixels.to - pixels.from) };
}

interface Ticks {
  readonly from: number;
  readonly to: number;
  readonly ticks: readonly number[];
}

interface Ends {
  readonly from?: number | undefined;
  readonly to?: number | undefined;
}

function linearTicks(values: readonly number[], ends: Ends, wanted: number): Ticks {
  let low = ends.from ?? least(values, 0);
  let high = ends.to ?? most(values, 1);
  // A little above nothing is drawn from nothing: a bar or a curve that begins at 80 % of the most looks like all the difference.
  if (ends.from === undefined && low > 0 && low < 0.6 * high) low = 0;
  // Values that differ by the dust of binary fractions are one value: between them there is no step that a number could take.
  if (high - low <= DUST * Math.max(Math.abs(low), Math.abs(high))) high = low + (low === 0 ? 1 : Math.abs(low));
  const step = roundStep((high - low) / Math.max(1, wanted - 1));
  if (ends.from === undefined) low = Math.floor(low / step + 1e-9) * step;
  if (ends.to === undefined) high = Math.ceil(high / step - 1e-9) * step;
  const ticks: number[] = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) ticks.push(tidy(index * step));
  return { from: low, to: high, ticks };
}

/** Relative; finer than anything that is measured, and far above what a number can tell apart. */
const DUST = 1e-9;

/** 1, 2 or 5 times a power of ten, not less than the raw step. */
function roundStep(raw: number): number {
  const power = 10 ** Math.floor(Math.log10(raw));
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= raw * (1 - 1e-9)) ?? 10;
  return factor * power;
}

function logTicks(values: readonly number[], ends: Ends): Ticks {
  const low = ends.from ?? least(values, 1);
  let high = ends.to ?? most(values, 10);
  if (high <= low * (1 + DUST)) high = low * 10;
  const decades = Math.log10(high / low);
  const factors = decades > 4 ? [1] : decades > 2 ? [1, 3] : decades > 0.7 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(low)) - 1; 10 ** power <= high * 10; power++) for (const factor of factors) ticks.push(tidy(factor * 10 ** power));
  const from = ends.from ?? (ticks.findLast((tick) => tick <= low * (1 + 1e-9)) as number);
  const to = ends.to ?? (ticks.find((tick) => tick >= high * (1 - 1e-9)) as number);
  return { from, to, ticks: ticks.filter((tick) => tick >= from * (1 - 1e-9) && tick <= to * (1 + 1e-9)) };
}

/** Without the dust of binary fractions. */
function tidy(value: number): number {
  return Number(value.toPrecision(12));
}

function least(values: readonly number[], without: number): number {
  return values.length === 0 ? without : values.reduce((low, value) => Math.min(low, value));
}

function most(values: readonly number[], without: number): number {
  return values.length === 0 ? without : values.reduce((high, value) => Math.max(high, value));
}

/** As people write it: at most three digits that matter, thousands apart, no exponent between a thousandth and a billion. */
export function numberText(value: number): string {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e9)) return value.toExponential(1);
  const digits = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  const [whole = '', fraction] = Number(value.toFixed(digits)).toString().split('.');
  const apart = whole.replace(/\B(?=(\d{3})+(?!\d))/g, '\u202f');
  return fraction === undefined ? apart : `${apart}.${fraction}`;
}
