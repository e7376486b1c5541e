// A device group under a power limit as a slower machine: the same points, of which each works as fast as the limit lets it.
// Whoever plans by the model needs to know nothing of limits.
import { type IterationWork, NO_DECODE, NO_PREFILL, type PerformanceModel, type PointIndex } from './performance-model.ts';
import type { DecodeWork, OperatingPoint, PrefillWork } from './profile.ts';

export interface PowerLimitedModel extends PerformanceModel {
  /** Watts of the whole device group. */
  readonly limitW: number;
  /**
   * Where the limit holds work at the given point: the fastest point, not faster than that one, whose power at this work is within the limit.
   * Where none is, the one of the least power: idling and the slowest point are a floor that no limit can go below. Without work the point itself.
   */
  heldAt(work: IterationWork, point: PointIndex): PointIndex;
}

/**
 * Times and energies of each point under the limit; idle power stays as it is. Works are kept to the point found for them last, from where the next one's is
 * looked for: from call to call it hardly moves.
 */
export function limitedModel(model: PerformanceModel, limitW: number): PowerLimitedModel {
  const bySpeed = model.bySlowness.toReversed();
  /** Of no work beyond the limit. */
  const free = model.points.map((_, point) => peakPowerW(model, point) <= limitW);
  const slowestRank = bySpeed.length - 1;
  const isOrdered = drawsLessWhereSlower(model, bySpeed);
  const probe = { prefill: NO_PREFILL, decode: NO_DECODE };
  let hintRank = 0;

  function isWithin(work: IterationWork, rank: number): boolean {
    const point = bySpeed[rank] as PointIndex;
    return free[point] === true || powerAtW(model, work, point) <= limitW;
  }
  /** The first rank from the fastest on that is within, where power falls with every step: looked for from the last one found. */
  function orderedRank(work: IterationWork): number {
    while (hintRank > 0 && isWithin(work, hintRank - 1)) hintRank -= 1;
    while (hintRank < slowestRank && !isWithin(work, hintRank)) hintRank += 1;
    return hintRank;
  }
  function scannedRank(work: IterationWork, from: number): number {
    for (let rank = from; rank <= slowestRank; rank++) if (isWithin(work, rank)) return rank;
    let least = from;
    for (let rank = from; rank <= slowestRank; rank++) if (powerAtW(model, work, bySpeed[rank] as PointIndex) < powerAtW(model, work, bySpeed[least] as PointIndex)) least = rank;
    return least;
  }
  function heldAt(work: IterationWork, point: PointIndex): PointIndex {
    if (free[point] === true || (work.prefill.tokens <= 0 && work.decode.sequences <= 0)) return point;
    const rank = model.speedRank[point] as number;
    return bySpeed[isOrdered ? Math.max(rank, orderedRank(work)) : scannedRank(work, rank)] as PointIndex;
  }
  function prefillAt(work: PrefillWork, point: PointIndex): PointIndex {
    probe.prefill = work;
    probe.decode = NO_DECODE;
    return heldAt(probe, point);
  }
  function decodeAt(work: DecodeWork, point: PointIndex): PointIndex {
    probe.prefill = NO_PREFILL;
    probe.decode = work;
    return heldAt(probe, point);
  }

  return {
    profile: model.profile,
    points: model.points,
    fastest: model.fastest,
    speedRank: model.speedRank,
    bySlowness: model.bySlowness,
    fitError: model.fitError,
    limitW,
    heldAt,
    prefillTimeMs: (work, point) => model.prefillTimeMs(work, prefillAt(work, point)),
    prefillEnergyJ: (work, point) => model.prefillEnergyJ(work, prefillAt(work, point)),
    decodeTimeMs: (work, point) => model.decodeTimeMs(work, decodeAt(work, point)),
    decodeEnergyJ: (work, point) => model.decodeEnergyJ(work, decodeAt(work, point)),
    iterationTimeMs: (work, point) => model.iterationTimeMs(work, heldAt(work, point)),
    iterationEnergyJ: (work, point) => model.iterationEnergyJ(work, heldAt(work, point)),
    idlePowerW: (point) => model.idlePowerW(point),
  };
}

/** A slower point draws no more at any work that was measured, but for noise: then a limit cuts the points in two. */
function drawsLessWhereSlower(model: PerformanceModel, bySpeed: readonly PointIndex[]): boolean {
  const works = [...model.profile.prefill.map((row) => ({ prefill: row, decode: NO_DECODE })), ...model.profile.decode.map((row) => ({ prefill: NO_PREFILL, decode: row }))];
  return works.every((work) => bySpeed.every((point, rank) => rank === 0 || powerAtW(model, work, point) <= POWER_NOISE * powerAtW(model, work, bySpeed[rank - 1] as PointIndex)));
}

/** Measured powers of neighbours differ by as much for nothing. */
const POWER_NOISE = 1.02;

/** Mean power of the group while it does this work, in watts; 0 without any. */
function powerAtW(model: PerformanceModel, work: IterationWork, point: PointIndex): number {
  const timeMs = model.iterationTimeMs(work, point);
  return timeMs > 0 ? (1000 * model.iterationEnergyJ(work, point)) / timeMs : 0;
}

/**
 * The most that a group draws at a point, in watts, whatever it does there: by the works that were measured, beyond which a model says nothing else. A mixed
 * batch draws no more than the hungrier of its parts.
 */
export function peakPowerW(model: PerformanceModel, point: PointIndex): number {
  const { id } = model.points[point] as OperatingPoint;
  let peakW = model.idlePowerW(point);
  for (const row of model.profile.prefill) if (row.point === id) peakW = Math.max(peakW, (1000 * model.prefillEnergyJ(row, point)) / model.prefillTimeMs(row, point));
  for (const row of model.profile.decode) if (row.point === id) peakW = Math.max(peakW, (1000 * model.decodeEnergyJ(row, point)) / model.decodeTimeMs(row, point));
  return peakW;
}

/** What a group can be held to. */
export interface PowerRange {
  /** With nothing to do, at the point that idles for the least. */
  readonly idleW: number;
  /** Under any work at the point that draws least: no limit below it can be kept while it works. */
  readonly floorW: number;
  /** Under any work at the fastest point, or at one that is hungrier. */
  readonly peakW: number;
  /** `peakPowerW` of every point. */
  readonly pointsW: readonly number[];
}

/** Watts of the whole group. O(points × rows). */
export function powerRange(model: PerformanceModel): PowerRange {
  const pointsW = model.points.map((_, point) => peakPowerW(model, point));
  return { idleW: Math.min(...model.points.map((_, point) => model.idlePowerW(point))), floorW: Math.min(...pointsW), peakW: Math.max(...pointsW), pointsW };
}
