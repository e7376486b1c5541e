// Workflows in the scheduler: who is taken in, by when their calls are due, what becomes of them, and that nothing of them stays.
import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId, WorkflowId } from '../../src/core/job.ts';
import { DISCOVERED_CALLS_MAX, OPEN_NODES_MAX, TENANT_NODES_MAX, type WorkflowNode, type WorkflowSpec, WORKFLOWS_MAX } from '../../src/core/workflow.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Effect } from '../../src/scheduler/events.ts';
import { createScheduler, type Scheduler } from '../../src/scheduler/scheduler.ts';
import type { WorkflowAnswer, WorkflowReport, WorkflowStatus } from '../../src/scheduler/workflows.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const R0 = 'r0' as ReplicaId;
const W = 'w' as WorkflowId;

function started(concurrencyMax = 8): Scheduler {
  const scheduler = createScheduler({ replicas: [{ replicaId: R0, models: ['m'], belief, concurrencyMax }], policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 100 });
  scheduler.handle({ kind: 'replica-health', replicaId: R0, state: 'up' }, 0);
  scheduler.handle({ kind: 'control', replicaId: R0, controlled: true, pointId: null }, 0);
  return scheduler;
}

const call = (stage: string): WorkflowNode => ({ kind: 'call', stage, model: 'm', promptTokens: 500, outputTokens: 100 });

function chain(over: Partial<WorkflowSpec> = {}): WorkflowSpec {
  return { workflowId: W, tenant: 't', sloClass: 'agents', deadlineMs: 60_000, nodes: [call('a'), call('b'), call('c')], edges: [[0, 1], [1, 2]], ...over };
}

function job(id: string, stage: string, over: Partial<JobSpec> = {}): JobSpec {
  return { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'agents', slo: {}, promptBytes: 2_000, promptTokens: 500, work: 'generate', streaming: true, workflow: { workflowId: W, stage }, ...over };
}

function plainJob(id: string): JobSpec {
  const { workflow: _, ...plain } = job(id, 'none');
  return plain;
}

const discovered = (stage: string, workflowId = W, deadlineMs = 60_000): Pick<JobSpec, 'workflow'> => ({ workflow: { workflowId, stage, discovered: { deadlineMs, name: 'agent' } } });

const ofKind = <Kind extends Effect['kind']>(effects: readonly Effect[], kind: Kind): Extract<Effect, { kind: Kind }>[] => effects.filter((effect): effect is Extract<Effect, { kind: Kind }> => effect.kind === kind);
const declare = (scheduler: Scheduler, workflow: WorkflowSpec, atMs = 0): WorkflowAnswer | undefined => ofKind(scheduler.handle({ kind: 'workflow-declared', workflow }, atMs), 'workflow-declared')[0]?.answer;
const arrive = (scheduler: Scheduler, spec: JobSpec, atMs: number): readonly Effect[] => scheduler.handle({ kind: 'arrived', job: spec }, atMs);
const end = (scheduler: Scheduler, id: string, atMs: number, outcome: 'finished' | 'failed' | 'cancelled' = 'finished'): readonly Effect[] =>
  scheduler.handle({ kind: 'ended', jobId: id as JobId, outcome, usage: { promptTokens: 500, cachedTokens: 0, outputTokens: 100 } }, atMs);
const reports = (effects: readonly Effect[]): WorkflowReport[] => ofKind(effects, 'workflow-ended').map(({ report }) => report);

function status(scheduler: Scheduler, atMs: number): WorkflowStatus {
  const now = scheduler.workflow('t', W, atMs);
  if (now === null) throw new Error('it is not open');
  return now;
}

function stage(scheduler: Scheduler, name: string, atMs: number): WorkflowStatus['stages'][number] | undefined {
  return status(scheduler, atMs).stages.find((each) => each.stage === name);
}

