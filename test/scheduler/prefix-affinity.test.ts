import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import { ALL_MECHANISMS } from '../../src/core/mechanisms.ts';
import { createPerformanceModel, NO_DECODE, promptTimeMs } from '../../src/frontier/performance-model.ts';
import type { Effect, Prediction } from '../../src/scheduler/events.ts';
import { createScheduler, type Scheduler, type SchedulerOptions } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const BLOCK_TOKENS = 500;

/** A conversation's prompt: blocks of its own, from `who` on. */
function job(id: string, who: number, blocks: number, over: Partial<JobSpec> = {}): JobSpec {
  const promptTokens = blocks * BLOCK_TOKENS + 50;
  const prefix = { blocks: Array.from({ length: blocks }, (_, index) => who * 1000 + index), blockShare: BLOCK_TOKENS / promptTokens };
  return { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo: { ttftMs: 3000, tpotMs: 60 }, promptBytes: 4 * promptTokens, promptTokens, prefix, work: 'generate', streaming: true, ...over };
}

function started(replicas: number, over: Partial<SchedulerOptions> = {}): Scheduler {
  const replicaIds = Array.from({ length: replicas }, (_, index) => `r${index}` as ReplicaId);
  const scheduler = createScheduler({ replicas: replicaIds.map((replicaId) => ({ replicaId, models: ['m'], belief, concurrencyMax: 64 })), policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 100, ...over });
  for (const replicaId of replicaIds) {
    scheduler.handle({ kind: 'replica-health', replicaId, state: 'up' }, 0);
    scheduler.handle({ kind: 'control', replicaId, controlled: true, pointId: null }, 0);
  }
  return scheduler;
}

function dispatchOf(effects: readonly Effect[]): { readonly replicaId: string; readonly prediction: Prediction } | undefined {
  return effects.find((effect) => effect.kind === 'dispatch');
}

/** As the profile has it at the fastest point, with nobody beside it. */
function prefillMs(promptTokens: number, cachedTokens: number): number {
  return promptTimeMs(promptTokens, belief.profile.serving.maxBatchTokens, (prefill) => belief.iterationTimeMs({ prefill, decode: NO_DECODE }, belief.fastest), cachedTokens);
}

/** Sends it and lets it end; the server had so many tokens cached, takes as long as that, and says so. */
function serve(scheduler: Scheduler, spec: JobSpec, cachedTokens: number, atMs: number): Prediction | undefined {
  const { jobId, promptTokens = 0 } = spec;
  const dispatched = dispatchOf(scheduler.handle({ kind: 'arrived', job: spec }, atMs));
  const firstAtMs = atMs + prefillMs(promptTokens, cachedTokens);
  scheduler.handle({ kind: 'tokens', jobId, tokens: 1 }, firstAtMs);
  scheduler.handle({ kind: 'ended', jobId, outcome: 'finished', usage: { promptTokens, cachedTokens, outputTokens: 1 } }, firstAtMs);
  return dispatched?.prediction;
}

/** Only this one takes jobs. */
function only(scheduler: Scheduler, replicaId: string, atMs: number): void {
  for (const each of ['r0', 'r1']) scheduler.handle({ kind: 'replica-health', replicaId: each as ReplicaId, state: each === replicaId ? 'up' : 'draining' }, atMs);
}

function all(scheduler: Scheduler, atMs: number): void {
  for (const each of ['r0', 'r1']) scheduler.handle({ kind: 'replica-health', replicaId: each as ReplicaId, state: 'up' }, atMs);
}

/** Two replicas; the conversation 7 has been had on `r1`, and 8 on `r0`. */
function withConversation(over: Partial<SchedulerOptions> = {}, cached = true): { readonly scheduler: Scheduler; readonly home: string } {
  const scheduler = started(2, over);
  let atMs = 0;
  for (const [replicaId, who] of [['r1', 7], ['r0', 8]] as const) {
    only(scheduler, replicaId, atMs);
    for (let turn = 0; turn < 12; turn++, atMs += 1000) serve(scheduler, job(`${replicaId} ${turn}`, who, 10), turn === 0 || !cached ? 0 : 5000, atMs);
  }
  all(scheduler, atMs);
  return { scheduler, home: 'r1' };
}

const NOW_MS = 30_000;

