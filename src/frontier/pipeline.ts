// Stages of a pipeline, each on devices of its own: micro-batches go through all of them, the slowest stage sets the pace, and the others need be no faster.
import { type Frontier, type FrontierPoint, FRONTIER_POINTS_MAX, paretoFrontier, sequence, thin } from './frontier.ts';

/** What each stage keeps of its compositions at one pace: the work grows with it, and beyond it the curve is thinned. */
const POINTS_AT_A_PACE_MAX = 512;

/**
 * `stages`: the ways to do one micro-batch at each stage, in order. `idlePowerW`: what a stage's devices draw while they wait. The frontier of all
 * `microBatches`, fill and drain included; its choice is one way for each stage, the same for all micro-batches.
 *
 * M equal micro-batches through stages that take t₁ … tₛ are done after Σ tᵢ + (M − 1) · max tᵢ (Kogge, The Architecture of Pipelined Computers, 1981, chapter 2;
 * of equal stages GPipe's M + S − 1 turns, NeurIPS 2019), and a stage waits for all of that but M · tᵢ. At each pace that a stage can set, the others take
 * any way that keeps it: of those every efficient sum is found, as long as no more than 512 are efficient at one pace; beyond, `thin` gives some away.
 * Throws `RangeError` for a number of micro-batches that is none.
 */
export function pipeline<Choice>(stages: readonly (readonly FrontierPoint<Choice>[])[], { microBatches, idlePowerW, pointsMax = FRONTIER_POINTS_MAX }: { readonly microBatches: number; readonly idlePowerW: (stage: number) => number; readonly pointsMax?: number }): Frontier<readonly Choice[]> {
  if (!Number.isInteger(microBatches) || microBatches < 1) throw new RangeError(`got ${microBatches} micro-batches, want a whole number, 1 or more`);
  if (stages.length === 0) return [{ timeMs: 0, energyJ: 0, choice: [] }];
  const idleW = stages.reduce((sum, _, stage) => sum + idlePowerW(stage), 0);
  // Above what waiting takes anyway: all wait for as long as the whole takes, and do this instead for a part of it.
  const above = stages.map((points, stage) => points.map(({ timeMs, energyJ, choice }) => ({ timeMs, energyJ: microBatches * (energyJ - (idlePowerW(stage) * timeMs) / 1000), choice })));
  const paces = new Set(stages.flatMap((points) => points.map(({ timeMs }) => timeMs)));
  const candidates: FrontierPoint<readonly Choice[]>[] = [];
  for (const paceMs of paces) {
    const inPace = above.map((points) => paretoFrontier(points.filter(({ timeMs }) => timeMs <= paceMs)));
    if (inPace.some((points) => points.length === 0)) continue;
    for (const { timeMs, energyJ, choice } of sequence(inPace, POINTS_AT_A_PACE_MAX)) {
      // Those that are all faster than this pace are found again at their own, sooner and for less waiting.
      const wholeMs = timeMs + (microBatches - 1) * paceMs;
      candidates.push({ timeMs: wholeMs, energyJ: energyJ + (idleW * wholeMs) / 1000, choice });
    }
  }
  return thin(paretoFrontier(candidates), pointsMax);
}
