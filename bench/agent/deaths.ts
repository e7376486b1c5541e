// How long devices stay lowered after a process has died or stopped.
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { DriverName, Rig } from './rig.ts';
import { SLOW_MHZ, isLowered, sleep, startRig, untilDefaultMs } from './rig.ts';
import { connect, lease } from './thin-client.ts';

export interface Deaths {
  readonly clientKillMs: readonly number[];
  readonly clientStopAfterTtlMs: readonly number[];
  readonly clientStopAfterHoldMs: readonly number[];
  readonly workerKillMs: readonly number[];
  readonly sentinelKillMs: readonly number[];
}

export const STOP_TTL_MS = 500;
export const STOP_HOLD_MS = 400;
const LONG_MS = 60_000;
const WITHIN_MS = 10_000;
const HOLDER = new URL('holder.ts', import.meta.url).pathname;

export async function measureDeaths(driver: DriverName, counts: { readonly clientKills: number; readonly stops: number; readonly agentKills: number }, deviceCount = 8): Promise<Deaths> {
  const rig = await startRig(driver, deviceCount);
  try {
    return {
      clientKillMs: await repeat(counts.clientKills, () => afterClient(rig, 'SIGKILL', LONG_MS, LONG_MS)),
      clientStopAfterTtlMs: await repeat(counts.stops, () => afterClient(rig, 'SIGSTOP', STOP_TTL_MS, LONG_MS)),
      clientStopAfterHoldMs: await repeat(counts.stops, () => afterClient(rig, 'SIGSTOP', LONG_MS, STOP_HOLD_MS)),
      workerKillMs: await repeat(counts.agentKills, () => afterAgentProcess(driver, deviceCount, (own) => own.workerPid())),
      sentinelKillMs: await repeat(counts.agentKills, () => afterAgentProcess(driver, deviceCount, (own) => own.sentinelPid)),
    };
  } finally {
    await rig.close();
  }
}

async function afterClient(rig: Rig, signal: 'SIGKILL' | 'SIGSTOP', ttlMs: number, holdMs: number): Promise<number> {
  const holder = spawn(process.execPath, [HOLDER, rig.socketPath, rig.devices.join(','), String(ttlMs), String(holdMs)], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await holding(holder);
    // Somewhere in its rhythm of renewing.
    await sleep(Math.random() * 50);
    if (!isLowered(rig)) throw new Error('the devices are not lowered before the signal');
    const fromNs = process.hrtime.bigint();
    holder.kill(signal);
    return await untilDefaultMs(rig, fromNs, WITHIN_MS);
  } finally {
    holder.kill('SIGKILL');
    if (holder.exitCode === null && holder.signalCode === null) await once(holder, 'exit');
  }
}

/** An agent of its own each time: one whose worker dies again and again gives up, as it should. */
async function afterAgentProcess(driver: DriverName, deviceCount: number, pidOf: (rig: Rig) => number): Promise<number> {
  const rig = await startRig(driver, deviceCount);
  try {
    const held = await lease(rig.socketPath, rig.devices, LONG_MS);
    held.socket.on('error', () => undefined);
    const connection = await connect(rig.socketPath);
    await connection.ask('PUT', `/v1/leases/${held.leaseId}/targets`, { epoch: held.epoch, seq: 1, targets: [{ devices: rig.devices, clock_mhz: SLOW_MHZ, hold_ms: LONG_MS }] });
    if (!isLowered(rig)) throw new Error('the devices are not lowered before the kill');
    const worker = rig.workerPid();
    const fromNs = process.hrtime.bigint();
    process.kill(pidOf(rig), 'SIGKILL');
    const tookMs = await untilDefaultMs(rig, fromNs, WITHIN_MS);
    connection.close();
    held.socket.destroy();
    await gone(worker);
    return tookMs;
  } finally {
    await rig.close();
  }
}

async function gone(pid: number): Promise<void> {
  for (let waitedMs = 0; waitedMs < WITHIN_MS; waitedMs += 5) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await sleep(5);
  }
  throw new Error(`process ${pid} does not leave`);
}

async function holding(holder: ChildProcess): Promise<void> {
  const [said] = (await once(holder.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  if (!said.toString().includes('holding')) throw new Error(`the holder said ${said.toString()}`);
}

async function repeat(count: number, measure: () => Promise<number>): Promise<number[]> {
  const taken: number[] = [];
  for (let round = 0; round < count; round++) taken.push(await measure());
  return taken;
}
