// The limits that SLO-aware rivals plan by. Their papers know a time to first token and a time per output token, so a limit
// on the whole request becomes a budget of those two; and each limit is tightened by the rival's own margin.
import type { JobId, Slo } from '../../core/job.ts';
import type { ReplicaView, RunningStream, WaitingPrompt } from '../../core/replica-view.ts';
import type { RivalFactory } from './rival.ts';

/** The same rival planning for SLO × (1 − margin): what it is shown are limits and deadlines tightened so. */
export function withinMargin(create: RivalFactory): RivalFactory {
  return (context) => {
    const inner = create(context);
    const slos = new Map<JobId, Slo>();
    const tighten = (view: ReplicaView): ReplicaView => tightened(view, context.margin, slos);
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
 * Every limit × (1 − margin), counted from arrival. A job without SLO keeps its infinite limits. The limits on whole requests
 * also stay, for rivals that know them.
 */
export function tightened(view: ReplicaView, margin: number, slos: ReadonlyMap<JobId, Slo>): ReplicaView {
  const left = 1 - margin;
  const waiting = view.waiting.map((prompt): WaitingPrompt => {
    const { ttftMs = 0, e2eMs = 0 } = slos.get(prompt.jobId) ?? {};
    const e2eDeadlineAtMs = prompt.e2eDeadlineAtMs - margin * e2eMs;
    const perTokenMs = Math.max(0, e2eDeadlineAtMs - view.nowMs) / (prompt.outputTokensHigh + 1);
    return {
      ...prompt,
      e2eDeadlineAtMs,
      // The first token has a place in the budget too: it is due when the others could still follow at the fastest point.
      ttftDeadlineAtMs: Math.min(prompt.ttftDeadlineAtMs - margin * ttftMs, e2eDeadlineAtMs - prompt.outputTokensHigh * fastestStepMs(view)),
      tpotLimitMs: Math.min(prompt.tpotLimitMs * left, perTokenMs),
    };
  });
  const running = view.running.map((stream): RunningStream => {
    const e2eDeadlineAtMs = stream.e2eDeadlineAtMs - margin * (slos.get(stream.jobId)?.e2eMs ?? 0);
    return { ...stream, e2eDeadlineAtMs, tpotLimitMs: Math.min(stream.tpotLimitMs * left, Math.max(0, e2eDeadlineAtMs - view.nowMs) / stream.remainingHigh) };
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
  return model.iterationTimeMs({ prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: Math.max(1, running.length + waiting.length), contextTokens } }, model.fastest);
}
