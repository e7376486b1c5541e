// How far predictions are off, learnt online by SLO class: a median by which they are corrected, and how much above that
// the upper quantile lies.
import { createQuantileTracker, type QuantileTracker } from './quantile-tracker.ts';
import { LEARNT_KEYS_MAX } from './limits.ts';

/** Level of the upper quantile. */
export const UPPER_LEVEL = 0.9;

export interface PredictionErrors {
  /** The median of what a raw prediction of so many milliseconds turns out to be, and its upper quantile. */
  corrected(sloClass: string, rawMs: number): { readonly medianMs: number; readonly upperMs: number };
  observe(sloClass: string, rawMs: number, actualMs: number): void;
}

export function createPredictionErrors(): PredictionErrors {
  const byClass = new Map<string, { readonly median: QuantileTracker; readonly upper: QuantileTracker }>();
  const fresh = (): { readonly median: QuantileTracker; readonly upper: QuantileTracker } => ({ median: createQuantileTracker(0.5), upper: createQuantileTracker(UPPER_LEVEL) });
  const others = fresh();
  const of = (sloClass: string): ReturnType<typeof fresh> => {
    const known = byClass.get(sloClass);
    if (known !== undefined) return known;
    if (byClass.size >= LEARNT_KEYS_MAX) return others;
    const made = fresh();
    byClass.set(sloClass, made);
    return made;
  };
  return {
    corrected(sloClass, rawMs) {
      const { median, upper } = of(sloClass);
      const medianMs = rawMs * median.value();
      return { medianMs, upperMs: Math.max(medianMs, rawMs * upper.value()) };
    },
    observe(sloClass, rawMs, actualMs) {
      if (!(rawMs > 0) || !(actualMs > 0)) return;
      const { median, upper } = of(sloClass);
      median.observe(actualMs / rawMs);
      upper.observe(actualMs / rawMs);
    },
  };
}
