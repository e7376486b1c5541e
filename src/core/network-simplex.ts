// Minimum-cost circulation by the primal network simplex, warm: costs may change after a solution, and the next one goes on from there.
// Sources: Cunningham, A network simplex method, Mathematical Programming 11 (1976): strongly feasible trees, which keep it from cycling;
// Ahuja, Magnanti and Orlin, Network Flows (1993), chapter 11.

/** An arc may carry from 0 to `capacity` (`Infinity`: as much as there is) at `cost` each. */
export interface Arc {
  readonly from: number;
  readonly to: number;
  readonly capacity: number;
  readonly cost: number;
}

export interface NetworkSimplex {
  /** Takes effect with the next `solve`. */
  setCost(arc: number, cost: number): void;
  /**
   * `optimal`: no circulation costs less. `unbounded`: one can cost as little as it likes, for a cycle of infinite capacity costs less than
   * nothing; the potentials then mean nothing. After it costs may be set and solved for again all the same.
   */
  solve(): 'optimal' | 'unbounded';
  /** Dual value of a node: no arc with room left has `cost + potential(from) - potential(to) < 0`. Only differences mean something. */
  potential(node: number): number;
  cost(arc: number): number;
  /** What goes through an arc at the last solution. */
  flow(arc: number): number;
}

const TREE = 0;
const LOWER = 1;
const UPPER = -1;

/**
 * `tree`: one arc for each node but `root`, that goes down to it from one nearer to the root: where the search begins, all flows 0. A good one is that of
 * the solution one would guess. Exact but for rounding: an arc is worth a pivot where its reduced cost is below `-tolerance`.
 */
