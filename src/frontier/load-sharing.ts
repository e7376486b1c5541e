// Replicas that share a load, of like speed or not: how much of it each takes so that all together draw the least.

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
      /** No split draws less, not even if replicas changed between their points all the time; one replica at most draws more than that. */
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
 * really have, but for one in between, which takes its cheapest point that serves its part. Throws `RangeError` for a replica that has no way, or a rate that is
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
    const taken = Math.min(left, perS);
    rates[replica] = (rates[replica] as number) + taken;
    boundW += taken * jPerRequest;
    left -= taken;
    if (taken < perS) break;
    marginalJ = 0;
  }
  const shares = hulls.map((hull, replica) => {
    const rate = rates[replica] as number;
    return { ratePerS: rate, point: hull.find((bend) => Math.abs(bend.ratePerS - rate) <= SAME_RATE) ?? cheapestFor(replicas[replica] as readonly RatePoint<Choice>[], rate) };
  });
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

function cheapestFor<Choice>(points: readonly RatePoint<Choice>[], ratePerS: number): RatePoint<Choice> {
  return points.filter((point) => point.ratePerS >= ratePerS - SAME_RATE).reduce((best, point) => (point.powerW < best.powerW ? point : best));
}

/**
 * The ways that no line between two others passes below, the fewest requests first. Where more requests draw less, fewer are served at that point: the
 * hull never falls.
 */
export function rateHull<Choice>(points: readonly RatePoint<Choice>[]): RatePoint<Choice>[] {
  const hull: RatePoint<Choice>[] = [];
  for (const point of points.toSorted((a, b) => b.ratePerS - a.ratePerS || a.powerW - b.powerW)) {
    const last = hull.at(-1);
    // From the most requests down: what serves fewer has to draw less.
    if (last !== undefined && point.powerW >= last.powerW) continue;
    for (let size = hull.length; size >= 2; size = hull.length) {
      const [more, middle] = [hull[size - 2] as RatePoint<Choice>, hull[size - 1] as RatePoint<Choice>];
      const bends = (more.powerW - middle.powerW) * (middle.ratePerS - point.ratePerS) > (middle.powerW - point.powerW) * (more.ratePerS - middle.ratePerS);
      if (bends) break;
      hull.pop();
    }
    hull.push(point);
  }
  return hull.reverse();
}
