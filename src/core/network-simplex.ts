// Minimum-cost circulation by the primal network simplex, warm: costs may change after a solution, and the next one goes on from there.
// What an arc carries costs the more each, the more it is (convex, piecewise linear), so that a pivot goes past as many bends as pay.
// Sources: Cunningham, A network simplex method, Mathematical Programming 11 (1976): strongly feasible trees, which keep it from cycling;
// Ahuja, Magnanti and Orlin, Network Flows (1993), chapter 11; for the bends Fourer, A simplex algorithm for piecewise-linear programming, Mathematical
// Programming 33 (1985).

/** What an arc carries up to `upTo` costs `cost` each; beyond it the next piece counts. */
export interface Piece {
  readonly upTo: number;
  readonly cost: number;
}

/** At least one piece; neither `upTo` nor `cost` ever falls. More than the last says never flows; `Infinity`: there is no bound. */
export interface Arc {
  readonly from: number;
  readonly to: number;
  readonly pieces: readonly Piece[];
}

export interface NetworkSimplex {
  /** Of each of its pieces, never falling. Takes effect with the next `solve`. */
  setCosts(arc: number, costOf: (piece: number) => number): void;
  /**
   * `optimal`: no circulation costs less. `unbounded`: one can cost as little as it likes, for a cycle without a bound costs less than nothing; the
   * potentials then mean nothing. `given-up`: `pivotsMax` did not do. After either costs may be set and solved for again all the same.
   * Exact but for rounding: an arc is worth a pivot where a unit more or less of it saves more than `tolerance`. That must be more than what rounding makes of the
   * costs round a cycle, or it may turn in circles: some 1e-12 of the sum of all costs.
   */
  solve(tolerance: number): 'optimal' | 'unbounded' | 'given-up';
  /** Dual value of a node: no arc with room left has `cost + potential(from) - potential(to) < 0`. Only differences mean something. */
  potential(node: number): number;
  /**
   * What the last of an arc's flow costs: at an optimum `potential(to) - potential(from)`, without what rounding makes of potentials many times as large. Within
   * a piece exactly its cost, at a bend between both; where nothing flows anything up to the first piece's, where the arc is full anything from the last one's.
   */
  marginalCost(arc: number): number;
  /** What goes through an arc at the last solution. */
  flow(arc: number): number;
  /** Since it was made; for benches. */
  pivots(): number;
}

/** It takes less than one in all; whatever rounding does, it must come to an end. */
const PIVOTS_PER_ARC_MAX = 20;

/**
 * `tree`: one arc for each node but `root`, that goes down to it from one nearer to the root: where the search begins, all flows 0. A good one is that of
 * the solution one would guess. `pivotsMax`: of one solution.
 */
