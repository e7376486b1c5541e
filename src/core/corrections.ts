// How far a replica is from its profile: real over believed time and energy, by phase and operating point, learnt while it serves. A
// profile may be right at one point and wrong at another; what is known of a point tells something of its neighbours.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import type { Phase } from '../frontier/profile.ts';
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
const POINT = { memory: 20, fading: 0.99, belief: 5, reach: 1.5 };

/** Joules of a window are mostly those of one phase, or both are corrected, by as much as they have of it. */
const ENERGY = { rate: 0.05, belief: 4, min: 0.4, max: 2.5, memory: 40, idleRate: 0.1, busyShareMin: 0.5, othersShareMax: 0.2 };

export function createCorrections(model: PerformanceModel): Corrections {
  const { points, speedRank } = model;
  const ones = (): PointScale => ({ prefill: new Float64Array(points.length).fill(1), decode: new Float64Array(points.length).fill(1) });
  const time = ones();
  const energy = ones();
  const idle = new Float64Array(points.length).fill(1);
  const overall = { prefill: 1, decode: 1 };
  const own = { prefill: 1, decode: 1 };
  const samples = { prefill: 0, decode: 0 };
  let others: Readonly<Record<Phase, Learnt>> = { prefill: NOTHING_LEARNT, decode: NOTHING_LEARNT };
  const nearness = Float64Array.from({ length: points.length }, (_, places) => Math.exp(-places / POINT.reach));
  const timesAt = { prefill: createEvidence(points.length), decode: createEvidence(points.length) };
  const energyAt = { prefill: createEvidence(points.length), decode: createEvidence(points.length) };
  /** Of energy over time, that is of power, over all points: joules go with the time unless a meter says otherwise. */
  const power = { prefill: { log: 0, weight: 0 }, decode: { log: 0, weight: 0 } };

  /** Every point anew: its neighbours' evidence and the mean of all. */
  function spread(evidence: Evidence, aroundLog: number, into: Float64Array, base: Float64Array | null): void {
    for (let point = 0; point < points.length; point++) {
      let sum = POINT.belief * aroundLog;
      let weight = POINT.belief;
      for (let other = 0; other < points.length; other++) {
        const counts = (evidence.weights[other] as number) * (nearness[Math.abs((speedRank[point] as number) - (speedRank[other] as number))] as number);
        sum += counts * (evidence.logs[other] as number);
        weight += counts;
      }
      into[point] = Math.exp(sum / weight) * (base === null ? 1 : (base[point] as number));
    }
  }

  function refresh(phase: Phase): void {
    overall[phase] = blended({ value: own[phase], samples: samples[phase] }, others[phase]);
    spread(timesAt[phase], Math.log(overall[phase]), time[phase], null);
    spread(energyAt[phase], power[phase].log, energy[phase], time[phase]);
  }

  return {
    time,
    priced: {
      points,
      prefillEnergyJ: (work, point) => model.prefillEnergyJ(work, point) * (energy.prefill[point] as number),
      prefillTimeMs: (work, point) => model.prefillTimeMs(work, point) * (time.prefill[point] as number),
      decodeEnergyJ: (work, point) => model.decodeEnergyJ(work, point) * (energy.decode[point] as number),
      decodeTimeMs: (work, point) => model.decodeTimeMs(work, point) * (time.decode[point] as number),
      idlePowerW: (point) => model.idlePowerW(point) * (idle[point] as number),
    },
    overall: (phase) => overall[phase],
    own: (phase) => ({ value: own[phase], samples: samples[phase] }),
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
      if (idlePowerW !== null) idle[point] = idlePowerW / model.idlePowerW(point);
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
        spread(energyAt[phase], mean.log, energy[phase], time[phase]);
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

/** The same factor at all points. */
export function evenScale(points: number, of: Readonly<Record<Phase, number>>): PointScale {
  return { prefill: new Float64Array(points).fill(of.prefill), decode: new Float64Array(points).fill(of.decode) };
}
