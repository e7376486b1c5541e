// Caps on what a replica is sent at once, by its batch and not for want of room: planned from profiles, or learnt by trying them out.
// Replicas that are alike have one cap, and learn it together.
import { type BatchCapBandit, type CapStatus, createBatchCapBandit } from '../core/batch-cap-bandit.ts';
import { plannedBatchCap } from '../core/batch-cap-plan.ts';
import type { ReplicaId } from '../core/job.ts';
import type { MeterReading } from '../core/meter-window.ts';
import type { LoadShape } from '../core/point-rate.ts';
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

export function createBatchCaps({ rule, replicas, fleet, attainmentTarget, placesWanted }: BatchCapsOptions): BatchCaps {
  let plannedAtMs = Number.NEGATIVE_INFINITY;
  /** By belief, models and places. Bounded by what is configured. */
  const bandits = new Map<PerformanceModel, Map<string, BatchCapBandit>>();
  const readings = new Map<ReplicaId, Map<PhaseGroup | null, MeterReading>>();

  /** `null`: nothing is learnt, or nothing has come yet by which to begin. */
  function banditOf({ spec: { belief, models, concurrencyMax } }: Replica): BatchCapBandit | null {
    return bandits.get(belief)?.get(`${concurrencyMax}\n${models.join('\n')}`) ?? null;
  }

  function beginLearning(replica: Replica, random: () => number, load: LoadShape): BatchCapBandit {
    const { belief, models, concurrencyMax } = replica.spec;
    const ofBelief = bandits.get(belief) ?? new Map<string, BatchCapBandit>();
    bandits.set(belief, ofBelief);
    const bandit = createBatchCapBandit({ concurrencyMax, startCap: plannedFor(replica, load), attainmentTarget, random });
    ofBelief.set(`${concurrencyMax}\n${models.join('\n')}`, bandit);
    return bandit;
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
    const looked = new Set<BatchCapBandit>();
    for (const replica of replicas) {
      const { models } = replica.spec;
      const known = banditOf(replica);
      const load = known !== null && looked.has(known) ? null : fleet.loadOf(models, 0, nowMs);
      if (known === null && (load === null || load.arrivalsPerMs <= 0)) continue;
      const bandit = known ?? beginLearning(replica, random, load as LoadShape);
      if (load !== null) {
        looked.add(bandit);
        const { arrivalsPerMs, promptTokensMean, outputTokensMean, ttftMs } = load;
        bandit.look({ perMs: arrivalsPerMs, promptTokensMean, outputTokensMean }, { waiting: models.reduce((sum, model) => sum + placesWanted(model), 0), ttftMs }, nowMs);
      }
      replica.batchCap = bandit.cap();
    }
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
