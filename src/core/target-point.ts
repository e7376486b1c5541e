// How fast should the fleet run to spend least? Few replicas with full batches at a faster point, or more of them at a slower
// one: what arrives decides, not what is here. Routing prices by this point, so that packing stops where spreading gets cheaper.
import { NO_PREFILL, type PerformanceModel, type PointIndex } from '../frontier/performance-model.ts';
import type { PointScale, Pricing } from './corrections.ts';
import { parkedPowerW } from './work-energy.ts';

export interface FleetLoad {
  /** Of all replicas that could share it. */
  readonly arrivalsPerMs: number;
  readonly replicas: number;
  readonly promptTokensMean: number;
  /** What of them is not cached. */
  readonly prefillTokensMean: number;
  readonly outputTokensMean: number;
  /** What an output token may take on average over all that arrives; `Infinity` where nothing has a TPOT. */
  readonly tpotMs: number;
  /** As learnt of one of them: times, and what work costs. */
  readonly timeScale: PointScale;
  readonly priced: Pricing;
}

/** Share of its time or of its places that a replica is filled to in the long run. */
const FILLED = { time: 0.9, places: 0.85 };
/** Streams are to settle this far below their limit: arrivals are not steady. */
const SETTLE_SHARE = 0.9;

/**
 * The point at which serving the load takes the least energy above parked idling. At each point a replica takes arrivals up to
 * the rate λ at which batch, step and prefills settle at the TPOT wanted: with step s = α + β·B, batch B = λ·n·s/(1 − ρ) and
 * prefills of p ms each, ρ = λ·p, that is λ = (1 − α/(L − β))/(p + β·n) (as in `costsAt`). As many whole replicas share the
 * load as that takes, and the others idle parked; where the fleet has not as many, the point is too slow. O(points).
 */
export function targetPoint(model: PerformanceModel, load: FleetLoad): PointIndex {
  const { arrivalsPerMs, replicas, promptTokensMean, prefillTokensMean, outputTokensMean, priced } = load;
  const contextEach = promptTokensMean + outputTokensMean / 2;
  const prefill = { tokens: Math.max(1, prefillTokensMean), contextTokens: promptTokensMean - prefillTokensMean };
  const parkedW = parkedPowerW(priced);
  let best = model.fastest;
  let bestW = Number.POSITIVE_INFINITY;
  for (let point = 0; point < model.points.length; point++) {
    const { mostPerMs, baseMs, workMs } = sustained(model, load, point);
    if (mostPerMs <= 0) continue;
    const busy = Math.max(1, Math.ceil(arrivalsPerMs / mostPerMs));
    if (busy > replicas) continue;
    const perMs = arrivalsPerMs / busy;
    // Where streams are fewer than one at a time, each has the steps of its life to itself.
    const sequences = Math.max(1, (perMs * outputTokensMean * baseMs) / (1 - perMs * workMs));
    const decode = { sequences, contextTokens: sequences * contextEach };
    const stepJ = priced.decodeEnergyJ(decode, point) - (parkedW * priced.decodeTimeMs(decode, point)) / 1000;
    const prefillJ = priced.prefillEnergyJ(prefill, point) - (parkedW * priced.prefillTimeMs(prefill, point)) / 1000;
    const costW = 1000 * arrivalsPerMs * (prefillJ + (outputTokensMean / sequences) * stepJ);
    if (costW < bestW) {
      bestW = costW;
      best = point;
    }
  }
  return best;
}

/** What arrives, as far as it decides how much of it a replica can take. */
export type SustainedLoad = Pick<FleetLoad, 'promptTokensMean' | 'prefillTokensMean' | 'outputTokensMean' | 'tpotMs' | 'timeScale'>;

/**
 * The rate up to which a replica at a point takes arrivals, see `targetPoint`; 0 or less where a single stream is too slow. `baseMs`: a step without its
 * sequences; `workMs`: what each arrival adds.
 */
export function sustained(model: PerformanceModel, { promptTokensMean, prefillTokensMean, outputTokensMean, tpotMs, timeScale }: SustainedLoad, point: PointIndex): { readonly mostPerMs: number; readonly baseMs: number; readonly workMs: number } {
  const { maxSequences, kvTokens } = model.profile.serving;
  const contextEach = promptTokensMean + outputTokensMean / 2;
  const placesMax = FILLED.places * Math.min(maxSequences, kvTokens / contextEach);
  const prefill = { tokens: Math.max(1, prefillTokensMean), contextTokens: promptTokensMean - prefillTokensMean };
  const one = { sequences: 1, contextTokens: contextEach };
  const step = (sequences: number): number => model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences, contextTokens: sequences * contextEach } }, point) * (timeScale.decode[point] as number);
  const perSequenceMs = (step(65) - step(1)) / 64;
  const baseMs = step(1) - perSequenceMs;
  // Beside decodes the pass over the weights is paid once.
  const prefillMs = (model.iterationTimeMs({ prefill, decode: one }, point) - model.iterationTimeMs({ prefill: NO_PREFILL, decode: one }, point)) * (timeScale.prefill[point] as number);
  const workMs = prefillMs + perSequenceMs * outputTokensMean;
  const byTpot = tpotMs === Number.POSITIVE_INFINITY ? 1 : 1 - baseMs / Math.max(1e-9, SETTLE_SHARE * tpotMs - perSequenceMs);
  // Places bound the batch: λ·n·s/(1 − ρ) ≤ placesMax, at s = α + β·placesMax.
  const byPlaces = placesMax / (outputTokensMean * (baseMs + perSequenceMs * placesMax) + placesMax * prefillMs);
  return { mostPerMs: Math.min(Math.min(byTpot, FILLED.time) / workMs, byPlaces), baseMs, workMs };
}
