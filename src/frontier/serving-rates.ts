// How many requests a second a replica serves at each of its operating points, and what it draws: whole requests, or as one of a pool that only
// prefills or only decodes. Means in a steady state; moving a KV cache from one pool to the other is not counted.
import type { RatePoint } from './load-sharing.ts';
import { NO_DECODE, NO_PREFILL, type PerformanceModel, type PointIndex, promptTimeMs } from './performance-model.ts';

export interface ServedRequest {
  readonly promptTokens: number;
  readonly outputTokens: number;
}

export interface ServingChoice {
  /** `null`: waiting, for nothing comes. */
  readonly point: PointIndex | null;
  /** Streams decoded at once, on the mean; 0 where none are. */
  readonly sequences: number;
  /** Mean time to the first token (of a pool that prefills), or from one token to the next. */
  readonly latencyMs: number;
}

/** Rates at one point, up to its most: between two of them a replica draws what it does at the higher. */
const RATES_PER_POINT = 64;

/**
 * A replica that only prefills: as many prompts as leave the mean time to the first token within `ttftMs`, by the Pollaczek–Khinchine formula for equal services
 * and Poisson arrivals (Kleinrock, Queueing Systems, vol. 1, 1975, chapter 5): waiting takes ρ · t / (2 · (1 − ρ)). Between prompts it idles at its point.
 */
export function prefillRates(model: PerformanceModel, { promptTokens }: Pick<ServedRequest, 'promptTokens'>, { ttftMs }: { readonly ttftMs: number }): RatePoint<ServingChoice>[] {
  const rates = model.points.flatMap((_, point) => {
    const { timeMs, energyJ } = promptCost(model, promptTokens, point);
    const waitMs = ttftMs - timeMs;
    if (waitMs <= 0) return [];
    const busyMax = (2 * waitMs) / (timeMs + 2 * waitMs);
    return Array.from({ length: RATES_PER_POINT }, (_unused, index): RatePoint<ServingChoice> => {
      const busy = (busyMax * (index + 1)) / RATES_PER_POINT;
      return { ratePerS: (1000 * busy) / timeMs, powerW: (1 - busy) * model.idlePowerW(point) + (1000 * busy * energyJ) / timeMs, choice: { point, sequences: 0, latencyMs: timeMs + (busy * timeMs) / (2 * (1 - busy)) } };
    });
  });
  return [waiting(model), ...rates];
}

/**
 * A replica that decodes, and with `prefills` prefills the same requests between its steps: with B streams it ends B requests in as long as it takes for each its prompt and
 * for all of them their steps. As many as leave the mean time from one token to the next within `tpotMs`, the batch within what the engine takes, and
 * the contexts within its KV cache.
 */
export function decodeRates(model: PerformanceModel, { promptTokens, outputTokens }: ServedRequest, { tpotMs, prefills }: { readonly tpotMs: number; readonly prefills: boolean }): RatePoint<ServingChoice>[] {
  const { maxSequences, kvTokens } = model.profile.serving;
  const contextTokens = promptTokens + outputTokens / 2;
  const sequencesMax = Math.min(maxSequences, Math.floor(kvTokens / Math.max(1, contextTokens)));
  const rates: RatePoint<ServingChoice>[] = [waiting(model)];
  for (const point of model.points.keys()) {
    const prompt = prefills ? promptCost(model, promptTokens, point) : { timeMs: 0, energyJ: 0 };
    for (let sequences = 1; sequences <= sequencesMax; sequences++) {
      const work = { prefill: NO_PREFILL, decode: { sequences, contextTokens: sequences * contextTokens } };
      const roundMs = outputTokens * model.iterationTimeMs(work, point) + sequences * prompt.timeMs;
      const latencyMs = roundMs / outputTokens;
      // More streams only make it longer.
      if (latencyMs > tpotMs) break;
      rates.push({ ratePerS: (1000 * sequences) / roundMs, powerW: (1000 * (outputTokens * model.iterationEnergyJ(work, point) + sequences * prompt.energyJ)) / roundMs, choice: { point, sequences, latencyMs } });
    }
  }
  return rates;
}

function waiting(model: PerformanceModel): RatePoint<ServingChoice> {
  return { ratePerS: 0, powerW: Math.min(...model.points.map((_, point) => model.idlePowerW(point))), choice: { point: null, sequences: 0, latencyMs: 0 } };
}

function promptCost(model: PerformanceModel, promptTokens: number, point: PointIndex): { readonly timeMs: number; readonly energyJ: number } {
  const { maxBatchTokens } = model.profile.serving;
  const sumOf = (costOf: 'iterationTimeMs' | 'iterationEnergyJ'): number => promptTimeMs(promptTokens, maxBatchTokens, (prefill) => model[costOf]({ prefill, decode: NO_DECODE }, point));
  return { timeMs: sumOf('iterationTimeMs'), energyJ: sumOf('iterationEnergyJ') };
}
