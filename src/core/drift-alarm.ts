// Has a replica left its profile? A two-sided CUSUM on the logarithms of real over believed times, of one phase. Small differences are
// corrected in silence (`corrections.ts`); this says when they are large and lasting enough that somebody should measure anew.

export type Drift =
  | { readonly kind: 'steady' }
  /** Real over believed time of late, and when it began to be so. */
  | { readonly kind: 'drifted'; readonly ratio: number; readonly sinceMs: number };

export interface DriftAlarm {
  /** One sample of real over believed time. */
  observe(ratio: number, nowMs: number): void;
  state(): Drift;
}

/** Samples that are averaged first: single ones are neither normal nor independent. */
export const DRIFT_BATCH = 8;
/** A difference that is left to the corrections, as a logarithm: about ten percent. */
export const DRIFT_TOLERANCE = Math.log(1.1);
/** Decision interval, in standard deviations of a batch. */
export const DRIFT_INTERVAL = 8;

/** Standard deviation of a batch: estimated from differences of neighbours, which a shift of the mean leaves as they are. */
const DEVIATION = { start: 0.05, least: 0.02, rate: 0.05 };
const MEAN_RATE = 0.2;
/** Half as far off as is tolerated, or less, is well again. */
const WELL = DRIFT_TOLERANCE / 2;
const SAMPLE_MAX = Math.log(4);

/**
 * CUSUM with reference value k = tolerance/σ and decision interval h = 8 (both in σ of a batch). As long as the true mean is 0, a
 * side raises a false alarm once in about (exp(2kb) − 2kb − 1)/(2k²) batches, b = h + 1.166: with σ at 0.2, which is noisier than
 * servers are, every 13 600 batches (k = 0.48), with σ at 0.1 (k = 0.95) once in 2·10⁷. A shift of 23 % at σ = 0.05 is seen within 4 to 5 batches.
 * It ends by itself when a CUSUM of the opposite question says that the mean is within half the tolerance.
 * Source: Page, Continuous Inspection Schemes, Biometrika 41 (1954); the approximation is Siegmund's, Sequential Analysis (1985),
 * as given in Montgomery, Introduction to Statistical Quality Control, chapter 9.
 */
export function createDriftAlarm(): DriftAlarm {
  let batch = { sum: 0, samples: 0, sinceMs: 0 };
  let [slower, faster, well] = [0, 0, 0];
  let slowerSinceMs = 0;
  let fasterSinceMs = 0;
  let mean = 0;
  let before: number | null = null;
  let variance = DEVIATION.start ** 2;
  let drifted: number | null = null;

  function batchSeen(x: number, sinceMs: number): void {
    if (before !== null) variance += DEVIATION.rate * ((x - before) ** 2 / 2 - variance);
    mean = before === null ? x : mean + MEAN_RATE * (x - mean);
    before = x;
    const deviation = Math.max(DEVIATION.least, Math.sqrt(variance));
    if (slower === 0) slowerSinceMs = sinceMs;
    if (faster === 0) fasterSinceMs = sinceMs;
    slower = Math.max(0, slower + (x - DRIFT_TOLERANCE) / deviation);
    faster = Math.max(0, faster + (-DRIFT_TOLERANCE - x) / deviation);
    if (drifted === null) {
      if (slower <= DRIFT_INTERVAL && faster <= DRIFT_INTERVAL) return;
      drifted = slower > faster ? slowerSinceMs : fasterSinceMs;
      well = 0;
      return;
    }
    well = Math.max(0, well + (WELL - Math.abs(x)) / deviation);
    if (well <= DRIFT_INTERVAL) return;
    drifted = null;
    [slower, faster] = [0, 0];
  }

  return {
    observe(ratio, nowMs) {
      if (!(ratio > 0)) return;
      if (batch.samples === 0) batch.sinceMs = nowMs;
      batch.sum += Math.min(SAMPLE_MAX, Math.max(-SAMPLE_MAX, Math.log(ratio)));
      batch.samples += 1;
      if (batch.samples < DRIFT_BATCH) return;
      const { sum, samples, sinceMs } = batch;
      batch = { sum: 0, samples: 0, sinceMs: 0 };
      batchSeen(sum / samples, sinceMs);
    },
    state: () => (drifted === null ? { kind: 'steady' } : { kind: 'drifted', ratio: Math.exp(mean), sinceMs: drifted }),
  };
}
