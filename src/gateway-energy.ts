// The accounts of energy, as a part of the gateway: the counters of the nodes' agents go to the scheduler, which apportions
// them, and what comes of it is added up by tenant, model and class.
import type { ReplicaId } from './core/job.ts';
import { createEnergyBook, type EnergyRow } from './core/energy-book.ts';
import type { ReplicaEnergy } from './core/energy-ledger.ts';
import type { Runtime, Settled } from './runtime.ts';
import type { JobReport } from './scheduler/events.ts';

/** Since this gateway started, of what went through it. Estimates: what a request took of devices that others shared nobody can measure. */
export interface EnergySnapshot {
  readonly sinceUnixMs: number;
  readonly rows: readonly EnergyRow[];
  readonly replicas: readonly ({ readonly replicaId: ReplicaId } & ReplicaEnergy)[];
}

export interface GatewayEnergy {
  reported(report: JobReport): void;
  settled(settled: Settled): void;
  snapshot(): EnergySnapshot;
  close(): Promise<void>;
}

export function openEnergy({ runtime }: { readonly runtime: () => Pick<Runtime, 'snapshot'> }): GatewayEnergy {
  const book = createEnergyBook();
  const sinceUnixMs = Date.now();
  return {
    reported: (report) => {
      if (report.energy !== undefined) book.ended(report, report, report.energy);
    },
    settled: (settled) => book.settled(settled, settled.more),
    snapshot: () => ({
      sinceUnixMs,
      rows: book.rows(),
      replicas: runtime().snapshot().replicas.flatMap(({ replicaId, energy }) => (energy === undefined ? [] : [{ replicaId, ...energy }])),
    }),
    close: async () => {},
  };
}
