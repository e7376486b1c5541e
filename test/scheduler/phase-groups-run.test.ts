// A disaggregated server on virtual time, as small as it can be: prompts one after the other on one group of devices,
// streams all together on the other, each at the point that was demanded of it.
import { expect, test } from 'vitest';
import type { JobId, ReplicaId } from '../../src/core/job.ts';
import type { PhaseGroup } from '../../src/core/replica-view.ts';
import { NO_DECODE, NO_PREFILL, createPerformanceModel, fasterOf, type PointIndex } from '../../src/frontier/performance-model.ts';
import { createRandom } from '../../src/random/random.ts';
import type { JobReport, SchedulerEvent } from '../../src/scheduler/events.ts';
import { createScheduler } from '../../src/scheduler/scheduler.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const model = createPerformanceModel(CLOCK_PROFILE);
const R0 = 'r0' as ReplicaId;
const GROUPS = ['prefill', 'decode'] as const;
const SECONDS = 120;

interface Run {
  readonly reports: readonly JobReport[];
  readonly energyJ: number;
}

/** `common`: both groups run at the faster of the two points demanded, as if they had one clock. */
function play(slo: { readonly ttftMs: number; readonly tpotMs: number }, clocks: 'own' | 'common'): Run {
  const random = createRandom(1, 'phase groups');
  const scheduler = createScheduler({ replicas: [{ replicaId: R0, models: ['m'], belief: model, concurrencyMax: 200, disaggregated: true }], policy: { kind: 'paceline' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 10_000 });
  const demanded: Record<PhaseGroup, PointIndex> = { prefill: model.fastest, decode: model.fastest };
  const busyUntilMs: Record<PhaseGroup, number> = { prefill: 0, decode: 0 };
  const reports: JobReport[] = [];
  const prompts: { readonly jobId: JobId; readonly promptTokens: number; readonly outputTokens: number }[] = [];
  const sizes = new Map<JobId, { readonly promptTokens: number; readonly outputTokens: number }>();
  let streams: { readonly jobId: JobId; readonly promptTokens: number; readonly outputTokens: number; tokens: number }[] = [];
  let energyJ = 0;
  let nowMs = 0;

  const pointOf = (group: PhaseGroup): PointIndex => (clocks === 'common' ? fasterOf(model, demanded.prefill, demanded.decode) : demanded[group]);
  function tell(event: SchedulerEvent): void {
    for (const effect of scheduler.handle(event, nowMs)) {
      if (effect.kind === 'dispatch') prompts.push({ jobId: effect.jobId, ...(sizes.get(effect.jobId) as { promptTokens: number; outputTokens: number }) });
      if (effect.kind === 'report') reports.push(effect.report);
      if (effect.kind !== 'demand' || effect.group === undefined) continue;
      demanded[effect.group] = model.points.findIndex(({ id }) => id === effect.point?.id);
      for (const group of GROUPS) scheduler.handle({ kind: 'control', replicaId: R0, group, controlled: true, pointId: model.points[pointOf(group)]?.id ?? null }, nowMs);
    }
  }
  /** What is done at the end of a piece of work, or nothing while it is under way. */
  const under: Record<PhaseGroup, (() => void) | null> = { prefill: null, decode: null };
  function work(group: PhaseGroup): void {
    if (under[group] !== null) return;
    const point = pointOf(group);
    const [head] = prompts;
    if (group === 'prefill' ? head === undefined : streams.length === 0) {
      energyJ += model.idlePowerW(point) / 1000;
      return;
    }
    const work = group === 'prefill' ? { prefill: { tokens: head?.promptTokens ?? 0, contextTokens: 0 }, decode: NO_DECODE } : { prefill: NO_PREFILL, decode: { sequences: streams.length, contextTokens: streams.reduce((sum, { promptTokens, tokens }) => sum + promptTokens + tokens, 0) } };
    energyJ += model.iterationEnergyJ(work, point);
    // Work that follows work begins when that ended, and not a whole millisecond later.
    busyUntilMs[group] = Math.max(busyUntilMs[group], nowMs - 1) + model.iterationTimeMs(work, point);
    const batch = streams;
    under[group] = group === 'prefill' ? () => firstToken() : () => batch.forEach(nextToken);
  }
  function firstToken(): void {
    const done = prompts.shift();
    if (done === undefined) return;
    streams = [...streams, { ...done, tokens: 1 }];
    tell({ kind: 'tokens', jobId: done.jobId, tokens: 1 });
  }
  function nextToken(stream: (typeof streams)[number]): void {
    stream.tokens += 1;
    tell({ kind: 'tokens', jobId: stream.jobId, tokens: 1 });
    if (stream.tokens < stream.outputTokens) return;
    streams = streams.filter((other) => other !== stream);
    tell({ kind: 'ended', jobId: stream.jobId, outcome: 'finished', usage: { promptTokens: stream.promptTokens, cachedTokens: 0, outputTokens: stream.tokens } });
  }

  tell({ kind: 'replica-health', replicaId: R0, state: 'up' });
  for (const group of GROUPS) tell({ kind: 'control', replicaId: R0, group, controlled: true, pointId: null });
  for (let arrivals = 0, nextMs = 0; nowMs < SECONDS * 1000 || streams.length + prompts.length > 0; nowMs += 1) {
    for (const group of GROUPS) {
      if (under[group] === null || busyUntilMs[group] > nowMs) continue;
      const end = under[group];
      under[group] = null;
      end?.();
    }
    if (nowMs >= nextMs && nowMs < SECONDS * 1000) {
      nextMs = nowMs - 500 * Math.log(1 - random());
      const jobId = String(arrivals++) as JobId;
      const promptTokens = 200 + Math.floor(1500 * random());
      sizes.set(jobId, { promptTokens, outputTokens: 20 + Math.floor(200 * random()) });
      tell({ kind: 'arrived', job: { jobId, model: 'm', tenant: 't', sloClass: 'chat', slo, promptBytes: 4 * promptTokens, promptTokens, work: 'generate', streaming: true } });
    }
    if (nowMs % 100 === 0) tell({ kind: 'tick' });
    for (const group of GROUPS) work(group);
  }
  return { reports, energyJ };
}

function attainment({ reports }: Run): number {
  return reports.filter(({ met }) => met === true).length / reports.length;
}

test.each([
  { what: 'a tight TTFT', slo: { ttftMs: 400, tpotMs: 100 }, share: 0.99 },
  { what: 'a tight TPOT', slo: { ttftMs: 3_000, tpotMs: 21 }, share: 0.95 },
])('with clocks of their own the groups keep $what as one clock does, with at most $share of its energy', ({ slo, share }) => {
  const own = play(slo, 'own');
  const common = play(slo, 'common');
  expect(own.reports.length).toBeGreaterThan(200);
  expect(attainment(own)).toBeGreaterThan(0.99);
  expect(attainment(own)).toBe(attainment(common));
  expect(own.energyJ / common.energyJ).toBeLessThan(share);
});
