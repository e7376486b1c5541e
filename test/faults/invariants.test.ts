// Every invariant of the fault schedules can be violated, and says so: a checker that cannot fail would be no checker.
import { describe, expect, test } from 'vitest';
import type { Outcome, Seen } from '../../bench/faults/checking-client.ts';
import { executionsOf } from '../../bench/faults/executions.ts';
import type { Execution, Invariant, Observation } from '../../bench/faults/invariants.ts';
import { violationsOf } from '../../bench/faults/invariants.ts';
import type { PlannedRequest } from '../../bench/faults/schedule.ts';

const REQUEST: PlannedRequest = { id: 'a', atMs: 0, gateway: 0, endpoint: 'chat', stream: true, asksUsage: false, promptWords: 40, outputTokens: 3, slo: {}, leavesAfterMs: null };
const WHOLE: Outcome = { kind: 'whole', tokens: 3 };

function seen(outcome: Outcome, more: Partial<Seen> = {}): Seen {
  return { request: REQUEST, gateway: 0, replica: 'stub', outcome, sentAtMs: 1_000, firstTokenAtMs: null, lastTokenAtMs: null, endedAtMs: 2_000, ...more };
}

function execution(more: Partial<Execution> = {}): Execution {
  return { requestId: 'a', replica: 'stub', acceptedAtMs: 1_100, firstTokenAtMs: 1_200, end: { kind: 'finished', atMs: 2_000 }, ...more };
}

/** One request that was served as it should be. */
function observation(more: Partial<Observation> = {}): Observation {
  return {
    requests: [REQUEST],
    seen: [seen(WHOLE)],
    tail: new Set(),
    executions: [execution()],
    faults: [],
    replicaOf: new Map([['stub', { target: 'stub', index: 0 }], ['node-1-0', { target: 'replica', index: 1 }]] as const),
    held: [{ where: 'gateway-0', what: 'in flight', count: 0 }],
    clocks: [{ after: 'the end', lowered: 2, tookMs: 12 }],
    notRecovered: [],
    troubles: [],
    feltMs: 500,
    ...more,
  };
}

const during = { index: 0, fromMs: 1_500, toMs: 1_600 };
const CUT: Outcome = { kind: 'cut', at: 'body' };
const BROKEN: Outcome = { kind: 'broken-off', code: 'upstream_broken', chars: 3 };
const REFUSED: Outcome = { kind: 'refused', status: 503, code: 'no_replica' };

describe('nothing is found where', () => {
  test.each<readonly [string, Partial<Observation>]>([
    ['a request is served', {}],
    ['its client left', { seen: [seen({ kind: 'left' })], executions: [execution({ end: { kind: 'cancelled', atMs: 2_000 } })] }],
    ['its gateway was killed under it', { seen: [seen(CUT)], faults: [{ target: 'gateway', kind: 'kill', ...during }] }],
    ['its server broke the stream', { seen: [seen(BROKEN)], faults: [{ target: 'stub', kind: 'reset', ...during }] }],
    ['its server broke an answer without a stream', { seen: [seen(CUT, { request: { ...REQUEST, stream: false } })], faults: [{ target: 'stub', kind: 'reset', ...during }] }],
    ['a server was away just before it was refused', { seen: [seen(REFUSED)], executions: [], faults: [{ target: 'replica', kind: 'kill', index: 1, fromMs: 100, toMs: 700 }] }],
    ['a second server took what the first had refused', { executions: [execution({ replica: 'node-1-0', firstTokenAtMs: null, acceptedAtMs: 1_050, end: { kind: 'refused', atMs: 1_050 } }), execution()] }],
  ])('%s', (_, more) => {
    expect(violationsOf(observation(more))).toEqual([]);
  });
});

