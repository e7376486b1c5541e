import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createScale, numberText } from '../../src/plot/scale.ts';

const PIXELS = { from: 50, to: 500 };

describe('an axis', () => {
  test.each([
    { values: [2, 97], ticks: [0, 20, 40, 60, 80, 100] },
    { values: [90, 97], ticks: [90, 92, 94, 96, 98] },
    { values: [-0.3, 0.9], ticks: [-0.5, 0, 0.5, 1] },
    { values: [], ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] },
    { values: [5], ticks: [5, 6, 7, 8, 9, 10] },
    { values: [Number.NaN, Number.POSITIVE_INFINITY, 1], ticks: [1, 1.2, 1.4, 1.6, 1.8, 2] },
  ])('over $values has the ticks $ticks', ({ values, ticks }) => {
    expect(createScale({ kind: 'linear', values, pixels: PIXELS }).ticks).toEqual(ticks);
  });

  test.each([
    { values: [3, 80], ticks: [2, 5, 10, 20, 50, 100] },
    { values: [0.001, 90_000], ticks: [0.001, 0.01, 0.1, 1, 10, 100, 1_000, 10_000, 100_000] },
    { values: [0, -3], ticks: [1, 2, 5, 10] },
  ])('by powers of ten over $values has the ticks $ticks', ({ values, ticks }) => {
    expect(createScale({ kind: 'log', values, pixels: PIXELS }).ticks).toEqual(ticks);
  });

  test.each(['linear', 'log'] as const)('over two values that differ by the dust of binary fractions alone ends (%s): its ticks were counted for ever', (kind) => {
    const scale = createScale({ kind, values: [100.1, 100.1 * (1 + 1e-15)], pixels: PIXELS });
    expect(scale.ticks.length).toBeLessThan(12);
    expect(scale.at(100.1)).toBeGreaterThanOrEqual(50);
    expect(scale.at(100.1)).toBeLessThanOrEqual(500);
  });

  test('that is told its ends has them', () => {
    const scale = createScale({ kind: 'linear', values: [3, 300], from: 10, to: 95, pixels: PIXELS });
    expect([scale.from, scale.to, scale.at(10), scale.at(95)]).toEqual([10, 95, 50, 500]);
    expect(scale.ticks).toEqual([20, 40, 60, 80]);
  });

  test('has all of its values on it, in their order, and a handful of ticks, whatever they are', () => {
    const values = fc.array(fc.double({ min: 1e-6, max: 1e9, noNaN: true }), { minLength: 2, maxLength: 20 });
    fc.assert(
      fc.property(fc.constantFrom('linear', 'log'), values, (kind, some) => {
        const scale = createScale({ kind, values: some, pixels: PIXELS });
        const places = some.toSorted((a, b) => a - b).map(scale.at);
        expect(places[0]).toBeGreaterThanOrEqual(PIXELS.from - 1e-6);
        expect(places.at(-1)).toBeLessThanOrEqual(PIXELS.to + 1e-6);
        for (const [index, place] of places.entries()) if (index > 0) expect(place).toBeGreaterThanOrEqual((places[index - 1] as number) - 1e-9);
        expect(scale.ticks.length).toBeGreaterThanOrEqual(1);
        expect(scale.ticks.length).toBeLessThanOrEqual(20);
      }),
      { seed: 7 },
    );
  });
});

test.each([
  [0, '0'],
  [1234567, '1\u202f234\u202f567'],
  [99.96, '100'],
  [12.345, '12.3'],
  [1.5, '1.5'],
  [0.01234, '0.012'],
  [-4500, '-4\u202f500'],
  [1e-6, '1.0e-6'],
  [Number.NaN, '–'],
])('%d is written %s', (value, text) => {
  expect(numberText(value)).toBe(text);
});
