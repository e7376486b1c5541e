// What workflows of one name look like, from the runs that were seen.
import { describe, expect, test } from 'vitest';
import { LEARNT_KEYS_MAX } from '../../src/core/limits.ts';
import { createWorkflowShapes, type SeenCall } from '../../src/core/workflow-shapes.ts';

function call(stage: string, beganAtMs: number, endedAtMs: number, over: Partial<SeenCall> = {}): SeenCall {
  return { stage, model: 'm', promptTokens: 100, outputTokens: 50, beganAtMs, endedAtMs, ...over };
}

/** A plan, two calls side by side, and a join; the second of them after a tool of a second. */
const RUN = [call('plan', 0, 100), call('left', 100, 500), call('right', 1_100, 1_400), call('join', 1_400, 1_600)];

describe('a shape', () => {
  test('has the calls, what each waited for, and tools where nothing was heard', () => {
    const shapes = createWorkflowShapes();
    shapes.observe('k', RUN.map((seen) => (seen.stage === 'left' ? { ...seen, endedAtMs: 1_300 } : seen)));
    const shape = shapes.shapeOf('k');
    const stages = shape?.nodes.map(({ stage }) => stage);
    expect(stages).toEqual(['plan', 'left', 'right (before)', 'right', 'join']);
    expect(shape?.nodes[2]).toEqual({ kind: 'tool', stage: 'right (before)', timeMs: 1_000 });
    const named = shape?.edges.map(([before, after]) => [stages?.[before], stages?.[after]]);
    expect(named).toEqual([['plan', 'left'], ['plan', 'right (before)'], ['right (before)', 'right'], ['left', 'join'], ['right', 'join']]);
  });

  test('no call waits for one that ran beside it in any run', () => {
    const shapes = createWorkflowShapes();
    shapes.observe('k', [call('a', 0, 100), call('b', 100, 200)]);
    expect(shapes.shapeOf('k')?.edges).toHaveLength(1);
    shapes.observe('k', [call('a', 0, 100), call('b', 50, 200)]);
    expect(shapes.shapeOf('k')?.edges).toHaveLength(0);
  });

  test('sizes are means of the runs, and what few runs have is not expected', () => {
    const shapes = createWorkflowShapes();
    shapes.observe('k', [call('a', 0, 10, { outputTokens: 100 })]);
    shapes.observe('k', [call('a', 0, 10, { outputTokens: 200 })]);
    shapes.observe('k', [call('a', 0, 10, { outputTokens: 150 }), call('b', 10, 20)]);
    expect(shapes.shapeOf('k')?.nodes).toEqual([{ kind: 'call', stage: 'a', model: 'm', promptTokens: 100, outputTokens: 150 }]);
  });

  test('a stage that is no more leaves, and is forgotten', () => {
    const shapes = createWorkflowShapes();
    for (let run = 0; run < 3; run++) shapes.observe('k', [call('a', 0, 10), call('old', 10, 20)]);
    expect(shapes.shapeOf('k')?.nodes).toHaveLength(2);
    for (let run = 0; run < 60; run++) shapes.observe('k', [call('a', 0, 10)]);
    expect(shapes.shapeOf('k')?.nodes.map(({ stage }) => stage)).toEqual(['a']);
  });
});

test('nothing is known of a name that was not seen; names are bounded, and the least lately seen is forgotten', () => {
  const shapes = createWorkflowShapes();
  expect(shapes.shapeOf('k')).toBeNull();
  shapes.observe('k', []);
  expect(shapes.shapeOf('k')).toBeNull();
  for (let name = 0; name <= LEARNT_KEYS_MAX; name++) shapes.observe(`k${name}`, RUN);
  expect(shapes.shapeOf('k0')).toBeNull();
  expect(shapes.shapeOf('k1')).not.toBeNull();
});
