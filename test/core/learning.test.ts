import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createArrivalForecast } from '../../src/core/arrival-forecast.ts';
import { createGuardBands } from '../../src/core/guard-band.ts';
import { createLengthPredictor, LENGTH_LEVELS, shareShorter } from '../../src/core/length-predictor.ts';
import { LEARNT_KEYS_MAX } from '../../src/core/limits.ts';
import { createPredictionErrors } from '../../src/core/prediction-error.ts';
import { createPromptEstimator } from '../../src/core/prompt-estimator.ts';
import { createRandom } from '../../src/random/random.ts';

describe('output lengths', () => {
  test('come from a broad prior before anything was seen', () => {
    const lengths = createLengthPredictor();
    expect(lengths.remaining('k', 0, 0.5, Infinity)).toBeGreaterThan(80);
    expect(lengths.remaining('k', 0, 0.5, Infinity)).toBeLessThan(300);
  });

  test('are learnt per key: quantiles come within a bin of the real ones', () => {
    const lengths = createLengthPredictor();
    const random = createRandom(7, 'lengths');
    const drawn = Array.from({ length: 1500 }, () => Math.ceil(20 + 400 * random() ** 2));
    for (const tokens of drawn) lengths.observe('k', tokens);
    drawn.sort((a, b) => a - b);
    for (const quantile of [0.1, 0.5, 0.9]) {
      const real = drawn[Math.floor(quantile * drawn.length)] as number;
      expect(Math.abs(lengths.remaining('k', 0, quantile, Infinity) - real) / real).toBeLessThan(0.15);
    }
    expect(Math.abs(lengths.mean('k') - drawn.reduce((a, b) => a + b, 0) / drawn.length)).toBeLessThan(25);
    expect(lengths.remaining('other', 0, 0.9, Infinity)).not.toBe(lengths.remaining('k', 0, 0.9, Infinity));
  });

  test('are conditional on progress: who has passed the short answers is in a long one', () => {
    const lengths = createLengthPredictor();
    for (let index = 0; index < 600; index++) lengths.observe('k', index % 2 === 0 ? 20 : 1000);
    expect(lengths.remaining('k', 0, 0.25, Infinity)).toBeLessThan(40);
    expect(lengths.remaining('k', 100, 0.25, Infinity)).toBeGreaterThan(600);
  });

  test('never exceed what max_tokens leaves, never fall below one, rise with the quantile', () => {
    const lengths = createLengthPredictor();
    lengths.observe('k', 5000);
    fc.assert(
      fc.property(fc.nat(20_000), fc.double({ min: 0.01, max: 0.99, noNaN: true }), fc.double({ min: 0.01, max: 0.99, noNaN: true }), fc.integer({ min: 1, max: 30_000 }), (out, a, b, max) => {
        const low = lengths.remaining('k', out, Math.min(a, b), max);
        const high = lengths.remaining('k', out, Math.max(a, b), max);
        expect(low).toBeGreaterThanOrEqual(1);
        expect(high).toBeLessThanOrEqual(Math.max(1, max - out));
        expect(high).toBeGreaterThanOrEqual(low - 1e-9);
      }),
    );
  });

  test('as a table are the same quantiles, of the whole answer', () => {
    const lengths = createLengthPredictor();
    for (let index = 0; index < 500; index++) lengths.observe('k', 5 + index);
    for (const out of [0, 7, 120]) {
      const table = lengths.totals('k', out, 450);
      expect(table).toHaveLength(LENGTH_LEVELS.length);
      for (const [place, level] of LENGTH_LEVELS.entries()) expect(table[place]).toBeCloseTo(out + lengths.remaining('k', out, level, 450), 6);
    }
  });

  test('tell how likely an answer ends before so many tokens, given how far it is', () => {
    const lengths = createLengthPredictor();
    for (let index = 0; index < 1000; index++) lengths.observe('k', 100 + (index % 100));
    const table = lengths.totals('k', 0, Infinity);
    expect(shareShorter(table, 0, 60)).toBeLessThan(0.02);
    expect(shareShorter(table, 0, 150)).toBeGreaterThan(0.4);
    expect(shareShorter(table, 0, 150)).toBeLessThan(0.6);
    expect(shareShorter(table, 140, 150)).toBeLessThan(shareShorter(table, 0, 150));
    expect(shareShorter(table, 150, 150)).toBe(0);
    fc.assert(
      fc.property(fc.nat(400), fc.nat(400), fc.nat(400), (out, a, b) => {
        const [less, more] = [shareShorter(table, out, Math.min(a, b)), shareShorter(table, out, Math.max(a, b))];
        expect(less).toBeLessThanOrEqual(more + 1e-12);
        expect(less).toBeGreaterThanOrEqual(0);
        expect(more).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('of too many keys share one: memory is bounded', () => {
    const lengths = createLengthPredictor();
    for (let key = 0; key < LEARNT_KEYS_MAX + 50; key++) lengths.observe(`k${key}`, 10);
    for (let index = 0; index < 500; index++) lengths.observe('late', 5000);
    expect(lengths.remaining('later still', 0, 0.5, Infinity)).toBe(lengths.remaining('late', 0, 0.5, Infinity));
    expect(lengths.remaining('k1', 0, 0.5, Infinity)).toBeLessThan(1000);
  });
});

test('a prompt of a model that was not seen yet is counted as others have seen it, whatever its tenant', () => {
  const [first, second] = [createPromptEstimator(), createPromptEstimator()];
  for (let index = 0; index < 10; index++) first.observe('m\na', 2000, 1000);
  for (let index = 0; index < 10; index++) first.observe('m\nb', 4000, 1000);
  expect([...first.learnt()]).toEqual([['m', { value: 3, samples: 20 }]]);
  second.peersLearnt(first.learnt());
  expect(second.tokens('m\nc', 3000)).toBe(1000);
  expect(second.tokens('n\nc', 3600)).toBe(1000);
  expect([...second.learnt()]).toEqual([]);
  for (let index = 0; index < 30; index++) second.observe('m\nc', 6000, 1000);
  expect(second.tokens('m\nc', 6000)).toBe(1000);
});

test('a prompt is counted by the ratio that usage has shown, and too high rather than too low before', () => {
  const prompts = createPromptEstimator();
  expect(prompts.tokens('k', 4000)).toBeGreaterThan(1000);
  for (let index = 0; index < 100; index++) prompts.observe('k', 5200, 1000);
  expect(prompts.tokens('k', 10_400)).toBe(2000);
  prompts.observe('k', 0, 0);
  for (let index = 0; index < 300; index++) prompts.observe('odd', 10, 1_000_000);
  expect(prompts.tokens('odd', 100)).toBe(200);
});

describe('the arrival forecast', () => {
  test('settles at the real rate and fades when nothing comes', () => {
    const forecast = createArrivalForecast();
    for (let index = 0; index < 600; index++) forecast.observe(700, index * 200);
    expect(forecast.at(120_000).perMs * 1000).toBeCloseTo(5, 0);
    expect(forecast.at(120_000).promptTokensMean).toBeCloseTo(700, -1);
    expect(forecast.at(300_000).perMs * 1000).toBeLessThan(0.01);
  });

  test('sees a burst in its upper rate before the mean has moved', () => {
    const forecast = createArrivalForecast();
    for (let index = 0; index < 100; index++) forecast.observe(700, index * 1000);
    for (let index = 0; index < 20; index++) forecast.observe(700, 99_000 + index * 50);
    const { perMs, upperPerMs } = forecast.at(100_000);
    expect(upperPerMs).toBeGreaterThan(2 * perMs);
  });

  test('expects nothing before the first arrival', () => {
    expect(createArrivalForecast().at(5000)).toMatchObject({ perMs: 0, upperPerMs: 0 });
  });
});

describe('a guard band', () => {
  test('widens on a miss, narrows on hits, within its bounds', () => {
    const guards = createGuardBands(0.99);
    const start = guards.of('chat');
    guards.observe('chat', false);
    expect(guards.of('chat')).toBeGreaterThan(start);
    for (let index = 0; index < 10_000; index++) guards.observe('chat', true);
    expect(guards.of('chat')).toBeLessThan(start);
    expect(guards.of('chat')).toBeGreaterThan(0);
    for (let index = 0; index < 100; index++) guards.observe('chat', false);
    expect(guards.of('chat')).toBeLessThanOrEqual(4);
    expect(guards.of('batch')).toBe(start);
  });

  test('settles where the misses are fewer than allowed', () => {
    const guards = createGuardBands(0.98);
    const random = createRandom(3, 'misses');
    let misses = 0;
    for (let index = 0; index < 20_000; index++) {
      const met = random() > Math.exp(-3 * guards.of('chat'));
      if (!met && index > 2000) misses += 1;
      guards.observe('chat', met);
    }
    expect(misses / 18_000).toBeLessThan(0.02);
    expect(misses / 18_000).toBeGreaterThan(0.004);
  });
});

describe('errors of prediction', () => {
  test('are corrected by their median, and nine of ten stay below the upper quantile, whatever the bias', () => {
    const errors = createPredictionErrors();
    const random = createRandom(11, 'errors');
    let below = 0;
    let belowUpper = 0;
    const count = 6000;
    for (let index = 0; index < 2 * count; index++) {
      const rawMs = 100 + 400 * random();
      const actualMs = rawMs * (1.3 + 0.6 * random());
      const { medianMs, upperMs } = errors.corrected('chat', rawMs);
      if (index >= count) {
        below += actualMs <= medianMs ? 1 : 0;
        belowUpper += actualMs <= upperMs ? 1 : 0;
      }
      errors.observe('chat', rawMs, actualMs);
    }
    expect(below / count).toBeGreaterThan(0.45);
    expect(below / count).toBeLessThan(0.55);
    expect(belowUpper / count).toBeGreaterThan(0.87);
    expect(belowUpper / count).toBeLessThan(0.93);
  });

  test('are none before anything was seen, and of too many classes share one', () => {
    const errors = createPredictionErrors();
    expect(errors.corrected('chat', 80)).toEqual({ medianMs: 80, upperMs: 80 });
    for (let index = 0; index < LEARNT_KEYS_MAX; index++) errors.corrected(`class ${index}`, 1);
    for (let index = 0; index < 200; index++) errors.observe('late', 100, 300);
    expect(errors.corrected('later still', 100)).toEqual(errors.corrected('late', 100));
  });

  test('ignore what took no time or has no prediction', () => {
    const errors = createPredictionErrors();
    errors.observe('chat', 0, 100);
    errors.observe('chat', 100, 0);
    expect(errors.corrected('chat', 100)).toEqual({ medianMs: 100, upperMs: 100 });
  });
});
