// How long an answer gets: where it would end by itself, and what cuts it short.
import type { GenerationRequest } from './openai-request.ts';
import type { Random } from '../random/random.ts';
import { standardNormal } from '../random/distributions.ts';

/** Chat answers in public traces (Azure 2023, BurstGPT) have medians of 100 to 250 tokens and a long tail. */
const MEDIAN_TOKENS = 150;
/** Standard deviation of the logarithm; 95 % within a factor of 4.8. */
const LOG_SPREAD = 0.8;

export interface OutputLength {
  readonly tokens: number;
  /** `stop`: it ended by itself. */
  readonly finishReason: 'stop' | 'length';
}

/** `roomTokens` is what the KV memory leaves after the prompt; at least 1. With `ignore_eos` only limits end an answer. */
export function outputLength(request: Pick<GenerationRequest, 'maxTokens' | 'minTokens' | 'ignoreEos' | 'naturalTokens'>, roomTokens: number, random: Random): OutputLength {
  const limitTokens = Math.min(request.maxTokens ?? Infinity, roomTokens);
  if (request.ignoreEos && request.maxTokens !== null) return { tokens: limitTokens, finishReason: 'length' };
  const drawnTokens = request.naturalTokens ?? Math.max(1, Math.round(MEDIAN_TOKENS * Math.exp(LOG_SPREAD * standardNormal(random))));
  const naturalTokens = Math.max(drawnTokens, request.minTokens);
  return naturalTokens < limitTokens ? { tokens: naturalTokens, finishReason: 'stop' } : { tokens: limitTokens, finishReason: 'length' };
}
