// An upper quantile of a ratio, learnt online: how far real times run above predicted ones. Keeps one number.

export interface QuantileTracker {
  /** The quantile of the ratios seen so far; 1 before any. */
  value(): number;
  observe(ratio: number): void;
}

/** Ratios outside are a restart or a stall, not an error of prediction. */
const RATIO = { min: 0.1, max: 10 };
const STEP = { first: 0.2, least: 0.01 };

/**
 * Stochastic approximation in the logarithm: up by step·level on a ratio above, down by step·(1 − level) on one below, so that it
 * settles where a share `level` lies below. Source: Robbins and Monro, A Stochastic Approximation Method, 1951.
 */
export function createQuantileTracker(level: number): QuantileTracker {
  let logValue = 0;
  let seen = 0;
  return {
    value: () => Math.exp(logValue),
    observe(ratio) {
      if (!(ratio > 0)) return;
      seen += 1;
      const logRatio = Math.log(Math.min(RATIO.max, Math.max(RATIO.min, ratio)));
      const step = Math.max(STEP.least, STEP.first / Math.sqrt(seen));
      logValue += step * (logRatio > logValue ? level : level - 1);
    },
  };
}
