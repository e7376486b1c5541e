// The real zeusd, of a pinned version, over emulated devices: its NVML library is the fake one.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createZeusdClient } from '../../src/agent/zeusd-client.ts';
import type { DeviceStateFile } from '../../src/engine/device-file.ts';
import { createDeviceStateFile } from '../../src/engine/device-file.ts';
import { sleep } from './rig.ts';

export const ZEUSD_VERSION = '0.5.0';
const ROOT = resolve(import.meta.dirname, '../..');
/** Git-ignored. */
const INSTALLED = join(ROOT, '.paceline', `zeusd-${ZEUSD_VERSION}`);
const FAKE_NVML = join(ROOT, 'agent/target/release/libfake_nvml.so');
/** An H100's. */
const CLOCKS_MHZ = Array.from({ length: 119 }, (_, step) => 210 + 15 * step);
const START_MS_MAX = 10_000;

export interface ZeusdRig {
  readonly directory: string;
  readonly socketPath: string;
  readonly devices: readonly string[];
  readonly states: readonly DeviceStateFile[];
  close(): Promise<void>;
}

/** Built once, by cargo from crates.io; some minutes. */
export function installZeusd(): string {
  const binary = join(INSTALLED, 'bin/zeusd');
  if (existsSync(binary)) return binary;
  process.stderr.write(`installing zeusd ${ZEUSD_VERSION} from crates.io\n`);
  execFileSync('cargo', ['install', 'zeusd', '--version', `=${ZEUSD_VERSION}`, '--locked', '--root', INSTALLED], { stdio: ['ignore', 'inherit', 'inherit'] });
  return binary;
}

/** Needs root: zeusd leaves without it where clocks are to be set. */
export async function startZeusdRig(binary: string, deviceCount: number): Promise<ZeusdRig> {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-bench-zeusd-'));
  const devicesPath = join(directory, 'devices');
  const states = Array.from({ length: deviceCount }, (_, index) => createDeviceStateFile(devicesPath, index, { uuid: `GPU-${index}`, name: 'Emulated H100', clocksMhz: CLOCKS_MHZ, defaultPowerLimitMw: 700_000 }));
  for (const state of states) state.writeTelemetry({ clockMhz: 1980, powerMw: 310_000, energyMj: 99_120n, energyAtNs: process.hrtime.bigint(), utilizationPct: 97, temperatureC: 51, throttleReasons: 0n });
  const libraries = join(directory, 'lib');
  mkdirSync(libraries);
  symlinkSync(FAKE_NVML, join(libraries, 'libnvidia-ml.so.1'));
  const socketPath = join(directory, 'zeusd.sock');
  const logPath = join(directory, 'zeusd.log');
  const child = spawn('/bin/sh', ['-c', 'exec "$0" "$@" >"$PACELINE_BENCH_LOG" 2>&1', binary, 'serve', '--socket-path', socketPath, '--enable', 'gpu-control,gpu-read', '--num-workers', '2'], {
    stdio: 'ignore',
    // Said to the library's place alone: no other program is to meet it.
    env: { ...process.env, LD_LIBRARY_PATH: libraries, PACELINE_FAKE_NVML_DIR: devicesPath, PACELINE_BENCH_LOG: logPath, RUST_LOG: 'warn' },
  });
  const client = createZeusdClient({ kind: 'socket', path: socketPath });
  const giveUpAtMs = performance.now() + START_MS_MAX;
  while (!(await client.discover().then(() => true, () => false))) {
    if (child.exitCode !== null || performance.now() > giveUpAtMs) throw new Error(`zeusd does not serve (exit ${child.exitCode}); it said: ${readFileSync(logPath, 'utf8').slice(-500)}`);
    await sleep(5);
  }
  await client.close();
  return {
    directory,
    socketPath,
    devices: states.map((_, index) => `zeusd:${index}`),
    states,
    close: async () => {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      for (const state of states) state.close();
      rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    },
  };
}
