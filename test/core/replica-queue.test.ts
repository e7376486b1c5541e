import { describe, expect, test } from 'vitest';
import { createGuardBands } from '../../src/core/guard-band.ts';
import type { JobId, JobSpec } from '../../src/core/job.ts';
import { createLengthPredictor } from '../../src/core/length-predictor.ts';
import { createReplicaQueue, type ReplicaQueue } from '../../src/core/replica-queue.ts';
import { sent, type TrackedJob } from '../../src/core/tracked-job.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const model = createPerformanceModel(CLOCK_PROFILE);

function queue(): ReplicaQueue {
  return createReplicaQueue({ model, lengths: createLengthPredictor(), guards: createGuardBands(0.99), controlPeriodMs: 100, concurrencyMax: 64 });
}

function tracked(id: string, arrivedAtMs: number, over: Partial<JobSpec> = {}, promptTokens = 1000): TrackedJob {
  const spec: JobSpec = { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo: { ttftMs: 1000, tpotMs: 50 }, promptBytes: 4000, work: 'generate', streaming: true, ...over };
  return sent({ spec, key: 'm\nt', lengthKey: 'm\nt', promptTokens, arrivedAtMs, e2eDeadlineAtMs: arrivedAtMs + (spec.slo.e2eMs ?? Infinity), e2eMoves: false, firstDeadlineAtMs: arrivedAtMs + 1000, latestStartAtMs: Infinity, workMs: 100 }, true, arrivedAtMs);
}

/** As the model has it at the fastest point. */
function prefillMs(promptTokens: number): number {
  return model.iterationTimeMs({ prefill: { tokens: promptTokens, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } }, model.fastest);
}

describe('what has been sent to a replica', () => {
  test('waits until its first token, then runs, then is gone, and leaves no context behind', () => {
    const replica = queue();
    const jobs = [tracked('a', 0), tracked('b', 0)];
    for (const job of jobs) replica.add(job, 0);
    expect([replica.waitingCount(), replica.runningCount()]).toEqual([2, 0]);
    for (const job of jobs) replica.tokens(job, 1, 200);
    expect(replica.view(200)).toMatchObject({ waiting: [], contextTokens: 2002 });
    for (const job of jobs) replica.remove(job, 300);
    expect(replica.view(300)).toMatchObject({ waiting: [], running: [], contextTokens: 0 });
  });

  test('is prefilled in order, as far as the time that has passed allows', () => {
    const replica = queue();
    replica.add(tracked('a', 0), 0);
    replica.add(tracked('b', 0), 0);
    const after = replica.view(prefillMs(2000) * 0.75).waiting.map(({ prefilledTokens }) => prefilledTokens);
    expect(after[0]).toBe(1000);
    expect(after[1]).toBeGreaterThan(300);
    expect(after[1]).toBeLessThan(700);
  });

  test('banks what it is ahead of its TPOT, and owes what it is behind', () => {
    const replica = queue();
    const job = tracked('a', 0);
    replica.add(job, 0);
    for (let token = 0; token < 11; token++) replica.tokens(job, 1, 100 + token * 20);
    expect(replica.view(300).running[0]?.bankMs).toBeCloseTo(10 * 50 - 200, 6);
    expect(replica.view(1300).running[0]?.bankMs).toBeCloseTo(10 * 50 - 1200, 6);
  });

  test('binds nothing any more once its first token was late', () => {
    const replica = queue();
    const job = tracked('a', 0);
    replica.add(job, 0);
    replica.tokens(job, 1, 1001);
    expect(replica.view(1001).running[0]).toMatchObject({ tpotLimitMs: Infinity, e2eDeadlineAtMs: Infinity });
  });

  test('has no TPOT where there is no second token: embeddings, and max_tokens 1', () => {
    const replica = queue();
    replica.add(tracked('a', 0, { work: 'embed', streaming: false }), 0);
    replica.add(tracked('b', 0, { maxOutputTokens: 1 }), 0);
    expect(replica.view(1).waiting.map(({ tpotLimitMs }) => tpotLimitMs)).toEqual([Infinity, Infinity]);
  });
});

