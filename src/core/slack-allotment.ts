// How long may each part of a job take, so that the whole is done by its deadline for the least energy? Parts are nodes of a directed acyclic
// graph, each with a time–energy frontier of its own: the time–cost trade-off problem (Kelley, 1961; Phillips and Dessouky, Management Science 24,
// 1977; for training pipelines: Chung et al., Perseus, SOSP 2024).
// It is the dual of a minimum-cost circulation (Fulkerson, 1961): flow through a node is the energy that a millisecond more for it would save, a unit that
// goes round is worth the length of its path, and coming back costs the deadline. Potentials are instants.
import { lowerHull as hullOf } from '../frontier/hull.ts';
import { type Arc, createNetworkSimplex, type NetworkSimplex } from './network-simplex.ts';

export interface TradeOffPoint {
  readonly timeMs: number;
  readonly energyJ: number;
}

export interface AllottedNode {
  /** From the workflow's start; as late as nothing before it makes it, and no deadline behind it is hurt. */
  readonly startAtMs: number;
  readonly timeMs: number;
  readonly deadlineAtMs: number;
  /** On the hull of its frontier, at that time; of a node that has begun, for what is left of it. */
  readonly energyJ: number;
}

export type Allotment =
  /** No other times that keep the deadline take less energy, on the convex hulls of the frontiers; where the search had to be given up (`exact: false`), all at their fastest. */
  | { readonly kind: 'meets'; readonly nodes: readonly AllottedNode[]; readonly energyJ: number; readonly exact: boolean }
  /** All at their fastest it would take so long. */
  | { readonly kind: 'infeasible'; readonly fastestMs: number };

export interface SlackAllotment {
  solve(): Allotment;
  /** It began at that instant, or cannot begin before it. */
  startsAt(node: number, atMs: number): void;
  /**
   * It has begun, and at `fromMs` this `share` of its work is left: that takes as much of its times and energies, and does not begin before. Above 1 where it
   * turns out larger than it was said to be. May be said again and again; only the last counts. Throws `RangeError` for a share that is negative or not finite.
   */
  remains(node: number, fromMs: number, share: number): void;
  /** It has ended, sooner or later than it was allotted: from then on it is told as a node that takes nothing, at that instant. */
  endedAt(node: number, atMs: number): void;
  setDeadline(deadlineMs: number): void;
  /**
   * Energy that a millisecond more of deadline would save, at the last solution that met it: the price of the deadline. 0 where all are at their slowest;
   * where a little more saves less than a little less costs, something between both.
   */
  marginalJPerMs(): number;
}

/** More are refused by whoever takes workflows in: what is solved here is bounded by them. */
export const WORKFLOW_NODES_MAX = 1_000;
export const WORKFLOW_EDGES_MAX = 20_000;
/** Of a millisecond: what two instants may differ by for rounding; and of all the times that they may be the sum of, some thousand roundings of 1e-16 each. */
const TOLERANCE_MS = 1e-7;
const TOLERANCE_SHARE = 1e-12;
/** Of the deadline: beyond it by enough that what cannot be met still is not. */
const HORIZON_SHARE = 2;
const SAME_TIME_MS = 1e-6;

/**
 * `frontiers`: of each node, in any order, at least one point; one of 0 ms and 0 J is a node that only joins. `edges`: from a node to one that needs its
 * end. Throws `RangeError` where the graph has a cycle, an edge names no node, or a node has no point. Exact on the lower convex hulls (times between two points are
 * had by spending a part of the work at each); integer times of points and deadline give integer allotments. Solving again after a change goes on from the
 * last solution: `npm run bench:workflow-solver` says how long either takes. `pivotsMax`: of the search, default as `createNetworkSimplex` has it.
 */
