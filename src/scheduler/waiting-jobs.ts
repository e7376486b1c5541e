// The jobs that are here and not yet sent, and whose turn it is: those that nobody has room for or that are paced, and apart from
// them those that are held for a cheaper moment, who stand in nobody's way. Together they are bounded.
import { type Contention, createContention } from '../core/contention.ts';
import type { PendingJob } from '../core/tracked-job.ts';
import { createDeadlineQueue, type DeadlineQueue } from './deadline-queue.ts';

/** Why a job is still in our queue: no replica has room; it would cost others their deadlines, or is much cheaper elsewhere, once there is room; it waits for a cheaper moment. */
export type Kept = { readonly kind: 'place' } | { readonly kind: 'pace'; readonly cheaper?: true } | { readonly kind: 'hold'; readonly lookAgainAtMs: number; /** For an hour in which energy is cheaper, and not only for company. */ readonly moved?: true };

export interface WaitingJobs {
  /** Those that go as soon as they may, and those that are held. To be changed by the functions below only. */
  readonly queue: Omit<DeadlineQueue, 'push' | 'remove' | 'reorder'>;
  readonly held: Omit<DeadlineQueue, 'push' | 'remove' | 'reorder'>;
  size(): number;
  isFull(): boolean;
  enter(job: PendingJob, why: Kept, nowMs: number): void;
  /** Out of it, because it was sent or for another reason. */
  leave(job: PendingJob, why: Kept, how: 'sent' | 'otherwise', nowMs: number): void;
  /** It waits on, for another reason; in the same queue it keeps its place among equals. */
  waitOn(job: PendingJob, from: Kept, to: Kept, nowMs: number): void;
  /** Once per control period: in less nobody gets far ahead. Tenants are looked up once for all of their jobs. */
  reorder(nowMs: number): void;
  /** By how much its turn is put back for what its tenant has had beyond its share. */
  putBackMs(job: PendingJob): number;
  /** Jobs of the model, with a deadline, that have no place on any replica, and not by our choice. */
  placesWanted(model: string): number;
  /** Jobs of the model that wait because there is not room for them, or not without costing deadlines. */
  crowdOf(model: string): number;
  /** How long it would have to wait, behind those before it or behind all that wait (`'all'`). */
  waitMs(job: PendingJob, behind: 'its turn' | 'all'): number;
  /** What became of the model's room; the queue's own coming and going is told of here. */
  contentionOf(model: string): Contention;
}

export interface WaitingJobsOptions {
  readonly sizeMax: number;
  readonly reorderEveryMs: number;
  /** Replicas that jobs of a model go to now. */
  readonly replicasOf: (model: string) => number;
  /** There are more of the model that want a place, or fewer: see `placesWanted`. */
  readonly onPlacesWanted: (model: string) => void;
}

export function createWaitingJobs({ sizeMax, reorderEveryMs, replicasOf, onPlacesWanted }: WaitingJobsOptions): WaitingJobs {
  const queue = createDeadlineQueue(sizeMax);
  const held = createDeadlineQueue(sizeMax);
  /** All by model. */
  const placesWanted = new Map<string, number>();
  const crowds = new Map<string, number>();
  const contentions = new Map<string, Contention>();
  let reorderedAtMs = Number.NEGATIVE_INFINITY;

  function contentionOf(model: string): Contention {
    let contention = contentions.get(model);
    if (contention === undefined) {
      contention = createContention();
      contentions.set(model, contention);
    }
    return contention;
  }

  function putBackMs(job: PendingJob): number {
    return contentionOf(job.spec.model).putBackMs(job, replicasOf(job.spec.model));
  }

  function count(job: PendingJob, why: Kept, by: 1 | -1): void {
    if (why.kind === 'place' || (why.kind === 'pace' && why.cheaper !== true)) crowds.set(job.spec.model, (crowds.get(job.spec.model) ?? 0) + by);
    if (why.kind !== 'place' || job.firstDeadlineAtMs === Number.POSITIVE_INFINITY) return;
    const { model } = job.spec;
    placesWanted.set(model, (placesWanted.get(model) ?? 0) + by);
    onPlacesWanted(model);
  }

  function enter(job: PendingJob, why: Kept, nowMs: number): void {
    if (why.kind === 'hold') held.push(job);
    else queue.push(job, putBackMs(job));
    count(job, why, 1);
    if (why.kind !== 'hold') contentionOf(job.spec.model).entered(job, nowMs);
  }

  function leave(job: PendingJob, why: Kept, how: 'sent' | 'otherwise', nowMs: number): void {
    (why.kind === 'hold' ? held : queue).remove(job, how === 'sent' ? { sentAtMs: nowMs } : null);
    count(job, why, -1);
    if (why.kind !== 'hold') contentionOf(job.spec.model).left(job, nowMs);
  }

  return {
    queue,
    held,
    size: () => queue.size() + held.size(),
    isFull: () => queue.size() + held.size() >= sizeMax,
    enter,
    leave,
    waitOn(job, from, to, nowMs) {
      if ((to.kind === 'hold') === (from.kind === 'hold')) {
        count(job, from, -1);
        count(job, to, 1);
      } else {
        leave(job, from, 'otherwise', nowMs);
        enter(job, to, nowMs);
      }
    },
    reorder(nowMs) {
      if (queue.size() === 0 || nowMs - reorderedAtMs < reorderEveryMs) return;
      reorderedAtMs = nowMs;
      const known = new Map<string, number>();
      queue.reorder((job) => {
        let backMs = known.get(job.key);
        if (backMs === undefined) {
          backMs = putBackMs(job);
          known.set(job.key, backMs);
        }
        return backMs;
      });
    },
    putBackMs,
    placesWanted: (model) => placesWanted.get(model) ?? 0,
    crowdOf: (model) => crowds.get(model) ?? 0,
    waitMs: (job, behind) => contentionOf(job.spec.model).waitMs(job, behind === 'all' ? queue.all() : queue.before(job, putBackMs(job)), replicasOf(job.spec.model)),
    contentionOf,
  };
}
