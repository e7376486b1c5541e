// A key for each tenant that lines of its batches come with: made for this process, known to nobody else, never written anywhere.
import { createHash, randomBytes } from 'node:crypto';

export interface LineCredentials<Tenant> {
  /** As the front door looks keys up. */
  readonly tenantsByKeySha256: ReadonlyMap<string, Tenant>;
  /** `null`: there is no such tenant any more. */
  authorization(tenant: string): string | null;
}

export function createLineCredentials<Tenant extends { readonly name: string }>(tenants: Iterable<Tenant>): LineCredentials<Tenant> {
  const byName = new Map<string, { readonly key: string; readonly tenant: Tenant }>();
  for (const tenant of tenants) if (!byName.has(tenant.name)) byName.set(tenant.name, { key: randomBytes(32).toString('base64url'), tenant });
  return {
    tenantsByKeySha256: new Map([...byName.values()].map(({ key, tenant }) => [createHash('sha256').update(key).digest('hex'), tenant])),
    authorization: (tenant) => {
      const key = byName.get(tenant)?.key;
      return key === undefined ? null : `Bearer ${key}`;
    },
  };
}
