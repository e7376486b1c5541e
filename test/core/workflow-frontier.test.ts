// The least energy of a whole workflow by its deadline: its bends against solutions at any deadline.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createSlackAllotment, energyAt, type TradeOffPoint } from '../../src/core/slack-allotment.ts';
import { timingsOf, workflowFrontier } from '../../src/core/workflow-frontier.ts';

const point = (timeMs: number, energyJ: number): TradeOffPoint => ({ timeMs, energyJ });

const graph = fc.integer({ min: 1, max: 12 }).chain((nodes) =>
  fc.record({
    frontiers: fc.array(fc.array(fc.record({ timeMs: fc.integer({ min: 1, max: 500 }), energyJ: fc.double({ min: 0.1, max: 900, noNaN: true }) }), { minLength: 1, maxLength: 6 }), { minLength: nodes, maxLength: nodes }),
    edges: fc.array(fc.tuple(fc.integer({ min: 0, max: nodes - 1 }), fc.integer({ min: 0, max: nodes - 1 })), { maxLength: 20 }).map((pairs) => pairs.filter(([a, b]) => a < b)),
    share: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
);

function solvedJ(frontiers: readonly (readonly TradeOffPoint[])[], edges: readonly (readonly [number, number])[], deadlineMs: number): number {
  const solved = createSlackAllotment({ frontiers, edges, deadlineMs }).solve();
  return solved.kind === 'meets' ? solved.energyJ : Number.POSITIVE_INFINITY;
}

test('between its bends and at them the energy is that of a solution for that deadline, it falls, and ever more slowly', () => {
  fc.assert(
    fc.property(graph, ({ frontiers, edges, share }) => {
      const { points, thinned } = workflowFrontier({ frontiers, edges });
      const [first, last] = [points[0] as TradeOffPoint, points.at(-1) as TradeOffPoint];
      expect(thinned).toBe(false);
      const atMs = first.timeMs + share * (last.timeMs - first.timeMs) + 1e-6;
      expect(energyAt(points, atMs)).toBeCloseTo(solvedJ(frontiers, edges, atMs), 2);
      for (const { timeMs, energyJ } of points) expect(solvedJ(frontiers, edges, timeMs + 1e-6)).toBeCloseTo(energyJ, 2);
      expect(solvedJ(frontiers, edges, first.timeMs - 1e-3)).toBe(Number.POSITIVE_INFINITY);
      expect(solvedJ(frontiers, edges, 2 * last.timeMs)).toBeCloseTo(last.energyJ, 2);
      const slopes = points.slice(1).map((slow, index) => ((points[index] as TradeOffPoint).energyJ - slow.energyJ) / (slow.timeMs - (points[index] as TradeOffPoint).timeMs));
      for (const [index, slope] of slopes.entries()) expect(slope).toBeLessThanOrEqual((slopes[index - 1] ?? Number.POSITIVE_INFINITY) + 1e-6);
    }),
    { numRuns: 300, seed: 31 },
  );
}, 60_000);

test('of a chain the bends are those of its nodes, the dearest milliseconds first', () => {
  const { points } = workflowFrontier({ frontiers: [[point(10, 30), point(20, 10)], [point(5, 9), point(10, 4), point(20, 2)]], edges: [[0, 1]] });
  expect(points.map(({ timeMs, energyJ }) => [Math.round(timeMs), Math.round(energyJ)])).toEqual([[15, 39], [25, 19], [30, 14], [40, 12]]);
});

test('more bends than are wanted are thinned to the best, and what the lines between may be off by is told', () => {
  const frontiers = Array.from({ length: 10 }, (_, node) => Array.from({ length: 12 }, (_unused, index) => point(10 + index, (100 + node) / (1 + index))));
  const edges = frontiers.slice(1).map((_, node) => [node, node + 1] as const);
  const all = workflowFrontier({ frontiers, edges });
  const few = workflowFrontier({ frontiers, edges, pointsMax: 12 });
  expect(all.thinned).toBe(false);
  expect(all.points.length).toBeGreaterThan(100);
  expect(few.thinned).toBe(true);
  expect(few.points.length).toBeLessThanOrEqual(12);
  for (const { timeMs, energyJ } of all.points) {
    expect(energyAt(few.points, timeMs)).toBeGreaterThanOrEqual(energyJ - 1e-3);
    expect(energyAt(few.points, timeMs)).toBeLessThanOrEqual(energyJ + few.missingJ + 1e-3);
  }
});

test('tools alone, or nodes with one point, have one point', () => {
  expect(workflowFrontier({ frontiers: [[point(10, 0)], [point(5, 3)]], edges: [[0, 1]] })).toEqual({ points: [{ timeMs: 15, energyJ: 3 }], thinned: false, missingJ: 0 });
});

test('what has no float holds up the whole', () => {
  expect(timingsOf([10, 5, 7, 1], [[0, 1], [0, 2], [1, 3], [2, 3]])).toEqual([
    { startAtMs: 0, endAtMs: 10, floatMs: 0 },
    { startAtMs: 10, endAtMs: 15, floatMs: 2 },
    { startAtMs: 10, endAtMs: 17, floatMs: 0 },
    { startAtMs: 17, endAtMs: 18, floatMs: 0 },
  ]);
});
