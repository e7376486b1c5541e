// All that the dashboard's page is made of, at one moment. Plain values; whoever joins the gateway's parts fills it.
import type { EnergyRow } from '../core/energy-book.ts';
import type { ReplicaId } from '../core/job.ts';
import type { RecentRow } from '../core/recent-workflows.ts';
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { FleetSnapshot } from '../scheduler/scheduler.ts';
import type { Remembered } from './history.ts';

export interface DashboardView {
  readonly atUnixMs: number;
  /** Since when energy has been counted. */
  readonly sinceUnixMs: number;
  readonly policy: string;
  /** Share of requests that should meet their SLOs. */
  readonly attainmentTarget: number;
  readonly snapshot: FleetSnapshot;
  readonly inFlight: number;
  /** What is believed of each replica's devices. */
  readonly beliefs: ReadonlyMap<ReplicaId, PerformanceModel>;
  /** By the name of each node's agent; none: nobody drives clocks. */
  readonly agents: ReadonlyMap<string, { readonly state: string }>;
  readonly energy: readonly EnergyRow[];
  readonly remembered: Remembered;
  /** How many are open, and what became of those that ended in the last 15 minutes. */
  readonly workflows: { readonly open: number; readonly lately: readonly RecentRow[] };
  /** Of the gateway: it gets no more requests. */
  readonly draining: boolean;
}

export type Replica = FleetSnapshot['replicas'][number];
