// Calls that come again, or in another order than was declared, change what needs what, and then all of a workflow is solved from the beginning: how much of that there may
// be, counted in nodes and not in time. Whoever waits for it is hurried until then, and no longer.
import { expect, test } from 'vitest';
import { createGuardBands } from '../../src/core/guard-band.ts';
import type { JobId, JobSpec, WorkflowId } from '../../src/core/job.ts';
import { createLengthPredictor } from '../../src/core/length-predictor.ts';
import { DISCOVERED_CALLS_MAX, type WorkflowSpec } from '../../src/core/workflow.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { createRandom } from '../../src/random/random.ts';
import type { JobReport } from '../../src/scheduler/events.ts';
import { createWorkflows, REBUILT_NODES_MAX, type Workflows } from '../../src/scheduler/workflows.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const PERIOD_MS = 100;
const models = [createPerformanceModel(CLOCK_PROFILE)];

function started(): Workflows {
  return createWorkflows({
    lengths: createLengthPredictor(),
    guards: createGuardBands(0.99),
    promptTokensOf: () => null,
    replicasOf: () => models,
    companyOf: () => ({ company: 1, interference: 0 }),
    leftOf: () => ({ promptTokens: 0, outputTokens: 50, outputTokensHigh: 80 }),
  });
}

/** A chain, with an edge over each node. */
function ladder(workflowId: string, nodes: number): WorkflowSpec {
  return {
    workflowId: workflowId as WorkflowId, tenant: 't', sloClass: 'c', deadlineMs: 36_000_000,
    nodes: Array.from({ length: nodes }, (_, place) => ({ kind: 'call', stage: `s${place}`, model: 'm', promptTokens: 500, outputTokens: 100 })),
    edges: Array.from({ length: nodes }, (_, place) => [1, 2].map((by) => [place, place + by] as const)).flat().filter(([, after]) => after < nodes),
  };
}

function jobOf(jobId: string, workflowId: string, stage: string, discovered?: { deadlineMs: number; name: string }): JobSpec {
  return { jobId: jobId as JobId, model: 'm', tenant: 't', sloClass: 'c', slo: {}, promptBytes: 2_000, work: 'generate', streaming: true, workflow: { workflowId: workflowId as WorkflowId, stage, ...(discovered === undefined ? {} : { discovered }) } };
}

const finished = { outcome: 'finished', energyJ: 1, outputTokens: 100, promptTokens: 500, model: 'm' } as JobReport;

test('in order, what ends early or late is never a reason to begin from the beginning', () => {
  const workflows = started();
  workflows.declare(ladder('w', 60), 0);
  for (let place = 0; place < 60; place++) {
    workflows.called(jobOf(`${place}`, 'w', `s${place}`), 200 * place);
    workflows.left(`${place}` as JobId, finished, 200 * place + 150);
  }
  expect(workflows.nodesRebuilt()).toBe(0);
  expect(workflows.takeEnded()).toMatchObject([{ outcome: 'finished', met: true }]);
});

test('a stage that comes again and again is a reason once', () => {
  const workflows = started();
  workflows.declare(ladder('w', 60), 0);
  for (let turn = 0; turn < 200; turn++) {
    // What needs it begins before it comes again.
    for (const stage of turn === 0 ? ['s0', 's1'] : ['s0']) {
      workflows.called(jobOf(`${turn}${stage}`, 'w', stage), 1_000 * turn);
      workflows.left(`${turn}${stage}` as JobId, finished, 1_000 * turn + 10);
    }
    workflows.tick(1_000 * turn + 20);
  }
  expect(workflows.nodesRebuilt()).toBe(60);
});

