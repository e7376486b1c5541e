import { expect, test } from 'vitest';
import type { JobId, ReplicaId } from '../../src/core/job.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { createScheduler, type Scheduler } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const replicaId = 'r0' as ReplicaId;
const jobId = 'j' as JobId;
const belief = createPerformanceModel(CLOCK_PROFILE);
/** The truth is a quarter slower than believed: what the scheduler has to find out. */
const STEP_MS = 1.25 * belief.iterationTimeMs({ prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 1, contextTokens: 500 } }, belief.fastest);

function started(bringUpToDate?: () => void): Scheduler {
  const scheduler = createScheduler({
    replicas: [{ replicaId, models: ['m'], belief, concurrencyMax: 8 }],
    policy: { kind: 'paceline' },
    attainmentTarget: 0.99,
    controlPeriodMs: 100,
    queuedMax: 10,
    ...(bringUpToDate === undefined ? {} : { bringUpToDate }),
  });
  scheduler.handle({ kind: 'control', replicaId, controlled: true, pointId: null }, 0);
  scheduler.handle({ kind: 'replica-health', replicaId, state: 'up' }, 0);
  scheduler.handle({ kind: 'arrived', job: { jobId, model: 'm', tenant: 't', sloClass: 'c', slo: { ttftMs: 1000, tpotMs: 50 }, promptBytes: 1600, promptTokens: 400, maxOutputTokens: 2000, work: 'generate', streaming: true } }, 0);
  scheduler.handle({ kind: 'tokens', jobId, tokens: 1 }, 100);
  return scheduler;
}

test('tokens told late teach the step time by when the last of them came, not by when they were told', () => {
  const [each, bulk] = [started(), started()];
  for (let token = 1; token <= 400; token++) each.handle({ kind: 'tokens', jobId, tokens: 1 }, 100 + token * STEP_MS);
  // Every 50 tokens, and up to a step and a half after the last of them.
  for (let token = 50; token <= 400; token += 50) bulk.handle({ kind: 'tokens', jobId, tokens: 50, lastAtMs: 100 + token * STEP_MS }, 100 + token * STEP_MS + (token % 3) * 0.5 * STEP_MS);
  const residual = (scheduler: Scheduler): number => scheduler.snapshot(0).replicas[0]?.stepTimeResidual as number;
  expect(residual(each)).toBeGreaterThan(1.1);
  // Fewer samples of the same truth: on the way to it, and never beyond.
  expect(residual(bulk)).toBeGreaterThan(1.02);
  expect(residual(bulk)).toBeLessThan(1.25);

  for (const scheduler of [each, bulk]) {
    const effects = scheduler.handle({ kind: 'ended', jobId, outcome: 'finished', usage: { promptTokens: 400, cachedTokens: 0, outputTokens: 401 } }, 100 + 402 * STEP_MS);
    const report = effects.find(({ kind }) => kind === 'report');
    expect(report?.kind === 'report' && report.report.tpotMs).toBeCloseTo(STEP_MS, 9);
  }
});

test('asks for what came since before it plans for a replica or sends it a job', () => {
  let asked = 0;
  const scheduler = started(() => asked++);
  const afterArrival = asked;
  expect(afterArrival).toBeGreaterThan(0);
  scheduler.handle({ kind: 'tokens', jobId, tokens: 1 }, 120);
  expect(asked).toBe(afterArrival);
  scheduler.handle({ kind: 'tick' }, 200);
  expect(asked).toBeGreaterThan(afterArrival);
});
