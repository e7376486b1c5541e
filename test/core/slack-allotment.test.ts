// The least energy within a deadline, over graphs of parts: against every allotment there is where they can be counted, and laws where they cannot.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createSlackAllotment, energyAt, lowerHull, topologicalOrder, type TradeOffPoint } from '../../src/core/slack-allotment.ts';

type Edges = readonly (readonly [number, number])[];

const point = (timeMs: number, energyJ: number): TradeOffPoint => ({ timeMs, energyJ });
const FRONTIER = [point(10, 50), point(14, 36), point(20, 27), point(30, 22)];

/** Of a few nodes with whole times up to six: so that every allotment can be tried. */
const smallGraph = fc.integer({ min: 1, max: 5 }).chain((nodes) =>
  fc.record({
    frontiers: fc.array(fc.array(fc.record({ timeMs: fc.integer({ min: 0, max: 5 }), energyJ: fc.integer({ min: 0, max: 40 }) }), { minLength: 1, maxLength: 4 }), { minLength: nodes, maxLength: nodes }),
    edges: fc.array(fc.tuple(fc.integer({ min: 0, max: nodes - 1 }), fc.integer({ min: 0, max: nodes - 1 })), { maxLength: 8 }).map((pairs) => pairs.filter(([a, b]) => a < b)),
    deadlineMs: fc.integer({ min: 0, max: 20 }),
  }),
);

const largeGraph = fc.integer({ min: 20, max: 200 }).chain((nodes) =>
  fc.record({
    frontiers: fc.array(fc.array(fc.record({ timeMs: fc.double({ min: 1, max: 500, noNaN: true }), energyJ: fc.double({ min: 0.1, max: 900, noNaN: true }) }), { minLength: 1, maxLength: 12 }), { minLength: nodes, maxLength: nodes }),
    edges: fc.array(fc.tuple(fc.integer({ min: 0, max: nodes - 1 }), fc.integer({ min: 1, max: 12 })), { minLength: nodes, maxLength: 3 * nodes }).map((pairs) => pairs.flatMap(([from, by]): [number, number][] => (from + by < nodes ? [[from, from + by]] : []))),
    share: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
);

function makespan(order: readonly number[], edges: Edges, timesMs: readonly number[]): number {
  const endsAtMs = timesMs.map(() => 0);
  for (const node of order) {
    const startMs = Math.max(0, ...edges.filter(([, after]) => after === node).map(([before]) => endsAtMs[before] as number));
    endsAtMs[node] = startMs + (timesMs[node] as number);
  }
  return Math.max(0, ...endsAtMs);
}

/** With whole times and a whole deadline some optimum has whole times (the problem's matrix is totally unimodular), so these are all there are. */
function bruteForce(hulls: readonly (readonly TradeOffPoint[])[], edges: Edges, deadlineMs: number): number | null {
  const order = topologicalOrder(hulls.length, edges);
  let best: number | null = null;
  const timesMs: number[] = [];
  const tryFrom = (node: number, energyJ: number): void => {
    const hull = hulls[node];
    if (hull === undefined) {
      if ((best === null || energyJ < best) && makespan(order, edges, timesMs) <= deadlineMs) best = energyJ;
      return;
    }
    for (let timeMs = (hull[0] as TradeOffPoint).timeMs; timeMs <= (hull.at(-1) as TradeOffPoint).timeMs; timeMs++) {
      timesMs[node] = timeMs;
      tryFrom(node + 1, energyJ + energyAt(hull, timeMs));
    }
  };
  tryFrom(0, 0);
  return best;
}

/** That its times keep the deadline and the order, and cost what it says. */
function checked(allotment: ReturnType<ReturnType<typeof createSlackAllotment>['solve']>, hulls: readonly (readonly TradeOffPoint[])[], edges: Edges, deadlineMs: number): number {
  if (allotment.kind !== 'meets') throw new Error('it is infeasible');
  for (const [before, after] of edges) expect(allotment.nodes[before]?.deadlineAtMs).toBeLessThanOrEqual((allotment.nodes[after]?.startAtMs ?? 0) + 1e-6);
  for (const [node, { startAtMs, timeMs, deadlineAtMs, energyJ }] of allotment.nodes.entries()) {
    const hull = hulls[node] as readonly TradeOffPoint[];
    expect(startAtMs).toBeGreaterThanOrEqual(-1e-6);
    expect(timeMs).toBeGreaterThanOrEqual((hull[0] as TradeOffPoint).timeMs - 1e-6);
    expect(deadlineAtMs).toBeLessThanOrEqual(deadlineMs + 1e-6);
    expect(energyJ).toBeCloseTo(energyAt(hull, timeMs), 6);
  }
  return allotment.energyJ;
}

test('the optimum is that of trying every allotment, over ten thousand graphs', () => {
  fc.assert(
    fc.property(smallGraph, ({ frontiers, edges, deadlineMs }) => {
      const hulls = frontiers.map(lowerHull);
      const best = bruteForce(hulls, edges, deadlineMs);
      const allotment = createSlackAllotment({ frontiers, edges, deadlineMs }).solve();
      if (best === null) {
        expect(allotment).toEqual({ kind: 'infeasible', fastestMs: makespan(topologicalOrder(hulls.length, edges), edges, hulls.map((hull) => (hull[0] as TradeOffPoint).timeMs)) });
      } else expect(checked(allotment, hulls, edges, deadlineMs)).toBeCloseTo(best, 6);
    }),
    { numRuns: 10_000, seed: 11 },
  );
}, 120_000);

test('after a change the optimum is that of a new problem: what began, what ended early or late, another deadline', () => {
  fc.assert(
    fc.property(smallGraph, fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 25 }), ({ frontiers, edges, deadlineMs }, endsAtMs, startsAtMs, laterMs) => {
      const allotment = createSlackAllotment({ frontiers, edges, deadlineMs });
      allotment.solve();
      // The first in order has ended; all others can begin no sooner than now.
      const [first, ...others] = topologicalOrder(frontiers.length, edges) as [number, ...number[]];
      allotment.endedAt(first, endsAtMs);
      for (const node of others) allotment.startsAt(node, Math.min(startsAtMs, endsAtMs));
      allotment.setDeadline(laterMs);
      const changed = allotment.solve();
      // The same as a graph with a node of just that time, and one before each other that takes until it may begin.
      const nodes = frontiers.length;
      const hulls = [...frontiers.map((points, node) => (node === first ? [point(endsAtMs, 0)] : lowerHull(points))), ...others.map(() => [point(Math.min(startsAtMs, endsAtMs), 0)])];
      const withReleases: Edges = [...edges, ...others.map((node, index) => [nodes + index, node] as const)];
      const anew = createSlackAllotment({ frontiers: hulls, edges: withReleases, deadlineMs: laterMs }).solve();
      expect(changed.kind).toBe(anew.kind);
      if (changed.kind === 'meets' && anew.kind === 'meets') expect(changed.energyJ).toBeCloseTo(anew.energyJ, 6);
      if (changed.kind === 'infeasible' && anew.kind === 'infeasible') expect(changed.fastestMs).toBe(anew.fastestMs);
      // And it can be taken back: with all the time there is, everything that is left takes its least.
      allotment.setDeadline(1_000);
      const slow = allotment.solve();
      expect(slow.kind === 'meets' ? slow.energyJ : null).toBeCloseTo(others.reduce((sum, node) => sum + (lowerHull(frontiers[node] ?? []).at(-1)?.energyJ ?? 0), 0), 6);
    }),
    { numRuns: 3_000, seed: 12 },
  );
}, 120_000);

