// A request as the clairvoyant sees it: everything known, deadlines as instants, and whether they can be met at all.
import type { Slo } from '../core/job.ts';
import type { Physics } from '../engine/physics.ts';
import type { WorkloadRequest } from '../workload/request.ts';

export interface KnownRequest {
  /** Its place in the workload. */
  readonly index: number;
  readonly atMs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly slo: Slo;
  /** `Infinity` where it has no such deadline. */
  readonly firstByMs: number;
  readonly tpotMs: number;
  readonly endByMs: number;
  /** Alone on a replica at the fastest clock it meets its SLO; otherwise it is best effort and binds nothing. */
  readonly feasible: boolean;
}

/**
 * `untilMs`: whatever may end at any time is to end by then, so that no policy looks better by leaving work behind the
 * window; what cannot is not held to it.
 */
export function knownRequests(requests: readonly WorkloadRequest[], slos: readonly Slo[], physics: Physics, untilMs: number): KnownRequest[] {
  const fastestMhz = physics.measuredClocksMhz.at(-1) as number;
  return requests.map((request, index) => {
    const slo = slos[index] as Slo;
    const { atMs } = request;
    const promptTokens = Math.max(1, request.promptTokens);
    const outputTokens = Math.max(1, request.outputTokens);
    const alone = aloneMs(physics, { promptTokens, outputTokens }, fastestMhz);
    const sloEndByMs = slo.e2eMs === undefined ? Infinity : atMs + slo.e2eMs;
    const feasible = alone.firstMs <= (slo.ttftMs ?? Infinity) && alone.restMs <= (slo.tpotMs ?? Infinity) * (outputTokens - 1) && atMs + alone.firstMs + alone.restMs <= sloEndByMs;
    // Twice the time it takes alone: with less than that left of the window, no plan should be bent to end in it.
    const windowEndByMs = atMs + 2 * (alone.firstMs + alone.restMs) <= untilMs && slo.tpotMs === undefined ? untilMs : Infinity;
    return {
      index,
      atMs,
      promptTokens,
      outputTokens,
      slo,
      firstByMs: feasible ? atMs + (slo.ttftMs ?? Infinity) : Infinity,
      tpotMs: feasible ? (slo.tpotMs ?? Infinity) : Infinity,
      endByMs: Math.min(feasible ? sloEndByMs : Infinity, windowEndByMs),
      feasible,
    };
  });
}

/** To the first token and from there to the last, with nobody else there. */
export function aloneMs(physics: Physics, { promptTokens, outputTokens }: { readonly promptTokens: number; readonly outputTokens: number }, clockMhz: number): { firstMs: number; restMs: number } {
  const { maxBatchTokens } = physics.profile.serving;
  let firstMs = 0;
  for (let done = 0; done < promptTokens; done += maxBatchTokens) {
    firstMs += physics.iterationTimeMs({ prefill: { tokens: Math.min(maxBatchTokens, promptTokens - done), contextTokens: done }, decode: NO_DECODE }, clockMhz);
  }
  const steps = outputTokens - 1;
  // A step's time is affine in its context, so the step at the mean context stands for all.
  const restMs = steps === 0 ? 0 : steps * physics.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences: 1, contextTokens: promptTokens + 1 + (steps - 1) / 2 } }, clockMhz);
  return { firstMs, restMs };
}

const NO_PREFILL = { tokens: 0, contextTokens: 0 };
const NO_DECODE = { sequences: 0, contextTokens: 0 };
