// A workflow as people declare it: what is read, and what each mistake is told.
import { describe, expect, test } from 'vitest';
import { readWorkflow } from '../src/workflow-document.ts';

const NODES = [{ stage: 'plan', model: 'm', promptTokens: 800, outputTokens: 200 }, { stage: 'search', toolMs: 900 }, { stage: 'write', model: 'm' }];

/** Deeper than any stack. */
function nested(times: number): object {
  let inside: object = {};
  for (let turn = 0; turn < times; turn++) inside = { a: inside };
  return inside;
}

function problemsOf(value: unknown): readonly string[] {
  const reading = readWorkflow(value);
  return reading.kind === 'refused' ? reading.problems : [];
}

test('a workflow is read with its stages by their places', () => {
  expect(readWorkflow({ name: 'report', deadlineMs: 20_000, nodes: NODES, edges: [['plan', 'search'], ['search', 'write']] })).toEqual({
    kind: 'read',
    workflow: {
      name: 'report',
      deadlineMs: 20_000,
      nodes: [{ kind: 'call', stage: 'plan', model: 'm', promptTokens: 800, outputTokens: 200 }, { kind: 'tool', stage: 'search', timeMs: 900 }, { kind: 'call', stage: 'write', model: 'm' }],
      edges: [[0, 1], [1, 2]],
    },
  });
  expect(readWorkflow({ nodes: [{ stage: 'only', toolMs: 0 }] })).toEqual({ kind: 'read', workflow: { nodes: [{ kind: 'tool', stage: 'only', timeMs: 0 }], edges: [] } });
});

