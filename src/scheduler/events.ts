// The closed lists of what the scheduler is told and what it wants done. The gateway's runtime and the simulator
// both speak exactly these; time is always an argument beside the event.
import type { JobEnergy, ReplicaEnergy } from '../core/energy-ledger.ts';
import type { EnergyPrice } from '../core/energy-prices.ts';
import type { JobId, JobOutcome, JobSpec, ReplicaId, Usage, WorkflowId } from '../core/job.ts';
import type { MeterReading } from '../core/meter-window.ts';
import type { PowerBudget } from '../core/power-budget.ts';
import type { PhaseGroup } from '../core/replica-view.ts';
import type { Learning } from '../core/shared-learning.ts';
import type { OperatingPoint } from '../frontier/profile.ts';
import type { WorkflowSpec } from '../core/workflow.ts';
import type { ReplicaSpec } from './replica.ts';
import type { WorkflowAnswer, WorkflowReport } from './workflows.ts';

export type SchedulerEvent =
  | { readonly kind: 'arrived'; readonly job: JobSpec }
  /** Output tokens seen since the last such event; the first one is the time to first token. `lastAtMs`: when the last of them came, if not now. */
  | { readonly kind: 'tokens'; readonly jobId: JobId; readonly tokens: number; readonly lastAtMs?: number }
  | { readonly kind: 'ended'; readonly jobId: JobId; readonly outcome: JobOutcome; readonly usage?: Usage }
  /** The replica it was sent to could not be reached, or has refused it unworked: another one may have it. */
  | { readonly kind: 'returned'; readonly jobId: JobId }
  /** What will come of a workflow, and by when all of it is due; answered by an effect of the same name. */
  | { readonly kind: 'workflow-declared'; readonly workflow: WorkflowSpec }
  /** Nothing more will come of it. */
  | { readonly kind: 'workflow-ended'; readonly tenant: string; readonly workflowId: WorkflowId }
  /** Every control period. */
  | { readonly kind: 'tick' }
  /** The fleet has one more from now on, `down` until its health is told. */
  | { readonly kind: 'replica-joined'; readonly replica: ReplicaSpec }
  /** Leaving, it gets nothing more, and when nothing has been on it for a moment it `left`; until then it may stay after all. */
  | { readonly kind: 'replica-leaving'; readonly replicaId: ReplicaId; readonly leaving: boolean }
  | { readonly kind: 'replica-health'; readonly replicaId: ReplicaId; readonly state: 'up' | 'draining' | 'down' }
  /** Whether it fails what it is sent. `open` keeps jobs from it and `half-open` all but one, unless their model has nobody else. */
  | { readonly kind: 'replica-breaker'; readonly replicaId: ReplicaId; readonly state: 'closed' | 'open' | 'half-open' }
  /**
   * What became of its server's sleep: as it was found, or after a `sleep` or `wake`. `cannot`: it has no such mode, and is not asked again;
   * `lost`: it was asked to wake and did not.
   */
  | { readonly kind: 'replica-rest'; readonly replicaId: ReplicaId; readonly state: 'awake' | 'asleep' | 'cannot' | 'lost' }
  /** It has refused a job because it has too many, which is no failure; told before that job ends or is returned. `retryAfterMs`: as it says. */
  | { readonly kind: 'replica-saturated'; readonly replicaId: ReplicaId; readonly retryAfterMs: number | null }
  /** The server's own metrics: all its traffic, ours included. */
  | { readonly kind: 'replica-load'; readonly replicaId: ReplicaId; readonly running: number; readonly waiting: number; readonly kvUsage: number }
  /** What the other gateways of the fleet have sent there; the server's own metrics tell the same more slowly. */
  | { readonly kind: 'peer-load'; readonly replicaId: ReplicaId; readonly running: number; readonly waiting: number }
  /** What the energy counters of its devices (all, or those of a group) say; `null`: they cannot be read. */
  | { readonly kind: 'metered'; readonly replicaId: ReplicaId; readonly group?: PhaseGroup; readonly reading: MeterReading | null }
  /** What replicas may draw together from now on; replaces all that were told before. */
  | { readonly kind: 'power-budgets'; readonly budgets: readonly PowerBudget[] }
  /** What energy costs from when on, ascending; replaces what was told before. None: nothing is known. */
  | { readonly kind: 'energy-prices'; readonly prices: readonly EnergyPrice[] }
  /** What the other gateways of the fleet have learnt, each replica and model with all of them together. */
  | { readonly kind: 'learnt'; readonly learning: Learning }
  /**
   * Whether the replica's devices (all, or those of a group) follow our demands, and the point they were last seen at (`null`: default, the fastest). `powerLimitW`: watts that the
   * whole device group is held to now, `null`: to none; absent: nothing is known of limits, or they take none.
   */
  | { readonly kind: 'control'; readonly replicaId: ReplicaId; readonly group?: PhaseGroup; readonly controlled: boolean; readonly pointId: string | null; readonly powerLimitW?: number | null };

