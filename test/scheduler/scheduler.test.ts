import { describe, expect, test } from 'vitest';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import { ALL_MECHANISMS } from '../../src/core/mechanisms.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Effect } from '../../src/scheduler/events.ts';
import type { ReplicaSpec } from '../../src/scheduler/replica.ts';
import { createScheduler, type Scheduler, type SchedulerOptions } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const R0 = 'r0' as ReplicaId;
const R1 = 'r1' as ReplicaId;

function job(id: string, over: Partial<JobSpec> = {}): JobSpec {
  return { jobId: id as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo: { ttftMs: 1000, tpotMs: 60 }, promptBytes: 4000, promptTokens: 1000, work: 'generate', streaming: true, ...over };
}

function serving(replicaId: ReplicaId, model: string, concurrencyMax = 256): ReplicaSpec {
  return { replicaId, models: [model], belief, concurrencyMax };
}

function started(over: Partial<SchedulerOptions> = {}, replicas: readonly ReplicaId[] = [R0], concurrencyMax = 256): Scheduler {
  return startedWith(over, replicas.map((replicaId) => serving(replicaId, 'm', concurrencyMax)));
}

function startedWith(over: Partial<SchedulerOptions>, replicas: readonly ReplicaSpec[]): Scheduler {
  const scheduler = createScheduler({ replicas, policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 2, ...over });
  for (const { replicaId } of replicas) {
    scheduler.handle({ kind: 'replica-health', replicaId, state: 'up' }, 0);
    scheduler.handle({ kind: 'control', replicaId, controlled: true, pointId: null }, 0);
  }
  return scheduler;
}

function demands(effects: readonly Effect[]): Extract<Effect, { kind: 'demand' }>[] {
  return effects.filter((effect) => effect.kind === 'demand');
}

/** The job that is sent to a replica. */
function sentBy(effects: readonly Effect[]): string | undefined {
  return effects.find((effect) => effect.kind === 'dispatch')?.jobId;
}

describe('a replica that comes back', () => {
  const health = (state: 'up' | 'down' | 'draining') => ({ kind: 'replica-health', replicaId: R0, state }) as const;
  /** Jobs that are sent, of as many as there could be room for. */
  function roomAt(scheduler: Scheduler, nowMs: number): number {
    let room = 0;
    for (let index = 0; index < 20; index++) if (sentBy(scheduler.handle({ kind: 'arrived', job: job(`${nowMs} ${index}`, { slo: {}, promptTokens: 10 }) }, nowMs)) !== undefined) room += 1;
    return room;
  }
  const backFor = (sinceMs: number, slowStartMs: number, concurrencyMax = 20): number => {
    const scheduler = started({ slowStartMs, queuedMax: 100 }, [R0], concurrencyMax);
    scheduler.handle(health('down'), 1_000);
    scheduler.handle(health('up'), 2_000);
    return roomAt(scheduler, 2_000 + sinceMs);
  };

  test.each([
    { sinceMs: 0, room: 2 },
    { sinceMs: 1_000, room: 2 },
    { sinceMs: 5_000, room: 10 },
    { sinceMs: 9_999, room: 20 },
    { sinceMs: 10_000, room: 20 },
  ])('has after $sinceMs ms of 10 s room for $room of 20', ({ sinceMs, room }) => expect(backFor(sinceMs, 10_000)).toBe(room));

  test('has room for one at least, and for all where slow start is off', () => {
    expect(backFor(0, 10_000, 3)).toBe(1);
    expect(backFor(0, 0)).toBe(20);
  });

  test('is not slow where it was up when it was first looked at, nor where it is said to be up again and again', () => {
    const scheduler = started({ slowStartMs: 10_000, queuedMax: 100 }, [R0], 20);
    scheduler.handle(health('up'), 10);
    expect(roomAt(scheduler, 20)).toBe(20);
  });

  test('takes up what waited for it as its share grows, at control periods', () => {
    const scheduler = started({ slowStartMs: 10_000, queuedMax: 100 }, [R0], 20);
    scheduler.handle(health('draining'), 1_000);
    scheduler.handle(health('up'), 2_000);
    expect(roomAt(scheduler, 2_000)).toBe(2);
    expect(scheduler.handle({ kind: 'tick' }, 4_000).filter(({ kind }) => kind === 'dispatch')).toHaveLength(2);
    expect(scheduler.snapshot(4_000).queued).toBe(16);
  });
});

