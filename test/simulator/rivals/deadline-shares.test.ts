// Sharing a workflow's deadline out among its calls beforehand.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { longestMs } from '../../../src/core/workflow-frontier.ts';
import { callSlos, type SharedPart } from '../../../src/simulator/rivals/deadline-shares.ts';

const part = (kind: SharedPart['kind'], timeMs: number): SharedPart => ({ kind, timeMs });
const CHAIN = [part('call', 100), part('tool', 200), part('call', 300)];
const EDGES = [[0, 1], [1, 2]] as const;

describe('of a chain', () => {
  test('an equal share is what tools leave, by the number of calls', () => {
    expect(callSlos('equal', CHAIN, EDGES, 1_000).map(({ e2eMs }) => e2eMs && Math.round(e2eMs))).toEqual([400, undefined, 400]);
  });

  test('a proportional one by what each takes', () => {
    expect(callSlos('proportional', CHAIN, EDGES, 1_000).map(({ e2eMs }) => e2eMs && Math.round(e2eMs))).toEqual([200, undefined, 600]);
  });
});

test('of a graph, the path that binds is within the deadline and at it', () => {
  const graphs = fc.integer({ min: 1, max: 8 }).chain((nodes) =>
    fc.record({
      parts: fc.array(fc.record({ kind: fc.constantFrom<SharedPart['kind']>('call', 'call', 'tool'), timeMs: fc.integer({ min: 1, max: 500 }) }), { minLength: nodes, maxLength: nodes }),
      edges: fc.array(fc.tuple(fc.integer({ min: 0, max: nodes - 1 }), fc.integer({ min: 0, max: nodes - 1 })), { maxLength: 12 }).map((pairs) => pairs.filter(([a, b]) => a < b)),
    }),
  );
  fc.assert(
    fc.property(graphs, fc.constantFrom('equal' as const, 'proportional' as const), ({ parts, edges }, share) => {
      fc.pre(parts.some(({ kind }) => kind === 'call'));
      const deadlineMs = 100_000;
      const slos = callSlos(share, parts, edges, deadlineMs);
      const takesMs = longestMs(parts.map(({ timeMs }, place) => slos[place]?.e2eMs ?? timeMs), edges);
      expect(takesMs).toBeLessThanOrEqual(deadlineMs + 1e-3);
      expect(takesMs).toBeGreaterThan(deadlineMs - 1);
    }),
    { numRuns: 300 },
  );
});

test('a deadline that tools alone take leaves nothing for calls', () => {
  expect(callSlos('equal', CHAIN, EDGES, 100)[0]?.e2eMs).toBe(1);
});
