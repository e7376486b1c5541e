// The narrow waist: Pareto-efficient (time, energy) points of a piece of ML computation, each with the choice that
// induces it, and how frontiers of parts make the frontier of a whole. Nothing here knows what a knob or a deadline is for.

/** One way to do a piece of work. `choice` is whatever induces it: an operating point's index, or one per part of a composition. */
export interface FrontierPoint<Choice> {
  readonly timeMs: number;
  readonly energyJ: number;
  readonly choice: Choice;
}

/** Time strictly rises and energy strictly falls along it; empty only where there was no candidate. */
export type Frontier<Choice> = readonly FrontierPoint<Choice>[];

/** An answer that may be "no": the fastest point is then named as such, never offered as a plan. */
export type FrontierChoice<Choice> =
  | { readonly kind: 'meets'; readonly point: FrontierPoint<Choice> }
  | { readonly kind: 'infeasible'; readonly fastest: FrontierPoint<Choice> | null };

/**
 * Points that a composition keeps. A sequence of n parts with m points each has up to mⁿ efficient points; this many draw
 * a smooth curve for people and cost a planner little. Beyond it the curve is thinned (see `thin`), never extrapolated.
 */
export const FRONTIER_POINTS_MAX = 4096;

/** The candidates that no other candidate beats on both time and energy. Of equal ones the first stays. */
export function paretoFrontier<Choice>(candidates: Iterable<FrontierPoint<Choice>>): Frontier<Choice> {
  const sorted = [...candidates].sort((a, b) => a.timeMs - b.timeMs || a.energyJ - b.energyJ);
  const frontier: FrontierPoint<Choice>[] = [];
  let leastJ = Number.POSITIVE_INFINITY;
  for (const candidate of sorted) {
    if (candidate.energyJ < leastJ) {
      frontier.push(candidate);
      leastJ = candidate.energyJ;
    }
  }
  return frontier;
}

/** The least energy within `limitMs`: the slowest efficient point that is in time. O(log n). */
export function cheapestWithin<Choice>(frontier: Frontier<Choice>, limitMs: number): FrontierChoice<Choice> {
  let low = 0;
  let high = frontier.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((frontier[middle] as FrontierPoint<Choice>).timeMs <= limitMs) low = middle + 1;
    else high = middle;
  }
  const point = frontier[low - 1];
  return point === undefined ? { kind: 'infeasible', fastest: frontier[0] ?? null } : { kind: 'meets', point };
}

/**
 * The same candidates with what is burnt in waiting for the horizon added: a device that finishes early still idles, at
 * `idlePowerW` of the choice it waits at. Candidates that take longer than the horizon get nothing added. Energy that
 * would be burnt anyway is so no saving (Perseus, SOSP'24, section 4.1, subtracts the same power of waiting).
 */
export function withIdleUntil<Choice>(candidates: Iterable<FrontierPoint<Choice>>, horizonMs: number, idlePowerW: (choice: Choice) => number): FrontierPoint<Choice>[] {
  return Array.from(candidates, (candidate) => ({
    ...candidate,
    energyJ: candidate.energyJ + (Math.max(0, horizonMs - candidate.timeMs) * idlePowerW(candidate.choice)) / 1000,
  }));
}

/**
 * One part after the other: times and energies add. The choice of the whole is the list of the parts' choices, in order.
 * Dominated beginnings are dropped on the way, which loses nothing: whatever follows adds the same to both. Exact while no
 * part of the whole has more than `pointsMax` efficient points; beyond, each part gives away what `thin` says.
 */
