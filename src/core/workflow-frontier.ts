// What a deadline of a whole workflow costs: the least energy as a function of the time that it may take, and what holds it up at each.
import assert from 'node:assert/strict';
import { type Allotment, createSlackAllotment, lowerHull, topologicalOrder, type TradeOffPoint } from './slack-allotment.ts';

export interface WorkflowFrontier {
  /** The fastest first: bends of a convex function, between which energy falls evenly. */
  readonly points: readonly TradeOffPoint[];
  /** There are more bends: between two of these points a little less energy would do than the line says, at most `missingJ`. */
  readonly thinned: boolean;
  readonly missingJ: number;
}

export interface Timing {
  /** As soon as all that it needs has ended. */
  readonly startAtMs: number;
  readonly endAtMs: number;
  /** So much later it may end, and nothing behind it or the whole is later. */
  readonly floatMs: number;
}

/** A plot and a table of it are read by people. */
export const WORKFLOW_FRONTIER_POINTS_MAX = 200;
/** Two energies that differ by less of themselves are one but for rounding. */
const SAME_ENERGY = 1e-9;
const SAME_TIME_MS = 1e-6;

interface Solved extends TradeOffPoint {
  /** What a millisecond more saves there. */
  readonly priceJPerMs: number;
}

/** A stretch of the deadline between two solutions, and where the curve may bend in between: below both their tangents it never is. */
interface Gap {
  readonly fast: Solved;
  readonly slow: Solved;
  readonly bendMs: number;
  /** From the tangents' crossing up to the line between both: the curve is in between. */
  readonly missingJ: number;
}

/**
 * Every bend of the least energy within a deadline, from the fastest that the workflow can be to where all of it is at its least; where there are more than
 * `pointsMax`, those that the curve is best drawn by. Each step solves for the deadline at which the tangents of two neighbours cross: the curve bends
 * there, or has a part between them that was not known (Eisner and Severance, Journal of the ACM 23, 1976). Throws as `createSlackAllotment` does.
 */
export function workflowFrontier({ frontiers, edges, pointsMax = WORKFLOW_FRONTIER_POINTS_MAX }: { readonly frontiers: readonly (readonly TradeOffPoint[])[]; readonly edges: readonly (readonly [before: number, after: number])[]; readonly pointsMax?: number }): WorkflowFrontier {
  const hulls = frontiers.map(lowerHull);
  const allotment = createSlackAllotment({ frontiers, edges, deadlineMs: 0 });
  const spanMs = (timeOf: (hull: readonly TradeOffPoint[]) => number): number => longestMs(hulls.map(timeOf), edges);
  const solveWithin = (deadlineMs: number): Allotment => {
    allotment.setDeadline(deadlineMs);
    return allotment.solve();
  };
  const solveAt = (timeMs: number): Solved => {
    // A little more, so that rounding does not make the fastest infeasible; of times so long that this is nothing, what it says that it takes.
    let solved = solveWithin(timeMs + SAME_TIME_MS / 10);
    if (solved.kind === 'infeasible') solved = solveWithin(solved.fastestMs);
    assert(solved.kind === 'meets', 'what a workflow takes at its fastest is enough for it');
    return { timeMs, energyJ: solved.energyJ, priceJPerMs: allotment.marginalJPerMs() };
  };
  const fastest = solveAt(spanMs((hull) => hull[0]?.timeMs ?? 0));
  const slowest = { ...solveAt(spanMs((hull) => hull.at(-1)?.timeMs ?? 0)), priceJPerMs: 0 };
  if (slowest.timeMs - fastest.timeMs < SAME_TIME_MS) return { points: [{ timeMs: slowest.timeMs, energyJ: slowest.energyJ }], thinned: false, missingJ: 0 };
  const solved: Solved[] = [fastest, slowest];
  // The widest gap first: what is left out where there are too many bends are the smallest.
  let gaps: Gap[] = [gapOf(fastest, slowest)];
  while (gaps.length > 0 && solved.length < pointsMax) {
    const widest = gaps.reduce((a, b) => (b.missingJ > a.missingJ ? b : a));
    gaps = gaps.filter((gap) => gap !== widest);
    const middle = solveAt(widest.bendMs);
    solved.push(middle);
    const floorJ = widest.fast.energyJ - widest.fast.priceJPerMs * (widest.bendMs - widest.fast.timeMs);
    if (middle.energyJ - floorJ <= SAME_ENERGY * Math.max(1, middle.energyJ)) continue;
    gaps.push(...[gapOf(widest.fast, middle), gapOf(middle, widest.slow)].filter((gap) => gap.missingJ > SAME_ENERGY * Math.max(1, fastest.energyJ) && gap.bendMs - gap.fast.timeMs > SAME_TIME_MS && gap.slow.timeMs - gap.bendMs > SAME_TIME_MS));
  }
  return { points: bendsOf(solved), thinned: gaps.length > 0, missingJ: Math.max(0, ...gaps.map(({ missingJ }) => missingJ)) };
}

