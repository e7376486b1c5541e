// How many jobs should a replica be sent at once? As many as its profile says still pay: until its memory would be full and it began to
// throw out what it had begun, its steps would be too slow for what is wanted, or a token would take more energy again.
import { NO_PREFILL, type PerformanceModel } from '../frontier/performance-model.ts';
import type { PointScale, Pricing } from './corrections.ts';
import type { LoadShape } from './point-rate.ts';

/** Of its memory for context; contexts grow while streams run, and not all are of the mean size. */
const KV_SHARE = 0.9;

/** Streams have prefills beside them: their steps alone are to take no more than this share of what a token may. */
const TPOT_SHARE = 0.9;

/** A token that takes so much more energy than at a smaller batch is dearer; less is within what profiles are measured to. */
const DEARER = 1.01;

/**
 * The most sequences at which contexts of the load's mean size fit into memory, a step at the fastest point keeps the TPOT, and energy per
 * token at no point that keeps it has risen by more than 1 % from its least; at least 1, at most `sequencesMax`. O(points × log² sequences).
 */
export function plannedBatchCap(model: PerformanceModel, load: LoadShape, learnt: { readonly timeScale: PointScale; readonly priced: Pricing }, sequencesMax: number): number {
  const contextEach = Math.max(1, load.promptTokensMean + load.outputTokensMean / 2);
  const { maxSequences, kvTokens } = model.profile.serving;
  const byMemory = Math.floor((KV_SHARE * kvTokens) / contextEach);
  const most = Math.min(sequencesMax, maxSequences, byMemory);
  const stepMs = (sequences: number, point: number): number =>
    model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences, contextTokens: sequences * contextEach } }, point) * (learnt.timeScale.decode[point] as number);
  const keeps = (sequences: number, point: number): boolean => stepMs(sequences, point) <= TPOT_SHARE * load.tpotMs;
  let byTpot = most;
  if (!keeps(byTpot, model.fastest)) byTpot = lastThat(most, (sequences) => keeps(sequences, model.fastest));
  const tokenJ = (sequences: number): number => {
    const decode = { sequences, contextTokens: sequences * contextEach };
    let leastJ = learnt.priced.decodeEnergyJ(decode, model.fastest);
    for (let point = 0; point < model.points.length; point++) if (keeps(sequences, point)) leastJ = Math.min(leastJ, learnt.priced.decodeEnergyJ(decode, point));
    return leastJ / sequences;
  };
  let cap = 1;
  let leastJ = tokenJ(1);
  for (const sequences of sizesUpTo(byTpot)) {
    const eachJ = tokenJ(sequences);
    if (eachJ > DEARER * leastJ) break;
    cap = sequences;
    leastJ = Math.min(leastJ, eachJ);
  }
  return Math.max(1, Math.min(cap, most));
}

/** The largest of 1 to `most` that holds, which all below it do; 1 where none does. */
function lastThat(most: number, holds: (value: number) => boolean): number {
  let [low, high] = [1, Math.max(1, most)];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (holds(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** A quarter of an octave apart, the last one among them. */
function sizesUpTo(most: number): readonly number[] {
  const sizes = new Set<number>();
  for (let size = 1; size < most; size *= 2 ** 0.25) sizes.add(Math.round(size));
  return [...sizes, Math.max(1, most)];
}
