import { describe, expect, test } from 'vitest';
import { decodeStepMs } from '../../../src/simulator/rivals/predictions.ts';
import { createThrottLlem, keepsAll } from '../../../src/simulator/rivals/throttllem.ts';
import { context, FASTEST, MODEL, prompt, R0, SLOWEST, stream, streams, view } from './rival-views.ts';

const throttllem = createThrottLlem(context());

describe("throttLL'eM", () => {
  test.each([60, 27, 24, 21])('picks the lowest point at which the projected batch keeps a limit of %d ms between tokens', (tpotLimitMs) => {
    const replica = view({ running: streams(12, { tpotLimitMs }) });
    const lowest = MODEL.points.findIndex((_, point) => keepsAll(replica, point));
    expect(lowest).toBeGreaterThanOrEqual(0);
    expect(throttllem.choose(R0, replica, 'tick')).toBe(lowest);
  });

  test('counts the KV cache that is still to grow', () => {
    const growing = streams(60, { tpotLimitMs: (decodeStepMs(MODEL, SLOWEST, 60, 60_000) + decodeStepMs(MODEL, SLOWEST, 60, 150_000)) / 2 });
    const short = growing.map((one) => ({ ...one, remainingHigh: 2 }));
    expect(throttllem.choose(R0, view({ running: short }), 'tick')).toBe(SLOWEST);
    expect(throttllem.choose(R0, view({ running: growing.map((one) => ({ ...one, remainingHigh: 1500 })) }), 'tick')).toBeGreaterThan(SLOWEST);
  });

  test('counts that the batch shrinks: a long request alone at the end is no reason to hurry', () => {
    const end = (others: number): number => {
      const long = stream({ id: 'long', remainingHigh: 400, e2eDeadlineAtMs: 400 * decodeStepMs(MODEL, SLOWEST, 1, 1500) * 1.12 });
      return Number(throttllem.choose(R0, view({ running: [long, ...streams(others, { remainingHigh: 40 })] }), 'tick'));
    };
    const lasting = Number(throttllem.choose(R0, view({ running: [stream({ id: 'long', remainingHigh: 400, e2eDeadlineAtMs: 400 * decodeStepMs(MODEL, SLOWEST, 1, 1500) * 1.12 }), ...streams(60, { remainingHigh: 400 })] }), 'tick'));
    expect(end(60)).toBeLessThan(lasting);
  });

  test('keeps an end-to-end limit by the predicted length', () => {
    const deadline = (remainingHigh: number): number | null => throttllem.choose(R0, view({ running: [stream({ remainingHigh, e2eDeadlineAtMs: 4000 })] }), 'tick');
    expect(deadline(100)).toBe(SLOWEST);
    expect(deadline(190)).toBeGreaterThan(SLOWEST);
  });

  test('goes to the fastest point with a request that even that one loses', () => {
    expect(throttllem.choose(R0, view({ running: [stream({ e2eDeadlineAtMs: 10 }), stream({ id: 'other' })] }), 'tick')).toBe(FASTEST);
    expect(throttllem.choose(R0, view({ waiting: [prompt({ ttftDeadlineAtMs: 5 })] }), 'tick')).toBe(FASTEST);
  });

  test('is at the lowest point with nothing to keep', () => {
    expect(throttllem.choose(R0, view({ running: streams(30), waiting: [prompt()] }), 'tick')).toBe(SLOWEST);
  });
});
