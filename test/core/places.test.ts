import { expect, test } from 'vitest';
import { createPlaces } from '../../src/core/places.ts';

function held(jobs: Readonly<Record<string, number>>, weights: Readonly<Record<string, number>> = {}) {
  const places = createPlaces();
  for (const [tenant, count] of Object.entries(jobs)) for (let job = 0; job < count; job++) places.took(tenant, weights[tenant] ?? 1, 0);
  return places;
}

test('a tenant that is alone may have all', () => {
  expect(held({ a: 50 }).keptFrom('a', 100, 0)).toBe(0);
});

test('with far more than its share it leaves a tenth free, with less it may have the last', () => {
  const places = held({ a: 90, b: 1 });
  expect([places.keptFrom('a', 100, 0), places.keptFrom('b', 100, 0), places.keptFrom('new', 100, 0)]).toEqual([10, 0, 0]);
});

test('its share is that of its weight', () => {
  expect(held({ a: 93, b: 7 }, { a: 3 }).keptFrom('a', 100, 0)).toBe(0);
  expect(held({ a: 95, b: 5 }, { a: 3 }).keptFrom('a', 100, 0)).toBe(10);
});

test('one that was here a while ago finds room, one that has not come for long is not waited for', () => {
  const places = held({ a: 90, b: 1 });
  places.gave('b');
  expect(places.keptFrom('a', 100, 500_000)).toBe(10);
  expect(places.keptFrom('a', 100, 700_000)).toBe(0);
});

test('of one place nothing is kept, and of a few one', () => {
  const places = held({ a: 3, b: 1 });
  expect([1, 2, 4].map((room) => places.keptFrom('a', room, 0))).toEqual([0, 1, 1]);
});