test('with a share of some nodes left the optimum is that of a new problem with so much shorter frontiers', () => {
  const partlyDone = smallGraph.chain((graph) => fc.tuple(fc.constant(graph), fc.array(fc.record({ share: fc.constantFrom(0, 0.25, 0.5, 0.9, 1), fromMs: fc.integer({ min: 0, max: 8 }) }), { minLength: graph.frontiers.length, maxLength: graph.frontiers.length })));
  fc.assert(
    fc.property(partlyDone, ({ 0: { frontiers, edges, deadlineMs }, 1: left }) => {
      const allotment = createSlackAllotment({ frontiers, edges, deadlineMs });
      allotment.solve();
      for (const [node, { share, fromMs }] of left.entries()) {
        allotment.remains(node, fromMs + 1, 0.5);
        allotment.remains(node, fromMs, share);
      }
      const nodes = frontiers.length;
      const shorter = frontiers.map((points, node) => points.map(({ timeMs, energyJ }) => point(timeMs * (left[node]?.share ?? 1), energyJ * (left[node]?.share ?? 1))));
      const hulls = [...shorter.map(lowerHull), ...left.map(({ fromMs }) => [point(fromMs, 0)])];
      const released: Edges = [...edges, ...left.map((_, node) => [nodes + node, node] as const)];
      const anew = createSlackAllotment({ frontiers: hulls, edges: released, deadlineMs }).solve();
      const changed = allotment.solve();
      expect(changed.kind).toBe(anew.kind);
      if (changed.kind === 'meets' && anew.kind === 'meets') {
        expect(changed.energyJ).toBeCloseTo(anew.energyJ, 6);
        expect(checked(changed, hulls, edges, deadlineMs)).toBeCloseTo(anew.energyJ, 6);
        for (const [node, { startAtMs }] of changed.nodes.entries()) expect(startAtMs).toBeGreaterThanOrEqual((left[node]?.fromMs ?? 0) - 1e-6);
      }
      if (changed.kind === 'infeasible' && anew.kind === 'infeasible') expect(changed.fastestMs).toBeCloseTo(anew.fastestMs, 9);
    }),
    { numRuns: 3_000, seed: 14 },
  );
}, 120_000);

