// The one place where decisions come together: events in, effects out, no clock and no I/O of its own. The gateway's
// runtime drives it in real time, the simulator on virtual time.
import assert from 'node:assert/strict';
import type { CapStatus } from '../core/batch-cap-bandit.ts';
import { type EnergyPrice, type Moving, movingOf } from '../core/energy-prices.ts';
import { createGuardBands } from '../core/guard-band.ts';
import type { JobId, JobSpec, ReplicaId, Usage, WorkflowId } from '../core/job.ts';
import type { JobEnergy, ReplicaEnergy } from '../core/energy-ledger.ts';
import type { Company } from '../core/job-energy.ts';
import { createLearnedRoom } from '../core/learned-room.ts';
import type { LearntOf } from '../core/learnt-profile.ts';
import { createLengthPredictor, HIGH } from '../core/length-predictor.ts';
import { CANDIDATES_MAX, FAIR, HOLD, LATE_PATIENCE_MS, MOVING, PATIENCE_MS, PLAN_HOLDS_MS, RECONSIDERED_MAX } from '../core/limits.ts';
import { ALL_MECHANISMS, type Mechanisms } from '../core/mechanisms.ts';
import { planOfGroup, planServer } from '../core/group-plan.ts';
import type { Plan } from '../core/planner.ts';
import { nominalWorkMs } from '../core/nominal-work.ts';
import { createPlaces, type Places } from '../core/places.ts';
import { createPrefixAffinity } from '../core/prefix-affinity.ts';
import { createPromptEstimator } from '../core/prompt-estimator.ts';
import type { Learning } from '../core/shared-learning.ts';
import { createReplicaQueue } from '../core/replica-queue.ts';
import type { PhaseGroup, ReplicaView } from '../core/replica-view.ts';
import { chooseRoute, type Route, type RouteCandidate, type Routing, type Standing, standingOf } from '../core/routing.ts';
import { type PerformanceModel, type PointIndex, isFaster } from '../frontier/performance-model.ts';
import type { Phase } from '../frontier/profile.ts';
import { isOfWorkflow, type PendingJob, sent, type TrackedJob } from '../core/tracked-job.ts';
import { unreachable } from '../core/unreachable.ts';
import { createWorthierJobs } from '../core/worthier-jobs.ts';
import { type BatchCapRule, createBatchCaps } from './batch-caps.ts';
import { type ClockGroup, type ClockGroupStatus, clockGroups, demandOf, followed, groupsStatus, pointNow } from './clock-group.ts';
import type { ClockPolicy } from './clock-policy.ts';
import type { DeadlineQueue } from './deadline-queue.ts';
import { createFleetDemand, TARGET_EVERY_MS } from './fleet-demand.ts';
import { createJudgements } from './judgements.ts';
import { reportOf } from './job-report.ts';
import { type BudgetStatus, createPowerLimits } from './power-limits.ts';
import { createPredictions, type RawPrediction } from './predictions.ts';
import { createReplicaEnergy, energyAtEnd, energyAtReturn, energyNow, metered, moved } from './replica-energy.ts';
import { companyOn, isControlled, type Replica, type ReplicaSpec, roomOf, saturate, trialBegins, trialEnds } from './replica.ts';
import type { Effect, Explanation, JobReport, Prediction, SchedulerEvent } from './events.ts';
import { createResting, isUnneeded, type Rest } from './rest.ts';
import { type Breaker, createServing } from './serving.ts';
import { createWaitingJobs, type Kept } from './waiting-jobs.ts';
import { type CalledPart, type CallSize, createWorkflows, type MovedDeadline, type OpenWorkflow, type WorkflowStatus } from './workflows.ts';

/** How operating points are chosen. `max-clock` sends no demand at all (default clocks); `static` always the named point. */
export type PlannerPolicy =
  | { readonly kind: 'paceline' }
  | { readonly kind: 'max-clock' }
  | { readonly kind: 'static'; readonly pointId: string }
  /** For comparisons: everything else stays as it is. */
  | { readonly kind: 'rival'; readonly clocks: ClockPolicy };

export interface SchedulerOptions {
  readonly replicas: readonly ReplicaSpec[];
  readonly policy: PlannerPolicy;
  /** Default: `energy` under `paceline`, `least-loaded` under the other policies, which stand for a plain gateway. */
  readonly routing?: Routing;
  /** Share of jobs that should meet their SLOs, e.g. 0.99. */
  readonly attainmentTarget: number;
  readonly controlPeriodMs: number;
  readonly queuedMax: number;
  /** A replica that comes back up gets a share of its concurrency that grows over this long; default 0: all at once. */
  readonly slowStartMs?: number;
  /** Keep accounts of what jobs take of the devices' energy; default: no. */
  readonly energyAccounts?: boolean;
  /** Those that can sleep are put to sleep while the others are enough; absent: none are. `awakeMin`: of those that could stand in for each other. */
  readonly sleep?: { readonly awakeMin: number };
  /** Caps on what a replica is sent at once by its batch, planned from its profile or learnt; absent: what is configured. */
  readonly batchCap?: BatchCapRule;
  /** For comparisons. Default: all, under `paceline`; the other policies have no use for most. */
  readonly mechanisms?: Mechanisms;
  /** Called before a replica is looked at: who tells of tokens in bulk (the simulator) hands in now what came since. */
  readonly bringUpToDate?: (replicaId: ReplicaId) => void;
  /** Sees every replica that is weighed for a job, right then; for explanations. */
  readonly onRoute?: (jobId: JobId, route: Route<ReplicaSpec>) => void;
}

/** For operator routes and the dashboard: what is going on and why. Plain data. */
export interface FleetSnapshot {
  readonly replicas: readonly {
    readonly replicaId: ReplicaId;
    readonly state: 'up' | 'draining' | 'down';
    readonly breaker: Breaker['kind'];
    /** Of its server; absent where it cannot sleep. */
    readonly rest?: Rest['kind'];
    /** Jobs that it may have now, with what it has. */
    readonly room: number;
    /** Of them, as many as its batch should be; absent where that is not planned or learnt. */
    readonly batchCap?: { readonly cap: number; readonly learnt?: readonly CapStatus[] };
    /** Of a disaggregated server: both of its groups are. */
    readonly controlled: boolean;
    /** Of a disaggregated server the decode group's, and why. */
    readonly pointId: string | null;
    readonly why: Explanation;
    /** Where there are two. */
    readonly groups?: Readonly<Record<PhaseGroup, ClockGroupStatus>>;
    readonly waitingPrompts: number;
    readonly runningStreams: number;
    readonly stepTimeResidual: number;
    /** Phases in which it has left its profile (`core/drift-alarm.ts`): real over believed time of late, and for how long. Absent where it has not. */
    readonly drift?: Readonly<Partial<Record<Phase, { readonly ratio: number; readonly forMs: number }>>>;
    /** Absent where nobody keeps accounts. */
    readonly energy?: ReplicaEnergy;
  }[];
  readonly queued: number;
  /** Absent where nobody has told of any. */
  readonly budgets?: readonly BudgetStatus[];
}

export interface Scheduler {
  /** Never throws for anything a caller can send; an unknown job id is ignored (it has ended). Effects are in order. */
  handle(event: SchedulerEvent, nowMs: number): readonly Effect[];
  /** A job that is on a replica could be served by another one, were it returned. */
  hasOther(jobId: JobId): boolean;
  snapshot(nowMs: number): FleetSnapshot;
  /** What a job that is on a replica has taken so far; `null` where that is not known. `usage`: as its server has said, if it has ended there. */
  energyOf(jobId: JobId, usage: Usage | null, nowMs: number): JobEnergy | null;
  /** Jobs are on a replica, or have ended and wait for what its counters say. */
  hasOpenAccounts(replicaId: ReplicaId): boolean;
  /** What was learnt of a replica, to be written out as a profile; `unknown`: there is no such replica; `cold`: it has no profile, and too little was seen of it yet. */
  learntOf(replicaId: ReplicaId): LearntOf | 'unknown' | 'cold';
  /** What was learnt here, for the other gateways of the fleet. */
  learnt(): Learning;
  /** How a workflow stands; `null`: it is not open. */
  workflow(tenant: string, workflowId: WorkflowId, nowMs: number): WorkflowStatus | null;
  /** What a call must fit to be one of it; `null`: it is not open. */
  openWorkflow(tenant: string, workflowId: WorkflowId): OpenWorkflow | null;
  /** How many are open; of all tenants, or of one. */
  openWorkflows(tenant?: string): number;
}

/** Where a job is. */
type Placement =
  | { readonly kind: 'queued'; readonly job: PendingJob; readonly why: Kept }
  | { readonly kind: 'sent'; readonly job: TrackedJob; readonly replica: Replica; readonly prediction: Prediction; readonly raw: RawPrediction; readonly company: Company };

