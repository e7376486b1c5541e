// What a server settles at under a steady load, by the belief: what a published system would have measured by running its
// server at each load and clock. Pure.
import { poissonQuantile } from './poisson.ts';
import type { PerformanceModel, PointIndex } from '../../frontier/performance-model.ts';
import { decodeStepMs } from './predictions.ts';

export interface SteadyLoad {
  /** Requests per millisecond. */
  readonly perMs: number;
  readonly promptTokens: number;
  /** Mean square over squared mean of the prompts' size, ≥ 1. */
  readonly promptUnevenness: number;
  readonly outputTokens: number;
}

export interface SteadyState {
  /** Mean, while there are any. */
  readonly sequences: number;
  /** 99th percentiles over requests. */
  readonly tpotMs: number;
  readonly ttftMs: number;
  /** Idle gaps included. */
  readonly powerW: number;
}

/** Deviations of a normal variable at its 99th percentile. */
const P99 = 2.33;
const ROUNDS = 40;
const SHARE_MAX = 0.95;

/**
 * `null` where the load is more than the server can take at this point. Batch size by Little's law with the step it causes;
 * arrivals Poisson, so batch and prefills within a stream's life vary as such counts do; prompts wait as in M/G/1
 * (Pollaczek-Khinchine), with an exponential tail.
 */
export function steadyStateAt(model: PerformanceModel, load: SteadyLoad, point: PointIndex): SteadyState | null {
  const { perMs, promptTokens, promptUnevenness, outputTokens } = load;
  const { maxSequences, kvTokens } = model.profile.serving;
  const contextEach = promptTokens + outputTokens / 2;
  const step = (sequences: number): number => decodeStepMs(model, point, sequences, sequences * contextEach);
  const added = (tokens: number, sequences: number): number =>
    model.iterationTimeMs({ prefill: { tokens, contextTokens: 0 }, decode: { sequences, contextTokens: sequences * contextEach } }, point) - step(sequences);

  let sequences = 1;
  let stretched = step(1);
  for (let round = 0; round < ROUNDS; round++) {
    const share = perMs * added(promptTokens, sequences);
    if (share >= SHARE_MAX) return null;
    stretched = step(sequences) / (1 - share);
    sequences = Math.max(1, perMs * outputTokens * stretched);
    if (sequences > maxSequences || sequences * contextEach > kvTokens) return null;
  }

  const prefillMs = added(promptTokens, sequences);
  const share = perMs * prefillMs;
  const streamsMean = perMs * outputTokens * stretched;
  const sequencesHigh = Math.max(1, streamsMean + P99 * Math.sqrt(streamsMean));
  const prefillsHigh = poissonQuantile(perMs * outputTokens * stretched, P99);
  const tpotMs = step(sequencesHigh) + (prefillsHigh * prefillMs) / outputTokens;
  const promptHigh = promptTokens * (1 + P99 * Math.sqrt(promptUnevenness - 1));
  const waitMs = (perMs * prefillMs ** 2 * promptUnevenness) / (2 * (1 - share));
  const waitHighMs = share > 0.01 ? (waitMs / share) * Math.log(100 * share) : 0;
  const ttftMs = waitHighMs + step(sequencesHigh) + added(promptHigh, sequencesHigh);

  const busyShare = 1 - Math.exp(-(streamsMean + share));
  const work = { sequences, contextTokens: sequences * contextEach };
  const workW = 1000 * perMs * (model.prefillEnergyJ({ tokens: promptTokens, contextTokens: 0 }, point) + (outputTokens / sequences) * model.decodeEnergyJ(work, point));
  return { sequences, tpotMs, ttftMs, powerW: workW + (1 - busyShare) * model.idlePowerW(point) };
}
