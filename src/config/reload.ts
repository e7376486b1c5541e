// Another configuration for a running gateway: which of its keys can be taken over and which take a restart, and how the last
// attempt went.
import { isDeepStrictEqual } from 'node:util';
import type { Config } from '../config.ts';
import { ConfigError } from './config-problems.ts';

/** What a request reads when it comes, so that the next one may find another; and who is in the fleet (`gateway-replicas.ts`). */
type LiveKey = 'anonymous' | 'tenantsByKeySha256' | 'keyExpiresAtUnixMs' | 'keysPath' | 'slo' | 'models' | 'passThrough' | 'upstream' | 'replicas' | 'agents' | 'intensities' | 'power';

/** The rest: what is open, connected, loaded or learnt from. */
const BOUND: { readonly [Key in Exclude<keyof Config, LiveKey>]: string } = {
  listen: 'listen',
  admin: 'admin',
  probes: 'probes',
  planner: 'planner',
  store: 'store',
  batch: 'batch',
  limits: 'limits',
  timeouts: 'timeouts',
  health: 'health',
  accounts: 'accounts',
  logging: 'logging',
};

/** The keys that differ between the two and cannot be taken over; none: the new one can. */
export function restartKeys(now: Config, next: Config): readonly string[] {
  return Object.entries(BOUND)
    .filter(([key]) => !isDeepStrictEqual(now[key as keyof Config], next[key as keyof Config]))
    .map(([, name]) => name);
}

export interface ReloadState {
  readonly loadedAt: string;
  /** What is wrong with the newest file; the one before it is in force. `null` when the newest is. */
  readonly refused: { readonly at: string; readonly problems: readonly string[] } | null;
}

export interface Reloads {
  state(): ReloadState;
  /** Runs `take`, which throws `ConfigError` where nothing of it can be taken over; whether it was. */
  take(take: () => void): boolean;
}

export function createReloads({ now, telemetry }: { readonly now: () => Date; readonly telemetry: { configReloaded(problems: readonly string[]): void } }): Reloads {
  let state: ReloadState = { loadedAt: now().toISOString(), refused: null };
  return {
    state: () => state,
    take(take) {
      try {
        take();
        state = { loadedAt: now().toISOString(), refused: null };
        telemetry.configReloaded([]);
        return true;
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        state = { ...state, refused: { at: now().toISOString(), problems: error.problems } };
        telemetry.configReloaded(error.problems);
        return false;
      }
    },
  };
}
