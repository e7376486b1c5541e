// Which requests could be met at all: on a replica of their own, at the fastest clock, with nobody else there.
import type { Slo } from '../core/job.ts';
import type { Physics } from '../engine/physics.ts';
import { NO_DECODE, NO_PREFILL, promptTimeMs } from '../frontier/performance-model.ts';
import type { WorkloadRequest } from '../workload/request.ts';

export interface AloneTimes {
  readonly ttftMs: number;
  /** `null` where there is one token only. */
  readonly tpotMs: number | null;
  readonly e2eMs: number;
}

/** On a replica of its own at the fastest clock; without switches, without noise. */
export function aloneAtFastest(physics: Physics, request: Pick<WorkloadRequest, 'promptTokens' | 'outputTokens'>): AloneTimes {
  return aloneAt(physics, request, physics.measuredClocksMhz.at(-1) as number);
}

/** The same at any clock. */
export function aloneAt(physics: Physics, { promptTokens, outputTokens }: Pick<WorkloadRequest, 'promptTokens' | 'outputTokens'>, clockMhz: number): AloneTimes {
  const ttftMs = promptTimeMs(promptTokens, physics.profile.serving.maxBatchTokens, (prefill) => physics.iterationTimeMs({ prefill, decode: NO_DECODE }, clockMhz));
  const furtherTokens = Math.max(0, outputTokens - 1);
  if (furtherTokens === 0) return { ttftMs, tpotMs: null, e2eMs: ttftMs };
  // A step's time is affine in its context, so the mean step is that of the mean context.
  const decode = { sequences: 1, contextTokens: promptTokens + 1 + (furtherTokens - 1) / 2 };
  const tpotMs = physics.iterationTimeMs({ prefill: NO_PREFILL, decode }, clockMhz);
  return { ttftMs, tpotMs, e2eMs: ttftMs + furtherTokens * tpotMs };
}

/** Which of the requests could be met so; `classes` in the order of `requests`. */
export function feasibleAlone(machines: readonly Physics[], requests: readonly WorkloadRequest[], classes: readonly { readonly slo: Slo }[]): readonly boolean[] {
  return requests.map((request, index) => couldBeMet(machines, request, classes[index]?.slo ?? {}));
}

/** On the best of the machines. A prefix that may be cached is not counted on. */
export function couldBeMet(machines: readonly Physics[], request: Pick<WorkloadRequest, 'promptTokens' | 'outputTokens'>, slo: Slo): boolean {
  return machines.some((physics) => isWithin(aloneAtFastest(physics, request), slo));
}

/** Whether all limits hold with these times; one that is not set does. */
export function isWithin(alone: AloneTimes, { ttftMs = Number.POSITIVE_INFINITY, tpotMs = Number.POSITIVE_INFINITY, e2eMs = Number.POSITIVE_INFINITY }: Slo): boolean {
  return alone.ttftMs <= ttftMs && (alone.tpotMs ?? 0) <= tpotMs && alone.e2eMs <= e2eMs;
}
