// What gateways of one fleet learn of the same replicas and models, and how much the word of others counts beside one's own
// eyes. What others say is bounded like what is seen here, so the worst that a wrong one does is a wrong correction for a while.
import type { ReplicaId } from './job.ts';

/** A mean, and how many samples it is of. */
export interface Learnt {
  readonly value: number;
  readonly samples: number;
}

export interface Learning {
  /** Real times as multiples of the profile's. */
  readonly timeScales: ReadonlyMap<ReplicaId, { readonly prefill: Learnt; readonly decode: Learnt }>;
  /** By model. */
  readonly bytesPerToken: ReadonlyMap<string, Learnt>;
}

/** A correction learns within bounds: beyond them the profile is of another machine. */
export const TIME_SCALE_BOUNDS = { min: 0.5, max: 2 };
/** Bytes per token outside of this are a mistake of the counting (a template, a hidden prompt), not a language. */
export const BYTES_PER_TOKEN_BOUNDS = { min: 0.5, max: 16 };

/** What one gateway's word counts at most: its means forget what is older. */
export const SAMPLES_MAX = 20;
/** All others together, beside samples of one's own. */
export const OTHERS_SAMPLES_MAX = 10;
export const NOTHING_LEARNT: Learnt = { value: 1, samples: 0 };

/** The mean over several who have seen different things. */
export function together(each: Iterable<Learnt>): Learnt {
  let [sum, samples] = [0, 0];
  for (const learnt of each) {
    const weight = Math.min(SAMPLES_MAX, learnt.samples);
    sum += weight * learnt.value;
    samples += weight;
  }
  return samples === 0 ? NOTHING_LEARNT : { value: sum / samples, samples };
}

/** One's own samples count in full; those of others as far as they are more, up to a bound: the longer one looks, the less they say. */
export function blended(own: Learnt, others: Learnt): number {
  const weight = Math.min(OTHERS_SAMPLES_MAX, Math.max(0, others.samples - own.samples));
  return weight === 0 ? own.value : (own.samples * own.value + weight * others.value) / (own.samples + weight);
}