export function createSlackAllotment({ frontiers, edges, deadlineMs, pivotsMax }: { readonly frontiers: readonly (readonly TradeOffPoint[])[]; readonly edges: readonly (readonly [before: number, after: number])[]; readonly deadlineMs: number; readonly pivotsMax?: number }): SlackAllotment {
  const count = frontiers.length;
  const hulls = frontiers.map((points, node) => {
    if (points.length === 0) throw new RangeError(`node ${node}: has no point in its frontier`);
    return lowerHull(points);
  });
  /** At its fastest and its slowest, whole. */
  const leastMs = Float64Array.from(hulls, (hull) => (hull[0] as TradeOffPoint).timeMs);
  const mostMs = Float64Array.from(hulls, (hull) => (hull.at(-1) as TradeOffPoint).timeMs);
  const order = topologicalOrder(count, edges);
  const before = neededBefore(order, edges);
  const neededBy = new Int32Array(count);
  for (const nodes of before) for (const node of nodes) neededBy[node] = (neededBy[node] as number) + 1;
  // Each node has an instant at which it begins, numbered as itself. Its end is one of its own only where several wait for it: else it is the beginning of the one
  // that does, or of nobody's, the sink. That it then ends later than it does is no harm, for nothing else could go by it.
  const [source, sink] = [count, count + 1];
  const ends = new Int32Array(count).fill(sink);
  let instants = count + 2;
  for (let node = 0; node < count; node++) if ((neededBy[node] as number) > 1) ends[node] = instants++;
  for (const [after, nodes] of before.entries()) for (const node of nodes) if (neededBy[node] === 1) ends[node] = after;
  // Arcs of work first, then the releases: both are found by their node.
  const arcs: Arc[] = hulls.map((hull, node) => ({ from: node, to: ends[node] as number, pieces: piecesOf(hull) }));
  const add = (from: number, to: number, cost = 0): number => arcs.push({ from, to, pieces: [{ upTo: Number.POSITIVE_INFINITY, cost }] }) - 1;
  const release = (node: number): number => count + node;
  for (let node = 0; node < count; node++) add(source, node);
  /** Of each node, the arcs by which the ends of those that it needs come to it. */
  const into = before.map((nodes, after) => nodes.map((node) => (ends[node] === after ? node : add(ends[node] as number, after))));
  const back = add(sink, source, deadlineMs);
  const simplex: NetworkSimplex = createNetworkSimplex(instants, arcs, { root: source, tree: slowestTree(), ...(pivotsMax === undefined ? {} : { pivotsMax }) });
  const releasedAtMs = new Float64Array(count);
  const endsAtMs = new Float64Array(count);
  const shares = new Float64Array(count).fill(1);
  let dueMs = deadlineMs;
  /** Nothing can take longer. Times beyond it are as long as it, so that what nobody could ever wait for does not drown in its rounding what counts. */
  let horizonMs = Number.POSITIVE_INFINITY;
  setHorizon();

  /** Where all take as long as they like: each node hangs on what it would wait for longest. */
  function slowestTree(): { node: number; arc: number }[] {
    const endsAtMs = new Float64Array(count);
    const tree: { node: number; arc: number }[] = [];
    let [lastAtMs, last] = [-1, 0];
    for (const node of order) {
      const nodes = before[node] as number[];
      let [startMs, arc] = [0, release(node)];
      for (let index = 0; index < nodes.length; index++) {
        const endMs = endsAtMs[nodes[index] as number] as number;
        if (endMs > startMs) [startMs, arc] = [endMs, (into[node] as number[])[index] as number];
      }
      const endMs = startMs + (mostMs[node] as number);
      endsAtMs[node] = endMs;
      tree.push({ node, arc });
      if ((neededBy[node] as number) > 1) tree.push({ node: ends[node] as number, arc: node });
      if (neededBy[node] === 0 && endMs > lastAtMs) [lastAtMs, last] = [endMs, node];
    }
    if (count > 0) tree.push({ node: sink, arc: last });
    return tree;
  }

  /** Of what is left, as it is known now; where each then ends is in `endsAtMs`. */
  function fastestMs(): number {
    let most = 0;
    for (const node of order) {
      let startMs = releasedAtMs[node] as number;
      const nodes = before[node] as number[];
      for (let index = 0; index < nodes.length; index++) startMs = Math.max(startMs, endsAtMs[nodes[index] as number] as number);
      const endMs = startMs + (shares[node] as number) * (leastMs[node] as number);
      endsAtMs[node] = endMs;
      if (endMs > most) most = endMs;
    }
    return most;
  }

  /** By powers of two: a deadline that moves a little changes nothing of the nodes. */
  function setHorizon(): void {
    const beforeMs = horizonMs;
    horizonMs = 2 ** Math.ceil(Math.log2(HORIZON_SHARE * Math.max(1, dueMs)));
    if (horizonMs === beforeMs) return;
    for (let node = 0; node < count; node++) {
      if ((shares[node] as number) * (mostMs[node] as number) > Math.min(beforeMs, horizonMs)) setTimes(node);
    }
  }

  function setTimes(node: number): void {
    const hull = hulls[node] as TradeOffPoint[];
    const share = shares[node] as number;
    simplex.setCosts(node, (piece) => -Math.min(horizonMs, share * (hull[hull.length - 1 - piece] as TradeOffPoint).timeMs));
  }

  /** No instant of any tree is the sum of more. */
  function toleranceMs(): number {
    let sumMs = Math.abs(dueMs);
    let latestMs = 0;
    for (let node = 0; node < count; node++) {
      sumMs += Math.min(horizonMs, (shares[node] as number) * (mostMs[node] as number));
      latestMs = Math.max(latestMs, releasedAtMs[node] as number);
    }
    return Math.max(TOLERANCE_MS, TOLERANCE_SHARE * (sumMs + latestMs));
  }

  /** Each as soon as it can, as `fastestMs` has it: in time wherever anything is. */
  function allAtFastest(): Allotment {
    const nodes: AllottedNode[] = hulls.map(([fastest], node) => {
      const share = shares[node] as number;
      const [timeMs, energyJ] = [share * (leastMs[node] as number), share * (fastest as TradeOffPoint).energyJ];
      const deadlineAtMs = endsAtMs[node] as number;
      return { startAtMs: deadlineAtMs - timeMs, timeMs, deadlineAtMs, energyJ };
    });
    return { kind: 'meets', nodes, energyJ: nodes.reduce((sum, { energyJ }) => sum + energyJ, 0), exact: false };
  }

  const instantOf = (place: number): number => simplex.potential(source) - simplex.potential(place);

  function startsAt(node: number, atMs: number): void {
    releasedAtMs[node] = atMs;
    simplex.setCosts(release(node), () => -atMs);
  }

  function remains(node: number, fromMs: number, share: number): void {
    if (!(share >= 0 && share < Number.POSITIVE_INFINITY)) throw new RangeError(`node ${node}: got a share of ${share} that is left, want 0 or more`);
    shares[node] = share;
    setTimes(node);
    startsAt(node, fromMs);
  }

  return {
    solve() {
      if (count === 0) return { kind: 'meets', nodes: [], energyJ: 0, exact: true };
      const tolerance = toleranceMs();
      if (simplex.solve(tolerance) !== 'optimal') {
        const wholeMs = fastestMs();
        return wholeMs > dueMs + tolerance ? { kind: 'infeasible', fastestMs: wholeMs } : allAtFastest();
      }
      let energyJ = 0;
      const nodes = hulls.map((hull, node): AllottedNode => {
        const startAtMs = instantOf(node);
        const share = shares[node] as number;
        const timeMs = Math.min(-simplex.marginalCost(node), share * (mostMs[node] as number));
        const nodeJ = share === 0 ? 0 : share * energyAt(hull, timeMs / share);
        energyJ += nodeJ;
        return { startAtMs, timeMs, deadlineAtMs: startAtMs + timeMs, energyJ: nodeJ };
      });
      return { kind: 'meets', nodes, energyJ, exact: true };
    },
    startsAt,
    remains,
    endedAt: (node, atMs) => remains(node, atMs, 0),
    setDeadline(laterMs) {
      dueMs = laterMs;
      simplex.setCosts(back, () => laterMs);
      setHorizon();
    },
    marginalJPerMs: () => simplex.flow(back),
  };
}

