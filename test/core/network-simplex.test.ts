// The least cost of what goes round a network: every solution is checked by the conditions that only an optimum keeps.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Arc, createNetworkSimplex, type NetworkSimplex } from '../../src/core/network-simplex.ts';

const TOLERANCE = 1e-9;

/** A star of costly arcs from node 0 holds the first tree; all others are any, with up to three pieces. */
const network = fc.integer({ min: 2, max: 6 }).chain((nodes) => {
  const node = fc.integer({ min: 0, max: nodes - 1 });
  const pieces = fc
    .array(fc.record({ width: fc.integer({ min: 0, max: 5 }), dearer: fc.integer({ min: 0, max: 6 }) }), { minLength: 1, maxLength: 3 })
    .chain((steps) => fc.integer({ min: -12, max: 8 }).map((first) => steps.map((_, index) => ({ upTo: steps.slice(0, index + 1).reduce((sum, { width }) => sum + width, 0), cost: first + steps.slice(1, index + 1).reduce((sum, { dearer }) => sum + dearer, 0) }))));
  return fc.record({ nodes: fc.constant(nodes), others: fc.array(fc.record({ from: node, to: node, pieces }).filter(({ from, to }) => from !== to), { maxLength: 14 }) });
});

function solverOf({ nodes, others }: { nodes: number; others: readonly Arc[] }): { simplex: NetworkSimplex; arcs: Arc[] } {
  const star = Array.from({ length: nodes - 1 }, (_, index): Arc => ({ from: 0, to: index + 1, pieces: [{ upTo: 1_000, cost: 100 }] }));
  const arcs = [...star, ...others];
  return { arcs, simplex: createNetworkSimplex(nodes, arcs, { root: 0, tree: star.map(({ to }, arc) => ({ node: to, arc })) }) };
}

/** Nothing is lost on the way, nothing beyond a bound, and neither one more nor one less on any arc would save. */
function expectOptimum(simplex: NetworkSimplex, nodes: number, arcs: readonly Arc[]): void {
  const balance = new Float64Array(nodes);
  for (const [index, { from, to, pieces }] of arcs.entries()) {
    const flow = simplex.flow(index);
    balance[from] = (balance[from] as number) - flow;
    balance[to] = (balance[to] as number) + flow;
    const saves = simplex.potential(to) - simplex.potential(from);
    const next = pieces.find(({ upTo }) => flow < upTo - 1e-9);
    const last = pieces.find(({ upTo }) => flow <= upTo + 1e-9);
    expect(last).toBeDefined();
    expect(flow).toBeGreaterThanOrEqual(0);
    if (next !== undefined) expect(next.cost - saves).toBeGreaterThanOrEqual(-1e-6);
    if (flow > 1e-9) expect((last?.cost ?? Number.POSITIVE_INFINITY) - saves).toBeLessThanOrEqual(1e-6);
  }
  for (const sum of balance) expect(sum).toBeCloseTo(0, 9);
}

test('what it finds is an optimum, of arcs with bounds and bends, and again after costs have changed', () => {
  fc.assert(
    fc.property(network, fc.array(fc.integer({ min: -10, max: 10 }), { minLength: 14, maxLength: 14 }), ({ nodes, others }, shifts) => {
      const { simplex, arcs } = solverOf({ nodes, others });
      expect(simplex.solve(TOLERANCE)).toBe('optimal');
      expectOptimum(simplex, nodes, arcs);
      const shifted = arcs.map((arc, index) => (index < nodes - 1 ? arc : { ...arc, pieces: arc.pieces.map(({ upTo, cost }) => ({ upTo, cost: cost + (shifts[index - nodes + 1] as number) })) }));
      for (const [index, { pieces }] of shifted.entries()) simplex.setCosts(index, (piece) => (pieces[piece] as Arc['pieces'][number]).cost);
      expect(simplex.solve(TOLERANCE)).toBe('optimal');
      expectOptimum(simplex, nodes, shifted);
    }),
    { numRuns: 5_000, seed: 21 },
  );
}, 60_000);

test('a cycle without a bound that pays is unbounded, and once it does not pay any more there is an optimum', () => {
  const around = [{ from: 1, to: 2, pieces: [{ upTo: 3, cost: -5 }, { upTo: Number.POSITIVE_INFINITY, cost: -4 }] }, { from: 2, to: 1, pieces: [{ upTo: Number.POSITIVE_INFINITY, cost: 3 }] }];
  const { simplex, arcs } = solverOf({ nodes: 3, others: around });
  expect(simplex.solve(TOLERANCE)).toBe('unbounded');
  simplex.setCosts(3, () => 4.5);
  expect(simplex.solve(TOLERANCE)).toBe('optimal');
  expect([simplex.flow(2), simplex.flow(3)]).toEqual([3, 3]);
  expectOptimum(simplex, 3, [arcs[0] as Arc, arcs[1] as Arc, arcs[2] as Arc, { ...(arcs[3] as Arc), pieces: [{ upTo: Number.POSITIVE_INFINITY, cost: 4.5 }] }]);
});

test('of a long cycle that bends many times one pivot finds where it stops to pay', () => {
  const bends = Array.from({ length: 50 }, (_, piece) => ({ upTo: piece + 1, cost: -100 + piece }));
  const { simplex, arcs } = solverOf({ nodes: 3, others: [{ from: 1, to: 2, pieces: bends }, { from: 2, to: 1, pieces: [{ upTo: 1_000, cost: 70.5 }] }] });
  expect(simplex.solve(TOLERANCE)).toBe('optimal');
  expect(simplex.flow(2)).toBe(30);
  expect(simplex.pivots()).toBeLessThanOrEqual(2);
  expectOptimum(simplex, 3, arcs);
});
