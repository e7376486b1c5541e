import { describe, expect, test } from 'vitest';
import type { JobId } from '../../src/core/job.ts';
import type { ReplicaView } from '../../src/core/replica-view.ts';
import { chooseRoute, type RouteCandidate, standingOf } from '../../src/core/routing.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';
import { replicaView, runningStream, waitingPrompt } from '../fixtures/views.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const RISK_MAX = 0.0025;

function candidate(id: string, over: Partial<ReplicaView>, job = waitingPrompt({ jobId: 'new' as JobId, ttftDeadlineAtMs: 2000, tpotLimitMs: 60 })): RouteCandidate<string> {
  const view = replicaView(model, over);
  return { id, load: view.running.length + view.waiting.length, without: () => standingOf(view, true, null), withJob: () => ({ ...view, waiting: [...view.waiting, job] }), controlled: true, target: 0 };
}

const streams = (count: number, over: Parameters<typeof runningStream>[0] = {}): ReplicaView['running'] => Array.from({ length: count }, (_, index) => runningStream({ jobId: `s${index}` as JobId, tpotLimitMs: 60, bankMs: 2000, ...over }));

describe('the route of a job', () => {
  test('is to the fuller of two replicas that both keep everything, so that the other can drain', () => {
    expect(chooseRoute([candidate('emptier', { running: streams(2) }), candidate('fuller', { running: streams(12) })], 'energy', { riskMax: RISK_MAX })?.id).toBe('fuller');
  });

  test('is to an idle one where the fuller has streams that its prompt would put at risk', () => {
    const fresh = streams(4, { tpotLimitMs: 24, bankMs: 0, tokensOut: 1, remainingLow: 1, remainingMiddle: 6, remainingHigh: 20 });
    const job = waitingPrompt({ jobId: 'new' as JobId, promptTokens: 4000, ttftDeadlineAtMs: 4000 });
    expect(chooseRoute([candidate('fuller', { running: fresh }, job), candidate('idle', {}, job)], 'energy', { riskMax: RISK_MAX })?.id).toBe('idle');
  });

  test('is not to one that has fallen behind, although nothing more can be lost there and it is the cheapest', () => {
    const behind = streams(12, { bankMs: -100_000 });
    expect(chooseRoute([candidate('behind', { running: behind }), candidate('idle', {})], 'energy', { riskMax: RISK_MAX })?.id).toBe('idle');
    expect(chooseRoute([candidate('behind', { running: behind })], 'energy', { riskMax: RISK_MAX })?.id, 'where there is no other, it is').toBe('behind');
  });

  test('is to where it puts the least at risk, and no more to the cheapest, once a crowd waits', () => {
    // Streams whose lengths are uncertain and whose steps are nearly as long as they may be.
    const near = streams(12, { tpotLimitMs: 26, bankMs: 150, tokensOut: 4, remainingLow: 2, remainingMiddle: 60, remainingHigh: 400 });
    const candidates = [candidate('fuller', { running: near }), candidate('emptier', { running: near.slice(0, 2) })];
    expect(chooseRoute(candidates, 'energy', { riskMax: 1_000 })?.id).toBe('fuller');
    expect(chooseRoute(candidates, 'energy', { riskMax: 1_000, crowded: true })?.id).toBe('emptier');
  });

  test('by load is to the replica with the fewest jobs, whatever they cost', () => {
    expect(chooseRoute([candidate('fuller', { running: streams(12) }), candidate('emptier', { running: streams(2) })], 'least-loaded', { riskMax: RISK_MAX })?.id).toBe('emptier');
    expect(chooseRoute([], 'least-loaded', { riskMax: RISK_MAX })).toBeNull();
    expect(chooseRoute([], 'energy', { riskMax: RISK_MAX })).toBeNull();
  });
});
