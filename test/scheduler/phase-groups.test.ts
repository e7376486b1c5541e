// A disaggregated server through the scheduler: two groups of devices, demanded, held and lost each by itself.
import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import type { PhaseGroup } from '../../src/core/replica-view.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Effect } from '../../src/scheduler/events.ts';
import { createScheduler, type PlannerPolicy, type Scheduler } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const R0 = 'r0' as ReplicaId;
const SLOWEST = '780';

function job(id: string, slo: JobSpec['slo'], promptTokens = 1000): JobSpec {
  return { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo, promptBytes: 4 * promptTokens, promptTokens, work: 'generate', streaming: true };
}

function started(policy: PlannerPolicy = { kind: 'paceline' }, disaggregated = true): Scheduler {
  const scheduler = createScheduler({ replicas: [{ replicaId: R0, models: ['m'], belief, concurrencyMax: 64, disaggregated }], policy, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 100 });
  scheduler.handle({ kind: 'replica-health', replicaId: R0, state: 'up' }, 0);
  return scheduler;
}

function controlled(policy?: PlannerPolicy): Scheduler {
  const scheduler = started(policy);
  for (const group of ['prefill', 'decode'] as const) scheduler.handle({ kind: 'control', replicaId: R0, group, controlled: true, pointId: null }, 0);
  return scheduler;
}

function demands(effects: readonly Effect[]): Record<string, string | undefined> {
  return Object.fromEntries(effects.flatMap((effect) => (effect.kind === 'demand' ? [[effect.group ?? 'all', effect.point?.id]] : [])));
}

/** As the devices do at once. */
function obeyed(scheduler: Scheduler, effects: readonly Effect[], nowMs: number): void {
  for (const effect of effects) {
    if (effect.kind !== 'demand') continue;
    const { replicaId, group, point } = effect;
    scheduler.handle({ kind: 'control', replicaId, ...(group === undefined ? {} : { group }), controlled: true, pointId: point?.id ?? null }, nowMs);
  }
}

describe('the two groups of a disaggregated server', () => {
  test('are demanded each by itself, and park while there is nothing to do', () => {
    expect(demands(controlled().handle({ kind: 'tick' }, 1_000))).toEqual({ prefill: SLOWEST, decode: SLOWEST });
  });

  test.each([
    { what: 'a tight TTFT', slo: { ttftMs: 150, tpotMs: 200 }, raised: 'prefill' },
    { what: 'a tight TPOT', slo: { ttftMs: 5_000, tpotMs: 19 }, raised: 'decode' },
  ] as const)('are raised at once by $what where it says so, and only there', ({ slo, raised }) => {
    const scheduler = controlled();
    obeyed(scheduler, scheduler.handle({ kind: 'tick' }, 1_000), 1_000);
    const effects = scheduler.handle({ kind: 'arrived', job: job('a', slo) }, 2_000);
    expect(effects[0]).toMatchObject({ kind: 'dispatch', prediction: { feasible: true } });
    expect(Object.keys(demands(effects))).toEqual([raised]);
    expect(effects[1]).toMatchObject({ change: 'raise', group: raised });
    const { groups } = scheduler.snapshot(2_000).replicas[0] as { groups: Record<PhaseGroup, { pointId: string; why: { binding: string } }> };
    expect(groups[raised].why.binding).toBe(raised === 'prefill' ? 'ttft' : 'tpot');
    expect(groups[raised === 'prefill' ? 'decode' : 'prefill']).toMatchObject({ pointId: SLOWEST });
  });

  test('of which the prefill group is lowered while a stream that it has had through runs on', () => {
    const scheduler = controlled();
    obeyed(scheduler, scheduler.handle({ kind: 'tick' }, 1_000), 1_000);
    obeyed(scheduler, scheduler.handle({ kind: 'arrived', job: job('a', { ttftMs: 150, tpotMs: 19 }) }, 2_000), 2_000);
    const before = demands(scheduler.handle({ kind: 'tick' }, 2_050));
    expect(Number(before['prefill'])).toBeGreaterThan(Number(SLOWEST));
    scheduler.handle({ kind: 'tokens', jobId: 'a' as JobId, tokens: 1 }, 2_120);
    const after = demands(scheduler.handle({ kind: 'tick' }, 2_500));
    // To where it waits for another as tight.
    expect(scheduler.snapshot(2_500).replicas[0]?.groups?.prefill.why.binding).toBe('idle');
    expect(Number(after['prefill'])).toBeLessThan(Number(before['prefill']));
    expect(Number(after['decode'])).toBeGreaterThan(Number(SLOWEST));
  });

  test.each(['prefill', 'decode'] as const)('stay controlled each: with the %s group lost the other is demanded on', (lost) => {
    const other = lost === 'prefill' ? 'decode' : 'prefill';
    const scheduler = controlled();
    scheduler.handle({ kind: 'tick' }, 1_000);
    scheduler.handle({ kind: 'control', replicaId: R0, group: lost, controlled: false, pointId: null }, 1_100);
    expect(demands(scheduler.handle({ kind: 'tick' }, 1_200))).toEqual({ [other]: SLOWEST });
    expect(scheduler.snapshot(1_200).replicas[0]).toMatchObject({
      controlled: false,
      groups: { [lost]: { controlled: false, pointId: null, why: { binding: 'uncontrolled' } }, [other]: { controlled: true, pointId: SLOWEST, why: { binding: 'idle' } } },
    });
    // A job is planned with the lost group at its default clocks, and may still raise the other.
    const effects = scheduler.handle({ kind: 'arrived', job: job('a', other === 'prefill' ? { ttftMs: 150 } : { tpotMs: 19 }) }, 2_000);
    expect(Object.keys(demands(effects))).toEqual([other]);
    scheduler.handle({ kind: 'control', replicaId: R0, group: lost, controlled: true, pointId: null }, 2_100);
    expect(Object.keys(demands(scheduler.handle({ kind: 'tick' }, 2_200)))).toEqual(['prefill', 'decode']);
  });

  test('both run at the point of a static policy', () => {
    expect(demands(controlled({ kind: 'static', pointId: '1230' }).handle({ kind: 'tick' }, 100))).toEqual({ prefill: '1230', decode: '1230' });
  });

  test('have first tokens predicted by the prefill group alone, however many streams there are', () => {
    const ttftOf = (disaggregated: boolean, streams: number): number => {
      const scheduler = started({ kind: 'max-clock' }, disaggregated);
      for (let index = 0; index < streams; index++) {
        scheduler.handle({ kind: 'arrived', job: job(`s${index}`, {}, 10) }, 1_000);
        scheduler.handle({ kind: 'tokens', jobId: `s${index}` as JobId, tokens: 1 }, 1_000);
      }
      const [effect] = scheduler.handle({ kind: 'arrived', job: job('last', {}) }, 1_001);
      if (effect?.kind !== 'dispatch') throw new Error('not sent');
      return effect.prediction.ttftMs;
    };
    expect(ttftOf(true, 40)).toBeCloseTo(ttftOf(true, 0), 3);
    expect(ttftOf(false, 40)).toBeGreaterThan(1.1 * ttftOf(false, 0));
  });
});