function gapOf(fast: Solved, slow: Solved): Gap {
  const lengthMs = slow.timeMs - fast.timeMs;
  const fellJ = fast.energyJ - slow.energyJ;
  const steeper = fast.priceJPerMs - slow.priceJPerMs;
  // From the fast one down its tangent, until that of the slow one is met.
  const bendMs = steeper <= 0 ? fast.timeMs : fast.timeMs + Math.min(lengthMs, Math.max(0, (fellJ - slow.priceJPerMs * lengthMs) / steeper));
  const lineJ = fast.energyJ - (fellJ * (bendMs - fast.timeMs)) / lengthMs;
  return { fast, slow, bendMs, missingJ: lineJ - (fast.energyJ - fast.priceJPerMs * (bendMs - fast.timeMs)) };
}

/** Without those that lie on the line between their neighbours. */
function bendsOf(solved: readonly Solved[]): TradeOffPoint[] {
  const bends: TradeOffPoint[] = [];
  for (const { timeMs, energyJ } of solved.toSorted((a, b) => a.timeMs - b.timeMs)) {
    for (let size = bends.length; size >= 2; size = bends.length) {
      const [before, middle] = [bends[size - 2] as TradeOffPoint, bends[size - 1] as TradeOffPoint];
      const lineJ = before.energyJ - ((before.energyJ - energyJ) * (middle.timeMs - before.timeMs)) / (timeMs - before.timeMs);
      if (lineJ - middle.energyJ > SAME_ENERGY * Math.max(1, middle.energyJ)) break;
      bends.pop();
    }
    bends.push({ timeMs, energyJ });
  }
  return bends;
}

/** Of the path that takes longest. */
export function longestMs(timesMs: readonly number[], edges: readonly (readonly [before: number, after: number])[]): number {
  return timingsOf(timesMs, edges).reduce((most, { endAtMs }) => Math.max(most, endAtMs), 0);
}

/** Of nodes that take so long, each begun as soon as it can be. */
export function timingsOf(timesMs: readonly number[], edges: readonly (readonly [before: number, after: number])[]): Timing[] {
  const order = topologicalOrder(timesMs.length, edges);
  const after: number[][] = timesMs.map(() => []);
  for (const [node, behind] of edges) (after[node] as number[]).push(behind);
  const startsAtMs = new Float64Array(timesMs.length);
  const endOf = (node: number): number => (startsAtMs[node] as number) + (timesMs[node] as number);
  let wholeMs = 0;
  for (const node of order) {
    for (const behind of after[node] as number[]) startsAtMs[behind] = Math.max(startsAtMs[behind] as number, endOf(node));
    wholeMs = Math.max(wholeMs, endOf(node));
  }
  const latestEndMs = new Float64Array(timesMs.length).fill(wholeMs);
  for (const node of order.toReversed()) for (const behind of after[node] as number[]) latestEndMs[node] = Math.min(latestEndMs[node] as number, (latestEndMs[behind] as number) - (timesMs[behind] as number));
  return timesMs.map((_, node) => ({ startAtMs: startsAtMs[node] as number, endAtMs: endOf(node), floatMs: Math.max(0, (latestEndMs[node] as number) - endOf(node)) }));
}
