// Drives the scheduler in real time: gives it the events with the time they happened at, and performs its effects.
// It decides nothing; the simulator drives the same scheduler on virtual time.
import type { JobEnergy, ReplicaEnergy } from './core/energy-ledger.ts';
import type { EnergyPrice } from './core/energy-prices.ts';
import type { LearntOf } from './core/learnt-profile.ts';
import type { JobId, JobOutcome, JobSpec, ReplicaId, Usage, WorkflowId } from './core/job.ts';
import type { MeterReading } from './core/meter-window.ts';
import type { PowerBudget } from './core/power-budget.ts';
import type { PhaseGroup } from './core/replica-view.ts';
import type { Learning } from './core/shared-learning.ts';
import type { WorkflowSpec } from './core/workflow.ts';
import type { Effect, JobReport, Prediction, RejectReason, SchedulerEvent } from './scheduler/events.ts';
import type { ReplicaSpec } from './scheduler/replica.ts';
import type { FleetSnapshot, Scheduler } from './scheduler/scheduler.ts';
import type { OpenWorkflow, WorkflowAnswer, WorkflowReport, WorkflowStatus } from './scheduler/workflows.ts';
import { unreachable } from './core/unreachable.ts';

/** Whoever submits a job hears of it here: exactly one of the two, at once or later, again after it was returned, and nothing once it has ended. */
export interface JobOwner {
  dispatched(replicaId: ReplicaId, prediction: Prediction): void;
  rejected(reason: RejectReason, retryAfterMs: number | null): void;
}

export type Demand = Extract<Effect, { kind: 'demand' }>;
export type Settled = Extract<Effect, { kind: 'settled' }>;

export interface Runtime {
  submit(job: JobSpec, owner: JobOwner): void;
  /** Output tokens seen since the last call. */
  tokens(jobId: JobId, tokens: number): void;
  ended(jobId: JobId, outcome: JobOutcome, usage: Usage | null): void;
  /** Its replica could not be reached, or has refused it unworked; it goes to another, or is rejected. */
  returned(jobId: JobId): void;
  /** Another replica could serve it, were it returned. */
  hasOther(jobId: JobId): boolean;
  /** One more from now on. */
  replicaJoined(replica: ReplicaSpec): void;
  /** It gets nothing more; `left` is told when it is gone. Until then it may stay after all. */
  replicaLeaving(replicaId: ReplicaId): void;
  replicaStays(replicaId: ReplicaId): void;
  replicaHealth(replicaId: ReplicaId, state: 'up' | 'draining' | 'down'): void;
  replicaBreaker(replicaId: ReplicaId, state: 'closed' | 'open' | 'half-open'): void;
  replicaSaturated(replicaId: ReplicaId, retryAfterMs: number | null): void;
  /** Its server sleeps, or is awake again, or has no such mode, or does not wake. */
  replicaRest(replicaId: ReplicaId, state: 'awake' | 'asleep' | 'cannot' | 'lost'): void;
  replicaLoad(load: { readonly replicaId: ReplicaId; readonly running: number; readonly waiting: number; readonly kvUsage: number }): void;
  /** What other gateways have sent there. */
  peerLoad(load: { readonly replicaId: ReplicaId; readonly running: number; readonly waiting: number }): void;
  /** What was learnt here, and what other gateways have learnt. */
  learnt(): Learning;
  peersLearnt(learning: Learning): void;
  /** What the energy counters of its devices say; `group`: of a disaggregated server, of which. `null`: they cannot be read. */
  metered(replicaId: ReplicaId, reading: MeterReading | null, group?: PhaseGroup): void;
  /** What a job that is on a replica has taken so far; `null` where that is not known. `usage`: as its server has said, if it has ended there. */
  energyOf(jobId: JobId, usage: Usage | null): JobEnergy | null;
  /** Jobs are on a replica, or have ended and wait for what its counters say. */
  hasOpenAccounts(replicaId: ReplicaId): boolean;
  /** As `Scheduler.learntOf`. */
  learntOf(replicaId: ReplicaId): LearntOf | 'unknown' | 'cold';
  /** `group`: of a disaggregated server, which. `powerLimitW`: watts that its devices are held to, `null`: to none; `undefined`: they take none. */
  control(replicaId: ReplicaId, controlled: boolean, pointId: string | null, group?: PhaseGroup, powerLimitW?: number | null): void;
  /** `answered` is called once. */
  declareWorkflow(workflow: WorkflowSpec, answered: (answer: WorkflowAnswer) => void): void;
  /** Nothing more comes of it; one that is not open is ignored. */
  endWorkflow(tenant: string, workflowId: WorkflowId): void;
  workflow(tenant: string, workflowId: WorkflowId): WorkflowStatus | null;
  /** What a call must fit to be one of it; `null`: it is not open. */
  openWorkflow(tenant: string, workflowId: WorkflowId): OpenWorkflow | null;
  /** How many are open; of all tenants, or of one. */
  openWorkflows(tenant?: string): number;
  /** All that there are from now on. */
  powerBudgets(budgets: readonly PowerBudget[]): void;
  /** On the clock of `now`; none: nothing is known. */
  energyPrices(prices: readonly EnergyPrice[]): void;
  snapshot(): FleetSnapshot;
  /** Jobs that have been submitted and neither ended nor been rejected. */
  inFlight(): number;
  close(): void;
}

