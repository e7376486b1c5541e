// Jobs that are not sent yet: earliest deadline first, first come first among equals. Bounded.
import { LATE_PATIENCE_MS } from '../core/limits.ts';
import type { PendingJob } from '../core/tracked-job.ts';

export interface DeadlineQueue {
  readonly size: () => number;
  /** False when the queue is full; the job is then not in it. */
  push(job: PendingJob): boolean;
  /**
   * All of them in the order in which they should go. Jobs that can still be in time go before those that are late already: else
   * everybody behind a late one would be late as well. One in `LATE_TURN` is a late one all the same, so that nobody waits for ever.
   * `putBackMs`: of a job whose tenant has had more than its share, by how much its turn comes later than its deadline says.
   */
  ordered(nowMs: number, putBackMs?: (job: PendingJob) => number): readonly PendingJob[];
  /** Those that a job would have to wait for. */
  before(job: PendingJob, putBackMs?: (job: PendingJob) => number): readonly PendingJob[];
  /** Takes it out. Turns are counted by what is sent to a replica. */
  remove(job: PendingJob, how: { readonly sentAtMs: number } | null): boolean;
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
        if (placeOf(jobs[middle] as PendingJob) <= placeOf(job)) low = middle + 1;
        else high = middle;
      }
      jobs.splice(low, 0, job);
      count(job, 1);
      return true;
    },
    ordered(nowMs, putBackMs) {
      if (jobs.length < 2) return jobs.slice();
      const turns = inTurn(jobs, putBackMs);
      const late = turns.filter((job) => isLate(job, nowMs));
      if (late.length === 0) return turns;
      const inTime = turns.filter((job) => !isLate(job, nowMs));
      const order: PendingJob[] = [];
      let sinceLate = sentSinceLate;
      for (let nextInTime = 0, nextLate = 0; order.length < jobs.length; ) {
        const takesLate = nextLate < late.length && (sinceLate >= LATE_TURN - 1 || nextInTime >= inTime.length);
        order.push((takesLate ? late[nextLate++] : inTime[nextInTime++]) as PendingJob);
        sinceLate = takesLate ? 0 : sinceLate + 1;
      }
      return order;
    },
    before(job, putBackMs = () => 0) {
      const turnAtMs = placeOf(job) + putBackMs(job);
      return jobs.filter((other) => other.spec.model === job.spec.model && placeOf(other) + putBackMs(other) <= turnAtMs);
    },
    remove(job, how) {
      const index = jobs.indexOf(job);
      if (index < 0) return false;
      jobs.splice(index, 1);
      count(job, -1);
      if (how !== null) sentSinceLate = isLate(job, how.sentAtMs) ? 0 : sentSinceLate + 1;
      return true;
    },
    all: () => jobs,
    countOf: (model) => counts.get(model) ?? 0,
  };
}

/** By their deadlines and what puts them back; in most cases nothing does, and they are in order as they stand. */
function inTurn(jobs: readonly PendingJob[], putBackMs: ((job: PendingJob) => number) | undefined): PendingJob[] {
  if (putBackMs === undefined) return jobs.slice();
  const turns = jobs.map((job) => ({ job, backMs: putBackMs(job) }));
  if (turns.some(({ backMs }) => backMs > 0)) turns.sort((a, b) => placeOf(a.job) + a.backMs - placeOf(b.job) - b.backMs);
  return turns.map(({ job }) => job);
}

function isLate(job: PendingJob, nowMs: number): boolean {
  return job.firstDeadlineAtMs <= nowMs;
}

/** A job without a deadline stands among the others as if it had one: behind those that are urgent, but not behind all that ever come. */
function placeOf(job: PendingJob): number {
  return job.firstDeadlineAtMs === Number.POSITIVE_INFINITY ? job.arrivedAtMs + LATE_PATIENCE_MS : job.firstDeadlineAtMs;
}
