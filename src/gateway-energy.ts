// The accounts of energy, as a part of the gateway: the counters of the nodes' agents go to the scheduler, which apportions
// them, and what comes of it is added up by tenant, model and class.
import { isDeepStrictEqual } from 'node:util';
import { type AccountKeeper, type AccountKeeperOptions, createAccountKeeper, type Totals } from './accounts/account-keeper.ts';
import { AccountsFileError, openAccountsFile } from './accounts/accounts-file.ts';
import type { CounterReading } from './agent/energy-counters.ts';
import { createEnergyFeed } from './agent/energy-feed.ts';
import type { Config } from './config.ts';
import { ConfigError } from './config/config-problems.ts';
import { createEnergyBook, type EnergyRow } from './core/energy-book.ts';
import type { ReplicaEnergy } from './core/energy-ledger.ts';
import type { ReplicaId } from './core/job.ts';
import { type Fleet, nodesOf, placeOf } from './gateway-clocks.ts';
import type { Runtime, Settled } from './runtime.ts';
import type { JobReport } from './scheduler/events.ts';
import type { DeviceReading } from './telemetry/energy-metrics.ts';

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
  /** Counters of the replicas' devices as they were last read. */
  devices(): readonly DeviceReading[];
  close(): Promise<void>;
}

interface Joined {
  /** It is made before there is one. */
  readonly runtime: () => Pick<Runtime, 'snapshot' | 'metered' | 'hasOpenAccounts'>;
  readonly telemetry: { energyMeter(group: string, why: string | null): void; energyFile(why: string | null): void };
  readonly now: () => number;
}

/** While nothing is under way: so long a stretch of idling is told in one. */
const READ_IDLE_EVERY_MS = 5_000;
/** While the file cannot be written; a fleet does not lose more in a disk's bad hour. */
const GONE_MAX = 1_000;

export interface EnergyAccounts extends GatewayEnergy {
  /** Reads counters from now on. */
  start(): void;
  /** These are all from now on. */
  change(fleet: Fleet): void;
  /** It is gone, and its accounts ended so. */
  left(replicaId: ReplicaId, accounts: ReplicaEnergy | null): void;
}

/** Throws `ConfigError` where the file of accounts cannot be used. */
export function openEnergy(config: Fleet & Pick<Config, 'accounts'>, { runtime, telemetry, now }: Joined): EnergyAccounts {
  const book = createEnergyBook();
  const sinceUnixMs = Date.now();
  const { accounts } = config;
  let nodes = nodesOf(config);
  let feed: ReturnType<typeof createEnergyFeed> | null = null;
  let devices = new Map<string, readonly DeviceReading[]>();
  /** Those that are gone, until what they took is written down. */
  let gone: EnergySnapshot['replicas'] = [];
  const keeper = openKeeper(accounts, { read: () => totalsOf(snapshot(), gone), onState: telemetry.energyFile });

  function snapshot(): EnergySnapshot {
    return {
      sinceUnixMs,
      rows: book.rows(),
      replicas: runtime().snapshot().replicas.flatMap(({ replicaId, energy }) => (energy === undefined ? [] : [{ replicaId, ...energy }])),
    };
  }

  function start(): void {
    if (nodes.length === 0 || accounts.meter === 'off') return;
    feed = createEnergyFeed({
      nodes,
      everyMs: accounts.readEveryMs,
      idleEveryMs: Math.max(READ_IDLE_EVERY_MS, accounts.readEveryMs),
      isBusy: (name) => runtime().hasOpenAccounts(placeOf(name).replicaId),
      onReading: (name, reading) => {
        const { replicaId, group } = placeOf(name);
        runtime().metered(replicaId, reading, group);
      },
      onCounters: (node, counters) => void devices.set(node, readingsOf(node, counters, nodes)),
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
      devices = new Map();
      void feed?.close();
      feed = null;
      start();
    },
    left: (replicaId, accounts) => {
      if (keeper === null || accounts === null) return;
      gone = [...gone, { replicaId, ...accounts }].slice(-GONE_MAX);
      if (!keeper.flush()) return;
      for (const one of gone) keeper.forget(one.replicaId);
      gone = [];
    },
    reported: (report) => {
      if (report.energy !== undefined) book.ended(report, report, report.energy);
    },
    settled: (settled) => book.settled(settled, settled.more),
    snapshot,
    devices: () => [...devices.values()].flat(),
    close: async () => {
      await feed?.close();
      keeper?.close();
    },
  };
}

function readingsOf(agent: string, counters: ReadonlyMap<string, CounterReading>, nodes: ReturnType<typeof nodesOf>): DeviceReading[] {
  const ours = nodes.find(({ name }) => name === agent)?.groups.flatMap(({ devices }) => devices) ?? [];
  return ours.flatMap((device) => {
    const counter = counters.get(device);
    return counter?.kind === 'read' ? [{ agent, device, energyJ: counter.sample.counterMj / 1_000, powerW: counter.sample.powerW }] : [];
  });
}

function openKeeper({ path, flushEveryMs, retentionDays }: Config['accounts'], { read, onState }: Pick<AccountKeeperOptions, 'read' | 'onState'>): AccountKeeper | null {
  if (path === null) return null;
  try {
    return createAccountKeeper({ file: openAccountsFile(path, { write: true }), read, flushEveryMs, retentionDays, unixNowMs: Date.now, onState });
  } catch (error) {
    if (error instanceof AccountsFileError) throw new ConfigError([`accounts.file: ${error.message}`]);
    throw error;
  }
}

function totalsOf({ rows, replicas: there }: EnergySnapshot, gone: EnergySnapshot['replicas']): Totals {
  const replicas = [...there, ...gone.filter(({ replicaId }) => !there.some((one) => one.replicaId === replicaId))];
  return {
    usage: rows,
    replicas: replicas.map(({ replicaId, idle, othersJ, unapportionedJ, maximumClock }) => ({ replica: replicaId, idleMeteredJ: idle.meteredJ, idleModelledJ: idle.modelledJ, othersJ, unapportionedJ, maximumClockIdleJ: maximumClock.idleJ })),
  };
}
