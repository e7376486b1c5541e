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
 * stream that takes part, foreign ones too.
 */
export function tokenCostOf(model: PerformanceModel, all: DecodeWork, point: PointIndex): TokenCost {
  const sequences = Math.max(1, all.sequences);
  const bare = { sequences, contextTokens: 0 };
  const full = { sequences, contextTokens: Math.max(1, all.contextTokens) };
  const { fastest } = model;
  const step = { energyJ: model.decodeEnergyJ(bare, point), fastestJ: model.decodeEnergyJ(bare, fastest), timeMs: model.decodeTimeMs(bare, point), fastestMs: model.decodeTimeMs(bare, fastest) };
  return {
    step: { energyJ: step.energyJ / sequences, fastestJ: step.fastestJ / sequences, timeMs: step.timeMs / sequences, fastestMs: step.fastestMs / sequences },
    context: {
      energyJ: Math.max(0, model.decodeEnergyJ(full, point) - step.energyJ) / full.contextTokens,
      fastestJ: Math.max(0, model.decodeEnergyJ(full, fastest) - step.fastestJ) / full.contextTokens,
      timeMs: Math.max(0, model.decodeTimeMs(full, point) - step.timeMs) / full.contextTokens,
      fastestMs: Math.max(0, model.decodeTimeMs(full, fastest) - step.fastestMs) / full.contextTokens,
    },
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
