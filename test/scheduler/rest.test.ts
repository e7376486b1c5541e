import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import { breakEvenMs } from '../../src/core/sleep-worth.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Effect, SchedulerEvent } from '../../src/scheduler/events.ts';
import { createScheduler, type Scheduler, type SchedulerOptions } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const SLEEP = { powerW: 100, sleepMs: 2_000, wakeMs: 5_000 };
const [R0, R1] = ['r0', 'r1'] as ReplicaId[] as [ReplicaId, ReplicaId];
const PARKED_W = Math.min(...CLOCK_PROFILE.points.map(({ idlePowerW }) => idlePowerW));
const EVEN_MS = breakEvenMs(SLEEP, PARKED_W, belief.idlePowerW(belief.fastest));

/** A scheduler with its virtual time; ticks go by themselves. */
interface Rig {
  readonly scheduler: Scheduler;
  tell(event: SchedulerEvent): readonly Effect[];
  /** All effects of the ticks until then, demands aside. */
  passes(ms: number): readonly (Effect & { readonly atMs: number })[];
  nowMs(): number;
  restOf(replicaId: ReplicaId): string | undefined;
}

/** `awakeMin: null`: nobody is to sleep. */
function rig({ concurrencyMax = 20, cannot = [], awakeMin = 1, ...options }: { readonly concurrencyMax?: number; readonly cannot?: readonly ReplicaId[]; readonly awakeMin?: number | null } & Pick<SchedulerOptions, 'energyAccounts'> = {}): Rig {
  const scheduler = createScheduler({
    replicas: [R0, R1].map((replicaId) => ({ replicaId, models: ['m'], belief, concurrencyMax, ...(cannot.includes(replicaId) ? {} : { sleep: SLEEP }) })),
    policy: { kind: 'paceline' },
    attainmentTarget: 0.99,
    controlPeriodMs: 100,
    queuedMax: 100,
    ...(awakeMin === null ? {} : { sleep: { awakeMin } }),
    ...options,
  });
  let nowMs = 0;
  const tell = (event: SchedulerEvent): readonly Effect[] => scheduler.handle(event, nowMs);
  for (const replicaId of [R0, R1]) tell({ kind: 'replica-health', replicaId, state: 'up' });
  return {
    scheduler,
    tell,
    passes(ms) {
      const effects: (Effect & { readonly atMs: number })[] = [];
      for (const untilMs = nowMs + ms; nowMs < untilMs; ) {
        nowMs += 100;
        for (const effect of scheduler.handle({ kind: 'tick' }, nowMs)) if (effect.kind !== 'demand') effects.push({ ...effect, atMs: nowMs });
      }
      return effects;
    },
    nowMs: () => nowMs,
    restOf: (replicaId) => scheduler.snapshot(nowMs).replicas.find((replica) => replica.replicaId === replicaId)?.rest,
  };
}

function job(id: string, over: Partial<JobSpec> = {}): JobSpec {
  return { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'c', slo: { ttftMs: 20_000 }, promptBytes: 4_000, promptTokens: 1_000, work: 'generate', streaming: true, ...over };
}

const sentTo = (effects: readonly Effect[]): (ReplicaId | undefined)[] => effects.flatMap((effect) => (effect.kind === 'dispatch' ? [effect.replicaId] : []));
const kindsOf = (effects: readonly Effect[]): string[] => effects.map(({ kind }) => kind);
const asleep = (replicaId: ReplicaId): SchedulerEvent => ({ kind: 'replica-rest', replicaId, state: 'asleep' });
const awake = (replicaId: ReplicaId): SchedulerEvent => ({ kind: 'replica-rest', replicaId, state: 'awake' });

/** With R1 asleep, as it comes about by itself. */
function withOneAsleep(over: Parameters<typeof rig>[0] = {}): Rig {
  const made = rig(over);
  made.passes(EVEN_MS + 3_000);
  made.tell(asleep(R1));
  return made;
}