/**
 * Of each node those it needs, but for those that others of them need already: they ask nothing of their own, however long anything takes. Ancestors
 * as bits, so a thousand nodes and twenty thousand edges are soon done.
 */
function neededBefore(order: readonly number[], edges: readonly (readonly [before: number, after: number])[]): number[][] {
  const words = (order.length + 31) >> 5;
  const ancestors = new Int32Array(order.length * words);
  const neededBy: number[][] = order.map(() => []);
  for (const [before, after] of edges) (neededBy[before] as number[]).push(after);
  const needs: number[][] = order.map(() => []);
  for (const node of order) {
    // All that it needs has been here, in order, and has said so.
    const given = needs[node] as number[];
    const kept: number[] = [];
    // The last in order first: nothing that comes before it can need it.
    for (let index = given.length - 1; index >= 0; index--) {
      const before = given[index] as number;
      const [mine, bit] = [node * words + (before >> 5), 1 << (before & 31)];
      if (((ancestors[mine] as number) & bit) !== 0) continue;
      kept.push(before);
      for (let word = 0; word < words; word++) ancestors[node * words + word] = (ancestors[node * words + word] as number) | (ancestors[before * words + word] as number);
      ancestors[mine] = (ancestors[mine] as number) | bit;
    }
    needs[node] = kept;
    for (const after of neededBy[node] as number[]) (needs[after] as number[]).push(node);
  }
  return needs;
}

