// The frontier of work on one device group: every operating point priced by the performance model, then the efficient ones.
import { type Frontier, type FrontierPoint, paretoFrontier, sequenceAtOnePoint, withIdleUntil } from './frontier.ts';
import type { IterationWork, PerformanceModel, PointIndex } from './performance-model.ts';

/** One candidate per operating point, in the order of `model.points`, for iterations of the given work one after the other. */
export function candidatesFor(model: PerformanceModel, iterations: readonly IterationWork[]): FrontierPoint<PointIndex>[] {
  const parts = iterations.map((work) =>
    model.points.map((_, point) => ({ timeMs: model.iterationTimeMs(work, point), energyJ: model.iterationEnergyJ(work, point), choice: point })),
  );
  return sequenceAtOnePoint(parts);
}

/**
 * The frontier of iterations run one after the other at one operating point. With a horizon, the idle energy from the
 * end of the work to the horizon counts: `parkedPowerW` is what the group draws then (default: idle at the chosen point).
 */
export function frontierOf(model: PerformanceModel, iterations: readonly IterationWork[], horizon?: { readonly horizonMs: number; readonly parkedPowerW?: number }): Frontier<PointIndex> {
  const candidates = candidatesFor(model, iterations);
  if (horizon === undefined) return paretoFrontier(candidates);
  const { horizonMs, parkedPowerW } = horizon;
  return paretoFrontier(withIdleUntil(candidates, horizonMs, (point) => parkedPowerW ?? model.idlePowerW(point)));
}
