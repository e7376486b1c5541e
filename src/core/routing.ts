// Which replica? The one where serving the job costs the least energy among those that can meet its deadlines: what the
// cheapest feasible plan costs with the job, less what it costs without. Packing and spreading both fall out of it.
import type { PointIndex } from '../frontier/performance-model.ts';
import { type Plan, planReplica } from './planner.ts';
import { predictFirstTokenMs, predictTpotMs } from './point-costs.ts';
import type { ReplicaView } from './replica-view.ts';
import { knownWorkJ } from './work-energy.ts';

/** `energy`: as the file's head says. `least-loaded`: fewest jobs, what a plain gateway does; what savings are measured against. */
export type Routing = 'energy' | 'least-loaded';

/** A replica as routing sees it: as it is, and as it would be with the job. */
export interface RouteCandidate<Id> {
  readonly id: Id;
  readonly without: ReplicaView;
  readonly withJob: ReplicaView;
  /** False where clocks cannot be driven: the job then runs at the fastest point whatever the plan says. */
  readonly controlled: boolean;
}

export interface Route<Id> {
  readonly id: Id;
  readonly plan: Plan;
  /** No deadline is given up by sending the job there. */
  readonly feasible: boolean;
  /** Deadlines given up by sending the job there: its own, or others'. */
  readonly newlyLost: number;
  readonly marginalJ: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
}

/**
 * With `energy`: the cheapest replica at which every deadline holds with its margin, its own and those of the jobs already
 * there; if there is none, the one with the most slack at which all can still hold; if there is none, the one where the fewest are given up and the first
 * token comes soonest. `null` when there is no candidate. Ties go to the shorter queue, then to the order given.
 */
export function chooseRoute<Id>(candidates: readonly RouteCandidate<Id>[], routing: Routing): Route<Id> | null {
  if (routing === 'least-loaded') {
    const least = candidates.reduce<RouteCandidate<Id> | null>((best, candidate) => (best === null || loadOf(candidate) < loadOf(best) ? candidate : best), null);
    return least === null ? null : routeTo(least);
  }
  let best: { route: Route<Id>; load: number } | null = null;
  for (const candidate of candidates) {
    const route = routeTo(candidate);
    const load = loadOf(candidate);
    if (best === null || isBetter(route, load, best.route, best.load)) best = { route, load };
  }
  return best?.route ?? null;
}

function loadOf<Id>({ without }: RouteCandidate<Id>): number {
  return without.waiting.length + without.running.length;
}

function routeTo<Id>({ id, without, withJob, controlled }: RouteCandidate<Id>): Route<Id> {
  const plan = planReplica(withJob);
  const before = planReplica(without);
  const { fastest } = withJob.model;
  const point: PointIndex = controlled ? plan.point : fastest;
  const newlyLost = Math.max(0, plan.lost - before.lost);
  return {
    id,
    plan,
    feasible: newlyLost === 0,
    newlyLost,
    marginalJ: knownWorkJ(withJob, point) - knownWorkJ(without, controlled ? before.point : fastest),
    ttftMs: predictFirstTokenMs(withJob, point, withJob.waiting.length - 1),
    tpotMs: predictTpotMs(withJob, point),
  };
}

function isBetter<Id>(route: Route<Id>, load: number, best: Route<Id>, bestLoad: number): boolean {
  if (route.newlyLost !== best.newlyLost) return route.newlyLost < best.newlyLost;
  if (!route.feasible) return route.ttftMs < best.ttftMs;
  // Without the margins anywhere, what counts is to get them back, not the energy.
  if (route.plan.slackMs < 0 || best.plan.slackMs < 0) return route.plan.slackMs > best.plan.slackMs;
  const difference = route.marginalJ - best.marginalJ;
  // Joules that differ by less than a hundredth are the same number: the models are not that good.
  if (Math.abs(difference) > 0.01 * Math.max(Math.abs(route.marginalJ), Math.abs(best.marginalJ))) return difference < 0;
  return load < bestLoad;
}
