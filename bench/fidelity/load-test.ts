// One measured load test, run on the emulated engine: the same Poisson arrivals of equal requests, the same locked clock.
import { limitsOf } from '../../src/engine/batching.ts';
import type { Physics } from '../../src/engine/physics.ts';
import { createEmulatedReplica } from '../../src/engine/replica.ts';
import { createRandom } from '../../src/random/random.ts';
import { percentiles } from '../../src/statistics/percentiles.ts';
import type { LoadTestRow, Outcome } from './load-test-table.ts';

/** Why a row cannot be run: the engine would never serve such a request. */
export class LoadTestError extends Error {
  override name = 'LoadTestError';
}

export interface TestPlan {
  /** Of one test, all counted: who measured began with an empty engine as well. */
  readonly requests: number;
  /** Repetitions with other arrivals. */
  readonly tests: number;
  readonly seed: number;
}

/** The expected outcome of a test (geometric mean over its repetitions), and how far single tests scatter around it. */
export interface ExpectedOutcome extends Outcome {
  /** Standard deviation of the logarithms, in per cent. */
  readonly scatterPct: Outcome;
}

export type LoadSetting = Pick<LoadTestRow, 'promptTokens' | 'outputTokens' | 'clockMhz' | 'requestsPerS'>;

export function expectedOutcome(physics: Physics, setting: LoadSetting, { requests, tests, seed }: TestPlan): ExpectedOutcome {
  const outcomes = Array.from({ length: tests }, (_, test) => loadTest(physics, setting, requests, seed * 1000 + test));
  const logs = (name: keyof Outcome): number[] => outcomes.map((outcome) => Math.log(outcome[name]));
  const powerW = logs('powerW');
  const ttftP99Ms = logs('ttftP99Ms');
  const tpotP99Ms = logs('tpotP99Ms');
  return {
    powerW: Math.exp(mean(powerW)),
    ttftP99Ms: Math.exp(mean(ttftP99Ms)),
    tpotP99Ms: Math.exp(mean(tpotP99Ms)),
    scatterPct: { powerW: 100 * deviation(powerW), ttftP99Ms: 100 * deviation(ttftP99Ms), tpotP99Ms: 100 * deviation(tpotP99Ms) },
  };
}

/** Power is the mean from the start to the last arrival; latencies are of every request, to the last answer. */
export function loadTest(physics: Physics, setting: LoadSetting, requests: number, seed: number): Outcome {
  const { promptTokens, outputTokens, clockMhz, requestsPerS } = setting;
  const random = createRandom(seed, 'load test');
  const arrivedAtMs: number[] = [];
  const firstTokenAtMs: number[] = [];
  const ttftsMs: number[] = [];
  const tpotsMs: number[] = [];
  const replica = createEmulatedReplica<number>({
    physics,
    seed,
    startMs: 0,
    initial: Array.from({ length: physics.profile.deviceGroup.devices }, () => ({ lock: { minMhz: clockMhz, maxMhz: clockMhz }, energyJ: 0 })),
    limits: { ...limitsOf(physics.profile), waitingMax: requests },
    tokenEvents: 'first-and-last',
    deliver: (events, atMs) => {
      for (const { kind, id, outputTokens: tokens } of events) {
        if (tokens === 1) firstTokenAtMs[id] = atMs;
        if (kind !== 'finished') continue;
        ttftsMs.push((firstTokenAtMs[id] as number) - (arrivedAtMs[id] as number));
        tpotsMs.push((atMs - (firstTokenAtMs[id] as number)) / (outputTokens - 1));
      }
    },
  });
  let nowMs = 0;
  for (let id = 0; id < requests; id++) {
    nowMs += (-Math.log(1 - random()) / requestsPerS) * 1000;
    arrivedAtMs.push(nowMs);
    const submission = replica.submit({ id, promptTokens, outputTokens }, nowMs);
    if (submission.kind === 'rejected') throw new LoadTestError(`${promptTokens} tokens in and ${outputTokens} out: the engine of ${physics.profile.name} refuses (${submission.reason}), it holds ${physics.profile.serving.kvTokens} tokens`);
  }
  replica.advanceTo(nowMs);
  const powerW = (1000 * replica.energyJ()) / nowMs;
  for (let nextMs = replica.nextEventAtMs(); Number.isFinite(nextMs); nextMs = replica.nextEventAtMs()) replica.advanceTo(nextMs);
  return { powerW, ttftP99Ms: percentiles(ttftsMs).p99 ?? Number.NaN, tpotP99Ms: percentiles(tpotsMs).p99 ?? Number.NaN };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function deviation(values: readonly number[]): number {
  const centre = mean(values);
  return values.length < 2 ? 0 : Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1));
}
