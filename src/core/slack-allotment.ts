// How long may each part of a job take, so that the whole is done by its deadline for the least energy? Parts are nodes of a directed acyclic
// graph, each with a time–energy frontier of its own: the time–cost trade-off problem (Kelley, 1961; Phillips and Dessouky, Management Science 24,
// 1977; for training pipelines: Chung et al., Perseus, SOSP 2024).
// It is the dual of a minimum-cost circulation (Fulkerson, 1961): flow through a node is the energy that a millisecond more for it would save, a unit that
// goes round is worth the length of its path, and coming back costs the deadline. Potentials are instants.
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
  /** No other times that keep the deadline take less energy, on the convex hulls of the frontiers. */
  | { readonly kind: 'meets'; readonly nodes: readonly AllottedNode[]; readonly energyJ: number }
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
  /** It has ended, sooner or later than it was allotted. */
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
/** Of a millisecond: what two instants may differ by for rounding. */
const TOLERANCE_MS = 1e-7;
const SAME_TIME_MS = 1e-6;

/**
 * `frontiers`: of each node, in any order, at least one point; one of 0 ms and 0 J is a node that only joins. `edges`: from a node to one that needs its
 * end. Throws `RangeError` where the graph has a cycle, an edge names no node, or a node has no point. Exact on the lower convex hulls (times between two points are
 * had by spending a part of the work at each); integer times of points and deadline give integer allotments. Solving again after a change goes on from the
 * last solution: `npm run bench:workflow-solver` says how long either takes.
 */
export function createSlackAllotment({ frontiers, edges, deadlineMs }: { readonly frontiers: readonly (readonly TradeOffPoint[])[]; readonly edges: readonly (readonly [before: number, after: number])[]; readonly deadlineMs: number }): SlackAllotment {
  const hulls = frontiers.map((points, node) => {
    if (points.length === 0) throw new RangeError(`node ${node}: has no point in its frontier`);
    return lowerHull(points);
  });
  const order = topologicalOrder(hulls.length, edges);
  const [source, sink] = [2 * hulls.length, 2 * hulls.length + 1];
  const arcs: Arc[] = [];
  const add = (from: number, to: number, cost = 0): number => arcs.push({ from, to, pieces: [{ upTo: Number.POSITIVE_INFINITY, cost }] }) - 1;
  const [begin, end] = [(node: number): number => 2 * node, (node: number): number => 2 * node + 1];
  const work = hulls.map((hull, node) => arcs.push({ from: begin(node), to: end(node), pieces: piecesOf(hull) }) - 1);
  const release = hulls.map((_, node) => add(source, begin(node)));
  const finish = hulls.map((_, node) => add(source, end(node)));
  const into: number[][] = hulls.map(() => []);
  for (const [before, after] of edges) into[after]?.push(add(end(before), begin(after)));
  const leave = hulls.map((_, node) => add(end(node), sink));
  const back = add(sink, source, deadlineMs);
  const simplex: NetworkSimplex = createNetworkSimplex(2 * hulls.length + 2, arcs, { root: source, tree: slowestTree(), tolerance: TOLERANCE_MS });
  /** What has been told; an end is not a number before there is one. */
  const releasedAtMs = new Float64Array(hulls.length);
  const endedAtMs = new Float64Array(hulls.length).fill(Number.NaN);
  const shares = new Float64Array(hulls.length).fill(1);

  /** Where all take as long as they like: each node hangs on what it would wait for longest. */
  function slowestTree(): { node: number; arc: number }[] {
    const endsAtMs = new Float64Array(hulls.length);
    const tree: { node: number; arc: number }[] = [];
    let last = { atMs: -1, arc: leave[0] as number };
    for (const node of order) {
      let latest = { atMs: 0, arc: release[node] as number };
      for (const arc of into[node] as number[]) {
        const atMs = endsAtMs[((arcs[arc]?.from ?? 1) - 1) / 2] as number;
        if (atMs > latest.atMs) latest = { atMs, arc };
      }
      endsAtMs[node] = latest.atMs + (hulls[node]?.at(-1)?.timeMs ?? 0);
      tree.push({ node: begin(node), arc: latest.arc }, { node: end(node), arc: work[node] as number });
      if ((endsAtMs[node] as number) > last.atMs) last = { atMs: endsAtMs[node] as number, arc: leave[node] as number };
    }
    if (hulls.length > 0) tree.push({ node: sink, arc: last.arc });
    return tree;
  }

  const isEnded = (node: number): boolean => !Number.isNaN(endedAtMs[node]);
  const instantOf = (node: number): number => simplex.potential(source) - simplex.potential(node);

  function startsAt(node: number, atMs: number): void {
    releasedAtMs[node] = atMs;
    simplex.setCosts(release[node] as number, () => -atMs);
  }

  return {
    solve() {
      if (hulls.length === 0) return { kind: 'meets', nodes: [], energyJ: 0 };
      if (simplex.solve() === 'unbounded') return { kind: 'infeasible', fastestMs: fastestMs() };
      let energyJ = 0;
      const nodes = hulls.map((hull, node): AllottedNode => {
        const startAtMs = instantOf(begin(node));
        const share = shares[node] as number;
        const timeMs = isEnded(node) ? instantOf(end(node)) - startAtMs : Math.min(instantOf(end(node)) - startAtMs, share * (hull.at(-1) as TradeOffPoint).timeMs);
        const nodeJ = isEnded(node) || share === 0 ? 0 : share * energyAt(hull, timeMs / share);
        energyJ += nodeJ;
        return { startAtMs, timeMs, deadlineAtMs: startAtMs + timeMs, energyJ: nodeJ };
      });
      return { kind: 'meets', nodes, energyJ };
    },
    startsAt,
    remains(node, fromMs, share) {
      if (!(share >= 0 && share < Number.POSITIVE_INFINITY)) throw new RangeError(`node ${node}: got a share of ${share} that is left, want 0 or more`);
      shares[node] = share;
      const hull = hulls[node] ?? [];
      simplex.setCosts(work[node] as number, (piece) => -share * (hull[hull.length - 1 - piece] as TradeOffPoint).timeMs);
      startsAt(node, fromMs);
    },
    endedAt(node, atMs) {
      endedAtMs[node] = atMs;
      simplex.setCosts(work[node] as number, () => 0);
      simplex.setCosts(finish[node] as number, () => -atMs);
    },
    setDeadline: (laterMs) => simplex.setCosts(back, () => laterMs),
    marginalJPerMs: () => simplex.flow(back),
  };

  /** Of what is left, as it is known now. */
  function fastestMs(): number {
    const endsAtMs = new Float64Array(hulls.length);
    let most = 0;
    for (const node of order) {
      let startMs = releasedAtMs[node] as number;
      for (const arc of into[node] as number[]) startMs = Math.max(startMs, endsAtMs[((arcs[arc]?.from ?? 1) - 1) / 2] as number);
      endsAtMs[node] = isEnded(node) ? (endedAtMs[node] as number) : startMs + (shares[node] as number) * (hulls[node]?.[0]?.timeMs ?? 0);
      most = Math.max(most, endsAtMs[node] as number);
    }
    return most;
  }
}

