// One workflow under way: what of it has begun and ended, and by when each part that can run now is due so that all of it is in time for
// the least energy. Allotted anew whenever a part ends early or late, a call turns out larger, or time passes.
import { createSlackAllotment, type SlackAllotment, topologicalOrder, type TradeOffPoint } from './slack-allotment.ts';
import type { WorkflowEdge } from './workflow.ts';

/** A part as it is expected to be. */
export interface RunPart {
  readonly stage: string;
  readonly kind: 'call' | 'tool';
  /** A call's by operating point; of a tool one point, its time, without energy. */
  readonly frontier: readonly TradeOffPoint[];
  /** Standard deviation of its time at its fastest: what a call's length is uncertain by. */
  readonly spreadMs: number;
}

/** `late`: even the fastest would not be in time, as far as is expected; `lost`: not even if all that is left came to half of it. */
export type RunVerdict = 'meets' | 'late' | 'lost';

export interface PartStatus {
  readonly stage: string;
  readonly kind: 'call' | 'tool';
  readonly state: 'waiting' | 'running' | 'ended';
  /** As allotted; of what has begun or ended when that was. Instants. */
  readonly startAtMs: number;
  readonly dueAtMs: number;
  /** Of what is left of it. */
  readonly energyJ: number;
}

export interface PartDue {
  /** `Infinity` where the whole is lost. */
  readonly atMs: number;
  /** Others can make good what exceeds it. Not so of the last parts, and of those that are hurried because there is no slack to make good with. */
  readonly moves: boolean;
}

export interface WorkflowRun {
  readonly verdict: () => RunVerdict;
  has(stage: string): boolean;
  stateOf(stage: string): PartStatus['state'] | null;
  /** One more part, needing the ends of these. */
  add(part: RunPart, needs: readonly string[]): void;
  /** A call has come: all that it needs has ended, as far as that was not known; what is a call that still runs it does not need. */
  began(stage: string, nowMs: number): void;
  /** What is left of it would take so long at its fastest, give or take `spreadMs`. Counts from the next `allot`. */
  progressed(stage: string, leftMs: number, spreadMs: number): void;
  ended(stage: string, nowMs: number): void;
  /** It is to be done again. */
  failed(stage: string): void;
  /** All that is expected has ended; tools that nothing waits for have had their time. */
  isOver(nowMs: number): boolean;
  /**
   * `caution`: standard deviations of the path's time that are kept in reserve. Until the next change. Where what needs what has changed since the last time, all
   * of it is solved from the beginning; else from the last solution.
   */
  allot(nowMs: number, caution: number): void;
  /** The next `allot` begins from the beginning: until then calls that begin are hurried. */
  isStale(): boolean;
  /** By when a call that runs or may come now is due, by the last `allot`. */
  due(stage: string): PartDue;
  /** As of the last `allot`. */
  parts(): readonly PartStatus[];
  /** That all of it takes at its fastest, from now on; and what it is expected to take as allotted. */
  readonly fastestLeftMs: () => number;
  readonly energyJ: () => number;
}

export interface WorkflowRunOptions {
  readonly parts: readonly RunPart[];
  /** By places in `parts`. */
  readonly edges: readonly WorkflowEdge[];
  readonly beganAtMs: number;
  readonly deadlineAtMs: number;
}

interface Node {
  readonly part: RunPart;
  /** All of it, at whichever point is the fastest. */
  readonly fastestMs: number;
  state: 'waiting' | 'running' | 'ended';
  beganAtMs: number;
  endedAtMs: number;
  /** Of its time, at whichever point. */
  leftShare: number;
  spreadMs: number;
}

/** A part that is to run at its fastest is due so much later than it would end: what is not lost is planned by the fastest then, by its length's uncertainty. */
export const HURRIED = 1.5;
/** What is left comes to less than this of what is expected hardly ever. */
const LUCKY_SHARE = 0.5;