describe('a declaration', () => {
  test('is answered with by when each call is due and what all of it is expected to take', () => {
    const answer = declare(started(), chain());
    if (answer?.kind !== 'accepted') throw new Error('it is refused');
    expect(answer.status).toMatchObject({ verdict: 'meets', deadlineInMs: 60_000 });
    const [a, b, c] = answer.status.stages;
    expect(a?.dueInMs).toBeGreaterThan(0);
    expect(b?.dueInMs).toBeGreaterThan(a?.dueInMs ?? 0);
    expect(c?.dueInMs).toBeLessThanOrEqual(60_000);
    expect(answer.status.expectedJ).toBeGreaterThan(0);
  });

  test('of an open one, an unknown model, or more than is kept is refused', () => {
    const scheduler = started();
    declare(scheduler, chain());
    expect(declare(scheduler, chain())).toEqual({ kind: 'refused', reason: 'already-open' });
    expect(declare(scheduler, chain({ workflowId: 'x' as WorkflowId, nodes: [{ kind: 'call', stage: 'a', model: 'unheard-of' }], edges: [] }))).toEqual({ kind: 'refused', reason: 'unknown-model' });
    // Another tenant may use the name.
    expect(declare(scheduler, chain({ tenant: 'u' }))?.kind).toBe('accepted');
  });

  test('that could not be met by the fastest alone is refused where its tenant wants that', () => {
    const tooShort = declare(started(), chain({ deadlineMs: 100, infeasible: 'refuse' }));
    expect(tooShort).toMatchObject({ kind: 'refused', reason: 'deadline-infeasible' });
    if (tooShort?.kind === 'refused' && tooShort.reason === 'deadline-infeasible') expect(tooShort.fastestMs).toBeGreaterThan(100);
    expect(declare(started(), chain({ deadlineMs: 100 }))).toMatchObject({ kind: 'accepted', status: { verdict: 'lost' } });
  });

  test('bounds: workflows that are open, and nodes of all of them or of one tenant', () => {
    const scheduler = started();
    const tool: WorkflowNode = { kind: 'tool', stage: 'x', timeMs: 1 };
    const named = (id: number, nodes: readonly WorkflowNode[]): WorkflowSpec => chain({ workflowId: `${id}` as WorkflowId, nodes, edges: [] });
    const many = Array.from({ length: 1_000 }, (_, index): WorkflowNode => ({ ...tool, stage: `${index}` }));
    for (let id = 0; id < TENANT_NODES_MAX / many.length; id++) expect(declare(scheduler, named(id, many))?.kind).toBe('accepted');
    expect(declare(scheduler, named(1_000_000, [tool]))).toEqual({ kind: 'refused', reason: 'too-many-open' });
    for (let id = 0; id < (OPEN_NODES_MAX - TENANT_NODES_MAX) / many.length; id++) expect(declare(scheduler, { ...named(id, many), tenant: 'u' })?.kind).toBe('accepted');
    expect(declare(scheduler, { ...named(1_000_000, [tool]), tenant: 'v' })).toEqual({ kind: 'refused', reason: 'too-many-open' });
    expect([scheduler.openWorkflows('t'), scheduler.openWorkflows('v'), scheduler.openWorkflows()]).toEqual([25, 0, 50]);
    scheduler.handle({ kind: 'workflow-ended', tenant: 't', workflowId: '0' as WorkflowId }, 1);
    expect(declare(scheduler, named(1_000_000, [tool]))?.kind).toBe('accepted');
  });

  test('bounds: as many as there may be', () => {
    const scheduler = started();
    const one: WorkflowNode = { kind: 'tool', stage: 'x', timeMs: 1e6 };
    let accepted = 0;
    for (let id = 0; id <= WORKFLOWS_MAX; id++) if (declare(scheduler, chain({ workflowId: `${id}` as WorkflowId, nodes: [one], edges: [] }))?.kind === 'accepted') accepted += 1;
    expect(accepted).toBe(WORKFLOWS_MAX);
  });
});

