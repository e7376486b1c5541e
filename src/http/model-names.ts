// Names of models as clients use them: those of the replicas, aliases, and what stands in for a model that nobody serves.
import type { ModelsConfig, TenantConfig } from '../config.ts';

export interface ModelNames {
  /** What a tenant may ask for, and sees. */
  listed(tenant: TenantConfig): readonly string[];
  /** The model behind a name; `null` where the tenant may not use it. What nobody serves is its own. */
  resolve(tenant: TenantConfig, name: string): string | null;
  /** A name of the only model that a tenant may use; `null` where it may use several, or none. */
  sole(tenant: TenantConfig): string | null;
  /** Models to try, in order, where no replica of this one is up. */
  fallbacks(tenant: TenantConfig, model: string): readonly string[];
}

/** `served`: the models of the replicas. */
export function createModelNames(served: readonly string[], { aliases, fallbacks }: ModelsConfig): ModelNames {
  const names = [...served, ...aliases.keys()];
  const modelOf = (name: string): string => aliases.get(name) ?? name;
  return {
    listed: (tenant) => names.filter((name) => mayUse(tenant, name)),
    // An alias is a name of its own: whoever may use it may use what is behind it, by that name; not the other way round.
    resolve: (tenant, name) => (mayUse(tenant, name) ? modelOf(name) : null),
    sole(tenant) {
      const allowed = names.filter((name) => mayUse(tenant, name));
      return new Set(allowed.map(modelOf)).size === 1 ? (allowed[0] as string) : null;
    },
    fallbacks: (tenant, model) => (fallbacks.get(model) ?? []).filter((other) => names.some((name) => modelOf(name) === other && mayUse(tenant, name))),
  };
}

/** What a tenant may not use is to it as if it were not there. */
function mayUse({ models }: TenantConfig, name: string): boolean {
  return models === null || models.has(name);
}
