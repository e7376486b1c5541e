// A real agent over emulated devices in a directory of its own, and what the devices themselves say of it.
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DeviceStateFile } from '../../src/engine/device-file.ts';
import { createDeviceStateFile } from '../../src/engine/device-file.ts';
import { request } from './thin-client.ts';

export type DriverName = 'sim' | 'nvml';

export interface Rig {
  readonly directory: string;
  readonly socketPath: string;
  readonly devices: readonly string[];
  readonly states: readonly DeviceStateFile[];
  readonly sentinelPid: number;
  /** Of the worker that runs now. */
  workerPid(): number;
  /** Restores, leaves, and removes the directory. */
  close(): Promise<void>;
}

const AGENT = new URL('../../agent/target/release/paceline-agent', import.meta.url).pathname;
const FAKE_NVML = new URL('../../agent/target/release/libfake_nvml.so', import.meta.url).pathname;
/** An H100's, thinned out. */
const CLOCKS_MHZ = Array.from({ length: 119 }, (_, step) => 210 + 15 * step);
export const SLOW_MHZ = 990;
const START_MS_MAX = 10_000;
const POLL_MS = 2;

/** Throws where the agent does not serve within ten seconds. */
export async function startRig(driver: DriverName, deviceCount: number): Promise<Rig> {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-bench-agent-'));
  const devicesPath = join(directory, 'devices');
  const states = Array.from({ length: deviceCount }, (_, index) => createDeviceStateFile(devicesPath, index, { uuid: `GPU-${index}`, name: 'Emulated H100', clocksMhz: CLOCKS_MHZ, defaultPowerLimitMw: 700_000 }));
  for (const state of states) state.writeTelemetry({ clockMhz: 1980, powerMw: 310_000, energyMj: 99_120n, energyAtNs: process.hrtime.bigint(), utilizationPct: 97, temperatureC: 51, throttleReasons: 0n });
  const policyPath = join(directory, 'policy.json');
  const rule = { name: 'bench', uids: [process.getuid?.() ?? 0], devices: ['*'], controls: ['clock'], lowering_min_interval_ms: 0 };
  writeFileSync(policyPath, JSON.stringify({ format: 'paceline-agent-policy/1', principals: [rule] }), { mode: 0o600 });
  const socketPath = join(directory, 'agent.sock');
  const driverArgs = driver === 'sim' ? ['--driver', 'sim', '--sim-dir', devicesPath] : ['--driver', 'nvml', '--nvml-library', FAKE_NVML];
  const logPath = join(directory, 'agent.log');
  const child = spawn('/bin/sh', ['-c', 'exec "$0" "$@" 2>"$PACELINE_BENCH_LOG"', AGENT, 'serve', ...driverArgs, '--socket', socketPath, '--state-dir', join(directory, 'state'), '--policy', policyPath], {
    stdio: 'ignore',
    env: { ...process.env, PACELINE_FAKE_NVML_DIR: devicesPath, PACELINE_BENCH_LOG: logPath },
  });
  await serving(child, socketPath, logPath);
  return {
    directory,
    socketPath,
    devices: states.map((_, index) => (driver === 'sim' ? `sim:${index}` : `nvml:GPU-${index}`)),
    states,
    sentinelPid: child.pid as number,
    workerPid: () => Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ').at(-1)),
    close: async () => {
      child.kill('SIGTERM');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      for (const state of states) state.close();
      rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    },
  };
}

async function serving(child: ChildProcess, socketPath: string, logPath: string): Promise<void> {
  const giveUpAtMs = performance.now() + START_MS_MAX;
  for (;;) {
    const status = await request(socketPath, 'GET', '/readyz').then((answer) => answer.status, () => null);
    if (status === 200) return;
    if (child.exitCode !== null || performance.now() > giveUpAtMs) throw new Error(`the agent does not serve (exit ${child.exitCode}); build it with \`make agent\`; it said: ${readFileSync(logPath, 'utf8').slice(-500)}`);
    await sleep(POLL_MS);
  }
}

export function isLowered(rig: Rig): boolean {
  return rig.states.every((state) => (state.readCommand()?.lockMaxMhz ?? 0) !== 0);
}

/** From `fromNs` until the last device was written, by the devices' own record (CLOCK_MONOTONIC, as `hrtime` is). */
export async function untilDefaultMs(rig: Rig, fromNs: bigint, withinMs: number): Promise<number> {
  const giveUpAtNs = fromNs + BigInt(withinMs) * 1_000_000n;
  for (;;) {
    const commands = rig.states.map((state) => state.readCommand());
    if (commands.every((command) => command !== null && command.lockMaxMhz === 0)) {
      const last = commands.reduce((latest, command) => (command !== null && command.writtenAtNs > latest ? command.writtenAtNs : latest), 0n);
      return last > fromNs ? Number(last - fromNs) / 1e6 : 0;
    }
    if (process.hrtime.bigint() > giveUpAtNs) throw new Error(`devices are still lowered after ${withinMs} ms`);
    await sleep(1);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
