import { expect, test } from 'vitest';
import type { ReplicaId } from '../../src/core/job.ts';
import { CLASSES_MAX, CLOCK_CHANGES_MAX, createHistory, POWER_SAMPLES_MAX, REQUESTS_MAX, WINDOW_MS } from '../../src/dashboard/history.ts';
import type { Demand } from '../../src/runtime.ts';
import { aReport, MODEL, NOW_UNIX_MS } from './a-view.ts';

const [SLOW, FAST] = [MODEL.points[0], MODEL.points[3]];

function demand(point: Demand['point'] | undefined, changes: Partial<Demand> = {}): Demand {
  return { kind: 'demand', replicaId: 'r0' as ReplicaId, point: point ?? null, holdMs: 1_000, change: 'renew', why: { binding: 'energy' }, ...changes };
}

test('a demand that changes no clock is no decision, whatever it is called', () => {
  const history = createHistory();
  for (const point of [SLOW, SLOW, FAST, FAST, null, null]) history.demanded(demand(point, { change: 'raise' }), NOW_UNIX_MS);
  expect(history.read(NOW_UNIX_MS).clockChanges.map(({ fromPointId, toPointId }) => [fromPointId, toPointId])).toEqual([[FAST?.id, null], [SLOW?.id, FAST?.id], [undefined, SLOW?.id]]);
});

test('the groups of a disaggregated server are told apart', () => {
  const history = createHistory();
  history.demanded(demand(SLOW, { group: 'prefill' }), NOW_UNIX_MS);
  history.demanded(demand(SLOW, { group: 'decode' }), NOW_UNIX_MS);
  expect(history.read(NOW_UNIX_MS).clockChanges.map(({ group }) => group)).toEqual(['decode', 'prefill']);
});

test('a replica that has left, or whose devices followed nobody for a while, has no clock before', () => {
  const history = createHistory();
  history.demanded(demand(SLOW), NOW_UNIX_MS);
  history.undemanded('r0' as ReplicaId);
  history.demanded(demand(SLOW), NOW_UNIX_MS);
  expect(history.read(NOW_UNIX_MS).clockChanges).toHaveLength(2);
});

test('everything that is remembered has a bound, and the newest stays', () => {
  const history = createHistory();
  for (let index = 0; index < 2_000; index++) {
    history.sampled({ atUnixMs: NOW_UNIX_MS + index, powerW: index });
    history.demanded(demand(index % 2 === 0 ? SLOW : FAST), NOW_UNIX_MS + index);
    history.reported(aReport({ sloClass: `class-${index}` }), NOW_UNIX_MS);
    history.rejected('queue-full', 'chat', NOW_UNIX_MS);
  }
  const { power, clockChanges, requests, attainment } = history.read(NOW_UNIX_MS + 2_000);
  expect([power.length, clockChanges.length, requests.length, attainment.length]).toEqual([POWER_SAMPLES_MAX, CLOCK_CHANGES_MAX, REQUESTS_MAX, CLASSES_MAX]);
  expect(power.at(-1)?.powerW).toBe(1_999);
  expect(clockChanges[0]?.toPointId).toBe(FAST?.id);
  expect(attainment.reduce((sum, { met }) => sum + met, 0)).toBe(2_000);
});

test('classes of many minutes are bounded together, too', () => {
  const history = createHistory();
  for (let index = 0; index < 10 * CLASSES_MAX; index++) history.reported(aReport({ sloClass: `class-${index}` }), NOW_UNIX_MS + index * 1_000);
  expect(history.read(NOW_UNIX_MS + 640_000).attainment.length).toBeLessThanOrEqual(CLASSES_MAX);
});

test('attainment and power are of the last quarter of an hour', () => {
  const history = createHistory();
  history.sampled({ atUnixMs: NOW_UNIX_MS, powerW: 1 });
  history.reported(aReport({ met: false }), NOW_UNIX_MS);
  expect(history.read(NOW_UNIX_MS + WINDOW_MS - 1)).toMatchObject({ attainment: [{ sloClass: 'chat', met: 0, missed: 1 }], power: [{ powerW: 1 }] });
  expect(history.read(NOW_UNIX_MS + WINDOW_MS + 120_000)).toMatchObject({ attainment: [], power: [] });
});

test('a request of which nobody can tell whether it was met counts neither way', () => {
  const history = createHistory();
  history.reported(aReport({ met: null }), NOW_UNIX_MS);
  expect(history.read(NOW_UNIX_MS).attainment).toEqual([]);
});

test('the size of requests follows those that finished', () => {
  const history = createHistory();
  expect(history.read(NOW_UNIX_MS).size).toBeNull();
  history.reported(aReport({ promptTokens: 100, outputTokens: 10 }), NOW_UNIX_MS);
  history.reported(aReport({ promptTokens: 90_000, outcome: 'failed' }), NOW_UNIX_MS);
  expect(history.read(NOW_UNIX_MS).size).toEqual({ promptTokens: 100, outputTokens: 10 });
  for (let index = 0; index < 300; index++) history.reported(aReport({ promptTokens: 1_000, outputTokens: 50 }), NOW_UNIX_MS);
  expect(Math.round(history.read(NOW_UNIX_MS).size?.promptTokens ?? 0)).toBe(1_000);
});
