// `paceline emulate`: model servers and GPUs that are not there, for development, tests and demonstrations.
import { once } from 'node:events';
import { closeSync, openSync, writeSync } from 'node:fs';
import { DeviceFileError } from '../engine/device-file.ts';
import type { Emulator, EmulatorOptions } from '../engine/emulator.ts';
import { startEmulator } from '../engine/emulator.ts';
import { monotonicMs } from '../engine/real-time.ts';
import type { RequestNote } from '../engine/server.ts';
import { ProfileFileError, loadProfile } from '../profile-file.ts';
import type { SleepCosts } from '../frontier/profile.ts';
import { UsageError, defineCommand } from './command.ts';
import { parseSleepCosts, withSleep } from './sleep-option.ts';

const PORT_MAX = 65_535;
/** One process drives all of them; far more than two cores can stream. */
const REPLICAS_MAX = 64;
/** Beyond a factor of ten either way it is another device, not an error of measurement. */
const ERROR_PCT_MIN = -90;
const ERROR_PCT_MAX = 900;

export const command = defineCommand({
  name: 'emulate',
  summary: 'OpenAI-compatible model servers on emulated GPUs, as fast and as hungry as a profile says.',
  options: {
    profile: { type: 'text', value: 'FILE', help: 'the truth: speed and power of every replica' },
    replicas: { type: 'number', value: 'N', help: 'model servers, each on its own port and devices', default: 1, min: 1, max: REPLICAS_MAX, integer: true },
    port: { type: 'number', value: 'PORT', help: 'of the first replica, the others follow; 0 takes any free ones', default: 8000, min: 0, max: PORT_MAX, integer: true },
    host: { type: 'text', value: 'ADDRESS', help: 'to listen on', default: '127.0.0.1' },
    'device-dir': { type: 'text', value: 'DIR', help: 'where the emulated devices are; the agent gets the same directory' },
    seed: { type: 'number', value: 'N', help: 'of all that is random', default: 1, integer: true },
    model: { type: 'text', value: 'NAME', help: "serve under this name instead of the profile's" },
    'time-error': { type: 'number', value: 'PCT', help: 'the truth is slower than the profile by this; negative: faster', default: 0, min: ERROR_PCT_MIN, max: ERROR_PCT_MAX },
    'power-error': { type: 'number', value: 'PCT', help: 'the truth draws more than the profile by this; negative: less', default: 0, min: ERROR_PCT_MIN, max: ERROR_PCT_MAX },
    'scheduling-policy': { type: 'text', value: 'POLICY', help: "as vLLM's: with fcfs a request's priority is refused", default: 'fcfs', oneOf: ['fcfs', 'priority'] },
    sleep: { type: 'text', value: 'COSTS', help: "servers have vLLM's sleep mode (/sleep, /wake_up, /is_sleeping): POWERW:SLEEPMS:WAKEMS[:WAKEJ] of each device group; default: as the profile says" },
    'request-log': { type: 'text', value: 'FILE', help: 'append a JSON line whenever a request is accepted, has its first token, is finished or cancelled' },
  },
  examples: ['paceline emulate --profile config/profiles/llama-3.1-8b.h200.json --replicas 2 --device-dir /tmp/devices'],
  run: async (options) => {
    const { profile: profilePath, 'device-dir': deviceDir, replicas, port, host, seed, model } = options;
    if (profilePath === undefined) throw new UsageError('--profile FILE is missing; see: paceline emulate --help');
    if (deviceDir === undefined) throw new UsageError('--device-dir DIR is missing; see: paceline emulate --help');
    const log = options['request-log'] === undefined ? null : openRequestLog(options['request-log']);
    const emulator = await started({
      profilePath,
      replicas,
      port,
      host,
      deviceDir,
      seed,
      truth: { time: 1 + options['time-error'] / 100, power: 1 + options['power-error'] / 100 },
      priorityScheduling: options['scheduling-policy'] === 'priority',
      ...(model === undefined ? {} : { model }),
      ...(options.sleep === undefined ? {} : { sleep: parseSleepCosts('--sleep', options.sleep) }),
      ...(log === null ? {} : { onRequest: log.write }),
    });
    const stopped = Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]);
    process.stdout.write(`${JSON.stringify({ replicas: emulator.replicas, deviceDir })}\n`);
    process.stderr.write(`emulating ${replicas} replica(s) of ${emulator.replicas[0]?.model} from ${emulator.replicas[0]?.url} on, devices in ${deviceDir}\n`);
    await stopped;
    process.stderr.write('emulator stops\n');
    await emulator.close();
    log?.close();
    return 0;
  },
});

/** Written at once and not at leisure: what a server was doing when it was killed is what such a log is for. Times are CLOCK_MONOTONIC. */
function openRequestLog(path: string): { readonly write: (replica: number, note: RequestNote) => void; readonly close: () => void } {
  let file: number;
  try {
    file = openSync(path, 'a');
  } catch (error) {
    throw new UsageError(`--request-log ${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  return {
    write: (replica, { requestId, kind }) => void writeSync(file, `${JSON.stringify({ request_id: requestId, replica, event: kind, at_ms: monotonicMs() })}\n`),
    close: () => closeSync(file),
  };
}

/** What the caller can set right (a bad profile, a taken port, a directory that is not ours) is told in one line, not as a crash. */
async function started({ profilePath, sleep, ...options }: Omit<EmulatorOptions, 'profile'> & { readonly profilePath: string; readonly sleep?: SleepCosts }): Promise<Emulator> {
  try {
    const profile = loadProfile(profilePath);
    return await startEmulator({ ...options, profile: sleep === undefined ? profile : withSleep(profile, sleep, '--sleep') });
  } catch (error) {
    const callers = error instanceof ProfileFileError || error instanceof DeviceFileError || error instanceof RangeError || (error instanceof Error && 'syscall' in error);
    if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') throw new UsageError(`${error.message}: another process listens there; choose another with --port (each replica takes one, from it on)`, { cause: error });
    throw callers ? new UsageError(error.message, { cause: error }) : error;
  }
}
