// Where files and batches of this gateway are kept, as its configuration says: joins their store with the way to Redis.
import type { Logger } from 'pino';
import type { BatchStore } from './batch/batch-store.ts';
import { BatchStoreError } from './batch/batch-store.ts';
import { createRedisStore } from './batch/redis-store.ts';
import { openSqliteStore } from './batch/sqlite-store.ts';
import type { Config } from './config.ts';
import { ConfigError } from './config/config-problems.ts';
import { openRedisScripting } from './store/redis-scripting.ts';
import { RedisUrlError } from './store/redis-url.ts';

/** Throws `ConfigError` where it cannot be opened. A Redis that is not there yet is waited for by who needs it. */
export function openBatchStore({ batch, store }: { readonly batch: NonNullable<Config['batch']>; readonly store: Config['store'] }, { gatewayId, log }: { readonly gatewayId: string; readonly log: Pick<Logger, 'warn'> }): BatchStore {
  try {
    if (batch.store.kind === 'sqlite') return openSqliteStore(batch.store.path);
    if (store === null) throw new ConfigError(["batch.store: got 'redis', but there is no `store`"]);
    const redis = openRedisScripting({ target: store.target, connectionName: `paceline-batches-${gatewayId}`, what: 'files and batches', log });
    return createRedisStore({ redis, fleet: store.fleet });
  } catch (error) {
    if (error instanceof BatchStoreError) throw new ConfigError([`batch.store: ${error.message}`]);
    if (error instanceof RedisUrlError) throw new ConfigError([`store: ${error.message}`]);
    throw error;
  }
}
