// A request's line in the log: who, what, where to, how long and how much. Nothing of what was asked or answered, and no key.
import type { JobSpec, ReplicaId } from '../core/job.ts';
import type { JobReport } from '../scheduler/events.ts';

export interface AccessFacts {
  readonly requestId: string;
  readonly traceId: string | null;
  readonly method: string;
  readonly path: string;
  readonly statusCode: number | null;
  readonly left: boolean;
  /** The kind of our own error it was answered with. */
  readonly refusal: string | null;
  /** `null`: it was none yet. */
  readonly job: JobSpec | null;
  readonly report: JobReport | null;
  readonly replica: ReplicaId | null;
  readonly attempts: number;
  readonly queueMs: number | null;
  readonly durationMs: number;
}

/** What is not known is left out. */
export function accessLine({ job, report, ...facts }: AccessFacts): Record<string, string | number | boolean> {
  const line = {
    requestId: facts.requestId,
    traceId: facts.traceId,
    method: facts.method,
    path: facts.path,
    status: facts.statusCode,
    outcome: facts.refusal !== null ? 'refused' : facts.left ? 'cancelled' : (report?.outcome ?? null),
    refusal: facts.refusal,
    tenant: job?.tenant,
    model: job?.model,
    operation: job?.operation,
    sloClass: job?.sloClass,
    met: report?.met,
    workflowId: job?.workflow?.workflowId,
    workflowStage: job?.workflow?.stage,
    replicaId: facts.replica,
    attempts: facts.attempts,
    queueMs: rounded(facts.queueMs),
    ttftMs: rounded(report?.ttftMs),
    tpotMs: rounded(report?.tpotMs),
    durationMs: rounded(facts.durationMs),
    ...(report?.usageTold === true ? { inputTokens: report.promptTokens, cachedTokens: report.cachedTokens, outputTokens: report.outputTokens } : {}),
    ...(report?.energy === undefined ? {} : { energyMj: Math.round(1_000 * (report.energy.meteredJ + report.energy.modelledJ)), energyMeteredMj: Math.round(1_000 * report.energy.meteredJ) }),
  };
  return Object.fromEntries(Object.entries(line).filter((entry): entry is [string, string | number | boolean] => entry[1] !== null && entry[1] !== undefined));
}

/** To tenths. */
function rounded(valueMs: number | null | undefined): number | null {
  return valueMs === null || valueMs === undefined ? null : Math.round(valueMs * 10) / 10;
}
