// Workflows made up from a seed.
import { describe, expect, test } from 'vitest';
import { topologicalOrder } from '../../src/core/slack-allotment.ts';
import { drawWorkflows, WORKFLOW_SHAPES, workflowTemplate } from '../../src/workload/synthetic-workflows.ts';

describe.each(WORKFLOW_SHAPES)('%s', (shape) => {
  test.each([3, 40, 1_000])('with %d nodes has no cycle, stages of its own, and one beginning to which all belongs', (nodes) => {
    const template = workflowTemplate(shape, { nodes, seed: 2 });
    expect(topologicalOrder(template.nodes.length, template.edges)).toHaveLength(template.nodes.length);
    expect(new Set(template.nodes.map(({ stage }) => stage)).size).toBe(template.nodes.length);
    expect(template.nodes.some(({ kind }) => kind === 'call')).toBe(true);
    if (shape === 'series-parallel' || shape === 'layered') expect(template.nodes).toHaveLength(nodes);
  });

  test('is the same for the same seed', () => {
    expect(workflowTemplate(shape, { nodes: 30, seed: 2 })).toEqual(workflowTemplate(shape, { nodes: 30, seed: 2 }));
  });
});

test('runs come at the rate, and are about as large as was expected', () => {
  const template = workflowTemplate('chain', { nodes: 0, seed: 1 });
  const runs = drawWorkflows(template, { ratePerS: 2, durationS: 500, deadlineMs: () => 9, uncertainty: { prompt: 0.2, output: 0.4, tool: 0.5 }, seed: 3 });
  expect(runs.length / 500).toBeCloseTo(2, 0);
  const outputs = runs.flatMap(({ nodes }) => nodes.flatMap((node) => (node.kind === 'call' ? [node.outputTokens / node.expected.outputTokens] : [])));
  expect(outputs.reduce((sum, ratio) => sum + ratio, 0) / outputs.length).toBeCloseTo(1, 1);
  expect(new Set(outputs).size).toBeGreaterThan(100);
  const exact = drawWorkflows(template, { ratePerS: 1, durationS: 20, deadlineMs: () => 9, uncertainty: { prompt: 0, output: 0, tool: 0 }, seed: 3 });
  expect(exact.every(({ nodes }) => nodes.every((node) => (node.kind === 'call' ? node.outputTokens === node.expected.outputTokens : node.timeMs === node.expectedMs)))).toBe(true);
});

test('an unknown shape is refused with those that there are', () => {
  expect(() => workflowTemplate('ring' as never, { nodes: 3, seed: 1 })).toThrow(/got 'ring', want one of chain, fan-out/);
});