test.each([
  [1, 1_000, 20],
  [2, 300, 40],
  [3, 12, 200],
])('bounds: in a storm of seed %i, of workflows of %i nodes, so many are solved anew in a control period and no more, and all have their turn', (seed, nodes, calls) => {
  const random = createRandom(seed, 'rebuild storm');
  const workflows = started();
  const ids = Array.from({ length: Math.min(40, Math.floor(8_000 / nodes)) }, (_, index) => `w${index}`);
  for (const id of ids) expect(workflows.declare(ladder(id, nodes), 0).kind).toBe('accepted');
  const running: JobId[] = [];
  let [nowMs, jobs, mostInPeriod] = [1_000, 0, 0];
  const storm = (periods: number, perPeriod: number): void => {
    for (let period = 0; period < periods; period++) {
      const before = workflows.nodesRebuilt();
      workflows.tick(nowMs);
      for (let event = 0; event < perPeriod; event++) {
        nowMs += PERIOD_MS / perPeriod;
        if (running.length > 0 && random() < 0.5) workflows.left(running.splice(Math.floor(random() * running.length), 1)[0] as JobId, random() < 0.9 ? finished : null, nowMs);
        else {
          // Any stage, begun or not: most come before what they need, or again.
          const job = jobOf(`j${jobs++}`, ids[Math.floor(random() * ids.length)] as string, `s${Math.floor(random() * nodes)}`);
          const part = workflows.called(job, nowMs);
          if (part === null) continue;
          running.push(job.jobId);
          expect(part.dueAtMs).toBeGreaterThan(nowMs);
        }
      }
      for (const { dueAtMs } of workflows.takeMoved()) expect(Number.isNaN(dueAtMs)).toBe(false);
      mostInPeriod = Math.max(mostInPeriod, workflows.nodesRebuilt() - before);
    }
  };
  storm(15, calls);
  // One more than fits is never begun; a whole one is, when nothing has been.
  expect(mostInPeriod).toBeLessThanOrEqual(Math.max(REBUILT_NODES_MAX, nodes));
  expect(mostInPeriod).toBeGreaterThan(0);
  // When the storm is over, nobody waits for long.
  const after = workflows.nodesRebuilt();
  storm(ids.length + 1, 0);
  const settled = workflows.nodesRebuilt();
  expect(settled - after).toBeLessThanOrEqual(ids.length * nodes);
  storm(5, 0);
  expect(workflows.nodesRebuilt()).toBe(settled);
});

test('what waits is hurried, and told when it is due as soon as that is known', () => {
  const workflows = started();
  for (const id of ['v', 'w']) workflows.declare(ladder(id, REBUILT_NODES_MAX), 0);
  const outOfOrder = (id: string): number => {
    workflows.called(jobOf(`${id}s0`, id, 's0'), 1_000);
    return workflows.called(jobOf(`${id}s1`, id, 's1'), 1_000)?.dueAtMs ?? Number.NaN;
  };
  // Of the first they are due within a share of the hour; of the second, which comes in the same period, at once.
  const [first, second] = [outOfOrder('v'), outOfOrder('w')];
  expect(workflows.nodesRebuilt()).toBe(REBUILT_NODES_MAX);
  expect(second).toBeLessThan(first);
  workflows.takeMoved();
  workflows.tick(1_100);
  const told = workflows.takeMoved().find(({ jobId }) => jobId === 'ws1');
  expect(told?.dueAtMs).toBeGreaterThan(second);
});

test('bounds: one of which nothing is known is rebuilt with every call, of which there are so many', () => {
  const workflows = started();
  for (let call = 0; call < 2 * DISCOVERED_CALLS_MAX; call++) {
    workflows.called(jobOf(`${call}`, 'd', 'step', { deadlineMs: 3_600_000, name: 'agent' }), 1_000 * call);
    workflows.left(`${call}` as JobId, finished, 1_000 * call + 500);
    workflows.tick(1_000 * call + 600);
  }
  expect(workflows.nodesRebuilt()).toBeLessThanOrEqual((DISCOVERED_CALLS_MAX * (DISCOVERED_CALLS_MAX + 1)) / 2);
});
