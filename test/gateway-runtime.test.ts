import { expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId } from '../src/core/job.ts';
import { createRuntime } from '../src/runtime.ts';
import type { Demand } from '../src/runtime.ts';
import type { Effect, JobReport, SchedulerEvent } from '../src/scheduler/events.ts';

const REPLICA = 'r0' as ReplicaId;
const PREDICTION = { ttftMs: 1, tpotMs: 1, e2eMs: 2, ttftP90Ms: 1, tpotP90Ms: 1, slackMs: null, feasible: true };
const job = (jobId: string): JobSpec => ({ jobId: jobId as JobId, model: 'm', tenant: 't', sloClass: 'c', slo: {}, promptBytes: 1, work: 'generate', streaming: true });
const dispatch = (jobId: JobId): Effect => ({ kind: 'dispatch', jobId, replicaId: REPLICA, prediction: PREDICTION });

function runtimeOf(handle: (event: SchedulerEvent) => readonly Effect[]) {
  const events: SchedulerEvent[] = [];
  const demands: Demand[] = [];
  const reports: JobReport[] = [];
  const runtime = createRuntime({
    scheduler: {
      handle: (event) => {
        events.push(event);
        return handle(event);
      },
      hasOther: () => false,
      learntOf: () => 'unknown' as const,
      snapshot: () => ({ replicas: [], queued: 0 }),
      learnt: () => ({ timeScales: new Map(), bytesPerToken: new Map() }),
      energyOf: () => null,
      hasOpenAccounts: () => false,
      workflow: () => null,
      openWorkflow: () => null,
      openWorkflows: () => 0,
    },
    controlPeriodMs: 1_000_000,
    now: () => 7,
    demand: (demand) => demands.push(demand),
    report: (report) => reports.push(report),
  });
  runtime.close();
  return { runtime, events, demands, reports };
}

test('an owner that ends its job while it is dispatched is heard after the effects that came with it', () => {
  const order: string[] = [];
  const demand: Effect = { kind: 'demand', replicaId: REPLICA, point: null, holdMs: 1, change: 'raise', why: { binding: 'idle' } };
  const { runtime, events, demands } = runtimeOf((event) => (event.kind === 'arrived' ? [dispatch(event.job.jobId), demand] : []));
  runtime.submit(job('a'), {
    rejected: () => order.push('rejected'),
    dispatched: () => {
      order.push('dispatched');
      runtime.ended('a' as JobId, 'failed', null);
      expect(events).toHaveLength(1);
    },
  });
  expect(order).toEqual(['dispatched']);
  expect(demands).toHaveLength(1);
  expect(events.map(({ kind }) => kind)).toEqual(['arrived', 'ended']);
});

test('a job that has ended is told of once, and its owner hears nothing more', () => {
  const { runtime, events } = runtimeOf((event) => (event.kind === 'tick' || event.kind === 'replica-health' ? [dispatch('a' as JobId)] : []));
  let heard = 0;
  runtime.submit(job('a'), { rejected: () => heard++, dispatched: () => heard++ });
  runtime.ended('a' as JobId, 'cancelled', null);
  runtime.ended('a' as JobId, 'finished', null);
  runtime.replicaHealth(REPLICA, 'up');
  expect(heard).toBe(0);
  expect(events.filter(({ kind }) => kind === 'ended')).toHaveLength(1);
  expect(runtime.inFlight()).toBe(0);
});

test('a rejected job is over: its end is not told to the scheduler', () => {
  const { runtime, events } = runtimeOf((event) => (event.kind === 'arrived' ? [{ kind: 'reject', jobId: event.job.jobId, reason: 'queue-full', retryAfterMs: 5 }] : []));
  const reasons: unknown[] = [];
  runtime.submit(job('a'), { rejected: (...reason) => reasons.push(reason), dispatched: () => {} });
  runtime.ended('a' as JobId, 'cancelled', null);
  expect(reasons).toEqual([['queue-full', 5]]);
  expect(events).toHaveLength(1);
});

test('a scheduler that throws stops the process, out of the reach of whoever called', async () => {
  const { runtime } = runtimeOf(() => {
    throw new Error('wrong');
  });
  const listeners = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  const uncaught = new Promise<Error>((resolve) => process.once('uncaughtException', resolve));
  runtime.tokens('a' as JobId, 1);
  expect((await uncaught).message).toBe('wrong');
  for (const listener of listeners) process.on('uncaughtException', listener);
});