describe('an arrival', () => {
  test('is sent to a replica with what is predicted for it', () => {
    const [effect] = started().handle({ kind: 'arrived', job: job('a') }, 5);
    expect(effect).toMatchObject({ kind: 'dispatch', jobId: 'a', replicaId: 'r0', prediction: { feasible: true } });
    if (effect?.kind !== 'dispatch') return;
    expect(effect.prediction.ttftMs).toBeGreaterThan(50);
    expect(effect.prediction.slackMs).toBeGreaterThan(0);
  });

  test('is refused with the reason when no replica is up, or none serves the model', () => {
    const scheduler = started();
    expect(scheduler.handle({ kind: 'arrived', job: job('a', { model: 'other' }) }, 1)).toMatchObject([{ kind: 'reject', reason: 'unknown-model' }]);
    scheduler.handle({ kind: 'replica-health', replicaId: R0, state: 'down' }, 2);
    expect(scheduler.handle({ kind: 'arrived', job: job('b') }, 3)).toMatchObject([{ kind: 'reject', reason: 'no-replica', retryAfterMs: 1000 }]);
  });

  test('waits in our queue, earliest deadline first, when the replica is full; one more than the queue holds is refused', () => {
    const scheduler = started({}, [R0], 1);
    scheduler.handle({ kind: 'arrived', job: job('running') }, 0);
    expect(scheduler.handle({ kind: 'arrived', job: job('late', { slo: { ttftMs: 9000 } }) }, 1)).toEqual([]);
    expect(scheduler.handle({ kind: 'arrived', job: job('soon', { slo: { ttftMs: 500 } }) }, 2)).toEqual([]);
    expect(scheduler.handle({ kind: 'arrived', job: job('too many') }, 3)).toMatchObject([{ kind: 'reject', reason: 'queue-full' }]);
    expect(scheduler.snapshot(3).queued).toBe(2);
    const after = scheduler.handle({ kind: 'ended', jobId: 'running' as JobId, outcome: 'finished' }, 50);
    expect(after.filter(({ kind }) => kind === 'dispatch')).toMatchObject([{ jobId: 'soon' }]);
  });

  describe('whose replica could not be reached', () => {
    const returned = (jobId: string): { readonly kind: 'returned'; readonly jobId: JobId } => ({ kind: 'returned', jobId: jobId as JobId });
    const replicaOf = (effects: readonly Effect[]): string | undefined => effects.find((effect) => effect.kind === 'dispatch')?.replicaId;

    test('goes to another one, with its deadline from when it came, and never back', () => {
      const scheduler = started({}, [R0, R1]);
      const first = replicaOf(scheduler.handle({ kind: 'arrived', job: job('a') }, 0));
      const again = scheduler.handle(returned('a'), 300);
      expect(replicaOf(again)).toBe(first === R0 ? R1 : R0);
      expect(again.find((effect) => effect.kind === 'dispatch')?.prediction.ttftMs).toBeGreaterThan(300);
      expect(scheduler.handle(returned('a'), 310)).toEqual([{ kind: 'reject', jobId: 'a', reason: 'no-replica', retryAfterMs: 1000 }]);
      expect(scheduler.snapshot(310).replicas.map(({ waitingPrompts }) => waitingPrompts)).toEqual([0, 0]);
    });

    test('is rejected where there is no other, and waits where the other has no place', () => {
      const alone = started();
      alone.handle({ kind: 'arrived', job: job('a') }, 0);
      expect(alone.handle(returned('a'), 1)).toMatchObject([{ kind: 'reject', reason: 'no-replica' }]);
      const full = started({}, [R0, R1], 1);
      const [a, b] = [full.handle({ kind: 'arrived', job: job('a') }, 0), full.handle({ kind: 'arrived', job: job('b') }, 0)];
      expect(new Set([replicaOf(a), replicaOf(b)])).toEqual(new Set([R0, R1]));
      expect(full.handle(returned('a'), 1)).toEqual([]);
      expect(full.handle({ kind: 'ended', jobId: 'b' as JobId, outcome: 'finished' }, 50)).toContainEqual(expect.objectContaining({ kind: 'dispatch', jobId: 'a', replicaId: replicaOf(b) }));
    });

    test('is not known any more once it has ended', () => {
      const scheduler = started({}, [R0, R1]);
      scheduler.handle({ kind: 'arrived', job: job('a') }, 0);
      scheduler.handle({ kind: 'ended', jobId: 'a' as JobId, outcome: 'cancelled' }, 1);
      expect(scheduler.handle(returned('a'), 2)).toEqual([]);
    });
  });

  describe('like one that was just judged', () => {
    const IN_FLIGHT = 64;
    /** With so many in flight that four more are a sixteenth; uncontrolled, so that the fastest point leaves slack. */
    function busy(): Scheduler {
      const scheduler = started();
      scheduler.handle({ kind: 'control', replicaId: R0, controlled: false, pointId: null }, 0);
      for (let index = 0; index < IN_FLIGHT; index++) {
        scheduler.handle({ kind: 'arrived', job: small(`s${index}`) }, index * 50);
        scheduler.handle({ kind: 'tokens', jobId: `s${index}` as JobId, tokens: 1 }, index * 50 + 40);
      }
      return scheduler;
    }
    const small = (id: string, over: Partial<JobSpec> = {}): JobSpec => job(id, { promptTokens: 20, slo: { ttftMs: 60_000, tpotMs: 1_000 }, ...over });
    const nowMs = IN_FLIGHT * 50;
    function predicted(scheduler: Scheduler, id: string, atMs: number, over: Partial<JobSpec> = {}): number {
      const effect = scheduler.handle({ kind: 'arrived', job: small(id, over) }, atMs).find(({ kind }) => kind === 'dispatch');
      if (effect?.kind !== 'dispatch') throw new Error(`${id} was not sent`);
      return effect.prediction.ttftMs;
    }

    test('goes the same way with the same prediction, until so many have that the load has changed', () => {
      const scheduler = busy();
      const first = predicted(scheduler, 'a', nowMs);
      const sameAs = Array.from({ length: IN_FLIGHT / 16 }, (_, index) => predicted(scheduler, `b${index}`, nowMs + 0.1));
      expect(sameAs).toEqual(sameAs.map(() => first));
      expect(predicted(scheduler, 'c', nowMs + 0.2)).toBeGreaterThan(first);
    });

    test.each<[string, number, Partial<JobSpec>]>([
      ['later', 3, {}],
      ['larger', 0, { promptTokens: 40 }],
      ['of another SLO', 0, { slo: { ttftMs: 60_001, tpotMs: 1_000 } }],
      ['of other work', 0, { work: 'embed', streaming: false }],
    ])('is judged anew where it is %s', (_what, laterMs, over) => {
      const scheduler = busy();
      const first = predicted(scheduler, 'a', nowMs);
      expect(predicted(scheduler, 'b', nowMs + laterMs, over)).not.toBe(first);
    });

    test('is not sent to a replica that has gone', () => {
      const scheduler = busy();
      predicted(scheduler, 'a', nowMs);
      scheduler.handle({ kind: 'replica-health', replicaId: R0, state: 'down' }, nowMs);
      expect(scheduler.handle({ kind: 'arrived', job: small('b') }, nowMs)).toMatchObject([{ kind: 'reject', reason: 'no-replica' }]);
    });
  });

  test('goes before jobs that are late already, who still get their turn', () => {
    const scheduler = started({ queuedMax: 40 }, [R0], 1);
    scheduler.handle({ kind: 'arrived', job: job('running') }, 0);
    for (let index = 0; index < 2; index++) scheduler.handle({ kind: 'arrived', job: job(`late${index}`, { slo: { ttftMs: 50 } }) }, 1);
    for (let index = 0; index < 12; index++) scheduler.handle({ kind: 'arrived', job: job(`soon${index}`, { slo: { ttftMs: 4500 } }) }, 2 + index);
    const order: string[] = [];
    for (let current = 'running', atMs = 100; current !== ''; atMs += 100) {
      current = sentBy(scheduler.handle({ kind: 'ended', jobId: current as JobId, outcome: 'finished' }, atMs)) ?? '';
      if (current !== '') order.push(current);
    }
    expect(order.slice(0, 8)).toEqual(['soon0', 'soon1', 'soon2', 'soon3', 'soon4', 'soon5', 'soon6', 'late0']);
    expect(order).toHaveLength(14);
  });

  test('keeps its place among equals when it could not be sent the first time', () => {
    const scheduler = started({ queuedMax: 40 }, [R0], 1);
    const order: string[] = [];
    for (let index = 0; index < 8; index++) scheduler.handle({ kind: 'arrived', job: job(`j${index}`, { slo: {} }) }, 0);
    for (let index = 0; index < 7; index++) {
      order.push(sentBy(scheduler.handle({ kind: 'ended', jobId: (order.at(-1) ?? 'j0') as JobId, outcome: 'finished' }, index + 1)) ?? 'nobody');
    }
    expect(order).toEqual(['j1', 'j2', 'j3', 'j4', 'j5', 'j6', 'j7']);
  });

  test('held back for want of place keeps the replica at its fastest meanwhile', () => {
    const scheduler = started({}, [R0], 1);
    scheduler.handle({ kind: 'arrived', job: job('running') }, 0);
    scheduler.handle({ kind: 'arrived', job: job('held', { slo: { ttftMs: 60_000 } }) }, 1);
    const [held] = demands(scheduler.handle({ kind: 'tick' }, 100));
    expect(held).toMatchObject({ point: { id: '1830' }, change: 'renew', why: { binding: 'stability' } });
  });

  test('is told at once when the last replica of its model goes down while it waits', () => {
    const scheduler = started({}, [R0], 1);
    scheduler.handle({ kind: 'arrived', job: job('running') }, 0);
    scheduler.handle({ kind: 'arrived', job: job('waiting') }, 1);
    expect(scheduler.handle({ kind: 'replica-health', replicaId: R0, state: 'down' }, 2)).toMatchObject([{ kind: 'reject', jobId: 'waiting', reason: 'no-replica' }]);
    expect(scheduler.snapshot(3).queued).toBe(0);
  });

  test('goes to the replica that can meet it, not to the one that cannot', () => {
    const scheduler = started({}, [R0, R1]);
    const [first] = scheduler.handle({ kind: 'arrived', job: job('big', { promptTokens: 4000, slo: { ttftMs: 60_000 } }) }, 0);
    const other = first?.kind === 'dispatch' && first.replicaId === R0 ? R1 : R0;
    expect(scheduler.handle({ kind: 'arrived', job: job('tight', { promptTokens: 200, slo: { ttftMs: 200 } }) }, 1)).toMatchObject([{ kind: 'dispatch', replicaId: other, prediction: { feasible: true } }]);
  });

  test('goes to a replica that is idle, not to one that has nothing of ours but is full of others', () => {
    const scheduler = started({}, [R0, R1]);
    scheduler.handle({ kind: 'peer-load', replicaId: R0, running: 250, waiting: 0 }, 0);
    expect(scheduler.handle({ kind: 'arrived', job: job('a', { slo: { ttftMs: 1000, tpotMs: 20 } }) }, 1)).toMatchObject([{ kind: 'dispatch', replicaId: R1, prediction: { feasible: true } }]);
  });

  test('of no tokens at all is one like any other', () => {
    const scheduler = started();
    for (let index = 0; index < 5; index++) {
      const [effect] = scheduler.handle({ kind: 'arrived', job: job(`empty ${index}`, { promptTokens: 0, promptBytes: 0 }) }, index);
      expect(effect?.kind === 'dispatch' && Number.isFinite(effect.prediction.ttftMs)).toBe(true);
    }
  });

  test('of another model with long answers does not make a replica hurry that does not serve it', () => {
    const scheduler = startedWith({ queuedMax: 100 }, [serving(R0, 'short'), serving(R1, 'long')]);
    const why = new Set<string>();
    for (let nowMs = 0; nowMs < 10_000; nowMs += 100) {
      const id = `short ${nowMs}`;
      scheduler.handle({ kind: 'arrived', job: job(id, { model: 'short', promptTokens: 100, maxOutputTokens: 4, slo: { ttftMs: 1000 } }) }, nowMs);
      if (nowMs % 1000 === 0) scheduler.handle({ kind: 'arrived', job: job(`long ${nowMs}`, { model: 'long', slo: {} }) }, nowMs);
      scheduler.handle({ kind: 'tokens', jobId: id as JobId, tokens: 1 }, nowMs + 30);
      for (const demand of demands(scheduler.handle({ kind: 'tick' }, nowMs + 40))) if (demand.replicaId === R0) why.add(demand.why.binding);
      scheduler.handle({ kind: 'ended', jobId: id as JobId, outcome: 'finished', usage: { promptTokens: 100, cachedTokens: 0, outputTokens: 4 } }, nowMs + 60);
      if (nowMs % 1000 === 900) scheduler.handle({ kind: 'ended', jobId: `long ${nowMs - 900}` as JobId, outcome: 'finished', usage: { promptTokens: 1000, cachedTokens: 0, outputTokens: 8000 } }, nowMs + 70);
    }
    expect([...why]).not.toContain('stability');
  });

  test('is sent all the same where its deadline cannot be met, and marked infeasible', () => {
    const [effect] = started().handle({ kind: 'arrived', job: job('hopeless', { slo: { ttftMs: 20 } }) }, 0);
    expect(effect).toMatchObject({ kind: 'dispatch', prediction: { feasible: false } });
    expect(effect?.kind === 'dispatch' && (effect.prediction.slackMs ?? 0) < 0).toBe(true);
  });
});

