// What was decided for one request of a simulated run, and why: gathered while it runs, then told to people or scripts.
import type { JobId, ReplicaId, Slo } from '../core/job.ts';
import type { Route } from '../core/routing.ts';
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { Effect, Explanation, JobReport, Prediction } from '../scheduler/events.ts';
import type { SimulationObserver } from './simulate.ts';

/** A replica that was considered for the request, as it would have been with it. */
export interface ConsideredReplica {
  readonly replicaId: string;
  readonly plan: 'meets' | 'tight' | 'infeasible';
  /** Operating point of that plan, and what forbids a cheaper one. */
  readonly pointId: string;
  readonly binding: string;
  readonly slackMs: number | null;
  readonly chargedJ: number;
  /** Deadlines expected to be missed for sending it there: its own, and others'. */
  /** Over `riskMax` together, a job is not sent there while it can wait. */
  readonly riskMax: number;
  /** Too many of the deadlines there cannot be met any more. */
  readonly distressed: boolean;
  readonly ownRisk: number;
  readonly othersRisk: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
}

export interface ClockDecision {
  readonly atMs: number;
  readonly pointId: string | null;
  readonly change: 'raise' | 'lower' | 'renew';
  readonly binding: Explanation['binding'];
  readonly bindingRequest: number | null;
  readonly slackMs: number | null;
}

export interface RequestExplanation {
  readonly request: number;
  readonly atMs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly sloClass: string;
  readonly slo: Slo;
  /** When it was last considered, which is when it was sent, and by how many looks it was kept in the queue before. */
  readonly considered: { readonly atMs: number; readonly replicas: readonly ConsideredReplica[]; readonly timesKept: number } | null;
  readonly sent: { readonly atMs: number; readonly replicaId: string; readonly prediction: Prediction; readonly predictedTpotMs: number | null } | null;
  readonly report: JobReport | null;
  readonly rejected: string | null;
  /** Of its replica from its sending to its end: the first, and each that changed the point, the reason or the request behind it. */
  readonly clocks: readonly ClockDecision[];
}

/** Watches a run for one request; `explanation` is complete when the run has ended. */
export function createExplainer(request: number, what: Pick<RequestExplanation, 'atMs' | 'promptTokens' | 'outputTokens' | 'sloClass' | 'slo'>): { readonly observer: SimulationObserver; explanation(): RequestExplanation } {
  const jobId = String(request) as JobId;
  let looks = 0;
  let consideredAtMs = Number.NaN;
  let considered: ConsideredReplica[] = [];
  let sent: RequestExplanation['sent'] = null;
  let report: JobReport | null = null;
  let rejected: string | null = null;
  const standing = new Map<ReplicaId, ClockDecision>();
  const clocks: ClockDecision[] = [];

  function see(effect: Effect, nowMs: number): void {
    switch (effect.kind) {
      case 'dispatch': {
        if (effect.jobId !== jobId) return;
        const { replicaId, prediction } = effect;
        sent = { atMs: nowMs, replicaId, prediction, predictedTpotMs: considered.find((replica) => replica.replicaId === replicaId)?.tpotMs ?? null };
        const before = standing.get(replicaId);
        if (before !== undefined) clocks.push(before);
        return;
      }
      case 'reject':
        if (effect.jobId === jobId) rejected = effect.reason;
        return;
      case 'report':
        if (effect.report.jobId === jobId) report = effect.report;
        return;
      case 'settled':
        return;
      case 'demand': {
        const { binding, jobId: bindingJobId, slackMs } = effect.why;
        const decision = { atMs: nowMs, pointId: effect.point?.id ?? null, change: effect.change, binding, bindingRequest: bindingJobId === undefined ? null : Number(bindingJobId), slackMs: slackMs ?? null };
        const before = standing.get(effect.replicaId);
        standing.set(effect.replicaId, decision);
        if (sent === null || report !== null || effect.replicaId !== sent.replicaId) return;
        if (clocks.length === 0 || before === undefined || before.pointId !== decision.pointId || before.binding !== decision.binding || before.bindingRequest !== decision.bindingRequest) clocks.push(decision);
        return;
      }
    }
  }

  return {
    observer: {
      onEffect: see,
      onRoute: (consideredFor, route, nowMs) => {
        if (consideredFor !== jobId) return;
        // A look at all replicas is one instant; a request that is kept is looked at again later.
        if (nowMs !== consideredAtMs) {
          looks += 1;
          considered = [];
        }
        consideredAtMs = nowMs;
        considered.push(consideredReplica(route));
      },
    },
    explanation: () => ({ request, ...what, considered: looks === 0 ? null : { atMs: consideredAtMs, replicas: considered, timesKept: looks - 1 }, sent, report, rejected, clocks }),
  };
}

function consideredReplica({ id, plan, chargedJ, ownRisk, othersRisk, riskMax, distressed, ttftMs, tpotMs }: Route<{ readonly replicaId: ReplicaId; readonly belief: PerformanceModel }>): ConsideredReplica {
  const { kind, point, binding, slackMs } = plan;
  return { replicaId: id.replicaId, plan: kind, pointId: id.belief.points[point]?.id ?? '', binding, slackMs: Number.isFinite(slackMs) ? slackMs : null, chargedJ, ownRisk, othersRisk, riskMax, distressed, ttftMs, tpotMs };
}
