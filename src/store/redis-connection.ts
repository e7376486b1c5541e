// How Redis is reached, for all that the gateway keeps there: one server, Sentinels that know it, or a Cluster; with or
// without TLS. The one place that opens connections to it.
import { Cluster, Redis } from 'ioredis';
import type { RedisTarget } from './redis-target.ts';
import { parseRedisUrl } from './redis-url.ts';

/** Both speak all commands; a Cluster finds the server of each key. */
export type RedisConnection = Redis | Cluster;

export interface RedisConnectionOptions {
  readonly connectionName: string;
  /** Told the failures so far by being called; `null` ends the attempts. */
  readonly retryStrategy: () => number | null;
  /** What a command may take; without it whoever asks keeps the time. */
  readonly commandMsMax?: number;
}

const CONNECT_MS_MAX = 1_000;
/** What a connection that we gave up gets for closing itself before it is cut: a frozen peer never answers a FIN. */
const DISCONNECT_MS_MAX = 20;
/** Of a Cluster that moves its slots; more than that is no state in which to ask it anything. */
const REDIRECTIONS_MAX = 4;

/** Of one server, as most have it. */
export function singleRedis(url: string, ca: string | null = null): RedisTarget {
  return { kind: 'single', url, ca };
}

/**
 * Nothing is kept for later and nothing is sent twice: what could not be said now is out of date then.
 * Throws `RedisUrlError`. Listeners to its errors may log no error object: ioredis puts commands with their arguments, the password's too, on it.
 */
export function openRedis(target: RedisTarget, { connectionName, retryStrategy, commandMsMax }: RedisConnectionOptions): RedisConnection {
  const common = {
    connectionName,
    // RESP2 needs no HELLO, which old servers and proxies do not know, and its answers are flat.
    protocol: 2 as const,
    disableClientInfo: true,
    // A server that is still loading says so to every command, which is as good as being lost.
    enableReadyCheck: false,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    ...(commandMsMax === undefined ? {} : { commandTimeout: commandMsMax }),
    connectTimeout: CONNECT_MS_MAX,
    disconnectTimeout: DISCONNECT_MS_MAX,
  };
  const ca = target.ca === null ? {} : { ca: target.ca };
  switch (target.kind) {
    case 'single': {
      const { host, port, tls, username, password } = parseRedisUrl(target.url);
      return new Redis({ ...common, ...credentials({ username, password }), host, port, ...(tls ? { tls: ca } : {}), retryStrategy });
    }
    case 'sentinel': {
      const tls = target.tls ? { tls: ca, sentinelTLS: ca, enableTLSForSentinelMode: true } : {};
      const sentinelPassword = target.sentinelPassword === null ? {} : { sentinelPassword: target.sentinelPassword };
      return new Redis({ ...common, ...credentials(target), ...tls, ...sentinelPassword, sentinels: target.nodes.map((node) => ({ ...node })), name: target.name, retryStrategy, sentinelRetryStrategy: retryStrategy, sentinelCommandTimeout: CONNECT_MS_MAX });
    }
    case 'cluster': {
      const options = {
        // The servers of a cluster are reached as themselves; ours is the retrying of the whole.
        redisOptions: { ...common, ...credentials(target), ...(target.tls ? { tls: ca } : {}) },
        clusterRetryStrategy: retryStrategy,
        enableOfflineQueue: false,
        enableReadyCheck: false,
        maxRedirections: REDIRECTIONS_MAX,
        slotsRefreshTimeout: CONNECT_MS_MAX,
        // Names in certificates are of hosts.
        ...(target.tls ? { dnsLookup: (address: string, callback: (error: Error | null, found: string) => void) => callback(null, address) } : {}),
      };
      return new Cluster(target.nodes.map((node) => ({ ...node })), options);
    }
    default:
      throw new Error(`no such kind of Redis: ${JSON.stringify(target satisfies never)}`);
  }
}

/** For people: never holds a password. */
export function shownRedis(target: RedisTarget): string {
  if (target.kind === 'single') return parseRedisUrl(target.url).shown;
  const nodes = target.nodes.map(({ host, port }) => `${host}:${port}`).join(',');
  return target.kind === 'sentinel' ? `sentinels ${nodes} of ${target.name}` : `cluster ${nodes}`;
}

/** Where several addresses were tried, the error that sums them up has no message of its own. */
export function messageOf(error: NodeJS.ErrnoException): string {
  return error.message === '' ? (error.code ?? error.name) : error.message;
}

function credentials({ username, password }: { readonly username: string | null; readonly password: string | null }): { readonly username?: string; readonly password?: string } {
  return { ...(username === null ? {} : { username }), ...(password === null ? {} : { password }) };
}