/** No longer ours to keep: it cannot be in time, or has waited as long as it may. */
interface Refused {
  readonly kind: 'refused';
  readonly reason: 'deadline-infeasible' | 'queue-timeout';
  readonly retryAfterMs: number;
}

type Sending = { readonly kind: 'sent'; readonly effects: readonly Effect[] } | Kept | Refused;

/** How often a job that is held is looked at again; it has seconds to wait. */
const HOLD_LOOK_MS = 500;

/** … and how long at most while nobody else is here. */
const HOLD_ALONE_MS = 2_000;

/** So long a replica that leaves has had nothing to do before it is gone. */
const LEAVES_AFTER_MS = 1_000;

const NO_EFFECTS: readonly Effect[] = [];

/** In so long what waits is to be sent, where watts are shared out by what arrives. */
const BACKLOG_MS = 1_000;

/** Where not everything can be met, a job may cost others this part of what it may gain at most. */
const COSTS_OTHERS_MAX = 0.5;

export function createScheduler(options: SchedulerOptions): Scheduler {
  const { policy, controlPeriodMs, attainmentTarget, slowStartMs = 0, mechanisms = ALL_MECHANISMS } = options;
  /** Deadlines that sending one job may put at risk before it is kept back: so many of the misses allowed are spent on purpose, by its class' caution. */
  const riskMaxOf = ({ spec }: PendingJob): number => (1 - attainmentTarget) / 4 / guards.of(spec.sloClass);
  const paced = policy.kind === 'paceline' && mechanisms.pacing;
  const holds = policy.kind === 'paceline' && mechanisms.holding;
  const routing = options.routing ?? (policy.kind === 'paceline' ? 'energy' : 'least-loaded');
  const lengths = createLengthPredictor();
  const prompts = createPromptEstimator();
  const predictions = createPredictions({ lengths });
  const guards = createGuardBands(attainmentTarget, mechanisms.guardBands);
  const affinity = createPrefixAffinity(options.replicas.map(({ belief }) => belief.profile.serving.kvTokens), mechanisms.prefixAffinity);
  const judgements = createJudgements({ affinity });
  let prices: readonly EnergyPrice[] = [];
  /** By model: those that have waited for this hour go one after the other. */
  const spreads = new Map<string, { readonly nextAtMs: number; readonly everyMs: number }>();
  /** Nobody that is held wants to be looked at before. */
  let heldLookAtMs = Number.NEGATIVE_INFINITY;
  /** Spreads the times at which the refused are told to come back. */
  let refusals = 0;
  /** Of looking over the queue; sets who behind the first is looked at. */
  let turn = 0;
  const placements = new Map<JobId, Placement>();
  const replicas: Replica[] = [];
  /** Jobs on each, side by side: plain routing looks at all of them, which in a fleet of a thousand is most of its work. */
  const loads: number[] = [];
  const byId = new Map<ReplicaId, Replica>();
  const models = new Set<string>();
  /** Those without a profile; mostly none, and asked for each job. */
  const learners = new Set<Replica>();
  for (const spec of options.replicas) join(openReplica(spec));

  function openReplica(spec: ReplicaSpec): Replica {
    const queue = createReplicaQueue({
      model: spec.belief,
      lengths,
      guards,
      controlPeriodMs,
      concurrencyMax: spec.concurrencyMax,
      disaggregated: spec.disaggregated === true,
      ...(spec.learned === undefined ? {} : { learned: spec.learned }),
      mechanisms,
      streamsApart: policy.kind === 'rival',
      share: (nowMs) => fleet.shareOf(spec, nowMs),
      bringUpToDate: () => options.bringUpToDate?.(spec.replicaId),
    });
    return {
      spec,
      index: replicas.length,
      queue,
      energy: options.energyAccounts === true ? createReplicaEnergy(spec, queue) : null,
      standing: null,
      planned: null,
      learnedRoom: createLearnedRoom(spec.concurrencyMax),
      state: 'down',
      leaving: null,
      backAtMs: Number.NEGATIVE_INFINITY,
      wasAway: false,
      isHeard: false,
      breaker: { kind: 'closed' },
      saturated: null,
      groups: clockGroups(spec.disaggregated === true),
      batchCap: Number.POSITIVE_INFINITY,
      rest: options.sleep === undefined || spec.sleep === undefined ? null : { kind: 'awake', unneededSinceMs: null },
    };
  }

  function join(replica: Replica): void {
    replicas.push(replica);
    loads.push(0);
    byId.set(replica.spec.replicaId, replica);
    if (replica.spec.learned !== undefined) learners.add(replica);
    for (const model of replica.spec.models) models.add(model);
  }

  const serving = createServing(replicas);
  const waiting = createWaitingJobs({
    sizeMax: options.queuedMax,
    reorderEveryMs: controlPeriodMs,
    replicasOf: (model) => serving.count(model),
    // Whoever could take a job that waits here for a place must not run slowly meanwhile.
    onPlacesWanted: (model) => {
      for (const { spec, queue } of replicas) {
        if (spec.models.includes(model)) queue.heldBack(spec.models.reduce((sum, served) => sum + waiting.placesWanted(served), 0));
      }
    },
  });
  const fleet = createFleetDemand({ replicasOf: (model) => serving.count(model) });
  const power = createPowerLimits({
    replicas,
    demandOf: (replica, nowMs) => {
      const { spec } = replica;
      const demanded = fleet.powerDemandOf(spec, nowMs);
      const waits = spec.models.reduce((sum, model) => sum + waiting.queue.countOf(model) / Math.max(1, serving.count(model)), 0);
      return { ...demanded, perMs: demanded.perMs + waits / BACKLOG_MS };
    },
  });
  /** Some job was worth more or less than others: where not all can be met, that decides. */
  let worthsDiffer = false;
  const worthierJobs = createWorthierJobs();
  const resting = createResting({
    replicas,
    fleet,
    awakeMin: options.sleep?.awakeMin ?? 0,
    loadOf: (replica) => loads[replica.index] as number,
    placesWanted: waiting.placesWanted,
    power,
    onChange: () => {
      serving.changed();
      fleet.changed();
    },
  });
  const workflows = createWorkflows({
    lengths,
    guards,
    promptTokensOf: (key) => prompts.meanTokens(key),
    replicasOf: (model) => replicas.filter(({ spec }) => spec.models.includes(model)).map(({ queue }) => queue.corrections.priced),
    companyOf,
    leftOf,
  });
  const batchCaps = options.batchCap === undefined ? null : createBatchCaps({ rule: options.batchCap, replicas, fleet, attainmentTarget, placesWanted: waiting.placesWanted });
  /** Who has how many of the places, by model. */
  const places = new Map<string, Places>();

  function arrived(spec: JobSpec, nowMs: number): readonly Effect[] {
    if (!models.has(spec.model)) return [{ kind: 'reject', jobId: spec.jobId, reason: 'unknown-model', retryAfterMs: null }];
    if (serving.count(spec.model) === 0) return [{ kind: 'reject', jobId: spec.jobId, reason: 'no-replica', retryAfterMs: 1000 }];
    worthsDiffer ||= (spec.worth ?? 1) !== 1;
    const job = track(spec, workflows.called(spec, nowMs), nowMs);
    const outputTokens = spec.work === 'embed' ? 1 : Math.min(lengths.mean(job.lengthKey), spec.maxOutputTokens ?? Number.POSITIVE_INFINITY);
    fleet.arrived(job, { prefillTokens: job.promptTokens - affinity.mostCachedTokens(job), outputTokens }, nowMs);
    const effects = place(job, nowMs);
    return options.sleep === undefined || isServed(job) ? effects : [...effects, ...resting.called(spec.model, nowMs)];
  }

  /** To a replica, or into our queue. */
  function place(job: PendingJob, nowMs: number): readonly Effect[] {
    // Nobody overtakes the queue: a job that could go at once still lets earlier deadlines of its model try first.
    if (waiting.queue.countOf(job.spec.model) === 0) {
      const outcome = trySend(job, nowMs);
      if (outcome.kind === 'sent') return outcome.effects;
      return outcome.kind === 'refused' ? [rejection(job, outcome)] : keep(job, outcome, nowMs);
    }
    const late = whyTooLong(job, nowMs);
    if (late !== null) return [rejection(job, late)];
    const kept = keep(job, { kind: 'pace' }, nowMs);
    return kept.length > 0 ? kept : sendQueued(nowMs, false);
  }

  /** Of a job behind those that wait already: with as many before it, it could not be sent in time. */
  function whyTooLong(job: PendingJob, nowMs: number): Refused | null {
    const { spec } = job;
    if (spec.infeasible !== 'refuse' && spec.queueTimeoutMs === undefined) return null;
    const lastAtMs = Math.min(spec.infeasible === 'refuse' ? job.latestStartAtMs : Number.POSITIVE_INFINITY, queueEndAtMs(job));
    const waitMs = waiting.waitMs(job, 'its turn');
    if (nowMs + waitMs <= lastAtMs) return null;
    return { kind: 'refused', reason: spec.infeasible === 'refuse' ? 'deadline-infeasible' : 'queue-timeout', retryAfterMs: nowMs + waitMs - lastAtMs };
  }

  function queueEndAtMs({ spec, arrivedAtMs }: PendingJob): number {
    return arrivedAtMs + (spec.queueTimeoutMs ?? Number.POSITIVE_INFINITY);
  }

  function rejection({ spec: { jobId, model } }: PendingJob, { reason, retryAfterMs }: Refused): Effect {
    refusals += 1;
    batchCaps?.refused(model);
    return { kind: 'reject', jobId, reason, retryAfterMs: retryAfterOf(retryAfterMs, refusals) };
  }

  /** Less what is kept for other tenants. */
  function roomFor({ spec: { model, tenant } }: PendingJob, replica: Replica, nowMs: number): number {
    if (power.isClosed(replica)) return 0;
    const room = roomOf(replica, slowStartMs, nowMs);
    return room - placesOf(model).keptFrom(tenant, room, nowMs);
  }

  function placesOf(model: string): Places {
    let ofModel = places.get(model);
    if (ofModel === undefined) {
      ofModel = createPlaces();
      places.set(model, ofModel);
    }
    return ofModel;
  }

  /** Into our queue. Where it is full of jobs that are kept on purpose, one of them goes instead, so that no job is refused for another's saving. */
  function keep(job: PendingJob, why: Kept, nowMs: number): readonly Effect[] {
    assert(!placements.has(job.spec.jobId), 'a job arrives once');
    if (!waiting.isFull()) {
      enqueue(job, why, nowMs);
      return NO_EFFECTS;
    }
    const now = trySend(job, nowMs, false);
    if (now.kind === 'sent') return now.effects;
    for (const other of [...waiting.held.all().slice(0, 1), ...waiting.queue.all().filter(isKeptOnPurpose).slice(0, 1)]) {
      const placement = placements.get(other.spec.jobId);
      const sending = trySend(other, nowMs, false);
      if (sending.kind !== 'sent' || placement?.kind !== 'queued') continue;
      waiting.leave(other, placement.why, 'sent', nowMs);
      enqueue(job, why, nowMs);
      return sending.effects;
    }
    return [{ kind: 'reject', jobId: job.spec.jobId, reason: 'queue-full', retryAfterMs: 1000 }];
  }

  function isKeptOnPurpose({ spec }: PendingJob): boolean {
    const placement = placements.get(spec.jobId);
    return placement?.kind === 'queued' && placement.why.kind !== 'place';
  }

  function enqueue(job: PendingJob, why: Kept, nowMs: number): void {
    waiting.enter(job, why, nowMs);
    keepAs(job, why);
  }

  function keepAs(job: PendingJob, why: Kept): void {
    placements.set(job.spec.jobId, { kind: 'queued', job, why });
    if (why.kind === 'hold') heldLookAtMs = Math.min(heldLookAtMs, why.lookAgainAtMs);
  }

  /** `part`: what it is of its workflow, if it is of one. */
  function track(asked: JobSpec, part: CalledPart | null, nowMs: number): PendingJob {
    // What is refused is the whole, when it is declared; a part of it that is late may be made good by the others.
    const spec: JobSpec = part === null ? asked : { ...asked, infeasible: 'best-effort' };
    const key = `${spec.model}\n${spec.tenant}`;
    const lengthKey = part?.lengthKey ?? key;
    // Where its workflow cannot be kept any more, its deadline is known all the same.
    const e2eDeadlineAtMs = dueAtMs(spec, nowMs, part?.dueAtMs ?? nowMs + (spec.workflow?.discovered?.deadlineMs ?? Number.POSITIVE_INFINITY));
    const promptTokens = Math.max(1, spec.promptTokens ?? prompts.tokens(key, spec.promptBytes));
    const outputTokens = outputTokensOf(spec, lengthKey);
    return {
      spec,
      key,
      lengthKey,
      promptTokens,
      arrivedAtMs: nowMs,
      e2eDeadlineAtMs,
      e2eMoves: part?.moves ?? false,
      ...startsBy({ spec, promptTokens, outputTokens, arrivedAtMs: nowMs, e2eDeadlineAtMs }),
      workMs: nominalWorkMs(beliefOf(spec.model), promptTokens, outputTokens),
    };
  }

  /** As many as are expected. */
  function outputTokensOf(spec: JobSpec, lengthKey: string): number {
    return spec.work === 'embed' ? 0 : Math.min(lengths.mean(lengthKey), spec.maxOutputTokens ?? Number.POSITIVE_INFINITY);
  }

  /** By when something has to come of it, and when it has to be sent for that at the latest, were it alone on a replica. */
  function startsBy({ spec, promptTokens, outputTokens, arrivedAtMs, e2eDeadlineAtMs }: Pick<PendingJob, 'spec' | 'promptTokens' | 'arrivedAtMs' | 'e2eDeadlineAtMs'> & { readonly outputTokens: number }): Pick<PendingJob, 'firstDeadlineAtMs' | 'latestStartAtMs'> {
    const { ttftMs, tpotMs } = spec.slo;
    const belief = beliefOf(spec.model);
    const cachedTokens = affinity.mostCachedTokens({ spec, promptTokens });
    const byTpot = tpotMs === undefined ? Number.POSITIVE_INFINITY : tpotMs * 20;
    return {
      firstDeadlineAtMs: Math.min(arrivedAtMs + (ttftMs ?? byTpot), e2eDeadlineAtMs),
      latestStartAtMs: Math.min(arrivedAtMs + (ttftMs ?? Number.POSITIVE_INFINITY) - aloneMs(belief, promptTokens, cachedTokens, 0), e2eDeadlineAtMs - aloneMs(belief, promptTokens, cachedTokens, outputTokens)),
    };
  }

  /** Streams that a call of the model will share its steps with, itself included: as many as one that runs has, on average; and what prompts take of them. */
  function companyOf(model: string, nowMs: number): { readonly company: number; readonly interference: number } {
    let [streams, squares, interference, count] = [0, 0, 0, 0];
    for (const { spec, index, queue } of replicas) {
      if (!spec.models.includes(model)) continue;
      const load = (loads[index] as number) + queue.foreignCount();
      streams += load;
      squares += load * load;
      const { perMs, promptTokensMean, prefillTokensMean } = fleet.shareOf(spec, nowMs);
      if (perMs > 0) interference += perMs * spec.belief.prefillTimeMs({ tokens: prefillTokensMean, contextTokens: promptTokensMean - prefillTokensMean }, spec.belief.fastest);
      count += 1;
    }
    return { company: Math.max(1, streams === 0 ? 1 : squares / streams), interference: count === 0 ? 0 : interference / count };
  }

  /** What a call has yet to read and to write. */
  function leftOf(jobId: JobId): CallSize | null {
    const placement = placements.get(jobId);
    if (placement === undefined) return null;
    const { job } = placement;
    if (job.spec.work === 'embed') return { promptTokens: job.promptTokens, outputTokens: 1, outputTokensHigh: 1 };
    const most = job.spec.maxOutputTokens ?? Number.POSITIVE_INFINITY;
    const isRead = placement.kind === 'sent' && placement.job.firstTokenAtMs !== null;
    const tokensOut = isRead ? placement.job.tokensOut : 0;
    const left = (quantile: number): number => lengths.remaining(job.lengthKey, tokensOut, quantile, most);
    const outputTokens = isRead ? 1 + left(0.5) : Math.min(most, lengths.mean(job.lengthKey));
    return { promptTokens: isRead ? 0 : job.promptTokens, outputTokens, outputTokensHigh: Math.max(outputTokens, left(HIGH)) };
  }

  function moveDeadline({ jobId, dueAtMs: allottedAtMs, moves: e2eMoves }: MovedDeadline, nowMs: number): void {
    const placement = placements.get(jobId);
    if (placement === undefined) return;
    const { job } = placement;
    const atMs = dueAtMs(job.spec, job.arrivedAtMs, allottedAtMs);
    if (placement.kind === 'sent') {
      placement.replica.queue.deadlineMoved(placement.job, { atMs, moves: e2eMoves });
      return;
    }
    const moved: PendingJob = { ...job, e2eDeadlineAtMs: atMs, e2eMoves, ...(isServed(job) ? startsBy({ ...job, e2eDeadlineAtMs: atMs, outputTokens: outputTokensOf(job.spec, job.lengthKey) }) : {}) };
    waiting.leave(job, placement.why, 'otherwise', nowMs);
    enqueue(moved, placement.why, nowMs);
  }

  /** What the workflows of jobs that came, went or were refused make of the others; and which of them are over. */
  function settleWorkflows(effects: readonly Effect[], nowMs: number): readonly Effect[] {
    if (workflows.isEmpty()) return effects;
    for (const effect of effects) if (effect.kind === 'reject') workflows.left(effect.jobId, null, nowMs);
    for (const deadline of workflows.takeMoved()) moveDeadline(deadline, nowMs);
    const over = workflows.takeEnded();
    return over.length === 0 ? effects : [...effects, ...over.map((report): Effect => ({ kind: 'workflow-ended', report }))];
  }

  /** Of the first replica that serves a model: a measure for all of them, where they are unlike. */
  function beliefOf(model: string): PerformanceModel {
    const replica = replicas.find(({ spec }) => spec.models.includes(model));
    assert(replica !== undefined, 'only jobs of models that are served are tracked');
    return replica.spec.belief;
  }

  /** To the replica that routing names, unless there is none with room, or it had better wait. */
  function trySend(job: PendingJob, nowMs: number, mayKeep = true): Sending {
    const overdue = whyOverdue(job, nowMs);
    if (overdue !== null) return overdue;
    const moving: Moving = mayKeep ? movingNow(job, nowMs) : { kind: 'goes' };
    const cheaper = whyMoved(job, moving, nowMs);
    if (cheaper !== null) return cheaper;
    const known = judgements.alike(job, (replica) => hasPlace(job, replica, nowMs), nowMs);
    const route = known ?? routeOf(job, nowMs);
    if (route === null) return { kind: 'place' };
    if (known === null) {
      if (worthsDiffer && route.tpotMs > (job.spec.slo.tpotMs ?? Number.POSITIVE_INFINITY)) worthierJobs.crowdedOut(job.spec, nowMs);
      const cold = isCold(job.spec.model);
      const kept = mayKeep && !cold ? whyKeep(job, route, nowMs) : null;
      // What cannot be in time cannot be later either; and where it would only be in time at others' cost, its last moment was this.
      if (job.spec.infeasible === 'refuse' && !cold && (route.ownRisk >= 1 || (paced && kept === null && route.ownRisk + route.othersRisk > riskMaxOf(job)))) return infeasible(job, nowMs);
      if (kept !== null) return kept;
      if (moving.kind === 'may-go' && disturbs(job, route)) return { kind: 'hold', lookAgainAtMs: Math.min(moving.untilMs, nowMs + HOLD_LOOK_MS), moved: true };
    }
    waiting.contentionOf(job.spec.model).sent(job, nowMs);
    placesOf(job.spec.model).took(job.spec.tenant, job.spec.weight ?? 1, nowMs);
    fleet.sent(job, nowMs);
    const replica = route.id;
    resting.needed(replica);
    const prediction = predictions.of(job, route, nowMs);
    const tracked = sent(job, route.feasible, nowMs);
    affinity.sent(tracked, replica.index);
    placements.set(job.spec.jobId, { kind: 'sent', job: tracked, replica, prediction, raw: { ttftMs: route.ttftMs, tpotMs: route.tpotMs }, company: companyOn(replica, 1) });
    trialBegins(replica, job.spec.jobId);
    replica.queue.add(tracked, nowMs);
    replica.energy?.began(tracked, nowMs);
    loads[replica.index] = (loads[replica.index] as number) + 1;
    if (known === null) judgements.remember(tracked, route, { sure: isSure(job, route), load: loads[replica.index] as number }, nowMs);
    const effects: Effect[] = [{ kind: 'dispatch', jobId: job.spec.jobId, replicaId: replica.spec.replicaId, prediction }];
    if (policy.kind === 'rival' && isControlled(replica)) {
      const point = policy.clocks.choose(replica.spec.replicaId, replica.queue.view(nowMs), 'arrival');
      if (point !== null) for (const group of replica.groups) if (group.controlled) effects.push(demand(replica, group, point, { binding: 'policy' }, nowMs));
    }
    // At once where this job needs the replica faster; anything slower waits for the next control period.
    if (policy.kind === 'paceline' && mechanisms.immediateRaise) {
      for (const group of replica.groups) {
        const plan = planOfGroup(route.plan, group.phase);
        if (!group.controlled || !isFaster(replica.spec.belief, plan.point, group.demanded ?? replica.spec.belief.fastest)) continue;
        const point = power.pointWithin(replica, group, plan.point, nowMs);
        if (isFaster(replica.spec.belief, point, group.demanded ?? replica.spec.belief.fastest)) effects.push(demand(replica, group, point, point === plan.point ? explain(plan) : { binding: 'power' }, nowMs));
      }
    }
    return { kind: 'sent', effects };
  }

  /**
   * Whether it has the slack to wait for an hour in which energy is cheaper. Whatever the clocks do: the same joules cost less then. A call of
   * a workflow does not: others wait for its end, and its slack is theirs as well.
   */
  function movingNow(job: PendingJob, nowMs: number): Moving {
    const { spec, arrivedAtMs, e2eDeadlineAtMs, latestStartAtMs, workMs } = job;
    if (prices.length === 0 || policy.kind !== 'paceline' || e2eDeadlineAtMs === Number.POSITIVE_INFINITY || spec.workflow !== undefined) return { kind: 'goes' };
    const replica = replicas.find((candidate) => serving.may(candidate, job));
    if (replica === undefined) return { kind: 'goes' };
    const held = waiting.held.countOf(spec.model);
    return movingOf(prices, {
      nowMs,
      arrivedAtMs,
      latestStartAtMs: Math.min(latestStartAtMs, queueEndAtMs(job)),
      aloneMs: e2eDeadlineAtMs - latestStartAtMs,
      drainMs: (MOVING.stretch * held * workMs) / Math.max(1, serving.count(spec.model)),
      takesJ: fleet.takesJ(replica.spec, replica.queue.corrections, { model: spec.model, waiting: held, sleeps: options.sleep !== undefined }, nowMs),
    });
  }

  /** It waits for its hour, or in it for its turn among those that have. */
  function whyMoved({ spec }: PendingJob, moving: Moving, nowMs: number): Kept | null {
    // Those that wait are looked through together, once a second.
    if (moving.kind === 'waits') return { kind: 'hold', lookAgainAtMs: Math.min(moving.untilMs, Math.ceil((nowMs + MOVING.lookMs) / 1_000) * 1_000), moved: true };
    const placement = placements.get(spec.jobId);
    if (moving.kind === 'goes' || placement?.kind !== 'queued' || placement.why.kind !== 'hold' || placement.why.moved !== true) return null;
    const spread = spreads.get(spec.model);
    spreads.set(spec.model, { nextAtMs: spread?.nextAtMs ?? nowMs, everyMs: (MOVING.spreadShare * Math.max(0, moving.untilMs - nowMs)) / waiting.held.countOf(spec.model) });
    return spread === undefined || spread.nextAtMs <= nowMs ? null : { kind: 'hold', lookAgainAtMs: Math.min(spread.nextAtMs, nowMs + MOVING.lookMs), moved: true };
  }

  /** Sent now it would put others' deadlines at risk, or make those that run there run faster: of what has hours neither is asked. */
  function disturbs(job: PendingJob, route: Route<Replica>): boolean {
    return route.othersRisk > MOVING.riskShare * riskMaxOf(job) || (route.opens && (loads[route.id.index] as number) > 0);
  }

  /** It has waited as long as it may, or would have to have been sent before now. */
  function whyOverdue(job: PendingJob, nowMs: number): Refused | null {
    if (nowMs >= queueEndAtMs(job)) return { kind: 'refused', reason: 'queue-timeout', retryAfterMs: nowMs - job.arrivedAtMs };
    return job.spec.infeasible === 'refuse' && nowMs > job.latestStartAtMs ? infeasible(job, nowMs) : null;
  }

  /** With as long to wait as those that wait now. */
  function infeasible(job: PendingJob, nowMs: number): Refused {
    return { kind: 'refused', reason: 'deadline-infeasible', retryAfterMs: waiting.waitMs(job, 'all') + nowMs - job.arrivedAtMs };
  }

  /** What is decided for it holds for jobs like it. */
  function isSure(job: PendingJob, route: Route<Replica>): boolean {
    return policy.kind !== 'rival' && options.onRoute === undefined && route.plan.kind === 'meets' && route.ownRisk + route.othersRisk <= riskMaxOf(job) / 4;
  }

  function hasPlace(job: PendingJob, replica: Replica, nowMs: number): boolean {
    return serving.may(replica, job) && (loads[replica.index] as number) < roomFor(job, replica, nowMs);
  }

  /**
   * `pace`: sent now it would put more deadlines at risk than it may, and it can still wait. `hold`: it has long slack, and a
   * moment at which it costs less may come: a replica that runs anyway and need not run faster for it. `null`: it goes.
   */
  function whyKeep(job: PendingJob, route: Route<Replica>, nowMs: number): Kept | null {
    const lost = route.ownRisk >= 1;
    const patienceMs = route.latestStartAtMs === Number.POSITIVE_INFINITY ? PATIENCE_MS : LATE_PATIENCE_MS;
    const lastAtMs = lost || route.latestStartAtMs === Number.POSITIVE_INFINITY ? job.arrivedAtMs + patienceMs : route.latestStartAtMs;
    const atRisk = route.othersSparable + (lost ? 0 : route.ownSparable);
    // The deadline of a workflow's call moves with the whole, whose slack is for running slowly and not for waiting.
    const mayPace = paced && !isOfWorkflow(job);
    if (mayPace && atRisk > riskMaxOf(job) && nowMs + controlPeriodMs < lastAtMs) return { kind: 'pace' };
    const { model, infeasible } = job.spec;
    if (mayPace && route.othersSparable > riskMaxOf(job) && infeasible !== 'refuse' && waiting.contentionOf(model).givesWay(job, nowMs)) return { kind: 'pace' };
    if (mayPace && isShed(job, route, nowMs)) return { kind: 'pace' };
    // Without a clock to lower nothing is saved by waiting.
    if (!holds || !isControlled(route.id) || route.latestStartAtMs === Number.POSITIVE_INFINITY) return null;
    // With the fleet to itself it waits for company, and that may be its own client's next request, which waits for this one.
    if (placements.size <= 1 && nowMs - job.arrivedAtMs >= HOLD_ALONE_MS) return null;
    const slackMs = route.latestStartAtMs - job.arrivedAtMs;
    const heldMs = job.arrivedAtMs + HOLD.shareMax * slackMs - nowMs;
    // Nothing to wait for where nobody else comes.
    if (heldMs <= controlPeriodMs || fleet.sentWithin(job.spec.model, heldMs, nowMs) < 1) return null;
    // Elsewhere it would be much cheaper, once there is room.
    if (route.chargedJ > HOLD.dearerRatio * route.cheapestJ) return { kind: 'pace', cheaper: true };
    return route.opens && slackMs >= HOLD.slackMinMs ? { kind: 'hold', lookAgainAtMs: nowMs + HOLD_LOOK_MS } : null;
  }

  /** Not everything can be met, and its worth decides: where it would cost more than it may, it waits on beyond its own latest start, within the patience that best effort has. */
  function isShed(job: PendingJob, { ownRisk, othersRisk }: Route<Replica>, nowMs: number): boolean {
    return worthsDiffer && othersRisk > Math.max(riskMaxOf(job), COSTS_OTHERS_MAX * (1 - ownRisk)) && job.spec.infeasible !== 'refuse' && nowMs - job.arrivedAtMs < FAIR.patienceMs;
  }

  /** Somebody serves it of whom nothing is known yet: it is served as a plain gateway would, for there is nothing to judge by. */
  function isCold(model: string): boolean {
    if (policy.kind !== 'paceline') return false;
    for (const { spec } of learners) if (spec.learned?.isWarm() === false && spec.models.includes(model)) return true;
    return false;
  }

  /** Of those that are needed; of all that are awake where none of these has room, or deadlines would be put at risk. */
  function routeOf(job: PendingJob, nowMs: number): Route<Replica> | null {
    const unneeded = options.sleep !== undefined && replicas.some(isUnneeded);
    const route = routeAmong(job, unneeded ? (replica) => !isUnneeded(replica) : () => true, nowMs);
    return !unneeded || (route !== null && route.ownRisk + route.othersRisk <= riskMaxOf(job)) ? route : routeAmong(job, () => true, nowMs);
  }

  function routeAmong(job: PendingJob, isAsked: (replica: Replica) => boolean, nowMs: number): Route<Replica> | null {
    const candidates: RouteCandidate<Replica>[] = [];
    const candidate = sent(job, true, nowMs);
    const holders = affinity.holders(job.spec);
    /** The same job on each replica: what that is expected to have cached is where it would begin. */
    const withJob = ({ index, queue: own }: Replica): ReplicaView => {
      candidate.cachedTokens = affinity.cachedTokens(job, index);
      candidate.prefilledTokens = candidate.cachedTokens;
      return own.view(nowMs, candidate);
    };
    /** Replicas with nothing to do are alike, but for what they have cached: one of each belief stands for all. */
    const idleSeen = new Set<PerformanceModel>();
    const worthier = worthsDiffer ? worthierJobs.before(job.spec, nowMs) : undefined;
    const by = isCold(job.spec.model) ? 'least-loaded' : routing;
    const leastAlone = by === 'least-loaded' && !(policy.kind === 'rival' && policy.clocks.route !== undefined);
    let below = Number.POSITIVE_INFINITY;
    for (let index = 0; index < replicas.length; index++) {
      const load = loads[index] as number;
      if (load >= below) continue;
      const replica = replicas[index] as Replica;
      if (!isAsked(replica) || load >= roomFor(job, replica, nowMs) || !serving.may(replica, job)) continue;
      const controlled = isControlled(replica) && (policy.kind === 'paceline' || policy.kind === 'rival');
      if (by === 'energy' && load === 0 && controlled && replica.groups.length === 1 && replica.queue.foreignCount() === 0 && !(holders === null ? affinity.cachedTokens(job, index) > 0 : holders.has(index))) {
        // Under power limits those of one belief are unlike.
        const model = replica.queue.model();
        if (idleSeen.has(model)) continue;
        idleSeen.add(model);
      }
      if (leastAlone) {
        candidates.length = 0;
        below = load;
      }
      candidates.push({ id: replica, load, without: () => standing(replica, nowMs, controlled), withJob: () => withJob(replica), controlled, target: fleet.targetOf(replica.spec, replica.queue.corrections, job, nowMs), worthier });
    }
    const { onRoute } = options;
    const seen = onRoute === undefined ? undefined : (route: Route<Replica>): void => onRoute(job.spec.jobId, { ...route, id: route.id.spec });
    return chooseRoute(chosenByRival(candidates, job, nowMs) ?? weighed(candidates, holders), by, { riskMax: riskMaxOf(job), crowded: isCrowded(job.spec.model), onRoute: seen });
  }

  /** As many wait as there are replicas; of what nobody paces, packing is all there is to choose. */
  function isCrowded(model: string): boolean {
    return paced && waiting.crowdOf(model) >= serving.count(model);
  }

  /** Of a large fleet those that may have the prompt's beginning, and a sample: the fullest, the emptiest, and evenly by load between them. What is near it in load is near it in cost. */
  function weighed(candidates: readonly RouteCandidate<Replica>[], holders: ReadonlySet<number> | null): readonly RouteCandidate<Replica>[] {
    if (candidates.length <= CANDIDATES_MAX) return candidates;
    const byLoad = candidates.toSorted((a, b) => b.load - a.load);
    const sample = Array.from({ length: CANDIDATES_MAX }, (_, index) => byLoad[Math.round((index * (byLoad.length - 1)) / (CANDIDATES_MAX - 1))] as RouteCandidate<Replica>);
    return holders === null ? sample : [...new Set([...candidates.filter(({ id }) => holders.has(id.index)), ...sample])];
  }

  /** A rival with a routing of its own leaves one candidate; asked-for routing overrides it. */
  function chosenByRival(candidates: readonly RouteCandidate<Replica>[], job: PendingJob, nowMs: number): readonly RouteCandidate<Replica>[] | null {
    if (policy.kind !== 'rival' || policy.clocks.route === undefined || options.routing !== undefined) return null;
    const replicaId = policy.clocks.route(candidates.map(({ id }) => ({ replicaId: id.spec.replicaId, view: id.queue.view(nowMs) })), job);
    return replicaId === null ? null : candidates.filter(({ id }) => id.spec.replicaId === replicaId);
  }

  /** Judged once for all jobs that are considered at one instant. */
  function standing(replica: Replica, nowMs: number, controlled: boolean): Standing {
    const known = replica.standing;
    if (known !== null && known.atMs === nowMs && known.version === replica.queue.version()) return known.value;
    const view = replica.queue.view(nowMs);
    const value = standingOf(view, controlled, policy.kind === 'paceline' && controlled ? planOf(replica, nowMs) : null);
    replica.standing = { atMs: nowMs, version: replica.queue.version(), value };
    return value;
  }

  function ended(event: Extract<SchedulerEvent, { kind: 'ended' }>, nowMs: number): readonly Effect[] {
    const placement = placements.get(event.jobId);
    if (placement === undefined) return NO_EFFECTS;
    placements.delete(event.jobId);
    if (placement.kind === 'queued') {
      waiting.leave(placement.job, placement.why, 'otherwise', nowMs);
      const report = reportOf(placement.job, null, event, nowMs, null);
      workflows.left(event.jobId, report, nowMs);
      return [{ kind: 'report', report }];
    }
    const { job, replica, prediction, raw, company } = placement;
    const energy = energyAtEnd(replica, job, { sent: company, ended: companyOn(replica, 0) }, event, nowMs);
    takeOff(job, replica, nowMs);
    affinity.ended(job, replica.index, event.outcome, event.usage);
    if (event.usage !== undefined) replica.queue.cached(job, event.usage.promptTokens, event.usage.cachedTokens);
    const { spec } = job;
    waiting.contentionOf(spec.model).corrected(job, nominalWorkMs(beliefOf(spec.model), event.usage?.promptTokens ?? job.promptTokens, spec.work === 'embed' ? 0 : (event.usage?.outputTokens ?? job.tokensOut)) - job.workMs, nowMs);
    const report = reportOf(job, job, event, nowMs, { replicaId: replica.spec.replicaId, prediction, energy });
    learnFrom(job, report, event);
    batchCaps?.tokens(replica, Math.max(0, report.outputTokens - job.tokensOut));
    batchCaps?.ended(replica, { arrivedAtMs: job.arrivedAtMs, met: report.met });
    predictions.learn(job, raw, report);
    workflows.left(event.jobId, report, nowMs);
    return [{ kind: 'report', report }, ...sendQueued(nowMs, false)];
  }

  function batchCapOf(replica: Replica): Pick<FleetSnapshot['replicas'][number], 'batchCap'> {
    if (batchCaps === null) return {};
    const learnt = batchCaps.statusOf(replica);
    return { batchCap: { cap: Math.min(replica.spec.concurrencyMax, replica.batchCap), ...(learnt === null ? {} : { learnt }) } };
  }

  function takeOff(job: TrackedJob, replica: Replica, nowMs: number): void {
    replica.queue.remove(job, nowMs);
    placesOf(job.spec.model).gave(job.spec.tenant);
    loads[replica.index] = (loads[replica.index] as number) - 1;
    trialEnds(replica, job.spec.jobId);
  }

  /** Back from a replica that could not be reached or has refused it, it goes to another one, as if it had just come but for the time that is gone. */
  function returned(jobId: JobId, nowMs: number): readonly Effect[] {
    const placement = placements.get(jobId);
    if (placement?.kind !== 'sent') return NO_EFFECTS;
    const { job, replica } = placement;
    placements.delete(jobId);
    takeOff(job, replica, nowMs);
    affinity.returned(job, replica.index);
    const { spec, key, lengthKey, promptTokens, arrivedAtMs, e2eDeadlineAtMs, e2eMoves, firstDeadlineAtMs, latestStartAtMs, workMs } = job;
    const again: PendingJob = { spec, key, lengthKey, promptTokens, arrivedAtMs, e2eDeadlineAtMs, e2eMoves, firstDeadlineAtMs, latestStartAtMs, workMs, avoid: avoidedOnce(job, replica) };
    waiting.contentionOf(spec.model).corrected(job, -workMs, nowMs);
    const settled = energyAtReturn(replica, job, nowMs);
    if (!isServed(again) && !serving.mayLater(again)) return [...settled, { kind: 'reject', jobId, reason: 'no-replica', retryAfterMs: 1000 }];
    return [...settled, ...place(again, nowMs)];
  }

  function avoidedOnce({ avoid = [] }: PendingJob, { spec: { replicaId } }: Replica): readonly ReplicaId[] {
    return [...avoid, replicaId];
  }

  function isServed(job: Pick<PendingJob, 'spec' | 'avoid'>): boolean {
    return replicas.some((replica) => serving.may(replica, job));
  }

  function learnFrom(job: TrackedJob, report: JobReport, event: Extract<SchedulerEvent, { kind: 'ended' }>): void {
    if (event.usage !== undefined && event.usage.promptTokens > 0) prompts.observe(job.key, job.spec.promptBytes, event.usage.promptTokens);
    if (event.outcome !== 'finished') return;
    if (job.spec.work === 'generate' && report.outputTokens > 0) {
      lengths.observe(job.key, report.outputTokens);
      if (job.lengthKey !== job.key) lengths.observe(job.lengthKey, report.outputTokens);
    }
    if (report.met !== null && job.feasible) guards.observe(job.spec.sloClass, report.met);
  }

  /**
   * Sends what may go now, earliest deadline first. `periodic`: at a control period also those held for a cheaper moment, and
   * more of all.
   */
  function sendQueued(nowMs: number, periodic: boolean): Effect[] {
    const effects: Effect[] = [];
    waiting.reorder(nowMs);
    if (waiting.queue.size() > 0) reconsider(waiting.queue, periodic ? RECONSIDERED_MAX.perPeriod : RECONSIDERED_MAX.perEvent, nowMs, effects);
    if (periodic && waiting.held.size() > 0 && nowMs >= heldLookAtMs) {
      heldLookAtMs = Number.POSITIVE_INFINITY;
      reconsider(waiting.held, RECONSIDERED_MAX.perPeriod, nowMs, effects);
      for (const { spec } of waiting.held.all()) {
        const placement = placements.get(spec.jobId);
        if (placement?.kind === 'queued' && placement.why.kind === 'hold') heldLookAtMs = Math.min(heldLookAtMs, placement.why.lookAgainAtMs);
      }
    }
    return effects;
  }

  /**
   * One pass in the order in which jobs should go. Of each model so many are looked at that cannot go: half the first in order,
   * half in turns from behind them, where smaller prompts may be; and whoever has waited as long as anybody without a deadline should.
   */
  function reconsider(from: Pick<DeadlineQueue, 'ordered'>, unwillingMax: number, nowMs: number, effects: Effect[]): void {
    /** Models, and tenants of them, that there is no room for. */
    const full = new Set<string>();
    const unwilling = new Map<string, number>();
    const order = worthsDiffer ? worthiestFirst(from.ordered(nowMs), nowMs) : from.ordered(nowMs);
    turn += 1;
    for (const [place, job] of order.entries()) {
      const { jobId, model } = job.spec;
      if (full.has(model) || full.has(job.key)) continue;
      const placement = placements.get(jobId);
      if (placement?.kind !== 'queued' || (placement.why.kind === 'hold' && placement.why.lookAgainAtMs > nowMs)) continue;
      const looked = unwilling.get(model) ?? 0;
      // Whoever has had more than its share does not slip past those who wait for theirs.
      if (looked > 0 && waiting.putBackMs(job) > 0) continue;
      const itsTurn = looked < unwillingMax / 2 || (looked < unwillingMax && (place + turn) % Math.max(1, Math.ceil(order.length / unwillingMax)) === 0);
      const impatient = job.firstDeadlineAtMs === Number.POSITIVE_INFINITY && nowMs - job.arrivedAtMs >= PATIENCE_MS && looked < 2 * unwillingMax;
      if (!itsTurn && !impatient) continue;
      const sending = trySend(job, nowMs);
      if (sending.kind === 'sent') {
        const spread = placement.why.kind === 'hold' && placement.why.moved === true ? spreads.get(model) : undefined;
        // What was not sent in time is not made up for: a cheap hour begins with the first, and not with all that should have gone by now.
        if (spread !== undefined) spreads.set(model, { ...spread, nextAtMs: Math.max(nowMs - controlPeriodMs, spread.nextAtMs) + spread.everyMs });
        waiting.leave(job, placement.why, 'sent', nowMs);
        effects.push(...sending.effects);
        continue;
      }
      if (sending.kind === 'refused') {
        effects.push(refuseQueued(job, placement.why, sending, nowMs));
        continue;
      }
      // Places that are kept from one tenant are there for another.
      if (sending.kind === 'place') full.add(placesOf(model).keptFrom(job.spec.tenant, 2, nowMs) > 0 ? job.key : model);
      else unwilling.set(model, looked + 1);
      waiting.waitOn(job, placement.why, sending, nowMs);
      keepAs(job, sending);
    }
  }

  function refuseQueued(job: PendingJob, why: Kept, refused: Refused, nowMs: number): Effect {
    waiting.leave(job, why, 'otherwise', nowMs);
    placements.delete(job.spec.jobId);
    return rejection(job, refused);
  }

  /** Also those that nobody came to look at: a queue's end is an instant, and not when its turn would be. */
  function refuseOverdue(nowMs: number): Effect[] {
    return [...waiting.queue.all(), ...waiting.held.all()].flatMap((job) => {
      const placement = placements.get(job.spec.jobId);
      const overdue = whyOverdue(job, nowMs);
      return overdue === null || placement?.kind !== 'queued' ? [] : [refuseQueued(job, placement.why, overdue, nowMs)];
    });
  }

  function tick(nowMs: number): readonly Effect[] {
    batchCaps?.tick(nowMs);
    workflows.tick(nowMs);
    for (const deadline of workflows.takeMoved()) moveDeadline(deadline, nowMs);
    const effects: Effect[] = [...sendQueued(nowMs, true), ...refuseOverdue(nowMs), ...leave(nowMs), ...(options.sleep === undefined ? [] : resting.tick(nowMs))];
    if (policy.kind === 'max-clock') return effects;
    if (limitsPower()) power.allot(nowMs);
    for (const replica of replicas) effects.push(...demandsOf(replica, policy, nowMs));
    return effects;
  }

  function demandsOf(replica: Replica, by: Exclude<PlannerPolicy, { kind: 'max-clock' }>, nowMs: number): Effect[] {
    if (!isControlled(replica)) return [];
    const asked = askedOf(replica, by, nowMs);
    return replica.groups.flatMap((group) => {
      if (!group.controlled) return [];
      const { point, why } = asked(group);
      const within = limitsPower() ? power.pointWithin(replica, group, point, nowMs) : point;
      return [demand(replica, group, within, within === point ? why : { binding: 'power' }, nowMs)];
    });
  }

  /** The other policies are there to be compared with: they know nothing of budgets. */
  function limitsPower(): boolean {
    return policy.kind === 'paceline' && power.isOn();
  }

  /** A lower cap must not wait for the next control period. */
  function budgetsAre({ budgets }: Extract<SchedulerEvent, { kind: 'power-budgets' }>, nowMs: number): readonly Effect[] {
    power.budgetsAre(budgets);
    if (policy.kind !== 'paceline' || !power.isOn()) return NO_EFFECTS;
    power.allot(nowMs);
    return replicas.flatMap((replica) => demandsOf(replica, policy, nowMs));
  }

  /** What a group of the replica should run at from this tick on. */
  function askedOf(replica: Replica, by: Exclude<PlannerPolicy, { kind: 'max-clock' }>, nowMs: number): (group: ClockGroup) => { readonly point: PointIndex; readonly why: Explanation } {
    const { belief, replicaId } = replica.spec;
    switch (by.kind) {
      case 'static': {
        const point = belief.points.findIndex((candidate) => candidate.id === by.pointId);
        return () => ({ point: point < 0 ? belief.fastest : point, why: { binding: 'policy' } });
      }
      case 'rival': {
        const point = by.clocks.choose(replicaId, replica.queue.view(nowMs), 'tick');
        return ({ demanded }) => ({ point: point ?? demanded ?? belief.fastest, why: { binding: 'policy' } });
      }
      case 'paceline': {
        if (replica.spec.learned?.isWarm() === false) return () => ({ point: belief.fastest, why: { binding: 'learning' } });
        const plan = planOf(replica, nowMs);
        return (group) => ({ point: pointNow(belief, group, plan, { nowMs, dwell: mechanisms.dwell }), why: explain(planOfGroup(plan, group.phase)) });
      }
      default:
        return unreachable(by);
    }
  }

  /**
   * The plan is judged anew when a job came, went or began to stream, when the point was changed, and now and then. Between
   * these the streams run as was planned, so that what held still holds; and what an idle replica waits at hardly changes.
   */
  function planOf(replica: Replica, nowMs: number): Plan {
    const { queue: own } = replica;
    const structure = own.structure();
    const known = replica.planned;
    const idle = own.waitingCount() + own.runningCount() === 0;
    if (known !== null && known.structure === structure) {
      const ageMs = nowMs - known.atMs;
      if (idle ? ageMs < TARGET_EVERY_MS : known.plan.kind === 'meets' && ageMs < PLAN_HOLDS_MS && ageMs < known.plan.slackMs) return known.plan;
    }
    const plan = planServer(own.view(nowMs));
    replica.planned = { atMs: nowMs, structure, plan };
    return plan;
  }

  function demand(replica: Replica, group: ClockGroup, point: PointIndex, why: Explanation, nowMs: number): Effect {
    const { spec } = replica;
    return demandOf(spec, group, point, why, { nowMs, controlPeriodMs, powerLimitW: limitsPower() ? power.limitOf(replica) : undefined });
  }

  /** Its health is not known yet; a server that is new to us may be new altogether, and starts slowly. */
  function joined(spec: ReplicaSpec): void {
    assert(!byId.has(spec.replicaId), 'a replica joins once');
    affinity.joined(spec.belief.profile.serving.kvTokens);
    join({ ...openReplica(spec), wasAway: true });
    fleetChanged();
  }

  /** Who is in it, and who stays. A model that only those serve who leave is a model no more. */
  function fleetChanged(): void {
    models.clear();
    for (const { spec, leaving: goes } of replicas) if (goes === null) for (const model of spec.models) models.add(model);
    serving.changed();
    fleet.changed();
  }

  function leaving(event: Extract<SchedulerEvent, { kind: 'replica-leaving' }>, nowMs: number): readonly Effect[] {
    const replica = byId.get(event.replicaId);
    if (replica === undefined) return NO_EFFECTS;
    replica.leaving = event.leaving ? { idleSinceMs: null } : null;
    fleetChanged();
    return event.leaving ? orphaned(nowMs) : sendQueued(nowMs, true);
  }

  /** What its counters tell of its last jobs comes a little after they have ended. Who bridges until another one is heard of stays for it. */
  function leave(nowMs: number): Effect[] {
    const effects: Effect[] = [];
    for (const replica of replicas.filter((candidate) => candidate.leaving !== null)) {
      const bridges = replica.state === 'up' && replica.spec.models.some((model) => serving.isBridged(model));
      const since = bridges || (loads[replica.index] as number) > 0 ? null : (replica.leaving?.idleSinceMs ?? nowMs);
      replica.leaving = { idleSinceMs: since };
      if (since === null || nowMs - since < LEAVES_AFTER_MS) continue;
      replicas.splice(replica.index, 1);
      loads.splice(replica.index, 1);
      affinity.left(replica.index);
      for (const [place, other] of replicas.entries()) other.index = place;
      byId.delete(replica.spec.replicaId);
      learners.delete(replica);
      fleetChanged();
      effects.push({ kind: 'left', replicaId: replica.spec.replicaId, ...(replica.energy === null ? {} : { energy: replica.energy.snapshot(nowMs) }) });
    }
    return effects;
  }

  function health(event: Extract<SchedulerEvent, { kind: 'replica-health' }>, nowMs: number): readonly Effect[] {
    const replica = byId.get(event.replicaId);
    if (replica === undefined) return NO_EFFECTS;
    if (event.state === 'up' && replica.wasAway) replica.backAtMs = nowMs;
    replica.wasAway = event.state !== 'up';
    replica.isHeard = true;
    replica.state = event.state;
    if (event.state !== 'up') replica.saturated = null;
    if (event.state === 'down') {
      affinity.lost(replica.index);
      resting.away(replica, nowMs);
    }
    serving.changed();
    fleet.changed();
    return event.state === 'up' ? sendQueued(nowMs, true) : orphaned(nowMs);
  }

  function rested(event: Extract<SchedulerEvent, { kind: 'replica-rest' }>, nowMs: number): readonly Effect[] {
    const replica = byId.get(event.replicaId);
    if (replica === undefined) return NO_EFFECTS;
    resting.told(replica, event.state, nowMs);
    // Its cache is gone with its sleep.
    if (event.state === 'asleep') affinity.lost(replica.index);
    return event.state === 'awake' || event.state === 'cannot' ? sendQueued(nowMs, true) : orphaned(nowMs);
  }

  /** Jobs of a model that nobody serves any more are told at once; waiting would not bring the server back. */
  function orphaned(nowMs: number): readonly Effect[] {
    const jobs = [...waiting.queue.all(), ...waiting.held.all()].filter((job) => serving.count(job.spec.model) === 0);
    for (const job of jobs) {
      const placement = placements.get(job.spec.jobId);
      if (placement?.kind === 'queued') waiting.leave(job, placement.why, 'otherwise', nowMs);
      placements.delete(job.spec.jobId);
    }
    return jobs.map((job) => ({ kind: 'reject', jobId: job.spec.jobId, reason: 'no-replica', retryAfterMs: 1000 }));
  }

  /** It shuts nobody out whom no other could serve (`serving`), so no job is refused for it. */
  function breaker(event: Extract<SchedulerEvent, { kind: 'replica-breaker' }>, nowMs: number): readonly Effect[] {
    const replica = byId.get(event.replicaId);
    if (replica === undefined || replica.breaker.kind === event.state) return NO_EFFECTS;
    // Who was sent on all the while, because there was nobody else, is not held back for having recovered.
    if (event.state === 'closed' && replica.breaker.kind === 'half-open' && serving.isSpared(replica)) replica.backAtMs = nowMs;
    replica.breaker = event.state === 'closed' ? { kind: 'closed' } : event.state === 'open' ? { kind: 'open', sinceMs: nowMs } : { kind: 'half-open', trial: null };
    serving.changed();
    fleet.changed();
    return sendQueued(nowMs, true);
  }

  function saturated(event: Extract<SchedulerEvent, { kind: 'replica-saturated' }>, nowMs: number): void {
    const replica = byId.get(event.replicaId);
    if (replica !== undefined) saturate(replica, loads[replica.index] as number, event.retryAfterMs, nowMs);
  }

  function loaded(event: Extract<SchedulerEvent, { kind: 'replica-load' }>): void {
    const replica = byId.get(event.replicaId);
    if (replica === undefined) return;
    replica.queue.load(event.running, event.waiting);
    replica.learnedRoom.observe(event, loads[replica.index] as number);
  }

  function control(event: Extract<SchedulerEvent, { kind: 'control' }>, nowMs: number): readonly Effect[] {
    const replica = byId.get(event.replicaId);
    if (replica === undefined) return NO_EFFECTS;
    for (const group of replica.groups) {
      if (event.group !== undefined && group.phase !== event.group) continue;
      const point = followed(replica.spec.belief, group, event.controlled, event.pointId);
      if (event.controlled && event.powerLimitW !== undefined) group.limitHeldW = event.powerLimitW;
      moved(replica, group.phase, point, nowMs);
      if (group.phase === null) replica.queue.applied(point, nowMs);
      else replica.queue.groupApplied(group.phase, { appliedPoint: point, controlled: group.controlled }, nowMs);
    }
    // What was given up here may be another one's now.
    if (policy.kind !== 'paceline' || !power.moveOn(nowMs)) return NO_EFFECTS;
    return replicas.flatMap((other) => (other.groups.some((group) => group.controlled && group.limitToldW !== power.limitOf(other)) ? demandsOf(other, policy, nowMs) : []));
  }

  function handle(event: SchedulerEvent, nowMs: number): readonly Effect[] {
    switch (event.kind) {
      case 'arrived':
        return arrived(event.job, nowMs);
      case 'tokens': {
        const placement = placements.get(event.jobId);
        if (placement?.kind !== 'sent') return NO_EFFECTS;
        const first = placement.job.firstTokenAtMs === null;
        batchCaps?.tokens(placement.replica, event.tokens);
        placement.replica.queue.tokens(placement.job, event.tokens, event.lastAtMs ?? nowMs);
        return first ? sendQueued(nowMs, false) : NO_EFFECTS;
      }
      case 'ended':
        return ended(event, nowMs);
      case 'returned':
        return returned(event.jobId, nowMs);
      case 'tick':
        return tick(nowMs);
      case 'replica-joined':
        joined(event.replica);
        return NO_EFFECTS;
      case 'replica-leaving':
        return leaving(event, nowMs);
      case 'replica-health':
        return health(event, nowMs);
      case 'replica-breaker':
        return breaker(event, nowMs);
      case 'replica-rest':
        return rested(event, nowMs);
      case 'replica-saturated':
        saturated(event, nowMs);
        return NO_EFFECTS;
      case 'replica-load':
        loaded(event);
        return NO_EFFECTS;
      case 'peer-load':
        byId.get(event.replicaId)?.queue.peerLoad(event.running + event.waiting);
        return NO_EFFECTS;
      case 'metered': {
        const replica = byId.get(event.replicaId);
        if (replica === undefined) return NO_EFFECTS;
        batchCaps?.metered(replica, event.group, event.reading);
        return metered(replica, event, nowMs);
      }
      case 'power-budgets':
        return budgetsAre(event, nowMs);
      case 'energy-prices':
        prices = event.prices;
        return NO_EFFECTS;
      case 'learnt':
        for (const [replicaId, scales] of event.learning.timeScales) byId.get(replicaId)?.queue.peersLearnt(scales);
        prompts.peersLearnt(event.learning.bytesPerToken);
        return NO_EFFECTS;
      case 'control':
        return control(event, nowMs);
      case 'workflow-declared': {
        const { workflow } = event;
        return [{ kind: 'workflow-declared', tenant: workflow.tenant, workflowId: workflow.workflowId, answer: workflows.declare(workflow, nowMs) }];
      }
      case 'workflow-ended':
        workflows.end(event.tenant, event.workflowId, nowMs);
        return NO_EFFECTS;
      default:
        return unreachable(event);
    }
  }

  return {
    handle(event, nowMs) {
      if (policy.kind === 'rival') policy.clocks.observe?.(event, nowMs);
      return settleWorkflows(handle(event, nowMs), nowMs);
    },
    workflow: (tenant, workflowId, nowMs) => workflows.status(tenant, workflowId, nowMs),
    openWorkflow: (tenant, workflowId) => workflows.find(tenant, workflowId),
    openWorkflows: (tenant) => (tenant === undefined ? workflows.openCount() : workflows.openCountOf(tenant)),
    hasOther(jobId) {
      const placement = placements.get(jobId);
      return placement?.kind === 'sent' && isServed({ spec: placement.job.spec, avoid: avoidedOnce(placement.job, placement.replica) });
    },
    energyOf(jobId, usage, nowMs) {
      const placement = placements.get(jobId);
      return placement?.kind === 'sent' ? energyNow(placement.replica, placement.job, usage, nowMs) : null;
    },
    hasOpenAccounts: (replicaId) => (byId.get(replicaId)?.energy?.open() ?? 0) > 0,
    learntOf(replicaId) {
      const replica = byId.get(replicaId);
      if (replica === undefined) return 'unknown';
      const { spec: { belief, learned }, queue } = replica;
      if (learned?.isWarm() === false) return 'cold';
      const samplesAt = learned?.samplesAt ?? queue.corrections.samplesAt;
      return { model: belief, priced: queue.corrections.priced, seenPoints: belief.points.filter((_, point) => samplesAt('decode', point) + samplesAt('prefill', point) > 0).map(({ id }) => id) };
    },
    learnt: () => ({ timeScales: new Map(replicas.map(({ spec, queue: own }) => [spec.replicaId, own.learnt()])), bytesPerToken: prompts.learnt() }),
    snapshot(nowMs) {
      return {
        replicas: replicas.map((replica) => ({
          replicaId: replica.spec.replicaId,
          state: replica.leaving === null ? (replica.rest?.kind === 'lost' ? 'down' : replica.state) : 'draining',
          breaker: replica.breaker.kind,
          ...(replica.rest === null ? {} : { rest: replica.rest.kind }),
          room: roomOf(replica, slowStartMs, nowMs),
          ...batchCapOf(replica),
          ...groupsStatus(replica.spec.belief, replica.groups),
          waitingPrompts: replica.queue.waitingCount(),
          runningStreams: replica.queue.runningCount(),
          stepTimeResidual: replica.queue.corrections.overall('decode'),
          ...driftOf(replica, nowMs),
          ...(replica.energy === null ? {} : { energy: replica.energy.snapshot(nowMs) }),
        })),
        queued: waiting.size(),
        ...(power.isOn() ? { budgets: power.status(({ energy }) => energy?.snapshot(nowMs).powerW ?? null) } : {}),
      };
    },
  };
}