/** The slowest point first: as much flow as a millisecond less than that costs. */
function piecesOf(hull: readonly TradeOffPoint[]): Arc['pieces'] {
  const slowFirst = hull.toReversed();
  return slowFirst.map((slow, index) => {
    const fast = slowFirst[index + 1];
    return { cost: -slow.timeMs, upTo: fast === undefined ? Number.POSITIVE_INFINITY : (fast.energyJ - slow.energyJ) / (slow.timeMs - fast.timeMs) };
  });
}

/**
 * The efficient points below which no line between two others passes, the fastest first: energy falls ever more slowly along it. Of points less than a
 * nanosecond apart the cheaper stands for both.
 */
export function lowerHull(points: readonly TradeOffPoint[]): TradeOffPoint[] {
  const sorted = points.toSorted((a, b) => a.timeMs - b.timeMs || a.energyJ - b.energyJ);
  const hull: TradeOffPoint[] = [];
  for (const point of sorted) {
    const last = hull.at(-1);
    if (last !== undefined && point.energyJ >= last.energyJ) continue;
    if (last !== undefined && point.timeMs - last.timeMs < SAME_TIME_MS) hull.pop();
    for (let size = hull.length; size >= 2; size = hull.length) {
      const [before, middle] = [hull[size - 2] as TradeOffPoint, hull[size - 1] as TradeOffPoint];
      const bends = (before.energyJ - middle.energyJ) * (point.timeMs - middle.timeMs) > (middle.energyJ - point.energyJ) * (middle.timeMs - before.timeMs);
      if (bends) break;
      hull.pop();
    }
    hull.push(point);
  }
  return hull;
}

/** Along the hull; at its ends what they take. */
export function energyAt(hull: readonly TradeOffPoint[], timeMs: number): number {
  const upper = hull.findIndex((point) => point.timeMs >= timeMs);
  if (upper === 0) return (hull[0] as TradeOffPoint).energyJ;
  if (upper < 0) return (hull.at(-1) as TradeOffPoint).energyJ;
  const [fast, slow] = [hull[upper - 1] as TradeOffPoint, hull[upper] as TradeOffPoint];
  return fast.energyJ + ((slow.energyJ - fast.energyJ) * (timeMs - fast.timeMs)) / (slow.timeMs - fast.timeMs);
}

/** Each node behind all that it needs. Throws `RangeError` with a cycle's nodes, or an edge that names none. */
export function topologicalOrder(nodes: number, edges: readonly (readonly [number, number])[]): number[] {
  const waitsFor = new Int32Array(nodes);
  const after: number[][] = Array.from({ length: nodes }, () => []);
  for (const [before, behind] of edges) {
    for (const node of [before, behind]) if (!Number.isInteger(node) || node < 0 || node >= nodes) throw new RangeError(`edge ${before} to ${behind}: there is no node ${node}; there are 0 to ${nodes - 1}`);
    waitsFor[behind] = (waitsFor[behind] as number) + 1;
    after[before]?.push(behind);
  }
  const order = Array.from({ length: nodes }, (_, node) => node).filter((node) => waitsFor[node] === 0);
  for (let next = 0; next < order.length; next++) {
    for (const behind of after[order[next] as number] ?? []) {
      waitsFor[behind] = (waitsFor[behind] as number) - 1;
      if (waitsFor[behind] === 0) order.push(behind);
    }
  }
  if (order.length === nodes) return order;
  const stuck = Array.from({ length: nodes }, (_, node) => node).filter((node) => (waitsFor[node] as number) > 0);
  throw new RangeError(`the graph has a cycle among the nodes ${stuck.slice(0, 10).join(', ')}${stuck.length > 10 ? ', …' : ''}`);
}
