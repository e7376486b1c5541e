// From a profile to two functions per phase: time(work, point) and energy(work, point). Each operating point is
// fitted by itself from its own rows, so no knob is ever interpreted: a power limit, a clock or an invented knob are alike.
import { nonNegativeLeastSquares } from './least-squares.ts';
import type { DecodeWork, OperatingPoint, Phase, PrefillWork, Profile } from './profile.ts';

/** Index of an operating point in `PerformanceModel.points`. */
export type PointIndex = number;

/** Mean absolute percentage errors of the model against the rows it was made from. */
export interface FitError {
  readonly rows: number;
  readonly timePct: number;
  readonly energyPct: number;
}

/** One engine iteration: prefill chunks and decode steps that run together. Either part may be empty (0 tokens, 0 sequences). */
export interface IterationWork {
  readonly prefill: PrefillWork;
  readonly decode: DecodeWork;
}

export const NO_PREFILL: PrefillWork = { tokens: 0, contextTokens: 0 };
export const NO_DECODE: DecodeWork = { sequences: 0, contextTokens: 0 };

/** A whole prompt, but for what is `cachedTokens`, in chunks of what a server takes into one batch: the sum of what `chunkMs` says of each, which is asked in order. */
export function promptTimeMs(promptTokens: number, maxBatchTokens: number, chunkMs: (chunk: PrefillWork) => number, cachedTokens = 0): number {
  let timeMs = 0;
  for (let from = cachedTokens; from < promptTokens; from += maxBatchTokens) timeMs += chunkMs({ tokens: Math.min(maxBatchTokens, promptTokens - from), contextTokens: from });
  return timeMs;
}

/** By the speed of typical iterations, see `speedRank`; a point is not faster than itself. */
export function isFaster({ speedRank }: Pick<PerformanceModel, 'speedRank'>, point: PointIndex, than: PointIndex): boolean {
  return (speedRank[point] as number) < (speedRank[than] as number);
}

export function fasterOf(model: Pick<PerformanceModel, 'speedRank'>, a: PointIndex, b: PointIndex): PointIndex {
  return isFaster(model, b, a) ? b : a;
}

export interface Cost {
  readonly timeMs: number;
  readonly energyJ: number;
}

export interface PerformanceModel {
  readonly profile: Profile;
  readonly points: readonly OperatingPoint[];
  /** The point with the shortest iterations (a decode step plus a prefill of typical size); what default clocks give. */
  readonly fastest: PointIndex;
  /** Place of each point by that same measure, 0 for the fastest: which of two points is the slower one. */
  readonly speedRank: readonly number[];
  /** All points, the slowest first. */
  readonly bySlowness: readonly PointIndex[];
  readonly fitError: Readonly<Record<Phase, FitError>>;
  prefillTimeMs(work: PrefillWork, point: PointIndex): number;
  prefillEnergyJ(work: PrefillWork, point: PointIndex): number;
  decodeTimeMs(work: DecodeWork, point: PointIndex): number;
  decodeEnergyJ(work: DecodeWork, point: PointIndex): number;
  /**
   * A mixed batch (chunked prefill + decode), launch overhead included. Both parts read the weights in one pass, so the
   * decode fit's constant term is paid once, and so is its energy, at the lower of the two powers: a mixed batch then costs no
   * less than either part, and draws no more than the hungrier one, which keeps it below a board limit that both were measured
   * under. An iteration without work costs nothing.
   */
  iterationTimeMs(work: IterationWork, point: PointIndex): number;
  iterationEnergyJ(work: IterationWork, point: PointIndex): number;
  idlePowerW(point: PointIndex): number;
}

/** Coefficients of `[1, n, n·(n/2 + c)]` (prefill) or `[1, B, K]` (decode). */
type TimeFit = readonly [number, number, number];

/** Mean power by work size, interpolated linearly in log2 of the size, constant beyond both ends. */
interface PowerCurve {
  readonly log2Sizes: Float64Array;
  readonly powersW: Float64Array;
}