describe('is refused, and told why:', () => {
  test.each<[string, unknown, RegExp]>([
    ['no object', [1], /^the workflow: got a list of 1; want an object with nodes and, where there are any, name, deadlineMs and edges$/],
    ['nothing', null, /^the workflow: got null; want an object with nodes/],
    ['an unknown key', { nodes: NODES, deadline: 5 }, /^unknown key 'deadline'; known: name, deadlineMs, nodes, edges$/],
    ['a name that is no text', { name: 7, nodes: NODES }, /^name: got 7; want a text of 1 to 256 characters$/],
    ['no list of nodes', { deadlineMs: 5 }, /^nodes: got nothing; want a list of 1 to 1000 nodes$/],
    ['no nodes', { nodes: [] }, /^nodes: got a list of 0; want a list of 1 to 1000 nodes$/],
    ['too many nodes', { nodes: Array.from({ length: 1_001 }, (_, index) => ({ stage: `s${index}`, toolMs: 1 })) }, /^nodes: got a list of 1001; want a list of 1 to 1000 nodes$/],
    ['too many edges', { nodes: NODES, edges: Array.from({ length: 20_001 }, () => ['plan', 'write']) }, /^edges: got a list of 20001; want a list of at most 20000 edges$/],
    ['a deadline of nothing', { nodes: NODES, deadlineMs: 0 }, /^deadlineMs: got 0; want a number of milliseconds, 1 to 2592000000 \(30 days\)$/],
    ['a negative deadline', { nodes: NODES, deadlineMs: -1 }, /^deadlineMs: got -1; want a number of milliseconds, 1 to/],
    ['a deadline beyond a month', { nodes: NODES, deadlineMs: 2_592_000_001 }, /^deadlineMs: got 2592000001; want a number of milliseconds, 1 to 2592000000 \(30 days\)$/],
    ['a deadline that is not finite', { nodes: NODES, deadlineMs: Number.POSITIVE_INFINITY }, /^deadlineMs: got Infinity; want a number of milliseconds/],
    ['a deadline that is a text', { nodes: NODES, deadlineMs: '60s' }, /^deadlineMs: got "60s"; want a number of milliseconds/],
    ['an unknown key of a node', { nodes: [{ stage: 'a', model: 'm', tokens: 5 }] }, /^nodes\[0\]: unknown key 'tokens'; known: stage, model, promptTokens, outputTokens/],
    ['a node that is both', { nodes: [...NODES, { stage: 'a', model: 'm', toolMs: 5 }] }, /^nodes\[3\]\.toolMs: got 5 beside the model "m"; want one of the two: a call has stage, model and, where they are known, promptTokens and outputTokens; a tool has stage and toolMs$/],
    ['a node that is neither', { nodes: [{ stage: 'a' }] }, /^nodes\[0\]\.model: got nothing; want a text of 1 to 256 characters, or toolMs where it is a tool$/],
    ['a node without a stage', { nodes: [{ model: 'm' }] }, /^nodes\[0\]\.stage: got nothing; want a text of 1 to 256 characters$/],
    ['a node that is no object', { nodes: ['a'] }, /^nodes\[0\]: got "a"; want an object: a call has stage, model/],
    ['a node that is a list', { nodes: [['a', 'm']] }, /^nodes\[0\]: got a list of 2; want an object: /],
    ['negative tokens', { nodes: [{ stage: 'a', model: 'm', promptTokens: -1 }] }, /^nodes\[0\]\.promptTokens: got -1; want a whole number of tokens, 0 to 10000000$/],
    ['half a token', { nodes: [{ stage: 'a', model: 'm', outputTokens: 1.5 }] }, /^nodes\[0\]\.outputTokens: got 1\.5; want a whole number of tokens, 0 to 10000000$/],
    ['a tool that takes negative time', { nodes: [...NODES, { stage: 'a', toolMs: -5 }] }, /^nodes\[3\]\.toolMs: got -5; want a number of milliseconds, 0 to 2592000000 \(30 days\)$/],
    ['a tool that takes more than a month', { nodes: [{ stage: 'a', toolMs: 1e12 }] }, /^nodes\[0\]\.toolMs: got 1000000000000; want a number of milliseconds, 0 to 2592000000/],
    ['a time that is no number', { nodes: [{ stage: 'a', toolMs: Number.NaN }] }, /^nodes\[0\]\.toolMs: got NaN; want a number of milliseconds/],
    ['an edge that is a text', { nodes: NODES, edges: ['plan'] }, /^edges\[0\]: got "plan"; want a pair of stages, the second of which needs the end of the first$/],
    ['an edge of numbers', { nodes: NODES, edges: [['plan', 2]] }, /^edges\[0\]\[1\]: got 2; want a stage, a text of 1 to 256 characters$/],
    ['a stage twice', { nodes: [...NODES, { stage: 'plan', toolMs: 1 }] }, /^nodes\[3\]\.stage: got 'plan', which nodes\[0\] is called already; stages are unique$/],
    ['an unknown stage', { nodes: NODES, edges: [['plan', 'sumup']] }, /^edges\[0\]: got 'sumup', and no node has that stage$/],
    ['an edge that is none', { nodes: NODES, edges: ['plan'] }, /^edges\[0\]: got "plan"; /],
    ['an edge of a number', { nodes: NODES, edges: [['plan', 7]] }, /^edges\[0\]\[1\]: got 7; /],
    ['a stage that is the folder it is in', { nodes: [{ stage: '.', toolMs: 1 }] }, /^nodes\[0\]\.stage: got "\."; want a name other than \. and \.\., which no address can end in$/],
    ['a stage that is the folder above', { nodes: [{ stage: '..', model: 'm' }] }, /^nodes\[0\]\.stage: got "\.\."; want a name other than/],
    ['a name that is the folder above', { name: '..', nodes: NODES }, /^name: got "\.\."; want a name other than/],
    ['a stage that is nested a million times', { nodes: [{ stage: nested(1_000_000), toolMs: 1 }] }, /^nodes\[0\]\.stage: got an object of a; /],
    ['an edge that is nested', { nodes: NODES, edges: [['plan', nested(1_000_000)]] }, /^edges\[0\]\[1\]: got an object of a; /],
    ['an edge of three', { nodes: NODES, edges: [['plan', 'search', 'write']] }, /^edges\[0\]: got a list of 3; want a pair of stages/],
    ['an edge to itself', { nodes: NODES, edges: [['plan', 'plan']] }, /^edges\[0\]: 'plan' cannot need its own end$/],
    ['a cycle', { nodes: [...NODES, { stage: 'first', toolMs: 1 }, { stage: 'last', toolMs: 1 }], edges: [['first', 'plan'], ['plan', 'search'], ['search', 'write'], ['write', 'plan'], ['write', 'last']] }, /^edges: (plan → search → write → plan|search → write → plan → search|write → plan → search → write) is a cycle/],
  ])('%s', (_, value, message) => {
    const problems = problemsOf(value);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(message);
  });

  test('whatever is wrong, no word of the validator is among what is told', () => {
    const wrong = [null, 5, 'x', [], {}, '', -1, 1.5, 1e13, true];
    const places: ((value: unknown) => unknown)[] = [
      (value) => value,
      (name) => ({ name, nodes: NODES }),
      (deadlineMs) => ({ deadlineMs, nodes: NODES }),
      (nodes) => ({ nodes }),
      (node) => ({ nodes: [node] }),
      (stage) => ({ nodes: [{ stage, model: 'm' }] }),
      (model) => ({ nodes: [{ stage: 'a', model }] }),
      (promptTokens) => ({ nodes: [{ stage: 'a', model: 'm', promptTokens }] }),
      (outputTokens) => ({ nodes: [{ stage: 'a', model: 'm', outputTokens }] }),
      (toolMs) => ({ nodes: [{ stage: 'a', toolMs }] }),
      (edges) => ({ nodes: NODES, edges }),
      (edge) => ({ nodes: NODES, edges: [edge] }),
      (stage) => ({ nodes: NODES, edges: [[stage, 'plan']] }),
    ];
    const told = places.flatMap((place) => wrong.flatMap((value) => problemsOf(place(value))));
    expect(told.length).toBeGreaterThan(80);
    expect(told.filter((problem) => /expected|received|Invalid|Too (big|small)|<=|>=/.test(problem))).toEqual([]);
  });

  test('a long cycle, by some of its stages', () => {
    const nodes = Array.from({ length: 40 }, (_, index) => ({ stage: `s${index}`, toolMs: 1 }));
    expect(problemsOf({ nodes, edges: nodes.map(({ stage }, index) => [stage, `s${(index + 1) % 40}`]) })[0]).toMatch(/^edges: s0 → .* → … \(40 stages\) → s0 is a cycle/);
  });

  test('twenty thousand edges that are none, of which ten are told', () => {
    const problems = problemsOf({ nodes: NODES, edges: Array.from({ length: 20_000 }, () => 7) });
    expect([problems.length, problems.at(-1)]).toEqual([11, 'and 19990 more']);
  });

  test('many mistakes, of which ten are shown', () => {
    const problems = problemsOf({ nodes: Array.from({ length: 30 }, () => ({ stage: 'a', toolMs: -1 })) });
    expect(problems).toHaveLength(11);
    expect(problems.at(-1)).toBe('and 20 more');
  });
});
