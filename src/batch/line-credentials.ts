// A key for each tenant that lines of its batches come with: made for this process, known to nobody else, never written anywhere.
import { createHash, randomBytes } from 'node:crypto';

export interface LineCredentials<Tenant> {
  /** Of these tenants, which are those that there are from now on, as the front door looks keys up. A tenant keeps its key. */
  tenantsByKeySha256(tenants: Iterable<Tenant>): ReadonlyMap<string, Tenant>;
  /** What is known of a tenant; `null`: there is none of this name any more. */
  of(tenant: string): { readonly authorization: string; readonly tenant: Tenant } | null;
}

export function createLineCredentials<Tenant extends { readonly name: string }>(): LineCredentials<Tenant> {
  let byName = new Map<string, { readonly key: string; readonly tenant: Tenant }>();
  return {
    tenantsByKeySha256(tenants) {
      const next = new Map<string, { readonly key: string; readonly tenant: Tenant }>();
      for (const tenant of tenants) if (!next.has(tenant.name)) next.set(tenant.name, { key: byName.get(tenant.name)?.key ?? randomBytes(32).toString('base64url'), tenant });
      byName = next;
      return new Map([...next.values()].map(({ key, tenant }) => [createHash('sha256').update(key).digest('hex'), tenant]));
    },
    of(name) {
      const known = byName.get(name);
      return known === undefined ? null : { authorization: `Bearer ${known.key}`, tenant: known.tenant };
    },
  };
}
