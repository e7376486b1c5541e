// Joins files and batches with the gateway: where they are kept, who works on them, and how their lines come in again as requests.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { createBatchRunner } from './batch/batch-runner.ts';
import type { BatchService } from './batch/batch-service.ts';
import { createBatchService } from './batch/batch-service.ts';
import { createLineClient } from './batch/line-client.ts';
import { createLineCredentials } from './batch/line-credentials.ts';
import { lineHeaders } from './batch/line-headers.ts';
import type { Config, TenantConfig } from './config.ts';
import type { EnergyPrice } from './core/energy-prices.ts';
import { openBatchStore } from './gateway-batch-store.ts';
import type { FleetSnapshot } from './scheduler/scheduler.ts';

export interface GatewayBatches {
  readonly service: BatchService;
  /** A configuration whose front door knows also the keys that lines come with. */
  access(config: Config): Config;
  /** From here on lines are sent, to `serve`. */
  start(serve: (incoming: IncomingMessage, outgoing: ServerResponse) => void): void;
  /** No line is in flight then, and none is sent any more; routes are served still. */
  stop(): Promise<void>;
  close(): Promise<void>;
}

export interface GatewayBatchesOptions {
  readonly gatewayId: string;
  /** As it was reloaded last. */
  readonly live: () => Config;
  readonly snapshot: () => FleetSnapshot;
  /** What energy costs, `fromMs` counted from now; none: nothing is known. */
  readonly prices: () => readonly EnergyPrice[];
  readonly warn: (message: string) => void;
  readonly log: Pick<Logger, 'warn'>;
}

const DAY_MS = 86_400_000;

/** `null` where none are configured. Throws `ConfigError` where their store cannot be opened. */
export function openBatches(config: Config, { gatewayId, live, snapshot, prices, warn, log }: GatewayBatchesOptions): GatewayBatches | null {
  const { batch } = config;
  if (batch === null) return null;
  const store = openBatchStore({ batch, store: config.store }, { gatewayId, log });
  const credentials = createLineCredentials<TenantConfig>(live);
  // Of the day: what is kept is told of after a restart.
  const now = (): number => Date.now();
  let running: { close(): Promise<void>; wake(): void } | null = null;
  const service = createBatchService({
    store,
    workerId: gatewayId,
    bounds: { fileBytesMax: batch.fileBytesMax, filesBytesMax: batch.filesBytesMax, filesMax: batch.filesMax, activeBatchesMax: batch.batchesMax, retentionDays: batch.retentionDays },
    now,
    changed: () => running?.wake(),
    warn,
  });
  return {
    service,
    access: credentials.added,
    start(serve) {
      const client = createLineClient(serve, config.limits.bodyBytesMax);
      const runner = createBatchRunner({
        store,
        client,
        workerId: gatewayId,
        concurrencyMax: batch.concurrencyMax,
        lineLimits: { requestsMax: batch.requestsMax, lineBytesMax: config.limits.bodyBytesMax },
        retentionMs: batch.retentionDays * DAY_MS,
        fleet: () => fleetOf(snapshot()),
        prices,
        mayCome: (name) => live().anonymous !== null || credentials.tenant(name) !== null,
        headers: (name, deadlineMs) => {
          const known = credentials.tenant(name);
          return { ...(known === null ? {} : { authorization: known.authorization }), ...lineHeaders(deadlineMs, known?.tenant.bounds ?? {}) };
        },
        warn,
        now,
      });
      running = {
        wake: runner.wake,
        close: async () => {
          await runner.close();
          client.close();
        },
      };
    },
    stop,
    close: async () => {
      await stop();
      await store.close();
    },
  };

  async function stop(): Promise<void> {
    const left = running;
    running = null;
    await left?.close();
  }
}

/** Servers are not woken for what has hours, unless nobody is awake. */
function fleetOf({ replicas, queued }: FleetSnapshot): { readonly room: number; readonly running: number; readonly queued: number } {
  const there = replicas.filter(({ state, breaker }) => state === 'up' && breaker !== 'open');
  const awake = there.filter(({ rest = 'awake' }) => rest === 'awake');
  const up = awake.length > 0 ? awake : there;
  const sum = (of: (replica: (typeof up)[number]) => number): number => up.reduce((total, replica) => total + of(replica), 0);
  return { room: sum(({ room }) => room), running: sum(({ runningStreams, waitingPrompts }) => runningStreams + waitingPrompts), queued };
}
