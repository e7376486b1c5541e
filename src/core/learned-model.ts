// A performance model that nobody measured, learnt while serving. Times are fitted to what is seen; of a point that was not seen yet
// it says no better than the starting profile allows, which is by how much it is slower at most: so a slower point is only ever
// planned where deadlines hold if it is as slow as it can be, and what it takes in truth is known as soon as it was tried.
import { createPerformanceModel, type IterationWork, type PerformanceModel, type PointIndex } from '../frontier/performance-model.ts';
import { nonNegativeLeastSquares } from '../frontier/least-squares.ts';
import type { DecodeWork, Phase, PrefillWork, Profile } from '../frontier/profile.ts';

export interface PrefillSample {
  readonly point: PointIndex;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  /** What decoded beside it. */
  readonly decode: DecodeWork;
  readonly tookMs: number;
}

export interface DecodeSample {
  readonly point: PointIndex;
  readonly decode: DecodeWork;
  readonly stepMs: number;
}

export interface LearnedModel {
  /** It changes as it learns; its points and their order stay. */
  readonly model: PerformanceModel;
  prefillSeen(sample: PrefillSample): void;
  decodeSeen(sample: DecodeSample): void;
  /** Samples of a point, of late. */
  samplesAt(phase: Phase, point: PointIndex): number;
  /** Enough was seen for points other than the fastest to be planned at all. */
  isWarm(): boolean;
}

/** Work of one kind at one point: the means of its features and times, of about the last `memory` samples. */
interface Cell {
  readonly point: PointIndex;
  samples: number;
  /** Samples of the phase by its last one. */
  seenAt: number;
  readonly features: [number, number, number];
  timeMs: number;
}

/** Before so many samples nothing is planned but the fastest point; then others with so much to spare, which shrinks as samples come in. */
const WARM = { prefill: 12, decode: 40, caution: 0.3 };
/** A cell counts half after so many samples of its phase that were not its own. */
const CELL = { memory: 30, weightMax: 8, halfLife: 150 };
/** What is seen of a point may be a little beyond its bound, for noise; not more, or all else could be called fast in turn. */
const BEYOND_BOUND = 1.05;
/** Of a sample against what is believed, once something is; what is beyond is no measurement. */
const OUTLIER = 3;
/** A point's own samples against the word of its neighbours. */
const POINT_BELIEF = 3;
/** What is not seen yet: how much slower for energy's sake, as the power of how much slower at most. */
const EXPECTED_SLOWDOWN = { start: 0.6, min: 0.2, max: 1 };
/** Where a phase has seen but little, the rest has these proportions, on the cautious side of public models: of a step, 1.5 % for each further stream; of a prompt, 60 tokens' time for being one. */
const SHAPE: Readonly<Record<Phase, { readonly fit: readonly [number, number, number]; readonly at: readonly (readonly [number, number, number])[]; readonly weight: number }>> = {
  prefill: { fit: [60, 1, 4e-5], at: [[1, 64, 64 * 32], [1, 1024, 1024 * 512], [1, 8192, 8192 * 4096]], weight: 0.3 },
  decode: { fit: [1, 0.01, 1e-5], at: [[1, 1, 512], [1, 16, 16_384], [1, 128, 131_072]], weight: 0.3 },
};
/** Not planned at all. */
const FORBIDDEN = 1e4;

