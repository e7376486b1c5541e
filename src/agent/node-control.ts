// What clock control wants of one node, whichever daemon stands there: `lease-control.ts` speaks to paceline-agent,
// `zeusd-control.ts` to zeusd. Nodes know nothing of each other.
import type { ReplicaId } from '../core/job.ts';
import type { OperatingPoint } from '../frontier/profile.ts';
import type { PowerLimitState } from './power-limits.ts';

export interface ClockGroup {
  readonly replicaId: ReplicaId;
  readonly devices: readonly string[];
}

/**
 * `held`: demands reach the devices. `observing`: the agent sets nothing (`--observe`). `none`: it is there and has no
 * device for us. `lost`: it is not there, or was not understood; it is tried again.
 */
export type NodeState = 'connecting' | 'held' | 'observing' | 'lost' | 'none' | 'closed';

export interface NodeOptions {
  readonly holder: string;
  readonly groups: readonly ClockGroup[];
  readonly now: () => number;
  /** Told at every change: does the replica follow, and which point is it at (`null`: default clocks). */
  readonly onControl: (replicaId: ReplicaId, controlled: boolean, pointId: string | null) => void;
  /** Told at every change: watts that its devices are held to, beside their clocks; `null`: to none. */
  readonly onLimit?: ((replicaId: ReplicaId, heldW: number | null) => void) | undefined;
  readonly onState: (state: NodeState, why: string) => void;
  readonly onWarning: (message: string) => void;
}

export interface ClockDemand {
  readonly replicaId: ReplicaId;
  readonly point: OperatingPoint | null;
  /** Watts that the whole group may draw; `null`: no limit; absent: what was said before stays as it is. */
  readonly powerLimitW?: number | null;
  readonly holdMs: number;
  readonly change: 'raise' | 'lower' | 'renew';
}

export interface NodeControl {
  demand(demand: ClockDemand): void;
  /** What becomes of the power limits that it is asked for. */
  powerLimits(): PowerLimitState;
  /** Resolves when the devices are back at default clocks, or nobody can be asked. */
  close(): Promise<void>;
}