/** The slowest point first: as much flow as a millisecond less than that costs. */
function piecesOf(hull: readonly TradeOffPoint[]): Arc['pieces'] {
  return hull.map((_, index) => {
    const place = hull.length - 1 - index;
    const [slow, fast] = [hull[place] as TradeOffPoint, hull[place - 1]];
    return { cost: -slow.timeMs, upTo: fast === undefined ? Number.POSITIVE_INFINITY : (fast.energyJ - slow.energyJ) / (slow.timeMs - fast.timeMs) };
  });
}

/**
 * The efficient points below which no line between two others passes, the fastest first: energy falls ever more slowly along it. Of points less than a
 * nanosecond apart the cheaper stands for both.
 */
export function lowerHull(points: readonly TradeOffPoint[]): TradeOffPoint[] {
  return hullOf(points, ({ timeMs }) => timeMs, ({ energyJ }) => energyJ, SAME_TIME_MS);
}

/** Along the hull; at its ends what they take. */
export function energyAt(hull: readonly TradeOffPoint[], timeMs: number): number {
  let upper = 0;
  while (upper < hull.length && (hull[upper] as TradeOffPoint).timeMs < timeMs) upper++;
  if (upper === 0) return (hull[0] as TradeOffPoint).energyJ;
  if (upper === hull.length) return (hull.at(-1) as TradeOffPoint).energyJ;
  const [fast, slow] = [hull[upper - 1] as TradeOffPoint, hull[upper] as TradeOffPoint];
  return fast.energyJ + ((slow.energyJ - fast.energyJ) * (timeMs - fast.timeMs)) / (slow.timeMs - fast.timeMs);
}

/** Each node behind all that it needs. Throws `RangeError` with a cycle's nodes, or an edge that names none. */
export function topologicalOrder(nodes: number, edges: readonly (readonly [number, number])[]): number[] {
  const isNode = (node: number): boolean => Number.isInteger(node) && node >= 0 && node < nodes;
  const waitsFor = new Int32Array(nodes);
  const after: number[][] = Array.from({ length: nodes }, () => []);
  for (const [before, behind] of edges) {
    if (!isNode(before) || !isNode(behind)) throw new RangeError(`edge ${before} to ${behind}: there is no node ${isNode(before) ? behind : before}; there are 0 to ${nodes - 1}`);
    waitsFor[behind] = (waitsFor[behind] as number) + 1;
    (after[before] as number[]).push(behind);
  }
  const order: number[] = [];
  for (let node = 0; node < nodes; node++) if (waitsFor[node] === 0) order.push(node);
  for (let next = 0; next < order.length; next++) {
    for (const behind of after[order[next] as number] as number[]) {
      waitsFor[behind] = (waitsFor[behind] as number) - 1;
      if (waitsFor[behind] === 0) order.push(behind);
    }
  }
  if (order.length === nodes) return order;
  const stuck = Array.from({ length: nodes }, (_, node) => node).filter((node) => (waitsFor[node] as number) > 0);
  throw new RangeError(`the graph has a cycle among the nodes ${stuck.slice(0, 10).join(', ')}${stuck.length > 10 ? ', …' : ''}`);
}
