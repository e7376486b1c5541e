// Random variates by textbook methods, each from a `Random` it is given.
import type { Random } from './random.ts';

/** In (0, 1]: safe to take the logarithm of. */
function positiveUniform(random: Random): number {
  return 1 - random();
}

export function exponential(random: Random, mean: number): number {
  return -Math.log(positiveUniform(random)) * mean;
}

/** Box–Muller, one of the pair: the other is dropped so that a draw leaves no state behind. */
export function standardNormal(random: Random): number {
  return Math.sqrt(-2 * Math.log(positiveUniform(random))) * Math.cos(2 * Math.PI * random());
}

/** Log-normal by its own mean and coefficient of variation, not by those of its logarithm. */
export function logNormal(random: Random, mean: number, cv: number): number {
  const variance = Math.log(1 + cv ** 2);
  return Math.exp(Math.log(mean) - variance / 2 + Math.sqrt(variance) * standardNormal(random));
}

/** Source: Marsaglia & Tsang, A simple method for generating gamma variables, ACM TOMS 26 (2000); shapes below 1 by their boost. */
export function gamma(random: Random, shape: number, scale: number): number {
  if (shape < 1) return gamma(random, shape + 1, scale) * positiveUniform(random) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = standardNormal(random);
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(positiveUniform(random)) < 0.5 * x ** 2 + d - d * v + d * Math.log(v)) return d * v * scale;
  }
}

export function weibull(random: Random, shape: number, scale: number): number {
  return scale * (-Math.log(positiveUniform(random))) ** (1 / shape);
}

/** Values and the running sum of their weights; the last sum is the total, whatever rounding made of it. */
export interface Discrete {
  readonly values: readonly number[];
  readonly cumulative: readonly number[];
}

/** `null` where nothing has a weight. */
export function discrete(weights: Iterable<readonly [value: number, weight: number]>): Discrete | null {
  const values: number[] = [];
  const cumulative: number[] = [];
  let total = 0;
  for (const [value, weight] of weights) {
    if (weight <= 0) continue;
    total += weight;
    values.push(value);
    cumulative.push(total);
  }
  return total > 0 ? { values, cumulative } : null;
}

export function drawDiscrete(random: Random, { values, cumulative }: Discrete): number {
  const target = random() * (cumulative.at(-1) ?? 0);
  let low = 0;
  let high = cumulative.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((cumulative[middle] ?? 0) > target) high = middle;
    else low = middle + 1;
  }
  return values[low] ?? 0;
}
