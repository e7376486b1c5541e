// A rack under a power cap: two models on replicas of their own, classes of unlike worth, and a load that moves from one model to the other.
import { evenScale } from '../../src/core/corrections.ts';
import type { Slo, ReplicaId } from '../../src/core/job.ts';
import { pointRate } from '../../src/core/point-rate.ts';
import type { PowerBudget } from '../../src/core/power-budget.ts';
import type { TruthScale } from '../../src/engine/physics.ts';
import { createPerformanceModel, type PerformanceModel } from '../../src/frontier/performance-model.ts';
import { limitedModel, powerRange } from '../../src/frontier/power-limited.ts';
import type { Profile } from '../../src/frontier/profile.ts';
import { createRandom } from '../../src/random/random.ts';
import { type SimulatedPower, simulate, type SimulationOptions } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';

/** Sizes of the Azure conversation trace of 2023 (mean and coefficient of variation). */
const PROMPT = { kind: 'lognormal', meanTokens: 1195, cv: 0.95 } as const;
const OUTPUT = { kind: 'lognormal', meanTokens: 201, cv: 0.85 } as const;

export interface WorthClass {
  readonly name: string;
  readonly share: number;
  readonly slo: Slo;
  readonly worth: number;
}

export interface Rack {
  readonly profile: Profile;
  readonly model: PerformanceModel;
  readonly classes: readonly WorthClass[];
}

const MODELS = ['chat', 'assist'] as const;
const REPLICAS_EACH = 2;
export const REPLICAS = MODELS.length * REPLICAS_EACH;
/** Of all requests, those of the model that has the more at the time: the first one in the first half, then the other. */
const BUSIER_SHARE = 0.65;

export const PLANS = {
  'max clock, uniform': { policy: { kind: 'max-clock' }, how: 'uniform' },
  'planned, uniform': { policy: { kind: 'paceline' }, how: 'uniform' },
  allotted: { policy: { kind: 'paceline' }, how: 'allotted' },
} as const satisfies Record<string, { readonly policy: SimulationOptions['policy']; readonly how: SimulatedPower['how'] }>;
export type Plan = keyof typeof PLANS;

export interface Outcome {
  /** Of the worth of all requests, that of those which met every objective. */
  readonly attainment: number;
  readonly attainmentByClass: Readonly<Record<string, number>>;
  /** Requests met per second of the load. */
  readonly goodputPerS: number;
  readonly energyJ: number;
  readonly peakW: number;
  readonly longestOverMs: number;
  readonly overJ: number;
}

export function rackOf(profile: Profile, classes: readonly WorthClass[]): Rack {
  return { profile, model: createPerformanceModel(profile), classes };
}

export function rackPeakW({ model }: Rack): number {
  return REPLICAS * powerRange(model).peakW;
}

/**
 * Requests per second that the rack takes with every replica at the same part of its peak: as many as settle at the tokens' mean limit (`pointRate`) at the fastest
 * clock that keeps within it.
 */
export function cappedRatePerS({ model, classes }: Rack, capShare: number): number {
  const perTpot = classes.reduce((sum, { share, slo }) => sum + share / (slo.tpotMs ?? Number.POSITIVE_INFINITY), 0);
  const limited = limitedModel(model, capShare * powerRange(model).peakW);
  const load = { promptTokensMean: PROMPT.meanTokens, prefillTokensMean: PROMPT.meanTokens, outputTokensMean: OUTPUT.meanTokens, tpotMs: 1 / perTpot };
  return 1000 * REPLICAS * pointRate(limited, limited.fastest, load, { timeScale: evenScale(limited.points.length, { prefill: 1, decode: 1 }), priced: limited, parkedW: 0 }).mostPerMs;
}

export interface Played {
  readonly rack: Rack;
  readonly ratePerS: number;
  readonly durationS: number;
  /** Parts of the rack's peak, from when on. */
  readonly caps: readonly { readonly atS: number; readonly share: number }[];
  readonly truthScale: TruthScale;
  readonly seed: number;
}

export function play(plan: Plan, { rack, ratePerS, durationS, caps, truthScale, seed }: Played): Outcome {
  const { profile, classes } = rack;
  const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS }, promptTokens: PROMPT, outputTokens: OUTPUT, durationS, seed });
  const random = createRandom(seed, 'model');
  const models = requests.map(({ atMs }) => {
    const busier = atMs < 500 * durationS ? 0 : 1;
    return MODELS[random() < BUSIER_SHARE ? busier : 1 - busier] as string;
  });
  const ofClass = createRandom(seed, 'class');
  const drawn = requests.map(() => {
    let left = ofClass();
    return classes.find(({ share }) => (left -= share) < 0) ?? (classes.at(-1) as WorthClass);
  });
  const replicaIds = Array.from({ length: REPLICAS }, (_, index) => `r${index}` as ReplicaId);
  const peakW = rackPeakW(rack);
  const { policy, how } = PLANS[plan];
  const run = simulate({
    requests,
    classes: drawn,
    models,
    replicas: REPLICAS,
    truth: profile,
    belief: profile,
    fleet: replicaIds.map((_, index) => ({ truth: profile, belief: profile, models: [MODELS[Math.floor(index / REPLICAS_EACH)] as string] })),
    truthScale,
    policy,
    seed,
    untilMs: durationS * 1000,
    power: { schedule: caps.map(({ atS, share }) => ({ atMs: 1000 * atS, budgets: [{ name: 'rack', watts: share * peakW, replicaIds } satisfies PowerBudget] })), how },
  });
  const met = new Set(run.reports.filter((report) => report.met ?? report.outcome === 'finished').map(({ jobId }) => Number(jobId)));
  const part = (of: (sloClass: WorthClass) => number): number => drawn.reduce((sum, sloClass, index) => sum + (met.has(index) ? of(sloClass) : 0), 0) / Math.max(1e-9, drawn.reduce((sum, sloClass) => sum + of(sloClass), 0));
  const [held] = run.budgets ?? [];
  return {
    attainment: part(({ worth }) => worth),
    attainmentByClass: Object.fromEntries(classes.map(({ name }) => [name, part((sloClass) => (sloClass.name === name ? 1 : 0))])),
    goodputPerS: met.size / durationS,
    energyJ: run.energyJ,
    peakW: held?.peakW ?? 0,
    longestOverMs: held?.longestOverMs ?? 0,
    overJ: held?.overJ ?? 0,
  };
}