describe('a replica that nobody needs', () => {
  test('is put to sleep once, when it has not been needed for as long as sleeping takes to pay', () => {
    const { passes, restOf } = rig();
    const effects = passes(EVEN_MS + 5_000);
    expect(effects.map(({ kind }) => kind)).toEqual(['sleep']);
    expect(effects[0]).toMatchObject({ replicaId: R1 });
    expect(effects[0]?.atMs).toBeGreaterThanOrEqual(EVEN_MS);
    expect([R0, R1].map(restOf)).toEqual(['awake', 'falling-asleep']);
  });

  test.each([
    { name: 'nobody has asked for it', over: { awakeMin: null } },
    { name: 'none of them can', over: { cannot: [R0, R1] } },
    { name: 'as many are to be awake', over: { awakeMin: 2 } },
  ])('stays awake where $name', ({ over }) => {
    const { passes } = rig(over);
    expect(passes(3 * EVEN_MS)).toEqual([]);
  });

  test('sleeps in place of one that cannot', () => {
    const { passes } = rig({ cannot: [R1] });
    expect(passes(EVEN_MS + 3_000)).toMatchObject([{ kind: 'sleep', replicaId: R0 }]);
  });

  test('is not put to sleep with work on it, nor where another program works there', () => {
    const { tell, passes } = rig({ awakeMin: 0 });
    expect(sentTo(tell({ kind: 'arrived', job: job('a') }))).toEqual([R0]);
    tell({ kind: 'replica-load', replicaId: R1, running: 1, waiting: 0, kvUsage: 0 });
    expect(passes(4 * EVEN_MS)).toEqual([]);
    tell({ kind: 'ended', jobId: 'a' as JobId, outcome: 'finished', usage: { promptTokens: 1_000, cachedTokens: 0, outputTokens: 10 } });
    expect(passes(3_000), 'it has not been needed for long').toMatchObject([{ kind: 'sleep', replicaId: R0 }]);
  });

  test('gets no job that the others can have, and gets those that they have no room for', () => {
    const { tell, passes } = rig({ concurrencyMax: 2 });
    passes(2_000);
    const to = ['a', 'b', 'c'].flatMap((id) => sentTo(tell({ kind: 'arrived', job: job(id, { slo: {} }) })));
    expect(to).toEqual([R0, R0, R1]);
  });
});

