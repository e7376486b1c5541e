// How many of something rare to be ready for. A normal approximation says "none" just where one arrival decides.

/** Above this mean the normal approximation is good to a percent, and summing would be slow. */
const SUMMED_MEAN_MAX = 30;

/**
 * Upper quantile of a Poisson count with the given mean, at the confidence that `deviations` standard deviations of a normal
 * variable give; interpolated between counts, so that it moves smoothly. 0 for a mean of 0.
 * The normal tail Q(x) ≈ ½·exp(−0.416x² − 0.717x) is good to 2 % of its value up to 4 deviations
 * (López-Benítez and Casadevall, IEEE Transactions on Communications 59(4), 2011).
 */
export function poissonQuantile(mean: number, deviations: number): number {
  if (mean <= 0) return 0;
  if (mean > SUMMED_MEAN_MAX) return mean + deviations * Math.sqrt(mean);
  const tail = 0.5 * Math.exp(-0.416 * deviations ** 2 - 0.717 * deviations);
  let probability = Math.exp(-mean);
  let below = probability;
  if (below >= 1 - tail) return 0;
  for (let count = 1; ; count++) {
    probability *= mean / count;
    if (below + probability >= 1 - tail || probability < 1e-12) return count - 1 + Math.min(1, (1 - tail - below) / Math.max(probability, 1e-12));
    below += probability;
  }
}
