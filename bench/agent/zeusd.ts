// The gateway's clock control over the real paceline-agent and over the real zeusd, the same scenario, on emulated devices
// behind the fake NVML library: what reaches the devices, what a round trip costs, and what is left when somebody dies.
import type { ChildProcess } from 'node:child_process';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { ClockControl } from '../../src/agent/clock-control.ts';
import { createClockControl } from '../../src/agent/clock-control.ts';
import type { ReplicaId } from '../../src/core/job.ts';
import type { DeviceStateFile } from '../../src/engine/device-file.ts';
import { clockNode, pointOf } from './clock-node.ts';
import { sleep, startRig } from './rig.ts';
import { ZEUSD_VERSION, installZeusd, startZeusdRig } from './zeusd-rig.ts';

const HELP = `npm run -s bench:zeusd -- [options]

Drives paceline-agent (\`make agent\` builds it) and zeusd ${ZEUSD_VERSION} (installed from crates.io into .paceline/) with the gateway's own
clock control. Needs cargo, and root for zeusd.

  --devices N        of the one replica (default 4)
  --round-trips N    (default 1000)
  --kills N          of each kind (default 20)
  --call-ms N        what a call that sets or resets clocks takes (default 0; a real one 10 to 20)
  --json             one JSON object instead of a table
  --help             this text
`;

