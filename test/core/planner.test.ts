import { evenScale } from '../../src/core/corrections.ts';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { JobId } from '../../src/core/job.ts';
import { planReplica } from '../../src/core/planner.ts';
import { predictFirstTokenMs } from '../../src/core/point-costs.ts';
import type { ReplicaView } from '../../src/core/replica-view.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE, madeProfile } from '../fixtures/profiles.ts';
import { replicaView, runningStream, waitingPrompt } from '../fixtures/views.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const SLOWEST = 0;
const FASTEST = model.fastest;

const stream = runningStream;
const prompt = waitingPrompt;

function view(over: Partial<ReplicaView> = {}): ReplicaView {
  return replicaView(model, over);
}

function clockOf(replica: ReplicaView): number {
  return Number(model.points[planReplica(replica).point]?.knobs['clockMhz']);
}

describe('the plan for a replica', () => {
  test('parks an idle replica at the point with the least idle power', () => {
    expect(planReplica(view())).toMatchObject({ kind: 'meets', point: SLOWEST, binding: 'idle' });
  });

  test.each([100, 24, 21, 19])('runs a stream with a TPOT of %d ms at the slowest point whose step keeps it, a margin of 3 % included', (tpotLimitMs) => {
    const decode = { sequences: 1, contextTokens: 1000 };
    const inTime = model.points.findIndex((_, point) => model.iterationTimeMs({ prefill: { tokens: 0, contextTokens: 0 }, decode }, point) * 1.03 <= tpotLimitMs);
    // A long answer, for which what is kept back for newcomers is nothing.
    expect(planReplica(view({ running: [stream({ tpotLimitMs, remainingLow: 300 })] })).point).toBe(inTime);
  });

  test('spends what a stream has banked, and hurries one that is behind', () => {
    const even = clockOf(view({ running: [stream({ tpotLimitMs: 24 })] }));
    expect(clockOf(view({ running: [stream({ tpotLimitMs: 24, bankMs: 3000 })] }))).toBeLessThan(even);
    expect(clockOf(view({ running: [stream({ tpotLimitMs: 24, bankMs: -60 })] }))).toBeGreaterThan(even);
  });

  test('hurries a prompt that is due soon, and says which one it is', () => {
    const relaxed = planReplica(view({ waiting: [prompt({ ttftDeadlineAtMs: 1000 })] }));
    expect(relaxed.point).toBe(SLOWEST);
    const urgent = planReplica(view({ waiting: [prompt({ jobId: 'urgent' as JobId, ttftDeadlineAtMs: 130 })] }));
    expect(urgent).toMatchObject({ kind: 'meets', binding: 'ttft', bindingJobId: 'urgent' });
    expect(urgent.point).toBeGreaterThan(SLOWEST);
  });

  test('counts every prompt before it in the queue', () => {
    const alone = view({ waiting: [prompt({ ttftDeadlineAtMs: 600 })] });
    const behind = view({ waiting: [prompt(), prompt(), prompt(), prompt({ ttftDeadlineAtMs: 600 })] });
    expect(clockOf(behind)).toBeGreaterThan(clockOf(alone));
    expect(predictFirstTokenMs(behind, FASTEST, 3)).toBeGreaterThan(3.5 * predictFirstTokenMs(alone, FASTEST, 0) - 60);
  });

  test('is tight, and the fastest point, when a deadline holds there but without its margin', () => {
    const fastestMs = predictFirstTokenMs(view({ waiting: [prompt()] }), FASTEST, 0);
    expect(planReplica(view({ waiting: [prompt({ ttftDeadlineAtMs: fastestMs * 1.01 })] }))).toMatchObject({ kind: 'tight', point: FASTEST, binding: 'none-feasible', lost: 0 });
  });

  test('is infeasible, not the fastest point dressed as a plan, when a deadline fails even there; what is lost binds nothing', () => {
    expect(planReplica(view({ waiting: [prompt({ ttftDeadlineAtMs: -1 })] }))).toMatchObject({ kind: 'infeasible', point: SLOWEST, lost: 1 });
    expect(planReplica(view({ running: [stream({ bankMs: -100_000 })] }))).toMatchObject({ kind: 'infeasible', point: SLOWEST, lost: 1 });
    const saved = prompt({ jobId: 'saved' as JobId, promptTokens: 2048, ttftDeadlineAtMs: 250 });
    const both = planReplica(view({ waiting: [saved, prompt({ ttftDeadlineAtMs: -1 })] }));
    expect(both).toMatchObject({ kind: 'infeasible', lost: 1, point: planReplica(view({ waiting: [saved] })).point });
  });

  test('tries a raise that may come too late rather than giving up from where it is parked', () => {
    const fastestMs = predictFirstTokenMs(view({ waiting: [prompt()] }), FASTEST, 0);
    const urgent = view({ appliedPoint: SLOWEST, waiting: [prompt({ ttftDeadlineAtMs: fastestMs + 20 })] });
    expect(planReplica(urgent)).toMatchObject({ point: FASTEST, lost: 0 });
  });

  test('parks no lower than where an arrival as tight as those seen lately is in time', () => {
    const forecast = { perMs: 0.0003, upperPerMs: 0.0003, promptTokensMean: 1000, prefillTokensMean: 1000, promptUnevenness: 1 };
    const parkedAt = (tightestTtftMs: number) => planReplica(view({ forecast, tightestTtftMs })).point;
    expect(parkedAt(2000)).toBe(SLOWEST);
    expect(parkedAt(120)).toBeGreaterThan(SLOWEST);
    expect(parkedAt(70)).toBe(FASTEST);
  });

  test('keeps an end-to-end deadline by the upper quantile of the length', () => {
    const due = (remainingHigh: number) => clockOf(view({ running: [stream({ tpotLimitMs: Infinity, remainingHigh, e2eDeadlineAtMs: 6000 })] }));
    expect(due(100)).toBe(780);
    expect(due(300)).toBeGreaterThan(780);
  });

  test('plans an end-to-end deadline by the length that caution wants, and by what the fastest can deliver where that is less', () => {
    const due = { tpotLimitMs: Infinity, remainingMiddle: 100, remainingHigh: 2000, e2eDeadlineAtMs: 6000 };
    expect(planReplica(view({ running: [stream(due)] })).point).toBe(model.fastest);
    expect(planReplica(view({ running: [stream({ ...due, remainingHigh: 120, guard: 1 })] }))).toMatchObject({ kind: 'meets', point: SLOWEST });
    const cautious = planReplica(view({ running: [stream({ ...due, remainingHigh: 120, guard: 4, e2eDeadlineAtMs: 3500 })] }));
    const plain = planReplica(view({ running: [stream({ ...due, remainingHigh: 120, guard: 1, e2eDeadlineAtMs: 3500 })] }));
    expect(model.speedRank[cautious.point]).toBeLessThan(model.speedRank[plain.point] ?? 0);
  });

  test('keeps nobody at the fastest for a tail that others can make good, or for what is rather lost', () => {
    const due = { tpotLimitMs: Infinity, remainingMiddle: 100, remainingHigh: 2000, e2eDeadlineAtMs: 6000 };
    expect(planReplica(view({ running: [stream({ ...due, e2eMoves: true })] }))).toMatchObject({ kind: 'meets', point: SLOWEST });
    expect(planReplica(view({ running: [stream({ ...due, remainingLow: 20, remainingMiddle: 1000 })] }))).toMatchObject({ kind: 'meets', point: SLOWEST });
  });

  test('takes no point at which arrivals, places or memory do not settle, even where nobody has a TPOT', () => {
    const forecast = { perMs: 0.006, upperPerMs: 0.006, promptTokensMean: 1000, prefillTokensMean: 1000, promptUnevenness: 1 };
    const busy = view({ waiting: [prompt()], forecast });
    expect(planReplica(busy).point).toBeGreaterThan(SLOWEST);
    const calm = { ...forecast, perMs: 0.001 };
    expect(planReplica(view({ waiting: [prompt()], forecast: calm })).point).toBe(SLOWEST);
    for (const scarce of [{ sequencesMax: 4 }, { kvTokens: 4000 }]) expect(planReplica(view({ waiting: [prompt()], forecast: calm, ...scarce })).point).toBeGreaterThan(SLOWEST);
    expect(planReplica(view({ waiting: [prompt()], forecast: calm, heldBackJobs: 1 }))).toMatchObject({ point: FASTEST, binding: 'stability' });
  });

  test('leaves room for the prefills that are forecast', () => {
    const calm = view({ running: [stream({ tpotLimitMs: 32 })], tightestTpotMs: 32 });
    const busy = view({ running: [stream({ tpotLimitMs: 32 })], tightestTpotMs: 32, forecast: { perMs: 0.003, upperPerMs: 0.003, promptTokensMean: 1000, prefillTokensMean: 1000, promptUnevenness: 1.5 } });
    expect(clockOf(busy)).toBeGreaterThan(clockOf(calm));
  });

  test('believes what it has learnt: a slower machine than the profile says is run faster', () => {
    const slow = view({ running: [stream({ tpotLimitMs: 30 })], timeScale: evenScale(model.points.length, { prefill: 1.2, decode: 1.2 }) });
    expect(clockOf(slow)).toBeGreaterThan(clockOf(view({ running: [stream({ tpotLimitMs: 30 })] })));
  });

  test('reckons with streams on the server that are not ours', () => {
    const shared = view({ running: [stream({ tpotLimitMs: 28 })], foreignSequences: 60 });
    expect(clockOf(shared)).toBeGreaterThan(clockOf(view({ running: [stream({ tpotLimitMs: 28 })] })));
  });

  test('is the same whatever the knob is called', () => {
    const settings = [0.45, 0.6, 0.8, 1].map((speed) => ({ value: Math.round(speed * 700), speed }));
    const plans = ['clockMhz', 'powerLimitW', 'warpFactor'].map((knob) => planReplica(view({ model: createPerformanceModel(madeProfile({ knob, settings })), running: [stream({ tpotLimitMs: 24 })] })));
    expect(plans[1]).toEqual(plans[0]);
    expect(plans[2]).toEqual(plans[0]);
    expect(plans[0]?.point).toBeGreaterThan(0);
  });
});

