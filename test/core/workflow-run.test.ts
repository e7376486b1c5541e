// One workflow under way: by when its calls are due, as parts end early and late, are done again, and turn out larger.
import { describe, expect, test } from 'vitest';
import type { TradeOffPoint } from '../../src/core/slack-allotment.ts';
import { createWorkflowRun, HURRIED, type RunPart, type WorkflowRun } from '../../src/core/workflow-run.ts';

/** At its fastest `timeMs`; twice and three times as slow it takes ever less. */
function call(stage: string, timeMs: number, over: Partial<RunPart> = {}): RunPart {
  const frontier: TradeOffPoint[] = [1, 2, 3].map((times) => ({ timeMs: times * timeMs, energyJ: timeMs / times }));
  return { stage, kind: 'call', frontier, spreadMs: 0, ...over };
}

function tool(stage: string, timeMs: number): RunPart {
  return { stage, kind: 'tool', frontier: [{ timeMs, energyJ: 0 }], spreadMs: 0 };
}

function runOf(parts: readonly RunPart[], edges: readonly (readonly [number, number])[], deadlineMs: number): WorkflowRun {
  return createWorkflowRun({ parts, edges, beganAtMs: 1_000, deadlineAtMs: 1_000 + deadlineMs });
}

const CHAIN = [[0, 1], [1, 2]] as const;

describe('a chain', () => {
  test('of equal calls shares the slack equally, and what ends early leaves the rest to the others', () => {
    const run = runOf([call('a', 100), call('b', 100), call('c', 100)], CHAIN, 600);
    run.began('a', 1_000);
    run.allot(1_000, 0);
    expect(run.verdict()).toBe('meets');
    expect(run.due('a').atMs).toBeCloseTo(1_200, 3);
    run.ended('a', 1_000);
    run.began('b', 1_000);
    run.allot(1_000, 0);
    expect(run.due('b').atMs).toBeCloseTo(1_300, 3);
  });

  test('its last call has until the deadline', () => {
    const run = runOf([call('a', 100), call('b', 100)], [[0, 1]], 1_000);
    run.began('a', 1_000);
    run.ended('a', 1_050);
    run.began('b', 1_050);
    run.allot(1_050, 0);
    expect(run.due('b').atMs).toBe(2_000);
  });

  test('a call that turns out larger takes from those behind it', () => {
    const run = runOf([call('a', 100), call('b', 100)], [[0, 1]], 600);
    run.began('a', 1_000);
    run.allot(1_000, 0);
    const before = run.due('a').atMs;
    // 200 ms have gone by, and it is as far from its end as at its beginning.
    run.progressed('a', 100, 0);
    run.allot(1_200, 0);
    expect(run.due('a').atMs).toBeGreaterThan(before);
    expect(run.due('a').atMs).toBeCloseTo(1_400, 3);
  });

  test('in reserve is what its length is uncertain by, as many deviations as caution wants', () => {
    const run = runOf([call('a', 100, { spreadMs: 30 }), call('b', 100, { spreadMs: 40 })], [[0, 1]], 500);
    run.began('a', 1_000);
    run.allot(1_000, 2);
    // 500 less 2 · 50, the half of it.
    expect(run.due('a').atMs).toBeCloseTo(1_200, 3);
    expect(run.due('a').moves).toBe(true);
    // Where there is no room for it, all are hurried: due so much later than at the fastest that only the fastest will do.
    run.allot(1_000, 100);
    expect(run.verdict()).toBe('meets');
    expect(run.due('a')).toEqual({ atMs: 1_000 + HURRIED * 100, moves: false });
  });
});