export interface RuntimeOptions {
  readonly scheduler: Scheduler;
  readonly controlPeriodMs: number;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly demand: (demand: Demand) => void;
  readonly report: (report: JobReport) => void;
  /** A replica's server is to sleep, or to wake; what becomes of it is told by `replicaRest`. Nobody asks where no replica can. */
  readonly rest?: (replicaId: ReplicaId, to: 'asleep' | 'awake') => void;
  /** More, or less, is known of a job's energy than its report said. */
  readonly settled?: (settled: Settled) => void;
  readonly workflowEnded?: (report: WorkflowReport) => void;
  /** A replica that was to leave is gone. */
  readonly left?: (replicaId: ReplicaId, energy: ReplicaEnergy | null) => void;
}

export function createRuntime(options: RuntimeOptions): Runtime {
  const { scheduler, now } = options;
  const owners = new Map<JobId, JobOwner>();
  /** In the order of asking, as they are answered. */
  const declarations: ((answer: WorkflowAnswer) => void)[] = [];
  const waiting: SchedulerEvent[] = [];
  let handling = false;

  /** An effect may cause the next event (a dispatch that fails at once): it waits until the effects before it are performed. */
  function tell(event: SchedulerEvent): void {
    waiting.push(event);
    if (handling) return;
    handling = true;
    try {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        for (const effect of scheduler.handle(next, now())) perform(effect);
      }
    } catch (error) {
      // A wrong scheduler stops the process, and that is safe: leases run out. Thrown apart from the caller's stack,
      // because callers inside undici would have it swallowed.
      setImmediate(() => {
        throw error;
      });
    } finally {
      handling = false;
    }
  }

  function perform(effect: Effect): void {
    switch (effect.kind) {
      case 'dispatch':
        owners.get(effect.jobId)?.dispatched(effect.replicaId, effect.prediction);
        return;
      case 'reject': {
        const owner = owners.get(effect.jobId);
        owners.delete(effect.jobId);
        owner?.rejected(effect.reason, effect.retryAfterMs);
        return;
      }
      case 'demand':
        options.demand(effect);
        return;
      case 'sleep':
      case 'wake':
        options.rest?.(effect.replicaId, effect.kind === 'sleep' ? 'asleep' : 'awake');
        return;
      case 'report':
        options.report(effect.report);
        return;
      case 'settled':
        options.settled?.(effect);
        return;
      case 'workflow-declared':
        declarations.shift()?.(effect.answer);
        return;
      case 'workflow-ended':
        options.workflowEnded?.(effect.report);
        return;
      case 'left':
        options.left?.(effect.replicaId, effect.energy ?? null);
        return;
      default:
        unreachable(effect);
    }
  }

  const ticks = setInterval(() => tell({ kind: 'tick' }), options.controlPeriodMs);

  return {
    submit: (job, owner) => {
      owners.set(job.jobId, owner);
      tell({ kind: 'arrived', job });
    },
    tokens: (jobId, tokens) => tell({ kind: 'tokens', jobId, tokens }),
    ended: (jobId, outcome, usage) => {
      if (!owners.delete(jobId)) return;
      tell(usage === null ? { kind: 'ended', jobId, outcome } : { kind: 'ended', jobId, outcome, usage });
    },
    returned: (jobId) => tell({ kind: 'returned', jobId }),
    hasOther: (jobId) => scheduler.hasOther(jobId),
    replicaJoined: (replica) => tell({ kind: 'replica-joined', replica }),
    replicaLeaving: (replicaId) => tell({ kind: 'replica-leaving', replicaId, leaving: true }),
    replicaStays: (replicaId) => tell({ kind: 'replica-leaving', replicaId, leaving: false }),
    replicaHealth: (replicaId, state) => tell({ kind: 'replica-health', replicaId, state }),
    replicaBreaker: (replicaId, state) => tell({ kind: 'replica-breaker', replicaId, state }),
    replicaSaturated: (replicaId, retryAfterMs) => tell({ kind: 'replica-saturated', replicaId, retryAfterMs }),
    replicaRest: (replicaId, state) => tell({ kind: 'replica-rest', replicaId, state }),
    replicaLoad: (load) => tell({ kind: 'replica-load', ...load }),
    peerLoad: (load) => tell({ kind: 'peer-load', ...load }),
    learnt: () => scheduler.learnt(),
    peersLearnt: (learning) => tell({ kind: 'learnt', learning }),
    metered: (replicaId, reading, group) => tell({ kind: 'metered', replicaId, ...(group === undefined ? {} : { group }), reading }),
    hasOpenAccounts: (replicaId) => scheduler.hasOpenAccounts(replicaId),
    learntOf: (replicaId) => scheduler.learntOf(replicaId),
    energyOf: (jobId, usage) => scheduler.energyOf(jobId, usage, now()),
    control: (replicaId, controlled, pointId, group, powerLimitW) => tell({ kind: 'control', replicaId, ...(group === undefined ? {} : { group }), controlled, pointId, ...(powerLimitW === undefined ? {} : { powerLimitW }) }),
    declareWorkflow: (workflow, answered) => {
      declarations.push(answered);
      tell({ kind: 'workflow-declared', workflow });
    },
    endWorkflow: (tenant, workflowId) => tell({ kind: 'workflow-ended', tenant, workflowId }),
    workflow: (tenant, workflowId) => scheduler.workflow(tenant, workflowId, now()),
    openWorkflow: (tenant, workflowId) => scheduler.openWorkflow(tenant, workflowId),
    openWorkflows: (tenant) => scheduler.openWorkflows(tenant),
    powerBudgets: (budgets) => tell({ kind: 'power-budgets', budgets }),
    energyPrices: (prices) => tell({ kind: 'energy-prices', prices }),
    snapshot: () => scheduler.snapshot(now()),
    inFlight: () => owners.size,
    close: () => clearInterval(ticks),
  };
}
