import { pino } from 'pino';
import { expect, test } from 'vitest';
import type { EnergyRow } from '../../src/core/energy-book.ts';
import type { JobId, ReplicaId } from '../../src/core/job.ts';
import type { EnergyReadings } from '../../src/telemetry/energy-metrics.ts';
import { createEnergyMetrics } from '../../src/telemetry/energy-metrics.ts';
import { createTelemetry } from '../../src/telemetry/events.ts';
import { createGenAiMetrics } from '../../src/telemetry/gen-ai-metrics.ts';
import { createRegistry } from '../../src/telemetry/registry.ts';

const NOTHING: EnergyReadings = { devices: [], rows: [], replicas: [] };
const row = (more: Partial<EnergyRow>): EnergyRow => ({ tenant: 't', model: 'm', sloClass: 'c', requests: 1, promptTokens: 10, cachedTokens: 0, outputTokens: 20, meteredJ: 0, modelledJ: 0, maximumClockJ: 0, ...more });

function pageOf(...readings: readonly Partial<EnergyReadings>[]): string[] {
  const registry = createRegistry();
  const metrics = createEnergyMetrics(registry);
  for (const reading of readings) metrics.update({ ...NOTHING, ...reading });
  return registry.render().split('\n');
}

test("devices are told by OpenTelemetry's names as Prometheus has them, and one whose power is unknown has none", () => {
  const lines = pageOf({ devices: [{ agent: 'node-a', device: 'nvml:0', energyJ: 12.5, powerW: 300 }, { agent: 'node-a', device: 'nvml:1', energyJ: 7, powerW: null }] });
  expect(lines).toContain('hw_energy_joules_total{hw_id="nvml:0",hw_type="gpu",agent="node-a"} 12.5');
  expect(lines).toContain('hw_power_watts{hw_id="nvml:0",hw_type="gpu",agent="node-a"} 300');
  expect(lines).toContain('hw_energy_joules_total{hw_id="nvml:1",hw_type="gpu",agent="node-a"} 7');
  expect(lines.filter((line) => line.startsWith('hw_power_watts{'))).toHaveLength(1);
});

test('a device that is gone is told no more, and one whose counter began anew is told as it stands', () => {
  const device = { agent: 'a', device: 'nvml:0', energyJ: 100, powerW: 1 };
  expect(pageOf({ devices: [device] }, {}).filter((line) => line.startsWith('hw_'))).toEqual([]);
  expect(pageOf({ devices: [device] }, { devices: [{ ...device, energyJ: 3 }] })).toContain('hw_energy_joules_total{hw_id="nvml:0",hw_type="gpu",agent="a"} 3');
});

test('what moves from modelled to metered makes no counter fall, for Prometheus would take that for a new start', () => {
  const lines = pageOf({ rows: [row({ modelledJ: 50 })] }, { rows: [row({ modelledJ: 0, meteredJ: 48 })] });
  expect(lines).toContain('paceline_energy_joules_total{tenant="t",model="m",slo_class="c",source="modelled"} 50');
  expect(lines).toContain('paceline_energy_joules_total{tenant="t",model="m",slo_class="c",source="metered"} 48');
  expect(lines).toContain('paceline_energy_output_tokens_total{tenant="t",model="m",slo_class="c"} 20');
});

test('accounts beyond a thousand series are one, with all that they have', () => {
  const rows = Array.from({ length: 1_500 }, (_, index) => row({ tenant: `t${index}`, outputTokens: 2 }));
  const series = pageOf({ rows }, { rows }).filter((line) => line.startsWith('paceline_energy_output_tokens_total{'));
  expect(series).toHaveLength(1_001);
  expect(series).toContain('paceline_energy_output_tokens_total{tenant="other",model="other",slo_class="other"} 1000');
});

test("a replica's energy is told by what it went to, and the counterfactual beside it", () => {
  const replica = { replicaId: 'r0' as ReplicaId, source: 'metered' as const, meterJ: 100, powerW: 200, requests: { meteredJ: 60, modelledJ: 1 }, idle: { meteredJ: 30, modelledJ: 2 }, othersJ: 7, unapportionedJ: 3, maximumClock: { requestsJ: 80, idleJ: 45 } };
  const lines = pageOf({ replicas: [replica] });
  for (const [part, value] of [['requests', 61], ['idle', 32], ['others', 7], ['unapportioned', 3]]) expect(lines).toContain(`paceline_replica_energy_joules_total{replica="r0",part="${part}"} ${value}`);
  expect(lines).toContain('paceline_replica_maximum_clock_joules_total{replica="r0"} 125');
  expect(lines).toContain('paceline_replica_energy_source{replica="r0",source="metered"} 1');
});

const REPORT = { jobId: 'j' as JobId, replicaId: 'r0' as ReplicaId, sloClass: 'interactive', tenant: 't', model: 'm', outcome: 'finished' as const, operation: 'chat', usageTold: true, ttftMs: 120, tpotMs: 30, e2eMs: 900, promptTokens: 10, cachedTokens: 4, outputTokens: 20, energyJ: 5, met: true, prediction: null };

test("the conventions' metrics count what ended well; of others the duration with its error alone, and no tokens that nobody told", () => {
  const registry = createRegistry();
  const metrics = createGenAiMetrics(registry, null);
  metrics.reported(REPORT);
  metrics.reported({ ...REPORT, outcome: 'failed', usageTold: false });
  const lines = registry.render().split('\n');
  const common = 'gen_ai_operation_name="chat",gen_ai_provider_name="paceline",gen_ai_request_model="m"';
  for (const line of [
    `gen_ai_server_request_duration_seconds_count{${common},error_type=""} 1`,
    `gen_ai_server_request_duration_seconds_count{${common},error_type="failed"} 1`,
    `gen_ai_server_time_to_first_token_seconds_count{${common}} 1`,
    `gen_ai_server_time_to_first_token_seconds_sum{${common}} 0.12`,
    `gen_ai_server_time_per_output_token_seconds_bucket{${common},le="0.05"} 1`,
    `gen_ai_client_token_usage_sum{${common},gen_ai_token_type="input"} 10`,
    `gen_ai_client_token_usage_sum{${common},gen_ai_token_type="output"} 20`,
    `gen_ai_client_token_usage_count{${common},gen_ai_token_type="output"} 1`,
  ]) expect(lines).toContain(line);
});

test('a failure of a model server is logged with the ids of its request and its trace', () => {
  const lines: string[] = [];
  const telemetry = createTelemetry(pino({ level: 'info' }, { write: (line: string) => void lines.push(line) }));
  telemetry.upstreamFailed({ requestId: 'q', traceId: 't'.repeat(32), replicaId: 'r0' as ReplicaId, phase: 'mid-answer', error: new Error('gone') });
  telemetry.upstreamFailed({ requestId: 'q', traceId: null, replicaId: 'r0' as ReplicaId, phase: 'mid-answer', error: new Error('gone') });
  expect(lines.map((line) => JSON.parse(line) as object)).toMatchObject([{ requestId: 'q', traceId: 't'.repeat(32) }, { requestId: 'q' }]);
  expect(lines[1]).not.toContain('traceId');
});