export function sequence<Choice>(parts: readonly Frontier<Choice>[], pointsMax = FRONTIER_POINTS_MAX): Frontier<readonly Choice[]> {
  let whole: Frontier<readonly Choice[]> = [{ timeMs: 0, energyJ: 0, choice: [] }];
  for (const part of parts) {
    const sums: FrontierPoint<readonly Choice[]>[] = [];
    for (const begun of whole) {
      for (const next of part) {
        sums.push({ timeMs: begun.timeMs + next.timeMs, energyJ: begun.energyJ + next.energyJ, choice: [...begun.choice, next.choice] });
      }
    }
    whole = thin(paretoFrontier(sums), pointsMax);
  }
  return whole;
}

/** One after the other on one device group whose knobs stay put: point by point, the parts' times and energies add. */
export function sequenceAtOnePoint<Choice>(parts: readonly (readonly FrontierPoint<Choice>[])[]): FrontierPoint<Choice>[] {
  const [first = [], ...others] = parts;
  return first.flatMap((point, index) => {
    const sum = { timeMs: point.timeMs, energyJ: point.energyJ };
    for (const part of others) {
      const other = part[index];
      if (other === undefined) return [];
      sum.timeMs += other.timeMs;
      sum.energyJ += other.energyJ;
    }
    return [{ ...sum, choice: point.choice }];
  });
}

/**
 * All parts at once on device groups of their own: the slowest counts, and who is done waits at `idlePowerW` of its choice.
 * For each time T that a part can take, every part takes its cheapest choice within T, waiting included; choices that
 * leave T unused are covered by a smaller T, so this finds every efficient composition in O(times × points).
 */
export function parallel<Choice>(parts: readonly (readonly FrontierPoint<Choice>[])[], idlePowerW: (choice: Choice, part: number) => number, pointsMax = FRONTIER_POINTS_MAX): Frontier<readonly Choice[]> {
  if (parts.length === 0) return [{ timeMs: 0, energyJ: 0, choice: [] }];
  const times = [...new Set(parts.flatMap((part) => part.map((point) => point.timeMs)))].sort((a, b) => a - b);
  // In order of time, so that each T only adds to what is in time already.
  const ordered = parts.map((part) => part.toSorted((a, b) => a.timeMs - b.timeMs));
  const begun = parts.map(() => 0);
  const candidates: FrontierPoint<readonly Choice[]>[] = [];
  const open: FrontierPoint<Choice>[][] = parts.map(() => []);
  for (const timeMs of times) {
    let energyJ = 0;
    const choice: Choice[] = [];
    for (const [part, points] of ordered.entries()) {
      const inTime = open[part] as FrontierPoint<Choice>[];
      while ((begun[part] as number) < points.length && (points[begun[part] as number] as FrontierPoint<Choice>).timeMs <= timeMs) {
        inTime.push(points[begun[part] as number] as FrontierPoint<Choice>);
        begun[part] = (begun[part] as number) + 1;
      }
      let best: { energyJ: number; choice: Choice } | null = null;
      for (const point of inTime) {
        const waitedJ = point.energyJ + ((timeMs - point.timeMs) * idlePowerW(point.choice, part)) / 1000;
        if (best === null || waitedJ < best.energyJ) best = { energyJ: waitedJ, choice: point.choice };
      }
      if (best === null) break;
      energyJ += best.energyJ;
      choice.push(best.choice);
    }
    if (choice.length === parts.length) candidates.push({ timeMs, energyJ, choice });
  }
  return thin(paretoFrontier(candidates), pointsMax);
}

/**
 * At most `pointsMax` of the points, both ends kept, evenly by index. What is left is still efficient and real; a limit
 * between two kept points is met by the faster of them, so at most one gap's worth of energy is given away.
 */
export function thin<Choice>(frontier: Frontier<Choice>, pointsMax: number): Frontier<Choice> {
  if (frontier.length <= pointsMax) return frontier;
  if (pointsMax < 2) return frontier.slice(0, Math.max(0, pointsMax));
  const step = (frontier.length - 1) / (pointsMax - 1);
  return Array.from({ length: pointsMax }, (_, index) => frontier[Math.round(index * step)] as FrontierPoint<Choice>);
}
