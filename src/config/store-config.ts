// The `store` of the configuration: which Redis, and what must fit together there.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { StoreConfig } from '../config.ts';
import type { RedisNode, RedisTarget } from '../store/redis-target.ts';
import type { Path, Places } from './config-problems.ts';
import { ConfigError } from './config-problems.ts';
import type { RawConfig } from './config-schema.ts';

type RawStore = NonNullable<RawConfig['store']>;

/** Throws `ConfigError` where the file of the CA cannot be read. */
export function storeOf(raw: RawStore, { directory, environment }: { readonly directory: string; readonly environment: NodeJS.ProcessEnv }): StoreConfig {
  const { fleet, timeoutMs, whenLost, gatewaysExpected } = raw;
  return {
    target: targetOf(raw, raw.caFile === undefined ? null : pemIn(resolve(directory, raw.caFile)), environment),
    fleet,
    timeoutMs,
    whenLost: typeof whenLost === 'string' ? { requests: whenLost, tokens: whenLost, concurrency: whenLost, energy: whenLost } : whenLost,
    gatewaysExpected,
  };
}

export function storeProblems({ store, tenants, batch }: RawConfig, places: Places, environment: NodeJS.ProcessEnv): string[] {
  const problems: string[] = [];
  if (store === undefined) {
    if (batch?.store === 'redis') problems.push(places.at(['batch', 'store'], "got 'redis', but there is no `store` that says which; want one, or a file: { sqlite: PATH }"));
    tenants.forEach((tenant, index) => {
      // Whoever writes this thinks of several gateways; without a store there is but this one.
      if (tenant.limits.scope === 'fleet') return;
      problems.push(places.at(['tenants', index, 'limits', 'scope'], "got 'gateway', but without a `store` every limit is of this gateway alone; leave it out"));
    });
    return problems;
  }
  const wantInEnvironment = (path: Path, variable: string | undefined): void => {
    if (variable !== undefined && !environment[variable]) problems.push(places.at(path, `the environment has no ${variable}`));
  };
  wantInEnvironment(['store', 'redisUrlEnv'], store.redisUrlEnv);
  wantInEnvironment(['store', 'usernameEnv'], store.usernameEnv);
  wantInEnvironment(['store', 'passwordEnv'], store.passwordEnv);
  wantInEnvironment(['store', 'sentinel', 'passwordEnv'], store.sentinel?.passwordEnv);
  const nodes = { sentinel: store.sentinel?.nodes ?? [], cluster: store.cluster?.nodes ?? [] };
  for (const [key, list] of Object.entries(nodes)) {
    list.forEach((node, position) => {
      const { port } = nodeOf(node);
      if (port < 1 || port > 65_535) problems.push(places.at(['store', key, 'nodes', position], `got port ${port}, want 1 to 65535`));
    });
  }
  const url = store.redisUrl ?? (store.redisUrlEnv === undefined ? undefined : environment[store.redisUrlEnv]);
  const byUrl = store.redisUrl !== undefined || store.redisUrlEnv !== undefined;
  if (byUrl) {
    for (const key of ['usernameEnv', 'passwordEnv'] as const) if (store[key] !== undefined) problems.push(places.atKey(['store', key], 'with a URL they stand inside: redis://user:password@host; want redisUrlEnv'));
    if (store.tls) problems.push(places.atKey(['store', 'tls'], 'with a URL it is said by rediss://'));
  }
  if (store.caFile !== undefined && (byUrl ? url?.startsWith('rediss:') === false : !store.tls)) problems.push(places.atKey(['store', 'caFile'], `only with TLS: ${byUrl ? 'a URL that begins with rediss://' : 'tls: true'}`));
  return problems;
}

function targetOf(raw: RawStore, ca: string | null, environment: NodeJS.ProcessEnv): RedisTarget {
  const secret = (variable: string | undefined): string | null => (variable === undefined ? null : (environment[variable] ?? null));
  const secured = { ca, tls: raw.tls, username: secret(raw.usernameEnv), password: secret(raw.passwordEnv) };
  if (raw.sentinel !== undefined) return { kind: 'sentinel', ...secured, name: raw.sentinel.name, nodes: raw.sentinel.nodes.map(nodeOf), sentinelPassword: secret(raw.sentinel.passwordEnv) };
  if (raw.cluster !== undefined) return { kind: 'cluster', ...secured, nodes: raw.cluster.nodes.map(nodeOf) };
  return { kind: 'single', ca, url: raw.redisUrl ?? secret(raw.redisUrlEnv) ?? '' };
}

function nodeOf(text: string): RedisNode {
  const at = text.lastIndexOf(':');
  return { host: text.slice(0, at).replace(/^\[(.*)\]$/, '$1'), port: Number(text.slice(at + 1)) };
}

function pemIn(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError([`store.caFile: ${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`]);
  }
}
