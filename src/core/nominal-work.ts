// How much of a fleet is one job? A measure that does not depend on what else runs: what tenants are charged for, and what
// the length of a queue is told in.
import type { PerformanceModel } from '../frontier/performance-model.ts';

/** A batch as busy replicas have; its steps are shared by so many. */
const BATCH = 64;

/** Milliseconds of a replica at its fastest point: the prefill alone, and this job's part of each step of a full batch. */
export function nominalWorkMs(model: PerformanceModel, promptTokens: number, outputTokens: number): number {
  const sequences = Math.min(BATCH, model.profile.serving.maxSequences);
  const contextTokens = sequences * (promptTokens + outputTokens / 2);
  const prefillMs = model.prefillTimeMs({ tokens: Math.max(1, promptTokens), contextTokens: 0 }, model.fastest);
  return prefillMs + (outputTokens * model.decodeTimeMs({ sequences, contextTokens }, model.fastest)) / sequences;
}
