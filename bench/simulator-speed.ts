// How many seconds `paceline simulate` plays in a second: four replicas on the recorded Azure conversation trace, a thousand on
// synthetic arrivals of the same rate per replica and sizes. Without the trace (it is not part of the package) both are synthetic.
import { existsSync } from 'node:fs';
import { cpus } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { loadProfile } from '../src/profile-file.ts';
import { simulate, type SimulationOptions } from '../src/simulator/simulate.ts';
import { loadSloClasses, loadWorkload } from '../src/workload/load-workload.ts';
import type { WorkloadRequest } from '../src/workload/request.ts';
import { drawClasses } from '../src/workload/slo-classes.ts';
import { makeSynthetic } from '../src/workload/synthetic.ts';

interface Measurement {
  readonly policy: string;
  readonly replicas: number;
  readonly workload: 'azure conversation' | 'synthetic';
  readonly requests: number;
  /** From the first arrival to the last: what is still served afterwards takes time, but does not count. */
  readonly simulatedS: number;
  readonly wallS: number;
  /** Of this process: steadier than the wall clock on a machine that is shared. */
  readonly cpuS: number;
  readonly simulatedSPerS: number;
  readonly simulatedSPerCpuS: number;
  readonly requestsPerS: number;
}

const ROOT = resolve(import.meta.dirname, '..');
const SEED = 1;
/** A piece is made twice as long until playing it takes this; the longest is played over and over for as long. */
const WALL_MIN_S = 1.5;
/** An hour: the recorded trace is about as long. */
const PIECE_MAX_S = 3600;
/** Arrivals per replica, sizes: what the trace has over four replicas. */
const SYNTHETIC = { ratePerReplica: 1.47, promptTokens: { kind: 'lognormal', meanTokens: 1155, cv: 0.96 }, outputTokens: { kind: 'lognormal', meanTokens: 211, cv: 0.77 } } as const;

const { values } = parseArgs({
  options: {
    trace: { type: 'string', default: '../shared/data/azure-llm-2023/AzureLLMInferenceTrace_conv.csv' },
    profile: { type: 'string', default: 'config/profiles/llama-3.1-70b.h100-tp4.json' },
    slo: { type: 'string', default: 'config/slo/chat.json' },
    policies: { type: 'string', default: 'max-clock,static:1380,paceline' },
    replicas: { type: 'string', default: '4,1000' },
    json: { type: 'boolean', default: false },
  },
});
const profile = loadProfile(resolve(ROOT, values.profile));
const sloClasses = await loadSloClasses(resolve(ROOT, values.slo));
const trace = resolve(ROOT, values.trace);
const recorded = existsSync(trace) ? (await loadWorkload({ kind: 'azure', file: trace }, {}, SEED)).requests : null;

const measurements: Measurement[] = [];
for (const replicas of values.replicas.split(',').map(Number)) {
  for (const policy of values.policies.split(',')) {
    const measured = measure(policy, replicas);
    measurements.push(measured);
    if (!values.json) process.stdout.write(`${rowOf(measured)}\n`);
  }
}
if (values.json) process.stdout.write(`${JSON.stringify({ cpu: `${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}`, node: process.version, measurements }, null, 2)}\n`);
else process.stdout.write(`${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.version}; one thread\n`);

function measure(policy: string, replicas: number): Measurement {
  // The first piece also warms the compiler up; what is reported is the last.
  for (let pieceS = Math.min(PIECE_MAX_S, 600 / replicas); ; pieceS = Math.min(PIECE_MAX_S, 2 * pieceS)) {
    const requests = requestsFor(replicas, pieceS);
    const options: SimulationOptions = { requests, classes: drawClasses(sloClasses, requests.length, SEED), replicas, truth: profile, belief: profile, policy: policyOf(policy), seed: SEED };
    const [fromMs, cpuFrom] = [performance.now(), process.cpuUsage()];
    let plays = 0;
    let again = true;
    while (again) {
      simulate(options);
      plays += 1;
      again = pieceS >= PIECE_MAX_S && performance.now() - fromMs < WALL_MIN_S * 1000;
    }
    const wallS = (performance.now() - fromMs) / 1000;
    const cpu = process.cpuUsage(cpuFrom);
    const cpuS = (cpu.user + cpu.system) / 1e6;
    if (wallS < WALL_MIN_S && pieceS < PIECE_MAX_S) continue;
    const simulatedS = (plays * (requests.at(-1)?.atMs ?? 0)) / 1000;
    const workload = recorded !== null && replicas <= 4 ? 'azure conversation' : 'synthetic';
    return { policy, replicas, workload, requests: plays * requests.length, simulatedS, wallS, cpuS, simulatedSPerS: simulatedS / wallS, simulatedSPerCpuS: simulatedS / cpuS, requestsPerS: (plays * requests.length) / wallS };
  }
}

function requestsFor(replicas: number, durationS: number): readonly WorkloadRequest[] {
  if (recorded !== null && replicas <= 4) return recorded.filter(({ atMs }) => atMs < durationS * 1000);
  const { ratePerReplica, promptTokens, outputTokens } = SYNTHETIC;
  return makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: ratePerReplica * replicas }, promptTokens, outputTokens, durationS, seed: SEED }).requests;
}

function policyOf(name: string): SimulationOptions['policy'] {
  if (name === 'max-clock' || name === 'paceline') return { kind: name };
  const pointId = /^static:(.+)$/.exec(name)?.[1];
  if (pointId === undefined || !profile.points.some(({ id }) => id === pointId)) throw new Error(`--policies: got '${name}', allowed: max-clock, paceline, static:<point of the profile>`);
  return { kind: 'static', pointId };
}

function rowOf({ policy, replicas, workload, simulatedS, wallS, simulatedSPerS, simulatedSPerCpuS, requestsPerS }: Measurement): string {
  const speed = (value: number): string => value.toFixed(value < 10 ? 2 : 0);
  return `${policy.padEnd(12)} ${String(replicas).padStart(5)} replicas, ${workload}: ${simulatedS.toFixed(0)} s in ${wallS.toFixed(2)} s, ${speed(simulatedSPerS)} s/s (${speed(simulatedSPerCpuS)} per CPU second), ${requestsPerS.toFixed(0)} requests/s`;
}
