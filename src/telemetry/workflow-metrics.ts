// What became of workflows, as metrics: under our names, and the duration under OpenTelemetry's as well where there is an SDK.
import type { Meter } from '@opentelemetry/api';
import type { WorkflowReport } from '../scheduler/workflows.ts';
import type { Registry } from './registry.ts';

/** Workflows take longer than requests do. */
const DURATION_BOUNDS_S = [0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120];

export interface WorkflowMetrics {
  ended(report: WorkflowReport): void;
  open(count: number): void;
}

export function createWorkflowMetrics(registry: Registry, meter: Meter | null): WorkflowMetrics {
  const total = registry.counter({ name: 'paceline_workflows_total', help: "Workflows that have ended, by how: all of it had come (finished), its client ended it (ended-by-client), or nothing more was heard (abandoned); met: by its deadline (met, missed), or not known where its client ended it before (unknown).", labels: ['tenant', 'outcome', 'met'] });
  const duration = registry.histogram({ name: 'paceline_workflow_duration_seconds', help: 'From the beginning of a workflow to the end of its last call.', labels: ['tenant', 'outcome'], bounds: DURATION_BOUNDS_S });
  const energy = registry.counter({ name: 'paceline_workflow_energy_joules_total', help: 'Of the calls of workflows that have ended, as far as it was known when the calls did.', labels: ['tenant'] });
  const open = registry.gauge({ name: 'paceline_workflows_open', help: 'Workflows that are open.' });
  const told = meter?.createHistogram('gen_ai.workflow.duration', { unit: 's', description: 'From the beginning of a workflow to the end of its last call.', advice: { explicitBucketBoundaries: DURATION_BOUNDS_S } });
  return {
    ended({ tenant, outcome, met, tookMs, energyJ }) {
      total.add([tenant, outcome, met === null ? 'unknown' : met ? 'met' : 'missed']);
      duration.observe([tenant, outcome], tookMs / 1_000);
      energy.add([tenant], energyJ);
      told?.record(tookMs / 1_000, outcome === 'abandoned' ? { 'error.type': 'abandoned' } : {});
    },
    open: (count) => open.set([], count),
  };
}
