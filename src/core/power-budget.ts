// A power budget: watts that a set of replicas may draw together.
import type { ReplicaId } from './job.ts';

/** A replica may be under several: of its device, node, rack, fleet. */
export interface PowerBudget {
  readonly name: string;
  readonly watts: number;
  readonly replicaIds: readonly ReplicaId[];
}