describe('a job kept back on purpose', () => {
  /** A stream that has just begun, may end at once, and cannot make good what 4,000 tokens of prefill would take from it. */
  function withFreshStream(over: Partial<SchedulerOptions> = {}): Scheduler {
    const scheduler = started({ queuedMax: 40, ...over });
    scheduler.handle({ kind: 'arrived', job: job('stream', { slo: { ttftMs: 1000, tpotMs: 24 } }) }, 0);
    scheduler.handle({ kind: 'tokens', jobId: 'stream' as JobId, tokens: 1 }, 100);
    return scheduler;
  }
  const long = job('long', { promptTokens: 4000, slo: { ttftMs: 4000, tpotMs: 60 } });

  test('waits while its prompt would cost a stream its TPOT, and goes when that stream has ended', () => {
    const scheduler = withFreshStream();
    expect(scheduler.handle({ kind: 'arrived', job: long }, 110)).toEqual([]);
    expect(sentBy(scheduler.handle({ kind: 'tick' }, 200))).toBeUndefined();
    expect(sentBy(scheduler.handle({ kind: 'ended', jobId: 'stream' as JobId, outcome: 'finished' }, 250))).toBe('long');
  });

  test('goes all the same when its own deadline leaves no more time', () => {
    const scheduler = withFreshStream();
    scheduler.handle({ kind: 'arrived', job: long }, 110);
    let sentAtMs = Infinity;
    for (let nowMs = 200; nowMs <= 4100 && sentAtMs === Infinity; nowMs += 100) if (sentBy(scheduler.handle({ kind: 'tick' }, nowMs)) === 'long') sentAtMs = nowMs;
    expect(sentAtMs).toBeGreaterThan(1500);
    expect(sentAtMs, 'in time for its prefill').toBeLessThan(4110 - 350);
  });

  test('without any deadline waits no longer than somebody who watches would', () => {
    const scheduler = withFreshStream();
    scheduler.handle({ kind: 'arrived', job: { ...long, slo: {} } }, 110);
    expect(sentBy(scheduler.handle({ kind: 'tick' }, 900))).toBeUndefined();
    expect(sentBy(scheduler.handle({ kind: 'tick' }, 1200))).toBe('long');
  });

  test('is nobody where pacing is switched off, or under a policy that stands for a plain gateway', () => {
    for (const over of [{ mechanisms: { ...ALL_MECHANISMS, pacing: false, holding: false } }, { policy: { kind: 'max-clock' } }] as const) {
      expect(sentBy(withFreshStream(over).handle({ kind: 'arrived', job: long }, 110))).toBe('long');
    }
  });

  test('with long slack waits for a replica that runs anyway, and rides along', () => {
    const scheduler = started({ queuedMax: 40 });
    for (let index = 0; index < 5; index++) {
      scheduler.handle({ kind: 'arrived', job: job(`chat${index}`) }, 1000 * index);
      scheduler.handle({ kind: 'ended', jobId: `chat${index}` as JobId, outcome: 'finished' }, 1000 * index + 500);
    }
    const batch = job('batch', { sloClass: 'batch', slo: { e2eMs: 120_000 } });
    expect(scheduler.handle({ kind: 'arrived', job: batch }, 5000), 'the fleet is idle').toEqual([]);
    expect(sentBy(scheduler.handle({ kind: 'tick' }, 5600))).toBeUndefined();
    expect(sentBy(scheduler.handle({ kind: 'arrived', job: job('chat') }, 6000)), 'nobody waits behind it').toBe('chat');
    scheduler.handle({ kind: 'tokens', jobId: 'chat' as JobId, tokens: 1 }, 6100);
    expect(sentBy(scheduler.handle({ kind: 'tick' }, 6200))).toBe('batch');
  });

  test('with long slack goes at once where nobody else comes', () => {
    const scheduler = started();
    scheduler.handle({ kind: 'arrived', job: job('once') }, 0);
    scheduler.handle({ kind: 'ended', jobId: 'once' as JobId, outcome: 'finished' }, 500);
    expect(sentBy(scheduler.handle({ kind: 'arrived', job: job('batch', { slo: { e2eMs: 120_000 } }) }, 600_000))).toBe('batch');
  });

  test('counts against the bound of our queue; where that is full one of them goes rather than that anybody is refused', () => {
    const scheduler = withFreshStream({ queuedMax: 1 });
    scheduler.handle({ kind: 'arrived', job: long }, 110);
    expect(scheduler.snapshot(120).queued).toBe(1);
    expect(sentBy(scheduler.handle({ kind: 'arrived', job: { ...long, jobId: 'one more' as JobId } }, 130))).toBe('one more');
    expect(scheduler.snapshot(140).queued).toBe(1);
  });

  test('is out of our queue when it is cancelled there', () => {
    const scheduler = withFreshStream();
    scheduler.handle({ kind: 'arrived', job: long }, 110);
    expect(scheduler.handle({ kind: 'ended', jobId: long.jobId, outcome: 'cancelled' }, 140)).toMatchObject([{ kind: 'report', report: { replicaId: null } }]);
    expect(scheduler.snapshot(150).queued).toBe(0);
  });
});

