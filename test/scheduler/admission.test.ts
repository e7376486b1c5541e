import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import { nominalWorkMs } from '../../src/core/nominal-work.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Effect } from '../../src/scheduler/events.ts';
import { createScheduler, type Scheduler, type SchedulerOptions } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const R0 = 'r0' as ReplicaId;
/** Of a job as below, alone. */
const WORK_MS = Math.round(nominalWorkMs(belief, 1000, 10));

function job(id: string, over: Partial<JobSpec> = {}): JobSpec {
  return { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo: { ttftMs: 1000, tpotMs: 60 }, promptBytes: 4000, promptTokens: 1000, work: 'generate', streaming: true, infeasible: 'refuse', ...over };
}

function started(concurrencyMax = 1, over: Partial<SchedulerOptions> = {}): Scheduler {
  const scheduler = createScheduler({ replicas: [{ replicaId: R0, models: ['m'], belief, concurrencyMax }], policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 100, ...over });
  scheduler.handle({ kind: 'replica-health', replicaId: R0, state: 'up' }, 0);
  scheduler.handle({ kind: 'control', replicaId: R0, controlled: true, pointId: null }, 0);
  return scheduler;
}

const ofKind = <Kind extends Effect['kind']>(effects: readonly Effect[], kind: Kind): Extract<Effect, { kind: Kind }>[] => effects.filter((effect): effect is Extract<Effect, { kind: Kind }> => effect.kind === kind);
const arrive = (scheduler: Scheduler, spec: JobSpec, atMs: number): readonly Effect[] => scheduler.handle({ kind: 'arrived', job: spec }, atMs);
const end = (scheduler: Scheduler, id: string, atMs: number): readonly Effect[] => scheduler.handle({ kind: 'ended', jobId: id as JobId, outcome: 'finished', usage: { promptTokens: 1000, cachedTokens: 0, outputTokens: 10 } }, atMs);

describe('a request that cannot meet its deadline', () => {
  test.each([
    ['its prompt alone takes longer', { promptTokens: 60_000, slo: { ttftMs: 200 } }],
    ['its TPOT is below the fastest step', { slo: { tpotMs: 0.01 } }],
    ['its answer alone takes longer', { slo: { e2eMs: 20 }, maxOutputTokens: 4000 }],
  ])('is refused at once where its tenant wants that: %s', (_, over) => {
    expect(arrive(started(), job('a', over), 0)).toMatchObject([{ kind: 'reject', reason: 'deadline-infeasible' }]);
    expect(ofKind(arrive(started(), job('a', { ...over, infeasible: 'best-effort' }), 0), 'dispatch')).toHaveLength(1);
  });

  test('is told a time to come back at, and not all the same one', () => {
    const scheduler = started();
    const times = ['a', 'b', 'c'].map((id) => ofKind(arrive(scheduler, job(id, { promptTokens: 60_000, slo: { ttftMs: 200 } }), 0), 'reject')[0]?.retryAfterMs ?? 0);
    for (const ms of times) expect(ms).toBeGreaterThanOrEqual(500);
    expect(new Set(times).size).toBe(3);
  });

  test('because others are before it waits while it can be in time, and is refused when it cannot any more', () => {
    const scheduler = started();
    arrive(scheduler, job('running'), 0);
    expect(arrive(scheduler, job('a'), 10)).toEqual([]);
    expect(scheduler.handle({ kind: 'tick' }, 800)).not.toContainEqual(expect.objectContaining({ kind: 'reject' }));
    expect(scheduler.handle({ kind: 'tick' }, 1_000)).toContainEqual(expect.objectContaining({ kind: 'reject', jobId: 'a', reason: 'deadline-infeasible' }));
    expect(scheduler.snapshot(1_000).queued).toBe(0);
    // It is gone: nothing comes of it when there is room.
    expect(ofKind(end(scheduler, 'running', 1_100), 'dispatch')).toEqual([]);
  });

  test('is served late where its tenant wants best effort', () => {
    const scheduler = started();
    arrive(scheduler, job('running'), 0);
    arrive(scheduler, job('a', { infeasible: 'best-effort' }), 10);
    scheduler.handle({ kind: 'tick' }, 2_000);
    expect(ofKind(end(scheduler, 'running', 2_100), 'dispatch')).toMatchObject([{ jobId: 'a' }]);
  });

  test('is refused on arrival once the pace of the queue says that its turn would come too late', () => {
    const scheduler = started(1, { policy: { kind: 'max-clock' } });
    let running = '0';
    arrive(scheduler, job(running), 0);
    for (let count = 1; count <= 60; count++) arrive(scheduler, job(`${count}`, { slo: { ttftMs: 30_000 } }), 1);
    for (let at = 1; at <= 30; at++) running = ofKind(end(scheduler, running, at * WORK_MS), 'dispatch')[0]?.jobId as string;
    const nowMs = 30 * WORK_MS + 1;
    // Thirty are before a later deadline, and nobody before an earlier one.
    expect(arrive(scheduler, job('behind', { slo: { ttftMs: 30_000 }, queueTimeoutMs: 10 * WORK_MS }), nowMs)).toMatchObject([{ kind: 'reject', reason: 'deadline-infeasible' }]);
    expect(arrive(scheduler, job('behind, patient', { slo: { ttftMs: 30_000 } }), nowMs)).toEqual([]);
    expect(arrive(scheduler, job('before', { slo: { ttftMs: 20 * WORK_MS } }), nowMs)).toEqual([]);
  });
});

