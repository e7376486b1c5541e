// Whatever clients do with workflows, in whatever order, the scheduler goes on, and what is kept of them stays bounded: random declarations of all sizes, calls of
// stages that have not begun, run or have ended, retries, failures, replicas that come and go. What a caller sends must not reach an assertion.
import { expect, test } from 'vitest';
import type { JobId, ReplicaId, WorkflowId } from '../../src/core/job.ts';
import type { WorkflowNode } from '../../src/core/workflow.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { createRandom } from '../../src/random/random.ts';
import type { Effect, SchedulerEvent } from '../../src/scheduler/events.ts';
import type { ReplicaSpec } from '../../src/scheduler/replica.ts';
import { createScheduler } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const EVENTS = 15_000;
const REPLICAS: readonly ReplicaSpec[] = [
  { replicaId: 'r0' as ReplicaId, models: ['m'], belief, concurrencyMax: 3 },
  { replicaId: 'r1' as ReplicaId, models: ['n', 'm'], belief, concurrencyMax: 3 },
];

test.each([[1, 8], [2, 8], [3, 8], [4, 8], [5, 24]])('a storm of seed %i, of up to %i nodes each', (seed, nodesMax) => {
  const random = createRandom(seed, 'workflow-storm');
  const pick = <Value>(among: readonly Value[]): Value => among[Math.floor(random() * among.length)] as Value;
  const scheduler = createScheduler({ replicas: REPLICAS, policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 10 });
  const running = new Set<JobId>();
  let nowMs = 0;
  let jobs = 0;
  let ended = 0;
  let isThere = true;

  function tell(event: SchedulerEvent): void {
    for (const effect of scheduler.handle(event, nowMs)) heard(effect);
  }
  function heard(effect: Effect): void {
    if (effect.kind === 'reject') running.delete(effect.jobId);
    if (effect.kind === 'left') isThere = false;
    if (effect.kind === 'workflow-ended') ended += 1;
  }
  const workflowId = (): WorkflowId => `w${Math.floor(random() * 12)}` as WorkflowId;
  const size = (): number => pick([0, 1, 900, 10_000_000]);
  const deadlineMs = (): number => pick([1e-9, 1, 500, 5_000, 100_000, 2_592_000_000]);

  function node(place: number): WorkflowNode {
    const stage = `s${place}`;
    if (random() < 0.25) return { kind: 'tool', stage, timeMs: pick([0, 0.001, 50, 2_592_000_000]) };
    return { kind: 'call', stage, model: pick(['m', 'm', 'n']), ...(random() < 0.5 ? { promptTokens: size() } : {}), ...(random() < 0.5 ? { outputTokens: size() } : {}) };
  }
  function declare(): void {
    const nodes = Array.from({ length: 1 + Math.floor(random() * nodesMax) }, (_, place) => node(place));
    const edges = nodes.flatMap((_, before) => nodes.flatMap((__, after) => (after > before && random() < 0.3 ? [[before, after] as const] : [])));
    tell({ kind: 'workflow-declared', workflow: { workflowId: workflowId(), tenant: 't', sloClass: 'c', ...(random() < 0.5 ? { name: pick(['x', 'y']) } : {}), deadlineMs: deadlineMs(), nodes, edges: [...edges, ...edges.slice(0, 1)], infeasible: pick(['refuse', 'best-effort']) } });
  }
  function call(): void {
    const jobId = `j${jobs++}` as JobId;
    running.add(jobId);
    const discovered = random() < 0.6 ? { discovered: { deadlineMs: deadlineMs(), name: pick(['x', 'y', 'z']) } } : {};
    tell({
      kind: 'arrived',
      job: { jobId, model: pick(['m', 'n']), tenant: 't', sloClass: 'c', slo: random() < 0.2 ? { e2eMs: 3_000 } : {}, promptBytes: pick([0, 400, 40_000_000]), work: pick(['generate', 'generate', 'embed']), streaming: random() < 0.5, workflow: { workflowId: workflowId(), stage: `s${Math.floor(random() * nodesMax)}`, ...discovered } },
    });
  }
  function goOn(): void {
    const jobId = pick([...running]);
    if (random() < 0.2) return tell({ kind: 'returned', jobId });
    if (random() < 0.1) return tell({ kind: 'tokens', jobId, tokens: pick([1, 40]) });
    running.delete(jobId);
    tell({ kind: 'ended', jobId, outcome: pick(['finished', 'finished', 'failed', 'cancelled']), ...(random() < 0.7 ? { usage: { promptTokens: pick([0, 10]), cachedTokens: 0, outputTokens: pick([0, 1, 500]) } } : {}) });
  }
  function fleetChanges(): void {
    const [r0, r1] = REPLICAS as [ReplicaSpec, ReplicaSpec];
    if (!isThere) {
      isThere = true;
      return tell({ kind: 'replica-joined', replica: r1 });
    }
    if (random() < 0.5) return tell({ kind: 'replica-leaving', replicaId: r1.replicaId, leaving: random() < 0.5 });
    tell({ kind: 'replica-health', replicaId: pick([r0, r1]).replicaId, state: pick(['up', 'up', 'down']) });
  }

  for (const { replicaId } of REPLICAS) tell({ kind: 'replica-health', replicaId, state: 'up' });
  for (const { replicaId } of REPLICAS) tell({ kind: 'control', replicaId, controlled: true, pointId: null });
  for (let event = 0; event < EVENTS; event++) {
    nowMs += random() < 0.02 ? random() * 100_000 : random() * 300;
    const what = random();
    if (what < 0.12) declare();
    else if (what < 0.5) call();
    else if (what < 0.8 && running.size > 0) goOn();
    else if (what < 0.82) tell({ kind: 'workflow-ended', tenant: 't', workflowId: workflowId() });
    else if (what < 0.87) fleetChanges();
    else tell({ kind: 'tick' });
    if (event % 50 === 0) for (const stage of scheduler.workflow('t', workflowId(), nowMs)?.stages ?? []) expect(Number.isFinite(stage.dueInMs)).toBe(true);
  }
  expect(ended).toBeGreaterThan(100);
  // As many as there are ids; and none once nothing comes any more.
  expect(scheduler.openWorkflows()).toBeLessThanOrEqual(12);
  for (const jobId of running) tell({ kind: 'ended', jobId, outcome: 'cancelled' });
  for (let tick = 0; tick < 400; tick++) {
    nowMs += 10_000_000;
    tell({ kind: 'tick' });
  }
  expect([scheduler.openWorkflows(), scheduler.openWorkflows('t')]).toEqual([0, 0]);
});
