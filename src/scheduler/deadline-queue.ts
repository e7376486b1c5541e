// Jobs that are not sent yet: earliest deadline first, put back by what their tenants have had beyond their share, first come
// first among equals. Bounded.
import { LATE_PATIENCE_MS } from '../core/limits.ts';
import type { PendingJob } from '../core/tracked-job.ts';

export interface DeadlineQueue {
  readonly size: () => number;
  /** False when the queue is full; the job is then not in it. `backMs`: by how much its turn comes later than its deadline says. */
  push(job: PendingJob, backMs?: number): boolean;
  /** Puts all of them in order anew: tenants have been given something meanwhile. */
  reorder(backMsOf: (job: PendingJob) => number): void;
  /**
   * All of them in the order in which they should go. Jobs that can still be in time go before those that are late already: else
   * everybody behind a late one would be late as well. One in `LATE_TURN` is a late one all the same, so that nobody waits for ever.
   */
  ordered(nowMs: number): readonly PendingJob[];
  /** Those of its model that a job which comes now would have to wait for. */
  before(job: PendingJob, backMs?: number): readonly PendingJob[];
  /** Takes it out. Turns are counted by what is sent to a replica. */
  remove(job: PendingJob, how: { readonly sentAtMs: number } | null): boolean;
  all(): readonly PendingJob[];
  /** How many of a model. */
  countOf(model: string): number;
}

const LATE_TURN = 8;

/** Kept sorted: a queue is short whenever things go well, and at its bound an insertion moves a few thousand references. */
export function createDeadlineQueue(sizeMax: number): DeadlineQueue {
  let jobs: PendingJob[] = [];
  /** When it is whose turn, side by side with the jobs. */
  let turns: number[] = [];
  const counts = new Map<string, number>();
  let sentSinceLate = 0;

  function count(job: PendingJob, by: 1 | -1): void {
    counts.set(job.spec.model, (counts.get(job.spec.model) ?? 0) + by);
  }

  /** Behind all whose turn is not later. */
  function placeFor(turnAtMs: number): number {
    let low = 0;
    let high = turns.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((turns[middle] as number) <= turnAtMs) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  return {
    size: () => jobs.length,
    push(job, backMs = 0) {
      if (jobs.length >= sizeMax) return false;
      const turnAtMs = dueAtMs(job) + backMs;
      const place = placeFor(turnAtMs);
      jobs.splice(place, 0, job);
      turns.splice(place, 0, turnAtMs);
      count(job, 1);
      return true;
    },
    reorder(backMsOf) {
      const anew = jobs.map((job) => ({ job, turnAtMs: dueAtMs(job) + backMsOf(job) }));
      if (anew.every(({ turnAtMs }, place) => turnAtMs === turns[place])) return;
      anew.sort((a, b) => a.turnAtMs - b.turnAtMs);
      jobs = anew.map(({ job }) => job);
      turns = anew.map(({ turnAtMs }) => turnAtMs);
    },
    ordered(nowMs) {
      if (jobs.length < 2) return jobs.slice();
      const late = jobs.filter((job) => isLate(job, nowMs));
      if (late.length === 0) return jobs.slice();
      const inTime = jobs.filter((job) => !isLate(job, nowMs));
      const order: PendingJob[] = [];
      let sinceLate = sentSinceLate;
      for (let nextInTime = 0, nextLate = 0; order.length < jobs.length; ) {
        const takesLate = nextLate < late.length && (sinceLate >= LATE_TURN - 1 || nextInTime >= inTime.length);
        order.push((takesLate ? late[nextLate++] : inTime[nextInTime++]) as PendingJob);
        sinceLate = takesLate ? 0 : sinceLate + 1;
      }
      return order;
    },
    before(job, backMs = 0) {
      return jobs.slice(0, placeFor(dueAtMs(job) + backMs)).filter((other) => other.spec.model === job.spec.model);
    },
    remove(job, how) {
      const index = jobs.indexOf(job);
      if (index < 0) return false;
      jobs.splice(index, 1);
      turns.splice(index, 1);
      count(job, -1);
      if (how !== null) sentSinceLate = isLate(job, how.sentAtMs) ? 0 : sentSinceLate + 1;
      return true;
    },
    all: () => jobs,
    countOf: (model) => counts.get(model) ?? 0,
  };
}

function isLate(job: PendingJob, nowMs: number): boolean {
  return job.firstDeadlineAtMs <= nowMs;
}

/** A job without a deadline stands among the others as if it had one: behind those that are urgent, but not behind all that ever come. */
function dueAtMs(job: PendingJob): number {
  return job.firstDeadlineAtMs === Number.POSITIVE_INFINITY ? job.arrivedAtMs + LATE_PATIENCE_MS : job.firstDeadlineAtMs;
}