/**
 * Fits every point of the profile: time by non-negative least squares on relative errors, power by interpolation.
 * The profile must have passed `profileProblems`; a point without rows in a phase is an assertion there.
 */
export function createPerformanceModel(profile: Profile): PerformanceModel {
  const { points, launchOverheadMs } = profile;
  const prefillFits: TimeFit[] = [];
  const decodeFits: TimeFit[] = [];
  const prefillPowers: PowerCurve[] = [];
  const decodePowers: PowerCurve[] = [];
  for (const point of points) {
    const prefillRows = profile.prefill.filter((row) => row.point === point.id);
    const decodeRows = profile.decode.filter((row) => row.point === point.id);
    prefillFits.push(fitTime(prefillRows.map((row) => ({ features: prefillFeatures(row), timeMs: row.timeMs }))));
    decodeFits.push(fitTime(decodeRows.map((row) => ({ features: decodeFeatures(row), timeMs: row.timeMs }))));
    prefillPowers.push(powerCurve(prefillRows.map((row) => ({ size: row.tokens, powerW: (row.energyJ / row.timeMs) * 1000 }))));
    decodePowers.push(powerCurve(decodeRows.map((row) => ({ size: row.sequences, powerW: (row.energyJ / row.timeMs) * 1000 }))));
  }

  function prefillTimeMs(work: PrefillWork, point: PointIndex): number {
    if (work.tokens <= 0) return 0;
    const fit = prefillFits[point] as TimeFit;
    return fit[0] + fit[1] * work.tokens + fit[2] * work.tokens * (work.tokens / 2 + work.contextTokens);
  }
  function decodeTimeMs(work: DecodeWork, point: PointIndex): number {
    if (work.sequences <= 0) return 0;
    const fit = decodeFits[point] as TimeFit;
    return fit[0] + fit[1] * work.sequences + fit[2] * work.contextTokens;
  }
  function prefillEnergyJ(work: PrefillWork, point: PointIndex): number {
    return (prefillTimeMs(work, point) * powerAtW(prefillPowers[point] as PowerCurve, work.tokens)) / 1000;
  }
  function decodeEnergyJ(work: DecodeWork, point: PointIndex): number {
    return (decodeTimeMs(work, point) * powerAtW(decodePowers[point] as PowerCurve, work.sequences)) / 1000;
  }
  /** Time of the pass over the weights that both parts of a mixed batch share. */
  function sharedTimeMs(work: IterationWork, point: PointIndex): number {
    if (work.prefill.tokens <= 0 || work.decode.sequences <= 0) return 0;
    return Math.min(prefillTimeMs(work.prefill, point), (decodeFits[point] as TimeFit)[0]);
  }
  function idlePowerW(point: PointIndex): number {
    return (points[point] as OperatingPoint).idlePowerW;
  }
  function iterationTimeMs(work: IterationWork, point: PointIndex): number {
    const timeMs = prefillTimeMs(work.prefill, point) + decodeTimeMs(work.decode, point) - sharedTimeMs(work, point);
    return timeMs > 0 ? timeMs + launchOverheadMs : 0;
  }
  function iterationEnergyJ(work: IterationWork, point: PointIndex): number {
    const prefillJ = prefillEnergyJ(work.prefill, point);
    const decodeJ = decodeEnergyJ(work.decode, point);
    const energyJ = prefillJ + decodeJ;
    if (energyJ <= 0) return 0;
    const sharedMs = sharedTimeMs(work, point);
    const sharedJ = sharedMs > 0 ? sharedMs * Math.min(prefillJ / prefillTimeMs(work.prefill, point), decodeJ / decodeTimeMs(work.decode, point)) : 0;
    return energyJ - sharedJ + (idlePowerW(point) * launchOverheadMs) / 1000;
  }

  const typicalWork: IterationWork = { prefill: { tokens: 512, contextTokens: 0 }, decode: { sequences: 16, contextTokens: 16_384 } };
  const bySpeed = points.map((_, point) => point).sort((a, b) => iterationTimeMs(typicalWork, a) - iterationTimeMs(typicalWork, b));
  const speedRank = points.map((_, point) => bySpeed.indexOf(point));
  const indexOf = new Map(points.map((point, index) => [point.id, index]));
  const fitError = {
    prefill: errorOf(
      profile.prefill.map((row) => {
        const index = indexOf.get(row.point) as PointIndex;
        return { row, timeMs: prefillTimeMs(row, index), energyJ: prefillEnergyJ(row, index) };
      }),
    ),
    decode: errorOf(
      profile.decode.map((row) => {
        const index = indexOf.get(row.point) as PointIndex;
        return { row, timeMs: decodeTimeMs(row, index), energyJ: decodeEnergyJ(row, index) };
      }),
    ),
  };
  return {
    profile,
    points,
    fastest: bySpeed[0] as PointIndex,
    speedRank,
    bySlowness: bySpeed.toReversed(),
    fitError,
    prefillTimeMs,
    prefillEnergyJ,
    decodeTimeMs,
    decodeEnergyJ,
    iterationTimeMs,
    iterationEnergyJ,
    idlePowerW,
  };
}

