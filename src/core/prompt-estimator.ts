// How many tokens is a prompt of so many bytes? A ratio learnt from `usage`, per key (model and tenant): languages, code
// and chat templates differ. What of them is cached is another question (`prefix-affinity.ts`).
import { LEARNT_KEYS_MAX } from './limits.ts';

export interface PromptEstimator {
  observe(key: string, promptBytes: number, promptTokens: number): void;
  tokens(key: string, promptBytes: number): number;
}

/** English text in current tokenizers, before anything was learnt. Low on purpose: too many tokens predicted is the safe side. */
const BYTES_PER_TOKEN_PRIOR = 3.6;
/** Memory of about the last 50 prompts. */
const LEARNING_RATE = 0.02;
/** Bytes per token outside of this are a mistake of the counting (a template, a hidden prompt), not a language. */
const BYTES_PER_TOKEN = { min: 0.5, max: 16 };

export function createPromptEstimator(): PromptEstimator {
  const ratios = new Map<string, { bytesPerToken: number; seen: number }>();
  return {
    observe(key, promptBytes, promptTokens) {
      if (promptBytes <= 0 || promptTokens <= 0) return;
      const observed = Math.min(BYTES_PER_TOKEN.max, Math.max(BYTES_PER_TOKEN.min, promptBytes / promptTokens));
      const known = ratios.get(key);
      if (known === undefined) {
        if (ratios.size >= LEARNT_KEYS_MAX) return;
        ratios.set(key, { bytesPerToken: observed, seen: 1 });
        return;
      }
      // A plain mean first, exponentially weighted once that forgets faster.
      known.seen += 1;
      known.bytesPerToken += (observed - known.bytesPerToken) * Math.max(LEARNING_RATE, 1 / known.seen);
    },
    tokens(key, promptBytes) {
      return Math.max(1, Math.ceil(promptBytes / (ratios.get(key)?.bytesPerToken ?? BYTES_PER_TOKEN_PRIOR)));
    },
  };
}