describe('the longest time in the queue', () => {
  test('is counted from arrival, whatever the deadline says, and whoever wants best effort is refused then as well', () => {
    const scheduler = started();
    arrive(scheduler, job('running'), 0);
    arrive(scheduler, job('a', { slo: {}, infeasible: 'best-effort', queueTimeoutMs: 5_000 }), 100);
    expect(scheduler.handle({ kind: 'tick' }, 5_050)).not.toContainEqual(expect.objectContaining({ kind: 'reject' }));
    expect(scheduler.handle({ kind: 'tick' }, 5_100)).toContainEqual(expect.objectContaining({ kind: 'reject', jobId: 'a', reason: 'queue-timeout' }));
  });

  test('does not begin anew when a replica could not be reached', () => {
    const scheduler = started(1, { replicas: [R0, 'r1' as ReplicaId].map((replicaId) => ({ replicaId, models: ['m'], belief, concurrencyMax: 1 })) });
    scheduler.handle({ kind: 'replica-health', replicaId: 'r1' as ReplicaId, state: 'up' }, 0);
    arrive(scheduler, job('a', { slo: {}, queueTimeoutMs: 1_000 }), 0);
    arrive(scheduler, job('b', { slo: {} }), 0);
    expect(scheduler.handle({ kind: 'returned', jobId: 'a' as JobId }, 1_500)).toMatchObject([{ kind: 'reject', reason: 'queue-timeout' }]);
  });
});

describe('tenants that want more than there is', () => {
  /** Two tenants with as many jobs as there is room for at any time; who was sent, one at a time. */
  function served(weights: Readonly<Record<string, number>>, jobs: number): Record<string, number> {
    const scheduler = started(1, { policy: { kind: 'max-clock' } });
    const counts: Record<string, number> = Object.fromEntries(Object.keys(weights).map((name) => [name, 0]));
    let count = 0;
    const refill = (tenant: string, atMs: number): readonly Effect[] => arrive(scheduler, job(`${tenant} ${count++}`, { tenant, weight: weights[tenant] as number, infeasible: 'best-effort', slo: { ttftMs: 3_000 } }), atMs);
    let running = '';
    const take = (effects: readonly Effect[]): void => {
      for (const { jobId } of ofKind(effects, 'dispatch')) {
        running = jobId;
        const tenant = jobId.split(' ')[0] as string;
        counts[tenant] = (counts[tenant] as number) + 1;
      }
    };
    for (let round = 0; round < 20; round++) for (const tenant of Object.keys(weights)) take(refill(tenant, 0));
    for (let at = 1; at <= jobs; at++) {
      const before = running.split(' ')[0] as string;
      take(end(scheduler, running, at * WORK_MS));
      take(refill(before, at * WORK_MS));
    }
    return counts;
  }

  test.each([
    [{ a: 1, b: 1 }],
    [{ a: 1, b: 3 }],
    [{ a: 1, b: 2, c: 5 }],
  ])('get their weights: %o', (weights) => {
    const counts = served(weights, 2_000);
    const all = Object.values(weights).reduce((sum, weight) => sum + weight, 0);
    for (const [tenant, weight] of Object.entries(weights)) expect((counts[tenant] as number) / 2_000).toBeCloseTo(weight / all, 1);
  });

  test('one that comes with a burst does not cost another its deadlines', () => {
    const scheduler = started(1, { policy: { kind: 'max-clock' }, queuedMax: 2_000 });
    let running = 'running';
    arrive(scheduler, job(running, { tenant: 'bursty' }), 0);
    for (let count = 0; count < 1_000; count++) arrive(scheduler, job(`burst ${count}`, { tenant: 'bursty', infeasible: 'best-effort', slo: { ttftMs: 3_000 } }), 1);
    const cameAtMs = new Map<string, number>();
    const waitedMs: number[] = [];
    for (let at = 1; at <= 400; at++) {
      const nowMs = at * WORK_MS;
      running = ofKind(end(scheduler, running, nowMs), 'dispatch')[0]?.jobId as string;
      if (cameAtMs.has(running)) waitedMs.push(nowMs - (cameAtMs.get(running) as number));
      // A third of what there is, where half is its share.
      if (at % 3 !== 0) continue;
      cameAtMs.set(`steady ${at}`, nowMs);
      expect(arrive(scheduler, job(`steady ${at}`, { tenant: 'steady', slo: { ttftMs: 3_000 } }), nowMs)).toEqual([]);
    }
    expect(waitedMs.length).toBeGreaterThan(80);
    expect(Math.max(...waitedMs)).toBeLessThan(3_000);
  });
});

