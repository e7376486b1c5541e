// How much room to leave. One band per SLO class that tunes itself: a miss widens it, a hit narrows it a little, in the
// proportion that settles where the share of misses is the one allowed, no wider than needed.

export interface GuardBands {
  /** How much caution, in standard deviations of what is uncertain. */
  of(sloClass: string): number;
  /** The end of a job that could have been met when it was sent. */
  observe(sloClass: string, met: boolean): void;
}

const BAND = { start: 1, min: 0.3, max: 4 };
/** A miss moves the band by about this much. */
const STEP = 0.25;

/**
 * Adaptive conformal inference: band += STEP · (missed − allowed). Between its bounds the long-run share of misses is the one
 * aimed at, half of `1 − attainmentTarget`, whatever the distribution; at the upper bound more are missed than that.
 * Source: Gibbs and Candès, Adaptive Conformal Inference Under Distribution Shift, NeurIPS 2021.
 */
export function createGuardBands(attainmentTarget: number, tunes = true): GuardBands {
  // Half of the allowed misses are aimed at: the other half is for what no band can help (a restart, a stuck switch).
  const allowed = (1 - attainmentTarget) / 2;
  const bands = new Map<string, number>();
  return {
    of: (sloClass) => bands.get(sloClass) ?? BAND.start,
    observe(sloClass, met) {
      if (!tunes) return;
      const moved = (bands.get(sloClass) ?? BAND.start) + STEP * ((met ? 0 : 1) - allowed);
      bands.set(sloClass, Math.min(BAND.max, Math.max(BAND.min, moved)));
    },
  };
}
