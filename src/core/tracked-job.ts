// A job from its arrival on: pending before it has a replica, tracked from then to its end.
import type { PointIndex } from '../frontier/performance-model.ts';
import type { DecodeWork } from '../frontier/profile.ts';
import type { JobSpec, ReplicaId } from './job.ts';
import type { StreamRecord } from './replica-view.ts';

export interface PendingJob {
  readonly spec: JobSpec;
  /** Key of what is learnt from it: model and tenant. */
  readonly key: string;
  /** Key of how long its answer gets: the same, and the stage where it is a call of a workflow with a name. */
  readonly lengthKey: string;
  /** Estimated, unless the client sent token ids. */
  readonly promptTokens: number;
  readonly arrivedAtMs: number;
  /** When all of it is due: by its own end-to-end limit, or earlier as its workflow allots it. `Infinity`: never. */
  readonly e2eDeadlineAtMs: number;
  /** It is what its workflow allots it, which others can make good. */
  readonly e2eMoves: boolean;
  /** The earliest instant by which something is due; `Infinity` without SLO. Orders the queue. */
  readonly firstDeadlineAtMs: number;
  /** After it nothing can be in time: it would have to have the fastest replica to itself by then. `Infinity` without a deadline. */
  readonly latestStartAtMs: number;
  /** What it is expected to take of a replica's time at its fastest: its prefill, and its part of the steps of a full batch. */
  readonly workMs: number;
  /** Could not be reached for it. */
  readonly avoid?: readonly ReplicaId[];
}

export interface PrefillSeen {
  readonly tookMs: number;
  readonly point: PointIndex;
  readonly decode: DecodeWork;
}

/** A job on a replica. Its last fields change: one object per job, touched for each batch of tokens. */
export interface TrackedJob extends PendingJob {
  /** Both change where the slack of its workflow does. */
  e2eDeadlineAtMs: number;
  e2eMoves: boolean;
  readonly dispatchedAtMs: number;
  /** False where some deadline could not be met even when it was sent: it teaches the guard band nothing. */
  readonly feasible: boolean;
  /** Leading blocks of its prompt that were believed to be there when it was sent; and what of its prompt was reckoned to be cached. */
  prefixHits: number;
  cachedTokens: number;
  /** How far the server has probably come with the prompt, what it had cached included. */
  prefilledTokens: number;
  /** `null` until the first token; for a job that does not stream it is an estimate. */
  firstTokenAtMs: number | null;
  lastTokenAtMs: number;
  /** Seen; for a job that does not stream estimated, and then not whole. */
  tokensOut: number;
  /** Quantiles of its whole length, and the tokens it had had when they were last looked up. */
  totals: Float64Array | null;
  totalsAtTokens: number;
  /** Of a prompt that may have been cached in part, how long it took and beside what, until the server has said how much of it was. */
  prefillSeen: PrefillSeen | null;
  /** As decisions see it once it runs. */
  seenAs: StreamRecord | null;
}

export function sent(job: PendingJob, feasible: boolean, nowMs: number): TrackedJob {
  return { ...job, dispatchedAtMs: nowMs, feasible, prefixHits: 0, cachedTokens: 0, prefilledTokens: 0, firstTokenAtMs: null, lastTokenAtMs: nowMs, tokensOut: 0, totals: null, totalsAtTokens: 0, prefillSeen: null, seenAs: null };
}

export function isOfWorkflow({ spec }: PendingJob): boolean {
  return spec.workflow !== undefined;
}

export function maxOutputOf({ spec }: PendingJob): number {
  return spec.maxOutputTokens ?? Number.POSITIVE_INFINITY;
}

/** TPOT is a matter of the tokens after the first; where there can be none, no limit binds. */
export function tpotLimitOf(job: PendingJob): number {
  const none = job.spec.work === 'embed' || maxOutputOf(job) <= 1;
  return none ? Number.POSITIVE_INFINITY : (job.spec.slo.tpotMs ?? Number.POSITIVE_INFINITY);
}