test('a server whose own metrics say that it takes no more is sent no more', () => {
  const scheduler = started(100, { policy: { kind: 'max-clock' } });
  const load = { kind: 'replica-load', replicaId: R0, running: 2, waiting: 3, kvUsage: 0.4 } as const;
  for (let at = 0; at < 5; at++) arrive(scheduler, job(`${at}`, { infeasible: 'best-effort' }), at);
  for (let reading = 1; reading <= 3; reading++) scheduler.handle(load, reading * 1_000);
  expect(ofKind(arrive(scheduler, job('one more', { slo: { ttftMs: 5_000 } }), 3_001), 'dispatch')).toEqual([]);
  expect(scheduler.snapshot(3_001).queued).toBe(1);
});

test('a tenant that has all places but a few leaves these to another one that was here', () => {
  const scheduler = started(10, { policy: { kind: 'max-clock' } });
  const from = (tenant: string, id: string, atMs: number): readonly Effect[] => ofKind(arrive(scheduler, job(id, { tenant, slo: {} }), atMs), 'dispatch');
  from('steady', 'before', 0);
  end(scheduler, 'before', 100);
  const sent = Array.from({ length: 12 }, (_, index) => from('bursty', `burst ${index}`, 200 + index).length);
  expect(sent.filter((count) => count === 1)).toHaveLength(9);
  expect(from('steady', 'again', 300)).toHaveLength(1);
});

describe('a client with a day of slack that sends one request after the other to an idle fleet', () => {
  /** How long each waits in our queue. */
  function waits(controlled: boolean): number[] {
    const scheduler = started(8);
    if (!controlled) scheduler.handle({ kind: 'control', replicaId: R0, controlled: false, pointId: null }, 0);
    const waited: number[] = [];
    let nowMs = 0;
    for (let count = 0; count < 8; count++) {
      const arrivedAtMs = nowMs;
      let sent = ofKind(arrive(scheduler, job(`${count}`, { slo: { e2eMs: 86_400_000 }, infeasible: 'best-effort' }), nowMs), 'dispatch').length > 0;
      while (!sent && nowMs - arrivedAtMs < 60_000) {
        nowMs += 100;
        sent = ofKind(scheduler.handle({ kind: 'tick' }, nowMs), 'dispatch').length > 0;
      }
      waited.push(nowMs - arrivedAtMs);
      nowMs += 1_000;
      end(scheduler, `${count}`, nowMs);
    }
    return waited;
  }

  test('does not wait for itself, ever longer', () => {
    expect(Math.max(...waits(true))).toBeLessThanOrEqual(2_500);
  });

  test('does not wait at all where no clock can be lowered for it', () => {
    expect(waits(false)).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  });
});
