// Budgets as the scheduler keeps them: who is told which limit, in which order, and what becomes of jobs where there is not enough.
import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { powerRange } from '../../src/frontier/power-limited.ts';
import type { Effect } from '../../src/scheduler/events.ts';
import { createScheduler, type Scheduler, type SchedulerOptions } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const { peakW, floorW, idleW } = powerRange(belief);
const [R0, R1] = ['r0' as ReplicaId, 'r1' as ReplicaId];
const IDS = [R0, R1];
type Demand = Extract<Effect, { kind: 'demand' }>;

interface Fleet {
  readonly scheduler: Scheduler;
  readonly told: Map<ReplicaId, number | null | undefined>;
  /** Tells it, and gives the demands. */
  tell(event: Parameters<Scheduler['handle']>[0], nowMs: number): readonly Demand[];
  /** Its devices have done what they were told. */
  follow(replicaId: ReplicaId, nowMs: number): readonly Demand[];
}

function fleet(over: Partial<SchedulerOptions> = {}): Fleet {
  const scheduler = createScheduler({ replicas: IDS.map((replicaId) => ({ replicaId, models: ['m'], belief, concurrencyMax: 256 })), policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 100, ...over });
  const told = new Map<ReplicaId, number | null | undefined>();
  const points = new Map<ReplicaId, string | null>();
  const tell: Fleet['tell'] = (event, nowMs) => {
    const demands = scheduler.handle(event, nowMs).filter((effect): effect is Demand => effect.kind === 'demand');
    for (const { replicaId, powerLimitW, point } of demands) {
      told.set(replicaId, powerLimitW);
      points.set(replicaId, point?.id ?? null);
    }
    return demands;
  };
  for (const replicaId of IDS) {
    tell({ kind: 'control', replicaId, controlled: true, pointId: null }, 0);
    tell({ kind: 'replica-health', replicaId, state: 'up' }, 0);
  }
  const follow: Fleet['follow'] = (replicaId, nowMs) => {
    const powerLimitW = told.get(replicaId);
    return tell({ kind: 'control', replicaId, controlled: true, pointId: points.get(replicaId) ?? null, ...(powerLimitW === undefined ? {} : { powerLimitW }) }, nowMs);
  };
  return { scheduler, told, tell, follow };
}

const budget = (watts: number): Parameters<Scheduler['handle']>[0] => ({ kind: 'power-budgets', budgets: [{ name: 'rack', watts, replicaIds: IDS }] });
const job = (id: string, over: Partial<JobSpec> = {}): Parameters<Scheduler['handle']>[0] => ({ kind: 'arrived', job: { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo: { ttftMs: 1_500, tpotMs: 60 }, promptBytes: 4_000, promptTokens: 1_000, maxOutputTokens: 400, work: 'generate', streaming: true, ...over } });
const sum = (watts: readonly (number | null | undefined)[]): number => watts.reduce<number>((total, each) => total + (each ?? peakW), 0);

