// The gateway's end of its probes (`probe-worker.ts`): a thread that answers on a port of its own, and what it is told through
// shared memory. A message would wait for the very loop that the probes are about.
import { resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import { ConfigError } from '../config/config-problems.ts';

/** `ready`: requests can be served. `draining`: we are going away, and were ready before. */
export type ProbePhase = 'starting' | 'not ready' | 'ready' | 'draining';

export interface ProbeListener {
  readonly url: string;
  /** Tells it the phase now instead of at the next beat. */
  beat(): void;
  close(): Promise<void>;
}

export interface ProbeOptions {
  readonly host: string;
  readonly port: number;
  /** So long the main thread may make no progress until it counts as dead. */
  readonly stuckMs: number;
  readonly phase: () => ProbePhase;
  /** The thread ended although nobody closed it; its port is closed, which a supervisor takes for a dead gateway. */
  readonly onEnd: (why: string) => void;
}

export interface ProbeWorkerData {
  /** Two numbers: when the main thread last made progress (`process.hrtime`, which threads share), and its phase. */
  readonly shared: SharedArrayBuffer;
  readonly host: string;
  readonly port: number;
  readonly stuckMs: number;
}

export type ProbeWorkerMessage = { readonly kind: 'listening'; readonly url: string } | { readonly kind: 'failed'; readonly code: string; readonly message: string };

/** Also how late `/readyz` may be after a replica came up or went down. */
const BEAT_MS = 250;
const PHASES: readonly ProbePhase[] = ['starting', 'not ready', 'ready', 'draining'];
const [BEAT_AT_NS, PHASE] = [0, 1];
/** A few connections and no data: what a leak would take must not be the gateway's. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4, stackSizeMb: 1 };
/** Development runs the TypeScript, an installed package what was made of it: this file's own ending tells which. */
const WORKER = resolve(import.meta.dirname, import.meta.filename.endsWith('.ts') ? 'probe-worker.ts' : 'probe-worker.js');

/** Rejects with `ConfigError` where the port cannot be had. */
export function openProbes({ host, port, stuckMs, phase, onEnd }: ProbeOptions): Promise<ProbeListener> {
  const shared = new SharedArrayBuffer(2 * BigInt64Array.BYTES_PER_ELEMENT);
  const told = new BigInt64Array(shared);
  function beat(): void {
    Atomics.store(told, PHASE, BigInt(PHASES.indexOf(phase())));
    Atomics.store(told, BEAT_AT_NS, process.hrtime.bigint());
  }
  beat();
  const timer = setInterval(beat, BEAT_MS);
  timer.unref();
  const workerData: ProbeWorkerData = { shared, host, port, stuckMs };
  const worker = new Worker(WORKER, { name: 'probes', workerData, resourceLimits: RESOURCE_LIMITS, execArgv: [], env: {} });
  let state: 'opening' | 'open' | 'closed' = 'opening';

  async function close(): Promise<void> {
    state = 'closed';
    clearInterval(timer);
    await worker.terminate();
  }

  return new Promise((resolveOpened, reject) => {
    const gone = (why: string): void => {
      const was = state;
      state = 'closed';
      clearInterval(timer);
      if (was === 'open') onEnd(why);
      if (was === 'opening') reject(new Error(`the thread of the probes could not be started: ${why}`));
    };
    worker.once('error', (error) => gone(error instanceof Error ? error.message : String(error)));
    worker.once('exit', (code) => gone(`it ended with exit code ${code}`));
    worker.once('message', (message: ProbeWorkerMessage) => {
      if (message.kind === 'failed') {
        const why = message.code === 'EADDRINUSE' ? `EADDRINUSE: another process listens on ${host}:${port}` : message.message;
        void close();
        return reject(new ConfigError([`probes: ${why}; choose another with probes.port`]));
      }
      state = 'open';
      // It answers while there is a gateway, and keeps no process alive by itself.
      worker.unref();
      resolveOpened({ url: message.url, beat, close });
    });
  });
}
