// What the engine behind a replica is told of a request's urgency, where it orders its own queue by a number in the body.
import type { Slo } from '../core/job.ts';

/** Which end of the numbers goes first: vLLM serves the lower, SGLang the higher unless told otherwise. Dynamo reads `nvext`, not this. */
export type EnginePriority = 'lower-first' | 'higher-first';

/** Whole steps since a fixed instant: the same deadline is the same number at every gateway and on every day. */
const STEP_MS = 200;
const EPOCH_UNIX_MS = Date.UTC(2026, 0, 1);
/** What fits into 32 bits with a sign; at this step until August 2039. From there on all are alike, and none wraps to the front. */
export const PRIORITY_MAX = 2_147_483_647;

/** An earlier deadline is never less urgent than a later one; `null`, none at all, is the least urgent. */
export function enginePriority(order: EnginePriority, deadlineAtUnixMs: number | null): number {
  const steps = deadlineAtUnixMs === null ? PRIORITY_MAX : Math.min(PRIORITY_MAX, Math.max(0, Math.floor((deadlineAtUnixMs - EPOCH_UNIX_MS) / STEP_MS)));
  return order === 'lower-first' ? steps : PRIORITY_MAX - steps;
}

/** Of the first token, or else of the whole; `null` where neither is wanted. An engine's queue is before the first token. */
export function deadlineAtUnixMs({ ttftMs, e2eMs }: Slo, arrivedAtUnixMs: number): number | null {
  const withinMs = ttftMs ?? e2eMs;
  return withinMs === undefined ? null : arrivedAtUnixMs + withinMs;
}
