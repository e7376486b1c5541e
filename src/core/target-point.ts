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
  /** What a replica with nothing to do draws more than one that is not needed: those are asleep; default 0: they idle like it. */
  readonly awakeW?: number;
}

/**
 * The point at which serving the load takes the least energy above parked idling. As many whole replicas share the load as `pointRate`
 * says that it takes at each point, and the others idle parked; where the fleet has not as many, the point is too slow. O(points).
 */
export function targetPoint(model: PerformanceModel, load: FleetLoad): PointIndex {
  return leastPower(model, load)?.point ?? model.fastest;
}

/** What that takes above parked idling, in watts; `null` where the fleet cannot serve the load at any point. */
export function leastPower(model: PerformanceModel, load: FleetLoad): { readonly point: PointIndex; readonly excessW: number } | null {
  const { arrivalsPerMs, replicas, timeScale, priced, awakeW = 0 } = load;
  const parkedW = parkedPowerW(priced);
  let best: { readonly point: PointIndex; readonly excessW: number } | null = null;
  for (let point = 0; point < model.points.length; point++) {
    const { mostPerMs, excessJ } = pointRate(model, point, load, { timeScale, priced, parkedW });
    if (mostPerMs <= 0) continue;
    const busy = Math.max(1, Math.ceil(arrivalsPerMs / mostPerMs));
    if (busy > replicas) continue;
    // Who is woken serves others, too: of a fleet that sleeps a part of a replica is one, some of the time.
    const excessW = 1000 * arrivalsPerMs * excessJ(arrivalsPerMs / busy) + awakeW * Math.max(1, arrivalsPerMs / mostPerMs);
    if (best === null || excessW < best.excessW) best = { point, excessW };
  }
  return best;
}

/**
 * Joules that one more arrival takes where so many come, above what is taken anyway: the slope of `leastPower`, over a step large enough
 * that whole replicas do not make it jump. A batch shares its steps, so that it is small where the fleet is half full and large where
 * more would take faster clocks, or nothing runs yet. `Infinity` where the fleet cannot serve as many.
 */
export function marginalJ(model: PerformanceModel, load: FleetLoad): number {
  const stepPerMs = Math.max(MARGIN_STEP.share * load.arrivalsPerMs, MARGIN_STEP.perMs);
  const without = leastPower(model, load);
  const withMore = leastPower(model, { ...load, arrivalsPerMs: load.arrivalsPerMs + stepPerMs });
  return without === null || withMore === null ? Number.POSITIVE_INFINITY : (withMore.excessW - without.excessW) / (1000 * stepPerMs);
}

/** A tenth of what comes, at least one in ten seconds. */
const MARGIN_STEP = { share: 0.1, perMs: 1e-4 };
