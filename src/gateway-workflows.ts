// Workflows between the routes, the calls and the scheduler: it keeps the open ones, here is what became of the last that ended.
import type { WorkflowId } from './core/job.ts';
import { createRecentWorkflows, type RecentRow } from './core/recent-workflows.ts';
import type { WorkflowRoutesService } from './http/workflow-routes.ts';
import type { Runtime } from './runtime.ts';
import type { WorkflowReport } from './scheduler/workflows.ts';

export interface GatewayWorkflows {
  readonly service: WorkflowRoutesService;
  ended(report: WorkflowReport): void;
  /** For the status and the dashboard. */
  snapshot(): WorkflowsSnapshot;
}

export interface WorkflowsSnapshot {
  readonly open: number;
  /** That ended in the last 15 minutes. */
  readonly lately: readonly RecentRow[];
}

/** Reports that are kept, some 300 bytes each: for whoever asks what became of one, and for calls that are tried again after its end. */
export const ENDED_MAX = 10_000;

export function openWorkflows({ runtime, now }: { readonly runtime: () => Runtime; readonly now: () => number }): GatewayWorkflows {
  /** In the order of their ends. */
  const reports = new Map<string, { readonly report: WorkflowReport; readonly dueAtMs: number }>();
  const recent = createRecentWorkflows();
  const keyOf = (tenant: string, workflowId: WorkflowId): string => `${tenant}\n${workflowId}`;
  return {
    ended(report) {
      recent.ended(report, now());
      const key = keyOf(report.tenant, report.workflowId);
      reports.delete(key);
      const [oldest] = reports.keys();
      if (reports.size >= ENDED_MAX && oldest !== undefined) reports.delete(oldest);
      reports.set(key, { report, dueAtMs: now() + report.deadlineLeftMs });
    },
    snapshot: () => ({ open: runtime().openWorkflows(), lately: recent.read(now()) }),
    service: {
      declare: (workflow) => new Promise((resolve) => runtime().declareWorkflow(workflow, resolve)),
      status: (tenant, workflowId) => runtime().workflow(tenant, workflowId),
      report: (tenant, workflowId) => reports.get(keyOf(tenant, workflowId))?.report ?? null,
      end: (tenant, workflowId) => runtime().endWorkflow(tenant, workflowId),
      find: (tenant, workflowId) => runtime().openWorkflow(tenant, workflowId),
      openCount: (tenant) => runtime().openWorkflows(tenant),
      endedLeftMs: (tenant, workflowId) => {
        const ended = reports.get(keyOf(tenant, workflowId));
        return ended === undefined ? null : ended.dueAtMs - now();
      },
    },
  };
}
