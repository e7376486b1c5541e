// What a job would take on a server that prefills and decodes on devices of their own: the two groups' parts, added up.
import { fasterOf, type PointIndex } from '../frontier/performance-model.ts';
import { planOfGroup } from './group-plan.ts';
import { LATEST_START_ROOM, LOWER_DWELL_MS } from './limits.ts';
import { decodeView, prefillView } from './phase-views.ts';
import type { Plan } from './planner.ts';
import { costsAt } from './point-costs.ts';
import type { PhaseGroup, ReplicaView, WaitingPrompt } from './replica-view.ts';
import { prefillChargeJ, raiseChargeJ, stepsChargeJ } from './work-energy.ts';

/** What a job would take where it may be sent, see `Route`. */
export interface RouteFigures {
  readonly chargedJ: number;
  readonly latestStartAtMs: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
}

export interface GroupPlans {
  readonly before: Plan;
  readonly after: Plan;
  readonly controlled: boolean;
  /** What streams are priced by, where the decode group runs slower. */
  readonly target: PointIndex;
}

/** Of the last waiting prompt; `null` where the server has no groups. */
export function groupFigures(withJob: ReplicaView, { before, after, controlled, target }: GroupPlans): RouteFigures | null {
  const { groups, model, priced } = withJob;
  if (groups === undefined) return null;
  const pointOf = (plan: Plan, group: PhaseGroup): PointIndex => (controlled && groups[group].controlled ? planOfGroup(plan, group).point : model.fastest);
  const job = withJob.waiting.at(-1) as WaitingPrompt;
  const last = withJob.waiting.length - 1;
  const prefillPoint = pointOf(after, 'prefill');
  const prefills = prefillView(withJob, groups);
  const firstTokenMs = costsAt(prefills, prefillPoint).firstTokenMs[last] as number;
  const soonestMs = costsAt(prefills, model.fastest).firstTokenMs[last] as number;

  const decodes = decodeView(withJob, groups, null);
  const all = { sequences: decodes.runningCount + decodes.foreignSequences, contextTokens: decodes.contextTokens };
  const decodeBefore = fasterOf(model, pointOf(before, 'decode'), target);
  const decodeAfter = fasterOf(model, pointOf(after, 'decode'), target);
  const tpotMs = costsAt(decodes, pointOf(after, 'decode')).stepMs;
  const raisedMs = costsAt(decodes, decodeBefore).stepMs <= job.tpotLimitMs ? LOWER_DWELL_MS : Math.max(LOWER_DWELL_MS, job.outputTokensMiddle * tpotMs);
  const endMs = soonestMs + job.outputTokensHigh * costsAt(decodes, model.fastest).stepMs;
  return {
    chargedJ: prefillsJ(withJob, pointOf(before, 'prefill'), prefillPoint) + stepsChargeJ(priced, all, job.outputTokensMiddle, decodeAfter) + raiseChargeJ(priced, all, decodeBefore, decodeAfter, raisedMs),
    latestStartAtMs: Math.min(job.ttftDeadlineAtMs - soonestMs * LATEST_START_ROOM.ttft, job.e2eDeadlineAtMs - endMs * LATEST_START_ROOM.e2e),
    ttftMs: firstTokenMs,
    tpotMs,
  };
}

/** The job's own, and what those before it take more for being prefilled faster. */
function prefillsJ({ priced, waiting }: ReplicaView, before: PointIndex, after: PointIndex): number {
  let joules = prefillChargeJ(priced, waiting.at(-1) as WaitingPrompt, after);
  if (before === after) return joules;
  for (const prompt of waiting.slice(0, -1)) joules += Math.max(0, prefillChargeJ(priced, prompt, after) - prefillChargeJ(priced, prompt, before));
  return joules;
}
