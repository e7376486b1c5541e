// What to measure next. From the fastest clock and the slowest inwards: all works at the ends and in the middle; then, where two
// neighbours leave room, two probes between them. Where a probe is not where its neighbours let expect, that clock is measured whole, and
// both halves are looked at. So clocks stand close where the curve bends, and few where it is straight or flat.
import type { Measurement, Work } from './measurement.ts';
import { sameWork } from './measurement.ts';

export interface PlanOptions {
  /** Ascending; those that the device has and the operator allows. */
  readonly clocksMhz: readonly number[];
  readonly works: readonly Work[];
  readonly probes: readonly Work[];
  readonly measurementsMax: number;
}

export interface NextMeasurement {
  readonly clockMhz: number;
  readonly work: Work;
}

/** A probe this far from what its neighbours let expect, in time or power, is a bend. */
const BEND = 0.025;
/** Clocks that are no closer to each other than this are worth a probe. */
const GAP_MIN = 0.06;
/** Neighbours that are as near as this in time and power have nothing between them to choose. */
const FLAT = 0.01;

/** `null`: nothing more is worth it, or the bound is reached. The same measurements give the same answer, so it is where to go on after a stop. */
export function nextMeasurement(done: readonly Measurement[], options: PlanOptions): NextMeasurement | null {
  if (done.length >= options.measurementsMax) return null;
  const { clocksMhz, works } = options;
  const missingAt = (clockMhz: number, wanted: readonly Work[]): NextMeasurement | null => {
    const work = wanted.find((one) => at(done, clockMhz, one) === undefined);
    return work === undefined ? null : { clockMhz, work };
  };
  for (const clockMhz of firstClocks(clocksMhz)) {
    const next = missingAt(clockMhz, works);
    if (next !== null) return next;
  }
  // A clock that is begun is finished, as far as the bound lets.
  for (const clockMhz of bentClocks(done, options)) {
    const next = missingAt(clockMhz, works);
    if (next !== null) return next;
  }
  // Then probes, the widest gap first; none where there would be nothing left to measure it whole.
  for (const clockMhz of gaps(done, options)) {
    const left = works.length - done.filter((one) => one.clockMhz === clockMhz).length;
    if (done.length + left > options.measurementsMax) continue;
    const next = missingAt(clockMhz, options.probes);
    if (next !== null) return next;
  }
  return null;
}

/** About so many there will be in all, for the progress; at most the bound. */
export function measurementsExpected(done: readonly Measurement[], { clocksMhz, works, probes, measurementsMax }: PlanOptions): number {
  const first = firstClocks(clocksMhz).length;
  const inside = Math.max(0, Math.min(clocksMhz.length, 6) - first);
  return Math.min(measurementsMax, Math.max(done.length, works.length * (first + Math.ceil(inside * 0.7)) + probes.length * inside));
}

/** The fastest first: it is what the device runs at by itself, and everything is quickest there. */
export function firstClocks(clocksMhz: readonly number[]): readonly number[] {
  const [slowest, fastest] = [clocksMhz[0], clocksMhz.at(-1)];
  if (slowest === undefined || fastest === undefined) return [];
  const middle = nearest(clocksMhz, Math.sqrt(slowest * fastest));
  return [...new Set([fastest, middle, slowest])];
}

/** Measured whole, ascending. */
export function wholeClocks(done: readonly Measurement[], works: readonly Work[]): readonly number[] {
  const clocks = [...new Set(done.flatMap(({ clockMhz }) => (clockMhz === null ? [] : [clockMhz])))].toSorted((a, b) => a - b);
  return clocks.filter((clockMhz) => works.every((work) => at(done, clockMhz, work) !== undefined));
}

/** Probed, and not where their neighbours let expect; those that are begun first, then by how far off they are. */
function bentClocks(done: readonly Measurement[], { works, probes, measurementsMax }: PlanOptions): readonly number[] {
  const whole = wholeClocks(done, works);
  const probed = [...new Set(done.flatMap(({ clockMhz }) => (clockMhz === null || whole.includes(clockMhz) ? [] : [clockMhz])))].filter((clockMhz) => probes.every((probe) => at(done, clockMhz, probe) !== undefined));
  return probed
    .map((clockMhz) => ({ clockMhz, taken: done.filter((one) => one.clockMhz === clockMhz).length, off: offBy(done, clockMhz, whole, probes) }))
    .map((one) => ({ ...one, begun: one.taken > probes.length }))
    .filter(({ begun, taken, off }) => begun || (off > BEND && done.length + works.length - taken <= measurementsMax))
    .toSorted((a, b) => Number(b.begun) - Number(a.begun) || b.off - a.off)
    .map(({ clockMhz }) => clockMhz);
}

