// OpenAI's `service_tier`: which class it asks for, and what of it is told in the answer.
import type { SloConfig, TenantConfig } from '../config.ts';
import type { Endpoint } from './endpoints.ts';

/** One that no class is configured for means nothing here and is left to the server. */
export const KNOWN_TIERS: ReadonlySet<string> = new Set(['auto', 'default', 'flex', 'scale', 'priority', 'fast', 'ultrafast']);

/** Where OpenAI's answers have it. */
const TELLING: ReadonlySet<Endpoint> = new Set<Endpoint>(['chat', 'completions', 'responses']);

/** The class of a tier, the tenant's own first; `undefined` where there is none. */
export function classOfTier(tier: string, tenant: TenantConfig, slo: SloConfig): string | undefined {
  return own(tenant.tiers, tier) ?? own(slo.tiers, tier);
}

/**
 * What the answer says was used; `null` where the request named no tier that means something here, and its answer goes as it came.
 * OpenAI calls `fast` by its older name, and never answers `auto`: what it became is the standard one.
 */
export function tierTold(endpoint: Endpoint, tier: string | null, tenant: TenantConfig, slo: SloConfig): string | null {
  if (tier === null || !TELLING.has(endpoint) || classOfTier(tier, tenant, slo) === undefined) return null;
  if (tier === 'fast') return 'priority';
  return tier === 'auto' ? 'default' : tier;
}

/** The same for a request that got that class instead, for its tenant's energy is spent. */
export function tierToldOfClass(sloClass: string, tenant: TenantConfig, slo: SloConfig): string {
  return classOfTier('flex', tenant, slo) === sloClass ? 'flex' : 'default';
}

function own(record: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}
