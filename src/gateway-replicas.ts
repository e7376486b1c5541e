// The replicas of a gateway: what is held of each (a client, probes, a breaker), what the scheduler believes of it, and how the
// fleet changes while it runs: who comes is probed first, who goes gets nothing more and is let go when nothing is on it.
import { isDeepStrictEqual } from 'node:util';
import type { DeviceFacts } from './agent/device-facts.ts';
import type { Config, ReplicaConfig } from './config.ts';
import { isOneGroup } from './config.ts';
import { ConfigError } from './config/config-problems.ts';
import type { ReplicaId } from './core/job.ts';
import { createLearners } from './gateway-learning.ts';
import { configurationWith } from './frontier/configurations.ts';
import { createPerformanceModel, type PerformanceModel } from './frontier/performance-model.ts';
import type { Profile, SleepCosts } from './frontier/profile.ts';
import { loadProfile, ProfileFileError, sleepProblems } from './profile-file.ts';
import type { Runtime } from './runtime.ts';
import type { ReplicaSpec } from './scheduler/replica.ts';
import type { Telemetry } from './telemetry/events.ts';
import { createReplicaClient, type ReplicaClient } from './upstream/replica-client.ts';
import { createReplicaMonitor, type ReplicaMonitor } from './upstream/replica-monitor.ts';
import { createReplicaRest, type ReplicaRest } from './upstream/replica-rest.ts';
import { createReplicaWatch, type ReplicaWatch } from './upstream/replica-watch.ts';

export interface OpenReplica {
  readonly config: ReplicaConfig;
  readonly belief: PerformanceModel;
  readonly client: ReplicaClient;
  readonly monitor: ReplicaMonitor;
  readonly watch: ReplicaWatch;
  /** `null`: it never sleeps. */
  readonly rest: ReplicaRest | null;
}

export interface GatewayReplicas {
  /** One that the scheduler has named; another one is our fault. */
  of(replicaId: ReplicaId): OpenReplica;
  find(replicaId: string): OpenReplica | undefined;
  /** All that are here, those that are leaving included. */
  configs(): readonly ReplicaConfig[];
  /** What the scheduler was told that it can believe of each. */
  beliefs(): ReadonlyMap<ReplicaId, PerformanceModel>;
  /** Throws `ConfigError` where the next configuration cannot be taken over; what comes back does it, and cannot fail. `beliefs`: of the replicas that there are then. */
  planned(next: Config): { readonly change: () => void; readonly beliefs: ReadonlyMap<ReplicaId, PerformanceModel> };
  /** The scheduler knows it no more. */
  left(replicaId: ReplicaId): void;
  /** Nobody is probed any more. */
  unwatch(): void;
  close(): Promise<void>;
}

interface Joined {
  readonly now: () => number;
  readonly runtime: Runtime;
  readonly telemetry: Telemetry;
}

/** `specs`: of the replicas of `config`, in its order. */
export function openReplicas(config: Config, specs: readonly ReplicaSpec[], joined: Joined): GatewayReplicas {
  const open = new Map(config.replicas.map((replica, index) => [replica.id, openReplica(replica, specs[index] as ReplicaSpec, config, joined)]));
  const leaving = new Set<ReplicaId>();
  const going = new Set<Promise<void>>();

  function problemsOf(next: Config): string[] {
    return next.replicas.flatMap(({ id, ...keys }) => {
      const known = open.get(id);
      if (known === undefined || isDeepStrictEqual({ id, ...keys }, known.config)) return [];
      return leaving.has(id)
        ? [`replicas: '${id}' is on its way out still, and what stands there now is another one; try again when it is gone, or give the new one another id`]
        : [`replicas: '${id}' has changed; replicas are added and taken out while the gateway runs, what one is is taken over by a restart only. Give it another id`];
    });
  }

  return {
    of(replicaId) {
      const replica = open.get(replicaId);
      if (replica === undefined) throw new Error(`the scheduler named the replica ${replicaId}, which is not configured`);
      return replica;
    },
    find: (replicaId) => open.get(replicaId as ReplicaId),
    configs: () => [...open.values()].map(({ config: own }) => own),
    beliefs: () => new Map([...open].map(([id, { belief }]) => [id, belief])),
    planned(next) {
      const problems = problemsOf(next);
      if (problems.length > 0) throw new ConfigError(problems);
      const specs = specsOf({ ...next, replicas: next.replicas.filter(({ id }) => !open.has(id)) });
      const change = (): void => {
        for (const replica of next.replicas) {
          const known = open.get(replica.id);
          const spec = specs.find(({ replicaId }) => replicaId === replica.id);
          if (spec !== undefined) {
            joined.runtime.replicaJoined(spec);
            open.set(replica.id, openReplica(replica, spec, next, joined));
          } else if (known !== undefined && leaving.delete(replica.id)) joined.runtime.replicaStays(replica.id);
        }
        for (const id of open.keys()) {
          if (next.replicas.some((replica) => replica.id === id) || leaving.has(id)) continue;
          leaving.add(id);
          joined.runtime.replicaLeaving(id);
        }
      };
      return { change, beliefs: new Map([...[...open].map(([id, { belief }]) => [id, belief] as const), ...specs.map(({ replicaId, belief }) => [replicaId, belief] as const)]) };
    },
    left(replicaId) {
      const replica = open.get(replicaId);
      if (replica === undefined) return;
      open.delete(replicaId);
      leaving.delete(replicaId);
      replica.monitor.close();
      replica.watch.close();
      const gone = closeReplica(replica);
      going.add(gone);
      void gone.finally(() => going.delete(gone));
    },
    unwatch() {
      for (const { monitor, watch } of open.values()) {
        monitor.close();
        watch.close();
      }
    },
    close: async () => {
      await Promise.all([...going, ...[...open.values()].map(closeReplica)]);
    },
  };
}

