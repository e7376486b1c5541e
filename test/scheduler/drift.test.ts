import { expect, test } from 'vitest';
import type { JobId, ReplicaId } from '../../src/core/job.ts';
import { createPerformanceModel, NO_PREFILL } from '../../src/frontier/performance-model.ts';
import { createScheduler, type Scheduler } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const R0 = 'r0' as ReplicaId;

/** Single streams, one after the other, whose steps take so many times what the profile says; until when. */
function streams(scheduler: Scheduler, count: number, ratio: number, fromMs: number): number {
  let nowMs = fromMs;
  for (let stream = 0; stream < count; stream++) {
    const jobId = `${fromMs}-${stream}` as JobId;
    scheduler.handle({ kind: 'arrived', job: { jobId, model: 'm', tenant: 't', sloClass: 'c', slo: {}, promptBytes: 400, promptTokens: 100, maxOutputTokens: 100, work: 'generate', streaming: true } as never }, nowMs);
    nowMs += model.prefillTimeMs({ tokens: 100, contextTokens: 0 }, model.fastest) + 1;
    scheduler.handle({ kind: 'tokens', jobId, tokens: 1 }, nowMs);
    for (let token = 0; token < 36; token++) {
      nowMs += ratio * model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences: 1, contextTokens: 100 + token } }, model.fastest);
      scheduler.handle({ kind: 'tokens', jobId, tokens: 1 }, nowMs);
    }
    scheduler.handle({ kind: 'ended', jobId, outcome: 'finished' }, nowMs);
  }
  return nowMs;
}

test('a replica that decodes slower than its profile for long is shown with by how much and for how long, in that phase alone, until it is back', () => {
  const scheduler = createScheduler({ replicas: [{ replicaId: R0, models: ['m'], belief: model, concurrencyMax: 8 }], policy: { kind: 'max-clock' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 10 });
  scheduler.handle({ kind: 'replica-health', replicaId: R0, state: 'up' }, 0);
  const drift = (nowMs: number): unknown => scheduler.snapshot(nowMs).replicas[0]?.drift;
  const steadyMs = streams(scheduler, 40, 1.02, 0);
  expect(drift(steadyMs)).toBeUndefined();
  const driftedMs = streams(scheduler, 40, 1.3, steadyMs);
  expect(drift(driftedMs)).toEqual({ decode: { ratio: expect.closeTo(1.3, 1), forMs: expect.closeTo(driftedMs - steadyMs, -4) } });
  expect(drift(streams(scheduler, 60, 1, driftedMs))).toBeUndefined();
});
