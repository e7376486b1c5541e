// A request as the clairvoyant sees it: everything known, deadlines as instants, and whether they can be met at all.
import type { Slo } from '../core/job.ts';
import type { Physics } from '../engine/physics.ts';
import type { WorkloadRequest } from '../workload/request.ts';
import { aloneAtFastest, isWithin } from './feasibility.ts';

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
  return requests.map((request, index) => {
    const slo = slos[index] as Slo;
    const { atMs } = request;
    const promptTokens = Math.max(1, request.promptTokens);
    const outputTokens = Math.max(1, request.outputTokens);
    const alone = aloneAtFastest(physics, { promptTokens, outputTokens });
    const sloEndByMs = slo.e2eMs === undefined ? Infinity : atMs + slo.e2eMs;
    const feasible = isWithin(alone, slo);
    // Twice the time it takes alone: with less than that left of the window, no plan should be bent to end in it.
    const windowEndByMs = atMs + 2 * alone.e2eMs <= untilMs && slo.tpotMs === undefined ? untilMs : Infinity;
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
