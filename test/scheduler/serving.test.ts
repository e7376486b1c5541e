import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Effect } from '../../src/scheduler/events.ts';
import { createScheduler, type Scheduler, type SchedulerOptions } from '../../src/scheduler/scheduler.ts';
import { createServing, type Servant } from '../../src/scheduler/serving.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const [R0, R1, R2] = ['r0', 'r1', 'r2'] as ReplicaId[] as [ReplicaId, ReplicaId, ReplicaId];

function servant(id: ReplicaId, breaker: Servant['breaker'], over: { readonly models?: readonly string[]; readonly state?: Servant['state']; readonly leaving?: Servant['leaving']; readonly isHeard?: boolean } = {}): Servant {
  return { spec: { replicaId: id, models: over.models ?? ['m'] }, state: over.state ?? 'up', leaving: over.leaving ?? null, isHeard: over.isHeard ?? true, breaker };
}

const closed = { kind: 'closed' } as const;
const free = { kind: 'half-open', trial: null } as const;
const tried = { kind: 'half-open', trial: 'j' as JobId } as const;
const open = (sinceMs: number) => ({ kind: 'open', sinceMs }) as const;

test.each([
  { name: 'whose breakers are closed', replicas: [servant(R0, closed), servant(R1, closed)], may: [R0, R1], count: 2 },
  { name: 'not the open ones beside closed ones', replicas: [servant(R0, open(1)), servant(R1, closed)], may: [R1], count: 1 },
  { name: 'a half-open one beside closed ones, for its trial', replicas: [servant(R0, free), servant(R1, closed)], may: [R0, R1], count: 1 },
  { name: 'not while it is tried', replicas: [servant(R0, tried), servant(R1, closed)], may: [R1], count: 1 },
  { name: 'half-open ones without limit where there are no closed ones', replicas: [servant(R0, tried), servant(R1, open(1))], may: [R0], count: 1 },
  { name: 'the one that has been open longest where all are', replicas: [servant(R0, open(5)), servant(R1, open(3)), servant(R2, open(4))], may: [R1], count: 1 },
  { name: 'the open one where the closed ones are down, or draining', replicas: [servant(R0, open(5)), servant(R1, closed, { state: 'down' }), servant(R2, closed, { state: 'draining' })], may: [R0], count: 1 },
  { name: 'the open one where the closed ones serve another model', replicas: [servant(R0, open(5)), servant(R1, closed, { models: ['n'] })], may: [R0], count: 1 },
  { name: 'the leaving one while nobody has heard of the one that comes', replicas: [servant(R0, closed, { leaving: {} }), servant(R1, closed, { state: 'down', isHeard: false })], may: [R0], count: 1 },
  { name: 'not the leaving one where the one that comes is up', replicas: [servant(R0, closed, { leaving: {} }), servant(R1, closed)], may: [R1], count: 1 },
  { name: 'nobody where the one that comes is known to be down', replicas: [servant(R0, closed, { leaving: {} }), servant(R1, closed, { state: 'down' })], may: [], count: 0 },
  { name: 'nobody where none comes', replicas: [servant(R0, closed, { leaving: {} }), servant(R1, closed, { models: ['n'], state: 'down', isHeard: false })], may: [], count: 0 },
  { name: 'nobody where nobody is up', replicas: [servant(R0, closed, { state: 'down' })], may: [], count: 0 },
])('serve a model: $name', ({ replicas, may, count }) => {
  const serving = createServing(replicas);
  expect(replicas.filter((replica) => serving.may(replica, { spec: { model: 'm' } as JobSpec })).map(({ spec }) => spec.replicaId)).toEqual(may);
  expect(serving.count('m')).toBe(count);
});

test('an open one serves a job that has come back from every other', () => {
  const replicas = [servant(R0, open(1)), servant(R1, closed)];
  const serving = createServing(replicas);
  const may = (avoid: readonly ReplicaId[]) => replicas.filter((replica) => serving.may(replica, { spec: { model: 'm' } as JobSpec, avoid })).map(({ spec }) => spec.replicaId);
  expect([may([R0]), may([R1]), may([R0, R1])]).toEqual([[R1], [R0], []]);
});

function job(id: string): JobSpec {
  return { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'c', slo: {}, promptBytes: 40, promptTokens: 10, work: 'generate', streaming: true };
}

