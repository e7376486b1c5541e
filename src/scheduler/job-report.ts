// What became of a job: its times, and whether they were what was asked for.
import type { JobEnergy } from '../core/energy-ledger.ts';
import type { JobSpec, ReplicaId } from '../core/job.ts';
import type { PendingJob, TrackedJob } from '../core/tracked-job.ts';
import type { JobReport, Prediction, SchedulerEvent } from './events.ts';

/** Of a job that has ended now; `placed` and `tracked` are `null` where it never left our queue. */
export function reportOf(
  job: PendingJob,
  tracked: TrackedJob | null,
  event: Extract<SchedulerEvent, { kind: 'ended' }>,
  nowMs: number,
  placed: { readonly replicaId: ReplicaId; readonly prediction: Prediction; readonly energy: { readonly energyJ: number; readonly account: JobEnergy | null } } | null,
): JobReport {
  const { spec } = job;
  const { promptTokens, cachedTokens, outputTokens } = tokensAtEnd(job, tracked, event);
  const firstTokenAtMs = spec.streaming ? (tracked?.firstTokenAtMs ?? null) : null;
  const e2eMs = nowMs - job.arrivedAtMs;
  const ttftMs = firstTokenAtMs === null ? null : firstTokenAtMs - job.arrivedAtMs;
  const tpotMs = firstTokenAtMs === null || outputTokens < 2 || tracked === null ? null : (tracked.lastTokenAtMs - firstTokenAtMs) / (outputTokens - 1);
  return {
    jobId: spec.jobId,
    replicaId: placed?.replicaId ?? null,
    sloClass: spec.sloClass,
    tenant: spec.tenant,
    model: spec.model,
    outcome: event.outcome,
    ...(spec.operation === undefined ? {} : { operation: spec.operation }),
    usageTold: event.usage !== undefined,
    ttftMs,
    tpotMs,
    e2eMs,
    promptTokens,
    cachedTokens,
    outputTokens,
    energyJ: placed?.energy.energyJ ?? 0,
    ...(placed?.energy.account == null ? {} : { energy: placed.energy.account }),
    met: metOf(spec, event.outcome, { ttftMs, tpotMs, e2eMs, outputTokens }),
    prediction: placed?.prediction ?? null,
  };
}

/** As its server says, or as far as was seen: without a stream that is only the end, and without usage not how much there was. */
export function tokensAtEnd(job: PendingJob, tracked: TrackedJob | null, { usage }: Extract<SchedulerEvent, { kind: 'ended' }>): Pick<JobReport, 'promptTokens' | 'cachedTokens' | 'outputTokens'> {
  return {
    promptTokens: usage?.promptTokens ?? job.promptTokens,
    cachedTokens: usage?.cachedTokens ?? 0,
    outputTokens: usage?.outputTokens ?? (job.spec.streaming ? (tracked?.tokensOut ?? 0) : 0),
  };
}

/**
 * Whether every SLO it carried was met; `null` where that cannot be told: it carried none, its client left, or it did not
 * stream and only its end was seen. Such a job is held to what its end can show: its own end-to-end limit, and the time that
 * TTFT and TPOT add up to.
 */
function metOf(spec: JobSpec, outcome: JobReport['outcome'], times: { ttftMs: number | null; tpotMs: number | null; e2eMs: number; outputTokens: number }): boolean | null {
  const { ttftMs, tpotMs, e2eMs } = spec.slo;
  if ((ttftMs === undefined && tpotMs === undefined && e2eMs === undefined) || outcome === 'cancelled') return null;
  if (outcome === 'failed') return false;
  if (e2eMs !== undefined && times.e2eMs > e2eMs) return false;
  if (spec.streaming) {
    if (ttftMs !== undefined && (times.ttftMs === null || times.ttftMs > ttftMs)) return false;
    return tpotMs === undefined || times.tpotMs === null || times.tpotMs <= tpotMs;
  }
  const furtherTokens = spec.work === 'embed' ? 0 : Math.max(0, times.outputTokens - 1);
  if (ttftMs !== undefined && furtherTokens === 0) return times.e2eMs <= ttftMs;
  if (ttftMs !== undefined && tpotMs !== undefined) return times.e2eMs <= ttftMs + tpotMs * furtherTokens;
  return e2eMs === undefined ? null : true;
}
