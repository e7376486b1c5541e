import { describe, expect, test } from 'vitest';
import { createDynamoLlm, profiledPoint } from '../../../src/simulator/rivals/dynamollm.ts';
import { steadyStateAt } from '../../../src/simulator/rivals/steady-state.ts';
import { context, FASTEST, MODEL, prompt, R0, SLOWEST, view } from './rival-views.ts';

const LIMITS = { tightestTpotMs: 45, tightestTtftMs: 1000 };

describe('DynamoLLM', () => {
  test('looks up faster points for more load and for tighter limits', () => {
    const points = [0.0005, 0.002, 0.003].map((perMs) => profiledPoint(view(LIMITS), perMs));
    expect(points).toEqual(points.toSorted((a, b) => a - b));
    expect(points.at(-1)).toBeGreaterThan(points[0] as number);
    expect(profiledPoint(view({ ...LIMITS, tightestTpotMs: 24 }), 0.0005)).toBeGreaterThan(points[0] as number);
  });

  test('takes the cheapest of the points that keep the limits at that load', () => {
    const load = { perMs: 0.002, promptTokens: 800, promptUnevenness: 1.5, outputTokens: 150 };
    const chosen = steadyStateAt(MODEL, load, profiledPoint(view(LIMITS), load.perMs));
    for (let point = 0; point < MODEL.points.length; point++) {
      const state = steadyStateAt(MODEL, load, point);
      const keeps = state !== null && state.tpotMs <= LIMITS.tightestTpotMs && state.ttftMs <= LIMITS.tightestTtftMs;
      if (keeps) expect(state.powerW).toBeGreaterThanOrEqual(chosen?.powerW ?? Infinity);
    }
  });

  test('takes the fastest point for a load that no point can take', () => {
    expect(profiledPoint(view(LIMITS), 0.1)).toBe(FASTEST);
  });

  test('decides once in five seconds, by what arrived in them', () => {
    const dynamo = createDynamoLlm(context());
    expect(dynamo.choose(R0, view({ ...LIMITS, nowMs: 0 }), 'tick')).toBe(FASTEST);
    expect(dynamo.choose(R0, view({ ...LIMITS, nowMs: 4900 }), 'tick')).toBe(FASTEST);
    expect(dynamo.choose(R0, view({ ...LIMITS, nowMs: 5000 }), 'tick')).toBe(SLOWEST);
    for (let index = 0; index < 15; index++) dynamo.choose(R0, view({ ...LIMITS, nowMs: 5001 + index, waiting: [prompt({ id: String(index), promptTokens: 10 })] }), 'arrival');
    expect(dynamo.choose(R0, view({ ...LIMITS, nowMs: 9900 }), 'tick')).toBe(SLOWEST);
    expect(dynamo.choose(R0, view({ ...LIMITS, nowMs: 10_000 }), 'tick')).toBe(profiledPoint(view(LIMITS), 0.003));
  });

  test('takes the fastest point until the next epoch when its queue would be late', () => {
    const dynamo = createDynamoLlm(context());
    for (const nowMs of [0, 5000]) dynamo.choose(R0, view({ ...LIMITS, nowMs }), 'tick');
    const late = view({ ...LIMITS, nowMs: 6000, waiting: [prompt({ ttftDeadlineAtMs: 6050 })] });
    expect(dynamo.choose(R0, late, 'arrival')).toBe(FASTEST);
    expect(dynamo.choose(R0, view({ ...LIMITS, nowMs: 7000 }), 'tick')).toBe(FASTEST);
    expect(dynamo.choose(R0, view({ ...LIMITS, nowMs: 10_000 }), 'tick')).toBe(SLOWEST);
  });
});

describe('a server under a steady load', () => {
  const load = { perMs: 0.002, promptTokens: 800, promptUnevenness: 1.5, outputTokens: 150 };

  test('has fewer sequences and shorter times at a faster point, and draws more', () => {
    const [slow, fast] = [SLOWEST, FASTEST].map((point) => steadyStateAt(MODEL, load, point));
    expect(fast?.sequences).toBeLessThan(slow?.sequences ?? 0);
    expect(fast?.tpotMs).toBeLessThan(slow?.tpotMs ?? 0);
    expect(fast?.ttftMs).toBeLessThan(slow?.ttftMs ?? 0);
    expect(fast?.powerW).toBeGreaterThan(slow?.powerW ?? Infinity);
  });

  test('draws its idle power when nothing comes, and settles nowhere when too much does', () => {
    expect(steadyStateAt(MODEL, { ...load, perMs: 0 }, SLOWEST)?.powerW).toBeCloseTo(MODEL.idlePowerW(SLOWEST), 6);
    expect(steadyStateAt(MODEL, { ...load, perMs: 0.02 }, FASTEST)).toBeNull();
  });
});
