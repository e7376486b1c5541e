// Which replica? The one where serving the job costs the least energy among those that can meet its deadlines: what the
// cheapest feasible plan costs with the job, less what it costs without. Packing and spreading both fall out of it.
import type { PointIndex } from '../frontier/performance-model.ts';
import { type Plan, planReplica, predictFirstTokenMs, predictTpotMs, type ReplicaView } from './planner.ts';

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
  readonly feasible: boolean;
  readonly marginalJ: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
}

/**
 * The cheapest replica that meets every deadline, its own and those of the jobs already there; if none does, the one with
 * the most slack. `null` when there is no candidate. Ties go to the shorter queue, then to the order given.
 */
export function chooseRoute<Id>(candidates: readonly RouteCandidate<Id>[]): Route<Id> | null {
  let best: { route: Route<Id>; load: number } | null = null;
  for (const candidate of candidates) {
    const { without, withJob } = candidate;
    const plan = planReplica(withJob);
    const point: PointIndex = candidate.controlled ? plan.point : withJob.model.fastest;
    const before = planReplica(without);
    // A replica that was infeasible already is not made so by this job, but it is no place for it either.
    const route: Route<Id> = {
      id: candidate.id,
      plan,
      feasible: plan.kind === 'meets',
      marginalJ: plan.knownWorkJ - before.knownWorkJ,
      ttftMs: predictFirstTokenMs(withJob, point, withJob.waiting.length - 1),
      tpotMs: predictTpotMs(withJob, point),
    };
    const load = without.waiting.length + without.running.length;
    if (best === null || isBetter(route, load, best.route, best.load)) best = { route, load };
  }
  return best?.route ?? null;
}

function isBetter<Id>(route: Route<Id>, load: number, best: Route<Id>, bestLoad: number): boolean {
  if (route.feasible !== best.feasible) return route.feasible;
  if (!route.feasible) return route.plan.slackMs !== best.plan.slackMs ? route.plan.slackMs > best.plan.slackMs : load < bestLoad;
  const difference = route.marginalJ - best.marginalJ;
  // Joules that differ by less than a hundredth are the same number: the models are not that good.
  if (Math.abs(difference) > 0.01 * Math.max(Math.abs(route.marginalJ), Math.abs(best.marginalJ))) return difference < 0;
  return load < bestLoad;
}
