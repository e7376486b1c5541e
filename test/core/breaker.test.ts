import { describe, expect, test } from 'vitest';
import { type Breaker, type BreakerEvent, createBreaker, OPEN_TURNS_MAX } from '../../src/core/breaker.ts';

const LIMITS = { failuresMax: 3, windowMs: 1_000, openMs: 500 };

type Step = readonly [atMs: number, event: BreakerEvent['kind'], sentAtMs?: number];

/** Requests are sent when they are told of, unless a step says otherwise. */
function play(breaker: Breaker, steps: readonly Step[]): string[] {
  return steps.map(([atMs, kind, sentAtMs = atMs]) => breaker.handle(kind === 'reset' || kind === 'tick' ? { kind } : { kind, sentAtMs }, atMs).kind);
}

const CASES: readonly { readonly name: string; readonly steps: readonly Step[]; readonly states: readonly string[] }[] = [
  { name: 'stays closed below so many failures', steps: [[0, 'failed'], [1, 'failed'], [2, 'answered']], states: ['closed', 'closed', 'closed'] },
  { name: 'opens with the last of so many in the window', steps: [[0, 'failed'], [400, 'failed'], [899, 'failed']], states: ['closed', 'closed', 'open'] },
  { name: 'forgets what is older than the window', steps: [[0, 'failed'], [400, 'failed'], [1_050, 'failed'], [1_060, 'failed']], states: ['closed', 'closed', 'closed', 'open'] },
  { name: 'opens at once where the server is silent', steps: [[0, 'silent']], states: ['open'] },
  { name: 'is half open after openMs, not before', steps: [[0, 'silent'], [499, 'tick'], [500, 'tick']], states: ['open', 'open', 'half-open'] },
  { name: 'closes by an answer to its trial', steps: [[0, 'silent'], [500, 'tick'], [520, 'answered', 510]], states: ['open', 'half-open', 'closed'] },
  { name: 'opens again by a trial that fails', steps: [[0, 'silent'], [500, 'tick'], [520, 'failed', 510]], states: ['open', 'half-open', 'open'] },
  { name: 'opens again by a trial that is met with silence', steps: [[0, 'silent'], [500, 'tick'], [900, 'silent', 510]], states: ['open', 'half-open', 'open'] },
  { name: 'is told nothing about its trial by what was sent before', steps: [[0, 'silent'], [500, 'tick'], [510, 'failed', 499], [511, 'answered', 499], [512, 'silent', 3]], states: ['open', 'half-open', 'half-open', 'half-open', 'half-open'] },
  { name: 'closes while open by an answer to what was sent since: the last of its model is sent on', steps: [[10, 'silent'], [20, 'answered', 9], [30, 'answered', 25]], states: ['open', 'open', 'closed'] },
  { name: 'begins to count anew when it closes', steps: [[0, 'failed'], [1, 'failed'], [2, 'failed'], [600, 'answered'], [610, 'failed'], [611, 'failed'], [612, 'failed']], states: ['closed', 'closed', 'open', 'closed', 'closed', 'closed', 'open'] },
  { name: 'is not opened again by failures of requests that were under way before it closed', steps: [[0, 'silent'], [500, 'answered'], [501, 'failed', 400], [502, 'failed', 400], [503, 'failed', 400]], states: ['open', 'closed', 'closed', 'closed', 'closed'] },
  { name: 'is closed by a reset, and has then forgotten what it counted', steps: [[0, 'silent'], [10, 'reset'], [20, 'failed'], [21, 'failed'], [22, 'reset'], [23, 'failed']], states: ['open', 'closed', 'closed', 'closed', 'closed', 'closed'] },
];

test.each(CASES)('a breaker $name', ({ steps, states }) => {
  expect(play(createBreaker(LIMITS), steps)).toEqual(states);
});

describe('failures among many answers', () => {
  const after = (answers: number): string => {
    const breaker = createBreaker(LIMITS);
    play(breaker, Array.from({ length: answers }, (): Step => [100, 'answered']));
    return play(breaker, [[101, 'failed'], [102, 'failed'], [103, 'failed']]).at(-1) as string;
  };
  test('open it where they are a quarter of all, and not where they are fewer', () => {
    expect([after(9), after(10)]).toEqual(['open', 'closed']);
  });
});

test('each trial that fails makes the next one rarer, up to a bound, and one that succeeds makes an end of that', () => {
  const breaker = createBreaker(LIMITS);
  const waits: number[] = [];
  let nowMs = 0;
  for (let turn = 0; turn < 6; turn++) {
    const state = breaker.handle({ kind: 'silent', sentAtMs: nowMs }, nowMs);
    if (state.kind !== 'open') throw new Error(state.kind);
    waits.push(state.untilMs - nowMs);
    nowMs = state.untilMs;
    breaker.handle({ kind: 'tick' }, nowMs);
  }
  expect(waits).toEqual([500, 1_000, 2_000, 4_000, 500 * OPEN_TURNS_MAX, 500 * OPEN_TURNS_MAX]);
  breaker.handle({ kind: 'answered', sentAtMs: nowMs }, nowMs);
  expect(breaker.handle({ kind: 'silent', sentAtMs: nowMs }, nowMs)).toMatchObject({ kind: 'open', untilMs: nowMs + 500 });
});

test('a state that has not changed is the same object', () => {
  const breaker = createBreaker(LIMITS);
  expect(breaker.handle({ kind: 'failed', sentAtMs: 0 }, 0)).toBe(breaker.handle({ kind: 'tick' }, 5));
});
