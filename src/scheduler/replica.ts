// One replica as the scheduler keeps it: how it stands, what it has, how many jobs it may have at once.
import type { EnergyLedger } from '../core/energy-ledger.ts';
import type { JobId, ReplicaId } from '../core/job.ts';
import type { Company } from '../core/job-energy.ts';
import type { LearnedModel } from '../core/learned-model.ts';
import type { LearnedRoom } from '../core/learned-room.ts';
import { SATURATED_MS } from '../core/limits.ts';
import type { Plan } from '../core/planner.ts';
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { SleepCosts } from '../frontier/profile.ts';
import type { ReplicaQueue } from '../core/replica-queue.ts';
import type { Standing } from '../core/routing.ts';
import type { TrackedJob } from '../core/tracked-job.ts';
import type { ClockGroup } from './clock-group.ts';
import type { Rest } from './rest.ts';
import type { Breaker } from './serving.ts';

export interface ReplicaSpec {
  readonly replicaId: ReplicaId;
  readonly models: readonly string[];
  /** The belief, never the truth. */
  readonly belief: PerformanceModel;
  /** `belief` is this one's: it has no profile, and is learnt while it serves, by all replicas that share it. */
  readonly learned?: LearnedModel;
  /** Jobs sent at once; further ones wait here, in our queue. */
  readonly concurrencyMax: number;
  /** It prefills on some of its devices and decodes on the others: two groups of devices, each with a point of its own. */
  readonly disaggregated?: boolean;
  /** Its server can be put to sleep, at these costs; absent: it is always awake. */
  readonly sleep?: SleepCosts;
}

export interface Replica {
  readonly spec: ReplicaSpec;
  readonly queue: ReplicaQueue;
  /** `null`: nobody keeps accounts. */
  readonly energy: EnergyLedger<TrackedJob> | null;
  /** Place in the list; changes when one before it has left. */
  index: number;
  /** Judged at this instant, in this state of the queue. */
  standing: { readonly atMs: number; readonly version: number; readonly value: Standing } | null;
  planned: { readonly atMs: number; readonly structure: number; readonly plan: Plan } | null;
  state: 'up' | 'draining' | 'down';
  /** It gets nothing more, and goes when nothing has been on it for a while; `null`: it stays. */
  leaving: { idleSinceMs: number | null } | null;
  readonly learnedRoom: LearnedRoom;
  /** Since when it is back; `-Infinity` where it was up when we first looked: it is no younger for our having started. */
  backAtMs: number;
  /** It has been said not to be up; before the first word about it that is not known. */
  wasAway: boolean;
  isHeard: boolean;
  breaker: Breaker;
  /** It has said that it had too many: it gets no more than it could take then, for a while. */
  saturated: { readonly room: number; readonly untilMs: number } | null;
  readonly groups: readonly [ClockGroup, ...ClockGroup[]];
  /** What its batch may be for the sake of energy and deadlines; `Infinity`: nothing speaks against what is configured. */
  batchCap: number;
  /** Whether its server sleeps; `null`: it cannot. */
  rest: Rest | null;
}

/** Some of its devices follow. */
export function isControlled({ groups }: Pick<Replica, 'groups'>): boolean {
  return groups.some(({ controlled }) => controlled);
}

/** Jobs that may be on it now: every limit there is on what it is sent at once is a term of this. */
export function roomOf({ spec: { concurrencyMax }, backAtMs, saturated, learnedRoom, batchCap }: Replica, slowStartMs: number, nowMs: number): number {
  const unsaturated = saturated === null || nowMs >= saturated.untilMs ? Number.POSITIVE_INFINITY : saturated.room;
  return Math.min(concurrencyMax, slowStartRoom(concurrencyMax, nowMs - backAtMs, slowStartMs), unsaturated, learnedRoom.room(), batchCap);
}

/** It has refused one of `load` jobs; that one counts no more: what is there without it the server could take. `retryAfterMs`: as it says. */
export function saturate(replica: Replica, load: number, retryAfterMs: number | null, nowMs: number): void {
  const { saturated: known } = replica;
  const lessRoom = known !== null && nowMs < known.untilMs ? known.room : Number.POSITIVE_INFINITY;
  const lastsMs = Math.min(SATURATED_MS.max, Math.max(SATURATED_MS.min, retryAfterMs ?? SATURATED_MS.unsaid));
  replica.saturated = { room: Math.max(1, Math.min(lessRoom, load - 1)), untilMs: Math.max(known?.untilMs ?? 0, nowMs + lastsMs) };
}

/** Who shares its steps, with `more` that is not there yet. */
export function companyOn({ queue, spec, groups }: Replica, more: number): Company {
  const [first, last = first] = groups;
  return { point: last.applied ?? spec.belief.fastest, prefillPoint: first.applied ?? spec.belief.fastest, sequences: Math.max(1, queue.runningCount() + queue.waitingCount() + queue.foreignCount() + more) };
}

/** A half-open replica is tried by one job at a time: this is it, or it is that no more. */
export function trialBegins(replica: Replica, jobId: JobId): void {
  if (replica.breaker.kind === 'half-open' && replica.breaker.trial === null) replica.breaker = { kind: 'half-open', trial: jobId };
}

export function trialEnds(replica: Replica, jobId: JobId): void {
  if (replica.breaker.kind === 'half-open' && replica.breaker.trial === jobId) replica.breaker = { kind: 'half-open', trial: null };
}

/** A tenth at first, all of it at the end, in between as much as time has passed; never nothing. */
function slowStartRoom(concurrencyMax: number, sinceMs: number, slowStartMs: number): number {
  if (sinceMs >= slowStartMs) return concurrencyMax;
  return Math.max(1, Math.ceil(concurrencyMax * Math.max(SLOW_START_SHARE_MIN, sinceMs / slowStartMs)));
}

const SLOW_START_SHARE_MIN = 0.1;
