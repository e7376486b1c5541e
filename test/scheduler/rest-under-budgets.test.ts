// Sleep where power is short: what sleeps leaves its watts to the others, and wakes only where there are watts for it.
import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import { breakEvenMs } from '../../src/core/sleep-worth.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { powerRange } from '../../src/frontier/power-limited.ts';
import type { Effect } from '../../src/scheduler/events.ts';
import { createScheduler, type Scheduler } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const { peakW, floorW, idleW } = powerRange(belief);
const SLEEP = { powerW: 20, sleepMs: 2_000, wakeMs: 5_000 };
const [R0, R1] = ['r0' as ReplicaId, 'r1' as ReplicaId];
const IDS = [R0, R1];
const EVEN_MS = breakEvenMs(SLEEP, idleW, belief.idlePowerW(belief.fastest));

interface Rig {
  tell(event: Parameters<Scheduler['handle']>[0]): readonly Effect[];
  /** Ticks, with devices that do at once what they are told; what servers are asked to do. */
  passes(ms: number): readonly { readonly kind: string; readonly replicaId: ReplicaId; readonly atMs: number }[];
  restOf(replicaId: ReplicaId): string | undefined;
  limitW(replicaId: ReplicaId): number | null | undefined;
}

function rig(watts: number, { awakeMin = 0, concurrencyMax = 20 }: { readonly awakeMin?: number; readonly concurrencyMax?: number } = {}): Rig {
  const scheduler = createScheduler({ replicas: IDS.map((replicaId) => ({ replicaId, models: ['m'], belief, concurrencyMax, sleep: SLEEP })), policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 100, sleep: { awakeMin } });
  const limits = new Map<ReplicaId, number | null | undefined>();
  let nowMs = 0;
  function tell(event: Parameters<Scheduler['handle']>[0]): readonly Effect[] {
    const effects = scheduler.handle(event, nowMs);
    for (const effect of effects) {
      if (effect.kind !== 'demand') continue;
      const { replicaId, point, powerLimitW } = effect;
      limits.set(replicaId, powerLimitW);
      scheduler.handle({ kind: 'control', replicaId, controlled: true, pointId: point?.id ?? null, ...(powerLimitW === undefined ? {} : { powerLimitW }) }, nowMs);
    }
    return effects;
  }
  for (const replicaId of IDS) {
    tell({ kind: 'control', replicaId, controlled: true, pointId: null });
    tell({ kind: 'replica-health', replicaId, state: 'up' });
  }
  tell({ kind: 'power-budgets', budgets: [{ name: 'rack', watts, replicaIds: IDS }] });
  return {
    tell,
    passes(ms) {
      const asked: { readonly kind: string; readonly replicaId: ReplicaId; readonly atMs: number }[] = [];
      for (const untilMs = nowMs + ms; nowMs < untilMs; ) {
        nowMs += 100;
        for (const effect of tell({ kind: 'tick' })) if (effect.kind === 'sleep' || effect.kind === 'wake') asked.push({ kind: effect.kind, replicaId: effect.replicaId, atMs: nowMs });
      }
      return asked;
    },
    restOf: (replicaId) => scheduler.snapshot(nowMs).replicas.find((replica) => replica.replicaId === replicaId)?.rest,
    limitW: (replicaId) => limits.get(replicaId),
  };
}

const rests = (replicaId: ReplicaId, state: 'asleep' | 'awake'): Parameters<Scheduler['handle']>[0] => ({ kind: 'replica-rest', replicaId, state });
const job = (id: string, over: Partial<JobSpec> = {}): Parameters<Scheduler['handle']>[0] => ({ kind: 'arrived', job: { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'c', slo: { ttftMs: 20_000 }, promptBytes: 4_000, promptTokens: 1_000, work: 'generate', streaming: true, ...over } });

/** Watts at which one may be at its floor beside another that idles, and not both. */
const ONE_W = 1.2 * floorW + 1.2 * idleW + 5;

describe('under a power budget', () => {
  test('a replica that it has nothing left for falls asleep, though jobs wait, and its watts go to the one that works', () => {
    const { tell, passes, restOf, limitW } = rig(ONE_W, { awakeMin: 1, concurrencyMax: 1 });
    for (let id = 0; id < 5; id++) tell(job(String(id)));
    const asked = passes(EVEN_MS + 3_000);
    expect(asked.map(({ kind }) => kind)).toEqual(['sleep']);
    const [{ replicaId: sleeper } = { replicaId: R1 }] = asked;
    const worker = sleeper === R0 ? R1 : R0;
    const beforeW = limitW(worker) ?? 0;
    tell(rests(sleeper, 'asleep'));
    passes(500);
    expect(restOf(sleeper)).toBe('asleep');
    expect(limitW(worker) ?? 0).toBeGreaterThan(beforeW + 0.8 * (idleW - SLEEP.powerW));
    expect((limitW(worker) ?? 0) + SLEEP.powerW).toBeLessThanOrEqual(ONE_W);
    expect(passes(30_000), 'jobs wait, and there are no watts for it').toEqual([]);
  });

  test('what sleeps is woken once there are watts for it, and have been for a second', () => {
    const { tell, passes } = rig(ONE_W, { awakeMin: 1, concurrencyMax: 1 });
    for (let id = 0; id < 5; id++) tell(job(String(id), { slo: { ttftMs: 200_000 } }));
    const [{ replicaId } = { replicaId: R1 }] = passes(EVEN_MS + 3_000);
    tell(rests(replicaId, 'asleep'));
    expect(passes(10_000)).toEqual([]);
    tell({ kind: 'power-budgets', budgets: [{ name: 'rack', watts: 2 * peakW, replicaIds: IDS }] });
    expect(passes(900), 'not yet').toEqual([]);
    expect(passes(1_500)).toMatchObject([{ kind: 'wake', replicaId }]);
  });

  test('where all sleep one is woken for a job that no deadline speaks for', () => {
    const { tell, passes } = rig(2 * peakW);
    passes(EVEN_MS + 3_000);
    for (const replicaId of IDS) tell(rests(replicaId, 'asleep'));
    passes(60_000);
    tell(job('a', { slo: {} }));
    expect(passes(2_000).map(({ kind }) => kind)).toEqual(['wake']);
  });

  test('one that wakes has what waking draws', () => {
    const { tell, passes, limitW } = rig(2 * peakW);
    passes(EVEN_MS + 3_000);
    for (const replicaId of IDS) tell(rests(replicaId, 'asleep'));
    passes(500);
    expect(IDS.map((replicaId) => (limitW(replicaId) ?? 0) <= 2 * peakW)).toEqual([true, true]);
    tell(job('a'));
    const [{ replicaId } = { replicaId: R0 }] = passes(5_000);
    passes(200);
    expect(limitW(replicaId) ?? 0).toBeGreaterThanOrEqual(0.98 * belief.idlePowerW(belief.fastest));
  });
});
