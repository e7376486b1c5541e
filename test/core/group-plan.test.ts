import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { planServer, serverRisk } from '../../src/core/group-plan.ts';
import type { JobId } from '../../src/core/job.ts';
import { decodeView, prefillView } from '../../src/core/phase-views.ts';
import { lossRisk, type Plan, planReplica } from '../../src/core/planner.ts';
import { costsAt } from '../../src/core/point-costs.ts';
import type { GroupState, PhaseGroup, ReplicaView } from '../../src/core/replica-view.ts';
import { chooseRoute, standingOf } from '../../src/core/routing.ts';
import { prefillChargeJ } from '../../src/core/work-energy.ts';
import { createPerformanceModel, isFaster, type PointIndex } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';
import { replicaView, runningStream, waitingPrompt } from '../fixtures/views.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const SLOWEST = 0;
const FASTEST = model.fastest;
const AT_DEFAULT: GroupState = { appliedPoint: null, controlled: true };
const GROUPS = { prefill: AT_DEFAULT, decode: AT_DEFAULT };

function server(over: Partial<ReplicaView> = {}): ReplicaView & { groups: Record<PhaseGroup, GroupState> } {
  return { ...replicaView(model, over), groups: over.groups ?? GROUPS };
}

function groupsOf(plan: Plan): Readonly<Record<PhaseGroup, Plan>> {
  if (plan.groups === undefined) throw new Error('a plan without groups');
  return plan.groups;
}

/** Deadlines of the first tokens by the model, at a point of the prefill group. */
function firstTokenMs(view: ReturnType<typeof server>, point: PointIndex): readonly number[] {
  return costsAt(prefillView(view, view.groups), point).firstTokenMs;
}

function stepMs(view: ReturnType<typeof server>, point: PointIndex): number {
  return costsAt(decodeView(view, view.groups, null), point).stepMs;
}

