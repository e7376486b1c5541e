// Work that has the slack waits for cheap hours, and for nothing else.
import { expect, test } from 'vitest';
import type { EnergyPrice } from '../../src/core/energy-prices.ts';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { createScheduler, type Scheduler, type SchedulerOptions } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const HOUR_MS = 3_600_000;
const R0 = 'r0' as ReplicaId;
const belief = createPerformanceModel(CLOCK_PROFILE);
/** Dear for an hour, then cheap. */
const PRICES: readonly EnergyPrice[] = [{ fromMs: 0, price: 300 }, { fromMs: HOUR_MS, price: 100 }];

function job(id: string, over: Partial<JobSpec> = {}): JobSpec {
  return { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'later', slo: { e2eMs: 3 * HOUR_MS }, promptBytes: 4_000, promptTokens: 1_000, maxOutputTokens: 200, work: 'generate', streaming: true, ...over };
}

function started(prices: readonly EnergyPrice[] = PRICES, over: Partial<SchedulerOptions> = {}): Scheduler {
  const scheduler = createScheduler({ replicas: [{ replicaId: R0, models: ['m'], belief, concurrencyMax: 64 }], policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 3, ...over });
  scheduler.handle({ kind: 'replica-health', replicaId: R0, state: 'up' }, 0);
  scheduler.handle({ kind: 'energy-prices', prices }, 0);
  return scheduler;
}

const arrive = (scheduler: Scheduler, spec: JobSpec, nowMs: number): string[] => scheduler.handle({ kind: 'arrived', job: spec }, nowMs).map(({ kind }) => kind);

/** When it was sent, tick by tick; `null`: not until then. */
function sentAtMs(scheduler: Scheduler, { fromMs, untilMs, everyMs = 1_000 }: { fromMs: number; untilMs: number; everyMs?: number }): number | null {
  for (let nowMs = fromMs; nowMs <= untilMs; nowMs += everyMs) if (scheduler.handle({ kind: 'tick' }, nowMs).some(({ kind }) => kind === 'dispatch')) return nowMs;
  return null;
}

test('a job with hours of slack waits until energy is cheap, and is sent then, though nobody else comes and no clock is controlled', () => {
  const scheduler = started();
  expect(arrive(scheduler, job('a'), 0)).toEqual([]);
  expect(sentAtMs(scheduler, { fromMs: 1_000, untilMs: 2 * HOUR_MS })).toBeGreaterThanOrEqual(HOUR_MS - 1_000);
});

test.each([
  ['without prices', [], {}, {}],
  ['in a cheap hour', [{ fromMs: 0, price: 1 }, { fromMs: HOUR_MS, price: 3 }], {}, {}],
  ['where the cheap hour is not much cheaper', [{ fromMs: 0, price: 100 }, { fromMs: HOUR_MS, price: 96 }], {}, {}],
  ['where it comes too late', PRICES, { slo: { e2eMs: HOUR_MS } }, {}],
  ['without a deadline', PRICES, { slo: {} }, {}],
  ['with a deadline for the first token only', PRICES, { slo: { ttftMs: 3 * HOUR_MS } }, {}],
  ['with little slack', [{ fromMs: 0, price: 3 }, { fromMs: 10_000, price: 1 }], { slo: { e2eMs: 50_000 } }, {}],
  ['of a tenant whose requests may not wait so long', PRICES, { queueTimeoutMs: 60_000 }, {}],
  ['under a policy that is another', PRICES, {}, { policy: { kind: 'max-clock' } as const }],
])('a job %s goes at once', (_what, prices, spec, over) => {
  expect(arrive(started(prices, over), job('a', spec), 0)).toContain('dispatch');
});

test('one whose deadline comes before the cheap hour waits for no part of it that it cannot reach, and is in time', () => {
  const scheduler = started([{ fromMs: 0, price: 300 }, { fromMs: HOUR_MS, price: 200 }, { fromMs: 10 * HOUR_MS, price: 1 }]);
  expect(arrive(scheduler, job('a'), 0)).toEqual([]);
  const atMs = sentAtMs(scheduler, { fromMs: 1_000, untilMs: 3 * HOUR_MS }) ?? Number.POSITIVE_INFINITY;
  expect(atMs).toBeLessThan(2 * HOUR_MS);
});

test('when prices are told anew, those that wait are judged anew', () => {
  const scheduler = started();
  arrive(scheduler, job('a'), 0);
  scheduler.handle({ kind: 'energy-prices', prices: [] }, 10_000);
  expect(sentAtMs(scheduler, { fromMs: 10_000, untilMs: HOUR_MS })).toBeLessThanOrEqual(45_000);
});

test('where the queue is full of those that wait, one of them goes and nobody is refused', () => {
  const scheduler = started();
  for (const id of ['a', 'b', 'c']) expect(arrive(scheduler, job(id), 0)).toEqual([]);
  expect(arrive(scheduler, job('d'), 10)).toContain('dispatch');
});

test('those with tight deadlines pass by those that wait', () => {
  const scheduler = started();
  arrive(scheduler, job('a'), 0);
  expect(scheduler.handle({ kind: 'arrived', job: job('tight', { slo: { ttftMs: 2_000, tpotMs: 100 } }) }, 100)).toMatchObject([{ kind: 'dispatch', jobId: 'tight' }]);
});

test('while more would take faster clocks for all than the price makes up for, work goes at once', () => {
  const scheduler = started(PRICES, { queuedMax: 100_000 });
  // As many as the fleet can serve have arrived by now; so many again in an hour it could not.
  let held = 0;
  for (let index = 0; index < 6_000; index++) {
    const nowMs = index * 10;
    const effects = scheduler.handle({ kind: 'arrived', job: job(`job ${index}`) }, nowMs);
    if (effects.length === 0) held += 1;
    for (const effect of effects) if (effect.kind === 'dispatch') scheduler.handle({ kind: 'ended', jobId: effect.jobId, outcome: 'finished', usage: { promptTokens: 1_000, cachedTokens: 0, outputTokens: 200 } }, nowMs + 5);
  }
  expect(held).toBeGreaterThan(0);
  expect(held).toBeLessThan(6_000);
});
