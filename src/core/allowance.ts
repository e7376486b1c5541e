// What is in force of a tenant's limits: all of it, or, while the store is lost, what its config says for each of them.
import type { Allowance, LimitKind, LimitedTenant, LostWay } from './tenant-limits.ts';
import { LIMIT_KINDS } from './tenant-limits.ts';

export type LostWays = Readonly<Record<LimitKind, LostWay>>;

export function configured({ limits }: LimitedTenant): Allowance {
  return { requests: limits.requestsPerMinute, tokens: limits.tokensPerMinute, concurrency: limits.concurrencyMax };
}

/** `null`: there is none. */
export function limitOf({ limits, energyBudget }: LimitedTenant, kind: LimitKind): number | null {
  return { requests: limits.requestsPerMinute, tokens: limits.tokensPerMinute, concurrency: limits.concurrencyMax, energy: energyBudget?.joulesPerDay ?? null }[kind];
}

/** One gateway's part while the store is lost, of so many gateways. */
export function shareOf(tenant: LimitedTenant, whenLost: LostWays, gateways: number): Allowance {
  const all = configured(tenant);
  const share = (kind: 'requests' | 'tokens' | 'concurrency'): number | null => {
    const limit = all[kind];
    if (limit === null || whenLost[kind] === 'open') return null;
    // One at least: a gateway that lets nothing through is what 'closed' is for.
    return whenLost[kind] === 'closed' ? 0 : Math.max(1, Math.floor(limit / gateways));
  };
  return { requests: share('requests'), tokens: share('tokens'), concurrency: share('concurrency') };
}

export function isOver({ energyBudget }: LimitedTenant, spentJ: number): boolean {
  return energyBudget !== null && spentJ >= energyBudget.joulesPerDay;
}

/** By what is admitted while the store is lost: what is closed admits nothing. */
export function lostScope(tenant: LimitedTenant, whenLost: LostWays): LostWay {
  return LIMIT_KINDS.some((kind) => limitOf(tenant, kind) !== null && whenLost[kind] === 'local-share') ? 'local-share' : 'open';
}

/** For people: the way of all its limits, where it is one. */
export function lostScopes(tenant: LimitedTenant, whenLost: LostWays): LostWay | 'mixed' {
  const [first = 'open', ...more] = new Set(LIMIT_KINDS.filter((kind) => limitOf(tenant, kind) !== null).map((kind) => whenLost[kind]));
  return more.length === 0 ? first : 'mixed';
}