function prefillFeatures(work: PrefillWork): number[] {
  return [1, work.tokens, work.tokens * (work.tokens / 2 + work.contextTokens)];
}

function decodeFeatures(work: DecodeWork): number[] {
  return [1, work.sequences, work.contextTokens];
}

/** Rows are divided by their time first, so that a short step weighs as much as a long one. */
function fitTime(rows: readonly { readonly features: number[]; readonly timeMs: number }[]): TimeFit {
  const scaled = rows.map((row) => row.features.map((feature) => feature / row.timeMs));
  const fit = nonNegativeLeastSquares(scaled, rows.map(() => 1));
  return [fit[0] ?? 0, fit[1] ?? 0, fit[2] ?? 0];
}

function powerCurve(rows: readonly { readonly size: number; readonly powerW: number }[]): PowerCurve {
  const bySize = new Map<number, { sumW: number; count: number }>();
  for (const { size, powerW } of rows) {
    const entry = bySize.get(size) ?? { sumW: 0, count: 0 };
    bySize.set(size, { sumW: entry.sumW + powerW, count: entry.count + 1 });
  }
  const sizes = [...bySize.keys()].sort((a, b) => a - b);
  return {
    log2Sizes: Float64Array.from(sizes, (size) => Math.log2(size)),
    powersW: Float64Array.from(sizes, (size) => {
      const entry = bySize.get(size) as { sumW: number; count: number };
      return entry.sumW / entry.count;
    }),
  };
}

function powerAtW(curve: PowerCurve, size: number): number {
  const { log2Sizes, powersW } = curve;
  const last = log2Sizes.length - 1;
  const x = Math.log2(Math.max(size, 1));
  if (x <= (log2Sizes[0] as number)) return powersW[0] as number;
  if (x >= (log2Sizes[last] as number)) return powersW[last] as number;
  let upper = 1;
  while ((log2Sizes[upper] as number) < x) upper++;
  const x0 = log2Sizes[upper - 1] as number;
  const x1 = log2Sizes[upper] as number;
  const w0 = powersW[upper - 1] as number;
  const w1 = powersW[upper] as number;
  return w0 + ((w1 - w0) * (x - x0)) / (x1 - x0);
}

function errorOf(rows: readonly { readonly row: Cost; readonly timeMs: number; readonly energyJ: number }[]): FitError {
  const meanPct = (errors: number[]): number => (errors.length === 0 ? 0 : (100 * errors.reduce((a, b) => a + b, 0)) / errors.length);
  return {
    rows: rows.length,
    timePct: meanPct(rows.map(({ row, timeMs }) => Math.abs(timeMs - row.timeMs) / row.timeMs)),
    energyPct: meanPct(rows.map(({ row, energyJ }) => Math.abs(energyJ - row.energyJ) / row.energyJ)),
  };
}
