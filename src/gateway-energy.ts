// The accounts of energy, as a part of the gateway: the counters of the nodes' agents go to the scheduler, which apportions
// them, and what comes of it is added up by tenant, model and class.
import { isDeepStrictEqual } from 'node:util';
import { createEnergyFeed } from './agent/energy-feed.ts';
import { createEnergyBook, type EnergyRow } from './core/energy-book.ts';
import type { ReplicaEnergy } from './core/energy-ledger.ts';
import type { ReplicaId } from './core/job.ts';
import { type Fleet, nodesOf, placeOf } from './gateway-clocks.ts';
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

interface Joined {
  /** It is made before there is one. */
  readonly runtime: () => Pick<Runtime, 'snapshot' | 'metered' | 'hasOpenAccounts'>;
  readonly telemetry: { energyMeter(group: string, why: string | null): void };
  readonly now: () => number;
}

/** Counters are read so often while something is under way: what a job took is known by then, and a counter ticks every 100 ms. */
const READ_EVERY_MS = 250;
/** … and while nothing is: so long a stretch of idling is told in one. */
const READ_IDLE_EVERY_MS = 5_000;

export interface EnergyAccounts extends GatewayEnergy {
  /** Reads counters from now on. */
  start(): void;
  /** These are all from now on. */
  change(fleet: Fleet): void;
}

export function openEnergy(fleet: Fleet, { runtime, telemetry, now }: Joined): EnergyAccounts {
  const book = createEnergyBook();
  const sinceUnixMs = Date.now();
  let nodes = nodesOf(fleet);
  let feed: ReturnType<typeof createEnergyFeed> | null = null;

  function start(): void {
    if (nodes.length === 0) return;
    feed = createEnergyFeed({
      nodes,
      everyMs: READ_EVERY_MS,
      idleEveryMs: READ_IDLE_EVERY_MS,
      isBusy: (name) => runtime().hasOpenAccounts(placeOf(name).replicaId),
      onReading: (name, reading) => {
        const { replicaId, group } = placeOf(name);
        runtime().metered(replicaId, reading, group);
      },
      onState: telemetry.energyMeter,
      now,
    });
  }

  return {
    start,
    change: (next) => {
      const changed = nodesOf(next);
      if (isDeepStrictEqual(changed, nodes)) return;
      nodes = changed;
      void feed?.close();
      feed = null;
      start();
    },
    reported: (report) => {
      if (report.energy !== undefined) book.ended(report, report, report.energy);
    },
    settled: (settled) => book.settled(settled, settled.more),
    snapshot: () => ({
      sinceUnixMs,
      rows: book.rows(),
      replicas: runtime().snapshot().replicas.flatMap(({ replicaId, energy }) => (energy === undefined ? [] : [{ replicaId, ...energy }])),
    }),
    close: async () => {
      await feed?.close();
    },
  };
}
