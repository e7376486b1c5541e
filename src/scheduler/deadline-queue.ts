// Jobs that no replica has room for yet: earliest deadline first, first come first among equals. Bounded.
import type { PendingJob } from '../core/tracked-job.ts';

export interface DeadlineQueue {
  readonly size: () => number;
  /** False when the queue is full; the job is then not in it. */
  push(job: PendingJob): boolean;
  /** The job to send next among those `mayGo` lets; removed from the queue. `null` when there is none. */
  take(mayGo: (job: PendingJob) => boolean): PendingJob | null;
  remove(job: PendingJob): boolean;
  all(): readonly PendingJob[];
}

/** Kept sorted: a queue is short whenever things go well, and at its bound an insertion moves a few thousand references. */
export function createDeadlineQueue(sizeMax: number): DeadlineQueue {
  const jobs: PendingJob[] = [];
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
      return true;
    },
    take(mayGo) {
      const index = jobs.findIndex(mayGo);
      return index < 0 ? null : (jobs.splice(index, 1)[0] ?? null);
    },
    remove(job) {
      const index = jobs.indexOf(job);
      if (index < 0) return false;
      jobs.splice(index, 1);
      return true;
    },
    all: () => jobs,
  };
}