describe('a queue of many', () => {
  test('lets a job without a deadline go in the end, however many with one keep coming', () => {
    const scheduler = started({ queuedMax: 40 }, [R0], 1);
    scheduler.handle({ kind: 'arrived', job: job('j0') }, 0);
    scheduler.handle({ kind: 'arrived', job: job('patient', { slo: {} }) }, 1);
    let current = 'j0';
    for (let index = 1; index < 60 && current !== 'patient'; index++) {
      scheduler.handle({ kind: 'arrived', job: job(`j${index}`) }, index * 1000 - 500);
      current = sentBy(scheduler.handle({ kind: 'ended', jobId: current as JobId, outcome: 'finished' }, index * 1000)) ?? current;
    }
    expect(current).toBe('patient');
  });

  test('of one model hides nobody of another, whose replica is idle', () => {
    const scheduler = startedWith({ queuedMax: 100 }, [serving(R0, 'a'), serving(R1, 'b', 1)]);
    scheduler.handle({ kind: 'arrived', job: job('stream', { model: 'a', slo: { ttftMs: 1000, tpotMs: 24 } }) }, 0);
    scheduler.handle({ kind: 'tokens', jobId: 'stream' as JobId, tokens: 1 }, 100);
    for (let index = 0; index < 30; index++) scheduler.handle({ kind: 'arrived', job: job(`a${index}`, { model: 'a', promptTokens: 4000, slo: { ttftMs: 20_000, tpotMs: 60 } }) }, 110);
    scheduler.handle({ kind: 'arrived', job: job('b0', { model: 'b', slo: { ttftMs: 4000 } }) }, 120);
    scheduler.handle({ kind: 'arrived', job: job('b1', { model: 'b', slo: { ttftMs: 4000 } }) }, 130);
    expect(sentBy(scheduler.handle({ kind: 'ended', jobId: 'b0' as JobId, outcome: 'finished' }, 150))).toBe('b1');
  });

  test('kept on purpose does not make the replicas run fast, as one without a place does', () => {
    const scheduler = started({ queuedMax: 100 });
    scheduler.handle({ kind: 'arrived', job: job('stream', { slo: { ttftMs: 1000, tpotMs: 24 } }) }, 0);
    for (let nowMs = 100; nowMs < 25_000; nowMs += 1000) {
      // Never ahead of its limit, so that no prompt is welcome beside it.
      scheduler.handle({ kind: 'tokens', jobId: 'stream' as JobId, tokens: nowMs === 100 ? 1 : 41 }, nowMs);
      scheduler.handle({ kind: 'arrived', job: job(`p${nowMs}`, { promptTokens: 1500, slo: { ttftMs: 60_000, tpotMs: 90 } }) }, nowMs + 1);
    }
    expect(scheduler.snapshot(25_000).queued).toBeGreaterThan(20);
    const [demanded] = demands(scheduler.handle({ kind: 'tick' }, 25_050));
    expect(demanded?.why.binding).not.toBe('stability');
  });

  test('under a policy that stands for a plain gateway goes as soon as there is a place, whatever waits for other models', () => {
    const models = Array.from({ length: 20 }, (_, index) => `m${index}`);
    const scheduler = startedWith({ queuedMax: 100, policy: { kind: 'max-clock' } }, models.map((model, index) => serving(`r${index}` as ReplicaId, model, 1)));
    for (const [index, model] of models.entries()) {
      scheduler.handle({ kind: 'arrived', job: job(`first ${model}`, { model }) }, 1);
      scheduler.handle({ kind: 'arrived', job: job(`second ${model}`, { model, slo: { ttftMs: 1000 + index } }) }, 2);
    }
    expect(sentBy(scheduler.handle({ kind: 'ended', jobId: 'first m19' as JobId, outcome: 'finished' }, 50))).toBe('second m19');
  });
});