/** Of those that can still be in time, and then of the late ones; among equals the order stays. */
function worthiestFirst(jobs: readonly PendingJob[], nowMs: number): readonly PendingJob[] {
  return jobs.toSorted((a, b) => Number(a.firstDeadlineAtMs <= nowMs) - Number(b.firstDeadlineAtMs <= nowMs) || (b.spec.worth ?? 1) - (a.spec.worth ?? 1));
}

function driftOf({ queue }: Replica, nowMs: number): Pick<FleetSnapshot['replicas'][number], 'drift'> {
  const drifted = PHASES.flatMap((phase) => {
    const drift = queue.drift()[phase];
    return drift.kind === 'drifted' ? [[phase, { ratio: drift.ratio, forMs: nowMs - drift.sinceMs }] as const] : [];
  });
  return drifted.length === 0 ? {} : { drift: Object.fromEntries(drifted) };
}

const PHASES = ['prefill', 'decode'] as const;

/** At a replica's fastest, with nobody else there, and room for what is not known yet. */
function aloneMs(belief: PerformanceModel, promptTokens: number, cachedTokens: number, outputTokens: number): number {
  const decode = { sequences: 1, contextTokens: promptTokens + outputTokens / 2 };
  return belief.prefillTimeMs({ tokens: promptTokens - cachedTokens, contextTokens: cachedTokens }, belief.fastest) + (outputTokens > 1 ? (outputTokens - 1) * belief.decodeTimeMs(decode, belief.fastest) : 0);
}

/** Its own limit, or what its workflow allots it. */
function dueAtMs({ slo: { e2eMs } }: JobSpec, arrivedAtMs: number, allottedAtMs = Number.POSITIVE_INFINITY): number {
  return Math.min(arrivedAtMs + (e2eMs ?? Number.POSITIVE_INFINITY), allottedAtMs);
}

/** Not all at the same moment, and neither at once nor never: a client that is told a time comes then. */
function retryAfterOf(ms: number, count: number): number {
  return Math.min(RETRY_AFTER_MS.max, Math.max(RETRY_AFTER_MS.min, ms)) * (1 + ((count * GOLDEN_RATIO) % 1) / 2);
}

const RETRY_AFTER_MS = { min: 500, max: 30_000 };
const GOLDEN_RATIO = (Math.sqrt(5) - 1) / 2;

function explain(plan: { readonly binding: Explanation['binding']; readonly bindingJobId: JobId | null; readonly slackMs: number }): Explanation {
  return {
    binding: plan.binding,
    ...(plan.bindingJobId === null ? {} : { jobId: plan.bindingJobId }),
    ...(Number.isFinite(plan.slackMs) ? { slackMs: plan.slackMs } : {}),
  };
}
