// What one replica can be sent at an operating point in the long run, and what serving it costs there. How fast a fleet should run
// (`target-point.ts`), and how many of its replicas should be awake (`awake-plan.ts`), are both questions about this.
import { NO_PREFILL, type PerformanceModel, type PointIndex } from '../frontier/performance-model.ts';
import type { PointScale, Pricing } from './corrections.ts';

/** What arrives, as means, and what it wants. */
export interface LoadShape {
  readonly promptTokensMean: number;
  /** What of them is not cached. */
  readonly prefillTokensMean: number;
  readonly outputTokensMean: number;
  /** What an output token may take on average over all that arrives; `Infinity` where nothing has a TPOT. */
  readonly tpotMs: number;
}

export interface PointRate {
  /** The most arrivals per millisecond that settle at the TPOT wanted, with time and places to spare; 0 or less: none do. */
  readonly mostPerMs: number;
  /** Energy above parked idling that one arrival takes, where so many come per millisecond. */
  excessJ(perMs: number): number;
  /** From an arrival to its first token at that rate: its prefill, and what nineteen of twenty wait for others'. */
  firstTokenMs(perMs: number): number;
}

/** Share of its time or of its places that a replica is filled to in the long run. */
const FILLED = { time: 0.9, places: 0.85 };
/** Streams are to settle this far below their limit: arrivals are not steady. */
const SETTLE_SHARE = 0.9;
/** An exponential wait exceeds this many means once in twenty. */
const WAIT_MEANS = Math.log(20);

/**
 * At each point a replica takes arrivals up to the rate λ at which batch, step and prefills settle at the TPOT wanted: with step
 * s = α + β·B, batch B = λ·n·s/(1 − ρ) and prefills of p ms each, ρ = λ·p, that is λ = (1 − α/(L − β))/(p + β·n) (as in `costsAt`).
 * `sequencesMax`: what it may be sent at once, if that is less than what its server takes. Times and joules as learnt.
 */
export function pointRate(model: PerformanceModel, point: PointIndex, load: LoadShape, learnt: { readonly timeScale: PointScale; readonly priced: Pricing; readonly parkedW: number }, sequencesMax = Number.POSITIVE_INFINITY): PointRate {
  const { promptTokensMean, prefillTokensMean, outputTokensMean, tpotMs } = load;
  const { timeScale, priced, parkedW } = learnt;
  const { maxSequences, kvTokens } = model.profile.serving;
  const contextEach = promptTokensMean + outputTokensMean / 2;
  const placesMax = FILLED.places * Math.min(maxSequences, kvTokens / contextEach, sequencesMax);
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
  return {
    mostPerMs: Math.min(Math.min(byTpot, FILLED.time) / workMs, byPlaces),
    excessJ(perMs) {
      // Where streams are fewer than one at a time, each has the steps of its life to itself.
      const sequences = Math.max(1, (perMs * outputTokensMean * baseMs) / (1 - perMs * workMs));
      const decode = { sequences, contextTokens: sequences * contextEach };
      const stepJ = priced.decodeEnergyJ(decode, point) - (parkedW * priced.decodeTimeMs(decode, point)) / 1000;
      const prefillJ = priced.prefillEnergyJ(prefill, point) - (parkedW * priced.prefillTimeMs(prefill, point)) / 1000;
      return prefillJ + (outputTokensMean / sequences) * stepJ;
    },
    firstTokenMs(perMs) {
      const busyShare = perMs * prefillMs;
      if (busyShare >= 1) return Number.POSITIVE_INFINITY;
      // One server, prefills of about one length: the Pollaczek–Khinchine mean, and as if the wait were exponential.
      const waitMs = (busyShare * prefillMs) / (2 * (1 - busyShare));
      return baseMs + prefillMs + WAIT_MEANS * waitMs;
    },
  };
}