test('as a workflow goes on, early and late, every solution from the last one is that of a new problem that is told the same', () => {
  const played = largeGraph.chain((graph) => fc.tuple(fc.constant(graph), fc.array(fc.double({ min: 0.5, max: 1.4, noNaN: true }), { minLength: graph.frontiers.length, maxLength: graph.frontiers.length })));
  fc.assert(
    fc.property(played, ([{ frontiers, edges, share }, luck]) => {
      const order = topologicalOrder(frontiers.length, edges);
      const hulls = frontiers.map(lowerHull);
      const [fastestMs, slowestMs] = [makespan(order, edges, hulls.map((hull) => hull[0]?.timeMs ?? 0)), makespan(order, edges, hulls.map((hull) => hull.at(-1)?.timeMs ?? 0))];
      const deadlineMs = fastestMs + share * (slowestMs - fastestMs) + 1e-3;
      const warm = createSlackAllotment({ frontiers, edges, deadlineMs });
      const told: ((graph: typeof warm) => void)[] = [];
      const tell = (change: (graph: typeof warm) => void): void => {
        told.push(change);
        change(warm);
      };
      for (const [index, node] of order.entries()) {
        const solved = warm.solve();
        if (solved.kind === 'infeasible') {
          tell((graph) => graph.setDeadline(solved.fastestMs * 1.02));
          continue;
        }
        const { startAtMs, timeMs } = solved.nodes[node] as (typeof solved.nodes)[number];
        const atMs = startAtMs + timeMs * (luck[index] as number);
        if (index % 3 === 0) tell((graph) => graph.remains(node, startAtMs + 0.4 * timeMs, 0.6 * (luck[index] as number)));
        else tell((graph) => graph.endedAt(node, atMs));
        if (index % 7 === 0) tell((graph) => graph.startsAt(order.at(-1) as number, atMs));
        if (index % 10 !== 0) continue;
        const anew = createSlackAllotment({ frontiers, edges, deadlineMs });
        for (const change of told) change(anew);
        const [fromLast, fromNew] = [warm.solve(), anew.solve()];
        expect(fromLast.kind).toBe(fromNew.kind);
        if (fromLast.kind === 'meets' && fromNew.kind === 'meets') expect(fromLast.energyJ / Math.max(1, fromNew.energyJ)).toBeCloseTo(fromNew.energyJ / Math.max(1, fromNew.energyJ), 6);
        if (fromLast.kind === 'infeasible' && fromNew.kind === 'infeasible') expect(fromLast.fastestMs).toBeCloseTo(fromNew.fastestMs, 6);
      }
    }),
    { numRuns: 40, seed: 16 },
  );
}, 120_000);

test('the price of the deadline lies between what a little more of it saves and what a little less costs', () => {
  fc.assert(
    fc.property(smallGraph, ({ frontiers, edges, deadlineMs }) => {
      const allotment = createSlackAllotment({ frontiers, edges, deadlineMs });
      const energyAtDeadline = (atMs: number): number => {
        allotment.setDeadline(atMs);
        const solved = allotment.solve();
        return solved.kind === 'meets' ? solved.energyJ : Number.POSITIVE_INFINITY;
      };
      const [later, sooner, now] = [energyAtDeadline(deadlineMs + 0.5), energyAtDeadline(deadlineMs - 0.5), energyAtDeadline(deadlineMs)];
      if (now === Number.POSITIVE_INFINITY) return;
      expect(allotment.marginalJPerMs()).toBeGreaterThanOrEqual((now - later) / 0.5 - 1e-6);
      expect(allotment.marginalJPerMs()).toBeLessThanOrEqual((sooner - now) / 0.5 + 1e-6);
    }),
    { numRuns: 2_000, seed: 15 },
  );
}, 120_000);

