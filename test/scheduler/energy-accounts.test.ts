import { describe, expect, test } from 'vitest';
import type { JobEnergy } from '../../src/core/energy-ledger.ts';
import type { JobId, JobSpec, ReplicaId } from '../../src/core/job.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Effect, JobReport } from '../../src/scheduler/events.ts';
import { createScheduler, type Scheduler } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const belief = createPerformanceModel(CLOCK_PROFILE);
const [R0, R1] = ['r0', 'r1'] as [ReplicaId, ReplicaId];

function job(id: string, over: Partial<JobSpec> = {}): JobSpec {
  return { jobId: id as JobId, model: 'm', tenant: 'acme', sloClass: 'chat', slo: {}, promptBytes: 4000, promptTokens: 1000, work: 'generate', streaming: true, ...over };
}

function started({ replicas = [R0], energyAccounts = true, disaggregated = false } = {}): Scheduler {
  const scheduler = createScheduler({ replicas: replicas.map((replicaId) => ({ replicaId, models: ['m'], belief, concurrencyMax: 64, disaggregated })), policy: { kind: 'max-clock' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 2, energyAccounts });
  for (const replicaId of replicas) scheduler.handle({ kind: 'replica-health', replicaId, state: 'up' }, 0);
  return scheduler;
}

const meter = (scheduler: Scheduler, energyJ: number, nowMs: number, replicaId = R0) => scheduler.handle({ kind: 'metered', replicaId, reading: { energyJ, epoch: 1, powerW: 400 } }, nowMs);
const reportIn = (effects: readonly Effect[]): JobReport => (effects.find((effect) => effect.kind === 'report') as Extract<Effect, { kind: 'report' }>).report;
const settledIn = (effects: readonly Effect[]) => effects.filter((effect) => effect.kind === 'settled');
const sumJ = ({ meteredJ, modelledJ }: JobEnergy): number => meteredJ + modelledJ;

function stream(scheduler: Scheduler, id: string, { fromMs, tokens = 10 }: { readonly fromMs: number; readonly tokens?: number }): void {
  scheduler.handle({ kind: 'arrived', job: job(id) }, fromMs);
  for (let token = 0; token < tokens; token++) scheduler.handle({ kind: 'tokens', jobId: id as JobId, tokens: 1 }, fromMs + 100 + 20 * token);
}

describe('a job on metered devices', () => {
  test('is reported with what is known at its end, and settled with what the next reading says', () => {
    const scheduler = started();
    meter(scheduler, 1_000, 0);
    stream(scheduler, 'a', { fromMs: 0, tokens: 5 });
    meter(scheduler, 1_200, 200);
    scheduler.handle({ kind: 'tokens', jobId: 'a' as JobId, tokens: 4 }, 280);
    const report = reportIn(scheduler.handle({ kind: 'ended', jobId: 'a' as JobId, outcome: 'finished', usage: { promptTokens: 1_000, cachedTokens: 0, outputTokens: 10 } }, 300));
    expect(report.energy?.meteredJ).toBeCloseTo(200, 9);
    expect(report.energy?.modelledJ).toBeGreaterThan(0);
    expect(report.energyJ).toBeCloseTo(sumJ(report.energy as JobEnergy), 9);
    const settled = settledIn(meter(scheduler, 1_290, 300));
    expect(settled).toMatchObject([{ jobId: 'a', tenant: 'acme', model: 'm', sloClass: 'chat' }]);
    expect(report.energyJ + sumJ((settled[0] as { readonly more: JobEnergy }).more)).toBeCloseTo(290, 9);
    expect(scheduler.hasOpenAccounts(R0)).toBe(false);
  });

  test('that does not stream is charged by what it is believed to have done, until its server says how much it was', () => {
    const scheduler = started();
    meter(scheduler, 0, 0);
    scheduler.handle({ kind: 'arrived', job: job('silent', { streaming: false }) }, 0);
    scheduler.handle({ kind: 'arrived', job: job('short', { streaming: false, promptTokens: 10, maxOutputTokens: 1 }) }, 0);
    meter(scheduler, 800, 1_000);
    const known = scheduler.energyOf('silent' as JobId, null, 1_000) as JobEnergy;
    expect(known.meteredJ).toBeGreaterThan(700);
    expect(known.meteredJ).toBeLessThan(800);
  });

  test('of which nothing was told, since it was returned, leaves what it took to the tenant all the same', () => {
    const scheduler = started({ replicas: [R0, R1] });
    for (const replicaId of [R0, R1]) meter(scheduler, 0, 0, replicaId);
    const sent = scheduler.handle({ kind: 'arrived', job: job('a') }, 0).find((effect) => effect.kind === 'dispatch');
    const first = (sent as { readonly replicaId: ReplicaId }).replicaId;
    meter(scheduler, 90, 250, first);
    const effects = scheduler.handle({ kind: 'returned', jobId: 'a' as JobId }, 260);
    expect(effects.find((effect) => effect.kind === 'dispatch')).toMatchObject({ replicaId: first === R0 ? R1 : R0 });
    expect(settledIn(effects)).toMatchObject([{ jobId: 'a', more: { meteredJ: 90 } }]);
  });

  test('a cached beginning of its prompt is not charged', () => {
    const energyOf = (cachedTokens: number): number => {
      const scheduler = started();
      meter(scheduler, 0, 0);
      stream(scheduler, 'a', { fromMs: 0, tokens: 10 });
      stream(scheduler, 'b', { fromMs: 0, tokens: 10 });
      const ended = (id: string, cached: number) => reportIn(scheduler.handle({ kind: 'ended', jobId: id as JobId, outcome: 'finished', usage: { promptTokens: 1_000, cachedTokens: cached, outputTokens: 10 } }, 400)).energyJ;
      const told = ended('a', cachedTokens);
      ended('b', 0);
      const settled = settledIn(meter(scheduler, 400, 400)).find((effect) => effect.kind === 'settled' && effect.jobId === 'a');
      return told + sumJ((settled as { readonly more: JobEnergy }).more);
    };
    expect(energyOf(0)).toBeCloseTo(200, 6);
    expect(energyOf(900)).toBeLessThan(150);
  });
});

test('a prompt is charged at the clocks that it was prefilled at, also where they change on the way', () => {
  const scheduler = started();
  scheduler.handle({ kind: 'control', replicaId: R0, controlled: true, pointId: '780' }, 0);
  meter(scheduler, 0, 0);
  scheduler.handle({ kind: 'arrived', job: job('a') }, 0);
  scheduler.handle({ kind: 'control', replicaId: R0, controlled: true, pointId: belief.points[belief.fastest]?.id ?? null }, 150);
  meter(scheduler, 300, 200);
  const { meteredJ, maximumClockJ } = scheduler.energyOf('a' as JobId, null, 200) as JobEnergy;
  expect(meteredJ).toBeCloseTo(300, 9);
  expect(maximumClockJ).toBeGreaterThan(305);
});

test('a job whose client leaves before its first token is charged for what of its prompt was done by then', () => {
  const scheduler = started();
  meter(scheduler, 0, 0);
  scheduler.handle({ kind: 'arrived', job: job('a') }, 0);
  const { energy } = reportIn(scheduler.handle({ kind: 'ended', jobId: 'a' as JobId, outcome: 'cancelled' }, 50));
  const wholeJ = belief.prefillEnergyJ({ tokens: 1_000, contextTokens: 0 }, belief.fastest);
  expect(energy?.modelledJ).toBeGreaterThan(0.2 * wholeJ);
  expect(energy?.modelledJ).toBeLessThan(0.9 * wholeJ);
});

test('what devices take while a job is there that shows nothing is its own, even where it is gone by then', () => {
  const scheduler = started();
  meter(scheduler, 0, 0);
  stream(scheduler, 'a', { fromMs: 0 });
  meter(scheduler, 200, 300);
  scheduler.handle({ kind: 'ended', jobId: 'a' as JobId, outcome: 'cancelled' }, 400);
  expect(settledIn(meter(scheduler, 240, 400))).toMatchObject([{ more: { meteredJ: 40 } }]);
});

test('the clock that devices are seen at is what work and idling are charged by', () => {
  const scheduler = started();
  scheduler.handle({ kind: 'control', replicaId: R0, controlled: true, pointId: '780' }, 0);
  const slowW = belief.idlePowerW(belief.points.findIndex(({ id }) => id === '780'));
  scheduler.snapshot(0);
  expect(scheduler.snapshot(1_000).replicas[0]?.energy?.idle.modelledJ).toBeCloseTo(slowW, 6);
});

test('each group of a disaggregated server has a meter of its own', () => {
  const scheduler = started({ disaggregated: true });
  const both = (prefillJ: number, decodeJ: number, nowMs: number) => (['prefill', 'decode'] as const).flatMap((group, index) => scheduler.handle({ kind: 'metered', replicaId: R0, group, reading: { energyJ: [prefillJ, decodeJ][index] as number, epoch: 1, powerW: 100 } }, nowMs));
  both(0, 0, 0);
  stream(scheduler, 'a', { fromMs: 0 });
  both(100, 300, 290);
  const { energy } = scheduler.snapshot(290).replicas[0] ?? {};
  expect(energy).toMatchObject({ source: 'metered', meterJ: 400, powerW: 200 });
  expect((energy?.requests.meteredJ ?? 0) + (energy?.idle.meteredJ ?? 0)).toBeCloseTo(400, 9);
  expect(energy?.idle.meteredJ).toBeGreaterThan(0);
});

describe('where nobody keeps accounts', () => {
  test('a job is charged as its profile says, and no account is shown', () => {
    const [without, kept] = [started({ energyAccounts: false }), started()].map((scheduler) => {
      stream(scheduler, 'a', { fromMs: 0 });
      return { scheduler, report: reportIn(scheduler.handle({ kind: 'ended', jobId: 'a' as JobId, outcome: 'finished', usage: { promptTokens: 1_000, cachedTokens: 0, outputTokens: 10 } }, 300)) };
    });
    expect(without?.report).not.toHaveProperty('energy');
    expect(without?.report.energyJ).toBeGreaterThan(0);
    expect(kept?.report.energyJ).toBe(without?.report.energyJ);
    expect(kept?.report.energy).toMatchObject({ meteredJ: 0, modelledJ: kept?.report.energyJ });
    expect(without?.scheduler.snapshot(300).replicas[0]).not.toHaveProperty('energy');
    expect(without?.scheduler.energyOf('a' as JobId, null, 300)).toBeNull();
    expect(meter(without?.scheduler as Scheduler, 100, 300)).toEqual([]);
  });
});
