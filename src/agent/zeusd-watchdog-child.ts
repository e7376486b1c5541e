// A process of its own beside the gateway, because zeusd has no leases and a locked clock outlives who locked it: when the
// gateway dies, however it dies, its end of the pipe closes, and this puts the GPUs back. While the gateway lives, lines say
// which GPUs may be slow and for how long; one that is not renewed in time (a gateway that hangs) is put back as well.
// Started by `zeusd-watchdog.ts`. Node's own modules only: it has to be up in no time, and small.
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { createInterface } from 'node:readline';

interface Orders {
  readonly socketPath?: string;
  readonly host?: string;
  readonly port?: number;
  readonly tokenPath: string | null;
  readonly gpuIds: readonly number[];
}

const ANSWER_MS_MAX = 2_000;
const RETRY_MS = { first: 100, max: 5_000 };
/** zeusd may be restarted meanwhile; after this long an operator has to look. */
const GIVE_UP_MS = 600_000;
/** A slow-down that the gateway had just sent may be done after our reset: two connections have no order. So once more. */
const AGAIN_MS = [300, 2_000];

const orders = JSON.parse(process.argv[2] ?? '') as Orders;
/** By GPU; there while it may be slow. */
const guards = new Map<number, NodeJS.Timeout>();
let ending = false;

// A terminal's Ctrl-C and a service manager's signals go to all of a group. The pipe alone says when it is over.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const [word, ids = '', ms = ''] = line.split(' ');
  if (word === 'done') ending = true;
  if (word === 'guard') for (const gpuId of ids.split(',').map(Number)) guard(gpuId, Number(ms));
});
lines.on('close', () => {
  for (const timer of guards.values()) clearTimeout(timer);
  if (ending) process.exit(0);
  ending = true;
  void resetAtEnd();
});
process.stdout.write('ready\n');

/** 0: it is at default clocks. */
function guard(gpuId: number, leftMs: number): void {
  clearTimeout(guards.get(gpuId));
  guards.delete(gpuId);
  if (leftMs <= 0) return;
  const timer: NodeJS.Timeout = setTimeout(() => void resetUntilDone([gpuId], () => guards.get(gpuId) !== timer), leftMs);
  guards.set(gpuId, timer);
}

async function resetAtEnd(): Promise<void> {
  await resetUntilDone(orders.gpuIds, () => false);
  for (const waitMs of AGAIN_MS) {
    await sleep(waitMs);
    await reset(orders.gpuIds);
  }
  process.exit(0);
}

/** `over`: somebody has spoken for it meanwhile. */
async function resetUntilDone(gpuIds: readonly number[], over: () => boolean): Promise<void> {
  const giveUpAtMs = performance.now() + GIVE_UP_MS;
  for (let waitMs = RETRY_MS.first; !over(); waitMs = Math.min(RETRY_MS.max, waitMs * 2)) {
    if (await reset(gpuIds)) return;
    if (performance.now() > giveUpAtMs) return;
    await sleep(waitMs);
  }
}

function reset(gpuIds: readonly number[]): Promise<boolean> {
  return new Promise((resolve) => {
    const { tokenPath, gpuIds: _all, ...target } = orders;
    let headers: Record<string, string> = {};
    try {
      if (tokenPath !== null) headers = { authorization: `Bearer ${readFileSync(tokenPath, 'utf8').trim()}` };
    } catch {
      // Asked without it, zeusd says what is missing.
    }
    const sent = request({ ...target, headers, method: 'POST', path: `/gpu/reset_gpu_locked_clocks?gpu_ids=${gpuIds.join(',')}&block=true`, timeout: ANSWER_MS_MAX }, (answer) => {
      answer.resume();
      answer.once('end', () => resolve(answer.statusCode === 200));
      answer.once('error', () => resolve(false));
    });
    sent.once('timeout', () => sent.destroy(new Error('no answer in time')));
    sent.once('error', () => resolve(false));
    sent.end();
  });
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
