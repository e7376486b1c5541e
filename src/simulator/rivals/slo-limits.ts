// The limits that SLO-aware rivals plan by, tightened by the rival's own margin. Most papers know a time to first token and a
// time per output token only; for those a limit on the whole request becomes a budget of these two.
import type { JobId, Slo } from '../../core/job.ts';
import type { ReplicaView, RunningStream, WaitingPrompt } from '../../core/replica-view.ts';
import { decodeStepMs } from './predictions.ts';
import type { RivalFactory } from './rival.ts';

/** Whether a rival plans whole requests itself, or wants them as budgets of its two limits. */
export type WholeRequests = 'planned' | 'as-budgets';

/** The same rival planning for SLO × (1 − margin): what it is shown are limits and deadlines tightened so. */
export function withinMargin(create: RivalFactory, whole: WholeRequests = 'as-budgets'): RivalFactory {
  return (context) => {
    const inner = create(context);
    const slos = new Map<JobId, Slo>();
    const tighten = (view: ReplicaView): ReplicaView => tightened(view, context.margin, slos, whole);
    const { route } = inner;
    return {
      name: inner.name,
      ...(inner.controlPeriodMs === undefined ? {} : { controlPeriodMs: inner.controlPeriodMs }),
      observe(event, nowMs) {
        if (event.kind === 'arrived') slos.set(event.job.jobId, event.job.slo);
        if (event.kind === 'ended') slos.delete(event.jobId);
        inner.observe?.(event, nowMs);
      },
      choose: (replicaId, view, cause) => inner.choose(replicaId, tighten(view), cause),
      ...(route === undefined ? {} : { route: (candidates, job) => route(candidates.map(({ replicaId, view }) => ({ replicaId, view: tighten(view) })), job) }),
    };
  };
}

/**
 * Every limit × (1 − margin), counted from arrival; a job without SLO keeps its infinite limits. A budget is made with the
 * middle quantile of the answer's length: the upper one costs more energy at equal attainment than a margin does.
 */
export function tightened(view: ReplicaView, margin: number, slos: ReadonlyMap<JobId, Slo>, whole: WholeRequests = 'as-budgets'): ReplicaView {
  const left = 1 - margin;
  const perTokenMs = (deadlineAtMs: number, tokens: number): number => (whole === 'planned' ? Number.POSITIVE_INFINITY : Math.max(0, deadlineAtMs - view.nowMs) / tokens);
  // The first token is due when the others could still follow at the fastest point.
  const firstDueAtMs = (deadlineAtMs: number, tokens: number): number => (whole === 'planned' ? Number.POSITIVE_INFINITY : deadlineAtMs - tokens * fastestStepMs(view));
  const waiting = view.waiting.map((prompt): WaitingPrompt => {
    const { ttftMs = 0, e2eMs = 0 } = slos.get(prompt.jobId) ?? {};
    const e2eDeadlineAtMs = prompt.e2eDeadlineAtMs - margin * e2eMs;
    return {
      ...prompt,
      e2eDeadlineAtMs,
      ttftDeadlineAtMs: Math.min(prompt.ttftDeadlineAtMs - margin * ttftMs, firstDueAtMs(e2eDeadlineAtMs, prompt.outputTokensMiddle)),
      tpotLimitMs: Math.min(prompt.tpotLimitMs * left, perTokenMs(e2eDeadlineAtMs, prompt.outputTokensMiddle + 1)),
    };
  });
  const running = view.running.map((stream): RunningStream => {
    const e2eDeadlineAtMs = stream.e2eDeadlineAtMs - margin * (slos.get(stream.jobId)?.e2eMs ?? 0);
    return { ...stream, e2eDeadlineAtMs, tpotLimitMs: Math.min(stream.tpotLimitMs * left, perTokenMs(e2eDeadlineAtMs, stream.remainingMiddle)) };
  });
  return {
    ...view,
    waiting,
    running,
    tightestTtftMs: view.tightestTtftMs * left,
    tightestTpotMs: Math.min(view.tightestTpotMs * left, tightestTpotMs({ waiting, running })),
  };
}

/** Of what is here now; `Infinity` when nothing here carries a limit. */
export function tightestTpotMs({ waiting, running }: Pick<ReplicaView, 'waiting' | 'running'>): number {
  let tightestMs = Number.POSITIVE_INFINITY;
  for (const { tpotLimitMs } of waiting) tightestMs = Math.min(tightestMs, tpotLimitMs);
  for (const { tpotLimitMs } of running) tightestMs = Math.min(tightestMs, tpotLimitMs);
  return tightestMs;
}

function fastestStepMs({ model, running, waiting, contextTokens }: ReplicaView): number {
  return decodeStepMs(model, model.fastest, Math.max(1, running.length + waiting.length), contextTokens);
}