describe('laws of the plan', () => {
  const streams = fc.array(
    fc.record({ tpotLimitMs: fc.integer({ min: 15, max: 120 }), bankMs: fc.integer({ min: -200, max: 2000 }), remainingLow: fc.integer({ min: 1, max: 50 }), more: fc.nat(400), guard: fc.double({ min: 0.3, max: 4, noNaN: true }) }),
    { maxLength: 30 },
  );
  const prompts = fc.array(fc.record({ promptTokens: fc.integer({ min: 1, max: 8000 }), ttftDeadlineAtMs: fc.integer({ min: -50, max: 5000 }), tpotLimitMs: fc.integer({ min: 20, max: 120 }) }), { maxLength: 6 });
  const perMs = fc.double({ min: 0, max: 0.01, noNaN: true });

  test('every plan is one of the points, and finite', () => {
    fc.assert(
      fc.property(streams, prompts, perMs, (running, waiting, rate) => {
        const plan = planReplica(view({ running: running.map(({ more, ...rest }) => stream({ ...rest, remainingHigh: rest.remainingLow + more })), waiting: waiting.map((each) => prompt(each)), forecast: { perMs: rate, upperPerMs: rate * 2, promptTokensMean: 900, prefillTokensMean: 900, promptUnevenness: 2 } }));
        expect(model.points[plan.point]).toBeDefined();
        expect(Number.isNaN(plan.slackMs)).toBe(false);
        expect(plan.kind === 'infeasible').toBe(plan.lost > 0);
        if (plan.kind === 'tight') expect(plan.point).toBe(FASTEST);
        if (plan.kind === 'meets') expect(plan.slackMs).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  test('looser limits never ask for a faster point', () => {
    fc.assert(
      fc.property(streams, fc.integer({ min: 1, max: 100 }), (running, looser) => {
        const at = (extraMs: number) => planReplica(view({ running: running.map(({ more, ...rest }) => stream({ ...rest, bankMs: Math.max(0, rest.bankMs), tpotLimitMs: rest.tpotLimitMs + extraMs, remainingHigh: rest.remainingLow + more })) }));
        const tight = at(0);
        // A stream that is lost at the tight limit binds nothing there and may bind at the looser one.
        fc.pre(tight.kind === 'meets' && running.every(({ tpotLimitMs }) => tpotLimitMs > 30));
        expect(model.speedRank[at(looser).point]).toBeGreaterThanOrEqual(model.speedRank[tight.point] as number);
      }),
    );
  });
});
