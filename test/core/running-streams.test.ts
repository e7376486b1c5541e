import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createGuardBands } from '../../src/core/guard-band.ts';
import type { JobId, JobSpec } from '../../src/core/job.ts';
import { createLengthPredictor } from '../../src/core/length-predictor.ts';
import { STREAMS } from '../../src/core/limits.ts';
import { planReplica } from '../../src/core/planner.ts';
import { createReplicaQueue, type ReplicaQueue } from '../../src/core/replica-queue.ts';
import { sent, type TrackedJob } from '../../src/core/tracked-job.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const MANY = 40 * STREAMS.apartMax;

function queue(streamsApart = false): ReplicaQueue {
  return createReplicaQueue({ model, lengths: createLengthPredictor(), guards: createGuardBands(0.99), controlPeriodMs: 100, concurrencyMax: 10_000, streamsApart });
}

function tracked(index: number, over: Partial<JobSpec> = {}): TrackedJob {
  const spec: JobSpec = { jobId: `j${index}` as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo: { ttftMs: 1e9, tpotMs: 500 }, promptBytes: 400, work: 'generate', streaming: true, ...over };
  return sent({ spec, key: 'm\nt', lengthKey: 'm\nt', promptTokens: 100, arrivedAtMs: 0, e2eDeadlineAtMs: spec.slo.e2eMs ?? Infinity, e2eMoves: false, firstDeadlineAtMs: 1e9, latestStartAtMs: Infinity, workMs: 100 }, true, 0);
}

/** Running since 0, each with so many tokens. */
function running(replica: ReplicaQueue, tokens: readonly number[], over: (index: number) => Partial<JobSpec> = () => ({})): TrackedJob[] {
  const jobs = tokens.map((_, index) => tracked(index, over(index)));
  for (const job of jobs) replica.add(job, 0);
  for (const [index, job] of jobs.entries()) replica.tokens(job, tokens[index] as number, 0);
  return jobs;
}

const counts = (length: number): number[] => Array.from({ length }, (_, index) => 1 + ((index * 7919) % 400));

