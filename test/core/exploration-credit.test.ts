import { expect, test } from 'vitest';
import { createExplorationCredit, CREDIT_JOBS_MAX, missShareUpper } from '../../src/core/exploration-credit.ts';

test('covers what a share of all jobs allows, less what was spent', () => {
  const credit = createExplorationCredit(0.01);
  expect(credit.covers(1)).toBe(false);
  for (let job = 0; job < 500; job++) credit.judged();
  expect(credit.covers(5)).toBe(true);
  expect(credit.covers(5.1)).toBe(false);
  credit.spent(3);
  expect(credit.covers(2)).toBe(true);
  expect(credit.covers(2.1)).toBe(false);
});

test('a trial that goes better than the baseline pays back, and never more than was spent', () => {
  const credit = createExplorationCredit(0.01);
  credit.spent(2);
  credit.spent(-5);
  expect(credit.covers(0)).toBe(true);
  expect(credit.covers(0.1)).toBe(false);
});

test('does not save up without end', () => {
  const credit = createExplorationCredit(0.002);
  for (let job = 0; job < 4 * CREDIT_JOBS_MAX; job++) credit.judged();
  expect(credit.covers(0.002 * CREDIT_JOBS_MAX)).toBe(false);
});

test.each([
  { jobs: 0, missed: 0, upper: 1 },
  { jobs: 1, missed: 0, upper: 0.793 },
  { jobs: 100, missed: 0, upper: 0.037 },
  { jobs: 100, missed: 3, upper: 0.0845 },
  { jobs: 10, missed: 10, upper: 1 },
])('of $missed of $jobs that missed the share may be $upper', ({ jobs, missed, upper }) => {
  expect(missShareUpper({ jobs, missed })).toBeCloseTo(upper, 3);
});
