// The limits of tenants, as a part of the gateway: joined to the store where there is one, and told where there is none.
import type { Logger } from 'pino';
import type { Config, StoreConfig } from './config.ts';
import { ConfigError } from './config/config-problems.ts';
import type { Limiter } from './core/tenant-limits.ts';
import { isLimited } from './core/tenant-limits.ts';
import type { Settled } from './runtime.ts';
import type { JobReport } from './scheduler/events.ts';
import type { FleetLimits, FleetLimitsState } from './store/fleet-limits.ts';
import { createFleetLimits } from './store/fleet-limits.ts';
import { RedisUrlError } from './store/redis-url.ts';
import type { Telemetry } from './telemetry/events.ts';
import type { TenantLimits } from './tenant-limiter.ts';
import { createTenantLimiter } from './tenant-limiter.ts';

export interface GatewayLimits {
  readonly limiter: Limiter;
  /** Settles what a job took. */
  reported(report: JobReport): void;
  /** More, or less, is known of the energy that a job took. */
  settled(settled: Settled): void;
  /** Another configuration is in force: where it has the first limits, and no store, that is said. */
  reloaded(config: Pick<Config, 'tenantsByKeySha256'>): void;
  /** Resolves when the store has answered, or could have. */
  ready(): Promise<void>;
  state(): LimitsState;
  tenants(): readonly TenantLimits[];
  close(): Promise<void>;
}

export interface LimitsState {
  /** Who keeps the limits: all gateways together, this one with what is its part or let through, or this one because it is alone. */
  readonly scope: 'fleet' | 'store lost' | 'this gateway alone';
  readonly store: FleetLimitsState | null;
  readonly tenants: readonly TenantLimits[];
}

/** What a start waits for Redis before it goes on without. */
const READY_MS_MAX = 1_000;

export function openLimits(config: Pick<Config, 'store' | 'anonymous' | 'tenantsByKeySha256'>, { now, telemetry, log, gatewayId }: { readonly now: () => number; readonly telemetry: Telemetry; readonly log: Logger; readonly gatewayId: string }): GatewayLimits {
  const limited = hasLimits(config);
  const fleet = config.store === null ? null : openFleet(config.store, { now, telemetry, log, gatewayId });
  let told = false;
  function tellWhoseTheyAre(now: Pick<Config, 'tenantsByKeySha256'>): void {
    if (told || fleet !== null || !hasLimits(now)) return;
    told = true;
    telemetry.warning('the limits of tenants are of this gateway alone: no store is configured; where several gateways stand beside each other each lets through as much');
  }
  tellWhoseTheyAre(config);
  const limiter = createTenantLimiter({
    fleet,
    timeoutMs: config.store?.timeoutMs ?? 0,
    whenLost: config.store?.whenLost ?? { requests: 'local-share', tokens: 'local-share', concurrency: 'local-share', energy: 'local-share' },
    gatewaysExpected: config.store?.gatewaysExpected ?? 1,
    now,
    unixNowMs: Date.now,
    decided: telemetry.limitDecided,
  });
  return {
    limiter,
    reported: ({ jobId, replicaId, outcome, promptTokens, outputTokens, energyJ }) =>
      // A server that ended well and told no usage has taken what nobody knows.
      limiter.settle(jobId, replicaId === null ? null : { promptTokens, outputTokens: outcome === 'finished' && outputTokens === 0 ? null : outputTokens, energyJ }),
    settled: ({ tenant, more }) => limiter.spentMore(tenant, more.meteredJ + more.modelledJ),
    reloaded: tellWhoseTheyAre,
    ready: async () => {
      if (limited) await fleet?.ready(READY_MS_MAX);
    },
    state: () => {
      const store = fleet?.state() ?? null;
      return { scope: store === null ? 'this gateway alone' : store.kind === 'up' ? 'fleet' : 'store lost', store, tenants: limiter.tenants() };
    },
    tenants: limiter.tenants,
    close: async () => {
      limiter.close();
      await fleet?.close();
    },
  };
}

function hasLimits({ tenantsByKeySha256 }: Pick<Config, 'tenantsByKeySha256'>): boolean {
  return [...tenantsByKeySha256.values()].some(isLimited);
}

function openFleet({ target, fleet }: StoreConfig, { now, telemetry, log, gatewayId }: { readonly now: () => number; readonly telemetry: Telemetry; readonly log: Logger; readonly gatewayId: string }): FleetLimits {
  try {
    return createFleetLimits({ target, fleet, gatewayId, log, now, onState: (state) => telemetry.storeUp(state.kind === 'up') });
  } catch (error) {
    if (error instanceof RedisUrlError) throw new ConfigError([`store: ${error.message}`]);
    throw error;
  }
}
