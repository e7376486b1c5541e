import { expect, test } from 'vitest';
import type { JobId, JobSpec } from '../../src/core/job.ts';
import { createWorthierJobs } from '../../src/core/worthier-jobs.ts';

const job = (worth: number, tpotMs?: number, model = 'm'): JobSpec => ({ jobId: 'j' as JobId, model, tenant: 't', sloClass: 'c', slo: tpotMs === undefined ? {} : { tpotMs }, worth, promptBytes: 1, work: 'generate', streaming: true });

test('those of less worth have to leave room to one that was crowded out, those of as much have not, nor those of another model', () => {
  const jobs = createWorthierJobs();
  jobs.crowdedOut(job(4, 40), 0);
  expect(jobs.before(job(1, 60), 100)).toMatchObject({ tpotMs: 36, worth: 4 });
  expect(jobs.before(job(4, 60), 100)).toBeUndefined();
  expect(jobs.before(job(1, 60, 'other'), 100)).toBeUndefined();
});

test('for ten seconds after it was last seen', () => {
  const jobs = createWorthierJobs();
  jobs.crowdedOut(job(4, 40), 0);
  jobs.crowdedOut(job(4, 80), 5_000);
  expect(jobs.before(job(1), 14_900)).toMatchObject({ tpotMs: 36 });
  expect(jobs.before(job(1), 15_000)).toBeUndefined();
  jobs.crowdedOut(job(4, 80), 15_000);
  expect(jobs.before(job(1), 15_001)).toMatchObject({ tpotMs: 72 });
});

test('one of less worth that is crowded out as well takes nothing from the worthiest', () => {
  const jobs = createWorthierJobs();
  jobs.crowdedOut(job(4, 40), 0);
  jobs.crowdedOut(job(2, 20), 10);
  expect(jobs.before(job(1), 100)).toMatchObject({ tpotMs: 36, worth: 4 });
});

test('a job without a limit per token is never crowded out', () => {
  const jobs = createWorthierJobs();
  jobs.crowdedOut(job(4), 0);
  expect(jobs.before(job(1), 1)).toBeUndefined();
});
