// The gateway's end of the watchdog process (`zeusd-watchdog-child.ts`): starts it, says what it has to guard, lets it go.
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import type { AgentAddress } from './connection.ts';

export interface ZeusdWatchdog {
  /** These GPUs may be slow for that long from now; 0: they are at default clocks. Said before zeusd is. */
  guard(gpuIds: readonly number[], leftMs: number): void;
  alive(): boolean;
  /** All GPUs are at default clocks: it may leave. */
  dismiss(): void;
  /** It goes on alone: resets all GPUs until that is confirmed, and leaves. */
  takeOver(): void;
}

/** Its start takes some tens of milliseconds; on a machine under load a second has been seen. */
const START_MS_MAX = 10_000;
/** Development runs the TypeScript, an installed package what was made of it: this file's own ending tells which. */
const CHILD = resolve(import.meta.dirname, import.meta.filename.endsWith('.ts') ? 'zeusd-watchdog-child.ts' : 'zeusd-watchdog-child.js');

/** Rejects where it cannot be started. `onEnd`: it ended although nobody told it to. */
export function startZeusdWatchdog(options: { readonly address: AgentAddress; readonly gpuIds: readonly number[]; readonly onEnd: () => void }): Promise<ZeusdWatchdog> {
  // In a session of its own and without our environment: what ends the gateway, or is meant for it, must not reach it. Nor
  // does it hold our stderr: whoever waits for the end of the gateway's output must not wait for it.
  const child = spawn(process.execPath, [CHILD, JSON.stringify({ ...targetOf(options.address), gpuIds: options.gpuIds })], { stdio: ['pipe', 'pipe', 'ignore'], detached: true, env: {}, cwd: '/' });
  let alive = false;
  let leaving = false;
  // Without it the gateway could not end while the watchdog lives.
  child.unref();
  for (const pipe of [child.stdin, child.stdout]) {
    pipe.on('error', () => {});
    (pipe as unknown as { unref(): void }).unref();
  }

  function end(lastWord: string): void {
    leaving = true;
    alive = false;
    child.stdin.end(lastWord);
  }

  return new Promise((resolveStarted, reject) => {
    const tooLate = setTimeout(() => {
      end('done\n');
      reject(new Error(`the watchdog was not up within ${START_MS_MAX} ms`));
    }, START_MS_MAX);
    const gone = (why: string): void => {
      clearTimeout(tooLate);
      const was = alive;
      alive = false;
      if (was && !leaving) options.onEnd();
      else reject(new Error(`the watchdog could not be started: ${why}`));
    };
    child.once('error', (error) => gone(error.message));
    child.once('exit', (code, signal) => gone(`it ended with ${signal ?? `exit code ${code}`}`));
    child.stdout.once('data', () => {
      clearTimeout(tooLate);
      if (leaving) return;
      alive = true;
      resolveStarted({
        guard: (gpuIds, leftMs) => alive && child.stdin.write(`guard ${gpuIds.join(',')} ${Math.max(0, Math.ceil(leftMs))}\n`),
        alive: () => alive,
        dismiss: () => end('done\n'),
        takeOver: () => end(''),
      });
    });
  });
}

function targetOf(address: AgentAddress): object {
  if (address.kind === 'socket') return { socketPath: address.path, tokenPath: null };
  const { hostname, port } = new URL(address.origin);
  return { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? 80 : Number(port), tokenPath: address.tokenPath };
}