export function createLearnedModel(starting: Profile): LearnedModel {
  const prior = createPerformanceModel(starting);
  const { points, fastest, bySlowness, launchOverheadMs } = { ...prior, launchOverheadMs: starting.launchOverheadMs };
  const bySpeed = bySlowness.toReversed();
  /** How much slower than the fastest a point is at most. */
  const bound: Readonly<Record<Phase, readonly number[]>> = {
    prefill: points.map((_, point) => prior.prefillTimeMs(TYPICAL.prefill, point) / prior.prefillTimeMs(TYPICAL.prefill, fastest)),
    decode: points.map((_, point) => prior.decodeTimeMs(TYPICAL.decode, point) / prior.decodeTimeMs(TYPICAL.decode, fastest)),
  };
  const phases: Readonly<Record<Phase, PhaseFit>> = {
    prefill: createPhaseFit('prefill', bySpeed, bound.prefill, fitOf(prior, 'prefill')),
    decode: createPhaseFit('decode', bySpeed, bound.decode, fitOf(prior, 'decode')),
  };

  function isWarm(): boolean {
    return phases.prefill.samples() >= WARM.prefill && phases.decode.samples() >= WARM.decode;
  }

  /** For deadlines' sake: of an unseen point what it is at most. */
  function slowerAt(phase: Phase, point: PointIndex): number {
    if (point === fastest) return 1;
    return isWarm() ? (phases[phase].slower[point] as number) * (1 + (WARM.caution * WARM[phase]) / phases[phase].samples()) : FORBIDDEN;
  }

  function expectedAt(phase: Phase, point: PointIndex): number {
    // Dearer than it is slow, so that it is not planned where nothing has a deadline either.
    return point === fastest ? 1 : isWarm() ? (phases[phase].expected[point] as number) : FORBIDDEN ** 2;
  }

  function prefillBaseMs({ tokens, contextTokens }: PrefillWork): number {
    if (tokens <= 0) return 0;
    const { fit } = phases.prefill;
    return fit[0] + fit[1] * tokens + fit[2] * tokens * (tokens / 2 + contextTokens);
  }
  function decodeBaseMs({ sequences, contextTokens }: DecodeWork): number {
    if (sequences <= 0) return 0;
    const { fit } = phases.decode;
    return fit[0] + fit[1] * sequences + fit[2] * contextTokens;
  }
  const prefillTimeMs = (work: PrefillWork, point: PointIndex): number => prefillBaseMs(work) * slowerAt('prefill', point);
  const decodeTimeMs = (work: DecodeWork, point: PointIndex): number => decodeBaseMs(work) * slowerAt('decode', point);
  const passMs = (point: PointIndex): number => phases.decode.fit[0] * slowerAt('decode', point);
  function sharedTimeMs(work: IterationWork, point: PointIndex): number {
    return work.prefill.tokens <= 0 || work.decode.sequences <= 0 ? 0 : Math.min(prefillTimeMs(work.prefill, point), passMs(point));
  }
  /** Power as the starting profile has it; how far that is off the energy corrections know. */
  function prefillEnergyJ(work: PrefillWork, point: PointIndex): number {
    if (work.tokens <= 0) return 0;
    const powerW = prior.prefillEnergyJ(work, point) / prior.prefillTimeMs(work, point);
    return prefillBaseMs(work) * expectedAt('prefill', point) * powerW;
  }
  function decodeEnergyJ(work: DecodeWork, point: PointIndex): number {
    if (work.sequences <= 0) return 0;
    const powerW = prior.decodeEnergyJ(work, point) / prior.decodeTimeMs(work, point);
    return decodeBaseMs(work) * expectedAt('decode', point) * powerW;
  }
  function iterationTimeMs(work: IterationWork, point: PointIndex): number {
    const timeMs = prefillTimeMs(work.prefill, point) + decodeTimeMs(work.decode, point) - sharedTimeMs(work, point);
    return timeMs > 0 ? timeMs + launchOverheadMs : 0;
  }
  function iterationEnergyJ(work: IterationWork, point: PointIndex): number {
    const [prefillJ, decodeJ] = [prefillEnergyJ(work.prefill, point), decodeEnergyJ(work.decode, point)];
    const sharedMs = sharedTimeMs(work, point);
    const sharedJ = sharedMs > 0 ? sharedMs * Math.min(prefillJ / prefillTimeMs(work.prefill, point), decodeJ / decodeTimeMs(work.decode, point)) : 0;
    return prefillJ + decodeJ - sharedJ;
  }

  return {
    model: { ...prior, prefillTimeMs, decodeTimeMs, prefillEnergyJ, decodeEnergyJ, iterationTimeMs, iterationEnergyJ },
    isWarm,
    samplesAt: (phase, point) => phases[phase].samplesAt(point),
    prefillSeen({ point, promptTokens, cachedTokens, decode, tookMs }) {
      const { maxBatchTokens } = starting.serving;
      const features: [number, number, number] = [0, 0, 0];
      for (let from = cachedTokens; from < promptTokens; from += maxBatchTokens) {
        const tokens = Math.min(maxBatchTokens, promptTokens - from);
        features[0] += 1;
        features[1] += tokens;
        features[2] += tokens * (tokens / 2 + from);
      }
      // Streams beside it take their part of each iteration, but for the pass over the weights, which is paid once.
      if (decode.sequences > 0 && phases.decode.samples() < WARM.decode) return;
      const besideMs = decode.sequences > 0 ? features[0] * (decodeBaseMs(decode) - phases.decode.fit[0]) * phases.decode.known(point) : 0;
      if (features[0] === 0 || tookMs - besideMs < 0.2 * tookMs) return;
      phases.prefill.observe(point, features, tookMs - besideMs);
    },
    decodeSeen: ({ point, decode, stepMs }) => phases.decode.observe(point, [1, decode.sequences, decode.contextTokens], stepMs - launchOverheadMs),
  };
}

