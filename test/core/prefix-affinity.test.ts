import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, Usage } from '../../src/core/job.ts';
import { PREFIX } from '../../src/core/limits.ts';
import { createPrefixAffinity, type PrefixAffinity } from '../../src/core/prefix-affinity.ts';
import { sent, type TrackedJob } from '../../src/core/tracked-job.ts';

const BLOCK_TOKENS = 100;
let jobs = 0;

/** Of ten tokens more than its blocks. */
function job(blocks: readonly number[]): TrackedJob {
  const promptTokens = blocks.length * BLOCK_TOKENS + 10;
  const spec: JobSpec = { jobId: `j${jobs++}` as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo: {}, promptBytes: 4 * promptTokens, prefix: { blocks, blockShare: BLOCK_TOKENS / promptTokens }, work: 'generate', streaming: true };
  return sent({ spec, key: 'm\nt', lengthKey: 'm\nt', promptTokens, arrivedAtMs: 0, e2eDeadlineAtMs: Infinity, e2eMoves: false, firstDeadlineAtMs: Infinity, latestStartAtMs: Infinity, workMs: 100 }, true, 0);
}

function usage({ promptTokens }: TrackedJob, cachedTokens: number): Usage {
  return { promptTokens, cachedTokens, outputTokens: 10 };
}

/** Serves a prompt; the server says that it had so much of it. */
function serve(affinity: PrefixAffinity, blocks: readonly number[], replica: number, cachedTokens: number): TrackedJob {
  const served = job(blocks);
  affinity.sent(served, replica);
  affinity.ended(served, replica, 'finished', usage(served, cachedTokens));
  return served;
}

const A = [1, 2, 3, 4];

describe('what is expected to be cached', () => {
  test('is what was sent there before, as far as it begins alike, and nowhere else', () => {
    const affinity = createPrefixAffinity([1e6, 1e6], true);
    serve(affinity, A, 0, 0);
    const [same, half, other] = [job([...A, 5]), job([1, 2, 8, 9]), job([8, 9])];
    expect(affinity.cachedTokens(same, 0)).toBeGreaterThan(affinity.cachedTokens(half, 0));
    expect(affinity.cachedTokens(half, 0)).toBeGreaterThan(0);
    expect([affinity.cachedTokens(other, 0), affinity.cachedTokens(same, 1)]).toEqual([0, 0]);
    expect(affinity.mostCachedTokens(same)).toBe(affinity.cachedTokens(same, 0));
  });

  test('comes to what the server says within a few answers, and leaves a token to be read', () => {
    const affinity = createPrefixAffinity([1e6], true);
    serve(affinity, A, 0, 0);
    for (let answer = 0; answer < 40; answer++) serve(affinity, A, 0, 400);
    expect(affinity.trust(0)).toBeGreaterThan(0.95);
    expect(affinity.cachedTokens(job(A), 0)).toBeGreaterThan(380);
    const whole: TrackedJob = { ...job(A), promptTokens: 300 };
    expect(affinity.cachedTokens(whole, 0)).toBeLessThan(300);
  });

  test('goes to nothing by itself where a server never has anything cached, and comes back when it has', () => {
    const affinity = createPrefixAffinity([1e6], true);
    for (let answer = 0; answer < 100; answer++) serve(affinity, A, 0, 0);
    expect(affinity.cachedTokens(job(A), 0)).toBeLessThan(4);
    for (let answer = 0; answer < 100; answer++) serve(affinity, A, 0, 400);
    expect(affinity.cachedTokens(job(A), 0)).toBeGreaterThan(300);
  });

  test('is drawn in to what a server holds, where that is less than its memory', () => {
    // The server holds the last five of prompts of 400 tokens; we believe that it has room for a hundred.
    const affinity = createPrefixAffinity([40_000], true);
    const held: number[] = [];
    let [claimed, wrong] = [0, 0];
    for (let turn = 0; turn < 3000; turn++) {
      // Every prompt comes back after two others, and once more after twenty.
      const who = turn % 3 === 2 ? turn - 2 : turn % 3 === 1 ? Math.max(0, turn - 61) : turn;
      const blocks = Array.from({ length: 4 }, (_, index) => who * 10 + index);
      const there = held.includes(who);
      const served = serve(affinity, blocks, 0, there ? 400 : 0);
      if (turn >= 2000 && served.prefixHits > 0) {
        claimed += 1;
        if (!there) wrong += 1;
      }
      if (there) held.splice(held.indexOf(who), 1);
      held.push(who);
      if (held.length > 5) held.shift();
    }
    expect(claimed).toBeGreaterThan(250);
    expect(wrong / claimed).toBeLessThan(0.1);
  });

  test('is nothing after the server was down, nor of a job that never came there or left before it was read', () => {
    const affinity = createPrefixAffinity([1e6], true);
    serve(affinity, A, 0, 0);
    affinity.lost(0);
    expect(affinity.cachedTokens(job(A), 0)).toBe(0);
    const back = job(A);
    affinity.sent(back, 0);
    affinity.returned(back, 0);
    expect(affinity.cachedTokens(job(A), 0)).toBe(0);
    const left = job(A);
    affinity.sent(left, 0);
    expect(affinity.cachedTokens(job(A), 0)).toBeGreaterThan(0);
    affinity.ended(left, 0, 'cancelled', undefined);
    expect(affinity.cachedTokens(job(A), 0)).toBe(0);
  });

  test('is nothing where it is switched off, or nothing is known of the prompt', () => {
    const off = createPrefixAffinity([1e6], false);
    serve(off, A, 0, 400);
    expect([off.cachedTokens(job(A), 0), off.mostCachedTokens(job(A)), off.holders(job(A).spec)]).toEqual([0, 0, null]);
    const { prefix: _, ...unknown } = job(A).spec;
    const on = createPrefixAffinity([1e6], true);
    serve(on, A, 0, 400);
    expect(on.cachedTokens({ spec: unknown, promptTokens: 410 }, 0)).toBe(0);
  });
});

test('in a large fleet those are found that have most of a prompt, without asking each', () => {
  const affinity = createPrefixAffinity(Array.from({ length: 200 }, () => 1e6), true);
  for (let replica = 0; replica < 150; replica++) serve(affinity, [1], replica, 0);
  serve(affinity, A, 120, 0);
  expect([...(affinity.holders(job([...A, 5]).spec) ?? [])]).toEqual([120]);
  expect(affinity.mostCachedTokens(job(A))).toBe(affinity.cachedTokens(job(A), 120));
  // Of what nearly all have, the latest.
  expect([...(affinity.holders(job([1, 9]).spec) ?? [])]).toEqual([120, 149, 148, 147]);
  expect(PREFIX.holdersMax).toBe(4);
  expect([...(affinity.holders(job([7]).spec) ?? [])]).toEqual([]);
});

test.each([3, 200])('of %i, one that leaves takes what it had along, those behind it keep theirs by their new places, and one that joins has nothing', (replicas) => {
  const affinity = createPrefixAffinity(Array.from({ length: replicas }, () => 1e6), true);
  serve(affinity, A, 1, 0);
  serve(affinity, [5, 6, 7], 2, 0);
  const before = affinity.cachedTokens(job([5, 6, 7]), 2);
  expect(before).toBeGreaterThan(0);
  affinity.left(1);
  affinity.joined(1e6);
  expect(affinity.cachedTokens(job([5, 6, 7]), 1)).toBe(before);
  expect(affinity.mostCachedTokens(job([5, 6, 7]))).toBe(before);
  expect([affinity.mostCachedTokens(job(A)), affinity.cachedTokens(job(A), replicas - 1)]).toEqual([0, 0]);
});
