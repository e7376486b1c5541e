// Another way to choose operating points than our planner: of a published system, say. For comparisons only.
import type { ReplicaId } from '../core/job.ts';
import type { ReplicaView } from '../core/replica-view.ts';
import type { PendingJob } from '../core/tracked-job.ts';
import type { PointIndex } from '../frontier/performance-model.ts';
import type { SchedulerEvent } from './events.ts';

/** It sees what the planner sees, and all events. */
export interface ClockPolicy {
  readonly name: string;
  /** How often it wants to be asked; default: the control period. One that decides more rarely ignores what comes between. */
  readonly controlPeriodMs?: number;
  /** Before the scheduler handles it. */
  observe?(event: SchedulerEvent, nowMs: number): void;
  /** At every control period, and right after a job was sent to the replica. `null`: leave it as it is. */
  choose(replicaId: ReplicaId, view: ReplicaView, cause: 'tick' | 'arrival'): PointIndex | null;
  /** Its own routing among replicas with room, views without the job; `null` or absent: to the least loaded. */
  route?(candidates: readonly PolicyCandidate[], job: PendingJob): ReplicaId | null;
}

export interface PolicyCandidate {
  readonly replicaId: ReplicaId;
  readonly view: ReplicaView;
}
