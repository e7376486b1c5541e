// How many tokens is a prompt of so many bytes? A ratio learnt from `usage`, per key (model and tenant): languages, code
// and chat templates differ. What of them is cached is another question (`prefix-affinity.ts`).
import { LEARNT_KEYS_MAX } from './limits.ts';
import type { Learnt } from './shared-learning.ts';
import { blended, BYTES_PER_TOKEN_BOUNDS, NOTHING_LEARNT, together } from './shared-learning.ts';

export interface PromptEstimator {
  observe(key: string, promptBytes: number, promptTokens: number): void;
  tokens(key: string, promptBytes: number): number;
  /** Of the prompts of a key; `null`: none was seen. */
  meanTokens(key: string): number | null;
  /** By model, all its tenants together. */
  learnt(): ReadonlyMap<string, Learnt>;
  /** By model, what other gateways have learnt: instead of what they said before. */
  peersLearnt(others: ReadonlyMap<string, Learnt>): void;
}

/** English text in current tokenizers, before anything was learnt. Low on purpose: too many tokens predicted is the safe side. */
const BYTES_PER_TOKEN_PRIOR = 3.6;
/** Memory of about the last 50 prompts. */
const LEARNING_RATE = 0.02;

export function createPromptEstimator(): PromptEstimator {
  const ratios = new Map<string, { bytesPerToken: number; tokensMean: number; seen: number }>();
  let others: ReadonlyMap<string, Learnt> = new Map();
  return {
    observe(key, promptBytes, promptTokens) {
      if (promptBytes <= 0 || promptTokens <= 0) return;
      const observed = Math.min(BYTES_PER_TOKEN_BOUNDS.max, Math.max(BYTES_PER_TOKEN_BOUNDS.min, promptBytes / promptTokens));
      const known = ratios.get(key);
      if (known === undefined) {
        if (ratios.size >= LEARNT_KEYS_MAX) return;
        ratios.set(key, { bytesPerToken: observed, tokensMean: promptTokens, seen: 1 });
        return;
      }
      // A plain mean first, exponentially weighted once that forgets faster.
      known.seen += 1;
      const rate = Math.max(LEARNING_RATE, 1 / known.seen);
      known.bytesPerToken += (observed - known.bytesPerToken) * rate;
      known.tokensMean += (promptTokens - known.tokensMean) * rate;
    },
    tokens(key, promptBytes) {
      const { bytesPerToken, seen } = ratios.get(key) ?? { bytesPerToken: BYTES_PER_TOKEN_PRIOR, seen: 0 };
      const ratio = others.size === 0 ? bytesPerToken : blended({ value: bytesPerToken, samples: seen }, others.get(modelOf(key)) ?? NOTHING_LEARNT);
      return Math.max(1, Math.ceil(promptBytes / ratio));
    },
    meanTokens: (key) => ratios.get(key)?.tokensMean ?? null,
    learnt() {
      const byModel = Map.groupBy(ratios, ([key]) => modelOf(key));
      return new Map([...byModel].map(([model, known]) => [model, together(known.map(([, { bytesPerToken, seen }]) => ({ value: bytesPerToken, samples: seen })))]));
    },
    peersLearnt: (told) => {
      others = told;
    },
  };
}

function modelOf(key: string): string {
  const end = key.lastIndexOf('\n');
  return end < 0 ? key : key.slice(0, end);
}