export function createNetworkSimplex(nodes: number, arcs: readonly Arc[], { root, tree, pivotsMax = PIVOTS_PER_ARC_MAX * (nodes + arcs.length) }: { readonly root: number; readonly tree: readonly { readonly node: number; readonly arc: number }[]; readonly pivotsMax?: number }): NetworkSimplex {
  const count = arcs.length;
  const from = new Int32Array(count);
  const to = new Int32Array(count);
  const firstPiece = new Int32Array(count + 1);
  for (let arc = 0; arc < count; arc++) firstPiece[arc + 1] = (firstPiece[arc] as number) + (arcs[arc] as Arc).pieces.length;
  const upTo = new Float64Array(firstPiece[count] as number);
  const cost = new Float64Array(firstPiece[count] as number);
  for (let arc = 0; arc < count; arc++) {
    const { from: tail, to: head, pieces } = arcs[arc] as Arc;
    from[arc] = tail;
    to[arc] = head;
    const first = firstPiece[arc] as number;
    for (let piece = 0; piece < pieces.length; piece++) {
      upTo[first + piece] = (pieces[piece] as Piece).upTo;
      cost[first + piece] = (pieces[piece] as Piece).cost;
    }
  }
  const flows = new Float64Array(count);
  /** The piece that an arc's flow is in. Outside the tree a flow is always at a bend, and this is the piece behind it: maybe one past the last. */
  const at = firstPiece.slice(0, count);
  /** What one more costs, and what one less saves, of arcs outside the tree; those in it are not searched. */
  const more = new Float64Array(count);
  const less = new Float64Array(count);
  const inTree = new Uint8Array(count);
  const potentials = new Float64Array(nodes);
  /** The tree: whom a node hangs on, by which arc, 1 where the arc goes up and -1 where it goes down; its children as linked lists. */
  const parent = new Int32Array(nodes).fill(-1);
  const parentArc = new Int32Array(nodes).fill(-1);
  const direction = new Int8Array(nodes);
  /** What a node's potential lies below that of whom it hangs on: on a tree arc a unit more or less saves nothing. */
  const drop = new Float64Array(nodes);
  const depth = new Int32Array(nodes);
  const firstChild = new Int32Array(nodes).fill(-1);
  const nextSibling = new Int32Array(nodes).fill(-1);
  const previousSibling = new Int32Array(nodes).fill(-1);
  const stack = new Int32Array(nodes);
  /**
   * The cycle of a pivot, in the direction of its flow, from where it is nearest to the root: its arcs, 1 where one gets more and -1 where less, its pieces
   * before, and the lower nodes of those in the tree.
   */
  const cycle = new Int32Array(nodes + 1);
  const sense = new Int8Array(nodes + 1);
  const pieceBefore = new Int32Array(nodes + 1);
  const below = new Int32Array(nodes + 1);
  /** What goes round when the arc at that place bends; a heap of places, of which the first bends first. */
  const bendsAt = new Float64Array(nodes + 1);
  const heap = new Int32Array(nodes + 1);
  let stale = true;
  let tolerance = 0;
  let nextArc = 0;
  let pivots = 0;

  for (const { node, arc } of tree) {
    inTree[arc] = 1;
    hang(node, from[arc] === node ? (to[arc] as number) : (from[arc] as number), arc);
  }
  for (let arc = 0; arc < count; arc++) offer(arc);

  /** For the search; anew whenever its piece, its costs or its place in the tree have changed. */
  function offer(arc: number): void {
    const piece = at[arc] as number;
    const isOutside = inTree[arc] === 0;
    more[arc] = isOutside && piece < (firstPiece[arc + 1] as number) ? (cost[piece] as number) : Number.POSITIVE_INFINITY;
    less[arc] = isOutside && piece > (firstPiece[arc] as number) ? (cost[piece - 1] as number) : Number.NEGATIVE_INFINITY;
  }

  /** Where a piece begins: 0, or where the one before ends. */
  function startOf(arc: number, piece: number): number {
    return piece === firstPiece[arc] ? 0 : (upTo[piece - 1] as number);
  }

  function hang(node: number, on: number, arc: number): void {
    parent[node] = on;
    parentArc[node] = arc;
    direction[node] = from[arc] === node ? 1 : -1;
    drop[node] = dropOf(node);
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

  function dropOf(node: number): number {
    const arc = parentArc[node] as number;
    return (direction[node] as number) * (cost[at[arc] as number] as number);
  }

  /** Depth and potential of a node and all below it. What most of the time is spent in. */
  function renew(top: number): void {
    if (top !== root) place(top, parent[top] as number);
    stack[0] = top;
    for (let size = 1; size > 0; ) {
      const node = stack[--size] as number;
      for (let child = firstChild[node] as number; child >= 0; child = nextSibling[child] as number) {
        place(child, node);
        stack[size++] = child;
      }
    }
  }

  function place(node: number, on: number): void {
    depth[node] = (depth[on] as number) + 1;
    potentials[node] = (potentials[on] as number) - (drop[node] as number);
  }

  /** Block search: the best of some hundred arcs, from where the last search ended. -1: none is worth it. */
  function entering(): number {
    const block = Math.max(32, Math.ceil(2 * Math.sqrt(count)));
    let best = -1;
    let most = tolerance;
    for (let seen = 0, left = block; seen < count; seen++) {
      const arc = nextArc;
      nextArc = nextArc + 1 === count ? 0 : nextArc + 1;
      const saves = (potentials[to[arc] as number] as number) - (potentials[from[arc] as number] as number);
      if (saves - (more[arc] as number) > most) {
        most = saves - (more[arc] as number);
        best = arc;
      } else if ((less[arc] as number) - saves > most) {
        most = (less[arc] as number) - saves;
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
    pivots++;
    const saves = (potentials[to[arc] as number] as number) - (potentials[from[arc] as number] as number);
    const forward = saves - (more[arc] as number) > (less[arc] as number) - saves;
    const gain = forward ? saves - (more[arc] as number) : (less[arc] as number) - saves;
    const first = (forward ? from[arc] : to[arc]) as number;
    const second = (forward ? to[arc] : from[arc]) as number;
    if (!forward) at[arc] = (at[arc] as number) - 1;
    // Flow goes from where the paths join down to `first`, over the arc, and from `second` up again.
    let entered = 0;
    let join = first;
    for (let other = second; join !== other; ) {
      if ((depth[join] as number) >= (depth[other] as number)) {
        join = parent[join] as number;
        entered++;
      } else other = parent[other] as number;
    }
    for (let node = first, index = entered; node !== join; node = parent[node] as number) goRound(--index, node, parentArc[node] as number, -(direction[node] as number));
    goRound(entered, -1, arc, forward ? 1 : -1);
    let length = entered + 1;
    for (let node = second; node !== join; node = parent[node] as number) goRound(length++, node, parentArc[node] as number, direction[node] as number);

    const out = leaving(length, gain);
    if (out < 0) {
      for (let index = 0; index < length; index++) at[cycle[index] as number] = pieceBefore[index] as number;
      if (!forward) at[arc] = (at[arc] as number) + 1;
      return false;
    }
    push(length, bendsAt[out] as number);
    // Where the first arc on either side has gone past a bend: below it all potentials change, as they do below the arc that leaves.
    let top = entered;
    let last = entered;
    for (let index = 0; index < length; index++) {
      if (index === entered || at[cycle[index] as number] === pieceBefore[index]) continue;
      drop[below[index] as number] = dropOf(below[index] as number);
      if (index < top) top = index;
      if (index > last) last = index;
    }
    const left = cycle[out] as number;
    flows[left] = sense[out] === 1 ? (upTo[at[left] as number] as number) : startOf(left, at[left] as number);
    if (sense[out] === 1) at[left] = (at[left] as number) + 1;
    if (out !== entered) {
      inTree[left] = 0;
      inTree[arc] = 1;
      offer(left);
      rehang(out < entered ? first : second, below[out] as number, out < entered ? second : first, arc);
    }
    offer(arc);
    if (out > entered && top === entered) renew(second);
    if (out < entered && last === entered) renew(first);
    if (top < Math.min(entered, out)) renew(below[top] as number);
    if (last > Math.max(entered, out)) renew(below[last] as number);
    return true;
  }

  function goRound(index: number, node: number, arc: number, by: number): void {
    const piece = at[arc] as number;
    cycle[index] = arc;
    sense[index] = by;
    pieceBefore[index] = piece;
    below[index] = node;
    bendsAt[index] = by === 1 ? (upTo[piece] as number) - (flows[arc] as number) : (flows[arc] as number) - startOf(arc, piece);
    heap[index] = index;
  }

  /**
   * Lets flow round the cycle past every bend behind which it still pays: the place of the arc whose bend ends that, or past whose bend nothing flows. Of arcs
   * that bend at once the first on the way comes first: so flow can always be sent from the root to any node, as it can in the tree we begin with, and no
   * tree comes twice. -1: nothing ends it.
   */
  function leaving(length: number, gain: number): number {
    for (let index = (length >> 1) - 1; index >= 0; index--) sink(index, length);
    for (let left = gain; ; sink(0, length)) {
      const index = heap[0] as number;
      if (bendsAt[index] === Number.POSITIVE_INFINITY) return -1;
      const arc = cycle[index] as number;
      const piece = at[arc] as number;
      const next = piece + (sense[index] as number);
      if (next < (firstPiece[arc] as number) || next >= (firstPiece[arc + 1] as number)) return index;
      left -= Math.abs((cost[next] as number) - (cost[piece] as number));
      if (left <= tolerance) return index;
      at[arc] = next;
      bendsAt[index] = (bendsAt[index] as number) + (upTo[next] as number) - startOf(arc, next);
    }
  }

  function sink(index: number, length: number): void {
    const moved = heap[index] as number;
    let hole = index;
    for (let child = 2 * hole + 1; child < length; child = 2 * hole + 1) {
      if (child + 1 < length && isBefore(heap[child + 1] as number, heap[child] as number)) child++;
      if (!isBefore(heap[child] as number, moved)) break;
      heap[hole] = heap[child] as number;
      hole = child;
    }
    heap[hole] = moved;
  }

  function isBefore(a: number, b: number): boolean {
    return (bendsAt[a] as number) < (bendsAt[b] as number) || (bendsAt[a] === bendsAt[b] && a < b);
  }

  function push(length: number, delta: number): void {
    if (delta === 0) return;
    for (let index = 0; index < length; index++) {
      const arc = cycle[index] as number;
      const piece = at[arc] as number;
      // Within its piece, whatever rounding does.
      flows[arc] = Math.min(upTo[piece] as number, Math.max(startOf(arc, piece), (flows[arc] as number) + (sense[index] as number) * delta));
    }
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
  }

  return {
    setCosts(arc, costOf) {
      const start = firstPiece[arc] as number;
      for (let piece = start; piece < (firstPiece[arc + 1] as number); piece++) cost[piece] = costOf(piece - start);
      offer(arc);
      stale = true;
    },
    solve(within) {
      tolerance = within;
      if (stale) {
        for (const { node } of tree) drop[node] = dropOf(node);
        renew(root);
        stale = false;
      }
      let left = pivotsMax;
      for (let arc = entering(); arc >= 0; arc = entering()) {
        if (left-- === 0) return 'given-up';
        if (!pivot(arc)) return 'unbounded';
      }
      return 'optimal';
    },
    potential: (node) => potentials[node] as number,
    marginalCost(arc) {
      if (inTree[arc] === 1) return cost[at[arc] as number] as number;
      const saves = (potentials[to[arc] as number] as number) - (potentials[from[arc] as number] as number);
      return Math.min(more[arc] as number, Math.max(less[arc] as number, saves));
    },
    flow: (arc) => flows[arc] as number,
    pivots: () => pivots,
  };
}
