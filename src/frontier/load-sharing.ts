// Replicas that share a load, of like speed or not: how much of it each takes so that all together draw the least.
import assert from 'node:assert/strict';
import { lowerHull } from './hull.ts';

/** A way to serve so many requests a second, at that power, waiting in between included. */
export interface RatePoint<Choice> {
  readonly ratePerS: number;
  readonly powerW: number;
  readonly choice: Choice;
}

export type LoadShares<Choice> =
  | {
      readonly kind: 'meets';
      /** One for each replica. Its point serves at least its rate. */
      readonly replicas: readonly { readonly ratePerS: number; readonly point: RatePoint<Choice> }[];
      readonly powerW: number;
      /** No split draws less, not even if replicas changed between their points all the time. One replica at most is not at a point of that. */
      readonly boundW: number;
      /** One request a second more would draw so much more, in joules: all that could take it ask at least that. 0 where none is left that could. */
      readonly marginalJ: number;
    }
  | { readonly kind: 'infeasible'; readonly mostPerS: number };

/** Rates that differ by less are the same but for rounding. */
const SAME_RATE = 1e-9;

/**
 * `replicas`: the ways that each has, of which waiting should be one. On the lower convex hull of a replica's ways another request a second costs ever more, so the
 * load goes, piece by piece, where it costs least: in the end all replicas are at equal marginal power, which is the least that all together can draw
 * (Kuhn and Tucker's condition for separable convex costs; Gross's greedy allotment, 1956). All of them then are at bends of their hulls, at points that they
 * really have, but for a rest that is less than the next piece: it goes to the one that serves it for the least at a point that it has. Throws `RangeError` for a replica that has no way, or a rate that is
 * negative or not a number.
 */
export function shareLoad<Choice>(replicas: readonly (readonly RatePoint<Choice>[])[], ratePerS: number): LoadShares<Choice> {
  if (!(ratePerS >= 0)) throw new RangeError(`got a load of ${ratePerS} requests/s, want 0 or more`);
  const hulls = replicas.map((points, replica) => {
    if (points.length === 0) throw new RangeError(`replica ${replica}: has no way to serve or to wait`);
    return rateHull(points);
  });
  const mostPerS = hulls.reduce((sum, hull) => sum + (hull.at(-1)?.ratePerS ?? 0), 0);
  if (ratePerS > mostPerS + SAME_RATE || replicas.length === 0) return { kind: 'infeasible', mostPerS };
  const rates = hulls.map(() => 0);
  let boundW = hulls.reduce((sum, hull) => sum + (hull[0]?.powerW ?? 0), 0);
  let left = ratePerS;
  let marginalJ = 0;
  for (const { replica, perS, jPerRequest } of steps(hulls)) {
    marginalJ = jPerRequest;
    if (left < perS - SAME_RATE) {
      boundW += left * jPerRequest;
      break;
    }
    rates[replica] = (rates[replica] as number) + perS;
    boundW += perS * jPerRequest;
    left = Math.max(0, left - perS);
    marginalJ = 0;
  }
  const points = rates.map((rate, replica) => cheapestFor(replicas[replica] as readonly RatePoint<Choice>[], rate) as RatePoint<Choice>);
  if (left > SAME_RATE) takeLeft(left);
  const shares = points.map((point, replica) => ({ ratePerS: rates[replica] as number, point }));

  /** By whom it costs least at the points that there are. There is one: of the next piece, at the least. */
  function takeLeft(perS: number): void {
    let best: { readonly replica: number; readonly point: RatePoint<Choice>; readonly extraW: number } | null = null;
    for (const [replica, ways] of replicas.entries()) {
      const point = cheapestFor(ways, (rates[replica] as number) + perS);
      const extraW = (point?.powerW ?? Number.POSITIVE_INFINITY) - (points[replica] as RatePoint<Choice>).powerW;
      if (point !== null && (best === null || extraW < best.extraW)) best = { replica, point, extraW };
    }
    assert(best !== null, 'the rest of a load is less than some replica has left');
    rates[best.replica] = (rates[best.replica] as number) + perS;
    points[best.replica] = best.point;
  }

  return { kind: 'meets', replicas: shares, powerW: shares.reduce((sum, { point }) => sum + point.powerW, 0), boundW, marginalJ };
}

/** All hulls' pieces, what costs least first; of one replica they are in order anyway. What its first point serves is free: that it draws in any case. */
function steps(hulls: readonly (readonly RatePoint<unknown>[])[]): { readonly replica: number; readonly perS: number; readonly jPerRequest: number }[] {
  const pieces = hulls.flatMap((hull, replica) =>
    hull.map((to, index) => {
      const from = hull[index - 1] ?? { ratePerS: 0, powerW: to.powerW };
      return { replica, perS: to.ratePerS - from.ratePerS, jPerRequest: to.powerW === from.powerW ? 0 : (to.powerW - from.powerW) / (to.ratePerS - from.ratePerS) };
    }),
  );
  return pieces.toSorted((a, b) => a.jPerRequest - b.jPerRequest);
}

function cheapestFor<Choice>(points: readonly RatePoint<Choice>[], ratePerS: number): RatePoint<Choice> | null {
  let best: RatePoint<Choice> | null = null;
  for (const point of points) if (point.ratePerS >= ratePerS - SAME_RATE && (best === null || point.powerW < best.powerW)) best = point;
  return best;
}

/**
 * The ways that no line between two others passes below, the fewest requests first. Where more requests draw less, fewer are served at that point: the
 * hull never falls.
 */
export function rateHull<Choice>(points: readonly RatePoint<Choice>[]): RatePoint<Choice>[] {
  // From the most requests down: what serves fewer has to draw less.
  return lowerHull(points, ({ ratePerS }) => -ratePerS, ({ powerW }) => powerW).reverse();
}
