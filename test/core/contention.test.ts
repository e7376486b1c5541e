import { describe, expect, test } from 'vitest';
import { createContention } from '../../src/core/contention.ts';
import type { JobId, JobSpec } from '../../src/core/job.ts';
import { FAIR } from '../../src/core/limits.ts';
import type { PendingJob } from '../../src/core/tracked-job.ts';

let jobs = 0;
function pending(tenant: string, over: Partial<PendingJob> & { weight?: number } = {}): PendingJob {
  const spec: JobSpec = { jobId: `j${jobs++}` as JobId, model: 'm', tenant, weight: over.weight ?? 1, sloClass: 'chat', slo: {}, promptBytes: 10, work: 'generate', streaming: true };
  return { spec, key: `m\n${tenant}`, lengthKey: `m\n${tenant}`, promptTokens: 10, arrivedAtMs: 0, e2eDeadlineAtMs: Infinity, e2eMoves: false, firstDeadlineAtMs: Infinity, latestStartAtMs: Infinity, workMs: 100, ...over };
}

/** Ten jobs a second were sent for two seconds while others waited: a millisecond of work per millisecond. */
function busy(tenants: readonly string[]) {
  const contention = createContention();
  for (const tenant of tenants) contention.entered(pending(tenant), 0);
  for (let at = 100; at <= 2_000; at += 100) contention.sent(pending(tenants[(at / 100) % tenants.length] as string), at);
  return contention;
}

describe('how long a newcomer has to wait', () => {
  test('is not known, and told as nothing, before anybody had to', () => {
    const contention = createContention();
    for (let at = 0; at < 5_000; at += 100) contention.sent(pending('a'), at);
    expect(contention.waitMs(pending('a'), [pending('a')], 1)).toBe(0);
  });

  test('is the work before it at the pace at which the queue was served', () => {
    const before = Array.from({ length: 30 }, () => pending('a'));
    expect(busy(['a']).waitMs(pending('a'), before, 1)).toBeCloseTo(3_000, -2);
  });

  test('is no longer than its own tenant’s share takes, whatever others have queued', () => {
    const before = [...Array.from({ length: 100 }, () => pending('a')), ...Array.from({ length: 5 }, () => pending('b'))];
    // Half of the fleet is b's: 500 ms of its work take 1,000.
    expect(busy(['a', 'b']).waitMs(pending('b'), before, 1)).toBeCloseTo(1_000, -2);
  });

  test('is as long as its share takes for a tenant that is ahead', () => {
    const contention = busy(['a', 'b']);
    for (let count = 0; count < 20; count++) contention.sent(pending('a'), 2_000);
    const before = Array.from({ length: 5 }, () => pending('a'));
    expect(contention.waitMs(pending('a'), before, 1)).toBeGreaterThan(contention.waitMs(pending('c'), before, 1));
  });
});

describe('a turn is put back', () => {
  test('by what its tenant is ahead beyond what is let pass', () => {
    const contention = createContention();
    contention.entered(pending('a'), 0);
    contention.entered(pending('b'), 0);
    contention.sent(pending('a', { workMs: FAIR.aheadMs }), 1);
    expect(contention.putBackMs(pending('a'), 1)).toBe(0);
    contention.sent(pending('a', { workMs: 700 }), 2);
    expect(contention.putBackMs(pending('a'), 1)).toBe(700);
    expect(contention.putBackMs(pending('b'), 1)).toBe(0);
  });
});

describe('who gives way at the cost of others’ deadlines', () => {
  test('nobody where there is one tenant', () => {
    expect(busy(['a']).givesWay(pending('a', { arrivedAtMs: 1_990 }), 2_000)).toBe(false);
  });

  test('everybody for a while, and beyond that whoever has had more than its part', () => {
    const contention = busy(['a', 'b']);
    for (let count = 0; count < 20; count++) contention.sent(pending('a'), 2_000);
    const old = { arrivedAtMs: 2_000 - FAIR.patienceMs };
    expect(contention.givesWay(pending('b', { arrivedAtMs: 1_990 }), 2_000)).toBe(true);
    expect(contention.givesWay(pending('b', old), 2_000)).toBe(false);
    expect(contention.givesWay(pending('a', old), 2_000)).toBe(true);
  });
});