const { values } = parseArgs({
  options: {
    devices: { type: 'string', default: '4' },
    'round-trips': { type: 'string', default: '1000' },
    kills: { type: 'string', default: '20' },
    'call-ms': { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

interface Rig {
  readonly directory: string;
  readonly socketPath: string;
  readonly devices: readonly string[];
  readonly states: readonly DeviceStateFile[];
  close(): Promise<void>;
}
interface Quantiles {
  readonly n: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}
interface Measured {
  readonly daemon: string;
  /** `min–max` of the lock on every device, as the devices have it; `default` where there is none. */
  readonly slowedTo: string;
  readonly raisedTo: string;
  /** From the end of the hold until the last device was written. */
  readonly lapseLateMs: Quantiles;
  readonly afterClose: string;
  /** From a demand of another clock until the answer was told. */
  readonly roundTripMs: Quantiles;
  readonly clientKillToDefaultMs: Quantiles;
  /** The client is stopped, with 500 ms of hold asked for every 100 ms. */
  readonly clientStopToDefaultMs: Quantiles;
  /** Three seconds after everything of the client was killed at once. */
  readonly afterKillOfAllOfClient: string;
}

const R0 = 'r0' as ReplicaId;
const SLOW_MHZ = 990;
const FASTEST_MHZ = 1980;
const HOLD_MS = 500;
const LAPSES = 10;
const WITHIN_MS = 10_000;
const CLIENT = new URL('clock-client.ts', import.meta.url).pathname;

async function measure(kind: 'paceline' | 'zeusd', daemon: string, rig: Rig, counts: { readonly roundTrips: number; readonly kills: number }): Promise<Measured> {
  let told: () => void = () => {};
  let pointId: string | null = null;
  const control = createClockControl({
    nodes: [clockNode(kind, rig.socketPath, rig.devices)],
    holder: 'bench',
    now: () => performance.now(),
    onControl: (_replicaId, _controlled, point) => {
      pointId = point;
      told();
    },
    onWarning: (message) => process.stderr.write(`${daemon}: ${message}\n`),
  });
  const demand = (clockMhz: number, holdMs: number): void => control.demand({ replicaId: R0, point: pointOf(clockMhz), holdMs, change: 'raise' });
  await until('clock control is held', () => control.state() === 'held');

  demand(SLOW_MHZ, 5_000);
  await until('the devices are slowed down', () => isLowered(rig));
  const slowedTo = locks(rig);
  demand(FASTEST_MHZ, 5_000);
  await until('the devices are raised', () => rig.states.every((state) => state.readCommand()?.lockMaxMhz !== SLOW_MHZ));
  const raisedTo = locks(rig);

  const lapses: number[] = [];
  for (let lapse = 0; lapse < LAPSES; lapse++) {
    const dueAtNs = process.hrtime.bigint() + 200_000_000n;
    demand(SLOW_MHZ, 200);
    await until('the devices are slowed down', () => isLowered(rig));
    lapses.push(await untilDefaultMs(rig, dueAtNs));
  }

  const roundTrips: number[] = [];
  for (let trip = 0; trip < counts.roundTrips; trip++) {
    // Never the one before, of which nobody would be told.
    const clockMhz = SLOW_MHZ + 15 * (1 + (trip % 40));
    const answered = new Promise<void>((resolve) => {
      told = () => pointId === `c${clockMhz}` && resolve();
    });
    const fromMs = performance.now();
    demand(clockMhz, 1_000);
    await answered;
    roundTrips.push(performance.now() - fromMs);
  }
  told = () => {};
  await close(control);
  const afterClose = locks(rig);

  const kills: number[] = [];
  const stops: number[] = [];
  for (let kill = 0; kill < counts.kills; kill++) {
    kills.push(await afterSignal(kind, rig, 'SIGKILL'));
    stops.push(await afterSignal(kind, rig, 'SIGSTOP'));
  }
  return { daemon, slowedTo, raisedTo, lapseLateMs: quantiles(lapses), afterClose, roundTripMs: quantiles(roundTrips), clientKillToDefaultMs: quantiles(kills), clientStopToDefaultMs: quantiles(stops), afterKillOfAllOfClient: await afterAll(kind, rig) };
}

async function afterSignal(kind: string, rig: Rig, signal: 'SIGKILL' | 'SIGSTOP'): Promise<number> {
  const client = startClient(kind, rig);
  try {
    await until('the devices are slowed down', () => isLowered(rig));
    // Somewhere in its rhythm of renewing.
    await sleep(100 + Math.random() * 100);
    const fromNs = process.hrtime.bigint();
    client.kill(signal);
    return await untilDefaultMs(rig, fromNs);
  } finally {
    await end(client);
    // zeusd is told twice more, for a slow-down that may have been under way: that must not fall into the next one.
    if (kind === 'zeusd') await sleep(2_500);
  }
}

async function afterAll(kind: string, rig: Rig): Promise<string> {
  const client = startClient(kind, rig);
  await until('the devices are slowed down', () => isLowered(rig));
  const children = execFileSync('sh', ['-c', `cat /proc/${client.pid}/task/*/children`], { encoding: 'utf8' }).trim().split(/\s+/).filter((pid) => pid !== '');
  // The watchdog first and both within a millisecond: it has no time to notice.
  for (const pid of [...children, String(client.pid)]) process.kill(Number(pid), 'SIGKILL');
  await sleep(3_000);
  return locks(rig);
}

function startClient(kind: string, rig: Rig): ChildProcess {
  return spawn(process.execPath, [CLIENT, kind, rig.socketPath, rig.devices.join(','), String(SLOW_MHZ), String(HOLD_MS)], { stdio: ['ignore', 'ignore', 'inherit'] });
}

async function end(client: ChildProcess): Promise<void> {
  client.kill('SIGKILL');
  if (client.exitCode === null && client.signalCode === null) await once(client, 'exit');
}

async function close(control: ClockControl): Promise<void> {
  await control.close();
}

/** The fake library reads the file at every call. */
function slowCalls(rig: Rig, delayMs: number): void {
  if (delayMs === 0) return;
  const fault = { delay_ms: delayMs };
  writeFileSync(join(rig.directory, 'devices', 'nvml-faults.json'), JSON.stringify({ nvmlDeviceSetGpuLockedClocks: fault, nvmlDeviceResetGpuLockedClocks: fault }));
}

function isLowered(rig: Rig): boolean {
  return rig.states.every((state) => state.readCommand()?.lockMaxMhz === SLOW_MHZ);
}

function locks(rig: Rig): string {
  const each = rig.states.map((state) => {
    const command = state.readCommand();
    return command === null ? 'torn' : command.lockMaxMhz === 0 ? 'default' : `${command.lockMinMhz}–${command.lockMaxMhz} MHz`;
  });
  return [...new Set(each)].join(', ');
}

/** From `fromNs` until the last device was written, by the devices' own record (CLOCK_MONOTONIC, as `hrtime` is). */
async function untilDefaultMs(rig: Rig, fromNs: bigint): Promise<number> {
  await until('the devices are at default clocks', () => rig.states.every((state) => state.readCommand()?.lockMaxMhz === 0));
  const writtenAtNs = rig.states.map((state) => state.readCommand()?.writtenAtNs ?? 0n);
  const lastNs = writtenAtNs.reduce((latest, atNs) => (atNs > latest ? atNs : latest), 0n);
  return Number(lastNs - fromNs) / 1e6;
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const giveUpAtMs = performance.now() + WITHIN_MS;
  while (!holds()) {
    if (performance.now() > giveUpAtMs) throw new Error(`not within ${WITHIN_MS} ms: ${what}`);
    await sleep(1);
  }
}

function quantiles(values: readonly number[]): Quantiles {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return { n: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

function table(results: readonly Measured[]): string {
  const ms = ({ n, p50, p99, max }: Quantiles): string => (n >= 100 ? `${p50.toFixed(2)} / ${p99.toFixed(2)} ms` : `${p50.toFixed(1)} ms, worst of ${n}: ${max.toFixed(1)} ms`);
  const rows: [string, (result: Measured) => string][] = [
    [`slowed down to ${SLOW_MHZ} MHz, the devices have`, ({ slowedTo }) => slowedTo],
    [`raised to ${FASTEST_MHZ} MHz, the fastest`, ({ raisedTo }) => raisedTo],
    ['not renewed: default clocks after the hold ends', ({ lapseLateMs }) => ms(lapseLateMs)],
    ['round trip of another clock, p50 / p99', ({ roundTripMs }) => ms(roundTripMs)],
    ['after an orderly end', ({ afterClose }) => afterClose],
    ['kill -9 of the client, until default clocks', ({ clientKillToDefaultMs }) => ms(clientKillToDefaultMs)],
    [`client stopped (hold ${HOLD_MS} ms), until default clocks`, ({ clientStopToDefaultMs }) => ms(clientStopToDefaultMs)],
    ['3 s after kill -9 of all of the client, watchdog included', ({ afterKillOfAllOfClient }) => afterKillOfAllOfClient],
  ];
  return [`| | ${results.map(({ daemon }) => daemon).join(' | ')} |`, `|---|${results.map(() => '---|').join('')}`, ...rows.map(([what, cell]) => `| ${what} | ${results.map(cell).join(' | ')} |`)].join('\n');
}

if (values.help) {
  process.stdout.write(HELP);
} else {
  const counts = { roundTrips: Number(values['round-trips']), kills: Number(values.kills) };
  const results: Measured[] = [];
  const binary = installZeusd();
  for (const kind of ['paceline', 'zeusd'] as const) {
    const rig = kind === 'zeusd' ? await startZeusdRig(binary, Number(values.devices)) : await startRig('nvml', Number(values.devices));
    try {
      slowCalls(rig, Number(values['call-ms']));
      results.push(await measure(kind, kind === 'zeusd' ? `zeusd ${ZEUSD_VERSION}` : 'paceline-agent', rig, counts));
    } finally {
      await rig.close();
    }
  }
  const machine = `${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}, Node ${process.version}`;
  process.stdout.write(values.json ? `${JSON.stringify({ machine, devices: Number(values.devices), callMs: Number(values['call-ms']), results }, null, 2)}\n` : `${table(results)}\n\n${machine}; ${values.devices} emulated devices behind the fake NVML library, whose calls take ${values['call-ms']} ms.\n`);
}
