// Which requests could be met at all: on a replica of their own, at the fastest clock, with nobody else there.
import type { Slo } from '../core/job.ts';
import type { Physics } from '../engine/physics.ts';
import type { WorkloadRequest } from '../workload/request.ts';

export interface AloneTimes {
  readonly ttftMs: number;
  /** `null` where there is one token only. */
  readonly tpotMs: number | null;
  readonly e2eMs: number;
}

export function aloneAtFastest(physics: Physics, { promptTokens, outputTokens }: Pick<WorkloadRequest, 'promptTokens' | 'outputTokens'>): AloneTimes {
  const clockMhz = physics.measuredClocksMhz.at(-1) as number;
  const { maxBatchTokens } = physics.profile.serving;
  let ttftMs = 0;
  for (let from = 0; from < promptTokens; from += maxBatchTokens) {
    const prefill = { tokens: Math.min(maxBatchTokens, promptTokens - from), contextTokens: from };
    ttftMs += physics.iterationTimeMs({ prefill, decode: { sequences: 0, contextTokens: 0 } }, clockMhz);
  }
  const furtherTokens = Math.max(0, outputTokens - 1);
  if (furtherTokens === 0) return { ttftMs, tpotMs: null, e2eMs: ttftMs };
  // A step's time is affine in its context, so the mean step is that of the mean context.
  const decode = { sequences: 1, contextTokens: promptTokens + 1 + (furtherTokens - 1) / 2 };
  const tpotMs = physics.iterationTimeMs({ prefill: { tokens: 0, contextTokens: 0 }, decode }, clockMhz);
  return { ttftMs, tpotMs, e2eMs: ttftMs + furtherTokens * tpotMs };
}

/** Which of the requests could be met so; `classes` in the order of `requests`. */
export function feasibleAlone(machines: readonly Physics[], requests: readonly WorkloadRequest[], classes: readonly { readonly slo: Slo }[]): readonly boolean[] {
  return requests.map((request, index) => couldBeMet(machines, request, classes[index]?.slo ?? {}));
}

/** On the best of the machines. A prefix that may be cached is not counted on. */
export function couldBeMet(machines: readonly Physics[], request: Pick<WorkloadRequest, 'promptTokens' | 'outputTokens'>, slo: Slo): boolean {
  const { ttftMs = Number.POSITIVE_INFINITY, tpotMs = Number.POSITIVE_INFINITY, e2eMs = Number.POSITIVE_INFINITY } = slo;
  return machines.some((physics) => {
    const alone = aloneAtFastest(physics, request);
    return alone.ttftMs <= ttftMs && (alone.tpotMs ?? 0) <= tpotMs && alone.e2eMs <= e2eMs;
  });
}