describe('demands for operating points', () => {
  test('park an idle replica, and raise it at once on the arrival that needs it', () => {
    const scheduler = started();
    const [parked] = demands(scheduler.handle({ kind: 'tick' }, 100));
    expect(parked).toMatchObject({ replicaId: 'r0', point: { id: '780' }, change: 'lower', why: { binding: 'idle' } });
    scheduler.handle({ kind: 'control', replicaId: R0, controlled: true, pointId: '780' }, 120);
    const [raised] = demands(scheduler.handle({ kind: 'arrived', job: job('tight', { slo: { ttftMs: 180 } }) }, 150));
    expect(raised).toMatchObject({ change: 'raise', why: { binding: 'ttft', jobId: 'tight' } });
    expect(Number(raised?.point?.knobs['clockMhz'])).toBeGreaterThan(780);
  });

  test('are renewed every period and lapse by themselves: hold_ms outlives a few periods only', () => {
    const scheduler = started();
    const first = demands(scheduler.handle({ kind: 'tick' }, 100));
    const second = demands(scheduler.handle({ kind: 'tick' }, 200));
    expect(second).toMatchObject([{ change: 'renew', holdMs: 500 }]);
    expect(second[0]?.point).toEqual(first[0]?.point);
  });

  test('are not lowered within the dwell time of a raise', () => {
    const scheduler = started();
    scheduler.handle({ kind: 'tick' }, 100);
    scheduler.handle({ kind: 'arrived', job: job('tight', { slo: { tpotMs: 18 } }) }, 150);
    scheduler.handle({ kind: 'ended', jobId: 'tight' as JobId, outcome: 'cancelled' }, 160);
    expect(demands(scheduler.handle({ kind: 'tick' }, 200))).toMatchObject([{ change: 'renew' }]);
    expect(demands(scheduler.handle({ kind: 'tick' }, 500))).toMatchObject([{ change: 'lower', point: { id: '780' } }]);
  });

  test('are not made where the agent does not control the devices', () => {
    const scheduler = started();
    scheduler.handle({ kind: 'control', replicaId: R0, controlled: false, pointId: null }, 10);
    expect(scheduler.handle({ kind: 'tick' }, 100)).toEqual([]);
    expect(scheduler.snapshot(100).replicas[0]).toMatchObject({ controlled: false, pointId: null, why: { binding: 'uncontrolled' } });
  });

  test('are another clock policy’s where one is to be compared with, at every period and on arrivals, and left as they are where it says nothing', () => {
    const asked: string[] = [];
    const answers = [2, null, 5];
    const choose = (replicaId: ReplicaId, view: { readonly waiting: readonly unknown[] }, cause: string): number | null => {
      asked.push(`${cause} ${replicaId} ${view.waiting.length}`);
      return answers[asked.length - 1] ?? null;
    };
    const scheduler = started({ policy: { kind: 'rival', clocks: { name: 'test', choose } } });
    expect(demands(scheduler.handle({ kind: 'tick' }, 100))).toMatchObject([{ point: { id: '1080' }, change: 'lower' }]);
    expect(demands(scheduler.handle({ kind: 'tick' }, 200))).toMatchObject([{ point: { id: '1080' }, change: 'renew' }]);
    expect(demands(scheduler.handle({ kind: 'arrived', job: job('a') }, 250))).toMatchObject([{ point: { id: '1530' }, change: 'raise' }]);
    expect(asked).toEqual(['tick r0 0', 'tick r0 0', 'arrival r0 1']);
  });

  test('are none under max-clock and always the same under static', () => {
    expect(started({ policy: { kind: 'max-clock' } }).handle({ kind: 'tick' }, 100)).toEqual([]);
    const fixed = started({ policy: { kind: 'static', pointId: '1230' } });
    expect(demands(fixed.handle({ kind: 'tick' }, 100))).toMatchObject([{ point: { id: '1230' }, why: { binding: 'policy' } }]);
    expect(demands(fixed.handle({ kind: 'arrived', job: job('a', { slo: { ttftMs: 120 } }) }, 150))).toEqual([]);
  });
});

