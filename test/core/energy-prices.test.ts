import { expect, test } from 'vitest';
import { cheapestStart, type EnergyPrice, isAmongCheapest, meanPrice, timeAsCheapMs } from '../../src/core/energy-prices.ts';
import { createRandom } from '../../src/random/random.ts';

const HOURS: readonly EnergyPrice[] = [
  { fromMs: 0, price: 4 },
  { fromMs: 100, price: 1 },
  { fromMs: 200, price: 2 },
  { fromMs: 300, price: 0.5 },
];

test.each([
  ['none', [], 0, 10, 0],
  ['before the first', HOURS, -50, 25, 4],
  ['within one', HOURS, 110, 25, 1],
  ['over several', HOURS, 50, 200, (4 * 50 + 100 + 2 * 50) / 200],
  ['after the last', HOURS, 1_000, 25, 0.5],
])('the mean price of %s', (_what, prices, fromMs, forMs, price) => {
  expect(meanPrice(prices, fromMs, forMs)).toBeCloseTo(price, 12);
});

test.each([
  ['without prices it is now', [], 0, 500, 50, 0],
  ['where it is cheapest already, now', HOURS, 310, 900, 50, 310],
  ['at the first of the cheap hours that are in reach', HOURS, 0, 150, 50, 100],
  ['no later than the latest start', HOURS, 0, 80, 50, 80],
  ['earlier than the cheap hour, so that all of it fits in', HOURS, 0, 150, 100, 100],
  ['so that it ends with the cheap hour, where it is longer', [...HOURS.slice(0, 2), { fromMs: 200, price: 9 }], 0, 300, 120, 80],
  ['where there is no latest start, in the cheapest hour of all', HOURS, 0, Number.POSITIVE_INFINITY, 50, 300],
  ['where the latest start is past, now', HOURS, 50, 20, 50, 50],
  ['where the price does not change, now', [{ fromMs: 0, price: 3 }, { fromMs: 10, price: 3 }], 0, 100, 5, 0],
])('the cheapest start: %s', (_what, prices, nowMs, latestStartAtMs, workMs, startAtMs) => {
  expect(cheapestStart(prices, { nowMs, latestStartAtMs, workMs }).startAtMs).toBe(startAtMs);
});

test('no start on a fine grid is cheaper, over random prices', () => {
  const seed = 4_711;
  const random = createRandom(seed, 'energy-prices');
  for (let round = 0; round < 300; round++) {
    let fromMs = 0;
    const prices = Array.from({ length: 1 + Math.floor(random() * 8) }, () => ({ fromMs: (fromMs += 1 + Math.floor(random() * 40)), price: Math.floor(random() * 6) }));
    const nowMs = Math.floor(random() * 60);
    const latestStartAtMs = nowMs + Math.floor(random() * 200);
    const workMs = 1 + Math.floor(random() * 90);
    const { startAtMs, thenPrice, nowPrice } = cheapestStart(prices, { nowMs, latestStartAtMs, workMs });
    expect(startAtMs).toBeGreaterThanOrEqual(nowMs);
    expect(startAtMs).toBeLessThanOrEqual(Math.max(nowMs, latestStartAtMs));
    expect(thenPrice).toBeLessThanOrEqual(nowPrice);
    for (let atMs = nowMs; atMs <= latestStartAtMs; atMs++) {
      if (meanPrice(prices, atMs, workMs) < thenPrice - 1e-9) throw new Error(`seed ${seed}, round ${round}: ${atMs} is cheaper than ${startAtMs}`);
    }
  }
});

test.each([
  ['a dear hour with enough cheap time after it', 0, 400, 150, false],
  ['a dear hour with too little of it', 0, 400, 301, true],
  ['a middling hour, with the cheapest after it long enough', 210, 400, 90, false],
  ['a middling hour, with the cheapest after it too short', 210, 400, 110, true],
  ['the cheapest hour', 310, 400, 1, true],
  ['an hour of which all cheap time is past its end', 210, 250, 5, true],
])('work in pieces goes on in the cheapest hours that suffice: %s', (_what, nowMs, endAtMs, neededMs, goes) => {
  expect(isAmongCheapest(HOURS, { nowMs, endAtMs, neededMs })).toBe(goes);
});

test('the time as cheap as now counts what is left of this hour and all that is no dearer', () => {
  expect([timeAsCheapMs(HOURS, 50, 400), timeAsCheapMs(HOURS, 150, 250), timeAsCheapMs(HOURS, 250, 400), timeAsCheapMs([], 50, 400), timeAsCheapMs([], 500, 400)]).toEqual([350, 50, 150, 350, 0]);
});
