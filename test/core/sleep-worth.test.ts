import fc from 'fast-check';
import { expect, test } from 'vitest';
import { breakEvenMs, wakeEnergyJ, wakePowerW } from '../../src/core/sleep-worth.ts';

const costs = fc.record({ powerW: fc.integer({ min: 0, max: 300 }), sleepMs: fc.integer({ min: 0, max: 10_000 }), wakeMs: fc.integer({ min: 0, max: 60_000 }), wakeEnergyJ: fc.integer({ min: 0, max: 50_000 }) });

/** Of a rest of so long, from the call that puts it to sleep to the instant at which it serves again. */
function restJ(sleep: { powerW: number; sleepMs: number; wakeMs: number; wakeEnergyJ: number }, parkedW: number, restMs: number): number {
  return (sleep.sleepMs * parkedW + (restMs - sleep.sleepMs - sleep.wakeMs) * sleep.powerW) / 1000 + sleep.wakeEnergyJ;
}

test('from the break-even on a rest costs less asleep than parked, and before it more, where it is possible at all', () => {
  fc.assert(
    fc.property(costs, fc.integer({ min: 1, max: 400 }), fc.integer({ min: 1, max: 100_000 }), (sleep, spareW, moreMs) => {
      const parkedW = sleep.powerW + spareW;
      const evenMs = breakEvenMs(sleep, parkedW, parkedW);
      expect(evenMs).toBeGreaterThanOrEqual(sleep.sleepMs + sleep.wakeMs);
      expect(restJ(sleep, parkedW, evenMs + moreMs)).toBeLessThanOrEqual((parkedW * (evenMs + moreMs)) / 1000 + 1e-6);
      const lessMs = Math.max(sleep.sleepMs + sleep.wakeMs, evenMs - moreMs);
      if (lessMs < evenMs) expect(restJ(sleep, parkedW, lessMs)).toBeGreaterThan((parkedW * lessMs) / 1000 - 1e-6);
    }),
  );
});

test('what draws as much asleep as parked never pays', () => {
  expect(breakEvenMs({ powerW: 100, sleepMs: 0, wakeMs: 0 }, 100, 200)).toBe(Number.POSITIVE_INFINITY);
});

test('waking takes what is said, or idling at the fastest point meanwhile', () => {
  const sleep = { powerW: 10, sleepMs: 0, wakeMs: 5_000 };
  expect([wakeEnergyJ(sleep, 200), wakePowerW(sleep, 200)]).toEqual([1_000, 200]);
  expect([wakeEnergyJ({ ...sleep, wakeEnergyJ: 300 }, 200), wakePowerW({ ...sleep, wakeEnergyJ: 300 }, 200)]).toEqual([300, 60]);
});
