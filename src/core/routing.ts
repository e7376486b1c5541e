// Which replica? The one where serving the job costs the least energy among those where no deadline is put at risk by it:
// what the cheapest feasible plan costs with the job, less what it costs without. Packing, spreading and keeping tight
// streams apart from long prompts all fall out of these two numbers.
import { type PointIndex, fasterOf, isFaster } from '../frontier/performance-model.ts';
import { LATEST_START_ROOM, LOWER_DWELL_MS } from './limits.ts';
import { groupFigures, type RouteFigures } from './group-route.ts';
import { planOfGroup, planServer, serverRisk } from './group-plan.ts';
import type { LossRisk, Plan } from './planner.ts';
import { costsAt, type PointCosts, tokensTakeMs } from './point-costs.ts';
import { PHASE_GROUPS, type ReplicaView, type WaitingPrompt } from './replica-view.ts';
import { chargedWorkJ } from './work-energy.ts';
import type { Worthier } from './worthier-jobs.ts';

/** `energy`: as the file's head says. `least-loaded`: fewest jobs, what a plain gateway does; what savings are measured against. */
export type Routing = 'energy' | 'least-loaded';

/** A replica with what it has, judged; the same for all jobs that are considered at one instant. */
export interface Standing {
  readonly view: ReplicaView;
  readonly plan: Plan;
  readonly risk: LossRisk;
}

/** With the plan as it stands, where one does. */
export function standingOf(view: ReplicaView, controlled: boolean, plan: Plan | null): Standing {
  return { view, plan: plan ?? planServer(view, !controlled), risk: serverRisk(view) };
}

/** A replica as routing sees it: as it is, and as it would be with the job, which is the last of its waiting prompts. */
export interface RouteCandidate<Id> {
  readonly id: Id;
  /** Jobs there. */
  readonly load: number;
  readonly without: () => Standing;
  readonly withJob: () => ReplicaView;
  /** False where clocks cannot be driven: the job then runs at the fastest point whatever the plan says. */
  readonly controlled: boolean;
  /** The point that the fleet's load is served at for the least (`targetPoint`): a replica slower than that is priced as if at it. */
  readonly target: PointIndex;
  /** Whom the job has to leave a replica fast enough: sent where steps are longer than that, it costs one of them. */
  readonly worthier?: Worthier | undefined;
}

export interface Route<Id> {
  readonly id: Id;
  readonly plan: Plan;
  /** No deadline is given up by sending the job there. */
  readonly feasible: boolean;
  /** Deadlines that are expected to be missed more for sending it there now: the job's own, and others', in multiples of its own worth. */
  readonly ownRisk: number;
  readonly othersRisk: number;
  /** Of these what waiting may spare (`LossRisk.sparable`). */
  readonly ownSparable: number;
  readonly othersSparable: number;
  /** What the two may come to together, here and now. */
  readonly riskMax: number;
  /** See `chargedWorkJ`. */
  readonly chargedJ: number;
  /** Too many of the deadlines there cannot be met any more. */
  readonly distressed: boolean;
  /** The replica has nothing to do, or would have to run faster for it. */
  readonly opens: boolean;
  /** The least charged on any replica, whatever it puts at risk there now. */
  readonly cheapestJ: number;
  /** Latest instant at which it could still be sent there, as things stand, at the fastest point; `Infinity` without a deadline. */
  readonly latestStartAtMs: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
}

export interface RouteOptions<Id> {
  /** Deadlines that sending it may put at risk. */
  readonly riskMax: number;
  /** As many wait for a place or for others' sake as there are replicas. */
  readonly crowded?: boolean;
  readonly onRoute?: ((route: Route<Id>) => void) | undefined;
}

/** Share of a replica's jobs that are lost from which on it is spared. */
const DISTRESS_SHARE = 0.1;

/**
 * With `energy`: of the replicas that put at risk no more than `riskMax` deadlines, the cheapest at which every deadline holds
 * with its margin; if there is none, the one with the most slack. If every replica is put at more risk, or `crowded`, the one with the least:
 * where others wait already, room is dearer than joules, and replicas that are packed have none for what nobody knew of.
 * `null` when there is no candidate. Ties go to the shorter queue, then to the order given. `onRoute` sees each that is weighed.
 */
export function chooseRoute<Id>(candidates: readonly RouteCandidate<Id>[], routing: Routing, { riskMax, crowded = false, onRoute }: RouteOptions<Id>): Route<Id> | null {
  if (routing === 'least-loaded') {
    const least = candidates.reduce<RouteCandidate<Id> | null>((best, candidate) => (best === null || candidate.load < best.load ? candidate : best), null);
    const only = least === null ? null : routeTo(least, riskMax);
    if (only !== null) onRoute?.(only);
    return only;
  }
  let best: { route: Route<Id>; load: number } | null = null;
  let cheapestJ = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const route = routeTo(candidate, riskMax);
    onRoute?.(route);
    if (!route.distressed) cheapestJ = Math.min(cheapestJ, route.chargedJ);
    if (best === null || isBetter(route, candidate.load, best.route, best.load, crowded)) best = { route, load: candidate.load };
  }
  return best === null ? null : { ...best.route, cheapestJ };
}