describe('a replica that sleeps', () => {
  test('gets nothing, and is woken for jobs that have no place', () => {
    const { tell, passes, restOf } = withOneAsleep({ concurrencyMax: 2 });
    const to = ['a', 'b', 'c'].flatMap((id) => sentTo(tell({ kind: 'arrived', job: job(id) })));
    expect(to).toEqual([R0, R0]);
    expect(passes(100)).toMatchObject([{ kind: 'wake', replicaId: R1 }]);
    expect(restOf(R1)).toBe('waking');
    expect(kindsOf(passes(2_000)), 'told once').toEqual([]);
    expect(sentTo(tell(awake(R1)))).toEqual([R1]);
  });

  test('is woken by the first job where all sleep, and that waits for it', () => {
    const { tell, passes, scheduler } = rig({ awakeMin: 0 });
    expect(kindsOf(passes(EVEN_MS + 3_000))).toEqual(['sleep', 'sleep']);
    for (const replicaId of [R0, R1]) tell(asleep(replicaId));
    expect(tell({ kind: 'arrived', job: job('a') })).toEqual([{ kind: 'wake', replicaId: R0 }]);
    expect(tell({ kind: 'arrived', job: job('b') }), 'one is enough for both').toEqual([]);
    passes(4_000);
    expect(scheduler.snapshot(0).queued).toBe(2);
    expect(sentTo(tell(awake(R0)))).toEqual([R0, R0]);
  });

  test('is woken in time: while what may come could be more than the others can take', () => {
    const { tell, passes, nowMs } = withOneAsleep({ concurrencyMax: 64 });
    let woken: number | null = null;
    for (let count = 0; count < 300 && woken === null; count++) {
      tell({ kind: 'arrived', job: job(`j${count}`, { slo: { ttftMs: 2_000, tpotMs: 40 } }) });
      if (count >= 20) tell({ kind: 'ended', jobId: `j${count - 20}` as JobId, outcome: 'finished', usage: { promptTokens: 1_000, cachedTokens: 0, outputTokens: 150 } });
      if (passes(100).some(({ kind }) => kind === 'wake')) woken = nowMs();
    }
    expect(woken).not.toBeNull();
  });

  test('that does not wake counts as down, is asked again, and serves when it is awake after all', () => {
    const { tell, passes, restOf, scheduler, nowMs } = rig({ awakeMin: 0, cannot: [R1] });
    tell({ kind: 'replica-health', replicaId: R1, state: 'down' });
    passes(EVEN_MS + 3_000);
    tell(asleep(R0));
    expect(kindsOf(tell({ kind: 'arrived', job: job('a') }))).toEqual(['wake']);
    const effects = passes(3 * SLEEP.wakeMs + 6_000);
    expect(kindsOf(effects)).toEqual(['wake']);
    expect([restOf(R0), scheduler.snapshot(nowMs()).replicas[0]?.state]).toEqual(['lost', 'down']);
    expect(tell({ kind: 'arrived', job: job('b') })).toMatchObject([{ kind: 'reject', reason: 'no-replica' }]);
    tell(awake(R0));
    expect(sentTo(tell({ kind: 'arrived', job: job('c') }))).toEqual([R0]);
  });

  test('whose server says that it cannot sleep is never asked again', () => {
    const { tell, passes, restOf } = rig();
    passes(EVEN_MS + 3_000);
    tell({ kind: 'replica-rest', replicaId: R1, state: 'cannot' });
    expect(restOf(R1)).toBeUndefined();
    expect(kindsOf(passes(EVEN_MS + 3_000)), 'the other one sleeps in its place').toEqual(['sleep']);
  });

  test('is awake again where its server has gone and come back', () => {
    const { tell, restOf } = withOneAsleep();
    tell({ kind: 'replica-health', replicaId: R1, state: 'down' });
    tell({ kind: 'replica-health', replicaId: R1, state: 'up' });
    expect(restOf(R1)).toBe('awake');
  });

  test('may be the one that a job goes to which another could not take', () => {
    const { tell } = withOneAsleep();
    expect(sentTo(tell({ kind: 'arrived', job: job('a') }))).toEqual([R0]);
    expect(kindsOf(tell({ kind: 'returned', jobId: 'a' as JobId })), 'it waits, and is not refused').not.toContain('reject');
  });

  test('has a sleeping power in its accounts, of which nothing is learnt for idling', () => {
    const { scheduler, tell, passes, nowMs } = withOneAsleep({ energyAccounts: true });
    const idleJ = (): number => scheduler.snapshot(nowMs()).replicas[1]?.energy?.idle.modelledJ ?? Number.NaN;
    const beforeJ = idleJ();
    passes(10_000);
    expect(idleJ() - beforeJ).toBeCloseTo(10 * SLEEP.powerW, 6);
    // Metered asleep, and then not: awake it is believed to idle as its profile says.
    for (const energyJ of [0, 500, 1_000]) {
      tell({ kind: 'metered', replicaId: R1, reading: { energyJ, epoch: 0, powerW: null } });
      passes(5_000);
    }
    tell({ kind: 'metered', replicaId: R1, reading: null });
    tell(awake(R1));
    const learnt = scheduler.learntOf(R1);
    if (typeof learnt === 'string') throw new Error(learnt);
    expect(learnt.priced.idlePowerW(0)).toBe(belief.idlePowerW(0));
  });
});
