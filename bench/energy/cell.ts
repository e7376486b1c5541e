// One cell of the energy bench: a workload at a load on a profile, with a belief that is right or wrong; every policy in turn,
// each brought to Paceline's attainment by its own margin, and what their energies are to each other.
import { createPhysics, type TruthScale } from '../../src/engine/physics.ts';
import type { PerformanceModel } from '../../src/frontier/performance-model.ts';
import { simulateClairvoyant } from '../../src/simulator/clairvoyant.ts';
import { feasibleAlone } from '../../src/simulator/feasibility.ts';
import { energyLowerBoundJ } from '../../src/simulator/lower-bound.ts';
import type { MachineOptions } from '../../src/simulator/machines.ts';
import { RIVALS, type RivalName } from '../../src/simulator/rivals/rivals.ts';
import { type SimulatedRun, type SimulationOptions, simulate } from '../../src/simulator/simulate.ts';
import { runReport } from '../../src/simulator/run-report.ts';
import { percentiles } from '../../src/statistics/percentiles.ts';
import { drawClasses } from '../../src/workload/slo-classes.ts';
import { LOADS, type Load, type LoadedWorkload, played, type Source, type WorkloadName } from './workloads.ts';

/** How the machines differ from what is believed of them. */
export const BELIEFS = {
  right: { scale: {}, machines: {} },
  'too fast': { scale: { time: 1.2, power: 1.15 }, machines: { durationCv: 0.05, switchOutliers: { share: 0.02, latencyMs: 480 } } },
  'too slow': { scale: { time: 0.8, power: 0.85 }, machines: { durationCv: 0.05, switchOutliers: { share: 0.02, latencyMs: 480 } } },
} as const satisfies Record<string, { readonly scale: TruthScale; readonly machines: MachineOptions }>;
export type Belief = keyof typeof BELIEFS;

export interface Outcome {
  readonly policy: string;
  /** Of the requests that could be met at the fastest clock with nobody else there. */
  readonly attainment: number;
  readonly energyJ: number;
}

export interface CellResult {
  readonly profile: string;
  readonly workload: WorkloadName;
  readonly recorded: boolean;
  readonly belief: Belief;
  readonly load: Load;
  readonly ratePerS: number;
  readonly requests: number;
  readonly infeasible: number;
  readonly paceline: Outcome;
  readonly maxClock: Outcome;
  /** At Paceline's attainment or better; `null` where none gets there. */
  readonly bestStatic: Outcome | null;
  readonly bestRival: Outcome | null;
  readonly clairvoyant: Outcome;
  /** `null` where the machines' times are noisy: it holds without noise only. */
  readonly lowerBoundJ: number | null;
  /** Each rival where it first reaches Paceline's attainment; `null` where no margin does, with its best attainment. */
  readonly rivals: readonly { readonly name: RivalName; readonly asPublished: Outcome; readonly matched: Outcome | null }[];
  readonly prediction: Prediction;
}

/** Median absolute error, and the share that stayed below the predicted 90 % quantile. */
export interface Prediction {
  readonly ttftErrorPct: number;
  readonly ttftCoverage: number;
  readonly tpotErrorPct: number;
  readonly tpotCoverage: number;
}

const MARGINS = [0, 0.1, 0.2, 0.35, 0.5];
const TAIL_S = 30;
/** Share of what a plain gateway at maximum clock can take by TTFT, tried from the steady capacity downwards. */
const CAPACITY_SHARES = [1, 0.8, 0.6, 0.45, 0.35, 0.25, 0.18, 0.12, 0.08];
const CAPACITY_TTFT_SHARE = 0.99;

export interface CellOptions {
  readonly replicas: number;
  readonly seed: number;
  readonly clairvoyantEffort: number;
}

/**
 * Requests per second that the fleet can take: the most, up to what steady arrivals would allow, at which a plain gateway at
 * maximum clock still brings 99 % of the first tokens in time. Bursty workloads so ask for less than steady ones.
 */
export function fleetCapacityPerS(model: PerformanceModel, source: Source, options: CellOptions): number {
  for (const share of CAPACITY_SHARES) {
    const ratePerS = share * options.replicas * source.steadyPerS;
    const workload = played(source, ratePerS);
    const shared = sharedOf(model, workload, 'right', options);
    const run = simulate({ ...shared, policy: { kind: 'max-clock' } });
    const inTime = run.reports.filter(({ ttftMs, jobId }) => (ttftMs ?? 0) <= (shared.classes[Number(jobId)]?.slo.ttftMs ?? Number.POSITIVE_INFINITY)).length;
    if (inTime >= CAPACITY_TTFT_SHARE * workload.requests.length) return ratePerS;
  }
  return (CAPACITY_SHARES.at(-1) as number) * options.replicas * source.steadyPerS;
}