describe('a job that does not stream', () => {
  test('is taken as running when its prefill should be done, even behind one whose first token does not come', () => {
    const replica = queue();
    replica.add(tracked('silent', 0), 0);
    replica.add(tracked('plain', 0, { streaming: false }), 0);
    replica.view(5 * prefillMs(2000));
    expect([replica.waitingCount(), replica.runningCount()]).toEqual([1, 1]);
  });

  test('keeps the tokens it is reckoned to have when the clock changes, and never has more than it may', () => {
    const replica = queue();
    replica.add(tracked('plain', 0, { streaming: false, maxOutputTokens: 200 }), 0);
    replica.view(prefillMs(1000) + 5);
    const bankMs = (): number => replica.view(3000).running[0]?.bankMs ?? Number.NaN;
    const before = bankMs();
    expect(before).toBeGreaterThan(1000);
    replica.applied(0, 3000);
    expect(bankMs()).toBe(before);
    replica.view(60_000);
    expect(replica.view(60_000).contextTokens).toBeLessThanOrEqual(1200);
  });
});

describe('what is learnt', () => {
  function prefillScaleAfter(play: (replica: ReplicaQueue) => void): number {
    const replica = queue();
    for (let round = 0; round < 40; round++) play(replica);
    return replica.corrections.overall('prefill');
  }
  let nowMs = 0;

  test.each([1, 1.25])('a prefill that takes %d times what the profile says', (factor) => {
    const scale = prefillScaleAfter((replica) => {
      const job = tracked(`j${nowMs}`, nowMs);
      replica.add(job, nowMs);
      nowMs += prefillMs(1000) * factor;
      replica.tokens(job, 1, nowMs);
      replica.remove(job, nowMs);
      nowMs += 1000;
    });
    expect(scale).toBeGreaterThan(1 + 0.8 * (factor - 1) - 0.01);
    expect(scale).toBeLessThan(factor + 0.01);
  });

  test('nothing from prompts of one batch, or one that waited for another: whose time it was cannot be told', () => {
    const batched = prefillScaleAfter((replica) => {
      const jobs = [tracked(`a${nowMs}`, nowMs), tracked(`b${nowMs}`, nowMs)];
      for (const job of jobs) replica.add(job, nowMs);
      nowMs += prefillMs(2000);
      for (const job of jobs) replica.tokens(job, 1, nowMs);
      for (const job of jobs) replica.remove(job, nowMs);
      nowMs += 1000;
    });
    const cancelled = prefillScaleAfter((replica) => {
      const [leaver, stayer] = [tracked(`a${nowMs}`, nowMs), tracked(`b${nowMs}`, nowMs)];
      replica.add(leaver, nowMs);
      replica.add(stayer, nowMs);
      replica.remove(leaver, nowMs + 400);
      nowMs += 400 + prefillMs(1000);
      replica.tokens(stayer, 1, nowMs);
      replica.remove(stayer, nowMs);
      nowMs += 1000;
    });
    expect([batched, cancelled]).toEqual([1, 1]);
  });

  test('a step that takes longer, and nothing of the time in which a stream was being cancelled', () => {
    const replica = queue();
    const job = tracked('a', 0);
    const other = tracked('b', 0);
    for (const each of [job, other]) replica.add(each, 0);
    for (const each of [job, other]) replica.tokens(each, 1, 200);
    let atMs = 200;
    for (let step = 0; step < 400; step++) {
      const decode = { sequences: 2, contextTokens: replica.view(atMs).contextTokens };
      atMs += model.iterationTimeMs({ prefill: { tokens: 0, contextTokens: 0 }, decode }, model.fastest) * 1.2;
      for (const each of [job, other]) replica.tokens(each, 1, atMs);
    }
    const learnt = replica.corrections.overall('decode');
    expect(learnt).toBeGreaterThan(1.1);
    expect(learnt).toBeLessThan(1.22);
    replica.remove(other, atMs + 5000);
    expect(replica.corrections.overall('decode')).toBeLessThan(1.22);
  });
});

test('a replica that was not seen yet is taken as others have seen it, and its own samples outweigh them in time', () => {
  const replica = queue();
  const structure = replica.structure();
  replica.peersLearnt({ prefill: { value: 2, samples: 20 }, decode: { value: 1.5, samples: 20 } });
  const { prefill, decode } = replica.view(0).timeScale;
  for (const scale of prefill) expect(scale).toBeCloseTo(2, 9);
  for (const scale of decode) expect(scale).toBeCloseTo(1.5, 9);
  expect(replica.structure()).not.toBe(structure);
  // What others say is not told on as one's own.
  expect(replica.learnt()).toEqual({ prefill: { value: 1, samples: 0 }, decode: { value: 1, samples: 0 } });
  let nowMs = 0;
  const seen: number[] = [];
  for (let round = 0; round < 40; round++) {
    const job = tracked(`j${round}`, nowMs);
    replica.add(job, nowMs);
    nowMs += prefillMs(1000);
    replica.tokens(job, 1, nowMs);
    replica.remove(job, nowMs);
    nowMs += 1000;
    seen.push(replica.corrections.overall('prefill'));
  }
  expect(seen[0]).toBeGreaterThan(1.8);
  expect(seen.at(-1)).toBeCloseTo(1, 2);
  expect(replica.learnt().prefill.samples).toBe(40);
  replica.peersLearnt({ prefill: { value: 2, samples: 20 }, decode: { value: 1.5, samples: 20 } });
  expect(replica.corrections.overall('prefill')).toBeCloseTo(1, 2);
});