function routeTo<Id>(candidate: RouteCandidate<Id>, riskMax: number): Route<Id> {
  const { id, controlled } = candidate;
  const without = candidate.without();
  const withJob = candidate.withJob();
  const plan = planServer(withJob, !controlled);
  const risk = serverRisk(withJob);
  const { model } = withJob;
  const { worth = 1 } = withJob.waiting.at(-1) as WaitingPrompt;
  const costsWorthier = candidate.worthier !== undefined && plan.groups === undefined && costsAt(withJob, model.fastest).stepWithPrefillsMs > candidate.worthier.tpotMs ? candidate.worthier.worth / worth : 0;
  const faster = plan.groups === undefined ? isFaster(model, plan.point, without.plan.point) : PHASE_GROUPS.some((group) => isFaster(model, planOfGroup(plan, group).point, planOfGroup(without.plan, group).point));
  return {
    id,
    plan,
    feasible: plan.lost <= without.plan.lost,
    ownRisk: risk.last,
    riskMax,
    othersRisk: Math.max(0, risk.expected - worth * risk.last - without.risk.expected) / worth + costsWorthier,
    ownSparable: risk.sparable.last,
    othersSparable: Math.max(0, risk.sparable.expected - worth * risk.sparable.last - without.risk.sparable.expected) / worth + costsWorthier,
    distressed: without.plan.lost > Math.max(1, DISTRESS_SHARE * candidate.load),
    cheapestJ: Number.POSITIVE_INFINITY,
    opens: candidate.load + without.view.foreignSequences === 0 || faster,
    ...(groupFigures(withJob, { before: without.plan, after: plan, controlled, target: candidate.target }) ?? figures(candidate, withJob, without.plan, plan)),
  };
}

/** What the job would take on it: joules, and times. */
function figures<Id>({ controlled, target }: RouteCandidate<Id>, withJob: ReplicaView, without: Plan, plan: Plan): RouteFigures {
  const { model } = withJob;
  const { fastest } = model;
  const point: PointIndex = controlled ? plan.point : fastest;
  const costs = costsAt(withJob, point);
  const last = withJob.waiting.length - 1;
  const before = fasterOf(model, controlled ? without.point : fastest, target);
  const after = fasterOf(model, point, target);
  return {
    chargedJ: chargedWorkJ(withJob, before, after, raisedMs(withJob, before, costs)),
    latestStartAtMs: latestStartAtMs(withJob, withJob.waiting[last] as WaitingPrompt, last),
    ttftMs: costs.firstTokenMs[last] ?? 0,
    tpotMs: costs.stepWithPrefillsMs,
  };
}

/**
 * How long the job would keep the replica faster than at `before`: for all its life where its own TPOT asks for it, else until
 * its prompt is through and the replica may be lowered again.
 */
function raisedMs(withJob: ReplicaView, before: PointIndex, costs: PointCosts): number {
  const job = withJob.waiting.at(-1) as WaitingPrompt;
  const transientMs = costs.prefillMs + LOWER_DWELL_MS;
  if (costsAt(withJob, before).stepWithPrefillsMs <= job.tpotLimitMs) return transientMs;
  return Math.max(transientMs, job.outputTokensMiddle * costs.stepWithPrefillsMs);
}

function latestStartAtMs(view: ReplicaView, prompt: WaitingPrompt, index: number): number {
  if (prompt.ttftDeadlineAtMs === Number.POSITIVE_INFINITY && prompt.e2eDeadlineAtMs === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
  const fastest = costsAt(view, view.model.fastest);
  const firstMs = fastest.firstTokenMs[index] as number;
  const endMs = firstMs + tokensTakeMs(fastest, prompt.outputTokensHigh, fastest.stepWithPrefillsMs, fastest.firstTokenIteration[index]);
  return Math.min(prompt.ttftDeadlineAtMs - firstMs * LATEST_START_ROOM.ttft, prompt.e2eDeadlineAtMs - endMs * LATEST_START_ROOM.e2e);
}

function isBetter<Id>(route: Route<Id>, load: number, best: Route<Id>, bestLoad: number, crowded: boolean): boolean {
  const { riskMax } = route;
  const risk = route.ownRisk + route.othersRisk;
  const bestRisk = best.ownRisk + best.othersRisk;
  if (crowded || risk > riskMax || bestRisk > riskMax) {
    if (Math.abs(risk - bestRisk) > 1e-9) return risk < bestRisk;
    return route.ttftMs < best.ttftMs;
  }
  // What is lost already puts nothing at risk, and the fuller replica is the cheaper: without this, one that has fallen behind
  // would draw ever more.
  if (route.distressed !== best.distressed) return !route.distressed;
  // Without the margins anywhere, what counts is to get them back, not the energy.
  if (route.plan.slackMs < 0 || best.plan.slackMs < 0) return route.plan.slackMs > best.plan.slackMs;
  const difference = route.chargedJ - best.chargedJ;
  // Joules that differ by less than a hundredth are the same number: the models are not that good.
  if (Math.abs(difference) > 0.01 * Math.max(Math.abs(route.chargedJ), Math.abs(best.chargedJ))) return difference < 0;
  return load < bestLoad;
}