/** Throws `RangeError` as `createSlackAllotment` does: for a cycle, or an edge that names no part. */
export function createWorkflowRun({ parts, edges, beganAtMs, deadlineAtMs }: WorkflowRunOptions): WorkflowRun {
  const nodes = parts.map(nodeOf);
  const places = new Map(parts.map(({ stage }, place) => [stage, place]));
  const graph = graphOf(nodes.length, edges);
  let slack = allotmentOf(edges);
  let stale = false;
  let allotted: readonly { readonly startAtMs: number; readonly timeMs: number; readonly energyJ: number }[] = nodes.map(() => ({ startAtMs: 0, timeMs: 0, energyJ: 0 }));
  let latestAtMs: Float64Array = new Float64Array(nodes.length);
  let verdict: RunVerdict = 'meets';
  let fastestLeftMs = 0;
  /** There is not half of the reserve that is wanted. */
  let isShort = false;
  let allottedAtMs = beganAtMs;
  /** When `allotted` was: its instants count from then. */
  let solvedAtMs = beganAtMs;
  let energyJ = 0;

  /** Its instants count from the `allot` that asks: so they stay as small as what is left, however long it has run. What has ended has ended before that. */
  function allotmentOf(needed: readonly WorkflowEdge[]): SlackAllotment {
    const anew = createSlackAllotment({ frontiers: nodes.map(({ part }) => part.frontier), edges: needed, deadlineMs: deadlineAtMs - beganAtMs });
    for (const [place, { state }] of nodes.entries()) if (state === 'ended') anew.endedAt(place, 0);
    return anew;
  }

  /** What has begun does not wait for these any more. The order of what is left is still one. */
  function unneed(place: number, isNeeded: (before: Node) => boolean): void {
    const needs = graph.needs[place] as number[];
    const dropped = new Set(needs.filter((before) => !isNeeded(nodes[before] as Node)));
    if (dropped.size === 0) return;
    for (const before of dropped) graph.neededBy[before] = (graph.neededBy[before] as number[]).filter((after) => after !== place);
    graph.needs[place] = needs.filter((before) => !dropped.has(before));
    stale = true;
  }

  function nodeAt(stage: string): { readonly node: Node; readonly place: number } | null {
    const place = places.get(stage);
    return place === undefined ? null : { node: nodes[place] as Node, place };
  }

  function end(place: number, atMs: number): void {
    const node = nodes[place] as Node;
    if (node.state === 'ended') return;
    node.state = 'ended';
    node.endedAtMs = atMs;
    node.leftShare = 0;
    // One that is made anew is told of all that has ended.
    if (!stale) slack.endedAt(place, 0);
  }

  /** Who calls has what it needs: all before it has ended that is not a call we see running, and that nobody who had to wait for it needs. */
  function endBefore(place: number, nowMs: number): void {
    const open = [...(graph.needs[place] as number[])];
    const seen = new Set<number>();
    let runs = false;
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (seen.has(next)) continue;
      seen.add(next);
      const { state, part } = nodes[next] as Node;
      if (state === 'ended') continue;
      if (state === 'running' && part.kind === 'call') {
        runs = true;
        continue;
      }
      end(next, nowMs);
      open.push(...(graph.needs[next] as number[]));
    }
    if (!runs) return;
    for (const node of [place, ...seen]) if (node === place || (nodes[node] as Node).state === 'ended') unneed(node, ({ state }) => state === 'ended');
  }

  /** A tool begins by itself. */
  function beginTools(): void {
    for (const place of graph.order) {
      const node = nodes[place] as Node;
      if (node.part.kind !== 'tool' || node.state !== 'waiting' || !isReady(place)) continue;
      node.state = 'running';
      node.beganAtMs = Math.max(beganAtMs, ...(graph.needs[place] as number[]).map((before) => (nodes[before] as Node).endedAtMs));
    }
  }

  function isReady(place: number): boolean {
    return (graph.needs[place] as number[]).every((before) => (nodes[before] as Node).state === 'ended');
  }

  /** Of a tool that has taken its time and is still waited for: any moment now. */
  function toolLeftMs({ part, beganAtMs: fromMs }: Node, nowMs: number): number {
    return Math.max(0, fromMs + (part.frontier[0]?.timeMs ?? 0) - nowMs);
  }

  /**
   * Of what is left at its fastest: how long the longest path takes by expected times, and when all of it has ended as a random time: sums of what
   * is in series, and of what is side by side the larger, as if independent.
   */
  function longestLeft(nowMs: number): { readonly ms: number; readonly end: RandomTime } {
    const endsMs = new Float64Array(nodes.length);
    const ends: RandomTime[] = [];
    let ms = 0;
    let end = AT_ONCE;
    for (const place of graph.order) {
      const { part, fastestMs, state, leftShare, spreadMs } = nodes[place] as Node;
      ends[place] = AT_ONCE;
      if (state === 'ended') continue;
      let startMs = 0;
      let start = AT_ONCE;
      for (const need of graph.needs[place] as number[]) {
        startMs = Math.max(startMs, endsMs[need] as number);
        start = largerOf(start, ends[need] as RandomTime);
      }
      const ownMs = state === 'running' && part.kind === 'tool' ? toolLeftMs(nodes[place] as Node, nowMs) : leftShare * fastestMs;
      endsMs[place] = startMs + ownMs;
      const own = { meanMs: start.meanMs + ownMs, variance: start.variance + spreadMs ** 2 };
      ends[place] = own;
      ms = Math.max(ms, endsMs[place] as number);
      if ((graph.neededBy[place] as number[]).length === 0) end = largerOf(end, own);
    }
    return { ms, end };
  }

  return {
    verdict: () => verdict,
    has: (stage) => places.has(stage),
    stateOf: (stage) => nodeAt(stage)?.node.state ?? null,
    add(part, needs) {
      const place = nodes.push(nodeOf(part)) - 1;
      places.set(part.stage, place);
      const needed = needs.flatMap((stage) => nodeAt(stage)?.place ?? []);
      for (const before of needed) (graph.neededBy[before] as number[]).push(place);
      graph.order.push(place);
      graph.needs.push(needed);
      graph.neededBy.push([]);
      stale = true;
    },
    began(stage, nowMs) {
      const at = nodeAt(stage);
      if (at === null) return;
      endBefore(at.place, nowMs);
      const again = at.node.state === 'ended';
      at.node.state = 'running';
      at.node.beganAtMs = nowMs;
      at.node.leftShare = 1;
      // What has begun already had what it needs of it, and does not wait for it a second time.
      if (again) for (const after of graph.neededBy[at.place] as number[]) if ((nodes[after] as Node).state !== 'waiting') unneed(after, (before) => before !== at.node);
    },
    isStale: () => stale,
    progressed(stage, leftMs, spreadMs) {
      const at = nodeAt(stage);
      if (at?.node.state !== 'running') return;
      at.node.spreadMs = spreadMs;
      at.node.leftShare = Math.max(0, leftMs) / Math.max(TINY_MS, at.node.fastestMs);
    },
    ended(stage, nowMs) {
      const at = nodeAt(stage);
      if (at !== null) end(at.place, nowMs);
    },
    failed(stage) {
      const at = nodeAt(stage);
      if (at === null || at.node.state !== 'running') return;
      at.node.state = 'waiting';
      at.node.leftShare = 1;
      at.node.spreadMs = at.node.part.spreadMs;
    },
    isOver(nowMs) {
      beginTools();
      return nodes.every((node) => node.state === 'ended' || (node.part.kind === 'tool' && node.state === 'running' && toolLeftMs(node, nowMs) === 0));
    },
    allot(nowMs, caution) {
      beginTools();
      if (stale) slack = allotmentOf(graph.needs.flatMap((needs, after) => needs.map((before): WorkflowEdge => [before, after])));
      stale = false;
      for (const [place, node] of nodes.entries()) {
        if (node.state === 'ended' || (node.state === 'waiting' && !isReady(place))) continue;
        const isTool = node.state === 'running' && node.part.kind === 'tool';
        slack.remains(place, 0, isTool ? toolLeftMs(node, nowMs) / Math.max(TINY_MS, node.fastestMs) : node.leftShare);
      }
      const left = longestLeft(nowMs);
      fastestLeftMs = left.ms;
      const inTimeMs = deadlineAtMs - nowMs;
      verdict = left.ms <= inTimeMs ? 'meets' : left.ms * LUCKY_SHARE <= inTimeMs ? 'late' : 'lost';
      // Where there is no room for the reserve, all that there is is used up: everything at its fastest.
      const reserveMs = left.end.meanMs - left.ms + caution * Math.sqrt(left.end.variance);
      const plannedMs = Math.max(left.ms * (1 + ROUNDING_SHARE) + ROUNDING_MS, inTimeMs - reserveMs);
      isShort = inTimeMs - reserveMs / 2 < left.ms;
      allottedAtMs = nowMs;
      slack.setDeadline(plannedMs);
      const solved = slack.solve();
      // The longest path at its fastest can be met, but for what rounding does to times without end: what was allotted before stands then.
      if (solved.kind === 'infeasible') return;
      allotted = solved.nodes;
      energyJ = solved.energyJ;
      solvedAtMs = nowMs;
      latestAtMs = latestEnds(graph, allotted, plannedMs);
    },
    due(stage) {
      const at = nodeAt(stage);
      if (at === null || verdict === 'lost') return { atMs: verdict === 'lost' ? Number.POSITIVE_INFINITY : deadlineAtMs, moves: false };
      if (stale) return { atMs: Math.max(allottedAtMs, at.node.beganAtMs) + HURRIED * at.node.leftShare * at.node.fastestMs, moves: false };
      const isLast = (graph.neededBy[at.place] as number[]).length === 0;
      // What nothing waits for has until the deadline itself: its reserve is the planner's own caution.
      const dueAtMs = isLast && verdict === 'meets' ? deadlineAtMs : solvedAtMs + (latestAtMs[at.place] as number);
      const hurriedAtMs = allottedAtMs + HURRIED * at.node.leftShare * at.node.fastestMs;
      return isShort && dueAtMs < hurriedAtMs ? { atMs: hurriedAtMs, moves: false } : { atMs: dueAtMs, moves: !isLast };
    },
    parts: () =>
      nodes.map(({ part: { stage, kind }, state, beganAtMs: fromMs, endedAtMs }, place) => ({
        stage,
        kind,
        state,
        startAtMs: state === 'waiting' ? solvedAtMs + (allotted[place]?.startAtMs ?? 0) : fromMs,
        dueAtMs: state === 'ended' ? endedAtMs : solvedAtMs + (latestAtMs[place] ?? 0),
        energyJ: state === 'ended' ? 0 : (allotted[place]?.energyJ ?? 0),
      })),
    fastestLeftMs: () => fastestLeftMs,
    energyJ: () => energyJ,
  };
}

