// A key for each tenant that lines of its batches come with: made for this process, known to nobody else, never written anywhere.
import { createHash, randomBytes } from 'node:crypto';

/** Who may come, as the front door looks keys up. */
interface Access<Tenant> {
  readonly anonymous: Tenant | null;
  readonly tenantsByKeySha256: ReadonlyMap<string, Tenant>;
}

export interface LineCredentials<Tenant> {
  /** The same access, and a key more for each of its tenants. */
  added<Known extends Access<Tenant>>(access: Known): Known;
  /** `null`: there is no such tenant any more. */
  tenant(name: string): { readonly tenant: Tenant; readonly authorization: string } | null;
}

/** `current`: what access there is now; a reload may change it. */
export function createLineCredentials<Tenant extends { readonly name: string }>(current: () => Access<Tenant>): LineCredentials<Tenant> {
  const keys = new Map<string, string>();
  let latest: { readonly of: Access<Tenant>; readonly with: Access<Tenant>; readonly byName: ReadonlyMap<string, Tenant> } | null = null;

  function lookedUp(access: Access<Tenant>): NonNullable<typeof latest> {
    if (latest !== null && latest.of === access) return latest;
    const tenants = access.anonymous === null ? access.tenantsByKeySha256.values() : [access.anonymous];
    const byName = new Map([...tenants].map((tenant) => [tenant.name, tenant]));
    const added = [...byName.values()].map((tenant) => [createHash('sha256').update(keyOf(tenant.name)).digest('hex'), tenant] as const);
    latest = { of: access, with: { ...access, tenantsByKeySha256: new Map([...access.tenantsByKeySha256, ...added]) }, byName };
    return latest;
  }

  function keyOf(name: string): string {
    let key = keys.get(name);
    if (key === undefined) keys.set(name, (key = randomBytes(32).toString('base64url')));
    return key;
  }

  return {
    added: <Known extends Access<Tenant>>(access: Known) => lookedUp(access).with as Known,
    tenant: (name) => {
      const tenant = lookedUp(current()).byName.get(name);
      return tenant === undefined ? null : { tenant, authorization: `Bearer ${keyOf(name)}` };
    },
  };
}
