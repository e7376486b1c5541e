// Which replica? The one where serving the job costs the least energy among those that can meet its deadlines: what the
// cheapest feasible plan costs with the job, less what it costs without. Packing and spreading both fall out of it.
import type { PointIndex } from '../frontier/performance-model.ts';
import { type Plan, planReplica, predictFirstTokenMs, predictTpotMs, type ReplicaView } from './planner.ts';

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
  /** Every deadline there is predicted to hold, this job's included. */
  readonly feasible: boolean;
  /** Deadlines given up by sending the job there: its own, or others'. */
  readonly newlyLost: number;
  readonly marginalJ: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
}

/**
 * With `energy`: the cheapest replica that meets every deadline, its own and those of the jobs already there; if none does, the one where
 * the fewest are given up and the first token comes soonest. `null` when there is no candidate. Ties go to the shorter queue, then to the order given.
 */
export function chooseRoute<Id>(candidates: readonly RouteCandidate<Id>[], routing: Routing): Route<Id> | null {
  let best: { route: Route<Id>; load: number } | null = null;
  for (const candidate of candidates) {
    const { without, withJob } = candidate;
    const plan = planReplica(withJob);
    const point: PointIndex = candidate.controlled ? plan.point : withJob.model.fastest;
    const before = planReplica(without);
    const newlyLost = Math.max(0, plan.lost - before.lost);
    const route: Route<Id> = {
      id: candidate.id,
      plan,
      // A replica that was infeasible already is not made so by this job, but it is no place for it either.
      feasible: plan.kind === 'meets' && newlyLost === 0,
      newlyLost,
      marginalJ: plan.knownWorkJ - before.knownWorkJ,
      ttftMs: predictFirstTokenMs(withJob, point, withJob.waiting.length - 1),
      tpotMs: predictTpotMs(withJob, point),
    };
    const load = without.waiting.length + without.running.length;
    const better = best === null || (routing === 'least-loaded' ? load < best.load : isBetter(route, load, best.route, best.load));
    if (better) best = { route, load };
  }
  return best?.route ?? null;
}

function isBetter<Id>(route: Route<Id>, load: number, best: Route<Id>, bestLoad: number): boolean {
  if (route.feasible !== best.feasible) return route.feasible;
  if (!route.feasible) return route.newlyLost !== best.newlyLost ? route.newlyLost < best.newlyLost : route.ttftMs < best.ttftMs;
  const difference = route.marginalJ - best.marginalJ;
  // Joules that differ by less than a hundredth are the same number: the models are not that good.
  if (Math.abs(difference) > 0.01 * Math.max(Math.abs(route.marginalJ), Math.abs(best.marginalJ))) return difference < 0;
  return load < bestLoad;
}
