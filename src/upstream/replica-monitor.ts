// Looks after one replica: is it up, and how loaded does it say it is. Ill health is not answering; being busy is not.
import type { ServerLoad } from './server-metrics.ts';
import { readServerLoad } from './server-metrics.ts';
import type { ReplicaClient } from './replica-client.ts';

/** `unknown` until the first probe has succeeded, or failed often enough. */
type Health =
  | { readonly kind: 'unknown'; readonly failures: number }
  | { readonly kind: 'up'; readonly failures: number }
  | { readonly kind: 'down' };

export interface MonitorOptions {
  readonly client: Pick<ReplicaClient, 'get'>;
  readonly everyMs: number;
  readonly timeoutMs: number;
  /** Failures in a row until a replica counts as down; one success brings it back. */
  readonly failuresMax: number;
  readonly onHealth: (state: 'up' | 'down', why: string) => void;
  readonly onLoad: (load: ServerLoad) => void;
}

export interface ReplicaMonitor {
  /** A request has met with a broken or refused connection: look now instead of at the next turn. */
  suspect(): void;
  close(): void;
}

/** vLLM's page is some 100 KB with many models and ranks. */
const METRICS_BYTES_MAX = 4_194_304;

export function createReplicaMonitor(options: MonitorOptions): ReplicaMonitor {
  const { client, timeoutMs } = options;
  let health: Health = { kind: 'unknown', failures: 0 };
  let closed = false;
  let probing = false;
  let timer: NodeJS.Timeout | undefined;
  let suspectedAgain = false;

  async function probe(): Promise<void> {
    clearTimeout(timer);
    probing = true;
    const trouble = await troubleOf(client, timeoutMs);
    if (closed) return;
    if (trouble === null) succeeded();
    else failed(trouble);
    if (trouble === null) await readLoad();
    probing = false;
    if (closed) return;
    // A failure is looked at again sooner, so that three of them do not take three turns.
    const soon = suspectedAgain || (trouble !== null && health.kind !== 'down');
    suspectedAgain = false;
    timer = setTimeout(() => void probe(), soon ? Math.min(options.everyMs, 100) : options.everyMs);
  }

  function succeeded(): void {
    const before = health.kind;
    health = { kind: 'up', failures: 0 };
    if (before !== 'up') options.onHealth('up', 'a probe succeeded');
  }

  function failed(trouble: string): void {
    if (health.kind === 'down') return;
    const failures = health.failures + 1;
    if (failures < options.failuresMax) health = { ...health, failures };
    else {
      health = { kind: 'down' };
      options.onHealth('down', trouble);
    }
  }

  async function readLoad(): Promise<void> {
    try {
      const page = await client.get('/metrics', { timeoutMs, bytesMax: METRICS_BYTES_MAX });
      const load = page.statusCode === 200 ? readServerLoad(page.body.toString('utf8')) : null;
      if (load !== null && !closed) options.onLoad(load);
    } catch {
      // A server without metrics is served all the same; what we know of its load is then what we sent it.
    }
  }

  void probe();
  return {
    suspect: () => {
      if (closed || health.kind === 'down') return;
      if (probing) suspectedAgain = true;
      else void probe();
    },
    close: () => {
      closed = true;
      clearTimeout(timer);
    },
  };
}

/** `null` when the server says that it is well. 4xx counts as well too: something answers, it just has no such route. */
async function troubleOf(client: Pick<ReplicaClient, 'get'>, timeoutMs: number): Promise<string | null> {
  try {
    const { statusCode } = await client.get('/health', { timeoutMs, bytesMax: 65_536 });
    return statusCode < 500 ? null : `GET /health answered ${statusCode}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
