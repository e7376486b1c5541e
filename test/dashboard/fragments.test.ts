import { describe, expect, test } from 'vitest';
import type { JobId, ReplicaId } from '../../src/core/job.ts';
import { OTHER_NAMES } from '../../src/core/recent-workflows.ts';
import { dashboardDocument, EVENTS_PATH } from '../../src/dashboard/document.ts';
import { TENANTS_MAX } from '../../src/dashboard/energy-fragment.ts';
import { CARDS_MAX } from '../../src/dashboard/fleet-fragment.ts';
import { FRAGMENTS, fragmentsOf as drawn, type Fragments } from '../../src/dashboard/fragments.ts';
import { SCRIPT } from '../../src/dashboard/script.ts';
import type { DashboardView } from '../../src/dashboard/view.ts';
import { reasonText } from '../../src/dashboard/words.ts';
import { aReplica, aReport, aView, MODEL, noFault, NOW_UNIX_MS } from './a-view.ts';

function fragmentsOf(view: DashboardView): Fragments {
  return drawn(view, noFault);
}

function textOf(html: string): string {
  return html.replaceAll(/<[^>]+>/g, ' ').replaceAll(/\s+/g, ' ');
}

test('a card says what a replica runs at, why, and what is left of the tightest deadline', () => {
  const text = textOf(fragmentsOf(aView()).fleet);
  expect(text).toContain(`${Object.values(MODEL.points[0]?.knobs ?? {})[0]} MHz`);
  expect(text).toContain('Any slower, and the tokens of request job-7 would come too slowly; 42 ms of slack at the tightest.');
  expect(text).toContain('310 W');
});

test('power budgets stand beside the power, each with what it allows, what is allotted and what is drawn; without any there is no table', () => {
  const budgets = [{ name: 'rack-7', watts: 1_800, allottedW: 1_790, drawnW: 1_203, exceeded: false, servesNothing: false }, { name: 'fleet', watts: 5_000, allottedW: 4_100, drawnW: null, exceeded: false, servesNothing: false }];
  const text = textOf(fragmentsOf(aView({ snapshot: { replicas: [aReplica('r0')], queued: 0, budgets } })).power);
  expect(text).toMatch(/rack-7 1\s800 1\s790 1\s203 /);
  expect(text).toMatch(/fleet 5\s000 4\s100 not metered/);
  expect(fragmentsOf(aView()).power).not.toContain('power budget');
});

test('workflows are told of by name: how many are open, how many were in time, and what they took', () => {
  const lately = [
    { tenant: 'acme', name: 'report', met: 11, missed: 1, unknown: 2, tookShare: 0.62, energyJ: 4_200 },
    { tenant: 'acme', name: null, met: 0, missed: 0, unknown: 1, tookShare: null, energyJ: 0 },
    { tenant: OTHER_NAMES, name: null, met: 7, missed: 0, unknown: 0, tookShare: 0.5, energyJ: 10 },
  ];
  const of = (workflows: DashboardView['workflows']): string => textOf(fragmentsOf(aView({ workflows })).workflows);
  expect(of({ open: 2, lately })).toMatch(/^ 2 are open now\. .* energy each report acme 14 11 1 2 62 % 4.200 J without a name acme 1 0 0 1 others 7 7 0 0 50 % 10 J $/);
  expect(of({ open: 1, lately: [] })).toBe(' One is open now. ');
  expect(of({ open: 0, lately: [] })).toBe(' No workflow is open, and none has ended in the last 15 minutes. ');
});

test('a replica that nobody drives runs at default clocks, whatever was demanded last', () => {
  const view = aView({ snapshot: { replicas: [aReplica('r0', { controlled: false, why: { binding: 'uncontrolled' } })], queued: 0 } });
  expect(textOf(fragmentsOf(view).fleet)).toContain('default clocks Nobody drives its clocks.');
});

test('a card says of a server that sleeps that it does', () => {
  const view = aView({ snapshot: { replicas: [aReplica('r0', { rest: 'asleep' }), aReplica('r1', { rest: 'falling-asleep' })], queued: 0 } });
  expect(fragmentsOf(view).fleet).toMatch(/<span class="chip good">asleep<.*<span class="chip good">falling asleep</s);
});

