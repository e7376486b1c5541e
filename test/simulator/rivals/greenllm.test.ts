import { describe, expect, test } from 'vitest';
import { createGreenLlm } from '../../../src/simulator/rivals/greenllm.ts';
import { context, FASTEST, place, playTokens, prompt, R0, streams, view } from './rival-views.ts';

/** One that has settled with four streams whose tokens come every 20 ms, under a limit. */
function settled(tpotLimitMs: number): { readonly green: ReturnType<typeof createGreenLlm>; readonly running: ReturnType<typeof streams>; readonly point: number } {
  const green = createGreenLlm(context());
  const running = streams(4, { tpotLimitMs });
  place(green, running);
  return { green, running, point: Number(playTokens(green, { fromMs: 0, gapMs: 20, steps: 100, running, tightestTpotMs: tpotLimitMs })) };
}

describe('GreenLLM', () => {
  test('starts at the fastest point and leaves its band after three intervals that agree on another', () => {
    const green = createGreenLlm(context());
    const running = streams(4, { tpotLimitMs: 60 });
    place(green, running);
    const at = (fromMs: number, steps: number): number => Number(playTokens(green, { fromMs, gapMs: 20, steps, running, tightestTpotMs: 60 }));
    expect(at(0, 20)).toBe(FASTEST - 3);
    expect(at(400, 40)).toBeLessThan(FASTEST - 3);
  });

  test('holds its point while the tail is between both thresholds', () => {
    const { green, running, point } = settled(25);
    expect(playTokens(green, { fromMs: 2000, gapMs: 20, steps: 150, running, tightestTpotMs: 25 })).toBe(point);
  });

  test('steps up within its band when the tail is over the limit, and down again when it is far below', () => {
    const { green, running, point } = settled(40);
    const slow = Number(playTokens(green, { fromMs: 2000, gapMs: 60, steps: 24, running, tightestTpotMs: 40 }));
    expect(slow).toBeGreaterThan(point + 1);
    expect(slow).toBeLessThanOrEqual(point + 2 * 3);
    expect(playTokens(green, { fromMs: 2000 + 24 * 60, gapMs: 10, steps: 60, running, tightestTpotMs: 40 })).toBe(point);
  });

  test('moves the band itself when the fine loop has been at its edge for long', () => {
    const { green, running, point } = settled(40);
    expect(playTokens(green, { fromMs: 2000, gapMs: 60, steps: 800, running, tightestTpotMs: 40 })).toBeGreaterThan(point + 2 * 3);
  });

  test('prefills as fast as the queue needs, and no faster', () => {
    const { green, running, point } = settled(40);
    const waiting = (ttftDeadlineAtMs: number): number => Number(green.choose(R0, view({ nowMs: 2000, running, waiting: [prompt({ id: 'new', ttftDeadlineAtMs })], tightestTpotMs: 40 }), 'arrival'));
    expect(waiting(2000 + 5000)).toBe(point);
    expect(waiting(2000 + 110)).toBeGreaterThan(point);
    expect(waiting(2000 + 10)).toBe(FASTEST);
  });
});
