// How far a replica is from its profile: real over believed time and energy, by phase and operating point, learnt while it serves. A
// profile may be right at one point and wrong at another; what is known of a point tells something of its neighbours.
import { NO_DECODE, NO_PREFILL, type PerformanceModel, type PointIndex } from '../frontier/performance-model.ts';
import type { PowerLimitedModel } from '../frontier/power-limited.ts';
import type { DecodeWork, Phase, PrefillWork } from '../frontier/profile.ts';
import type { EnergyWindow } from './energy-ledger.ts';
import { blended, type Learnt, NOTHING_LEARNT, TIME_SCALE_BOUNDS } from './shared-learning.ts';

/** A factor for each point, by its index; 1 where the profile is right. They change in place. */
export type PointScale = Readonly<Record<Phase, Float64Array>>;

/** What work costs, as plans and routes ask for it. */
export type Pricing = Pick<PerformanceModel, 'points' | 'prefillEnergyJ' | 'prefillTimeMs' | 'decodeEnergyJ' | 'decodeTimeMs' | 'idlePowerW'>;

export interface Corrections {
  /** Real over believed times. */
  readonly time: PointScale;
  /** The model with what was learnt of times, joules and idling. */
  readonly priced: Pricing;
  /** Real over believed, over all points, others' word included. */
  overall(phase: Phase): number;
  /** The same as seen here. */
  own(phase: Phase): Learnt;
  /** So much of late was seen of a point's times. */
  samplesAt(phase: Phase, point: PointIndex): number;
  timeSeen(phase: Phase, point: PointIndex, ratio: number): void;
  /** What counters said of a window of work, or of idling. */
  energySeen(window: EnergyWindow): void;
  /** What other gateways have learnt, all together. */
  peers(others: Readonly<Record<Phase, Learnt>>): void;
}

/** The profile weighs as `belief` samples. */
const OVERALL = { rate: 0.05, belief: 3 };

/**
 * A point's own mean is of about `memory` samples, all it is known by fades by `fading` with each sample of the phase, the overall
 * mean weighs as `belief` samples beside it, and a point so many places away counts a factor of e less.
 */
const POINT = { memory: 20, fading: 0.99, belief: 8, reach: 1.5, slopeBelief: 0.3 };

/** Joules of a window are mostly those of one phase, or both are corrected, by as much as they have of it. */
const ENERGY = { rate: 0.05, belief: 4, min: 0.4, max: 2.5, memory: 40, busyShareMin: 0.5, othersShareMax: 0.2 };

