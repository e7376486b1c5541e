// Which works tell most of a replica for the least. Time is linear in the work (prefill: 1, n, n·(n/2 + context); decode: 1, sequences,
// context), and power is a curve over its size; so sizes are spread over their logarithm, and one work of each phase has a long context.
import type { Work } from './measurement.ts';

export interface Serving {
  readonly maxBatchTokens: number;
  readonly maxSequences: number;
  readonly kvTokens: number;
}

/** Much shorter prompts are done before the next one can have come over HTTP. */
const PROMPT_TOKENS_MIN = 64;
const SHORT_CONTEXT_TOKENS = 128;
/** A measurement with a long context first has to fill it; much longer than this no one waits. */
const FILL_MS_MAX = 20_000;
/** Four long prompts are measured. */
const LONG_PROMPT_MS_MAX = 3_000;
/** So much of the KV memory may be needed, answers included. */
const KV_SHARE_MAX = 0.5;

/**
 * `prefillMsPerToken`: at the slowest point, about; bounds how long a context is filled. Both probes are among the works: of two
 * points' works these show best whether a third lies between them.
 */
export function worksOf({ maxBatchTokens, maxSequences, kvTokens }: Serving, prefillMsPerToken: number): { readonly works: readonly Work[]; readonly probes: readonly Work[] } {
  const short = Math.min(PROMPT_TOKENS_MIN, maxBatchTokens);
  const middle = Math.max(short, Math.round(Math.sqrt(short * maxBatchTokens)));
  const chunks = 4 * maxBatchTokens * prefillMsPerToken < LONG_PROMPT_MS_MAX ? 4 : 2;
  const long = Math.min(chunks * maxBatchTokens, Math.floor((kvTokens * KV_SHARE_MAX) / 2 / maxBatchTokens) * maxBatchTokens);
  const few = Math.max(1, Math.round(maxSequences ** 0.45));
  const some = Math.max(1, Math.round(maxSequences ** 0.72));
  const contextTokens = Math.min((kvTokens * KV_SHARE_MAX) / 2, FILL_MS_MAX / prefillMsPerToken);
  const decode = (sequences: number, promptTokens: number): Work => ({ kind: 'decode', sequences, promptTokens: Math.max(16, Math.floor(promptTokens)) });
  const fits = (sequences: number): number => Math.min(SHORT_CONTEXT_TOKENS, (kvTokens * KV_SHARE_MAX) / 2 / sequences);
  const prefill = (tokens: number): Work => ({ kind: 'prefill', tokens });
  const works = unique([
    { kind: 'idle' },
    decode(1, fits(1)),
    decode(few, fits(few)),
    decode(some, Math.max(fits(some), contextTokens / some)),
    decode(maxSequences, fits(maxSequences)),
    prefill(short),
    prefill(middle),
    prefill(maxBatchTokens),
    ...(long > maxBatchTokens ? [prefill(long)] : []),
  ]);
  return { works, probes: [decode(few, fits(few)), prefill(middle)] };
}

/** Of a small server several of them are one. */
function unique(works: readonly Work[]): Work[] {
  return [...new Map(works.map((work) => [JSON.stringify(work), work])).values()];
}
