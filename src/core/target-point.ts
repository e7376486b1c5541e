// How fast should the fleet run to spend least? Few replicas with full batches at a faster point, or more of them at a slower
// one: what arrives decides, not what is here. Routing prices by this point, so that packing stops where spreading gets cheaper.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';

export interface FleetLoad {
  /** Of all replicas that could share it. */
  readonly arrivalsPerMs: number;
  readonly replicas: number;
  readonly promptTokensMean: number;
  readonly outputTokensMean: number;
  /** What an output token may take on average over all that arrives; `Infinity` where nothing has a TPOT. */
  readonly tpotMs: number;
  readonly timeScale: { readonly prefill: number; readonly decode: number };
}

/** Share of its time or of its places that a replica is filled to in the long run. */
const FILLED = { time: 0.9, places: 0.85 };
/** Streams are to settle this far below their limit: arrivals are not steady. */
const SETTLE_SHARE = Number(process.env["SS"] ?? 0.9);

/**
 * The point at which serving the load takes the least energy above parked idling. At each point a replica takes arrivals up to
 * the rate λ at which batch, step and prefills settle at the TPOT wanted: with step s = α + β·B, batch B = λ·n·s/(1 − ρ) and
 * prefills of p ms each, ρ = λ·p, that is λ = (1 − α/(L − β))/(p + β·n) (as in `costsAt`). Λ/λ replicas are then busy, a
 * fraction of one standing for one that idles parked the rest of the time; where the fleet has not as many, the point is
 * too slow. O(points).
 */
export function targetPoint(model: PerformanceModel, load: FleetLoad): PointIndex {
  const { arrivalsPerMs, replicas, promptTokensMean, outputTokensMean, tpotMs, timeScale } = load;
  const { maxSequences, kvTokens } = model.profile.serving;
  const contextEach = promptTokensMean + outputTokensMean / 2;
  const placesMax = FILLED.places * Math.min(maxSequences, kvTokens / contextEach);
  let parkedW = Number.POSITIVE_INFINITY;
  for (let point = 0; point < model.points.length; point++) parkedW = Math.min(parkedW, model.idlePowerW(point));
  let best = model.fastest;
  let bestW = Number.POSITIVE_INFINITY;
  for (let point = 0; point < model.points.length; point++) {
    const step = (sequences: number): number => model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences, contextTokens: sequences * contextEach } }, point) * timeScale.decode;
    const perSequenceMs = (step(65) - step(1)) / 64;
    const baseMs = step(1) - perSequenceMs;
    const prefill = { tokens: Math.max(1, promptTokensMean), contextTokens: 0 };
    // Beside decodes the pass over the weights is paid once.
    const prefillMs = (model.iterationTimeMs({ prefill, decode: { sequences: 1, contextTokens: contextEach } }, point) - model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences: 1, contextTokens: contextEach } }, point)) * timeScale.prefill;
    const limitMs = SETTLE_SHARE * tpotMs;
    const byTpot = limitMs === Number.POSITIVE_INFINITY ? 1 : Math.max(0, 1 - baseMs / Math.max(1e-9, limitMs - perSequenceMs));
    // Places bound the batch: λ·n·s/(1 − ρ) ≤ placesMax, at s = α + β·placesMax.
    const fullStepMs = baseMs + perSequenceMs * placesMax;
    const byPlaces = placesMax / (outputTokensMean * fullStepMs + placesMax * prefillMs);
    const perReplica = Math.min((Math.min(byTpot, FILLED.time)) / (prefillMs + perSequenceMs * outputTokensMean), byPlaces);
    if (perReplica <= 0) continue;
    const busy = arrivalsPerMs / perReplica;
    if (busy > replicas) continue;
    const share = perReplica * prefillMs;
    const sequences = Math.max(1, Math.min(placesMax, (perReplica * outputTokensMean * baseMs) / Math.max(0.05, 1 - share - perReplica * outputTokensMean * perSequenceMs)));
    const decode = { sequences, contextTokens: sequences * contextEach };
    const stepJ = model.decodeEnergyJ(decode, point) - (parkedW * model.decodeTimeMs(decode, point)) / 1000;
    const prefillJ = model.prefillEnergyJ(prefill, point) - (parkedW * model.prefillTimeMs(prefill, point)) / 1000;
    const costW = arrivalsPerMs * (prefillJ + (outputTokensMean / sequences) * stepJ) * 1000;
    if (costW < bestW) {
      bestW = costW;
      best = point;
    }
  }
  return best;
}

const NO_PREFILL = { tokens: 0, contextTokens: 0 };
