// How long one decision takes: planning a replica with so many requests in flight, and routing one job over four of them.
// Prints medians over repeated batches; `--json` for scripts.
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { createGuardBands } from '../src/core/guard-band.ts';
import type { JobId, JobSpec, ReplicaId } from '../src/core/job.ts';
import { createLengthPredictor } from '../src/core/length-predictor.ts';
import { planReplica } from '../src/core/planner.ts';
import { createReplicaQueue } from '../src/core/replica-queue.ts';
import { sent } from '../src/core/tracked-job.ts';
import { createPerformanceModel } from '../src/frontier/performance-model.ts';
import { loadProfile } from '../src/profile-file.ts';
import { createRandom } from '../src/random/random.ts';
import { createScheduler } from '../src/scheduler/scheduler.ts';

const { values } = parseArgs({ options: { profile: { type: 'string', default: 'config/profiles/llama-3.1-70b.h100-tp4.json' }, json: { type: 'boolean', default: false } } });
const loaded = loadProfile(values.profile);
// A replica that takes as many at once as are asked of it, whatever its profile was measured with.
const profile = { ...loaded, serving: { ...loaded.serving, maxSequences: 4096, kvTokens: 100_000_000 } };
const model = createPerformanceModel(profile);
const IN_FLIGHT = [16, 64, 256, 1024];
const BATCHES = 15;

interface Measurement {
  readonly inFlight: number;
  readonly planUs: number;
  /** Seeing the queue anew (a token has come since) and planning it: what a control period costs. */
  readonly viewAndPlanUs: number;
  /** An arrival, routed over four such replicas. */
  readonly arrivalUs: number;
}

const measurements = IN_FLIGHT.map((inFlight): Measurement => ({ inFlight, ...planTimes(inFlight), arrivalUs: arrivalTime(inFlight) }));
if (values.json) process.stdout.write(`${JSON.stringify({ profile: loaded.name, machine: `${cpus().length} x ${cpus()[0]?.model.trim()}`, measurements }, null, 2)}\n`);
else {
  process.stdout.write('in flight   plan   view + plan   arrival over 4 replicas\n');
  for (const { inFlight, planUs, viewAndPlanUs, arrivalUs } of measurements) process.stdout.write(`${String(inFlight).padStart(9)} ${planUs.toFixed(1).padStart(6)} µs ${viewAndPlanUs.toFixed(1).padStart(8)} µs ${arrivalUs.toFixed(1).padStart(8)} µs\n`);
  process.stdout.write(`${loaded.name}, ${cpus().length} x ${cpus()[0]?.model.trim()}, Node ${process.version}\n`);
}

/** TPOT limits that some clock between the ends just keeps, so that the search has something to find. */
function job(index: number, random: () => number, tpotMs: number): JobSpec {
  return { jobId: `j${index}` as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo: { ttftMs: 4000, tpotMs: tpotMs * (1 + 0.3 * random()) }, promptBytes: 4000, promptTokens: 300 + Math.floor(random() * 1500), work: 'generate', streaming: true };
}

function tpotFor(inFlight: number): number {
  const middle = model.bySlowness[Math.floor(model.points.length / 2)] as number;
  return 1.4 * model.iterationTimeMs({ prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: inFlight, contextTokens: inFlight * 1200 } }, middle);
}

function planTimes(inFlight: number): { planUs: number; viewAndPlanUs: number } {
  const random = createRandom(1, 'decision');
  const queue = createReplicaQueue({ model, lengths: createLengthPredictor(), guards: createGuardBands(0.99), controlPeriodMs: 100, concurrencyMax: 4096 });
  const jobs = Array.from({ length: inFlight }, (_, index) => {
    const spec = job(index, random, tpotFor(inFlight));
    return sent({ spec, key: 'm\nt', lengthKey: 'm\nt', promptTokens: spec.promptTokens as number, arrivedAtMs: index, e2eDeadlineAtMs: index + (spec.slo.e2eMs ?? Number.POSITIVE_INFINITY), e2eMoves: false, firstDeadlineAtMs: index + 60_000, latestStartAtMs: Number.POSITIVE_INFINITY, workMs: 1 }, true, index);
  });
  for (const each of jobs) queue.add(each, inFlight);
  // One in sixteen still waits for its first token.
  for (const [index, each] of jobs.entries()) if (index % 16 !== 0) queue.tokens(each, 1 + Math.floor(random() * 200), 10_000);
  let nowMs = 10_000;
  const view = queue.view(nowMs);
  // A new object each time: what has been worked out for a view is not worked out again.
  const planUs = median(() => planReplica({ ...view }));
  const running = jobs.filter(({ firstTokenAtMs }) => firstTokenAtMs !== null);
  let turn = 0;
  const viewAndPlanUs = median(() => {
    nowMs += 0.01;
    queue.tokens(running[turn++ % running.length] as (typeof jobs)[number], 1, nowMs);
    return planReplica(queue.view(nowMs));
  });
  return { planUs, viewAndPlanUs };
}

function arrivalTime(inFlight: number): number {
  const random = createRandom(2, 'decision');
  const ids = ['r0', 'r1', 'r2', 'r3'] as ReplicaId[];
  const scheduler = createScheduler({ replicas: ids.map((replicaId, index) => ({ replicaId, models: ['m', `of ${index}`], belief: model, concurrencyMax: 4096 })), policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 100_000 });
  for (const replicaId of ids) {
    scheduler.handle({ kind: 'control', replicaId, controlled: true, pointId: null }, 0);
    scheduler.handle({ kind: 'replica-health', replicaId, state: 'up' }, 0);
  }
  let nowMs = 0;
  let count = 0;
  // Each filled by a model that it alone serves, or they would all be packed onto one. Spread over time, so that the forecast
  // is what it would be; the streams never end.
  for (; count < ids.length * inFlight; count++) {
    nowMs += 50;
    scheduler.handle({ kind: 'arrived', job: { ...job(count, random, 2 * tpotFor(inFlight)), model: `of ${count % ids.length}` } }, nowMs);
    scheduler.handle({ kind: 'tokens', jobId: `j${count}` as JobId, tokens: 30 }, nowMs + 25);
  }
  return median(() => {
    nowMs += 0.01;
    scheduler.handle({ kind: 'arrived', job: job(count, random, 2 * tpotFor(inFlight)) }, nowMs);
    scheduler.handle({ kind: 'ended', jobId: `j${count++}` as JobId, outcome: 'cancelled' }, nowMs);
  });
}

/** Median over batches of the mean within one, microseconds. */
function median(decide: () => unknown): number {
  const once = (times: number): number => {
    const start = process.hrtime.bigint();
    for (let time = 0; time < times; time++) decide();
    return Number(process.hrtime.bigint() - start) / 1000;
  };
  once(300);
  const perCall = once(50) / 50;
  const times = Math.max(20, Math.min(2000, Math.round(20_000 / perCall)));
  const samples = Array.from({ length: BATCHES }, () => once(times) / times).sort((a, b) => a - b);
  return samples[BATCHES >> 1] as number;
}
