// How long will the answer be? An online distribution of output lengths per key (model and tenant), used conditionally:
// given g tokens so far, quantiles of what is left. Bins grow by a constant factor, so the relative error is bounded.
import { LEARNT_KEYS_MAX, OUTPUT_TOKENS_MAX } from './limits.ts';

export interface LengthPredictor {
  /** A finished job of this key had so many output tokens. */
  observe(key: string, outputTokens: number): void;
  /**
   * The `quantile` (0–1) of the tokens still to come, given `tokensOut` so far; at least 1, at most what `maxOutputTokens`
   * leaves. Before anything was observed the answer comes from a broad prior.
   */
  remaining(key: string, tokensOut: number, quantile: number, maxOutputTokens: number): number;
  /**
   * The whole table at once: at each of `LENGTH_LEVELS` the quantile of the answer's *total* tokens, given that there are
   * more than `tokensOut`; ascending, each above `tokensOut` and at most `maxOutputTokens`.
   */
  totals(key: string, tokensOut: number, maxOutputTokens: number): Float64Array;
  /** Mean output length of the key, tokens. */
  mean(key: string): number;
  /** Answers of this key are said to have about so many tokens: what is believed until some were seen. The first word counts. */
  expect(key: string, outputTokens: number): void;
}

/** Levels of the table of quantiles that plans are made with: fine where a short answer loses its TPOT, coarse where it is long. */
export const LENGTH_LEVELS = [0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.9] as const;
/** Places in the table. */
export const LEVEL = { low: 2, middle: 6, high: 8 } as const;
/** What is called high, and by how many standard deviations it is above the middle, were lengths normal. */
export const HIGH = LENGTH_LEVELS[LEVEL.high];
export const HIGH_DEVIATIONS = 1.28;

/**
 * Probability that an answer ends with fewer than `tokens` in all, given that it has had `tokensOut`, by a table of `totals`;
 * linear between the levels, so as good as the table is fine.
 */
export function shareShorter(totals: Float64Array, tokensOut: number, tokens: number): number {
  if (tokens <= tokensOut) return 0;
  const gone = levelOf(totals, tokensOut);
  return Math.max(0, levelOf(totals, tokens) - gone) / (1 - gone);
}

/** The same for answers that are longer, up to the level that the table reaches: those beyond it are not counted. */
export function shareLonger(totals: Float64Array, tokensOut: number, tokens: number): number {
  return Math.max(0, LEVEL_MAX - levelOf(totals, Math.max(tokens, tokensOut))) / (1 - levelOf(totals, tokensOut));
}

function levelOf(totals: Float64Array, tokens: number): number {
  let place = 0;
  while (place < totals.length && (totals[place] as number) < tokens) place++;
  const below = place === 0 ? 0 : (totals[place - 1] as number);
  const levelBelow = place === 0 ? 0 : (LENGTH_LEVELS[place - 1] as number);
  // Beyond the table the tail is taken to be as long again as the middle is from its end.
  const above = place === totals.length ? below + Math.max(1, below - (totals[LEVEL.middle] as number)) : (totals[place] as number);
  const levelAbove = place === totals.length ? LEVEL_MAX : (LENGTH_LEVELS[place] as number);
  const share = above > below ? Math.min(1, (tokens - below) / (above - below)) : 1;
  return levelBelow + share * (levelAbove - levelBelow);
}

const LEVEL_MAX = 0.99;

const BIN_RATIO = 1.15;
const BINS = Math.ceil(Math.log(OUTPUT_TOKENS_MAX) / Math.log(BIN_RATIO)) + 1;

/** Older lengths fade: when a key has this many, all its counts are halved. About the last 2,000 answers count. */
const OBSERVED_MAX = 2000;

/** The prior weighs as much as this many answers. */
const PRIOR_WEIGHT = 6;
/** Log-normal with a median of 150 tokens and a broad spread, about what public chat traces show (Azure 2023: median 115). */
const PRIOR_LOG_MEDIAN = Math.log(150);
const PRIOR_LOG_SPREAD = 1.1;
/** Of a length that somebody said: within a factor of two, mostly. */
const SAID_LOG_SPREAD = 0.5;

interface Lengths {
  /** Weight by bin before anything was seen. */
  readonly prior: Float64Array;
  readonly counts: Float64Array;
  /** `tails[i]`: weight of bins ≥ i; rebuilt when read after a change. */
  readonly tails: Float64Array;
  stale: boolean;
  total: number;
  /** `null` after a change. */
  mean: number | null;
}