test('both groups of a disaggregated server are shown', () => {
  const group = (pointIndex: number) => ({ controlled: true, pointId: MODEL.points[pointIndex]?.id ?? null, why: { binding: 'ttft' as const, slackMs: 7 } });
  const { fleet, figures } = fragmentsOf(aView({ snapshot: { replicas: [aReplica('r0', { groups: { prefill: group(5), decode: { ...group(0), why: { binding: 'tpot', slackMs: 90 } } } })], queued: 0 } }));
  expect(textOf(fleet)).toMatch(/prefill \S+ MHz .*decode \S+ MHz/);
  expect(textOf(figures)).toContain('Tightest deadline 7 ms');
});

test('what is not measured is said to be so, and never 0', () => {
  const bare = aReplica('r0');
  const view = aView({ energy: [], snapshot: { replicas: [{ ...bare, energy: { ...(bare.energy as NonNullable<typeof bare.energy>), powerW: null } }], queued: 0 }, remembered: { power: [{ atUnixMs: NOW_UNIX_MS, powerW: null }], attainment: [], clockChanges: [], requests: [], size: null } });
  const fragments = fragmentsOf(view);
  expect(textOf(fragments.fleet)).toContain('not metered');
  expect(textOf(fragments.figures)).toContain('Power – 0 of 1 replicas have a meter');
  expect(textOf(fragments.figures)).toContain('Energy, against maximum clock –');
  expect(textOf(fragments.figures)).toContain('SLOs met –');
  expect(fragments.power).not.toContain('<svg');
});

test('what maximum clock would have taken counts idling, and is called a counterfactual', () => {
  const view = aView({ snapshot: { replicas: [aReplica('r0')], queued: 0 } });
  // 700 J of requests and 200 of idling, against 1,000 and 300.
  expect(textOf(fragmentsOf(view).figures)).toMatch(/−30\.7 % a counterfactual/);
  expect(textOf(fragmentsOf(view).energy)).toMatch(/counterfactual.*requests alone 1 1\.43 −30 % with idling 1\.29 1\.86 −30\.7 %/);
});

test('a share below its target is never written as if it were the target', () => {
  const view = aView({ attainmentTarget: 0.999, remembered: { ...aView().remembered, attainment: [{ sloClass: 'chat', met: 9_989, missed: 11 }] } });
  expect(textOf(fragmentsOf(view).attainment)).toContain('99.8 % 99.9 % ✗ no');
});

test('what is wrong is said above everything, and nothing is said where nothing is', () => {
  const view = aView({ draining: true, agents: new Map([['node-a', { state: 'lost' }]]), snapshot: { replicas: [aReplica('r0', { state: 'down' }), aReplica('r1', { breaker: 'open' })], queued: 0 } });
  const text = textOf(fragmentsOf(view).problems);
  for (const part of ['leaving', 'r0 is down', 'breaker of r1 is open', 'agent node-a is lost']) expect(text).toContain(part);
  expect(fragmentsOf(aView()).problems).toBe('');
});

test('a request is shown as predicted and as it was, refused ones with their reason', () => {
  const prediction = { ttftMs: 100, tpotMs: 20, e2eMs: 1_900, ttftP90Ms: 150, tpotP90Ms: 25, slackMs: 10, feasible: true };
  const requests = [{ kind: 'ended' as const, atUnixMs: NOW_UNIX_MS, jobId: 'job-1' as JobId, sloClass: 'chat', report: aReport({ met: false, prediction }) }, { kind: 'rejected' as const, atUnixMs: NOW_UNIX_MS, jobId: null, sloClass: 'chat', reason: 'queue-full' as const }];
  const text = textOf(fragmentsOf(aView({ remembered: { ...aView().remembered, requests } })).requests);
  expect(text).toContain('✗ missed 120 ms (100 ms) 21 ms (20 ms) 900 + 90 55 J');
  expect(text).toContain('refused: the queue was full');
});

test('the frontier shows both phases, energy above idling, and where the replicas are', () => {
  const { frontier } = fragmentsOf(aView());
  expect(frontier.match(/<svg/g)).toHaveLength(2);
  expect(textOf(frontier)).toContain('now: r0, r1 at');
  expect(textOf(frontier)).toContain('above idling');
});

test('every reason has words', () => {
  const bindings = ['idle', 'ttft', 'tpot', 'e2e', 'stability', 'energy', 'none-feasible', 'policy', 'uncontrolled'] as const;
  expect(new Set(bindings.map((binding) => reasonText({ binding }))).size).toBe(bindings.length);
});

