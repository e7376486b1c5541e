import { expect, test } from 'vitest';
import { createRandom, type Random } from '../../src/random/random.ts';
import { type Interval, meanInterval, ratioInterval, ROUNDS_MIN, shareDifference, wilsonInterval } from '../../src/statistics/intervals.ts';

function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** How often the interval of `size` draws holds the truth. */
function coverage(size: number, draw: (random: Random) => number, truth: number, interval: (values: readonly number[], random: Random) => Interval | null, trials = 4000): number {
  const random = createRandom(7, `coverage-${size}`);
  let held = 0;
  for (let trial = 0; trial < trials; trial++) {
    const { low, high } = interval(Array.from({ length: size }, () => draw(random)), random) as Interval;
    if (low <= truth && truth <= high) held++;
  }
  return held / trials;
}

/** Of 4,000 trials a share of 0.95 has a standard error of 0.0034. */
const NOISE = 0.012;

test.each([3, 4, 6, 10, 31, 60])('of %d normal rounds the interval holds the mean in 95 of 100 cases', (size) => {
  expect(Math.abs(coverage(size, (random) => 5 + 2 * normal(random), 5, meanInterval) - 0.95)).toBeLessThan(NOISE);
});

test.each([4, 6, 10])('of %d ratios with a lognormal error the interval holds the ratio in 95 of 100 cases', (size) => {
  expect(Math.abs(coverage(size, (random) => 0.6 * Math.exp(0.3 * normal(random)), 0.6, ratioInterval) - 0.95)).toBeLessThan(NOISE);
});

test('of few rounds a percentile bootstrap is too narrow, which is why it is not used', () => {
  const bootstrap = (values: readonly number[], random: Random): Interval => {
    const means = Array.from({ length: 200 }, () => values.reduce((sum) => sum + (values[Math.floor(random() * values.length)] as number), 0) / values.length).toSorted((one, other) => one - other);
    return { low: means[5] as number, high: means[194] as number };
  };
  const held = coverage(5, (random) => normal(random), 0, bootstrap, 2000);
  expect(held).toBeGreaterThan(0.78);
  expect(held).toBeLessThan(0.88);
});

test('skewed rounds cost the interval a little and not more', () => {
  // Exponential: far more skewed than energies of rounds are.
  const held = coverage(6, (random) => -Math.log(1 - random()), 1, meanInterval);
  expect(held).toBeGreaterThan(0.86);
  expect(held).toBeLessThan(0.95);
});

test('fewer rounds than the least have no interval', () => {
  const values = [1, 2, 3, 4];
  expect(meanInterval(values.slice(0, ROUNDS_MIN - 1))).toBeNull();
  expect(ratioInterval(values.slice(0, ROUNDS_MIN - 1))).toBeNull();
  expect(meanInterval(values.slice(0, ROUNDS_MIN))).toEqual({ mean: 2, low: expect.closeTo(2 - 4.303 / Math.sqrt(3), 9), high: expect.closeTo(2 + 4.303 / Math.sqrt(3), 9) });
});

test('a half and a double make one', () => {
  expect(ratioInterval([0.5, 2, 1])?.mean).toBeCloseTo(1, 12);
});

test.each([
  // Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
  { successes: 81, total: 263, low: 0.2553, high: 0.3662 },
  { successes: 15, total: 148, low: 0.0624, high: 0.1605 },
  { successes: 0, total: 20, low: 0, high: 0.1611 },
  { successes: 1, total: 29, low: 0.0061, high: 0.1718 },
])('Wilson: $successes of $total lies between $low and $high', ({ low, high, ...share }) => {
  expect(wilsonInterval(share)).toEqual({ low: expect.closeTo(low, 4), high: expect.closeTo(high, 4) });
});

test.each([
  // Newcombe, Statistics in Medicine 17 (1998) 873, table II, method 10; there p1 - p2.
  { first: { successes: 48, total: 80 }, second: { successes: 56, total: 70 }, low: 0.0524, high: 0.3339 },
  { first: { successes: 0, total: 10 }, second: { successes: 10, total: 10 }, low: 0.6075, high: 1 },
  { first: { successes: 0, total: 20 }, second: { successes: 0, total: 10 }, low: -0.1611, high: 0.2775 },
])('Newcombe: $second minus $first lies between $low and $high', ({ first, second, low, high }) => {
  expect(shareDifference(first, second)).toMatchObject({ low: expect.closeTo(low, 4), high: expect.closeTo(high, 4) });
});

test('of nothing there is no share', () => {
  expect(wilsonInterval({ successes: 0, total: 0 })).toBeNull();
  expect(shareDifference({ successes: 0, total: 0 }, { successes: 1, total: 1 })).toBeNull();
});