export function createCorrections(model: PerformanceModel): Corrections {
  const { points, speedRank } = model;
  const ones = (): PointScale => ({ prefill: new Float64Array(points.length).fill(1), decode: new Float64Array(points.length).fill(1) });
  const time = ones();
  const energy = ones();
  const idleW = Float64Array.from(points, (_, point) => model.idlePowerW(point));
  /** By place in the order of speed, the fastest first; `null`: it was never measured there. */
  const idleSeenW: (number | null)[] = points.map(() => null);
  const bySpeed = model.bySlowness.toReversed();
  const overall = { prefill: 1, decode: 1 };
  const own = { prefill: 1, decode: 1 };
  const samples = { prefill: 0, decode: 0 };
  let others: Readonly<Record<Phase, Learnt>> = { prefill: NOTHING_LEARNT, decode: NOTHING_LEARNT };
  const steps = Math.max(1, points.length - 1);
  const nearness = Float64Array.from({ length: points.length }, (_, places) => Math.exp(-places / POINT.reach));
  const timesAt = { prefill: createEvidence(points.length), decode: createEvidence(points.length) };
  const energyAt = { prefill: createEvidence(points.length), decode: createEvidence(points.length) };
  /** Of energy over time, that is of power, over all points: joules go with the time unless a meter says otherwise. */
  const power = { prefill: { log: 0, weight: 0 }, decode: { log: 0, weight: 0 } };

  /**
   * Every point anew: a straight line over the points' order, as far as there is evidence of one, and what lies beside it near by.
   * `slopeMin`: what is not seen is not taken for better than that.
   */
  function spread({ logs, weights }: Evidence, aroundLog: number, slopeMin: number, into: Float64Array, base: Float64Array | null): void {
    const { centre, middleLog, slope } = lineThrough(logs, weights, aroundLog, slopeMin);
    for (let point = 0; point < points.length; point++) {
      let sum = 0;
      let weight = POINT.belief;
      for (let other = 0; other < points.length; other++) {
        const counts = (weights[other] as number) * (nearness[Math.abs((speedRank[point] as number) - (speedRank[other] as number))] as number);
        sum += counts * ((logs[other] as number) - middleLog - slope * ((speedRank[other] as number) / steps - centre));
        weight += counts;
      }
      into[point] = Math.exp(middleLog + slope * ((speedRank[point] as number) / steps - centre) + sum / weight) * (base === null ? 1 : (base[point] as number));
    }
  }

  /** By weighted least squares, its slope held towards 0 (ridge regression), its height towards the mean of all. */
  function lineThrough(logs: Float64Array, weights: Float64Array, aroundLog: number, slopeMin: number): { readonly centre: number; readonly middleLog: number; readonly slope: number } {
    let [weight, placesSum, logSum] = [0, 0, 0];
    for (let point = 0; point < points.length; point++) {
      weight += weights[point] as number;
      placesSum += ((weights[point] as number) * (speedRank[point] as number)) / steps;
      logSum += (weights[point] as number) * (logs[point] as number);
    }
    if (weight <= 0) return { centre: 0, middleLog: aroundLog, slope: 0 };
    const centre = placesSum / weight;
    const meanLog = logSum / weight;
    let [placesSquared, both] = [0, 0];
    for (let point = 0; point < points.length; point++) {
      const away = (speedRank[point] as number) / steps - centre;
      placesSquared += (weights[point] as number) * away * away;
      both += (weights[point] as number) * away * ((logs[point] as number) - meanLog);
    }
    return { centre, middleLog: (weight * meanLog + POINT.belief * aroundLog) / (weight + POINT.belief), slope: Math.max(slopeMin, both / (placesSquared + POINT.slopeBelief)) };
  }

  /** Where a meter was never asked, a slower point idles at no more than the next faster one: else a wrong word of the profile would never be tried. */
  function idleSeen(at: PointIndex, powerW: number): void {
    idleSeenW[at] = powerW;
    let belowW = Number.POSITIVE_INFINITY;
    for (const point of bySpeed) {
      idleW[point] = idleSeenW[point] ?? Math.min(belowW, model.idlePowerW(point));
      belowW = idleW[point] as number;
    }
  }

  function refresh(phase: Phase): void {
    overall[phase] = blended({ value: own[phase], samples: samples[phase] }, others[phase]);
    spread(timesAt[phase], Math.log(overall[phase]), 0, time[phase], null);
    spread(energyAt[phase], power[phase].log, Number.NEGATIVE_INFINITY, energy[phase], time[phase]);
  }

  return {
    time,
    priced: {
      points,
      prefillEnergyJ: (work, point) => model.prefillEnergyJ(work, point) * (energy.prefill[point] as number),
      prefillTimeMs: (work, point) => model.prefillTimeMs(work, point) * (time.prefill[point] as number),
      decodeEnergyJ: (work, point) => model.decodeEnergyJ(work, point) * (energy.decode[point] as number),
      decodeTimeMs: (work, point) => model.decodeTimeMs(work, point) * (time.decode[point] as number),
      idlePowerW: (point) => idleW[point] as number,
    },
    overall: (phase) => overall[phase],
    own: (phase) => ({ value: own[phase], samples: samples[phase] }),
    samplesAt: (phase, point) => timesAt[phase].weights[point] as number,
    timeSeen(phase, point, ratio) {
      if (!(ratio > 0)) return;
      const bounded = Math.min(TIME_SCALE_BOUNDS.max, Math.max(TIME_SCALE_BOUNDS.min, ratio));
      // A plain mean first, which is soon near the truth; exponentially weighted once that forgets faster.
      samples[phase] += 1;
      own[phase] += Math.max(OVERALL.rate, 1 / (OVERALL.belief + samples[phase])) * (bounded - own[phase]);
      timesAt[phase].observe(point, Math.log(bounded), 1, POINT.memory);
      refresh(phase);
    },
    energySeen({ group, point, steady, windowMs, busyMs, measuredWorkJ, modelledWorkJ, prefillShare, othersShare, idlePowerW }) {
      if (idlePowerW !== null) idleSeen(point, idlePowerW);
      // Idling beside work is only believed, and of what others did nobody knows much: the share that is told apart must be the most of it.
      if (!steady || busyMs < ENERGY.busyShareMin * windowMs || othersShare > ENERGY.othersShareMax || !(measuredWorkJ > 0) || !(modelledWorkJ > 0)) return;
      const shares = { prefill: group === 'decode' ? 0 : prefillShare, decode: group === 'prefill' ? 0 : 1 - prefillShare };
      const expected = shares.prefill * (energy.prefill[point] as number) + shares.decode * (energy.decode[point] as number);
      const surprise = Math.log(measuredWorkJ / modelledWorkJ / expected);
      for (const phase of ['prefill', 'decode'] as const) {
        const share = shares[phase];
        if (share < 0.1) continue;
        const seen = Math.log(energy[phase][point] as number) - Math.log(time[phase][point] as number) + surprise;
        const bounded = Math.min(Math.log(ENERGY.max), Math.max(Math.log(ENERGY.min), seen));
        const mean = power[phase];
        mean.weight += share;
        mean.log += Math.min(1, Math.max(ENERGY.rate, 1 / (ENERGY.belief + mean.weight)) * share) * (bounded - mean.log);
        energyAt[phase].observe(point, bounded, share, ENERGY.memory);
        spread(energyAt[phase], mean.log, Number.NEGATIVE_INFINITY, energy[phase], time[phase]);
      }
    },
    peers(told) {
      others = told;
      refresh('prefill');
      refresh('decode');
    },
  };
}