/** The middle of each gap that may hide a bend, the widest first. */
function gaps(done: readonly Measurement[], { clocksMhz, works, probes }: PlanOptions): readonly number[] {
  const whole = wholeClocks(done, works);
  const found: { readonly clockMhz: number; readonly width: number }[] = [];
  for (const [index, upper] of whole.entries()) {
    const lower = whole[index - 1];
    if (lower === undefined || upper / lower - 1 < GAP_MIN || isFlat(done, lower, upper, probes) || isBeaten(done, upper, whole, probes)) continue;
    const inside = clocksMhz.filter((clockMhz) => clockMhz > lower && clockMhz < upper);
    const middle = inside.length === 0 ? undefined : nearest(inside, Math.sqrt(lower * upper));
    if (middle !== undefined && probes.some((probe) => at(done, middle, probe) === undefined)) found.push({ clockMhz: middle, width: upper / lower });
  }
  return found.toSorted((a, b) => b.width - a.width).map(({ clockMhz }) => clockMhz);
}

function isFlat(done: readonly Measurement[], lower: number, upper: number, probes: readonly Work[]): boolean {
  return probes.every((probe) => {
    const [slow, fast] = [at(done, lower, probe), at(done, upper, probe)];
    return close(slow?.timeMs, fast?.timeMs) && close(slow?.powerW, fast?.powerW);
  });
}

/**
 * A faster clock does the probes for no more energy above idling: then so it will for everything slower still, for below its optimum energy only rises.
 * Idling is at the least idle power seen: what would be burnt anyway is no cost.
 */
function isBeaten(done: readonly Measurement[], clockMhz: number, whole: readonly number[], probes: readonly Work[]): boolean {
  const idleW = Math.min(...done.flatMap(({ work, powerW }) => (work.kind === 'idle' && powerW !== null ? [powerW] : [])));
  if (!Number.isFinite(idleW)) return false;
  const excessJ = (one: Measurement | undefined): number => (one?.timeMs == null || one.powerW == null ? Number.NaN : one.timeMs * (one.powerW - idleW));
  return whole.some((faster) => faster > clockMhz && probes.every((probe) => excessJ(at(done, faster, probe)) <= excessJ(at(done, clockMhz, probe))));
}

function close(a: number | null | undefined, b: number | null | undefined): boolean {
  return a == null || b == null ? a == b : Math.abs(a / b - 1) < FLAT;
}

/** The largest relative distance of a clock's probes from the line between its neighbours: time in 1/clock, power in the clock. */
function offBy(done: readonly Measurement[], clockMhz: number, whole: readonly number[], probes: readonly Work[]): number {
  const lower = whole.findLast((other) => other < clockMhz);
  const upper = whole.find((other) => other > clockMhz);
  if (lower === undefined || upper === undefined) return Number.POSITIVE_INFINITY;
  const timeShare = (1 / lower - 1 / clockMhz) / (1 / lower - 1 / upper);
  const powerShare = (clockMhz - lower) / (upper - lower);
  return Math.max(
    ...probes.map((probe) => {
      const [here, below, above] = [at(done, clockMhz, probe), at(done, lower, probe), at(done, upper, probe)];
      return Math.max(between(here?.timeMs, below?.timeMs, above?.timeMs, timeShare), between(here?.powerW, below?.powerW, above?.powerW, powerShare));
    }),
  );
}

function between(here: number | null | undefined, below: number | null | undefined, above: number | null | undefined, share: number): number {
  if (here == null || below == null || above == null) return 0;
  return Math.abs((below * (1 - share) + above * share) / here - 1);
}

function at(done: readonly Measurement[], clockMhz: number, work: Work): Measurement | undefined {
  return done.find((one) => one.clockMhz === clockMhz && sameWork(one.work, work));
}

function nearest(clocksMhz: readonly number[], wanted: number): number {
  return clocksMhz.reduce((best, clockMhz) => (Math.abs(clockMhz - wanted) < Math.abs(best - wanted) ? clockMhz : best));
}