describe('it is found that', () => {
  test.each<readonly [string, Invariant, Partial<Observation>]>([
    ['a request has no end', 'one-outcome', { seen: [], executions: [] }],
    ['a request has two ends', 'one-outcome', { seen: [seen(WHOLE), seen(WHOLE)] }],
    ['a request hangs', 'no-hang', { seen: [seen({ kind: 'hung', afterMs: 15_000 })] }],
    ['an answer is another than its own', 'exact-answer', { seen: [seen({ kind: 'malformed', why: 'token 2' })] }],
    ['a connection is cut though its gateway lives', 'explained', { seen: [seen(CUT)] }],
    ['a stream is cut without a word where its server broke it', 'explained', { seen: [seen(CUT)], faults: [{ target: 'stub', kind: 'reset', ...during }] }],
    ['a connection is cut by the gateway that was not killed', 'explained', { seen: [seen(CUT)], faults: [{ target: 'gateway', kind: 'kill', ...during, index: 1 }] }],
    ['a connection is cut long after its gateway was back', 'explained', { seen: [seen(CUT)], faults: [{ target: 'gateway', kind: 'kill', index: 0, fromMs: 100, toMs: 900 }] }],
    ['a stream breaks off for the fault of another server', 'explained', { seen: [seen(BROKEN)], faults: [{ target: 'replica', kind: 'kill', ...during, index: 1 }] }],
    ['a request is refused because Redis froze', 'explained', { seen: [seen(REFUSED)], executions: [], faults: [{ target: 'redis', kind: 'freeze', ...during }] }],
    ['a request is refused because an agent was killed', 'explained', { seen: [seen(REFUSED)], executions: [], faults: [{ target: 'agent', kind: 'kill', ...during }] }],
    ['nobody listens at a gateway that lives', 'explained', { seen: [seen({ kind: 'unreachable' }, { replica: null })], executions: [] }],
    ['a request is run again after its output began', 'executed-once', { executions: [execution({ replica: 'node-1-0', acceptedAtMs: 1_050, end: { kind: 'broken', atMs: 1_080 } }), execution()] }],
    ['a request is run again after its server died before any output', 'executed-once', { executions: [execution({ replica: 'node-1-0', acceptedAtMs: 1_050, firstTokenAtMs: null, end: null }), execution()] }],
    ['an answer is whole that no server has finished', 'logs-agree', { executions: [execution({ end: { kind: 'cancelled', atMs: 1_900 } })] }],
    ['an answer comes from another server than it says', 'logs-agree', { executions: [execution({ replica: 'node-1-0' })] }],
    ['a place is still held', 'no-slot-leaked', { held: [{ where: 'gateway-0', what: 'in flight', count: 1 }] }],
    ['a clock is still locked', 'no-clock-left-locked', { clocks: [{ after: 'SIGKILL', lowered: 1, tookMs: null }] }],
    ['a request fails when everything is mended', 'recovers', { seen: [seen(REFUSED)], executions: [], tail: new Set(['a']), faults: [{ target: 'stub', kind: 'reset', ...during }] }],
    ['a gateway does not see its replicas again', 'recovers', { notRecovered: ['gateway-0'] }],
    ['a process dies by itself', 'no-process-dies', { troubles: ['gateway-0 ended by itself'] }],
  ])('%s', (_, invariant, more) => {
    expect(violationsOf(observation(more)).map((violation) => violation.invariant)).toEqual([invariant]);
  });
});

test('a request that is taken twice by one server is two executions, and the first end of each counts', () => {
  const note = (kind: string, atMs: number): Parameters<typeof executionsOf>[0][number] => ({ requestId: 'a', replica: 'stub', kind, atMs });
  expect(executionsOf([note('accepted', 1), note('first-token', 2), note('broken', 3), note('cancelled', 4), note('accepted', 5)])).toEqual([
    { requestId: 'a', replica: 'stub', acceptedAtMs: 1, firstTokenAtMs: 2, end: { kind: 'broken', atMs: 3 } },
    { requestId: 'a', replica: 'stub', acceptedAtMs: 5, firstTokenAtMs: null, end: null },
  ]);
});
