// One engine fed by Poisson arrivals of equal requests: what a load test at a fixed rate would see. Only for calibration:
// it knows continuous batching and chunked prefill, and neither preemption nor caches; the full engine is `src/engine/`.
import { createRandom } from '../../src/random/random.ts';

/** An iteration: `prefillTokens` new prompt tokens (with `prefillContextTokens` before them) beside `sequences` decodes. */
export interface IterationPhysics {
  readonly prefillTimeMs: (tokens: number, contextTokens: number) => number;
  readonly decodeTimeMs: (sequences: number, contextTokens: number) => number;
  /** Of the pass over the weights, which a mixed iteration makes once (see `PerformanceModel.iterationTimeMs`). */
  readonly weightPassMs: number;
  readonly launchOverheadMs: number;
  /** How much a decode of so many sequences weighs in `decodeWeighedShare`. */
  readonly decodeWeight: (sequences: number) => number;
}

export interface LoadTest {
  readonly requestsPerS: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly maxBatchTokens: number;
  readonly maxSequences: number;
  readonly requests: number;
  readonly seed: number;
}

export interface LoadTestResult {
  readonly ttftP99Ms: number;
  /** Of the mean time per output token of each request. */
  readonly tpotP99Ms: number;
  readonly meanSequences: number;
  /** Shares of the wall time; mixed iterations count in both, and the pass they share is subtracted from neither. */
  readonly prefillShare: number;
  readonly decodeShare: number;
  /** Decode time weighed by `decodeWeight`, as a share of the wall time. */
  readonly decodeWeighedShare: number;
  readonly busyShare: number;
}

interface Running {
  readonly arrivedAtMs: number;
  prefilledTokens: number;
  tokensOut: number;
  firstTokenAtMs: number;
}

/** Serves `requests` Poisson arrivals to the end; the first tenth is warm-up and not counted in the latencies. */
export function simulateLoadTest(test: LoadTest, physics: IterationPhysics): LoadTestResult {
  const random = createRandom(test.seed, 'queue');
  const arrivalsMs: number[] = [];
  for (let index = 0, atMs = 0; index < test.requests; index++) {
    atMs += (-Math.log(1 - random()) / test.requestsPerS) * 1000;
    arrivalsMs.push(atMs);
  }
  const ttftsMs: number[] = [];
  const tpotsMs: number[] = [];
  let running: Running[] = [];
  let nextArrival = 0;
  let nowMs = arrivalsMs[0] as number;
  const startedAtMs = nowMs;
  let prefillMs = 0;
  let decodeMs = 0;
  let decodeWeighedMs = 0;
  let busyMs = 0;
  let sequenceMs = 0;
  while (running.length > 0 || nextArrival < arrivalsMs.length) {
    if (running.length === 0) nowMs = Math.max(nowMs, arrivalsMs[nextArrival] as number);
    while (nextArrival < arrivalsMs.length && (arrivalsMs[nextArrival] as number) <= nowMs && running.length < test.maxSequences) {
      running.push({ arrivedAtMs: arrivalsMs[nextArrival] as number, prefilledTokens: 0, tokensOut: 0, firstTokenAtMs: 0 });
      nextArrival++;
    }
    let sequences = 0;
    let decodeContext = 0;
    for (const request of running) {
      if (request.tokensOut === 0) continue;
      sequences++;
      decodeContext += test.promptTokens + request.tokensOut;
    }
    let budget = test.maxBatchTokens - sequences;
    let prefillTokens = 0;
    let prefillContext = 0;
    for (const request of running) {
      if (request.tokensOut > 0 || budget <= 0) continue;
      const chunk = Math.min(budget, test.promptTokens - request.prefilledTokens);
      prefillContext += request.prefilledTokens;
      request.prefilledTokens += chunk;
      prefillTokens += chunk;
      budget -= chunk;
    }
    const prefillPartMs = prefillTokens > 0 ? physics.prefillTimeMs(prefillTokens, prefillContext) : 0;
    const decodePartMs = sequences > 0 ? physics.decodeTimeMs(sequences, decodeContext) : 0;
    const sharedMs = prefillTokens > 0 && sequences > 0 ? Math.min(prefillPartMs, physics.weightPassMs) : 0;
    const iterationMs = prefillPartMs + decodePartMs - sharedMs + physics.launchOverheadMs;
    nowMs += iterationMs;
    busyMs += iterationMs;
    prefillMs += prefillPartMs;
    decodeMs += decodePartMs;
    decodeWeighedMs += sequences > 0 ? decodePartMs * physics.decodeWeight(sequences) : 0;
    sequenceMs += running.length * iterationMs;
    let ended = false;
    for (const request of running) {
      if (request.prefilledTokens < test.promptTokens) continue;
      if (request.tokensOut++ === 0) request.firstTokenAtMs = nowMs;
      if (request.tokensOut < test.outputTokens) continue;
      ended = true;
      ttftsMs.push(request.firstTokenAtMs - request.arrivedAtMs);
      tpotsMs.push((nowMs - request.firstTokenAtMs) / (test.outputTokens - 1));
    }
    if (ended) running = running.filter((request) => request.tokensOut < test.outputTokens);
  }
  const wallMs = nowMs - startedAtMs;
  const warmUp = Math.floor(test.requests / 10);
  return {
    ttftP99Ms: quantile(ttftsMs.slice(warmUp), 0.99),
    tpotP99Ms: quantile(tpotsMs.slice(warmUp), 0.99),
    meanSequences: sequenceMs / wallMs,
    prefillShare: prefillMs / wallMs,
    decodeShare: decodeMs / wallMs,
    decodeWeighedShare: decodeWeighedMs / wallMs,
    busyShare: busyMs / wallMs,
  };
}

/** Sorts `values`; 0 where there are none. */
export function quantile(values: number[], share: number): number {
  values.sort((a, b) => a - b);
  return values[Math.min(values.length - 1, Math.floor(share * values.length))] ?? 0;
}