describe('names come from anybody', () => {
  const EVIL = '"><img src=x onerror=alert(1)>\'&';
  const view: DashboardView = aView({
    policy: EVIL,
    agents: new Map([[EVIL, { state: 'lost' }]]),
    snapshot: { replicas: [aReplica(EVIL, { why: { binding: 'ttft', jobId: EVIL as JobId, slackMs: 1 }, pointId: EVIL, state: 'down' })], queued: 0 },
    energy: [{ tenant: EVIL, model: EVIL, sloClass: EVIL, requests: 1, promptTokens: 1, cachedTokens: 0, outputTokens: 1, meteredJ: 1, modelledJ: 0, maximumClockJ: 2 }],
    remembered: {
      power: [{ atUnixMs: NOW_UNIX_MS - 5_000, powerW: 1 }, { atUnixMs: NOW_UNIX_MS, powerW: 2 }],
      attainment: [{ sloClass: EVIL, met: 1, missed: 1 }],
      clockChanges: [{ atUnixMs: NOW_UNIX_MS, replicaId: EVIL as ReplicaId, group: null, fromPointId: EVIL, toPointId: EVIL, why: { binding: 'e2e', jobId: EVIL as JobId } }],
      requests: [{ kind: 'ended', atUnixMs: NOW_UNIX_MS, jobId: EVIL as JobId, sloClass: EVIL, report: aReport({ jobId: EVIL as JobId, replicaId: EVIL as ReplicaId, sloClass: EVIL }) }],
      size: null,
    },
    workflows: { open: 1, lately: [{ tenant: EVIL, name: EVIL, met: 1, missed: 1, unknown: 1, tookShare: 1, energyJ: 1 }] },
  });

  test.each(Object.keys(FRAGMENTS) as (keyof typeof FRAGMENTS)[])('nothing of them is markup in %s', (name) => {
    const html = fragmentsOf(view)[name];
    expect(html).not.toMatch(/<img|onerror=alert\(1\)>|"">/);
    for (const tag of html.match(/<[^>]*>/g) ?? []) expect((tag.match(/"/g) ?? []).length % 2).toBe(0);
  });
});

test('a large fleet with many tenants stays a page, and says what it leaves out', () => {
  const replicas = Array.from({ length: 1_000 }, (_, index) => aReplica(`r${index}`, { state: 'down' }));
  const energy = Array.from({ length: 4_000 }, (_, index) => ({ ...(aView().energy[0] as DashboardView['energy'][number]), tenant: `t${index}` }));
  const view = aView({ snapshot: { replicas, queued: 0 }, energy });
  const fragments = fragmentsOf(view);
  expect(fragments.fleet.match(/<article/g)).toHaveLength(CARDS_MAX);
  expect(fragments.fleet).toContain(`and ${1_000 - CARDS_MAX} more`);
  expect(fragments.problems).toContain('and 988 more');
  expect(textOf(fragments.tenants)).toContain(`${4_000 - TENANTS_MAX} more 39 800`);
  expect(Buffer.byteLength(dashboardDocument(fragments))).toBeLessThan(300_000);
});

test('a part that cannot be drawn says so in its place, and the others are there', () => {
  const broken = { ...MODEL, iterationTimeMs: () => { throw new Error('no such row'); } };
  const faults: string[] = [];
  const fragments = drawn({ ...aView(), beliefs: new Map(aView().snapshot.replicas.map(({ replicaId }) => [replicaId, broken])) }, (name, error) => faults.push(`${name}: ${String(error)}`));
  expect(faults).toEqual(['frontier: Error: no such row']);
  expect(fragments.frontier).toContain('cannot be drawn');
  expect(fragments.fleet).toContain('aria-label="r0"');
});

test('the same view gives the same bytes', () => {
  expect(dashboardDocument(fragmentsOf(aView()))).toBe(dashboardDocument(fragmentsOf(structuredCloneOf(aView()))));
});

test('the document has a place for every fragment, and its script asks where the events are', () => {
  const html = dashboardDocument(fragmentsOf(aView()));
  for (const name of Object.keys(FRAGMENTS)) expect(html).toContain(`id="f-${name}"`);
  expect(SCRIPT).toContain(`EventSource('${EVENTS_PATH}')`);
  // The policy of the page allows no style attributes, and no request beyond the script and its events.
  expect(html).not.toMatch(/ style="|https?:\/\/(?!www\.w3\.org\/2000\/svg)|@import|url\(/);
});

/** Models are functions; all else is plain. */
function structuredCloneOf({ beliefs, ...view }: DashboardView): DashboardView {
  return { ...structuredClone(view), beliefs };
}