export function createNetworkSimplex(nodes: number, arcs: readonly Arc[], { root, tree, tolerance }: { readonly root: number; readonly tree: readonly { readonly node: number; readonly arc: number }[]; readonly tolerance: number }): NetworkSimplex {
  const count = arcs.length;
  const from = Int32Array.from(arcs, (arc) => arc.from);
  const to = Int32Array.from(arcs, (arc) => arc.to);
  const capacity = Float64Array.from(arcs, (arc) => arc.capacity);
  const cost = Float64Array.from(arcs, (arc) => arc.cost);
  const flows = new Float64Array(count);
  const state = new Int8Array(count).fill(LOWER);
  const potentials = new Float64Array(nodes);
  /** The tree: whom a node hangs on, by which arc, 1 where the arc goes up and -1 where it goes down; its children as linked lists. */
  const parent = new Int32Array(nodes).fill(-1);
  const parentArc = new Int32Array(nodes).fill(-1);
  const direction = new Int8Array(nodes);
  const depth = new Int32Array(nodes);
  const firstChild = new Int32Array(nodes).fill(-1);
  const nextSibling = new Int32Array(nodes).fill(-1);
  const previousSibling = new Int32Array(nodes).fill(-1);
  const stack = new Int32Array(nodes);
  let stale = true;
  let nextArc = 0;

  for (const { node, arc } of tree) {
    state[arc] = TREE;
    hang(node, from[arc] === node ? (to[arc] as number) : (from[arc] as number), arc);
  }

  function hang(node: number, on: number, arc: number): void {
    parent[node] = on;
    parentArc[node] = arc;
    direction[node] = from[arc] === node ? 1 : -1;
    const first = firstChild[on] as number;
    nextSibling[node] = first;
    previousSibling[node] = -1;
    if (first >= 0) previousSibling[first] = node;
    firstChild[on] = node;
  }

  function unhang(node: number): void {
    const [before, after] = [previousSibling[node] as number, nextSibling[node] as number];
    if (before >= 0) nextSibling[before] = after;
    else firstChild[parent[node] as number] = after;
    if (after >= 0) previousSibling[after] = before;
  }

  /** Depth and potential of all below `top`, from its own. */
  function renew(top: number): void {
    let size = 1;
    stack[0] = top;
    while (size > 0) {
      const node = stack[--size] as number;
      for (let child = firstChild[node] as number; child >= 0; child = nextSibling[child] as number) {
        place(child, node);
        stack[size++] = child;
      }
    }
  }

  /** On a tree arc the reduced cost is 0. */
  function place(node: number, on: number): void {
    depth[node] = (depth[on] as number) + 1;
    potentials[node] = (potentials[on] as number) - (direction[node] as number) * (cost[parentArc[node] as number] as number);
  }

  /** Block search: the best of some hundred arcs, from where the last search ended. -1: none is worth it. */
  function entering(): number {
    const block = Math.max(32, Math.ceil(Math.sqrt(count)));
    let best = -1;
    let least = -tolerance;
    for (let seen = 0, left = block; seen < count; seen++) {
      const arc = nextArc;
      nextArc = nextArc + 1 === count ? 0 : nextArc + 1;
      const reduced = (state[arc] as number) * ((cost[arc] as number) + (potentials[from[arc] as number] as number) - (potentials[to[arc] as number] as number));
      if (reduced < least) {
        least = reduced;
        best = arc;
      }
      if (--left === 0) {
        if (best >= 0) return best;
        left = block;
      }
    }
    return best;
  }

  /** Brings an arc in. `false`: nothing holds it back. */
  function pivot(arc: number): boolean {
    const forward = state[arc] === LOWER;
    const first = (forward ? from[arc] : to[arc]) as number;
    const second = (forward ? to[arc] : from[arc]) as number;
    let a = first;
    let b = second;
    while (a !== b) {
      if ((depth[a] as number) >= (depth[b] as number)) a = parent[a] as number;
      else b = parent[b] as number;
    }
    const join = a;
    // Flow goes from where the paths join down to `first`, over the arc, and from `second` up again. Of arcs that hold it back equally the first on
    // this way leaves: so flow can still be sent from the root to any node, as it can in the tree we begin with, and no tree comes twice.
    let delta = capacity[arc] as number;
    let out = -1;
    let outOnFirst = false;
    for (let node = first; node !== join; node = parent[node] as number) {
      const room = direction[node] === 1 ? (flows[parentArc[node] as number] as number) : (capacity[parentArc[node] as number] as number) - (flows[parentArc[node] as number] as number);
      if (room <= delta) {
        delta = room;
        out = node;
        outOnFirst = true;
      }
    }
    for (let node = second; node !== join; node = parent[node] as number) {
      const room = direction[node] === 1 ? (capacity[parentArc[node] as number] as number) - (flows[parentArc[node] as number] as number) : (flows[parentArc[node] as number] as number);
      if (room < delta) {
        delta = room;
        out = node;
        outOnFirst = false;
      }
    }
    if (delta === Number.POSITIVE_INFINITY) return false;
    if (delta > 0) {
      flows[arc] = (flows[arc] as number) + (forward ? delta : -delta);
      for (let node = first; node !== join; node = parent[node] as number) flows[parentArc[node] as number] = (flows[parentArc[node] as number] as number) - (direction[node] as number) * delta;
      for (let node = second; node !== join; node = parent[node] as number) flows[parentArc[node] as number] = (flows[parentArc[node] as number] as number) + (direction[node] as number) * delta;
    }
    if (out < 0) {
      // From one bound to the other; the tree stays.
      state[arc] = forward ? UPPER : LOWER;
      flows[arc] = forward ? (capacity[arc] as number) : 0;
      return true;
    }
    const leaving = parentArc[out] as number;
    const emptied = outOnFirst === (direction[out] === 1);
    state[leaving] = emptied ? LOWER : UPPER;
    // Exactly at its bound, whatever rounding did.
    flows[leaving] = emptied ? 0 : (capacity[leaving] as number);
    state[arc] = TREE;
    rehang(outOnFirst ? first : second, out, outOnFirst ? second : first, arc);
    return true;
  }

  /** The part of the tree below `out` is cut off and hangs by `arc`, with `top` up, on `on`. */
  function rehang(top: number, out: number, on: number, arc: number): void {
    let node = top;
    let newParent = on;
    let newArc = arc;
    for (;;) {
      const [oldParent, oldArc] = [parent[node] as number, parentArc[node] as number];
      unhang(node);
      hang(node, newParent, newArc);
      if (node === out) break;
      newParent = node;
      newArc = oldArc;
      node = oldParent;
    }
    place(top, on);
    renew(top);
  }

  return {
    setCost(arc, value) {
      cost[arc] = value;
      stale = true;
    },
    solve() {
      if (stale) {
        depth[root] = 0;
        renew(root);
        stale = false;
      }
      for (let arc = entering(); arc >= 0; arc = entering()) {
        if (!pivot(arc)) return 'unbounded';
      }
      return 'optimal';
    },
    potential: (node) => potentials[node] as number,
    cost: (arc) => cost[arc] as number,
    flow: (arc) => flows[arc] as number,
  };
}
