// What others have learnt, beside what was seen here.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Learnt } from '../../src/core/shared-learning.ts';
import { blended, NOTHING_LEARNT, OTHERS_SAMPLES_MAX, SAMPLES_MAX, TIME_SCALE_BOUNDS, together } from '../../src/core/shared-learning.ts';

const learnt = (value: number, samples: number): Learnt => ({ value, samples });

test.each([
  { what: 'who has seen nothing takes what others say', own: learnt(1, 0), others: learnt(1.5, 4), expected: 1.5 },
  { what: 'nobody has seen anything', own: learnt(1, 0), others: NOTHING_LEARNT, expected: 1 },
  { what: 'who has seen as much as the others stays with it', own: learnt(1.2, 4), others: learnt(2, 4), expected: 1.2 },
  { what: 'others count by as much as they have seen more', own: learnt(1, 2), others: learnt(2, 4), expected: 1.5 },
  { what: 'others count no more than so many samples', own: learnt(1, 10), others: learnt(2, 1_000), expected: (10 * 1 + OTHERS_SAMPLES_MAX * 2) / (10 + OTHERS_SAMPLES_MAX) },
  { what: 'who has seen a lot is not moved', own: learnt(1.1, 500), others: learnt(2, 80), expected: 1.1 },
])('$what', ({ own, others, expected }) => {
  expect(blended(own, others)).toBeCloseTo(expected, 10);
});

test.each([
  { each: [], expected: NOTHING_LEARNT },
  { each: [learnt(2, 0)], expected: NOTHING_LEARNT },
  { each: [learnt(1, 2), learnt(2, 6)], expected: learnt(1.75, 8) },
  { each: [learnt(1, 1e9), learnt(2, SAMPLES_MAX)], expected: learnt(1.5, 2 * SAMPLES_MAX) },
])('of $each all together is $expected', ({ each, expected }) => {
  expect(together(each)).toEqual(expected);
});

test('what comes of bounded values is within the bounds, whatever is said and however often', () => {
  const { min, max } = TIME_SCALE_BOUNDS;
  const bounded = fc.record({ value: fc.double({ min, max, noNaN: true }), samples: fc.nat(1_000_000) });
  fc.assert(
    fc.property(bounded, fc.array(bounded, { maxLength: 64 }), (own, others) => {
      const value = blended(own, together(others));
      expect(value).toBeGreaterThanOrEqual(min - 1e-9);
      expect(value).toBeLessThanOrEqual(max + 1e-9);
    }),
  );
});
