// What a rival is: a published way to set GPU clocks, re-implemented as a policy of the simulator. Each has a file that names
// its source and what was left out. All get the same belief and the same queue model as Paceline, and nothing of the truth.
import type { ReplicaId } from '../../core/job.ts';
import type { PerformanceModel } from '../../frontier/performance-model.ts';
import type { ClockPolicy } from '../../scheduler/clock-policy.ts';

export interface RivalContext {
  readonly belief: PerformanceModel;
  readonly replicaIds: readonly ReplicaId[];
  /** Energy counter of the replica's device group, joules, as a meter would show it; only for those that read meters. */
  readonly energyJ: (replicaId: ReplicaId) => number;
  /** Time with work on the devices since the start, ms. */
  readonly busyMs: (replicaId: ReplicaId) => number;
  readonly seed: number;
  /** Own safety margin: the policy plans for SLO × (1 − margin); 0 is as published. Comparisons raise it until attainment matches. */
  readonly margin: number;
}

export type RivalFactory = (context: RivalContext) => ClockPolicy;