export function createLengthPredictor(): LengthPredictor {
  const byKey = new Map<string, Lengths>();
  const overflow = emptyLengths();

  function lengthsOf(key: string, prior = PRIOR): Lengths {
    const known = byKey.get(key);
    if (known !== undefined) return known;
    if (byKey.size >= LEARNT_KEYS_MAX) return overflow;
    const fresh = emptyLengths(prior);
    byKey.set(key, fresh);
    return fresh;
  }

  return {
    observe(key, outputTokens) {
      const lengths = lengthsOf(key);
      const bin = binOf(Math.max(1, outputTokens));
      lengths.counts[bin] = (lengths.counts[bin] as number) + 1;
      lengths.total += 1;
      if (lengths.total > OBSERVED_MAX) {
        for (let index = 0; index < BINS; index++) lengths.counts[index] = (lengths.counts[index] as number) / 2;
        lengths.total /= 2;
      }
      lengths.stale = true;
      lengths.mean = null;
    },
    remaining(key, tokensOut, quantile, maxOutputTokens) {
      const tails = tailsOf(lengthsOf(key));
      const left = Math.max(1, maxOutputTokens - tokensOut);
      const beyond = tailAt(tails, tokensOut);
      if (beyond <= 1e-9) return 1;
      const wanted = beyond * (1 - quantile);
      // The first bin whose upper edge leaves no more than the wanted weight above it.
      let low = 0;
      let high = BINS - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((tails[middle + 1] as number) <= wanted) high = middle;
        else low = middle + 1;
      }
      const above = tails[low + 1] as number;
      const inBin = (tails[low] as number) - above;
      const share = inBin > 0 ? ((tails[low] as number) - wanted) / inBin : 0;
      const total = lowerEdge(low) + share * (lowerEdge(low + 1) - lowerEdge(low));
      return Math.min(left, Math.max(1, total - tokensOut));
    },
    totals(key, tokensOut, maxOutputTokens) {
      const tails = tailsOf(lengthsOf(key));
      const table = new Float64Array(LENGTH_LEVELS.length);
      const beyond = tailAt(tails, tokensOut);
      let bin = 0;
      for (let place = 0; place < table.length; place++) {
        const wanted = beyond * (1 - (LENGTH_LEVELS[place] as number));
        while (bin < BINS - 1 && (tails[bin + 1] as number) > wanted) bin++;
        const above = tails[bin + 1] as number;
        const inBin = (tails[bin] as number) - above;
        const share = inBin > 0 ? ((tails[bin] as number) - wanted) / inBin : 0;
        const total = lowerEdge(bin) + share * (lowerEdge(bin + 1) - lowerEdge(bin));
        table[place] = beyond <= 1e-9 ? tokensOut + 1 : Math.max(tokensOut + 1, Math.min(maxOutputTokens, total));
      }
      return table;
    },
    mean(key) {
      const lengths = lengthsOf(key);
      if (lengths.mean !== null) return lengths.mean;
      const { counts, prior } = lengths;
      let weight = 0;
      let sum = 0;
      for (let bin = 0; bin < BINS; bin++) {
        const inBin = (counts[bin] as number) + (prior[bin] as number);
        weight += inBin;
        sum += inBin * Math.sqrt(lowerEdge(bin) * lowerEdge(bin + 1));
      }
      lengths.mean = sum / weight;
      return lengths.mean;
    },
    expect(key, outputTokens) {
      if (byKey.has(key)) return;
      // So that the mean is what was said: that of a log-normal is above its median.
      lengthsOf(key, priorOf(Math.log(Math.max(1, outputTokens)) - SAID_LOG_SPREAD ** 2 / 2, SAID_LOG_SPREAD));
    },
  };
}

function emptyLengths(prior = PRIOR): Lengths {
  return { prior, counts: new Float64Array(BINS), tails: new Float64Array(BINS + 1), stale: true, total: 0, mean: null };
}

function tailsOf(lengths: Lengths): Float64Array {
  if (lengths.stale) {
    let tail = 0;
    for (let bin = BINS - 1; bin >= 0; bin--) {
      tail += (lengths.counts[bin] as number) + (lengths.prior[bin] as number);
      lengths.tails[bin] = tail;
    }
    lengths.stale = false;
  }
  return lengths.tails;
}

/** Weight of lengths above `tokens`, linear within a bin. */
function tailAt(tails: Float64Array, tokens: number): number {
  if (tokens < 1) return tails[0] as number;
  const bin = binOf(tokens);
  const from = lowerEdge(bin);
  const share = Math.min(1, (tokens - from) / (lowerEdge(bin + 1) - from));
  return (tails[bin] as number) - share * ((tails[bin] as number) - (tails[bin + 1] as number));
}

function binOf(tokens: number): number {
  return Math.min(BINS - 1, Math.floor(Math.log(tokens) / Math.log(BIN_RATIO)));
}

const LOWER_EDGES = Float64Array.from({ length: BINS + 1 }, (_, bin) => BIN_RATIO ** bin);

function lowerEdge(bin: number): number {
  return LOWER_EDGES[bin] as number;
}

/** Weight by bin: a discretised normal density over log length. */
function priorOf(logMedian: number, logSpread: number): Float64Array {
  const weights = Float64Array.from({ length: BINS }, (_, bin) => {
    const distance = (Math.log(BIN_RATIO) * (bin + 0.5) - logMedian) / logSpread;
    return Math.exp(-(distance ** 2) / 2);
  });
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => (weight / sum) * PRIOR_WEIGHT);
}

const PRIOR = priorOf(PRIOR_LOG_MEDIAN, PRIOR_LOG_SPREAD);
