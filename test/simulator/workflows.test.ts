// Workflows on virtual time: allotting their slack beats sharing the deadline out beforehand, and nothing of it is left undone.
import { describe, expect, test } from 'vitest';
import { callFrontier } from '../../src/core/call-frontier.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { longestMs } from '../../src/core/workflow-frontier.ts';
import { callSlos } from '../../src/simulator/rivals/deadline-shares.ts';
import { type SimulatedRun, simulate } from '../../src/simulator/simulate.ts';
import type { SimulatedWorkflow } from '../../src/simulator/workflow-clients.ts';
import { drawWorkflows, WORKFLOW_SHAPES, workflowTemplate } from '../../src/workload/synthetic-workflows.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const UNCERTAINTY = { prompt: 0.2, output: 0.3, tool: 0.4 };

function workload(shape: (typeof WORKFLOW_SHAPES)[number], { slack = 2, ratePerS = 0.2, durationS = 120 } = {}) {
  const template = workflowTemplate(shape, { nodes: 12, seed: 4 });
  const times = template.nodes.map((node) => (node.kind === 'tool' ? node.timeMs : Math.min(...callFrontier(model, { ...node, company: 4 }).map(({ timeMs }) => timeMs))));
  const deadlineMs = slack * longestMs(times, template.edges);
  const runs = drawWorkflows(template, { ratePerS, durationS, deadlineMs: () => deadlineMs, uncertainty: UNCERTAINTY, seed: 6 });
  const parts = template.nodes.map(({ kind }, place) => ({ kind, timeMs: times[place] ?? 0 }));
  return { runs, durationS, slos: (share: 'equal' | 'proportional', times = 1) => callSlos(share, parts, template.edges, deadlineMs * times) };
}

function play({ runs, durationS }: ReturnType<typeof workload>, told: SimulatedWorkflow['told'], over: Partial<Parameters<typeof simulate>[0]> = {}): SimulatedRun {
  return simulate({ requests: [], classes: [], workflows: runs.map((run) => ({ ...run, sloClass: 'agents', told })), replicas: 2, truth: CLOCK_PROFILE, belief: CLOCK_PROFILE, policy: { kind: 'paceline' }, seed: 1, untilMs: durationS * 2_000, ...over });
}

const attainment = ({ workflows = [] }: SimulatedRun): number => workflows.filter(({ met }) => met).length / workflows.length;

describe.each(WORKFLOW_SHAPES)('%s', (shape) => {
  test('every workflow ends once, and is in time for less energy than at the maximum clock', () => {
    const load = workload(shape);
    const allotted = play(load, 'declared');
    const fastest = play(load, { callSlos: [] }, { policy: { kind: 'max-clock' } });
    expect(new Set(allotted.workflows?.map(({ place }) => place)).size).toBe(load.runs.length);
    expect(attainment(allotted)).toBeGreaterThan(attainment(fastest) - 0.08);
    expect(allotted.energyJ).toBeLessThan(0.9 * fastest.energyJ);
  });
});

test('the slack of the whole, allotted again as parts end, takes less than shares that were fixed beforehand', () => {
  const load = workload('chain', { slack: 3, durationS: 240 });
  const allotted = play(load, 'declared');
  const shared = play(load, { callSlos: load.slos('proportional'), byStage: true });
  expect(attainment(allotted)).toBeGreaterThanOrEqual(attainment(shared) - 0.02);
  expect(allotted.energyJ).toBeLessThan(0.9 * shared.energyJ);
});

test('what is not declared is learnt from the first runs', () => {
  const load = workload('chain', { durationS: 240 });
  const fastest = play(load, { callSlos: [] }, { policy: { kind: 'max-clock' } });
  const learnt = play(load, 'discovered');
  expect(attainment(learnt)).toBeGreaterThan(0.9);
  expect(learnt.energyJ).toBeLessThan(0.9 * fastest.energyJ);
});

test('is the same for the same seed', () => {
  const load = workload('fan-out');
  expect(JSON.stringify(play(load, 'declared'))).toBe(JSON.stringify(play(load, 'declared')));
});

test('a workflow with a call that is refused never ends, and counts as missed', () => {
  const load = workload('chain', { ratePerS: 0.05, durationS: 60 });
  const huge = { ...load, runs: load.runs.map((run) => ({ ...run, nodes: run.nodes.map((node) => (node.kind === 'call' ? { ...node, promptTokens: 10_000_000 } : node)) })) };
  const { workflows = [] } = play(huge, 'declared');
  expect(workflows).toHaveLength(load.runs.length);
  expect(workflows.every(({ met, tookMs }) => !met && tookMs === null)).toBe(true);
});
