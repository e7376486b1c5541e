// How fast should the fleet run to spend least? Few replicas with full batches at a faster point, or more of them at a slower
// one: what arrives decides, not what is here. Routing prices by this point, so that packing stops where spreading gets cheaper.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import type { PointScale, Pricing } from './corrections.ts';
import { type LoadShape, pointRate } from './point-rate.ts';
import { parkedPowerW } from './work-energy.ts';

export interface FleetLoad extends LoadShape {
  /** Of all replicas that could share it. */
  readonly arrivalsPerMs: number;
  readonly replicas: number;
  /** As learnt of one of them: times, and what work costs. */
  readonly timeScale: PointScale;
  readonly priced: Pricing;
}

/**
 * The point at which serving the load takes the least energy above parked idling. As many whole replicas share the load as `pointRate`
 * says that it takes at each point, and the others idle parked; where the fleet has not as many, the point is too slow. O(points).
 */
export function targetPoint(model: PerformanceModel, load: FleetLoad): PointIndex {
  const { arrivalsPerMs, replicas, timeScale, priced } = load;
  const parkedW = parkedPowerW(priced);
  let best = model.fastest;
  let bestW = Number.POSITIVE_INFINITY;
  for (let point = 0; point < model.points.length; point++) {
    const { mostPerMs, excessJ } = pointRate(model, point, load, { timeScale, priced, parkedW });
    if (mostPerMs <= 0) continue;
    const busy = Math.max(1, Math.ceil(arrivalsPerMs / mostPerMs));
    if (busy > replicas) continue;
    const costW = 1000 * arrivalsPerMs * excessJ(arrivalsPerMs / busy);
    if (costW < bestW) {
      bestW = costW;
      best = point;
    }
  }
  return best;
}
