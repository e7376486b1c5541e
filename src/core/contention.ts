// What happens to a model's jobs where there is not room for all at once: whose turn it is, and how long a newcomer would
// have to wait. Deadlines order the queue, put back by as long as a tenant is ahead of its share; how fast the queue is
// served is learnt from what was sent while others had to wait.
import { createFairShares } from './fair-shares.ts';
import { FAIR } from './limits.ts';
import type { PendingJob } from './tracked-job.ts';

export interface Contention {
  /** It waits for room from now on. */
  entered(job: PendingJob, nowMs: number): void;
  /** It waits no more, for whatever reason. */
  left(job: PendingJob, nowMs: number): void;
  sent(job: PendingJob, nowMs: number): void;
  /** A job that has ended took so much more (or less) of a replica's time than it was charged. */
  corrected(job: PendingJob, byMs: number, nowMs: number): void;
  /** By how much its turn is put back for what its tenant has had beyond its share. */
  putBackMs(job: PendingJob, replicas: number): number;
  /** Whether a best-effort job that would cost others their deadlines goes on waiting, beyond what it may wait for its own tenant's sake. */
  givesWay(job: PendingJob, nowMs: number): boolean;
  /**
   * How long a job has to wait with `before` in the queue in front of it; 0 where that is not known, for nobody had to wait lately.
   * A tenant has its share of what is sent in any case, so that what others have queued can delay it by no more.
   */
  waitMs(job: PendingJob, before: Iterable<PendingJob>, replicas: number): number;
}

/** Memory of the rate at which the queue is served. */
const RATE_MS = 5_000;
/** No rate is told from less time than this. */
const RATE_YOUNG_MS = 1_000;

export function createContention(): Contention {
  const shares = createFairShares();
  let waiting = 0;
  /** What was sent while others waited, and for how long they did; both forget at the same pace. */
  let workMs = 0;
  let timeMs = 0;
  let countedAtMs = 0;

  function countTo(nowMs: number): void {
    const passedMs = nowMs - countedAtMs;
    countedAtMs = nowMs;
    if (waiting === 0 || passedMs <= 0) return;
    const kept = Math.exp(-passedMs / RATE_MS);
    workMs *= kept;
    timeMs = timeMs * kept + RATE_MS * (1 - kept);
  }

  return {
    entered({ spec: { tenant, weight = 1 } }, nowMs) {
      countTo(nowMs);
      waiting += 1;
      shares.waits(tenant, weight, 1, nowMs);
    },
    left({ spec: { tenant, weight = 1 } }, nowMs) {
      countTo(nowMs);
      waiting -= 1;
      shares.waits(tenant, weight, -1, nowMs);
    },
    sent(job, nowMs) {
      countTo(nowMs);
      if (waiting > 0) workMs += job.workMs;
      shares.charge(job.spec.tenant, job.spec.weight ?? 1, job.workMs, nowMs);
    },
    corrected({ spec: { tenant, weight = 1 } }, byMs, nowMs) {
      shares.charge(tenant, weight, byMs, nowMs);
    },
    putBackMs({ spec: { tenant } }, replicas) {
      return Math.max(0, shares.aheadMs(tenant, replicas) - FAIR.aheadMs);
    },
    givesWay(job, nowMs) {
      return shares.shared() && (nowMs - job.arrivedAtMs < FAIR.patienceMs || shares.hasHadMore(job.spec.tenant, nowMs));
    },
    waitMs(job, before, replicas) {
      if (timeMs < RATE_YOUNG_MS || workMs <= 0) return 0;
      const perMs = workMs / timeMs;
      const { tenant, weight = 1 } = job.spec;
      let all = 0;
      let own = 0;
      for (const other of before) {
        all += other.workMs;
        if (other.spec.tenant === tenant) own += other.workMs;
      }
      const byOrderMs = all / perMs;
      const byShareMs = own / (perMs * shares.shareOf(tenant, weight));
      return shares.aheadMs(tenant, replicas) > FAIR.aheadMs ? Math.max(byOrderMs, byShareMs) : Math.min(byOrderMs, byShareMs);
    },
  };
}
