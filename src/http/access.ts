// Who comes: one of the configured tenants, by its key, or anybody.
import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { TenantConfig } from '../config.ts';

/** Who may come: everybody as one tenant, or who has a key. */
export interface Access {
  readonly anonymous: TenantConfig | null;
  readonly tenantsByKeySha256: ReadonlyMap<string, TenantConfig>;
  readonly keyExpiresAtUnixMs: ReadonlyMap<string, number>;
}

export type Identity = { readonly kind: 'known'; readonly tenant: TenantConfig } | { readonly kind: 'unauthorized'; readonly message: string };

/**
 * By the hash of the key, which comes as a bearer token or, from Anthropic's SDKs, as `x-api-key`; without configured tenants
 * whoever comes is let in and no key is looked at.
 */
export function tenantOf(headers: IncomingHttpHeaders, { anonymous, tenantsByKeySha256, keyExpiresAtUnixMs }: Access): Identity {
  if (anonymous !== null) return { kind: 'known', tenant: anonymous };
  const apiKey = /^Bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1] ?? headers['x-api-key'];
  if (typeof apiKey !== 'string') return { kind: 'unauthorized', message: "You didn't provide an API key; send it as Authorization: Bearer YOUR_KEY" };
  const hash = createHash('sha256').update(apiKey).digest('hex');
  const tenant = tenantsByKeySha256.get(hash);
  const expired = (keyExpiresAtUnixMs.get(hash) ?? Number.POSITIVE_INFINITY) <= Date.now();
  return tenant === undefined || expired ? { kind: 'unauthorized', message: 'Incorrect API key provided' } : { kind: 'known', tenant };
}