export function runCell(model: PerformanceModel, source: Source, capacityPerS: number, load: Load, belief: Belief, options: CellOptions): CellResult {
  const workload = played(source, LOADS[load] * capacityPerS);
  const shared = sharedOf(model, workload, belief, options);
  const physics = createPhysics(model.profile, BELIEFS[belief].scale);
  const feasible = feasibleAlone([physics], shared.requests, shared.classes);
  const outcome = (policy: string, run: SimulatedRun): Outcome => {
    const { attainmentOfFeasible, energyJ } = runReport({ policy, replicas: options.replicas, seed: options.seed }, run, feasible);
    return { policy, attainment: attainmentOfFeasible, energyJ };
  };
  const play = (label: string, policy: SimulationOptions['policy']): Outcome => outcome(label, simulate({ ...shared, policy }));

  const run = simulate({ ...shared, policy: { kind: 'paceline' } });
  const paceline = outcome('paceline', run);
  const maxClock = play('max-clock', { kind: 'max-clock' });
  const reaches = (other: Outcome): boolean => other.attainment >= paceline.attainment;

  const rivals = (Object.keys(RIVALS) as RivalName[])
    .filter((name) => name !== 'driver')
    .map((name) => {
      let asPublished: Outcome | null = null;
      for (const margin of MARGINS) {
        const played = play(margin === 0 ? name : `${name}@${margin}`, { kind: 'rival-factory', create: RIVALS[name], margin });
        asPublished ??= played;
        if (reaches(played)) return { name, asPublished, matched: played };
      }
      return { name, asPublished: asPublished as Outcome, matched: null };
    });
  const matched = rivals.flatMap((rival) => rival.matched ?? []);
  const clairvoyant = outcome('clairvoyant', simulateClairvoyant({ ...shared, effort: options.clairvoyantEffort }));
  return {
    profile: model.profile.name,
    workload: source.name,
    recorded: workload.recorded,
    belief,
    load,
    ratePerS: workload.ratePerS,
    requests: workload.requests.length,
    infeasible: feasible.filter((could) => !could).length,
    paceline,
    maxClock,
    bestStatic: bestStatic(model, play, reaches),
    bestRival: matched.reduce<Outcome | null>((best, other) => (best === null || other.energyJ < best.energyJ ? other : best), null),
    clairvoyant,
    lowerBoundJ: hasNoise(belief) ? null : energyLowerBoundJ({ ...shared, slos: shared.classes.map(({ slo }) => slo), windowMs: shared.untilMs }),
    rivals,
    prediction: predictionOf(run),
  };
}

function hasNoise(belief: Belief): boolean {
  const { durationCv = 0 }: MachineOptions = BELIEFS[belief].machines;
  return durationCv > 0;
}

type Shared = Omit<SimulationOptions, 'policy' | 'untilMs'> & { readonly untilMs: number };

export function sharedOf(model: PerformanceModel, workload: LoadedWorkload, belief: Belief, { replicas, seed }: CellOptions): Shared {
  const { profile } = model;
  return {
    requests: workload.requests,
    classes: drawClasses(workload.classes, workload.requests.length, seed),
    replicas,
    truth: profile,
    truthScale: BELIEFS[belief].scale,
    machines: BELIEFS[belief].machines,
    belief: profile,
    seed,
    attainmentTarget: 0.99,
    untilMs: (workload.durationS + TAIL_S) * 1000,
  };
}

/** From the slowest clock upwards: the first that reaches the attainment, and the next two, since the slowest need not be the cheapest. */
function bestStatic(model: PerformanceModel, play: (label: string, policy: SimulationOptions['policy']) => Outcome, reaches: (outcome: Outcome) => boolean): Outcome | null {
  let best: Outcome | null = null;
  let further = 0;
  for (const point of model.bySlowness) {
    if (best !== null && ++further > 2) break;
    const { id } = model.points[point] as (typeof model.points)[number];
    const outcome = play(`static:${id}`, { kind: 'static', pointId: id });
    if (reaches(outcome) && (best === null || outcome.energyJ < best.energyJ)) best = outcome;
  }
  return best;
}

export function predictionOf({ reports }: SimulatedRun): Prediction {
  const quality = (pairs: readonly { readonly actual: number; readonly predicted: number; readonly upper: number }[]): readonly [number, number] => [
    100 * (percentiles(pairs.map(({ actual, predicted }) => Math.abs(actual - predicted) / Math.max(1e-9, actual))).p50 ?? 0),
    pairs.filter(({ actual, upper }) => actual <= upper).length / Math.max(1, pairs.length),
  ];
  const [ttftErrorPct, ttftCoverage] = quality(reports.flatMap(({ ttftMs, prediction }) => (ttftMs === null || prediction === null ? [] : [{ actual: ttftMs, predicted: prediction.ttftMs, upper: prediction.ttftP90Ms }])));
  const [tpotErrorPct, tpotCoverage] = quality(reports.flatMap(({ tpotMs, prediction }) => (tpotMs === null || prediction === null ? [] : [{ actual: tpotMs, predicted: prediction.tpotMs, upper: prediction.tpotP90Ms }])));
  return { ttftErrorPct, ttftCoverage, tpotErrorPct, tpotCoverage };
}