/** What the scheduler is told of them. Profiles are read once for all replicas that share one. Throws `ConfigError`. */
export function specsOf({ replicas, planner: { policy } }: Pick<Config, 'replicas' | 'planner'>, facts: ReadonlyMap<ReplicaId, DeviceFacts> = new Map()): ReplicaSpec[] {
  const learnerOf = createLearners(facts);
  const models = new Map<string, PerformanceModel>();
  return replicas.map((replica) => {
    const learned = learnerOf(replica);
    const key = JSON.stringify([replica.profilePath, Object.entries(replica.settings).toSorted()]);
    const belief = learned?.model ?? models.get(key) ?? createPerformanceModel(profileOf(replica));
    if (learned === null) models.set(key, belief);
    if (policy.kind === 'static' && !belief.points.some((point) => point.id === policy.pointId)) {
      throw new ConfigError([`planner.policy: no operating point '${policy.pointId}' in ${learned === null ? replica.profilePath : 'what is learnt'}; it has: ${belief.points.map((point) => point.id).join(', ')}`]);
    }
    return { replicaId: replica.id, models: [...replica.models.keys()], belief, concurrencyMax: replica.concurrencyMax ?? belief.profile.serving.maxSequences, disaggregated: !isOneGroup(replica.devices), ...sleepCosts(replica, belief.profile), ...(learned === null ? {} : { learned }) };
  });
}

/** What is wrong with a profile is said with the replica that names it. One server is one configuration: between others its points cannot be moved. */
function profileOf({ id, profilePath, settings }: ReplicaConfig): Profile {
  try {
    const chosen = configurationWith(loadProfile(profilePath), settings);
    if (chosen.kind === 'one') return chosen.profile;
    throw new ConfigError([`settings of replica '${id}': ${profilePath} ${chosen.problem}`]);
  } catch (error) {
    throw error instanceof ProfileFileError ? new ConfigError(error.problems.map((problem) => `profile of replica '${id}': ${problem}`)) : error;
  }
}

/** Throws `ConfigError` where neither the configuration nor the profile says what sleeping costs, or they cannot be right. */
function sleepCosts({ id, sleep }: ReplicaConfig, profile: Profile): { readonly sleep?: SleepCosts } {
  if (sleep === null) return {};
  const { powerW, sleepMs, wakeMs, wakeEnergyJ } = { ...profile.sleep, ...sleep };
  if (powerW === undefined || sleepMs === undefined || wakeMs === undefined) {
    const missing = Object.entries({ powerW, sleepMs, wakeMs }).flatMap(([key, value]) => (value === undefined ? [key] : []));
    throw new ConfigError([`sleep of replica '${id}': ${missing.join(', ')} missing; ${profile.name} does not say what sleeping costs either (docs/knobs.md tells how to measure it)`]);
  }
  const costs: SleepCosts = { powerW, sleepMs, wakeMs, ...(wakeEnergyJ === undefined ? {} : { wakeEnergyJ }) };
  const problems = sleepProblems({ ...profile, sleep: costs });
  if (problems.length > 0) throw new ConfigError(problems.map((problem) => `replica '${id}': ${problem}`));
  return { sleep: costs };
}

/** Nobody is left asleep who was put to sleep here. */
async function closeReplica({ client, rest }: OpenReplica): Promise<void> {
  await rest?.close();
  await client.close();
}

function openReplica(replica: ReplicaConfig, { belief, sleep }: ReplicaSpec, config: Config, { now, runtime, telemetry }: Joined): OpenReplica {
  const { connectMs, firstByteMs, stallMs } = config.timeouts;
  const { silentMs, ...breaker } = config.health.breaker;
  const watch = createReplicaWatch({
    breaker,
    now,
    onState: (state, why) => {
      telemetry.replicaHealth(replica.id, state, why);
      runtime.replicaHealth(replica.id, state);
    },
    onBreaker: (state, why) => {
      telemetry.replicaBreaker(replica.id, state, why);
      runtime.replicaBreaker(replica.id, state);
    },
    onSaturated: (retryAfterMs) => {
      telemetry.replicaSaturated(replica.id);
      runtime.replicaSaturated(replica.id, retryAfterMs);
    },
  });
  const client = createReplicaClient({ origin: replica.origin, apiKey: replica.apiKey, connectMs, firstByteMs, stallMs, silentMs, now, onTrouble: () => monitor.suspect(), onEvidence: watch.told });
  const rest =
    sleep === undefined
      ? null
      : createReplicaRest({
          client,
          ...sleep,
          timeoutMs: config.health.timeoutMs,
          onState: (state, why) => {
            telemetry.replicaRest(replica.id, state, why);
            runtime.replicaRest(replica.id, state);
          },
        });
  const monitor = createReplicaMonitor({ client, ...config.health, onHealth: rest === null ? watch.probed : lookingFirst(rest, watch.probed), onLoad: (load) => runtime.replicaLoad({ replicaId: replica.id, ...load }) });
  return { config: replica, belief, client, monitor, watch, rest };
}

/** Before it is up for anybody it is asked whether it sleeps: a server that does would keep what it is sent. */
function lookingFirst(rest: ReplicaRest, probed: ReplicaWatch['probed']): ReplicaWatch['probed'] {
  let changes = 0;
  async function up(why: string, change: number): Promise<void> {
    await rest.look();
    if (change === changes) probed('up', why);
  }
  return (health, why) => {
    changes += 1;
    if (health === 'down') probed(health, why);
    else void up(why, changes);
  };
}