/** What was predicted when a job was sent to a replica; goes into the response headers and the prediction metrics. */
export interface Prediction {
  /** Medians; time in our own queue included. */
  readonly ttftMs: number;
  readonly tpotMs: number;
  readonly e2eMs: number;
  /** What nine of ten are expected to stay below. */
  readonly ttftP90Ms: number;
  readonly tpotP90Ms: number;
  /** Least slack over the job's deadlines at the planned point; `null` where it carries no SLO. May be negative. */
  readonly slackMs: number | null;
  /** Of a workflow's call: by when it is due, from its arrival, as its workflow allots it now or by its own limit. Absent where it is none, or its workflow is lost. */
  readonly workflowDueMs?: number;
  /** False where some deadline could not be met even at the fastest point with the load as it was. */
  readonly feasible: boolean;
}

export type RejectReason = 'no-replica' | 'unknown-model' | 'queue-full' | 'queue-timeout' | 'deadline-infeasible' | 'draining';

/** Why a replica runs at its point: the binding constraint, for people. */
export interface Explanation {
  readonly binding: 'idle' | 'ttft' | 'tpot' | 'e2e' | 'stability' | 'energy' | 'none-feasible' | 'policy' | 'uncontrolled' | 'learning' | 'power';
  readonly jobId?: JobId;
  /** Of the binding constraint, at the chosen point. */
  readonly slackMs?: number;
}

export interface JobReport {
  readonly jobId: JobId;
  readonly replicaId: ReplicaId | null;
  readonly sloClass: string;
  readonly tenant: string;
  readonly model: string;
  readonly outcome: JobOutcome;
  /** As the job had it. */
  readonly operation?: string;
  /** Its tokens are as its server said, and not what was seen of them. */
  readonly usageTold?: boolean;
  readonly ttftMs: number | null;
  readonly tpotMs: number | null;
  readonly e2eMs: number;
  readonly promptTokens: number;
  /** Of them, what its server said that it had cached. */
  readonly cachedTokens: number;
  readonly outputTokens: number;
  /** Of the devices while they worked on it, its part, as far as is known; 0 where it was never sent. */
  readonly energyJ: number;
  /** The same by where it is known from; absent where nobody keeps accounts. What counters tell later comes as `settled`. */
  readonly energy?: JobEnergy;
  /** Every SLO it carried was met; `null` where it carried none or was cancelled by its client. */
  readonly met: boolean | null;
  readonly prediction: Prediction | null;
}

export type Effect =
  | { readonly kind: 'dispatch'; readonly jobId: JobId; readonly replicaId: ReplicaId; readonly prediction: Prediction }
  | { readonly kind: 'reject'; readonly jobId: JobId; readonly reason: RejectReason; readonly retryAfterMs: number | null }
  /** What the replica's devices should run at (`null`: default clocks) and for how long this may stand unrenewed. */
  | {
      readonly kind: 'demand';
      readonly replicaId: ReplicaId;
      /** Of a disaggregated server: which of its device groups. */
      readonly group?: PhaseGroup;
      readonly point: OperatingPoint | null;
      /** Watts that the whole device group may draw; `null`: no limit; absent: nothing is said of limits, and they stay as they are. */
      readonly powerLimitW?: number | null;
      readonly holdMs: number;
      /** `raise` goes out at once; `lower` and `renew` may wait for the control period. */
      readonly change: 'raise' | 'lower' | 'renew';
      readonly why: Explanation;
    }
  /** Its server is to sleep, or to wake; what became of it comes as `replica-rest`. Told once; one that sleeps has no work. */
  | { readonly kind: 'sleep'; readonly replicaId: ReplicaId }
  | { readonly kind: 'wake'; readonly replicaId: ReplicaId }
  /** Nothing is known of it from now on. */
  /** `energy`: its accounts as they ended. */
  | { readonly kind: 'left'; readonly replicaId: ReplicaId; readonly energy?: ReplicaEnergy }
  | { readonly kind: 'report'; readonly report: JobReport }
  | { readonly kind: 'workflow-declared'; readonly tenant: string; readonly workflowId: WorkflowId; readonly answer: WorkflowAnswer }
  | { readonly kind: 'workflow-ended'; readonly report: WorkflowReport }
  /** More, or less, is known of the energy of a job: after its report, or of a replica that it was sent to in vain. */
  | { readonly kind: 'settled'; readonly jobId: JobId; readonly tenant: string; readonly model: string; readonly sloClass: string; readonly more: JobEnergy };
