// Confidence intervals, all of 95 %. Pure.
//
// Means over rounds take Student's t. Rounds are few (three to ten), and a percentile bootstrap of so few values is too narrow: of
// five normal ones it holds the mean in 83 % of cases, not 95 (test/statistics/intervals.test.ts counts both). Ratios are averaged as
// logarithms, so that a half and a double cancel out, and so that what is averaged is near enough to symmetric.

export interface Interval {
  readonly low: number;
  readonly high: number;
}

export interface Estimate extends Interval {
  readonly mean: number;
}

/** Fewer rounds tell no interval that is worth the name: of two, t multiplies the standard error by 12.7. */
export const ROUNDS_MIN = 3;

const Z = 1.959963984540054;
/** The 0.975 quantiles of Student's t with 1, 2, … 30 degrees of freedom. Source: any table, e.g. NIST/SEMATECH e-Handbook 1.3.6.7.2. */
const T_975 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064,
  2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/** The mean of independent values, such as one difference per round; `null` below `ROUNDS_MIN`. */
export function meanInterval(values: readonly number[]): Estimate | null {
  if (values.length < ROUNDS_MIN) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  const half = tQuantile(values.length - 1) * Math.sqrt(variance / values.length);
  return { mean, low: mean - half, high: mean + half };
}

/** The geometric mean of positive ratios; `null` below `ROUNDS_MIN`. */
export function ratioInterval(ratios: readonly number[]): Estimate | null {
  const logs = meanInterval(ratios.map((ratio) => Math.log(ratio)));
  return logs === null ? null : { mean: Math.exp(logs.mean), low: Math.exp(logs.low), high: Math.exp(logs.high) };
}

export interface Share {
  readonly successes: number;
  readonly total: number;
}

/**
 * A share, from 0 to 1; never narrower than what so few can tell, even where all or none succeeded. `null` without any.
 * Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209. It takes each as drawn by itself; bursts in which many miss together are wider than it says.
 */
export function wilsonInterval({ successes, total }: Share): Interval | null {
  if (total === 0) return null;
  const share = successes / total;
  const centre = (share + Z ** 2 / (2 * total)) / (1 + Z ** 2 / total);
  const half = (Z / (1 + Z ** 2 / total)) * Math.sqrt((share * (1 - share)) / total + Z ** 2 / (4 * total ** 2));
  // Rounding must not put what was seen outside of its own interval.
  return { low: Math.min(share, Math.max(0, centre - half)), high: Math.max(share, Math.min(1, centre + half)) };
}

/** The second share minus the first. Source: Newcombe, Statistics in Medicine 17 (1998) 873, method 10. `null` where one is of nothing. */
export function shareDifference(first: Share, second: Share): Estimate | null {
  const [one, other] = [wilsonInterval(first), wilsonInterval(second)];
  if (one === null || other === null) return null;
  const [p1, p2] = [first.successes / first.total, second.successes / second.total];
  return { mean: p2 - p1, low: p2 - p1 - Math.hypot(p2 - other.low, one.high - p1), high: p2 - p1 + Math.hypot(other.high - p2, p1 - one.low) };
}

/** Beyond the table by Cornish and Fisher's expansion, right to four digits there. */
function tQuantile(degrees: number): number {
  return T_975[degrees - 1] ?? Z + (Z ** 3 + Z) / (4 * degrees) + (5 * Z ** 5 + 16 * Z ** 3 + 3 * Z) / (96 * degrees ** 2);
}