describe('limits', () => {
  test('are not spoken of where nobody has told of a budget', () => {
    const { tell } = fleet();
    expect(tell({ kind: 'tick' }, 100).every((demand) => !('powerLimitW' in demand))).toBe(true);
  });

  test('go out with the budget and not with the next control period, and add up to no more than it', () => {
    const { tell } = fleet();
    const demands = tell(budget(1.2 * peakW), 50);
    expect(demands).toHaveLength(2);
    expect(sum(demands.map(({ powerLimitW }) => powerLimitW))).toBeLessThanOrEqual(1.2 * peakW);
    expect(demands.every(({ change }) => change === 'lower')).toBe(true);
  });

  test('are taken back when there is no budget any more', () => {
    const { tell, follow } = fleet();
    tell(budget(1.2 * peakW), 50);
    for (const replicaId of IDS) follow(replicaId, 65);
    expect(tell({ kind: 'power-budgets', budgets: [] }, 100).map(({ powerLimitW }) => powerLimitW)).toEqual([null, null]);
  });

  test('are lowered first, and raised when the devices that gave up watts have followed', () => {
    const { tell, follow, told } = fleet({ replicas: IDS.map((replicaId) => ({ replicaId, models: [replicaId], belief, concurrencyMax: 256 })) });
    tell(budget(1.1 * peakW), 0);
    for (const replicaId of IDS) follow(replicaId, 15);
    // All of the work comes to one of them.
    for (let each = 0; each < 40; each++) tell(job(`j${each}`, { model: R0, slo: { ttftMs: 900, tpotMs: 21 } }), 20 + each);
    const [beforeW, otherW] = [told.get(R0) as number, told.get(R1) as number];
    tell({ kind: 'tick' }, 100);
    expect(told.get(R1)).toBeLessThan(otherW);
    expect(told.get(R0)).toBe(beforeW);
    expect(follow(R1, 115).filter(({ replicaId }) => replicaId === R0)).toMatchObject([{ change: 'raise' }]);
    expect(told.get(R0)).toBeGreaterThan(beforeW);
    expect(sum([...told.values()])).toBeLessThanOrEqual(1.1 * peakW);
  });

  test('a lower budget in time lowers them at once, a higher one raises them', () => {
    const { tell, follow, told } = fleet();
    tell(budget(2 * peakW), 0);
    for (const replicaId of IDS) follow(replicaId, 15);
    const lower = tell(budget(1.2 * peakW), 1_000);
    expect(sum(lower.map(({ powerLimitW }) => powerLimitW))).toBeLessThanOrEqual(1.2 * peakW);
    for (const replicaId of IDS) follow(replicaId, 1_015);
    tell(budget(2 * peakW), 2_000);
    expect(sum([...told.values()])).toBeGreaterThan(1.9 * peakW);
  });

  test('devices that were never heard to take one are kept within by their clock, whatever work comes', () => {
    const { tell } = fleet();
    for (const replicaId of IDS) tell({ kind: 'control', replicaId, controlled: true, pointId: null }, 0);
    tell(budget(1.2 * peakW), 0);
    tell(job('a'), 10);
    for (const { point, powerLimitW } of tell({ kind: 'tick' }, 100)) {
      const at = belief.points.findIndex(({ id }) => id === point?.id);
      expect(powerRange(belief).pointsW[at]).toBeLessThanOrEqual(powerLimitW as number);
    }
  });

  test('of a replica whose clocks nobody drives its peak is set aside', () => {
    const { tell } = fleet();
    tell({ kind: 'control', replicaId: R0, controlled: false, pointId: null }, 0);
    const demands = tell(budget(1.6 * peakW), 10);
    expect(demands.map(({ replicaId }) => replicaId)).toEqual([R1]);
    expect(demands[0]?.powerLimitW).toBeLessThanOrEqual(0.6 * peakW + 1);
  });

  test('mean nothing to policies that there are for comparison', () => {
    const { tell } = fleet({ policy: { kind: 'static', pointId: '1080' } });
    tell(budget(1.2 * peakW), 0);
    expect(tell({ kind: 'tick' }, 100).every((demand) => !('powerLimitW' in demand))).toBe(true);
  });
});

describe('where there is not enough', () => {
  test('a replica that cannot be at its floor gets no work, and the other one all', () => {
    const { scheduler, tell, follow } = fleet();
    tell(budget(1.3 * floorW + 1.5 * idleW), 0);
    for (const replicaId of IDS) follow(replicaId, 15);
    const went = Array.from({ length: 10 }, (_, each) => scheduler.handle(job(`j${each}`), 20 + each)).flat().flatMap((effect) => (effect.kind === 'dispatch' ? [effect.replicaId] : []));
    expect(went.length).toBeGreaterThan(0);
    expect(new Set(went).size).toBe(1);
  });

  test('the snapshot says what was allotted, and names a budget that even idling exceeds', () => {
    const { scheduler, tell } = fleet();
    expect(scheduler.snapshot(0).budgets).toBeUndefined();
    tell(budget(1.2 * peakW), 0);
    expect(scheduler.snapshot(0).budgets).toMatchObject([{ name: 'rack', watts: 1.2 * peakW, drawnW: null, exceeded: false }]);
    expect(scheduler.snapshot(0).budgets?.[0]?.allottedW).toBeLessThanOrEqual(1.2 * peakW);
    tell(budget(idleW), 100);
    expect(scheduler.snapshot(100).budgets).toMatchObject([{ exceeded: true }]);
  });

  test('of jobs that wait the worthiest go first', () => {
    const { scheduler, tell } = fleet({ replicas: [{ replicaId: R0, models: ['m'], belief, concurrencyMax: 1 }] });
    tell(job('first'), 0);
    tell(job('plain', { tenant: 'u' }), 10);
    tell(job('worthy', { tenant: 'v', worth: 4 }), 20);
    const effects = scheduler.handle({ kind: 'ended', jobId: 'first' as JobId, outcome: 'finished' }, 30);
    expect(effects.filter(({ kind }) => kind === 'dispatch')).toMatchObject([{ jobId: 'worthy' }]);
  });
});