/** By its mean and variance; taken for normal. */
interface RandomTime {
  readonly meanMs: number;
  readonly variance: number;
}

const AT_ONCE: RandomTime = { meanMs: 0, variance: 0 };

/** The larger of two, neither below 0, as if independent (Clark, The greatest of a finite set of random variables, Operations Research 9, 1961). */
function largerOf(a: RandomTime, b: RandomTime): RandomTime {
  if (a === AT_ONCE || b === AT_ONCE) return a === AT_ONCE ? b : a;
  const spread = Math.sqrt(a.variance + b.variance);
  const apart = a.meanMs - b.meanMs;
  if (Math.abs(apart) >= SURE_DEVIATIONS * spread) return apart >= 0 ? a : b;
  const deviations = apart / spread;
  const density = Math.exp(-(deviations ** 2) / 2) / Math.sqrt(2 * Math.PI);
  const share = normalShare(deviations);
  const meanMs = a.meanMs * share + b.meanMs * (1 - share) + spread * density;
  const square = (a.meanMs ** 2 + a.variance) * share + (b.meanMs ** 2 + b.variance) * (1 - share) + (a.meanMs + b.meanMs) * spread * density;
  return { meanMs, variance: Math.max(0, square - meanMs ** 2) };
}

/** So far apart the later one is later for certain. */
const SURE_DEVIATIONS = 4;

