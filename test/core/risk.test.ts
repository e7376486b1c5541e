import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { JobId } from '../../src/core/job.ts';
import { lossRisk } from '../../src/core/planner.ts';
import { costsAt, tokensTakeMs } from '../../src/core/point-costs.ts';
import type { ReplicaView, RunningStream, WaitingPrompt } from '../../src/core/replica-view.ts';
import { chargedWorkJ } from '../../src/core/work-energy.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';
import { replicaView, runningStream, waitingPrompt } from '../fixtures/views.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const view = (over: Partial<ReplicaView> = {}): ReplicaView => replicaView(model, over);
const short: Partial<RunningStream> = { tokensOut: 1, remainingLow: 2, remainingMiddle: 8, remainingHigh: 20 };

describe('the deadlines that are put at risk', () => {
  test('are none where nothing waits or nothing has a limit', () => {
    expect(lossRisk(view())).toMatchObject({ expected: 0, last: 0 });
    expect(lossRisk(view({ running: [runningStream()] })).expected).toBe(0);
    expect(lossRisk(view({ running: [runningStream({ tpotLimitMs: Infinity })], waiting: [waitingPrompt({ promptTokens: 20_000 })] })).expected).toBe(0);
  });

  test('are those of streams that may end before they have made good what a prompt takes from them', () => {
    const risk = (stream: Partial<RunningStream>, promptTokens: number): number => lossRisk(view({ running: [runningStream(stream)], waiting: [waitingPrompt({ promptTokens })] })).expected;
    expect(risk(short, 4000)).toBeGreaterThan(0.3);
    expect(risk({ ...short, bankMs: 5000 }, 4000)).toBe(0);
    expect(risk({ remainingLow: 200, remainingMiddle: 400, remainingHigh: 900 }, 4000)).toBeLessThan(0.05);
    expect(risk(short, 4000)).toBeGreaterThan(risk(short, 400));
  });

  test('count a prompt that will be late as one, and say which part is the last one’s', () => {
    const late = waitingPrompt({ jobId: 'late' as JobId, ttftDeadlineAtMs: 10 });
    expect(lossRisk(view({ waiting: [late] }))).toMatchObject({ expected: 1, last: 1 });
    expect(lossRisk(view({ waiting: [late, waitingPrompt()] }))).toMatchObject({ expected: 1, last: 0 });
    expect(lossRisk(view({ waiting: [waitingPrompt({ e2eDeadlineAtMs: 500, outputTokensMiddle: 100 })] })).last).toBe(1);
  });

  test('are none where even an iteration beside a prompt keeps the limit', () => {
    const running = [runningStream({ ...short, tpotLimitMs: 2000, bankMs: 60 })];
    expect(lossRisk(view({ running, waiting: [waitingPrompt({ promptTokens: 12_000 })] })).expected).toBe(0);
    expect(lossRisk(view({ running: [runningStream({ ...short, tpotLimitMs: 2000, bankMs: -9000 })], waiting: [waitingPrompt({ promptTokens: 12_000 })] })).expected).toBeGreaterThan(0.1);
  });

  test('never fall when one more prompt is sent there', () => {
    const stream = fc.record({ tpotLimitMs: fc.integer({ min: 18, max: 90 }), bankMs: fc.integer({ min: -300, max: 3000 }), tokensOut: fc.integer({ min: 1, max: 300 }), remainingLow: fc.integer({ min: 1, max: 40 }) });
    fc.assert(
      fc.property(fc.array(stream, { maxLength: 6 }), fc.integer({ min: 1, max: 9000 }), (streams, promptTokens) => {
        const running = streams.map((each) => runningStream({ ...each, remainingMiddle: each.remainingLow * 4, remainingHigh: each.remainingLow * 9 }));
        const without = lossRisk(view({ running })).expected;
        const { expected, last } = lossRisk(view({ running, waiting: [waitingPrompt({ promptTokens })] }));
        expect(expected - last).toBeGreaterThanOrEqual(without - 0.02 * running.length);
      }),
    );
  });
});

describe('prompts as the engine batches them', () => {
  const firstTokens = (waiting: readonly Partial<WaitingPrompt>[], running: readonly RunningStream[] = []): readonly number[] => costsAt(view({ waiting: waiting.map(waitingPrompt), running }), model.fastest).firstTokenMs;

  test('share a batch while they fit, and get their first token together', () => {
    const [a, b, c] = firstTokens([{ promptTokens: 900 }, { promptTokens: 900 }, { promptTokens: 900 }]) as [number, number, number];
    expect(a).toBe(b);
    expect(c).toBeGreaterThan(b);
  });

  test('take several batches where they are long, the later ones longer', () => {
    const at = (promptTokens: number): number => firstTokens([{ promptTokens }])[0] as number;
    const ms = [2048, 4096, 8192].map(at) as [number, number, number];
    expect(ms[1]).toBeGreaterThan(1.9 * ms[0]);
    expect(ms[2]).toBeGreaterThan(2 * ms[1]);
  });

  test('take a bounded number of iterations beside more streams than a server runs', () => {
    expect(costsAt(view({ foreignSequences: 100_000, waiting: [waitingPrompt({ promptTokens: 20_000 })] }), model.fastest).prefillIterations).toBeLessThan(300);
  });

  test('bring a running stream one token per batch, then one per step', () => {
    const costs = costsAt(view({ running: [runningStream()], waiting: [waitingPrompt({ promptTokens: 4096 })] }), model.fastest);
    expect(costs.prefillIterations).toBe(3);
    expect(tokensTakeMs(costs, 1, costs.stepMs)).toBeCloseTo(costs.prefillMs / 3, 6);
    expect(tokensTakeMs(costs, 10, costs.stepMs)).toBeCloseTo(costs.prefillMs + 7 * costs.stepMs, 6);
  });
});

describe('what a job is charged', () => {
  const charged = (streams: number, after = 0, before = after, raisedMs = 0): number => chargedWorkJ(view({ running: Array.from({ length: streams }, () => runningStream()), waiting: [waitingPrompt()] }), before, after, raisedMs);

  test('is the less the fuller the replica', () => {
    const joules = [0, 1, 4, 16].map((streams) => charged(streams));
    for (let index = 1; index < joules.length; index++) expect(joules[index]).toBeLessThan(joules[index - 1] as number);
  });

  test('has in it what running faster costs, for as long as it lasts', () => {
    expect(charged(8, 4, 0, 2000)).toBeGreaterThan(charged(8, 4, 0, 500));
    expect(charged(8, 4, 0, 500)).toBeGreaterThan(charged(8, 4));
  });
});
