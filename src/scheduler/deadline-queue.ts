// Jobs that no replica has room for yet: earliest deadline first, first come first among equals. Bounded.
import type { PendingJob } from '../core/tracked-job.ts';

export interface DeadlineQueue {
  readonly size: () => number;
  /** False when the queue is full; the job is then not in it. */
  push(job: PendingJob): boolean;
  /**
   * The job to send next among those that `mayGo` lets, still in the queue. Jobs that can still be in time go
   * before those that are late already: else everybody behind a late one would be late as well. One in `LATE_TURN` is a late
   * one all the same, so that nobody waits for ever.
   */
  next(mayGo: (job: PendingJob) => boolean, nowMs: number): PendingJob | null;
  /** Takes it out; `sent` says that it goes to a replica, which is what turns are counted by. */
  remove(job: PendingJob, sent: boolean): boolean;
  all(): readonly PendingJob[];
  /** How many of a model. */
  countOf(model: string): number;
}

const LATE_TURN = 8;

/** Kept sorted: a queue is short whenever things go well, and at its bound an insertion moves a few thousand references. */
export function createDeadlineQueue(sizeMax: number): DeadlineQueue {
  const jobs: PendingJob[] = [];
  const counts = new Map<string, number>();
  let sentSinceLate = 0;

  function count(job: PendingJob, by: 1 | -1): void {
    counts.set(job.spec.model, (counts.get(job.spec.model) ?? 0) + by);
  }

  return {
    size: () => jobs.length,
    push(job) {
      if (jobs.length >= sizeMax) return false;
      let low = 0;
      let high = jobs.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((jobs[middle] as PendingJob).firstDeadlineAtMs <= job.firstDeadlineAtMs) low = middle + 1;
        else high = middle;
      }
      jobs.splice(low, 0, job);
      count(job, 1);
      return true;
    },
    next(mayGo, nowMs) {
      const first = jobs.find(mayGo) ?? null;
      if (first === null || first.firstDeadlineAtMs > nowMs || sentSinceLate >= LATE_TURN - 1) return first;
      return jobs.find((job) => job.firstDeadlineAtMs > nowMs && mayGo(job)) ?? first;
    },
    remove(job, sent) {
      const index = jobs.indexOf(job);
      if (index < 0) return false;
      jobs.splice(index, 1);
      count(job, -1);
      if (sent) sentSinceLate = index === 0 ? 0 : sentSinceLate + 1;
      return true;
    },
    all: () => jobs,
    countOf: (model) => counts.get(model) ?? 0,
  };
}