describe('a call of a declared workflow', () => {
  test('is due as it was allotted, and what it was early the next may take', () => {
    const scheduler = started();
    declare(scheduler, chain());
    arrive(scheduler, job('1', 'a'), 0);
    const due = stage(scheduler, 'b', 0)?.dueInMs ?? 0;
    end(scheduler, '1', 500);
    arrive(scheduler, job('2', 'b'), 500);
    expect(status(scheduler, 500).stages.map(({ state }) => state)).toEqual(['ended', 'running', 'waiting']);
    expect(stage(scheduler, 'b', 500)?.dueInMs).toBeGreaterThan(0);
    expect((stage(scheduler, 'b', 500)?.dueInMs ?? 0) + 500).not.toBe(due);
  });

  test('runs slower than one of a tight deadline: its slack reaches the clock', () => {
    const pointOf = (deadlineMs: number): string | null | undefined => {
      const scheduler = started();
      declare(scheduler, chain({ deadlineMs }));
      const sent = arrive(scheduler, job('1', 'a'), 0);
      expect(ofKind(sent, 'dispatch')).toHaveLength(1);
      scheduler.handle({ kind: 'tokens', jobId: '1' as JobId, tokens: 1 }, 200);
      for (let atMs = 1_000; atMs <= 2_000; atMs += 100) scheduler.handle({ kind: 'tick' }, atMs);
      return scheduler.snapshot(2_000).replicas[0]?.pointId;
    };
    const speed = (id: string | null | undefined): number => belief.speedRank[belief.points.findIndex((point) => point.id === id)] ?? -1;
    const fastest = declare(started(), chain());
    const fastestMs = fastest?.kind === 'accepted' ? fastest.status.fastestLeftMs : 0;
    expect(speed(pointOf(10 * fastestMs))).toBeGreaterThan(speed(pointOf(1.2 * fastestMs)));
  });

  test('of no stage that it has is a job like any other', () => {
    const scheduler = started();
    declare(scheduler, chain());
    expect(ofKind(arrive(scheduler, job('1', 'nowhere'), 0), 'dispatch')).toHaveLength(1);
    expect(status(scheduler, 0).stages.every(({ state }) => state === 'waiting')).toBe(true);
    end(scheduler, '1', 10);
  });

  test('that fails or is given up is expected again', () => {
    for (const outcome of ['failed', 'cancelled'] as const) {
      const scheduler = started();
      declare(scheduler, chain());
      arrive(scheduler, job('1', 'a'), 0);
      end(scheduler, '1', 100, outcome);
      expect(stage(scheduler, 'a', 100)?.state).toBe('waiting');
      arrive(scheduler, job('2', 'a'), 200);
      expect(stage(scheduler, 'a', 200)?.state).toBe('running');
    }
  });

  test('that is refused is expected again', () => {
    const scheduler = started(1);
    declare(scheduler, chain());
    arrive(scheduler, job('0', 'x', { slo: { ttftMs: 60_000 } }), 0);
    arrive(scheduler, job('1', 'a', { queueTimeoutMs: 50 }), 0);
    expect(stage(scheduler, 'a', 0)?.state).toBe('running');
    expect(ofKind(scheduler.handle({ kind: 'tick' }, 100), 'reject')).toHaveLength(1);
    expect(stage(scheduler, 'a', 100)?.state).toBe('waiting');
  });

  test('keeps a limit of its own where that is earlier', () => {
    const scheduler = started();
    declare(scheduler, chain({ deadlineMs: 600_000 }));
    const slackOf = (slo: JobSpec['slo'], id: string): number => ofKind(arrive(scheduler, job(id, 'a', { slo }), 0), 'dispatch')[0]?.prediction.slackMs ?? 0;
    const free = slackOf({}, '1');
    expect(slackOf({ e2eMs: 5_000 }, '2')).toBeLessThan(Math.min(5_000, free));
  });
});

