import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createBelievedCache } from '../../src/core/believed-cache.ts';

test('counts the leading blocks that were kept, up to the first that was not', () => {
  const cache = createBelievedCache(10_000, 100);
  cache.keep([1, 2, 3], 100);
  expect([[1, 2, 3, 4], [1, 2, 9], [9, 10, 11], []].map((blocks) => cache.hits(blocks))).toEqual([3, 2, 0, 0]);
});

test('forgets the least lately used when it is full, of one prompt its end first', () => {
  const cache = createBelievedCache(400, 100);
  cache.keep([1, 2], 100);
  cache.keep([3, 4], 100);
  cache.keep([1, 5], 100);
  expect([cache.hits([1, 2]), cache.hits([1, 5]), cache.hits([3, 4]), cache.size()]).toEqual([1, 2, 2, 4]);
  cache.keep([6], 100);
  expect([cache.hits([3, 4]), cache.hits([1, 5]), cache.hits([6])]).toEqual([1, 2, 1]);
});

test('holds no more blocks than it may, however small they are, and of one prompt that is too long the beginning', () => {
  const cache = createBelievedCache(1e9, 3);
  cache.keep([1, 2, 3, 4, 5], 1);
  expect([cache.size(), cache.hits([1, 2, 3, 4, 5])]).toEqual([3, 3]);
});

test('lets go of what a smaller capacity does not hold, and is never larger than it was made', () => {
  const cache = createBelievedCache(400, 100);
  cache.keep([1, 2, 3, 4], 100);
  cache.resize(200);
  expect(cache.hits([1, 2, 3, 4])).toBe(2);
  cache.resize(1_000);
  cache.keep([1, 2, 3, 4, 5, 6], 100);
  expect(cache.hits([1, 2, 3, 4, 5, 6])).toBe(4);
});

test('whatever is kept, grown and dropped, hits are those found one by one, and the bounds hold', () => {
  // Chained like hashes: a block stands for all that is before it.
  const path = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 8 }).map((steps) => steps.map((_, end) => Number(`1${steps.slice(0, end + 1).join('')}`)));
  const act = fc.oneof(fc.record({ keep: path }), fc.record({ drop: path, from: fc.nat(8) }), fc.record({ resize: fc.nat(1500) }));
  fc.assert(
    fc.property(fc.array(act, { maxLength: 40 }), path, (acts, asked) => {
      const cache = createBelievedCache(1_000, 12);
      for (const step of acts) {
        if ('keep' in step) cache.keep(step.keep, 100);
        else if ('drop' in step) cache.drop(step.drop, step.from);
        else cache.resize(step.resize);
        if (cache.size() > 10) return false;
      }
      const oneByOne = asked.findIndex((block) => cache.hits([block]) === 0);
      return acts.some((step) => 'drop' in step) || cache.hits(asked) === (oneByOne < 0 ? asked.length : oneByOne);
    }),
    { numRuns: 500 },
  );
});
