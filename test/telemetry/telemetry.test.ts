import { pino } from 'pino';
import { expect, test } from 'vitest';
import type { JobId, ReplicaId } from '../../src/core/job.ts';
import { createTelemetry } from '../../src/telemetry/events.ts';
import { createRegistry } from '../../src/telemetry/registry.ts';

const NOW = {
  snapshot: {
    queued: 2,
    replicas: [{ replicaId: 'r0' as ReplicaId, state: 'up' as const, breaker: 'closed' as const, room: 5, controlled: true, pointId: 'c1290', why: { binding: 'ttft' as const }, waitingPrompts: 1, runningStreams: 4, stepTimeResidual: 1.05 }],
  },
  inFlight: 7,
  tenants: [{ name: 'acme', joulesRemaining: 12.5, concurrent: 3 }],
  clockControl: 'held',
  agents: new Map([['node-a', { state: 'held' }], ['node-b', { state: 'lost' }]]),
  process: { eventLoopDelayS: { '50': 0.001, '99': 0.002, '100': 0.003 }, residentBytes: 1000, cpuS: 1.5 },
};
const REPORT = { jobId: 'j' as JobId, replicaId: 'r0' as ReplicaId, sloClass: 'interactive', tenant: 't', model: 'm', outcome: 'finished' as const, ttftMs: 120, tpotMs: 30, e2eMs: 900, promptTokens: 10, cachedTokens: 4, outputTokens: 20, energyJ: 5, met: true, prediction: { ttftMs: 100, tpotMs: 30, e2eMs: 800, ttftP90Ms: 100, tpotP90Ms: 40, slackMs: 1, feasible: true } };

test('a report is counted under its class, in base units', () => {
  const telemetry = createTelemetry(pino({ level: 'silent' }));
  telemetry.jobReported(REPORT);
  telemetry.jobReported({ ...REPORT, met: false });
  const lines = telemetry.render(NOW).split('\n');
  for (const line of [
    'paceline_requests_total{outcome="finished",slo_class="interactive"} 2',
    'paceline_slo_results_total{slo_class="interactive",result="met"} 1',
    'paceline_slo_results_total{slo_class="interactive",result="missed"} 1',
    'paceline_time_to_first_token_seconds_bucket{slo_class="interactive",le="0.1"} 0',
    'paceline_time_to_first_token_seconds_bucket{slo_class="interactive",le="0.25"} 2',
    'paceline_time_to_first_token_seconds_bucket{slo_class="interactive",le="+Inf"} 2',
    'paceline_time_to_first_token_seconds_count{slo_class="interactive"} 2',
    'paceline_ttft_prediction_error_seconds_bucket{slo_class="interactive",le="0.02"} 2',
    'paceline_replica_operating_point{replica="r0",point="c1290",binding="ttft"} 1',
    'paceline_queued_requests 2',
    'paceline_clock_control_up 1',
    'paceline_agent_state{agent="node-a",state="held"} 1',
    'paceline_agent_state{agent="node-b",state="lost"} 1',
    'paceline_tokens_total{direction="output"} 40',
    'paceline_tokens_total{direction="cached"} 8',
  ]) expect(lines).toContain(line);
});

test('what a replica no longer is, is no longer told', () => {
  const telemetry = createTelemetry(pino({ level: 'silent' }));
  telemetry.render(NOW);
  const later = telemetry.render({ ...NOW, snapshot: { ...NOW.snapshot, replicas: NOW.snapshot.replicas.map((replica) => ({ ...replica, pointId: null })) } });
  expect(later).not.toContain('point="c1290"');
  expect(later).toContain('point="default"');
});

test('the page is Prometheus text: every metric has its help and type once, every line a name and a number', () => {
  const telemetry = createTelemetry(pino({ level: 'silent' }));
  telemetry.jobReported(REPORT);
  telemetry.requestRefused('bad-request', 'id');
  const lines = telemetry.render(NOW).trimEnd().split('\n');
  const types = lines.filter((line) => line.startsWith('# TYPE')).map((line) => line.split(' ')[2]);
  expect(new Set(types).size).toBe(types.length);
  for (const line of lines) if (!line.startsWith('#')) expect(line).toMatch(/^[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? (-?[\d.]+(e[+-]?\d+)?|\+Inf|NaN)$/);
});

test('labels are escaped, and a list of them that is not closed ends in other', () => {
  const registry = createRegistry();
  const counter = registry.counter({ name: 'x_total', help: 'x', labels: ['a'] });
  counter.add(['quote " backslash \\ line \n']);
  for (let index = 0; index < 2_000; index++) counter.add([`v${index}`]);
  const page = registry.render();
  expect(page).toContain('x_total{a="quote \\" backslash \\\\ line \\n"} 1');
  expect(page).toContain('x_total{a="other"} 1001');
});

test('what becomes of a breaker is logged with its reason, and counted', () => {
  const lines: string[] = [];
  const telemetry = createTelemetry(pino({ level: 'info' }, { write: (line: string) => void lines.push(line) }));
  for (const state of ['open', 'half-open', 'closed'] as const) telemetry.replicaBreaker('r0' as ReplicaId, state, `why ${state}`);
  telemetry.replicaHealth('r0' as ReplicaId, 'draining', 'an operator drains it');
  expect(lines.map((line) => JSON.parse(line) as { level: number; why: string; msg: string }).map(({ level, why, msg }) => [level, why, msg])).toEqual([
    [40, 'why open', 'the breaker of replica r0 is open: it gets requests only where no other serves their model'],
    [30, 'why half-open', 'the breaker of replica r0 is half-open'],
    [30, 'why closed', 'the breaker of replica r0 is closed'],
    [40, 'an operator drains it', 'replica r0 is draining'],
  ]);
  expect(telemetry.render(NOW).split('\n')).toContain('paceline_replica_breaker_changes_total{replica="r0",state="open"} 1');
});
