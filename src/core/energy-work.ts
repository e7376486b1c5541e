// What a replica's work costs by its profile, in the pieces that an account is made of: a prompt, and a token of a stream. Only
// their proportions count where there is a meter.
import { type PerformanceModel, type PointIndex } from '../frontier/performance-model.ts';
import type { DecodeWork } from '../frontier/profile.ts';

/** Joules at the point in question, the same work's at the fastest, and how long either takes. */
export interface WorkCost {
  energyJ: number;
  fastestJ: number;
  timeMs: number;
  fastestMs: number;
}

/** What one token of one stream costs in the company it has. */
export interface TokenCost {
  /** Its equal part of what the step costs without any context … */
  readonly step: Readonly<WorkCost>;
  /** … and what each token of its own context adds. */
  readonly context: Readonly<WorkCost>;
}

/** Added to `sum`: the prompt's tokens from `fromTokens` to `toTokens`, in batches as its server takes them. */
export function addPrompt(sum: WorkCost, model: PerformanceModel, fromTokens: number, toTokens: number, point: PointIndex): void {
  const { maxBatchTokens } = model.profile.serving;
  for (let from = fromTokens; from < toTokens; from += maxBatchTokens) {
    CHUNK.tokens = Math.min(maxBatchTokens, toTokens - from);
    CHUNK.contextTokens = from;
    sum.energyJ += model.prefillEnergyJ(CHUNK, point);
    sum.fastestJ += model.prefillEnergyJ(CHUNK, model.fastest);
    sum.timeMs += model.prefillTimeMs(CHUNK, point);
    sum.fastestMs += model.prefillTimeMs(CHUNK, model.fastest);
  }
}

/**
 * A step costs all its streams something together, which they share alike, and each what it has in the KV cache. `all`: every
 * stream that takes part, foreign ones too. At the fastest point the same requests, arriving as they did, would be done sooner, and so
 * fewer of them would run at once: as many fewer as steps are faster (Little's law), but one at least.
 */
export function tokenCostOf(model: PerformanceModel, all: DecodeWork, point: PointIndex): TokenCost {
  const { fastest } = model;
  const here = { sequences: Math.max(1, all.sequences), contextTokens: Math.max(1, all.contextTokens) };
  const faster = model.decodeTimeMs(here, fastest) / model.decodeTimeMs(here, point);
  const fewer = Math.max(1 / here.sequences, Math.min(1, faster));
  const now = rateOf(model, here, point);
  const atFastest = rateOf(model, { sequences: here.sequences * fewer, contextTokens: here.contextTokens * fewer }, fastest);
  return {
    step: { energyJ: now.stepJ, fastestJ: atFastest.stepJ, timeMs: now.stepMs, fastestMs: atFastest.stepMs },
    context: { energyJ: now.contextJ, fastestJ: atFastest.contextJ, timeMs: now.contextMs, fastestMs: atFastest.contextMs },
  };
}

/** A stream's part of a step, and what each token of its context adds. */
function rateOf(model: PerformanceModel, work: DecodeWork, point: PointIndex): { readonly stepJ: number; readonly contextJ: number; readonly stepMs: number; readonly contextMs: number } {
  const bare = { sequences: work.sequences, contextTokens: 0 };
  const [stepJ, stepMs] = [model.decodeEnergyJ(bare, point), model.decodeTimeMs(bare, point)];
  return {
    stepJ: stepJ / work.sequences,
    contextJ: Math.max(0, model.decodeEnergyJ(work, point) - stepJ) / work.contextTokens,
    stepMs: stepMs / work.sequences,
    contextMs: Math.max(0, model.decodeTimeMs(work, point) - stepMs) / work.contextTokens,
  };
}

/** Added to `sum`: so many tokens of a stream, with so many in its cache on the average. */
export function addTokens(sum: WorkCost, { step, context }: TokenCost, tokens: number, contextTokens: number): void {
  sum.energyJ += tokens * (step.energyJ + contextTokens * context.energyJ);
  sum.fastestJ += tokens * (step.fastestJ + contextTokens * context.fastestJ);
  sum.timeMs += tokens * (step.timeMs + contextTokens * context.timeMs);
  sum.fastestMs += tokens * (step.fastestMs + contextTokens * context.fastestMs);
}

export function noWork(): WorkCost {
  return { energyJ: 0, fastestJ: 0, timeMs: 0, fastestMs: 0 };
}

export function addCost(sum: WorkCost, more: Readonly<WorkCost>): void {
  sum.energyJ += more.energyJ;
  sum.fastestJ += more.fastestJ;
  sum.timeMs += more.timeMs;
  sum.fastestMs += more.fastestMs;
}

export function scaleCost(cost: WorkCost, factor: number): void {
  cost.energyJ *= factor;
  cost.fastestJ *= factor;
  cost.timeMs *= factor;
  cost.fastestMs *= factor;
}

export function clearCost(cost: WorkCost): void {
  scaleCost(cost, 0);
}

const CHUNK = { tokens: 0, contextTokens: 0 };
