// Workloads made up from a seed: Poisson or bursty arrivals, fixed or log-normal sizes.
import type { Workload, WorkloadRequest } from './request.ts';
import { gamma, exponential, logNormal } from '../random/distributions.ts';
import { REQUEST_TOKENS_MAX, WORKLOAD_REQUESTS_MAX } from './limits.ts';
import { createRandom } from '../random/random.ts';
import type { Random } from '../random/random.ts';
import { WorkloadError, quoted } from './workload-error.ts';

/** How many tokens: always the same, or log-normal by mean and coefficient of variation. */
export type Size =
  | { readonly kind: 'fixed'; readonly tokens: number }
  | { readonly kind: 'lognormal'; readonly meanTokens: number; readonly cv: number };

/**
 * Bursty arrivals are a gamma renewal process: gaps of mean 1/rate and the given coefficient of variation. It needs one
 * number where a Markov-modulated process needs four, and is what ServeGen fitted to production and vLLM's `--burstiness` uses.
 */
export type Arrivals =
  | { readonly kind: 'poisson'; readonly ratePerS: number }
  | { readonly kind: 'bursty'; readonly ratePerS: number; readonly cv: number };

export interface Synthetic {
  readonly arrivals: Arrivals;
  readonly promptTokens: Size;
  readonly outputTokens: Size;
  readonly durationS: number;
  readonly seed: number;
}

export function makeSynthetic({ arrivals, promptTokens, outputTokens, durationS, seed }: Synthetic): Workload {
  if (arrivals.ratePerS * durationS > WORKLOAD_REQUESTS_MAX) {
    throw new WorkloadError(`${arrivals.ratePerS} requests/s for ${durationS} s are more than ${WORKLOAD_REQUESTS_MAX} requests; take a lower rate or a shorter duration`);
  }
  // A stream each: another rate sends the same sizes, other sizes keep the same arrivals.
  const gapS = createRandom(seed, 'synthetic/arrivals');
  const promptSize = createRandom(seed, 'synthetic/prompt');
  const outputSize = createRandom(seed, 'synthetic/output');
  const requests: WorkloadRequest[] = [];
  for (let atS = drawGapS(gapS, arrivals); atS < durationS && requests.length < WORKLOAD_REQUESTS_MAX; atS += drawGapS(gapS, arrivals)) {
    requests.push({ atMs: atS * 1000, promptTokens: drawSize(promptSize, promptTokens), outputTokens: drawSize(outputSize, outputTokens) });
  }
  const shape = arrivals.kind === 'bursty' ? ` cv ${arrivals.cv}` : '';
  return { name: `${arrivals.kind} ${arrivals.ratePerS}/s${shape}, ${sizeName(promptTokens)} in, ${sizeName(outputTokens)} out`, requests };
}

function drawGapS(random: Random, arrivals: Arrivals): number {
  const meanS = 1 / arrivals.ratePerS;
  if (arrivals.kind === 'poisson') return exponential(random, meanS);
  const shape = 1 / arrivals.cv ** 2;
  return gamma(random, shape, meanS / shape);
}

function drawSize(random: Random, size: Size): number {
  const drawn = size.kind === 'fixed' ? size.tokens : logNormal(random, size.meanTokens, size.cv);
  return Math.min(Math.max(Math.round(drawn), 1), REQUEST_TOKENS_MAX);
}

/** `1023`, or `lognormal:MEAN:CV`. `name` is what the message calls it. */
export function parseSize(text: string, name: string): Size {
  const [kind = '', ...numbers] = text.split(':');
  const values = numbers.map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const [meanTokens = Number.NaN, cv = Number.NaN] = values;
  if (/^\d{1,9}$/.test(text) && Number(text) >= 1 && Number(text) <= REQUEST_TOKENS_MAX) return { kind: 'fixed', tokens: Number(text) };
  if (kind === 'lognormal' && values.length === 2 && meanTokens >= 1 && meanTokens <= REQUEST_TOKENS_MAX && cv > 0 && cv <= 10) return { kind: 'lognormal', meanTokens, cv };
  throw new WorkloadError(`${name}: got ${quoted(text)}, want a whole number of tokens (1023) or lognormal:MEAN:CV (lognormal:1000:0.8)`);
}

function sizeName(size: Size): string {
  return size.kind === 'fixed' ? String(size.tokens) : `~${size.meanTokens}`;
}