describe('late', () => {
  test('at the fastest still, as long as there is some hope; and hurried no more when there is none', () => {
    const run = runOf([call('a', 100), call('b', 100)], [[0, 1]], 250);
    run.began('a', 1_000);
    run.ended('a', 1_180);
    run.began('b', 1_180);
    run.allot(1_180, 0);
    expect(run.verdict()).toBe('late');
    expect(run.due('b')).toEqual({ atMs: 1_180 + HURRIED * 100, moves: false });
    run.progressed('b', 100, 0);
    run.allot(1_230, 0);
    expect(run.verdict()).toBe('lost');
    expect(run.due('b').atMs).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('a fan-out', () => {
  const PARTS = [call('plan', 50), call('long', 200), call('short', 50), call('join', 50)];
  const EDGES = [[0, 1], [0, 2], [1, 3], [2, 3]] as const;

  test('off the critical path calls are slowed, and are due only when the others are', () => {
    const run = runOf(PARTS, EDGES, 400);
    run.began('plan', 1_000);
    run.ended('plan', 1_050);
    run.began('long', 1_050);
    run.began('short', 1_050);
    run.allot(1_050, 0);
    expect(run.due('short').atMs).toBeCloseTo(run.due('long').atMs, 6);
    const status = Object.fromEntries(run.parts().map((part) => [part.stage, part]));
    // Three times as slow: as cheap as it gets.
    expect(status['short']?.energyJ).toBeCloseTo(50 / 3, 6);
    expect(status['long']?.energyJ).toBeGreaterThan(200 / 3);
  });

  test('when one is late the others stop hurrying for nothing', () => {
    const run = runOf([call('plan', 50), call('one', 100), call('two', 100), call('join', 50)], EDGES, 320);
    run.began('plan', 1_000);
    run.ended('plan', 1_050);
    run.began('one', 1_050);
    run.began('two', 1_050);
    run.allot(1_050, 0);
    const before = run.due('two').atMs;
    run.progressed('one', 170, 0);
    run.progressed('two', 50, 0);
    run.allot(1_100, 0);
    expect(run.due('two').atMs).toBeGreaterThan(before);
    expect(run.due('two').atMs).toBeCloseTo(run.due('one').atMs, 6);
  });
});

describe('tools', () => {
  const CALLS = [call('ask', 100), tool('search', 300), call('answer', 100)];

  test('begin by themselves and end when what needs them comes, early or late', () => {
    const run = runOf(CALLS, CHAIN, 700);
    run.began('ask', 1_000);
    run.ended('ask', 1_100);
    run.allot(1_100, 0);
    expect(run.stateOf('search')).toBe('running');
    expect(run.stateOf('answer')).toBe('waiting');
    run.began('answer', 1_200);
    run.allot(1_200, 0);
    expect(run.stateOf('search')).toBe('ended');
    expect(run.due('answer').atMs).toBe(1_700);
  });

  test('one that takes longer than was said is waited for from moment to moment', () => {
    const run = runOf([...CALLS, call('last', 100)], [...CHAIN, [2, 3]], 900);
    run.began('ask', 1_000);
    run.ended('ask', 1_100);
    run.allot(1_500, 0);
    // 400 ms are left, and the call that waits for the tool might come now.
    expect(run.due('answer').atMs).toBeCloseTo(1_700, 3);
    run.allot(1_700, 0);
    expect(run.due('answer').atMs).toBeCloseTo(1_800, 2);
  });

  test('a workflow whose last part is a tool is over when that has had its time', () => {
    const run = runOf([call('ask', 100), tool('store', 300)], [[0, 1]], 1_000);
    run.began('ask', 1_000);
    expect(run.isOver(1_050)).toBe(false);
    run.ended('ask', 1_100);
    expect(run.isOver(1_399)).toBe(false);
    expect(run.isOver(1_400)).toBe(true);
  });
});

describe('what was not foreseen', () => {
  test('a call that failed is expected again, and one that is done again counts again', () => {
    const run = runOf([call('a', 100), call('b', 100)], [[0, 1]], 800);
    run.began('a', 1_000);
    run.failed('a');
    expect(run.stateOf('a')).toBe('waiting');
    run.began('a', 1_100);
    run.ended('a', 1_200);
    run.began('a', 1_400);
    run.allot(1_400, 0);
    expect(run.stateOf('a')).toBe('running');
    // Both are to come: 400 ms for two of a hundred.
    expect(run.due('a').atMs).toBeCloseTo(1_600, 3);
  });

  test('a call that comes before one that it was said to need does not need it', () => {
    const run = runOf([call('a', 100), call('b', 100), call('c', 100)], CHAIN, 900);
    run.began('a', 1_000);
    run.began('b', 1_010);
    run.allot(1_010, 0);
    expect(run.stateOf('a')).toBe('running');
    // Side by side now, with the last behind the second.
    expect(run.due('a').atMs).toBe(1_900);
    expect(run.due('b').atMs).toBeCloseTo(1_600, 3);
  });

  test('calls that never came have ended when something behind them comes', () => {
    const run = runOf([call('a', 100), call('b', 100), call('c', 100)], CHAIN, 900);
    run.began('c', 1_100);
    run.allot(1_100, 0);
    expect(run.stateOf('a')).toBe('ended');
    expect(run.stateOf('b')).toBe('ended');
    expect(run.due('c').atMs).toBe(1_900);
  });

  test('a part that nobody knew of needs what it is told', () => {
    const run = runOf([call('a', 100)], [], 900);
    run.began('a', 1_000);
    run.ended('a', 1_100);
    run.add(call('b', 100), ['a']);
    expect(run.isOver(1_100)).toBe(false);
    run.began('b', 1_150);
    run.allot(1_150, 0);
    expect(run.due('b').atMs).toBe(1_900);
  });

  test('a cycle is refused', () => {
    expect(() => runOf([call('a', 1), call('b', 1)], [[0, 1], [1, 0]], 10)).toThrow(/cycle/);
  });
});

test('what needs what changes by calls that come again or too soon, and only then all is begun anew: until it is, they are hurried', () => {
  const run = runOf([call('a', 100), call('b', 100), call('c', 100), call('d', 100)], [[0, 1], [1, 2], [2, 3]], 8_000);
  run.began('a', 1_000);
  run.allot(1_000, 0);
  run.ended('a', 1_100);
  run.began('b', 1_100);
  expect(run.isStale()).toBe(false);
  run.began('a', 1_200);
  expect(run.isStale()).toBe(true);
  expect(run.due('a')).toEqual({ atMs: 1_200 + HURRIED * 100, moves: false });
  run.allot(1_200, 0);
  expect(run.isStale()).toBe(false);
  expect(run.due('a').atMs).toBeGreaterThan(1_400);
  // A second time there is nothing left of it that could change.
  run.ended('a', 1_300);
  run.began('a', 1_400);
  expect(run.isStale()).toBe(false);
  run.began('c', 1_500);
  expect(run.isStale()).toBe(true);
});

test('one that has run for a month is allotted as on its first day', () => {
  const monthMs = 30 * 24 * 3_600_000;
  const parts = [call('a', 1), tool('none', 0), call('b', 3.3), tool('one', 1), call('c', 0.7)];
  const run = runOf(parts, [[0, 1], [1, 2], [2, 3], [0, 4]], monthMs + 20);
  run.began('a', 1_000);
  run.allot(1_000, 0);
  run.ended('a', 1_000 + monthMs);
  run.began('b', 1_000 + monthMs);
  run.allot(1_000 + monthMs, 0);
  expect(run.verdict()).toBe('meets');
  expect(run.due('b').atMs - 1_000 - monthMs).toBeCloseTo(19, 3);
});

test('of parts side by side more is kept in reserve than of one: the latest of many is later than any is expected to be', () => {
  const dueOf = (branches: number): number => {
    const sides = Array.from({ length: branches }, (_, branch) => call(`side-${branch}`, 100, { spreadMs: 30 }));
    const run = runOf([call('a', 100), ...sides], sides.map((_, branch) => [0, branch + 1] as const), 600);
    run.began('a', 1_000);
    run.allot(1_000, 1);
    return run.due('a').atMs;
  };
  expect(dueOf(8)).toBeLessThan(dueOf(1));
});

describe('a call that is done again', () => {
  test('after those behind it have ended does not ask for their ends a second time', () => {
    const run = runOf([call('a', 100), call('b', 100), call('c', 100)], CHAIN, 450);
    for (const [place, stage] of ['a', 'b'].entries()) {
      run.began(stage, 1_000 + 100 * place);
      run.ended(stage, 1_100 + 100 * place);
    }
    run.began('a', 1_300);
    run.allot(1_300, 0);
    expect(run.verdict()).toBe('meets');
    expect(run.stateOf('b')).toBe('ended');
  });

  test('while one that needs it only by way of others has come already', () => {
    const run = runOf([call('a', 100), call('b', 100), call('c', 100)], CHAIN, 200);
    run.began('a', 1_000);
    // It could not have come before b, so b has been; a, which is seen running, is something else.
    run.began('c', 1_050);
    run.allot(1_050, 0);
    expect([run.stateOf('a'), run.stateOf('b'), run.stateOf('c')]).toEqual(['running', 'ended', 'running']);
    run.ended('a', 1_200);
    run.ended('c', 1_300);
    expect(run.isOver(1_300)).toBe(true);
  });
});
