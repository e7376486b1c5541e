// What became of workflows in the last quarter of an hour, by name, however many names clients make up.
import { expect, test } from 'vitest';
import { createRecentWorkflows, type EndedWorkflow, OTHER_NAMES, RECENT_NAMES_MAX, RECENT_WINDOW_MS } from '../../src/core/recent-workflows.ts';

const anEnd = (over: Partial<EndedWorkflow> = {}): EndedWorkflow => ({ tenant: 'acme', name: 'report', met: true, deadlineMs: 10_000, tookMs: 5_000, energyJ: 100, ...over });

test('they are counted by tenant and name, with the means of what they took', () => {
  const recent = createRecentWorkflows();
  recent.ended(anEnd(), 0);
  recent.ended(anEnd({ met: false, tookMs: 15_000, energyJ: 200 }), 1_000);
  recent.ended(anEnd({ met: null, tookMs: 1, energyJ: 0 }), 100_000);
  recent.ended(anEnd({ tenant: 'bob', name: null, met: null }), 100_000);
  expect(recent.read(100_000)).toEqual([
    { tenant: 'acme', name: 'report', met: 1, missed: 1, unknown: 1, tookShare: 1, energyJ: 100 },
    { tenant: 'bob', name: null, met: 0, missed: 0, unknown: 1, tookShare: null, energyJ: 100 },
  ]);
});

test('what ended before the window is forgotten', () => {
  const recent = createRecentWorkflows();
  recent.ended(anEnd(), 0);
  expect(recent.read(RECENT_WINDOW_MS)).toHaveLength(1);
  expect(recent.read(RECENT_WINDOW_MS + 60_000)).toEqual([]);
});

test('names beyond the bound are counted together, last and once, over all minutes', () => {
  const recent = createRecentWorkflows();
  for (let index = 0; index < 1_000; index++) recent.ended(anEnd({ name: `run-${index}` }), 60_000 * Math.floor(index / 50));
  const rows = recent.read(19 * 60_000);
  expect(rows).toHaveLength(RECENT_NAMES_MAX);
  expect(rows.map(({ tenant }) => tenant).indexOf(OTHER_NAMES)).toBe(RECENT_NAMES_MAX - 1);
  // Of twenty minutes the last sixteen are still there, whole minutes as they are.
  expect(rows.reduce((sum, { met }) => sum + met, 0)).toBe(16 * 50);
});