describe('the end of a workflow', () => {
  function play(scheduler: Scheduler, stages: readonly string[], stepMs: number, over: (name: string) => Partial<JobSpec> = () => ({}), fromMs = 0): readonly Effect[] {
    return stages.flatMap((name, index) => [...arrive(scheduler, job(`${name}${index}-${fromMs}`, name, over(name)), fromMs + index * stepMs), ...end(scheduler, `${name}${index}-${fromMs}`, fromMs + (index + 1) * stepMs)]);
  }

  test('is told once, with whether it was in time and what it took', () => {
    const inTime = reports(play(withDeclared(60_000), ['a', 'b', 'c'], 1_000));
    expect(inTime).toMatchObject([{ workflowId: 'w', tenant: 't', outcome: 'finished', met: true, calls: 3, outputTokens: 300, tookMs: 3_000 }]);
    expect(inTime[0]?.energyJ).toBeGreaterThan(0);
    expect(reports(play(withDeclared(2_500), ['a', 'b', 'c'], 1_000))).toMatchObject([{ outcome: 'finished', met: false }]);
  });

  function withDeclared(deadlineMs: number): Scheduler {
    const scheduler = started();
    declare(scheduler, chain({ deadlineMs }));
    return scheduler;
  }

  test('by its client frees it; what still runs of it goes on', () => {
    const scheduler = withDeclared(60_000);
    arrive(scheduler, job('1', 'a'), 0);
    expect(reports(scheduler.handle({ kind: 'workflow-ended', tenant: 't', workflowId: W }, 100))).toMatchObject([{ outcome: 'ended-by-client', met: null }]);
    expect(scheduler.workflow('t', W, 100)).toBeNull();
    expect(reports(scheduler.handle({ kind: 'workflow-ended', tenant: 't', workflowId: W }, 100))).toEqual([]);
    expect(ofKind(end(scheduler, '1', 200), 'report')).toHaveLength(1);
  });

  test('of one of which nothing more is heard comes a minute after its deadline', () => {
    const scheduler = withDeclared(1_000);
    play(scheduler, ['a'], 500);
    expect(reports(scheduler.handle({ kind: 'tick' }, 60_000))).toEqual([]);
    expect(reports(scheduler.handle({ kind: 'tick' }, 61_000))).toMatchObject([{ outcome: 'abandoned', met: false, calls: 1 }]);
    expect(scheduler.workflow('t', W, 61_000)).toBeNull();
  });

  test('does not come while a call is under way, however late', () => {
    const scheduler = withDeclared(1_000);
    arrive(scheduler, job('1', 'a'), 0);
    expect(reports(scheduler.handle({ kind: 'tick' }, 600_000))).toEqual([]);
    end(scheduler, '1', 600_001);
    expect(reports(scheduler.handle({ kind: 'tick' }, 700_000))).toHaveLength(1);
  });

  describe('that was not declared', () => {
    test('comes when it has been quiet, and its shape serves the next run of its name', () => {
      const scheduler = started();
      play(scheduler, ['plan', 'act', 'act'], 1_000, (name) => discovered(name));
      expect(status(scheduler, 3_000).stages.map((each) => each.stage)).toEqual(['plan', 'act', 'act#2']);
      expect(reports(scheduler.handle({ kind: 'tick' }, 63_000))).toMatchObject([{ outcome: 'finished', met: true, name: 'agent', calls: 3 }]);
      const next = 'next' as WorkflowId;
      arrive(scheduler, job('n', 'plan', discovered('plan', next)), 70_000);
      const known = scheduler.workflow('t', next, 70_000);
      expect(known?.stages.map((each) => [each.stage, each.state])).toEqual([['plan', 'running'], ['act', 'waiting'], ['act#2', 'waiting']]);
      // It knows what is to come, so its first call has not all of the time there is.
      expect(known?.stages[0]?.dueInMs).toBeLessThan(59_000);
      expect(known?.stages[0]?.dueInMs).toBeGreaterThan(1_000);
    });

    test('has in it the tools between its calls, though they take half a minute', () => {
      const scheduler = started();
      arrive(scheduler, job('1', 'plan', discovered('plan', W, 300_000)), 0);
      end(scheduler, '1', 1_000);
      expect(reports(scheduler.handle({ kind: 'tick' }, 30_000))).toEqual([]);
      arrive(scheduler, job('2', 'act', discovered('act', W, 300_000)), 31_000);
      end(scheduler, '2', 32_000);
      expect(reports(scheduler.handle({ kind: 'tick' }, 92_000))).toMatchObject([{ outcome: 'finished', calls: 2 }]);
      arrive(scheduler, job('3', 'plan', discovered('plan', 'next' as WorkflowId, 300_000)), 100_000);
      expect(scheduler.workflow('t', 'next' as WorkflowId, 100_000)?.stages.map((each) => [each.stage, each.kind])).toEqual([['plan', 'call'], ['act (before)', 'tool'], ['act', 'call']]);
    });

    test('hurries its calls while nobody knows what follows', () => {
      const scheduler = started();
      const sent = ofKind(arrive(scheduler, job('1', 'plan', discovered('plan')), 0), 'dispatch');
      expect(sent[0]?.prediction.slackMs).toBeLessThan(20_000);
    });

    test('bounds: calls of one', () => {
      const scheduler = started();
      for (let count = 0; count <= DISCOVERED_CALLS_MAX; count++) {
        arrive(scheduler, job(`${count}`, 'loop', discovered('loop', W, 3_600_000)), count * 10);
        end(scheduler, `${count}`, count * 10 + 5);
      }
      expect(status(scheduler, 3_000).stages).toHaveLength(DISCOVERED_CALLS_MAX);
    });

    test('without a deadline, or of a workflow that is not open, a call is a job like any other', () => {
      const scheduler = started();
      expect(ofKind(arrive(scheduler, job('1', 'a'), 0), 'dispatch')).toHaveLength(1);
      expect(scheduler.workflow('t', W, 0)).toBeNull();
    });
  });
});

test('what was said of a call\'s length counts for it, and not for what else its tenant sends', () => {
  const dueOf = (outputTokens: number): number => {
    const scheduler = started();
    declare(scheduler, chain({ nodes: [{ kind: 'call', stage: 'a', model: 'm', promptTokens: 500, outputTokens }], edges: [] }));
    const plain = ofKind(arrive(scheduler, plainJob('p'), 0), 'dispatch')[0]?.prediction.e2eMs ?? 0;
    const asked = ofKind(arrive(scheduler, job('1', 'a'), 0), 'dispatch')[0]?.prediction.e2eMs ?? 0;
    return asked / plain;
  };
  expect(dueOf(1_000) / dueOf(50)).toBeGreaterThan(5);
});

test('calls of absurd sizes are lost and harm nothing', () => {
  const scheduler = started();
  const nodes = Array.from({ length: 1_000 }, (_, index): WorkflowNode => ({ kind: 'call', stage: `${index}`, model: 'm', promptTokens: 10_000_000, outputTokens: 10_000_000 }));
  const answer = declare(scheduler, chain({ nodes, edges: nodes.slice(1).map((_, index) => [index, index + 1] as const) }));
  expect(answer).toMatchObject({ kind: 'accepted', status: { verdict: 'lost' } });
  arrive(scheduler, job('1', '0'), 0);
  expect(ofKind(end(scheduler, '1', 100), 'report')).toHaveLength(1);
});
