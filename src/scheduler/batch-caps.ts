// Caps on what a replica is sent at once, by its batch and not for want of room: planned from profiles, or learnt by trying them out.
// Replicas that are alike have one cap, and learn it together.
import type { AwakeLoad } from '../core/awake-plan.ts';
import { type BatchCapBandit, type CapBelief, type CapQueue, type CapStatus, createBatchCapBandit } from '../core/batch-cap-bandit.ts';
import { plannedBatchCap } from '../core/batch-cap-plan.ts';
import type { ReplicaId } from '../core/job.ts';
import type { MeterReading } from '../core/meter-window.ts';
import { type LoadShape, pointRate } from '../core/point-rate.ts';
import type { PhaseGroup } from '../core/replica-view.ts';
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { FleetDemand } from './fleet-demand.ts';
import type { Replica } from './replica.ts';

/** `random`: uniform in [0, 1). */
export type BatchCapRule = { readonly kind: 'plan' } | { readonly kind: 'learn'; readonly random: () => number };

export interface BatchCaps {
  tick(nowMs: number): void;
  /** So many more output tokens have come from it. */
  tokens(replica: Replica, count: number): void;
  ended(replica: Replica, job: Parameters<BatchCapBandit['ended']>[0]): void;
  /** A job of the model was refused because it could not be in time. */
  refused(model: string): void;
  metered(replica: Replica, group: PhaseGroup | undefined, reading: MeterReading | null): void;
  /** What is known of each cap by those like this replica; `null` where nothing is learnt. */
  statusOf(replica: Replica): readonly CapStatus[] | null;
}

export interface BatchCapsOptions {
  readonly rule: BatchCapRule;
  readonly replicas: readonly Replica[];
  readonly fleet: Pick<FleetDemand, 'loadOf'>;
  readonly attainmentTarget: number;
  readonly placesWanted: (model: string) => number;
}

/** Loads move over seconds. */
const PLAN_EVERY_MS = 1_000;

/** A burst that is over sooner is waited out. */
const PEAK_WITHIN_MS = 20_000;

/** Of replicas that are alike. */
interface Learning {
  readonly bandit: BatchCapBandit;
  believed: { readonly atMs: number; readonly belief: CapBelief } | null;
}

