import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { WINDOW_SLOTS, createSlidingWindow, emptyAfterMs, leftAfterMs } from '../../src/core/sliding-window.ts';

describe('a window', () => {
  test('holds what came in this second and the sixty before it', () => {
    const window = createSlidingWindow();
    window.add(1_000, 3, 1_000);
    window.add(1_060, 4, 1_060);
    expect(window.sum(1_060)).toBe(7);
    expect(window.sum(1_061)).toBe(4);
    expect(window.sum(1_120)).toBe(4);
    expect(window.sum(1_121)).toBe(0);
  });

  test('gives back in the second that it was taken in, no more than was there, and nothing outside of it', () => {
    const window = createSlidingWindow();
    window.add(1_000, 10, 1_000);
    window.add(1_030, 5, 1_030);
    window.add(1_000, -4, 1_031);
    expect(window.sum(1_031)).toBe(11);
    window.add(1_030, -50, 1_031);
    expect(window.sum(1_031)).toBe(6);
    window.add(1_000, -6, 1_070);
    expect(window.sum(1_070)).toBe(0);
  });

  test('stands still while its clock is set back, and begins anew where that is more than a window', () => {
    const window = createSlidingWindow();
    window.add(1_000, 3, 1_000);
    expect(window.sum(990)).toBe(3);
    window.add(990, 2, 990);
    expect(window.sum(1_060)).toBe(3);
    window.add(2_000, 2, 2_000);
    expect(window.sum(100)).toBe(0);
  });

  test.each([
    { excess: 1, nowMs: 1_020_500, waitMs: 40_500 },
    { excess: 3, nowMs: 1_020_500, waitMs: 40_500 },
    { excess: 4, nowMs: 1_020_500, waitMs: 50_500 },
    { excess: 9, nowMs: 1_020_500, waitMs: null },
  ])('$excess of 3 at 1000 s and 5 at 1010 s have left $waitMs ms after $nowMs', ({ excess, nowMs, waitMs }) => {
    const window = createSlidingWindow();
    window.add(1_000, 3, 1_000);
    window.add(1_010, 5, 1_010);
    expect(leftAfterMs(window.slots(Math.floor(nowMs / 1_000)), excess, nowMs)).toBe(waitMs);
    expect(emptyAfterMs(window.slots(Math.floor(nowMs / 1_000)), nowMs)).toBe(50_500);
  });
});

test('law: where only what fits is let through, no minute, wherever it begins, has more than the limit, and what is waited for fits then', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 20 }), fc.array(fc.tuple(fc.integer({ min: 0, max: 15_000 }), fc.integer({ min: 1, max: 6 })), { minLength: 1, maxLength: 200 }), (limit, arrivals) => {
      const window = createSlidingWindow();
      const taken: { atMs: number; amount: number }[] = [];
      let nowMs = 5_000_000;
      for (const [afterMs, amount] of arrivals) {
        nowMs += afterMs;
        const nowS = Math.floor(nowMs / 1_000);
        const excess = window.sum(nowS) + amount - limit;
        if (excess <= 0) {
          window.add(nowS, amount, nowS);
          taken.push({ atMs: nowMs, amount });
        } else if (amount <= limit) {
          const waitMs = leftAfterMs(window.slots(nowS), excess, nowMs) as number;
          const later = taken.filter(({ atMs }) => Math.floor(atMs / 1_000) > Math.floor((nowMs + waitMs) / 1_000) - WINDOW_SLOTS);
          expect(later.reduce((sum, { amount: one }) => sum + one, 0) + amount).toBeLessThanOrEqual(limit);
        }
      }
      for (const { atMs: startMs } of taken) {
        const minute = taken.filter(({ atMs }) => atMs >= startMs && atMs <= startMs + 60_000);
        expect(minute.reduce((sum, { amount }) => sum + amount, 0)).toBeLessThanOrEqual(limit);
      }
    }),
    { seed: 7, numRuns: 300 },
  );
});