test('streams of others on the server come and go with its metrics, and count no less than what peers say', () => {
  const replica = queue();
  replica.load(9, 0);
  for (let poll = 0; poll < 20; poll++) replica.load(1, 0);
  expect(replica.view(1).foreignSequences).toBe(1);
  replica.peerLoad(7);
  expect(replica.view(2).foreignSequences).toBe(7);
  replica.peerLoad(0);
  replica.load(0, 0);
  expect(replica.view(3).foreignSequences).toBe(0);
});

describe('a queue whose prompts are prefilled on devices of their own', () => {
  const groups = (): ReplicaQueue => createReplicaQueue({ model, lengths: createLengthPredictor(), guards: createGuardBands(0.99), controlPeriodMs: 100, concurrencyMax: 64, disaggregated: true });
  const SLOWEST = 0;
  const alone = (point: number): number => model.iterationTimeMs({ prefill: { tokens: 1000, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } }, point);

  test("believes them to go on at the prefill group's point, whatever the decode group's is and however many streams it has", () => {
    const prefilledAt = (prefill: number | null, decode: number | null, streams: number): number | undefined => {
      const replica = groups();
      replica.groupApplied('prefill', { appliedPoint: prefill, controlled: true }, 0);
      replica.groupApplied('decode', { appliedPoint: decode, controlled: true }, 0);
      for (let index = 0; index < streams; index++) {
        const job = tracked(`s${index}`, 0);
        replica.add(job, 0);
        replica.tokens(job, 1, 0);
      }
      replica.add(tracked('a', 0), 0);
      return replica.view(alone(model.fastest) / 2).waiting[0]?.prefilledTokens;
    };
    expect(prefilledAt(null, null, 0)).toBe(500);
    expect(prefilledAt(null, SLOWEST, 50)).toBe(500);
    expect(prefilledAt(SLOWEST, null, 0)).toBe(Math.floor((500 * alone(model.fastest)) / alone(SLOWEST)));
  });

  test.each([
    { point: null, learnt: 1 },
    { point: SLOWEST, learnt: alone(model.fastest) / alone(SLOWEST) },
  ])("learns from a prompt by the prefill group's point ($point)", ({ point, learnt }) => {
    const replica = groups();
    replica.groupApplied('prefill', { appliedPoint: point, controlled: true }, 0);
    replica.groupApplied('decode', { appliedPoint: SLOWEST, controlled: true }, 0);
    for (let index = 0; index < 60; index++) {
      const atMs = 10_000 * (index + 1);
      const job = tracked(`j${index}`, atMs);
      replica.add(job, atMs);
      replica.tokens(job, 1, atMs + alone(model.fastest));
    }
    expect(replica.corrections.overall('prefill')).toBeCloseTo(Math.max(0.5, learnt), 1);
  });

  test('shows the state of each group, and that a group was lost as a change', () => {
    const replica = groups();
    replica.groupApplied('decode', { appliedPoint: SLOWEST, controlled: true }, 0);
    const structure = replica.structure();
    expect(replica.view(1)).toMatchObject({ appliedPoint: SLOWEST, groups: { prefill: { appliedPoint: null, controlled: false }, decode: { appliedPoint: SLOWEST, controlled: true } } });
    replica.groupApplied('decode', { appliedPoint: SLOWEST, controlled: true }, 2);
    expect(replica.structure()).toBe(structure);
    replica.groupApplied('decode', { appliedPoint: null, controlled: false }, 3);
    expect(replica.structure()).toBeGreaterThan(structure);
    expect(replica.view(4)).toMatchObject({ appliedPoint: null, groups: { decode: { controlled: false } } });
    expect(queue().view(0).groups).toBeUndefined();
  });
});