export function createBatchCaps({ rule, replicas, fleet, attainmentTarget, placesWanted }: BatchCapsOptions): BatchCaps {
  let plannedAtMs = Number.NEGATIVE_INFINITY;
  /** By belief, models and places. Bounded by what is configured. */
  const bandits = new Map<PerformanceModel, Map<string, Learning>>();
  const readings = new Map<ReplicaId, Map<PhaseGroup | null, MeterReading>>();

  /** `null`: nothing is learnt. */
  function banditOf(replica: Replica): BatchCapBandit | null {
    return learningOf(replica)?.bandit ?? null;
  }

  function learningOf({ spec: { belief, models, concurrencyMax } }: Replica): Learning | null {
    return bandits.get(belief)?.get(`${concurrencyMax}\n${models.join('\n')}`) ?? null;
  }

  function beginLearning({ spec: { belief, models, concurrencyMax } }: Replica, random: () => number): Learning {
    const ofBelief = bandits.get(belief) ?? new Map<string, Learning>();
    bandits.set(belief, ofBelief);
    const learning: Learning = { bandit: createBatchCapBandit({ concurrencyMax, attainmentTarget, random }), believed: null };
    ofBelief.set(`${concurrencyMax}\n${models.join('\n')}`, learning);
    return learning;
  }

  function plannedFor({ spec, queue: { corrections } }: Replica, load: LoadShape): number {
    return plannedBatchCap(spec.belief, load, { timeScale: corrections.time, priced: corrections.priced }, spec.concurrencyMax);
  }

  function plan(nowMs: number): void {
    plannedAtMs = nowMs;
    for (const replica of replicas) {
      const load = fleet.loadOf(replica.spec.models, 0, nowMs);
      replica.batchCap = load.arrivalsPerMs > 0 ? plannedFor(replica, load) : Number.POSITIVE_INFINITY;
    }
  }

  function learn(random: () => number, nowMs: number): void {
    const alike = new Map<Learning, Replica[]>();
    for (const replica of replicas) {
      const learning = learningOf(replica) ?? beginLearning(replica, random);
      const members = alike.get(learning);
      if (members === undefined) alike.set(learning, [replica]);
      else members.push(replica);
    }
    for (const [learning, members] of alike) lookAt(learning, members as [Replica, ...Replica[]], nowMs);
  }

  function lookAt(learning: Learning, members: readonly [Replica, ...Replica[]], nowMs: number): void {
    const [first] = members;
    const { models } = first.spec;
    const load = fleet.loadOf(models, PEAK_WITHIN_MS, nowMs);
    if (load.arrivalsPerMs <= 0) return;
    const { arrivalsPerMs, promptTokensMean, outputTokensMean, ttftMs } = load;
    if (learning.believed === null || nowMs - learning.believed.atMs >= PLAN_EVERY_MS) learning.believed = { atMs: nowMs, belief: beliefOf(first, members, load) };
    const queue: CapQueue = {
      waiting: models.reduce((sum, model) => sum + placesWanted(model), 0),
      inFlight: members.reduce((sum, { queue: own }) => sum + own.waitingCount() + own.runningCount(), 0),
      late: members.reduce((sum, { queue: own }) => sum + own.lateCount(nowMs), 0),
      ttftMs,
    };
    learning.bandit.look({ perMs: arrivalsPerMs, promptTokensMean, outputTokensMean }, queue, learning.believed.belief, nowMs);
    for (const replica of members) replica.batchCap = learning.bandit.cap();
  }

  /** Rooms are of all that serve these models and are there: those alike at the cap asked about, others at their own. */
  function beliefOf(first: Replica, members: readonly Replica[], load: AwakeLoad): CapBelief {
    const isThere = ({ state, leaving, rest }: Replica): boolean => state === 'up' && leaving === null && (rest === null || rest.kind === 'awake');
    const count = members.filter(isThere).length;
    const others = replicas.filter((replica) => !members.includes(replica) && isThere(replica) && first.spec.models.every((model) => replica.spec.models.includes(model)));
    const othersPerMs = others.reduce((sum, replica) => sum + mostPerMs(replica, load, Math.min(replica.spec.concurrencyMax, replica.batchCap)), 0);
    const known = new Map<number, boolean>();
    return {
      plannedCap: plannedFor(first, load),
      sustains(cap) {
        const before = known.get(cap);
        if (before !== undefined) return before;
        const sustains = count * mostPerMs(first, load, cap) + othersPerMs >= load.peakPerMs;
        known.set(cap, sustains);
        return sustains;
      },
    };
  }

  return {
    tick(nowMs) {
      if (rule.kind === 'learn') learn(rule.random, nowMs);
      else if (nowMs - plannedAtMs >= PLAN_EVERY_MS) plan(nowMs);
    },
    tokens: (replica, count) => banditOf(replica)?.tokens(count),
    ended: (replica, job) => banditOf(replica)?.ended(job),
    refused(model) {
      for (const bandit of new Set(replicas.filter(({ spec }) => spec.models.includes(model)).map(banditOf))) bandit?.refused();
    },
    metered(replica, group = undefined, reading) {
      const { replicaId } = replica.spec;
      const known = readings.get(replicaId) ?? new Map<PhaseGroup | null, MeterReading>();
      readings.set(replicaId, known);
      const before = known.get(group ?? null);
      if (reading === null) known.delete(group ?? null);
      else known.set(group ?? null, reading);
      if (reading !== null && before !== undefined && before.epoch === reading.epoch && reading.energyJ > before.energyJ) banditOf(replica)?.consumed(reading.energyJ - before.energyJ);
    },
    statusOf: (replica) => banditOf(replica)?.status() ?? null,
  };
}

/** Of one replica at its fastest point, as learnt. */
function mostPerMs({ spec: { belief }, queue: { corrections } }: Replica, load: LoadShape, sequencesMax: number): number {
  return Math.max(0, pointRate(belief, belief.fastest, load, { timeScale: corrections.time, priced: corrections.priced, parkedW: 0 }, sequencesMax).mostPerMs);
}