describe('a server that prefills and decodes on devices of their own', () => {
  test.each([
    { what: 'a tight TTFT and a loose TPOT', ttftMs: 130, tpotMs: 200, faster: 'prefill' },
    { what: 'a loose TTFT and a tight TPOT', ttftMs: 5_000, tpotMs: 19, faster: 'decode' },
  ] as const)('under $what runs its $faster group faster than the other, and each meets its limit', ({ ttftMs, tpotMs, faster }) => {
    const view = server({ waiting: [waitingPrompt({ ttftDeadlineAtMs: ttftMs, tpotLimitMs: tpotMs })], running: [runningStream({ tpotLimitMs: tpotMs, remainingLow: 300 })] });
    const plan = planServer(view);
    const { prefill, decode } = groupsOf(plan);
    expect(plan).toMatchObject({ kind: 'meets', lost: 0 });
    const [quick, slow] = faster === 'prefill' ? [prefill, decode] : [decode, prefill];
    expect(isFaster(model, quick.point, slow.point)).toBe(true);
    expect(slow.point).toBe(SLOWEST);
    expect(quick.binding).toBe(faster === 'prefill' ? 'ttft' : 'tpot');
    expect(firstTokenMs(view, prefill.point)[0]).toBeLessThanOrEqual(ttftMs);
    expect(stepMs(view, decode.point)).toBeLessThanOrEqual(tpotMs);
  });

  test.each([2_000, 8_000, 30_000])('neither raises its decode group for a prompt of %d tokens nor slows its streams by it, as one with a common clock would', (promptTokens) => {
    const running = [runningStream({ tpotLimitMs: 26, remainingLow: 60, remainingMiddle: 100, remainingHigh: 140 })];
    const without = groupsOf(planServer(server({ running })));
    const view = server({ running, waiting: [waitingPrompt({ promptTokens })] });
    const costs = costsAt(decodeView(view, GROUPS, null), SLOWEST);
    expect(groupsOf(planServer(view)).decode.point).toBeLessThanOrEqual(without.decode.point + 1);
    expect(costs.interferenceMs).toBe(0);
    expect(costs.prefillMs).toBe(0);
    expect(costs.stepWithPrefillsMs).toBe(costs.stepMs);
    expect(costsAt(replicaView(model, { running, waiting: view.waiting }), SLOWEST).prefillMs).toBeGreaterThan(100);
  });

  test('prefills as fast beside a thousand streams as beside none', () => {
    const waiting = [waitingPrompt({ promptTokens: 3_000 }), waitingPrompt({ promptTokens: 500 })];
    const alone = firstTokenMs(server({ waiting }), FASTEST);
    expect(firstTokenMs(server({ waiting, running: [runningStream({ streams: 200 })], runningCount: 200, foreignSequences: 50, contextTokens: 300_000 }), FASTEST)).toEqual(alone);
    // Nor do prompts that are through slow those behind them: two batches of the server's size, and no step of a stream.
    const { maxBatchTokens } = model.profile.serving;
    const batch = (tokens: number, contextTokens: number): number => model.iterationTimeMs({ prefill: { tokens, contextTokens }, decode: { sequences: 0, contextTokens: 0 } }, FASTEST);
    const two = [waitingPrompt({ promptTokens: maxBatchTokens }), waitingPrompt({ promptTokens: maxBatchTokens })];
    expect(firstTokenMs(server({ waiting: two }), FASTEST)[1]).toBeCloseTo(2 * batch(maxBatchTokens, 0), 6);
  });

  test('waits, idle, with each group where it may: the prefill group no lower than a tight newcomer allows, the decode group at the least power', () => {
    const forecast = { perMs: 0.0003, upperPerMs: 0.0003, promptTokensMean: 1000, prefillTokensMean: 1000, promptUnevenness: 1 };
    const tight = groupsOf(planServer(server({ forecast, tightestTtftMs: 150 })));
    expect(tight.decode).toMatchObject({ point: SLOWEST, binding: 'idle' });
    expect(tight.prefill.binding).toBe('idle');
    expect(tight.prefill.point).toBe(planReplica(replicaView(model, { forecast, tightestTtftMs: 150 })).point);
    expect(isFaster(model, tight.prefill.point, SLOWEST)).toBe(true);
    // With streams and no prompts one group is idle and the other is not.
    const decoding = groupsOf(planServer(server({ running: [runningStream({ tpotLimitMs: 19, remainingLow: 300 })] })));
    expect(decoding.prefill).toMatchObject({ point: SLOWEST, binding: 'idle' });
    expect(decoding.decode.binding).toBe('tpot');
  });

  test('keeps each group stable by what it does itself', () => {
    const prompts = { perMs: 0.009, promptTokensMean: 1000, prefillTokensMean: 1000, outputTokensMean: 2 };
    const answers = { perMs: 0.002, promptTokensMean: 1000, prefillTokensMean: 50, outputTokensMean: 1500 };
    const busy = { waiting: [waitingPrompt()], running: [runningStream({ tpotLimitMs: Infinity })] };
    const withPrompts = groupsOf(planServer(server({ ...busy, share: prompts })));
    expect(withPrompts).toMatchObject({ prefill: { binding: 'stability' }, decode: { binding: 'energy' } });
    const withAnswers = groupsOf(planServer(server({ ...busy, share: answers, kvTokens: 130_000 })));
    expect(withAnswers.decode.binding).toBe('stability');
    expect(withAnswers.prefill.binding).not.toBe('stability');
  });

  test('takes from an e2e deadline what the prefill takes, and hurries prompts for it only where no decode could make it good', () => {
    const answer = { outputTokensMiddle: 100, outputTokensHigh: 120 };
    const fastestStepMs = stepMs(server({ waiting: [waitingPrompt(answer)] }), FASTEST);
    const firstMs = firstTokenMs(server({ waiting: [waitingPrompt(answer)] }), FASTEST)[0] as number;
    const loose = groupsOf(planServer(server({ waiting: [waitingPrompt({ ...answer, e2eDeadlineAtMs: 60_000 })] })));
    expect([loose.prefill.point, loose.decode.point]).toEqual([SLOWEST, SLOWEST]);
    const tight = server({ waiting: [waitingPrompt({ ...answer, e2eDeadlineAtMs: 1.12 * (firstMs + 120 * fastestStepMs) })] });
    const { prefill, decode } = groupsOf(planServer(tight));
    expect(prefill.kind).toBe('meets');
    expect(decode.binding).toMatch(/e2e|none-feasible/);
    expect((firstTokenMs(tight, prefill.point)[0] as number) + 119 * stepMs(tight, decode.point)).toBeLessThanOrEqual((tight.waiting[0] as { e2eDeadlineAtMs: number }).e2eDeadlineAtMs);
    const impossible = planServer(server({ waiting: [waitingPrompt({ ...answer, e2eDeadlineAtMs: firstMs / 2 })] }));
    expect(impossible).toMatchObject({ kind: 'infeasible', lost: 1 });
  });

  test('counts what is late already once, and lets it bind neither group', () => {
    const view = server({ waiting: [waitingPrompt({ jobId: 'late' as JobId, ttftDeadlineAtMs: -1, tpotLimitMs: 19 })] });
    expect(planServer(view)).toMatchObject({ kind: 'infeasible', lost: 1, groups: { prefill: { point: SLOWEST }, decode: { point: SLOWEST, lost: 0 } } });
    expect(serverRisk(view)).toMatchObject({ expected: 1, last: 1 });
  });

  test('keeps the group that is lost at the fastest point, and plans the other as before', () => {
    const waiting = [waitingPrompt({ ttftDeadlineAtMs: 5_000, tpotLimitMs: 200 })];
    const running = [runningStream({ tpotLimitMs: 200 })];
    const lost = { ...AT_DEFAULT, controlled: false };
    expect(groupsOf(planServer(server({ waiting, running, groups: { prefill: lost, decode: AT_DEFAULT } })))).toMatchObject({ prefill: { point: FASTEST }, decode: { point: SLOWEST } });
    expect(groupsOf(planServer(server({ waiting, running, groups: { prefill: AT_DEFAULT, decode: lost } })))).toMatchObject({ prefill: { point: SLOWEST }, decode: { point: FASTEST } });
  });

  test('is predicted and charged by both: a first token by its prefill group, further ones by its decode group', () => {
    const view = server({ running: [runningStream({ tpotLimitMs: 60 })] });
    const withJob = { ...view, waiting: [waitingPrompt({ ttftDeadlineAtMs: 1_000, tpotLimitMs: 60 })] };
    const routed = (target: PointIndex) => chooseRoute([{ id: 'a', load: 1, without: () => standingOf(view, true, null), withJob: () => withJob, controlled: true, target }], 'energy', { riskMax: 0.1 });
    const route = routed(SLOWEST);
    if (route === null) throw new Error('no route');
    const { prefill, decode } = groupsOf(route.plan);
    expect(route.ttftMs).toBe(firstTokenMs(withJob, prefill.point)[0]);
    expect(route.tpotMs).toBe(stepMs(withJob, decode.point));
    expect(route.ownRisk).toBeLessThan(0.01);
    expect(route.chargedJ).toBeGreaterThan(0);
    // A first token that is asked for at once costs the prefill group's energy, and no joule of the decode group's.
    const hurried = { ...view, waiting: [waitingPrompt({ ttftDeadlineAtMs: 115, tpotLimitMs: 60 })] };
    const dearer = chooseRoute([{ id: 'a', load: 1, without: () => standingOf(view, true, null), withJob: () => hurried, controlled: true, target: SLOWEST }], 'energy', { riskMax: 0.1 });
    expect(groupsOf((dearer as { plan: Plan }).plan).decode.point).toBe(decode.point);
    expect(dearer?.opens).toBe(true);
    const ownJ = (plan: Plan): number => prefillChargeJ(model, { promptTokens: 1000, prefilledTokens: 0 }, groupsOf(plan).prefill.point);
    expect((dearer?.chargedJ ?? 0) - route.chargedJ).toBeCloseTo(ownJ((dearer as { plan: Plan }).plan) - ownJ(route.plan), 6);
    expect(ownJ((dearer as { plan: Plan }).plan)).toBeGreaterThan(ownJ(route.plan));
  });
});