interface Evidence {
  /** Mean log ratio by point, and how many samples it is worth. */
  readonly logs: Float64Array;
  readonly weights: Float64Array;
  observe(point: PointIndex, log: number, weight: number, memory: number): void;
}

function createEvidence(count: number): Evidence {
  const logs = new Float64Array(count);
  const weights = new Float64Array(count);
  return {
    logs,
    weights,
    observe(point, log, weight, memory) {
      for (let other = 0; other < count; other++) weights[other] = (weights[other] as number) * (1 - (1 - POINT.fading) * weight);
      const total = Math.min(memory, (weights[point] as number) + weight);
      logs[point] = (logs[point] as number) + (weight / total) * (log - (logs[point] as number));
      weights[point] = total;
    },
  };
}

/** Of a group under a power limit: each point's work is priced where the limit holds it. */
export function pricedUnder(priced: Pricing, { heldAt }: Pick<PowerLimitedModel, 'heldAt'>): Pricing {
  const prefillAt = (prefill: PrefillWork, point: PointIndex): PointIndex => heldAt({ prefill, decode: NO_DECODE }, point);
  const decodeAt = (decode: DecodeWork, point: PointIndex): PointIndex => heldAt({ prefill: NO_PREFILL, decode }, point);
  return {
    points: priced.points,
    prefillEnergyJ: (work, point) => priced.prefillEnergyJ(work, prefillAt(work, point)),
    prefillTimeMs: (work, point) => priced.prefillTimeMs(work, prefillAt(work, point)),
    decodeEnergyJ: (work, point) => priced.decodeEnergyJ(work, decodeAt(work, point)),
    decodeTimeMs: (work, point) => priced.decodeTimeMs(work, decodeAt(work, point)),
    idlePowerW: priced.idlePowerW,
  };
}

/** The same factor at all points. */
export function evenScale(points: number, of: Readonly<Record<Phase, number>>): PointScale {
  return { prefill: new Float64Array(points).fill(of.prefill), decode: new Float64Array(points).fill(of.decode) };
}