describe('the end of a job', () => {
  function run(spec: JobSpec, firstAtMs: number, perTokenMs: number, tokens: number): Extract<Effect, { kind: 'report' }>['report'] {
    const scheduler = started();
    scheduler.handle({ kind: 'arrived', job: spec }, 0);
    for (let token = 0; token < tokens; token++) scheduler.handle({ kind: 'tokens', jobId: spec.jobId, tokens: 1 }, firstAtMs + token * perTokenMs);
    const endMs = firstAtMs + (tokens - 1) * perTokenMs;
    const effects = scheduler.handle({ kind: 'ended', jobId: spec.jobId, outcome: 'finished', usage: { promptTokens: 1000, cachedTokens: 0, outputTokens: tokens } }, endMs);
    const report = effects.find((effect) => effect.kind === 'report');
    if (report?.kind !== 'report') throw new Error('no report');
    return report.report;
  }

  test.each([
    { name: 'in time', firstAtMs: 900, perTokenMs: 50, met: true },
    { name: 'late first token', firstAtMs: 1001, perTokenMs: 50, met: false },
    { name: 'slow tokens', firstAtMs: 900, perTokenMs: 61, met: false },
  ])('is reported with its times and whether it met its SLOs: $name', ({ firstAtMs, perTokenMs, met }) => {
    expect(run(job('a'), firstAtMs, perTokenMs, 11)).toMatchObject({ ttftMs: firstAtMs, tpotMs: perTokenMs, e2eMs: firstAtMs + 10 * perTokenMs, outputTokens: 11, met });
  });

  test.each([
    { name: 'an embedding by its TTFT', over: { work: 'embed' as const, streaming: false, slo: { ttftMs: 100 } }, met: false },
    { name: 'a generation with only a TTFT not at all', over: { streaming: false, slo: { ttftMs: 100 } }, met: null },
    { name: 'a generation with only a TPOT not at all', over: { streaming: false, slo: { tpotMs: 10 } }, met: null },
    { name: 'a generation by its end-to-end limit', over: { streaming: false, slo: { tpotMs: 10, e2eMs: 100 } }, met: false },
  ])('judges without a stream only what its end can show: $name', ({ over, met }) => {
    expect(run(job('a', over), 400, 10, 11).met).toBe(met);
  });

  test('holds a job that does not stream to what its TTFT and TPOT add up to', () => {
    const spec = job('a', { streaming: false });
    expect(run(spec, 1400, 1, 11)).toMatchObject({ ttftMs: null, tpotMs: null, met: true });
    expect(run(spec, 1700, 1, 11)).toMatchObject({ met: false });
  });

  test('counts neither for nor against when the client left or nothing was promised', () => {
    expect(run(job('a', { slo: {} }), 5000, 500, 5).met).toBeNull();
    const scheduler = started();
    scheduler.handle({ kind: 'arrived', job: job('b') }, 0);
    const [effect] = scheduler.handle({ kind: 'ended', jobId: 'b' as JobId, outcome: 'cancelled' }, 10);
    expect(effect).toMatchObject({ kind: 'report', report: { met: null, outcome: 'cancelled' } });
  });

  test('happens once: a second end, tokens after it, or an unknown id change nothing', () => {
    const scheduler = started();
    scheduler.handle({ kind: 'arrived', job: job('a') }, 0);
    scheduler.handle({ kind: 'ended', jobId: 'a' as JobId, outcome: 'failed' }, 10);
    expect(scheduler.handle({ kind: 'ended', jobId: 'a' as JobId, outcome: 'failed' }, 11)).toEqual([]);
    expect(scheduler.handle({ kind: 'tokens', jobId: 'a' as JobId, tokens: 5 }, 12)).toEqual([]);
    expect(scheduler.handle({ kind: 'ended', jobId: 'nobody' as JobId, outcome: 'finished' }, 13)).toEqual([]);
    expect(scheduler.snapshot(14).replicas[0]).toMatchObject({ waitingPrompts: 0, runningStreams: 0 });
  });

  test('frees its place for a queued job even when it is cancelled while queued itself', () => {
    const scheduler = started({}, [R0], 1);
    scheduler.handle({ kind: 'arrived', job: job('running') }, 0);
    scheduler.handle({ kind: 'arrived', job: job('waiting') }, 1);
    expect(scheduler.handle({ kind: 'ended', jobId: 'waiting' as JobId, outcome: 'cancelled' }, 2)).toMatchObject([{ kind: 'report', report: { replicaId: null } }]);
    expect(scheduler.handle({ kind: 'ended', jobId: 'running' as JobId, outcome: 'finished' }, 3).filter(({ kind }) => kind === 'dispatch')).toEqual([]);
  });
});

