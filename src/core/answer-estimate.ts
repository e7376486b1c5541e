// How many tokens to keep for an answer whose length its client did not bound: one and a half times what such answers have taken
// on average, so that most are covered; what they did not take is given back at their end.
import { LEARNT_KEYS_MAX } from './limits.ts';

export interface AnswerEstimate {
  observe(key: string, outputTokens: number): void;
  tokens(key: string): number;
}

/** Before anything was learnt: a long answer of a chat. */
const PRIOR_TOKENS = 512;
const LEARNING_RATE = 0.05;
const COVER_RATIO = 1.5;

export function createAnswerEstimate(): AnswerEstimate {
  const means = new Map<string, { mean: number; seen: number }>();
  return {
    observe: (key, outputTokens) => {
      const known = means.get(key);
      if (known === undefined) {
        if (means.size < LEARNT_KEYS_MAX) means.set(key, { mean: outputTokens, seen: 1 });
        return;
      }
      known.seen++;
      known.mean += (outputTokens - known.mean) * Math.max(LEARNING_RATE, 1 / known.seen);
    },
    tokens: (key) => Math.ceil((means.get(key)?.mean ?? PRIOR_TOKENS / COVER_RATIO) * COVER_RATIO),
  };
}
