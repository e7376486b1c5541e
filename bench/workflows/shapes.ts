// Workflows' graphs for benches: the shapes that agents, pipelines of documents and scientific workflows have, of any size, from a seed.
import type { Random } from '../../src/random/random.ts';

export interface Graph {
  readonly nodes: number;
  readonly edges: readonly (readonly [before: number, after: number])[];
}

export const SHAPES: Readonly<Record<string, (nodes: number, random: Random) => Graph>> = {
  chain: (nodes) => ({ nodes, edges: Array.from({ length: nodes - 1 }, (_, node) => [node, node + 1] as const) }),
  'fan-out': (nodes) => ({ nodes, edges: Array.from({ length: nodes - 2 }, (_, node) => [[0, node + 1], [node + 1, nodes - 1]] as const).flat() }),
  'map-reduce': mapReduce,
  'series-parallel': seriesParallel,
  'layered, 2 edges each': (nodes, random) => layered(nodes, 2, random),
  'layered, 8 edges each': (nodes, random) => layered(nodes, 8, random),
  'any, 2 edges each': (nodes, random) => anyEdges(nodes, 2, random),
  'any, 15 edges each': (nodes, random) => anyEdges(nodes, 15, random),
};

/** Rounds of up to 32 maps of which all 8 reducers need all, and one that joins them and splits again. */
function mapReduce(nodes: number): Graph {
  const [maps, reducers] = [32, 8];
  const edges: (readonly [number, number])[] = [];
  for (let join = 0; join < nodes - 1; ) {
    const left = nodes - 1 - join;
    const round = { maps: Math.min(maps, Math.max(1, left - reducers - 1)), reducers: Math.min(reducers, Math.max(0, left - 2)) };
    const [firstMap, firstReducer] = [join + 1, join + 1 + round.maps];
    const next = Math.min(nodes - 1, firstReducer + round.reducers);
    for (let map = firstMap; map < firstReducer; map++) {
      edges.push([join, map]);
      for (let reducer = firstReducer; reducer < next; reducer++) edges.push([map, reducer]);
      if (round.reducers === 0 && map !== next) edges.push([map, next]);
    }
    for (let reducer = firstReducer; reducer < next; reducer++) edges.push([reducer, next]);
    join = next;
  }
  return { nodes, edges };
}

/** Nodes are put in series or in parallel by halves of random size, three in five times in series. */
function seriesParallel(nodes: number, random: Random): Graph {
  const edges: (readonly [number, number])[] = [];
  let next = 0;
  const build = (size: number): { first: number[]; last: number[] } => {
    if (size === 1) {
      const node = next++;
      return { first: [node], last: [node] };
    }
    const left = 1 + Math.floor(random() * (size - 1));
    const inSeries = random() < 0.6;
    const [a, b] = [build(left), build(size - left)];
    if (!inSeries) return { first: [...a.first, ...b.first], last: [...a.last, ...b.last] };
    // Not every end with every beginning: that would be more edges than anybody declares. One of each for each of the other side keeps all in order.
    for (let index = 0; index < Math.max(a.last.length, b.first.length); index++) edges.push([a.last[index % a.last.length] as number, b.first[index % b.first.length] as number]);
    return { first: a.first, last: b.last };
  };
  build(nodes);
  return { nodes, edges };
}

/** Layers of one to twenty nodes; each needs some of the layer before. Not series-parallel. */
function layered(nodes: number, edgesEach: number, random: Random): Graph {
  const edges: (readonly [number, number])[] = [];
  let before: number[] = [];
  for (let next = 0; next < nodes; ) {
    const layer = Array.from({ length: Math.min(nodes - next, 1 + Math.floor(random() * 20)) }, (_, index) => next + index);
    for (const node of layer) for (const other of some(before, edgesEach, random)) edges.push([other, node]);
    before = layer;
    next += layer.length;
  }
  return { nodes, edges };
}

/** Each needs some of all that come before it. */
function anyEdges(nodes: number, edgesEach: number, random: Random): Graph {
  const edges = Array.from({ length: nodes - 1 }, (_, index) => some(Array.from({ length: index + 1 }, (_, node) => node), edgesEach, random).map((before) => [before, index + 1] as const)).flat();
  return { nodes, edges };
}

function some(among: readonly number[], count: number, random: Random): number[] {
  const chosen = new Set<number>();
  for (let turn = 0; turn < count && among.length > 0; turn++) chosen.add(among[Math.floor(random() * among.length)] as number);
  return [...chosen];
}