const TYPICAL = { prefill: { tokens: 1024, contextTokens: 0 }, decode: { sequences: 16, contextTokens: 16_384 } };

interface PhaseFit {
  /** Of the fastest point, in place. */
  readonly fit: [number, number, number];
  /** Times over those of the fastest point: at most, and for all we know. */
  readonly slower: Float64Array;
  readonly expected: Float64Array;
  /** At a point where something runs, for all we know. */
  known(point: PointIndex): number;
  samples(): number;
  samplesAt(point: PointIndex): number;
  observe(point: PointIndex, features: readonly [number, number, number], timeMs: number): void;
}

function createPhaseFit(phase: Phase, bySpeed: readonly PointIndex[], bound: readonly number[], start: readonly [number, number, number]): PhaseFit {
  /** Bounded by the points and the octaves of the work's size. */
  const cells = new Map<string, Cell>();
  const fit: [number, number, number] = [...start];
  const slower = Float64Array.from(bound);
  const expected = Float64Array.from(bound, (most) => most ** EXPECTED_SLOWDOWN.start);
  const weights = new Float64Array(bound.length);
  let samples = 0;

  function predicted(features: readonly [number, number, number]): number {
    return fit[0] * features[0] + fit[1] * features[1] + fit[2] * features[2];
  }

  function observe(point: PointIndex, features: readonly [number, number, number], timeMs: number): void {
    if (!(timeMs > 0)) return;
    const believedMs = predicted(features) * (expected[point] as number);
    if (samples >= WARM[phase] && (timeMs > OUTLIER * believedMs || timeMs * OUTLIER < believedMs)) return;
    samples += 1;
    const key = `${point} ${Math.floor(2 * Math.log2(features[1]))}`;
    const cell = cells.get(key) ?? { point, samples: 0, seenAt: samples, features: [0, 0, 0], timeMs: 0 };
    cells.set(key, cell);
    cell.samples = Math.min(CELL.memory, cell.samples + 1);
    cell.seenAt = samples;
    for (const index of [0, 1, 2] as const) cell.features[index] += (features[index] - cell.features[index]) / cell.samples;
    cell.timeMs += (timeMs - cell.timeMs) / cell.samples;
    if (samples > 64 && samples % 8 !== 0) return;
    for (let round = 0; round < 2; round++) {
      fitFastest();
      compare();
    }
  }

  function weightOf(cell: Cell): number {
    return Math.min(CELL.weightMax, cell.samples) * 0.5 ** ((samples - cell.seenAt) / CELL.halfLife);
  }

  /** From the cells of all points, each as if it had been at the fastest. */
  function fitFastest(): void {
    const shape = SHAPE[phase];
    const shaped = (features: readonly [number, number, number]): number => shape.fit[0] * features[0] + shape.fit[1] * features[1] + shape.fit[2] * features[2];
    const rows: number[][] = [];
    const targets: number[] = [];
    let [sum, weight] = [0, 0];
    for (const cell of cells.values()) {
      const timeMs = cell.timeMs / known(cell.point);
      const counts = Math.sqrt(weightOf(cell));
      rows.push(cell.features.map((feature) => (counts * feature) / timeMs));
      targets.push(counts);
      sum += counts * Math.log(timeMs / shaped(cell.features));
      weight += counts;
    }
    const scale = Math.exp(sum / weight);
    for (const features of shape.at) {
      const counts = Math.sqrt(shape.weight);
      rows.push(features.map((feature) => (counts * feature) / (scale * shaped(features))));
      targets.push(counts);
    }
    const [first = 0, second = 0, third = 0] = nonNegativeLeastSquares(rows, targets);
    fit[0] = first;
    fit[1] = second;
    fit[2] = third;
  }

  /** How much slower each point is, the fastest first: by its own samples, or at most by as much more than the next faster one as the bounds are apart. */
  function compare(): void {
    const sums = new Float64Array(bound.length);
    weights.fill(0);
    for (const cell of cells.values()) {
      const counts = weightOf(cell);
      sums[cell.point] = (sums[cell.point] as number) + (counts * cell.timeMs) / predicted(cell.features);
      weights[cell.point] = (weights[cell.point] as number) + counts;
    }
    let [before, exponent] = [bySpeed[0] as PointIndex, EXPECTED_SLOWDOWN.start];
    for (const point of bySpeed.slice(1)) {
      const apart = (bound[point] as number) / (bound[before] as number);
      const weight = weights[point] as number;
      const seen = weight === 0 ? 0 : (sums[point] as number) / weight;
      const blended = (neighbour: number): number => (weight * seen + POINT_BELIEF * neighbour) / (weight + POINT_BELIEF);
      const most = BEYOND_BOUND * (bound[point] as number);
      slower[point] = Math.min(most, Math.max(1, blended((slower[before] as number) * apart)));
      expected[point] = Math.min(most, Math.max(1, blended((expected[before] as number) * apart ** exponent)));
      if (weight >= POINT_BELIEF && (bound[point] as number) > 1.01) {
        exponent = Math.min(EXPECTED_SLOWDOWN.max, Math.max(EXPECTED_SLOWDOWN.min, Math.log(expected[point] as number) / Math.log(bound[point] as number)));
      }
      before = point;
    }
    ordered(slower);
    ordered(expected);
  }

  /** No point is slower than a slower one that was seen, nor faster than a faster one. */
  function ordered(ratios: Float64Array): void {
    let mostRatio = Number.POSITIVE_INFINITY;
    for (const point of bySpeed.slice(1).toReversed()) {
      if ((weights[point] as number) >= POINT_BELIEF) mostRatio = ratios[point] as number;
      else ratios[point] = Math.min(mostRatio, ratios[point] as number);
    }
    let leastRatio = 1;
    for (const point of bySpeed.slice(1)) {
      leastRatio = Math.max(leastRatio, ratios[point] as number);
      ratios[point] = leastRatio;
    }
  }

  function known(point: PointIndex): number {
    return expected[point] as number;
  }

  slower[bySpeed[0] as PointIndex] = 1;
  expected[bySpeed[0] as PointIndex] = 1;
  return { fit, slower, expected, known, samples: () => samples, samplesAt: (point) => weights[point] as number, observe };
}

/** The starting profile's own at its fastest point, from three works each. */
function fitOf(prior: PerformanceModel, phase: Phase): [number, number, number] {
  const { fastest } = prior;
  if (phase === 'decode') {
    const at = (sequences: number, contextTokens: number): number => prior.decodeTimeMs({ sequences, contextTokens }, fastest);
    const perSequenceMs = at(2, 0) - at(1, 0);
    return [at(1, 0) - perSequenceMs, perSequenceMs, (at(1, 1000) - at(1, 0)) / 1000];
  }
  const at = (tokens: number, contextTokens: number): number => prior.prefillTimeMs({ tokens, contextTokens }, fastest);
  const perPairMs = (at(1, 1000) - at(1, 0)) / 1000;
  const perTokenMs = at(2, 0) - at(1, 0) - 1.5 * perPairMs;
  return [at(1, 0) - perTokenMs - perPairMs / 2, perTokenMs, perPairMs];
}