/** Below so many deviations; logistic, within a hundredth of the normal distribution. */
function normalShare(deviations: number): number {
  return 1 / (1 + Math.exp(-1.702 * deviations));
}

/** So that a part that takes no time has shares, too; and what rounding may add up to. */
const TINY_MS = 1e-9;
const ROUNDING_MS = 1e-3;
const ROUNDING_SHARE = 1e-9;

function nodeOf(part: RunPart): Node {
  return { part, fastestMs: fastestOf(part), state: 'waiting', beganAtMs: 0, endedAtMs: 0, leftShare: 1, spreadMs: part.spreadMs };
}

function fastestOf({ frontier }: RunPart): number {
  return frontier.reduce((least, { timeMs }) => Math.min(least, timeMs), Number.POSITIVE_INFINITY);
}

interface Graph {
  readonly order: number[];
  readonly needs: number[][];
  readonly neededBy: number[][];
}

function graphOf(count: number, edges: readonly WorkflowEdge[]): Graph {
  const order = topologicalOrder(count, edges);
  const needs: number[][] = Array.from({ length: count }, () => []);
  const neededBy: number[][] = Array.from({ length: count }, () => []);
  for (const [before, after] of edges) {
    needs[after]?.push(before);
    neededBy[before]?.push(after);
  }
  return { order, needs, neededBy };
}

/** Of each part the instant by which it must have ended so that what needs it can have the time that it is allotted. */
function latestEnds({ order, neededBy }: Graph, allotted: readonly { readonly timeMs: number }[], endMs: number): Float64Array {
  const latest = new Float64Array(allotted.length).fill(endMs);
  for (const place of order.toReversed()) {
    for (const after of neededBy[place] as number[]) latest[place] = Math.min(latest[place] as number, (latest[after] as number) - (allotted[after]?.timeMs ?? 0));
  }
  return latest;
}