const anyPrompt = fc.record({ promptTokens: fc.integer({ min: 1, max: 8_000 }), ttftDeadlineAtMs: fc.constantFrom(100, 300, 1_000, 5_000, Infinity), tpotLimitMs: fc.constantFrom(15, 20, 30, 60, Infinity) }).map(waitingPrompt);
const anyStream = fc.record({ tpotLimitMs: fc.constantFrom(15, 20, 30, 60, Infinity), bankMs: fc.integer({ min: -500, max: 2_000 }) }).map(runningStream);

describe('between the two groups', () => {
  test('what prompts want of their first token moves the prefill group alone, and what streams want the decode group alone', () => {
    fc.assert(
      fc.property(fc.array(anyPrompt, { maxLength: 5 }), fc.array(anyStream, { maxLength: 8 }), (waiting, running) => {
        const { prefill, decode } = groupsOf(planServer(server({ waiting, running })));
        // No TPOT, no streams: the prefill group's plan is what it was.
        expect(groupsOf(planServer(server({ waiting: waiting.map((prompt) => ({ ...prompt, tpotLimitMs: Infinity })), running: [] }))).prefill).toEqual(prefill);
        // When prompts are due is nothing to the decode group, as long as they can be in time.
        const inTime = waiting.map((prompt) => ({ ...prompt, ttftDeadlineAtMs: Infinity }));
        const relaxed = groupsOf(planServer(server({ waiting: inTime, running })));
        if (prefill.lost === 0) expect(relaxed.decode).toEqual(decode);
      }),
    );
  });

  test('a replica whose devices all move together is planned as ever', () => {
    fc.assert(
      fc.property(fc.array(anyPrompt, { maxLength: 4 }), fc.array(anyStream, { maxLength: 4 }), (waiting, running) => {
        const view = replicaView(model, { waiting, running });
        expect(planServer(view)).toEqual(planReplica(view));
        expect(serverRisk(view)).toEqual(lossRisk(view));
      }),
    );
  });
});