function started(replicas: readonly ReplicaId[], concurrencyMax = 20, over: Partial<SchedulerOptions> = {}): Scheduler {
  const scheduler = createScheduler({ replicas: replicas.map((replicaId) => ({ replicaId, models: ['m'], belief, concurrencyMax })), policy: { kind: 'max-clock' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 1_000, slowStartMs: 10_000, ...over });
  for (const replicaId of replicas) scheduler.handle({ kind: 'replica-health', replicaId, state: 'up' }, 0);
  return scheduler;
}

function sentTo(effects: readonly Effect[]): (ReplicaId | undefined)[] {
  return effects.flatMap((effect) => (effect.kind === 'dispatch' ? [effect.replicaId] : []));
}

let jobs = 0;
function send(scheduler: Scheduler, count: number, nowMs: number): (ReplicaId | undefined)[] {
  return Array.from({ length: count }, () => sentTo(scheduler.handle({ kind: 'arrived', job: job(`j${jobs++}`) }, nowMs))[0]);
}

const breaker = (replicaId: ReplicaId, state: 'closed' | 'open' | 'half-open') => ({ kind: 'replica-breaker', replicaId, state }) as const;

describe('a breaker', () => {
  test('that opens keeps jobs away, half open lets one through at a time, and closed lets all', () => {
    const scheduler = started([R0, R1]);
    scheduler.handle(breaker(R0, 'open'), 10);
    expect(send(scheduler, 4, 20)).toEqual([R1, R1, R1, R1]);
    scheduler.handle(breaker(R0, 'half-open'), 30);
    const trial = `j${jobs}`;
    expect(send(scheduler, 3, 40)).toEqual([R0, R1, R1]);
    scheduler.handle({ kind: 'ended', jobId: trial as JobId, outcome: 'cancelled' }, 50);
    expect(send(scheduler, 2, 60)).toEqual([R0, R1]);
    scheduler.handle(breaker(R0, 'closed'), 70);
    expect(scheduler.snapshot(70).replicas.map(({ breaker: kind, room }) => [kind, room])).toEqual([['closed', 2], ['closed', 20]]);
  });

  test('never makes jobs wait or be refused where it is the last of its model, nor holds it back afterwards', () => {
    const scheduler = started([R0]);
    for (const [state, atMs] of [['open', 10], ['half-open', 20], ['closed', 30]] as const) {
      scheduler.handle(breaker(R0, state), atMs);
      expect(send(scheduler, 3, atMs + 1)).toEqual([R0, R0, R0]);
    }
    expect(scheduler.snapshot(40).replicas[0]?.room).toBe(20);
  });

  test('sends jobs that wait for a place on to whoever is longest open, once all are', () => {
    const scheduler = started([R0, R1], 1);
    scheduler.handle(breaker(R1, 'open'), 10);
    expect(send(scheduler, 2, 20)).toEqual([R0, undefined]);
    expect(sentTo(scheduler.handle(breaker(R0, 'open'), 30))).toEqual([R1]);
  });
});

describe('a replica that says it is saturated', () => {
  const saturated = (retryAfterMs: number | null) => ({ kind: 'replica-saturated', replicaId: R0, retryAfterMs }) as const;
  const room = (scheduler: Scheduler, nowMs: number): number | undefined => scheduler.snapshot(nowMs).replicas[0]?.room;

  test('gets no more than it had besides the job it refused, for as long as it says', () => {
    const scheduler = started([R0]);
    send(scheduler, 8, 0);
    scheduler.handle(saturated(3_000), 100);
    expect([room(scheduler, 101), room(scheduler, 3_099), room(scheduler, 3_100)]).toEqual([7, 7, 20]);
    expect(send(scheduler, 1, 101)).toEqual([undefined]);
    expect(sentTo(scheduler.handle({ kind: 'tick' }, 3_100))).toEqual([R0]);
  });

  test.each([
    { retryAfterMs: null, lastsMs: 1_000 },
    { retryAfterMs: 0, lastsMs: 100 },
    { retryAfterMs: 3_600_000, lastsMs: 30_000 },
  ])('is spared for $lastsMs ms where it says $retryAfterMs', ({ retryAfterMs, lastsMs }) => {
    const scheduler = started([R0]);
    send(scheduler, 2, 0);
    scheduler.handle(saturated(retryAfterMs), 1_000);
    expect([room(scheduler, 1_000 + lastsMs - 1), room(scheduler, 1_000 + lastsMs)]).toEqual([1, 20]);
  });

  test('has room for one at least: it is not taken out', () => {
    const scheduler = started([R0]);
    scheduler.handle(saturated(5_000), 0);
    expect(send(scheduler, 2, 1)).toEqual([R0, undefined]);
  });

  test('may be given back a job only where another replica could have it', () => {
    const alone = started([R0]);
    const [first] = send(alone, 1, 0);
    expect([first, alone.hasOther(`j${jobs - 1}` as JobId), alone.hasOther('nobody' as JobId)]).toEqual([R0, false, false]);
    const two = started([R0, R1]);
    send(two, 1, 0);
    const jobId = `j${jobs - 1}` as JobId;
    expect(two.hasOther(jobId)).toBe(true);
    two.handle({ kind: 'returned', jobId }, 5);
    expect(two.hasOther(jobId)).toBe(false);
  });
});
