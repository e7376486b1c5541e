// Plain values for the tests of rivals: what a policy is made with and what it is shown. Points ascend: 0 is the slowest.
import type { JobId, JobSpec, ReplicaId } from '../../../src/core/job.ts';
import type { ReplicaView, RunningStream, WaitingPrompt } from '../../../src/core/replica-view.ts';
import { createPerformanceModel, type PointIndex } from '../../../src/frontier/performance-model.ts';
import type { ClockPolicy } from '../../../src/scheduler/clock-policy.ts';
import type { RivalContext } from '../../../src/simulator/rivals/rival.ts';
import { CLOCK_PROFILE } from '../../fixtures/profiles.ts';
import { replicaView, runningStream, waitingPrompt } from '../../fixtures/views.ts';

export const MODEL = createPerformanceModel(CLOCK_PROFILE);
export const SLOWEST: PointIndex = 0;
export const FASTEST: PointIndex = MODEL.fastest;
export const R0 = 'r0' as ReplicaId;

export function context(over: Partial<RivalContext> = {}): RivalContext {
  return { belief: MODEL, replicaIds: [R0], energyJ: () => 0, busyMs: () => 0, seed: 1, margin: 0, ...over };
}

export function stream(over: Partial<RunningStream> & { readonly id?: string } = {}): RunningStream {
  const { id = 'stream', ...fields } = over;
  return runningStream({ jobId: id as JobId, tpotLimitMs: Infinity, remainingMiddle: 100, remainingHigh: 200, guard: 2.3, ...fields });
}

export function prompt(over: Partial<WaitingPrompt> & { readonly id?: string } = {}): WaitingPrompt {
  const { id = 'prompt', ...fields } = over;
  return waitingPrompt({ jobId: id as JobId, outputTokensMiddle: 100, outputTokensHigh: 300, guard: 2.3, ...fields });
}

export function streams(count: number, over: Partial<RunningStream> = {}): RunningStream[] {
  return Array.from({ length: count }, (_, index) => stream({ id: `stream-${index}`, ...over }));
}

export function view(over: Partial<ReplicaView> = {}): ReplicaView {
  return replicaView(MODEL, over);
}

export function job(id: string, slo: JobSpec['slo'] = {}): JobSpec {
  return { jobId: id as JobId, model: 'model', tenant: 'anyone', sloClass: 'chat', slo, promptBytes: 4000, work: 'generate', streaming: true };
}

/** One token of every stream every `gapMs`, with a tick of the policy at each; the last point chosen. */
export function playTokens(policy: ClockPolicy, over: Partial<ReplicaView> & { readonly fromMs: number; readonly gapMs: number; readonly steps: number }): PointIndex | null {
  const { fromMs, gapMs, steps, ...fields } = over;
  let chosen: PointIndex | null = null;
  for (let step = 0; step < steps; step++) {
    const nowMs = fromMs + step * gapMs;
    for (const { jobId } of fields.running ?? []) policy.observe?.({ kind: 'tokens', jobId, tokens: 1 }, nowMs);
    chosen = policy.choose(R0, view({ ...fields, nowMs }), 'tick');
  }
  return chosen;
}

/** Tells a policy that these jobs were sent to the replica, one by one. */
export function place(policy: ClockPolicy, running: readonly RunningStream[]): void {
  for (const { jobId } of running) policy.choose(R0, view({ waiting: [prompt({ id: jobId })] }), 'arrival');
}