test('of a large graph the allotment keeps order and deadline, more time never costs more, and with all of it each node takes its least', () => {
  fc.assert(
    fc.property(largeGraph, ({ frontiers, edges, share }) => {
      const hulls = frontiers.map(lowerHull);
      const order = topologicalOrder(hulls.length, edges);
      const [fastestMs, slowestMs] = [makespan(order, edges, hulls.map((hull) => hull[0]?.timeMs ?? 0)), makespan(order, edges, hulls.map((hull) => hull.at(-1)?.timeMs ?? 0))];
      const deadlineMs = fastestMs + share * (slowestMs - fastestMs) + 1e-3;
      const allotment = createSlackAllotment({ frontiers, edges, deadlineMs });
      const energyJ = checked(allotment.solve(), hulls, edges, deadlineMs);
      const leastJ = hulls.reduce((sum, hull) => sum + (hull.at(-1)?.energyJ ?? 0), 0);
      expect(energyJ).toBeGreaterThanOrEqual(leastJ - 1e-6);
      allotment.setDeadline(deadlineMs * 1.1);
      expect(checked(allotment.solve(), hulls, edges, deadlineMs * 1.1)).toBeLessThanOrEqual(energyJ + 1e-6);
      allotment.setDeadline(slowestMs + 1e-3);
      expect(checked(allotment.solve(), hulls, edges, slowestMs + 1e-3)).toBeCloseTo(leastJ, 3);
      allotment.setDeadline(fastestMs - 0.5);
      expect(allotment.solve()).toMatchObject({ kind: 'infeasible', fastestMs: expect.closeTo(fastestMs, 6) });
    }),
    { numRuns: 60, seed: 13 },
  );
}, 120_000);

describe('a workflow', () => {
  test('of two branches hurries only the longer one: nobody hurries to wait', () => {
    const allotment = createSlackAllotment({ frontiers: [FRONTIER, FRONTIER, FRONTIER], edges: [[0, 1]], deadlineMs: 40 }).solve();
    expect(allotment.kind === 'meets' ? allotment.nodes.map(({ timeMs }) => timeMs) : []).toEqual([20, 20, 30]);
  });

  test('of which one part has ended late, lets the others of its level slow down', () => {
    const graph = createSlackAllotment({ frontiers: [FRONTIER, FRONTIER, FRONTIER], edges: [[0, 2], [1, 2]], deadlineMs: 40 });
    const before = graph.solve();
    graph.endedAt(0, 25);
    const after = graph.solve();
    expect(before.kind === 'meets' ? before.nodes[1]?.timeMs : null).toBe(20);
    expect(after.kind === 'meets' ? after.nodes[1]?.timeMs : null).toBe(25);
    graph.endedAt(1, 24);
    graph.endedAt(0, 31);
    expect(graph.solve()).toEqual({ kind: 'infeasible', fastestMs: 41 });
  });

  test('of which a part has begun, spends what is left of it over what is left of the time', () => {
    const graph = createSlackAllotment({ frontiers: [FRONTIER, FRONTIER], edges: [[0, 1]], deadlineMs: 40 });
    graph.solve();
    expect(graph.marginalJPerMs()).toBeGreaterThanOrEqual(0.5);
    graph.remains(0, 30, 0.1);
    const late = graph.solve();
    expect(late).toEqual({ kind: 'infeasible', fastestMs: 41 });
    graph.remains(0, 15, 0.5);
    // 25 ms for half of the first and all of the second.
    const half = graph.solve();
    expect(half.kind === 'meets' ? half.nodes.map(({ timeMs }) => timeMs) : []).toEqual([7, 18]);
    expect(half.kind === 'meets' ? half.nodes[0]?.energyJ : null).toBe(18);
    expect(() => graph.remains(0, 15, -0.1)).toThrow(/node 0: got a share of -0.1 that is left, want 0 or more/);
    expect(() => graph.remains(0, 15, Number.NaN)).toThrow(/node 0: got a share of NaN/);
  });

  test.each([
    ['a cycle', [[0, 1], [1, 2], [2, 0]], /cycle among the nodes 0, 1, 2/],
    ['itself', [[1, 1]], /cycle among the nodes 1/],
    ['an unknown node', [[0, 7]], /edge 0 to 7: there is no node 7; there are 0 to 2/],
  ] as const)('with an edge to %s is refused', (_, edges, message) => {
    expect(() => createSlackAllotment({ frontiers: [FRONTIER, FRONTIER, FRONTIER], edges, deadlineMs: 40 })).toThrow(message);
  });

  test('of nothing, or of a node without a frontier', () => {
    expect(createSlackAllotment({ frontiers: [], edges: [], deadlineMs: 1 }).solve()).toEqual({ kind: 'meets', nodes: [], energyJ: 0, exact: true });
    expect(() => createSlackAllotment({ frontiers: [[]], edges: [], deadlineMs: 1 })).toThrow(/node 0: has no point/);
  });
});

test('a hull has only points that no line between two others passes below', () => {
  expect(lowerHull([point(1, 10), point(2, 9), point(3, 2), point(4, 1.9), point(5, 3)])).toEqual([point(1, 10), point(3, 2), point(4, 1.9)]);
  expect(lowerHull([point(3, 3), point(3, 2), point(2, 2)])).toEqual([point(2, 2)]);
});
