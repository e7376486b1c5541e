// Child processes of the demonstration: started, waited for until they are ready, and none left behind.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

export interface Child {
  readonly name: string;
  readonly pid: number;
  /** Resolves with the first line on stdout that is JSON: that is how our commands say that they are ready. */
  readonly ready: Promise<unknown>;
  /** SIGTERM, then SIGKILL after `graceMs`. Resolves when it is gone. */
  stop(graceMs?: number): Promise<void>;
}

const READY_WITHIN_MS = 15_000;
const STOP_GRACE_MS = 5_000;
/** What is kept of a child's stderr to explain why it died. */
const TAIL_CHARS_MAX = 4_000;

/** Throws nothing: what goes wrong rejects `ready`, with the end of what the child said. */
export function startChild(name: string, command: string, args: readonly string[], onUnexpectedExit: (message: string) => void, environment: Readonly<Record<string, string>> = {}): Child {
  // In a process group of its own: Ctrl-C at a terminal goes to the whole group, and these are to be stopped by us, in order.
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...environment }, detached: true });
  let tail = '';
  let stopping = false;
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    tail = (tail + text).slice(-TAIL_CHARS_MAX);
  });
  const gone = new Promise<void>((resolve) => {
    child.once('exit', () => resolve()).once('error', () => resolve());
  });
  const ready = firstJsonLine(child, name, () => tail);
  // Reported once, by whoever waits for it; a child that dies later is reported by `onUnexpectedExit`.
  ready.then(
    () => child.once('exit', (code, signal) => stopping || onUnexpectedExit(`${name} ended by itself (${signal ?? `exit code ${code}`})\n${tail}`)),
    () => {},
  );
  return {
    name,
    pid: child.pid ?? -1,
    ready,
    stop: async (graceMs = STOP_GRACE_MS) => {
      stopping = true;
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
      await gone;
      clearTimeout(timer);
    },
  };
}

async function firstJsonLine(child: ChildProcess, name: string, tail: () => string): Promise<unknown> {
  if (child.stdout === null) throw new Error(`${name} has no stdout`);
  const lines = createInterface({ input: child.stdout });
  const failed = Promise.race([
    once(child, 'exit').then(([code]) => `ended with exit code ${String(code)} before it was ready`),
    once(child, 'error').then(([error]) => `could not be started: ${String(error)}`),
    new Promise<string>((resolve) => {
      setTimeout(() => resolve(`was not ready within ${READY_WITHIN_MS / 1000} s`), READY_WITHIN_MS).unref();
    }),
  ]);
  const line = new Promise<string>((resolve) => {
    lines.on('line', (text) => text.startsWith('{') && resolve(text));
  });
  const outcome = await Promise.race([line.then((text) => ({ text })), failed.then((why) => ({ why }))]);
  if ('why' in outcome) throw new Error(`${name} ${outcome.why}\n${tail()}`);
  return JSON.parse(outcome.text);
}
