import { expect, test } from 'vitest';
import { discrete, drawDiscrete, exponential, gamma, logNormal, weibull } from '../../src/random/distributions.ts';
import { createRandom, xoshiro128starstar } from '../../src/random/random.ts';
import type { Random } from '../../src/random/random.ts';

test('xoshiro128** gives the numbers of its reference in C', () => {
  const next = xoshiro128starstar([1, 2, 3, 4]);
  // Printed by https://prng.di.unimi.it/xoshiro128starstar.c started from {1, 2, 3, 4}.
  const reference = [11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804];
  expect(reference.map(() => next())).toEqual(reference);
});

test('a seed and a name give the same stream again; another seed or name gives another', () => {
  const first = (seed: number, name: string) => {
    const random = createRandom(seed, name);
    return Array.from({ length: 5 }, () => random());
  };
  expect(first(1, 'arrivals')).toEqual(first(1, 'arrivals'));
  const streams = [first(1, 'arrivals'), first(2, 'arrivals'), first(1, 'sizes'), first(2 ** 32 + 1, 'arrivals'), first(0, '')];
  expect(new Set(streams.map(String)).size).toBe(streams.length);
});

test('uniform numbers lie in [0, 1) and fill it evenly', () => {
  const random = createRandom(7, 'uniform');
  const tenths = Array.from({ length: 10 }, () => 0);
  const values = Array.from({ length: 100_000 }, () => random());
  expect(values.every((value) => value >= 0 && value < 1)).toBe(true);
  for (const value of values) tenths[Math.floor(value * 10)]! += 1;
  for (const count of tenths) expect(Math.abs(count - 10_000)).toBeLessThan(500);
});

const GAMMA_1_5 = 0.886_226_925; // Γ(1.5): the mean of a Weibull with shape 2
test.each<{ name: string; draw: (random: Random) => number; mean: number; cv: number }>([
  { name: 'exponential', draw: (random) => exponential(random, 3), mean: 3, cv: 1 },
  { name: 'gamma with shape below 1', draw: (random) => gamma(random, 0.25, 2), mean: 0.5, cv: 2 },
  { name: 'gamma with shape above 1', draw: (random) => gamma(random, 4, 0.5), mean: 2, cv: 0.5 },
  { name: 'Weibull', draw: (random) => weibull(random, 2, 5), mean: 5 * GAMMA_1_5, cv: Math.sqrt(1 / GAMMA_1_5 ** 2 - 1) },
  { name: 'log-normal', draw: (random) => logNormal(random, 1000, 0.8), mean: 1000, cv: 0.8 },
])('$name has its mean and coefficient of variation', ({ draw, mean, cv }) => {
  const random = createRandom(11, 'moments');
  const values = Array.from({ length: 200_000 }, () => draw(random));
  const gotMean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - gotMean) ** 2, 0) / values.length;
  expect(gotMean / mean).toBeCloseTo(1, 1.5);
  expect(Math.sqrt(variance) / gotMean / cv).toBeCloseTo(1, 1.3);
});

test('discrete values come as often as they weigh, and those without weight never', () => {
  const table = discrete([[10, 0.5], [20, 0], [30, 1.5]]);
  const random = createRandom(3, 'discrete');
  const values = Array.from({ length: 20_000 }, () => drawDiscrete(random, table!));
  expect(new Set(values)).toEqual(new Set([10, 30]));
  expect(values.filter((value) => value === 30).length / values.length).toBeCloseTo(0.75, 1.5);
  expect(discrete([[10, 0]])).toBeNull();
});