describe('replicas that join and leave', () => {
  const leaving = (replicaId: ReplicaId, leaves = true) => ({ kind: 'replica-leaving', replicaId, leaving: leaves }) as const;
  const idsAt = (scheduler: Scheduler, nowMs: number): string[] => scheduler.snapshot(nowMs).replicas.map(({ replicaId, state }) => `${replicaId} ${state}`);
  const leftBy = (effects: readonly Effect[]): string[] => effects.flatMap((effect) => (effect.kind === 'left' ? [effect.replicaId] : []));

  test('one that joins is down until its health is told, starts slowly, and serves what nobody served', () => {
    const scheduler = started({ slowStartMs: 10_000, queuedMax: 100 });
    expect(scheduler.handle({ kind: 'arrived', job: job('a', { model: 'n' }) }, 0)).toMatchObject([{ kind: 'reject', reason: 'unknown-model' }]);
    scheduler.handle({ kind: 'replica-joined', replica: serving(R1, 'n', 20) }, 10);
    expect(idsAt(scheduler, 10)).toEqual(['r0 up', 'r1 down']);
    expect(scheduler.handle({ kind: 'arrived', job: job('b', { model: 'n' }) }, 20)).toMatchObject([{ kind: 'reject', reason: 'no-replica' }]);
    scheduler.handle({ kind: 'replica-health', replicaId: R1, state: 'up' }, 30);
    expect(scheduler.handle({ kind: 'arrived', job: job('c', { model: 'n' }) }, 40)).toMatchObject([{ kind: 'dispatch', replicaId: 'r1' }]);
    expect(scheduler.snapshot(40).replicas[1]?.room).toBe(2);
  });

  test('one that leaves keeps what it has, gets nothing more, and is gone a second after its last job; the others are counted as before', () => {
    const scheduler = started({ queuedMax: 100 }, [R0, R1], 3);
    for (const name of ['a', 'b']) scheduler.handle({ kind: 'arrived', job: job(name, { slo: {}, promptTokens: 10 }) }, 0);
    const placed = new Map(['c', 'd', 'e', 'f'].map((name) => [name, scheduler.handle({ kind: 'arrived', job: job(name, { slo: {}, promptTokens: 10 }) }, 1).find((effect) => effect.kind === 'dispatch')?.replicaId]));
    expect(new Set(placed.values())).toEqual(new Set([R0, R1]));
    scheduler.handle(leaving(R0), 2);
    expect(idsAt(scheduler, 2)).toEqual(['r0 draining', 'r1 up']);
    expect(leftBy(scheduler.handle({ kind: 'tick' }, 5_000))).toEqual([]);
    const here = ['a', 'b', 'c', 'd', 'e', 'f'];
    for (const name of here) scheduler.handle({ kind: 'ended', jobId: name as JobId, outcome: 'finished', usage: { promptTokens: 10, outputTokens: 2, cachedTokens: 0 } }, 6_000);
    expect(leftBy(scheduler.handle({ kind: 'tick' }, 6_100))).toEqual([]);
    expect(leftBy(scheduler.handle({ kind: 'tick' }, 7_200))).toEqual(['r0']);
    expect(idsAt(scheduler, 7_200)).toEqual(['r1 up']);
    // All three of its places, and no more.
    const sent = ['g', 'h', 'i', 'j'].map((name) => sentBy(scheduler.handle({ kind: 'arrived', job: job(name, { slo: {}, promptTokens: 10 }) }, 8_000)));
    expect(sent).toEqual(['g', 'h', 'i', undefined]);
  });

  test('one that stays after all gets jobs again, and what waits for a model of one that leaves is told at once', () => {
    const scheduler = started({ queuedMax: 100 }, [R0], 1);
    scheduler.handle({ kind: 'arrived', job: job('a', { slo: {} }) }, 0);
    scheduler.handle({ kind: 'arrived', job: job('b', { slo: {} }) }, 0);
    expect(scheduler.handle(leaving(R0), 1)).toMatchObject([{ kind: 'reject', jobId: 'b', reason: 'no-replica' }]);
    expect(scheduler.handle({ kind: 'arrived', job: job('c') }, 2)).toMatchObject([{ kind: 'reject', reason: 'unknown-model' }]);
    scheduler.handle(leaving(R0, false), 3);
    scheduler.handle({ kind: 'ended', jobId: 'a' as JobId, outcome: 'finished' }, 4);
    expect(sentBy(scheduler.handle({ kind: 'arrived', job: job('d') }, 5))).toBe('d');
    for (const atMs of [2_000, 4_000]) expect(leftBy(scheduler.handle({ kind: 'tick' }, atMs))).toEqual([]);
  });
});