describe('running streams as decisions see them', () => {
  test('each stands for itself up to the bound, and one more makes groups', () => {
    const few = queue();
    running(few, counts(STREAMS.apartMax));
    expect(few.view(10).running.map(({ streams }) => streams)).toEqual(Array.from({ length: STREAMS.apartMax }, () => 1));
    const more = queue();
    running(more, counts(STREAMS.apartMax + 1));
    expect(more.view(10).running.length).toBeLessThanOrEqual(STREAMS.groupsMax);
  });

  test('are no more than the bound however many and however different they are, and none is forgotten', () => {
    const replica = queue();
    running(replica, counts(MANY), (index) => ({ slo: { ttftMs: 1e9, ...(index % 3 === 0 ? {} : { tpotMs: 1 + index }), ...(index % 2 === 0 ? { e2eMs: 1e6 * (1 + (index % 97)) } : {}) } }));
    const { running: seen, runningCount } = replica.view(10);
    expect(seen.length).toBeLessThanOrEqual(STREAMS.groupsMax);
    expect(seen.reduce((sum, { streams }) => sum + streams, 0)).toBe(MANY);
    expect(runningCount).toBe(MANY);
  });

  test('a group has the worst of each limit and the mean of what is counted', () => {
    const [together, apart] = [queue(), queue(true)];
    for (const replica of [together, apart]) running(replica, counts(MANY));
    const groups = together.view(10).running;
    const each = apart.view(10).running;
    expect(Math.min(...groups.map(({ bankMs }) => bankMs))).toBe(Math.min(...each.map(({ bankMs }) => bankMs)));
    expect(Math.min(...groups.map(({ remainingLow }) => remainingLow))).toBe(Math.min(...each.map(({ remainingLow }) => remainingLow)));
    expect(Math.max(...groups.map(({ remainingHigh }) => remainingHigh))).toBe(Math.max(...each.map(({ remainingHigh }) => remainingHigh)));
    const mean = (streams: readonly { readonly streams: number; readonly bankMeanMs: number }[]): number => streams.reduce((sum, stream) => sum + stream.streams * stream.bankMeanMs, 0) / MANY;
    expect(mean(groups)).toBeCloseTo(mean(each), 3);
  });

  test('no point is planned for a group that is slower than the one for each of its streams', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ tokens: fc.integer({ min: 1, max: 300 }), tpotMs: fc.integer({ min: 20, max: 200 }) }), { minLength: STREAMS.apartMax + 1, maxLength: 200 }), fc.integer({ min: 1, max: 2_000 }), (streams, nowMs) => {
        const plans = [queue(), queue(true)].map((replica) => {
          running(replica, streams.map(({ tokens }) => tokens), (index) => ({ slo: { tpotMs: streams[index]?.tpotMs as number } }));
          return planReplica(replica.view(nowMs));
        });
        const [together, apart] = plans as [(typeof plans)[number], (typeof plans)[number]];
        // Where some are lost already, which of a group's that are is judged by their mean.
        if (apart.lost > 0 || together.lost > 0) return;
        expect(model.speedRank[together.point]).toBeLessThanOrEqual(model.speedRank[apart.point] as number);
      }),
      { numRuns: 200, seed: 5 },
    );
  });

  test('are looked over once in the time that many of them allow; those that begin meanwhile are seen at once, up to a bound', () => {
    const replica = queue();
    const jobs = running(replica, counts(MANY));
    const before = replica.view(0).running.map(({ bankMs }) => bankMs);
    for (const job of jobs) replica.tokens(job, 100, 1);
    expect(replica.view(1).running.map(({ bankMs }) => bankMs)).toEqual(before);
    const fresh = tracked(MANY);
    replica.add(fresh, 2);
    replica.tokens(fresh, 1, 2);
    expect(replica.view(2).running.at(-1)).toMatchObject({ jobId: fresh.spec.jobId, streams: 1 });
    expect(replica.view(2).runningCount).toBe(MANY + 1);
    for (let index = 1; index <= STREAMS.freshMax; index++) {
      const next = tracked(MANY + index);
      replica.add(next, 3);
      replica.tokens(next, 1, 3);
    }
    const folded = replica.view(3).running;
    expect(folded.length).toBeLessThanOrEqual(STREAMS.groupsMax + STREAMS.freshMax);
    expect(folded.reduce((sum, { streams }) => sum + streams, 0)).toBe(MANY + 1 + STREAMS.freshMax);
    // The others are still as they were.
    expect(Math.max(...folded.map(({ bankMs }) => bankMs))).toBe(Math.max(...before));
    const surveyed = replica.view(MANY * STREAMS.surveyMsPerStream).running;
    expect(Math.max(...surveyed.map(({ bankMeanMs }) => bankMeanMs))).toBeGreaterThan(Math.max(...before) + 10_000);
    expect(surveyed.length).toBeLessThanOrEqual(STREAMS.groupsMax);
    expect(replica.view(3 + MANY).running.reduce((sum, { streams }) => sum + streams, 0)).toBe(MANY + 1 + STREAMS.freshMax);
  });

  test('those that began unseen, more than are remembered, are all seen', () => {
    const replica = queue();
    running(replica, counts(MANY));
    replica.view(0);
    for (let index = 0; index < 3 * STREAMS.freshMax; index++) {
      const next = tracked(MANY + index);
      replica.add(next, 1);
      replica.tokens(next, 1, 1);
    }
    expect(replica.view(1).running.reduce((sum, { streams }) => sum + streams, 0)).toBe(MANY + 3 * STREAMS.freshMax);
  });

  test('one that has ended leaves no context behind, and is not counted', () => {
    const replica = queue();
    const jobs = running(replica, counts(MANY));
    replica.view(0);
    for (const job of jobs) replica.remove(job, 1);
    expect(replica.view(1)).toMatchObject({ running: [], runningCount: 0, contextTokens: 0 });
  });

  test('jobs that do not stream have the tokens that the steps since they began have brought them', () => {
    const replica = queue();
    const job = tracked(0, { streaming: false });
    replica.add(job, 0);
    const startedMs = 1_000;
    replica.view(startedMs);
    const { tokensOut: first } = replica.view(startedMs + 1_000).running[0] as { tokensOut: number };
    const { tokensOut: second } = replica.view(startedMs + 2_000).running[0] as { tokensOut: number };
    expect(second - first).toBeGreaterThan(5);
    replica.remove(job, startedMs + 2_000);
    expect(Math.floor(job.tokensOut)).toBe(second);
  });
});