describe('a prompt that begins as one before', () => {
  test('goes to the replica that has it, and is predicted to be answered sooner', () => {
    const { scheduler, home } = withConversation();
    const follow = dispatchOf(scheduler.handle({ kind: 'arrived', job: job('follow', 7, 12) }, NOW_MS));
    const fresh = dispatchOf(withConversation().scheduler.handle({ kind: 'arrived', job: job('fresh', 9, 12) }, NOW_MS));
    expect(follow?.replicaId).toBe(home);
    expect(follow?.prediction.ttftMs).toBeLessThan(0.6 * (fresh?.prediction.ttftMs as number));
    // And not because the first is always that one.
    expect(dispatchOf(withConversation().scheduler.handle({ kind: 'arrived', job: job('other', 8, 12) }, NOW_MS))?.replicaId).toBe('r0');
  });

  test('goes elsewhere where its deadline would not hold there', () => {
    const { scheduler, home } = withConversation();
    // Six prompts of eight thousand tokens wait there, since the other replica takes nobody for the moment.
    only(scheduler, home, NOW_MS);
    for (let prompt = 0; prompt < 6; prompt++) expect(dispatchOf(scheduler.handle({ kind: 'arrived', job: job(`busy ${prompt}`, 20 + prompt, 16, { slo: {} }) }, NOW_MS))?.replicaId).toBe(home);
    all(scheduler, NOW_MS);
    // It may wait for its home, where it would be much cheaper, for half of its slack.
    let sent = dispatchOf(scheduler.handle({ kind: 'arrived', job: job('follow', 7, 12) }, NOW_MS));
    for (let atMs = NOW_MS + 100; sent === undefined && atMs < NOW_MS + 3000; atMs += 100) sent = dispatchOf(scheduler.handle({ kind: 'tick' }, atMs));
    expect(sent).toMatchObject({ replicaId: 'r0', prediction: { feasible: true } });
  });

  test('is not drawn to where its server has nothing cached', () => {
    const predicted = (cached: boolean): number | undefined => dispatchOf(withConversation({}, cached).scheduler.handle({ kind: 'arrived', job: job('follow', 7, 12) }, NOW_MS))?.prediction.ttftMs;
    const without = dispatchOf(withConversation({}, false).scheduler.handle({ kind: 'arrived', job: job('fresh', 9, 12) }, NOW_MS));
    expect(predicted(true)).toBeLessThan(0.6 * (without?.prediction.ttftMs as number));
    expect(predicted(false)).toBeGreaterThan(0.85 * (without?.prediction.ttftMs as number));
  });

  test('is like any other with the mechanism off, and under least-loaded routing', () => {
    const off = withConversation({ mechanisms: { ...ALL_MECHANISMS, prefixAffinity: false } }).scheduler;
    const follow = dispatchOf(off.handle({ kind: 'arrived', job: job('follow', 7, 12) }, NOW_MS));
    const offAgain = withConversation({ mechanisms: { ...ALL_MECHANISMS, prefixAffinity: false } }).scheduler;
    const fresh = dispatchOf(offAgain.handle({ kind: 'arrived', job: job('follow', 9, 12) }, NOW_MS));
    expect(follow).toEqual(fresh);
    const plain = withConversation({ routing: 'least-loaded' }).scheduler;
    expect(dispatchOf(plain.handle({ kind: 'arrived', job: job('one', 7, 12) }, NOW_MS))?.replicaId).toBe('r0');
    expect(dispatchOf(plain.handle({ kind: 'arrived', job: job('two', 8, 12) }, NOW_MS))?.replicaId).toBe('r1');
  });

  test('is forgotten with a server that was down', () => {
    const { scheduler, home } = withConversation();
    scheduler.handle({ kind: 'replica-health', replicaId: home as ReplicaId, state: 'down' }, NOW_MS);
    scheduler.handle({ kind: 'replica-health', replicaId: home as ReplicaId, state: 'up' }, NOW_MS);
    const again = dispatchOf(scheduler.handle({ kind: 'arrived', job: job('follow', 7, 12) }, NOW_MS));
    const fresh = dispatchOf(withConversation().scheduler.handle({ kind: 'arrived', job: job('fresh', 9, 12) }, NOW_MS));
    expect(again?.prediction.ttftMs).toBeGreaterThan(0.95 * (fresh?.prediction.ttftMs as number));
  });
});

test('a prompt is not sent the way of one of its size that begins otherwise, however lately that was judged', () => {
  const loose = { slo: { ttftMs: 20_000 } };
  const { scheduler } = withConversation();
  // Both so full that a judgement stands for several jobs.
  for (const replicaId of ['r0', 'r1']) {
    only(scheduler, replicaId, NOW_MS - 3000);
    for (let stream = 0; stream < 40; stream++) {
      const jobId = `${replicaId} stream ${stream}` as JobId;
      scheduler.handle({ kind: 'arrived', job: job(jobId, 100 + stream, 0, { slo: {} }) }, NOW_MS - 3000);
      scheduler.handle({ kind: 'tokens', jobId, tokens: 1 }, NOW_MS - 1000);
    }
  }
  all(scheduler, NOW_MS - 1000);
  let jobs = 0;
  const placeOf = (who: number): string | undefined => dispatchOf(scheduler.handle({ kind: 'arrived', job: job(`f${jobs++}`, who, 11, loose) }, NOW_MS))?.replicaId;
  expect([7, 8, 7, 8, 7].map(placeOf)).toEqual(['r1', 'r0', 'r1', 'r0', 'r1']);
  // One that is had nowhere goes where there is less to do; that judgement stands for others of its kind, and for no others.
  expect([placeOf(50), placeOf(51), placeOf(52), placeOf(7)]).toEqual(['r0', 'r0', 'r0', 'r1']);
});

test('what a prompt takes is learnt by what of it was read, so that a server with a cache is not taken for a faster one', () => {
  const scheduler = started(1, { policy: { kind: 'max-clock' } });
  let last: Prediction | undefined;
  for (let turn = 0; turn < 60; turn++) last = serve(scheduler, job(`t${turn}`, 7, 10), turn === 0 ? 0 : 5000, turn * 20_000);
  const cold = dispatchOf(scheduler.handle({ kind: 'arrived', job: job('cold', 9, 10, { sloClass: 'another' }) }, 1_200_000))?.prediction.ttftMs as number;
  expect(last?.ttftMs).toBeLessThan(0.3 * cold);
  expect(cold / prefillMs(5050, 0)).toBeGreaterThan(0.9);
  expect(cold / prefillMs(5050, 0)).toBeLessThan(1.1);
});
