// The line that a request leaves in the log where the operator wants one.
import { pino } from 'pino';
import { expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId, WorkflowId } from '../../src/core/job.ts';
import { createRequestTraces } from '../../src/telemetry/request-traces.ts';

const JOB: JobSpec = { jobId: 'job-1' as JobId, model: 'm', tenant: 'acme', sloClass: 'chat', slo: { ttftMs: 500 }, promptBytes: 10, operation: 'chat', work: 'generate', streaming: true };
const PREDICTION = { ttftMs: 100, tpotMs: 30, e2eMs: 800, ttftP90Ms: 100, tpotP90Ms: 40, slackMs: 1, feasible: true };
const REPORT = { jobId: JOB.jobId, replicaId: 'r0' as ReplicaId, sloClass: 'chat', tenant: 'acme', model: 'm', outcome: 'finished' as const, usageTold: true, ttftMs: 120.04, tpotMs: 30, e2eMs: 900, promptTokens: 10, cachedTokens: 4, outputTokens: 20, energyJ: 5, energy: { meteredJ: 1.5, modelledJ: 0.5, maximumClockJ: 4 }, met: true, prediction: PREDICTION };

function traces(): { of: NonNullable<ReturnType<typeof createRequestTraces>>; lines: () => Record<string, unknown>[] } {
  const lines: string[] = [];
  let nowMs = 1_000;
  const of = createRequestTraces({ tracer: null, accessLog: pino({ level: 'info', base: null, timestamp: false }, { write: (line: string) => void lines.push(line) }), serverOf: () => new URL('http://127.0.0.1:1'), now: () => (nowMs += 10) });
  if (of === null) throw new Error('there is a log');
  return { of, lines: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

const REQUEST = { requestId: 'q', method: 'POST', path: '/v1/chat/completions', isRoute: true, headers: { authorization: 'Bearer sk-secret' } };

test('says who asked for what, where it went, how long it took and what of that is known', () => {
  const { of, lines } = traces();
  const trace = of.began(REQUEST);
  trace.queued(JOB);
  expect(trace.sent('r0' as ReplicaId, PREDICTION).context).toEqual({});
  of.reported(REPORT);
  trace.closed({ statusCode: 200, left: false });
  expect(lines()).toEqual([
    { level: 30, msg: 'request', requestId: 'q', method: 'POST', path: '/v1/chat/completions', status: 200, outcome: 'finished', tenant: 'acme', model: 'm', operation: 'chat', sloClass: 'chat', met: true, replicaId: 'r0', attempts: 1, queueMs: 10, ttftMs: 120, tpotMs: 30, durationMs: 30, inputTokens: 10, cachedTokens: 4, outputTokens: 20, energyMj: 2_000, energyMeteredMj: 1_500 },
  ]);
});

test('of a request that was refused says why, and nothing that was not known of it', () => {
  const { of, lines } = traces();
  const trace = of.began(REQUEST);
  trace.refused('unauthorized');
  trace.closed({ statusCode: 401, left: false });
  expect(lines()).toEqual([{ level: 30, msg: 'request', requestId: 'q', method: 'POST', path: '/v1/chat/completions', status: 401, outcome: 'refused', refusal: 'unauthorized', attempts: 0, durationMs: 10 }]);
});

test('of a call of a workflow says which, and which stage', () => {
  const { of, lines } = traces();
  const trace = of.began(REQUEST);
  trace.queued({ ...JOB, workflow: { workflowId: 'w' as WorkflowId, stage: 'plan' } });
  trace.closed({ statusCode: 200, left: false });
  expect(lines()).toMatchObject([{ workflowId: 'w', workflowStage: 'plan' }]);
});

test('a client that left is told as cancelled', () => {
  const { of, lines } = traces();
  const trace = of.began(REQUEST);
  trace.queued(JOB);
  trace.closed({ statusCode: null, left: true });
  expect(lines()).toMatchObject([{ outcome: 'cancelled', attempts: 0 }]);
});

test('where neither spans nor lines are wanted there is nothing to call', () => {
  expect(createRequestTraces({ tracer: null, accessLog: null, serverOf: () => new URL('http://127.0.0.1:1'), now: () => 0 })).toBeNull();
});
