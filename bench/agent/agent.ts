// What the agent promises, measured: how soon clocks are back after a death, what asking costs, and what random schedules
// of faults and fuzzed input found. Real processes over emulated devices; no GPU. `--json` for scripts.
import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { STOP_HOLD_MS, STOP_TTL_MS, measureDeaths } from './deaths.ts';
import type { DriverName } from './rig.ts';
import type { Sampling } from './throughput.ts';
import { measureRoundTrips, measureSampling } from './throughput.ts';

const HELP = `npm run -s bench:agent -- [options]

Measures the node agent (agent/target/release/paceline-agent; \`make agent\` builds it) over emulated devices.

  --driver sim|nvml   sim (default), or the real NVML path over the fake library
  --quick             a tenth of the repetitions: to see that it works, not for figures
  --schedules N       random schedules in one process, in virtual time (default 20000); processes get N / 200
  --fuzz N            inputs of the fuzzer (default 20000)
  --json              one JSON object instead of a table
  --help              this text
`;

const { values } = parseArgs({
  options: {
    driver: { type: 'string', default: 'sim' },
    quick: { type: 'boolean', default: false },
    schedules: { type: 'string' },
    fuzz: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const MANIFEST = new URL('../../agent/Cargo.toml', import.meta.url).pathname;

interface Row {
  readonly what: string;
  readonly measured: string;
  readonly target: string;
  readonly isMet: boolean | null;
}

interface Result {
  readonly driver: DriverName;
  readonly machine: string;
  readonly clientKillToDefaultMs: Quantiles;
  readonly clientStopToDefaultMs: Quantiles & { readonly ttlMs: number };
  readonly clientStopByHoldToDefaultMs: Quantiles & { readonly holdMs: number };
  readonly workerKillToDefaultMs: Quantiles;
  readonly sentinelKillToDefaultMs: Quantiles;
  /** Of a PUT that writes, and of each kind. */
  readonly roundTripUs: Quantiles & { readonly renew: Quantiles; readonly same: Quantiles; readonly write: Quantiles };
  readonly sampling: Sampling;
  readonly faultSchedules: number;
  readonly faultSchedulesOfProcesses: number;
  readonly faultSteps: number;
  readonly violations: number;
  readonly fuzzInputs: number;
  readonly crashes: number;
}

interface Quantiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  readonly count: number;
}

if (values.help) process.stdout.write(HELP);
else await main();

async function main(): Promise<void> {
  const driver = driverOf(values.driver);
  const scale = values.quick ? 10 : 1;
  const schedules = wholeOf('--schedules', values.schedules ?? String(20_000 / scale));
  const fuzz = wholeOf('--fuzz', values.fuzz ?? String(20_000 / scale));
  const deaths = await measureDeaths(driver, { clientKills: 300 / scale, stops: 30 / scale, agentKills: 30 / scale });
  const roundTrips = await measureRoundTrips(driver, 3_000 / scale);
  const sampling = await measureSampling(driver, 8, values.quick ? 3 : 15);
  const inProcess = runCounted(['--bin', 'paceline-agent', 'model'], { PACELINE_SCHEDULES: String(schedules) }, ['schedules', 'steps', 'violations']);
  const processes = runCounted(['--test', 'schedules'], { PACELINE_SCHEDULES: String(Math.ceil(schedules / 200)) }, ['schedules', 'steps', 'violations']);
  const fuzzed = runCounted(['--test', 'fuzz_http'], { PACELINE_FUZZ: String(fuzz) }, ['fuzzInputs', 'crashes']);
  const result: Result = {
    driver,
    machine: `${cpus().length} x ${cpus()[0]?.model.trim()}`,
    clientKillToDefaultMs: quantiles(deaths.clientKillMs),
    clientStopToDefaultMs: { ttlMs: STOP_TTL_MS, ...quantiles(deaths.clientStopAfterTtlMs) },
    clientStopByHoldToDefaultMs: { holdMs: STOP_HOLD_MS, ...quantiles(deaths.clientStopAfterHoldMs) },
    workerKillToDefaultMs: quantiles(deaths.workerKillMs),
    sentinelKillToDefaultMs: quantiles(deaths.sentinelKillMs),
    roundTripUs: { ...quantiles(roundTrips.writeUs), renew: quantiles(roundTrips.renewUs), same: quantiles(roundTrips.sameUs), write: quantiles(roundTrips.writeUs) },
    sampling,
    faultSchedules: inProcess.schedules + processes.schedules,
    faultSchedulesOfProcesses: processes.schedules,
    faultSteps: inProcess.steps + processes.steps,
    violations: inProcess.violations + processes.violations,
    fuzzInputs: fuzzed.fuzzInputs,
    crashes: fuzzed.crashes,
  };
  process.stdout.write(values.json ? `${JSON.stringify(result, null, 2)}\n` : table(result));
}

function table(result: Result): string {
  const { clientKillToDefaultMs: kill, clientStopToDefaultMs: stop, clientStopByHoldToDefaultMs: hold, sampling, roundTripUs } = result;
  const rows: Row[] = [
    timesRow('client killed (kill -9) to default', kill, 'p99 <= 50 ms', kill.p99 <= 50),
    timesRow(`client stopped, TTL ${stop.ttlMs} ms`, stop, `max <= ${stop.ttlMs + 100} ms`, stop.max <= stop.ttlMs + 100),
    timesRow(`client stopped, hold ${hold.holdMs} ms`, hold, `max <= ${hold.holdMs + 100} ms`, hold.max <= hold.holdMs + 100),
    timesRow('worker killed to default', result.workerKillToDefaultMs, 'max <= 500 ms', result.workerKillToDefaultMs.max <= 500),
    timesRow('sentinel killed to default', result.sentinelKillToDefaultMs, 'max <= 500 ms', result.sentinelKillToDefaultMs.max <= 500),
    ...Object.entries({ renew: roundTripUs.renew, same: roundTripUs.same, write: roundTripUs.write }).map(([what, taken]) => ({ what: `round trip of a PUT: ${what}`, measured: `p50 ${taken.p50.toFixed(0)} µs, p99 ${taken.p99.toFixed(0)} µs (of ${taken.count})`, target: '', isMet: null })),
    { what: `${sampling.devices} devices at 100 Hz`, measured: `${sampling.cpuPct.toFixed(1)} % of a core, ${sampling.linesPerS.toFixed(0)} lines/s`, target: '<= 5 %', isMet: sampling.cpuPct <= 5 && sampling.linesPerS >= 95 },
    { what: 'fault schedules', measured: `${result.violations} violations in ${result.faultSchedules} (${result.faultSchedulesOfProcesses} of real processes; ${result.faultSteps} steps)`, target: '0', isMet: result.violations === 0 },
    { what: 'fuzzed inputs', measured: `${result.crashes} crashes in ${result.fuzzInputs}`, target: '0', isMet: result.crashes === 0 },
  ];
  const width = Math.max(...rows.map((row) => row.what.length));
  const lines = rows.map(({ what, measured, target, isMet }) => `${what.padEnd(width)}  ${measured}${target === '' ? '' : `   [${target}: ${isMet === true ? 'met' : 'MISSED'}]`}`);
  return `${lines.join('\n')}\n${result.driver} driver, ${result.machine}, Node ${process.version}\n`;
}

function timesRow(what: string, taken: Quantiles, target: string, isMet: boolean): Row {
  return { what, measured: `p50 ${taken.p50.toFixed(1)} ms, p99 ${taken.p99.toFixed(1)} ms, max ${taken.max.toFixed(1)} ms (of ${taken.count})`, target, isMet };
}

/** Runs a test binary that prints one JSON line of counts. Throws where it prints none, or fails without having counted why. */
function runCounted<Name extends string>(which: readonly string[], env: Record<string, string>, names: readonly Name[]): Record<Name, number> {
  const args = ['test', '--release', '--locked', '--quiet', '--manifest-path', MANIFEST, '--package', 'paceline-agent', ...which, '--', '--nocapture'];
  const run = spawnSync('cargo', args, { encoding: 'utf8', env: { ...process.env, ...env }, maxBuffer: 64 * 1024 * 1024 });
  const line = run.stdout?.split('\n').find((text) => text.startsWith('{') && names.every((name) => text.includes(`"${name}"`)));
  if (line === undefined) throw new Error(`cargo ${args.join(' ')}: no line with ${names.join(', ')} (exit ${run.status}): ${run.error?.message ?? `${run.stdout}${run.stderr}`.slice(-2_000)}`);
  const counts = JSON.parse(line) as Record<string, unknown>;
  return Object.fromEntries(names.map((name) => [name, Number(counts[name])])) as Record<Name, number>;
}

function driverOf(text: string): DriverName {
  if (text === 'sim' || text === 'nvml') return text;
  throw new Error(`--driver: got ${text}, wanted sim or nvml`);
}

function wholeOf(option: string, text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1) throw new Error(`${option}: got ${text}, wanted a whole number from 1`);
  return number;
}

function quantiles(taken: readonly number[]): Quantiles {
  const sorted = taken.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
  return { p50: at(0.5), p99: at(0.99), max: at(1), count: sorted.length };
}
