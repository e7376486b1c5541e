import { describe, expect, test } from 'vitest';
import type { ReplicaId } from '../../../src/core/job.ts';
import type { PendingJob } from '../../../src/core/tracked-job.ts';
import { decodeStepMs, firstTokensMs } from '../../../src/simulator/rivals/predictions.ts';
import { createVoltanaLlm } from '../../../src/simulator/rivals/voltanallm.ts';
import { context, FASTEST, job, MODEL, place, playTokens, prompt, R0, SLOWEST, streams, view } from './rival-views.ts';

const fresh = (): ReturnType<typeof createVoltanaLlm> => createVoltanaLlm(context());

describe('VoltanaLLM', () => {
  test('idles at the slowest point', () => {
    expect(fresh().choose(R0, view(), 'tick')).toBe(SLOWEST);
  });

  test.each([40, 27, 23, 19])('decodes at the slowest point whose predicted step keeps an inter-token limit of %d ms', (tpotLimitMs) => {
    const chosen = fresh().choose(R0, view({ running: streams(10, { tpotLimitMs }) }), 'tick');
    const keeping = MODEL.points.findIndex((_, point) => decodeStepMs(MODEL, point, 10, 10_000) <= tpotLimitMs);
    expect(chosen).toBe(keeping < 0 ? FASTEST : keeping);
  });

  test('prefills at the slowest point that fits what is left of the TTFT', () => {
    const waiting = (ttftDeadlineAtMs: number): ReturnType<typeof view> => view({ waiting: [prompt({ ttftDeadlineAtMs })] });
    expect(fresh().choose(R0, waiting(2000), 'tick')).toBe(SLOWEST);
    const atSlowestMs = firstTokensMs(waiting(2000), SLOWEST)[0] as number;
    expect(fresh().choose(R0, waiting(atSlowestMs - 1), 'tick')).toBe(SLOWEST + 1);
    expect(fresh().choose(R0, waiting(10), 'tick')).toBe(FASTEST);
  });

  test('goes to the fastest point while prompts wait beyond the batch under way', () => {
    const waiting = [prompt({ id: 'a', promptTokens: 1500 }), prompt({ id: 'b', promptTokens: 1500 })];
    expect(fresh().choose(R0, view({ waiting }), 'tick')).toBe(FASTEST);
    expect(fresh().choose(R0, view({ waiting: waiting.slice(0, 1) }), 'tick')).toBe(SLOWEST);
  });

  test('takes the faster of the choices of both phases', () => {
    const running = streams(10, { tpotLimitMs: 23 });
    const decode = fresh().choose(R0, view({ running }), 'tick');
    expect(fresh().choose(R0, view({ running, waiting: [prompt({ ttftDeadlineAtMs: 5000 })] }), 'tick')).toBe(decode);
    expect(fresh().choose(R0, view({ running, waiting: [prompt({ ttftDeadlineAtMs: 50 })] }), 'tick')).toBe(FASTEST);
  });

  test('corrects its predictor by measured gaps: a machine slower than believed gets a faster point', () => {
    const running = streams(4, { tpotLimitMs: 30 });
    const voltana = fresh();
    const believed = voltana.choose(R0, view({ running }), 'tick');
    place(voltana, running);
    const stepMs = decodeStepMs(MODEL, believed ?? FASTEST, 4, 4000);
    expect(playTokens(voltana, { fromMs: 0, gapMs: 1.5 * stepMs, steps: 300, running, appliedPoint: believed })).toBeGreaterThan(believed ?? FASTEST);
  });

  describe('routes', () => {
    const pending: PendingJob = { spec: job('new'), key: 'any', lengthKey: 'any', promptTokens: 1000, arrivedAtMs: 0, e2eDeadlineAtMs: Infinity, e2eMoves: false, firstDeadlineAtMs: Infinity, latestStartAtMs: Infinity, workMs: 100 };
    const route = (...views: ReturnType<typeof view>[]): ReplicaId | null | undefined => fresh().route?.(views.map((view, index) => ({ replicaId: `r${index}` as ReplicaId, view })), pending);

    test('to the slowest instance, then to the one with the fewest requests, while all have few', () => {
      expect(route(view({ appliedPoint: 3, running: streams(1) }), view({ appliedPoint: 1, running: streams(9) }))).toBe('r1');
      expect(route(view({ appliedPoint: 1, running: streams(9) }), view({ appliedPoint: 1, running: streams(2) }))).toBe('r1');
    });

    test('with many requests to an instance that it does not push to a faster point', () => {
      const limits = { tightestTpotMs: decodeStepMs(MODEL, 2, 140, 140_000) };
      expect(route(view({ running: streams(140), ...limits }), view({ running: streams(130), ...limits }))).toBe('r1');
      expect(route(view({ running: streams(130), ...limits }), view({ running: streams(140), ...limits }))).toBe('r0');
    });
  });
});
