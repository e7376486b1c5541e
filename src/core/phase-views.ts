// One server whose prompts are prefilled on some devices and decoded on others, as two replicas: the prefill group has the
// prompts and no streams, the decode group the streams and, as streams to come, the prompts. Each view is planned by itself.
import type { PointIndex } from '../frontier/performance-model.ts';
import type { Forecast } from './arrival-forecast.ts';
import { LEVEL } from './length-predictor.ts';
import { roomOf } from './planner.ts';
import { costsAt } from './point-costs.ts';
import type { FleetShare, GroupState, PhaseGroup, ReplicaView, RunningStream, WaitingPrompt } from './replica-view.ts';

type Groups = Readonly<Record<PhaseGroup, GroupState>>;

/**
 * TTFT, and stability by prefills alone. An e2e deadline binds it only where the decode group, at its fastest, could not
 * make good what the prefill is late.
 */
export function prefillView(view: ReplicaView, groups: Groups): ReplicaView {
  const alone: ReplicaView = { ...of(view, groups, 'prefill'), waiting: view.waiting.map(untilFirstToken), running: [], runningCount: 0, foreignSequences: 0, contextTokens: 0, forecast: view.forecast, share: shareOf(view.share, 'prefill'), outputTokensMean: 0, tightestTpotMs: Number.POSITIVE_INFINITY };
  if (view.waiting.every(({ e2eDeadlineAtMs }) => e2eDeadlineAtMs === Number.POSITIVE_INFINITY)) return alone;
  const { stepMs } = costsAt(decodeView(view, groups, null), view.model.fastest);
  const { firstTokenMs } = costsAt(alone, view.model.fastest);
  const waiting = alone.waiting.map((prompt, index) => {
    const { e2eDeadlineAtMs } = view.waiting[index] as WaitingPrompt;
    if (e2eDeadlineAtMs === Number.POSITIVE_INFINITY) return prompt;
    const tokenMs = stepMs * roomOf(prompt.guard);
    const leftMs = e2eDeadlineAtMs - view.nowMs - (firstTokenMs[index] as number) * roomOf(prompt.guard);
    const tokens = answersOf(view.waiting[index] as WaitingPrompt).find((further) => further * tokenMs <= leftMs) ?? 0;
    return { ...prompt, e2eDeadlineAtMs: e2eDeadlineAtMs - tokens * tokenMs };
  });
  return { ...alone, waiting };
}

/**
 * TPOT and e2e, and stability by decodes alone. Each prompt counts as the stream that it will be, whose time begins when the
 * prefill group, at `point`, will have had it through. One that is lost there already binds nothing here either.
 */
export function decodeView(view: ReplicaView, groups: Groups, prefills: { readonly view: ReplicaView; readonly point: PointIndex } | null): ReplicaView {
  const { nowMs, model } = view;
  const firstTokenMs = prefills === null ? [] : costsAt(prefills.view, prefills.point).firstTokenMs;
  const soonestMs = prefills === null ? [] : costsAt(prefills.view, model.fastest).firstTokenMs;
  const coming = view.waiting.map((prompt, index) => {
    const own = prefills?.view.waiting[index];
    const lost = own !== undefined && nowMs + (soonestMs[index] as number) > Math.min(own.ttftDeadlineAtMs, own.e2eDeadlineAtMs);
    return streamToCome(prompt, firstTokenMs[index] ?? 0, lost);
  });
  let contextTokens = view.contextTokens;
  for (const { promptTokens } of view.waiting) contextTokens += promptTokens;
  return {
    ...of(view, groups, 'decode'),
    waiting: [],
    running: [...view.running, ...coming],
    runningCount: view.runningCount + coming.length,
    contextTokens,
    forecast: forecastOf(view.forecast),
    share: shareOf(view.share, 'decode'),
    tightestTtftMs: Number.POSITIVE_INFINITY,
  };
}

function of(view: ReplicaView, groups: Groups, phase: PhaseGroup): ReplicaView {
  const { groups: _, ...rest } = view;
  return { ...rest, phase, appliedPoint: groups[phase].appliedPoint };
}

/** What of a prompt's objectives its prefill decides. */
function untilFirstToken(prompt: WaitingPrompt): WaitingPrompt {
  return { ...prompt, tpotLimitMs: Number.POSITIVE_INFINITY, outputTokensMiddle: 0, outputTokensHigh: 0 };
}

/** Quantiles of the tokens after the first, the longest answer first. */
function answersOf({ outputTokensHigh, outputTokensMiddle, totals }: WaitingPrompt): readonly number[] {
  const low = Math.min(outputTokensMiddle, totals[LEVEL.low] as number);
  return [outputTokensHigh - 1, outputTokensMiddle - 1, Math.max(0, low - 1)];
}

function streamToCome(prompt: WaitingPrompt, firstTokenMs: number, lost: boolean): RunningStream {
  const [high, middle, low] = answersOf(prompt) as [number, number, number];
  return {
    jobId: prompt.jobId,
    streams: 1,
    tpotLimitMs: lost ? Number.POSITIVE_INFINITY : prompt.tpotLimitMs,
    bankMs: 0,
    bankMeanMs: 0,
    e2eDeadlineAtMs: lost ? Number.POSITIVE_INFINITY : prompt.e2eDeadlineAtMs - firstTokenMs,
    e2eMoves: prompt.e2eMoves,
    tokensOut: 1,
    remainingLow: Math.max(1, low),
    remainingMiddle: Math.max(1, middle),
    remainingHigh: Math.max(1, high),
    totals: prompt.totals,
    guard: prompt.guard,
    ...(prompt.worth === undefined ? {} : { worth: prompt.worth }),
  };
}

/** What arrives, with nothing to prefill. */
function forecastOf(forecast: Forecast): Forecast {
  return { ...forecast, prefillTokensMean: 0, promptUnevenness: 1 };
}

/** Looked up, so that what is worked out for a share stands for as long as the share does. */
const shares = { prefill: new WeakMap<FleetShare, FleetShare>(), decode: new WeakMap<FleetShare, FleetShare>() };

function shareOf(share: FleetShare, phase: PhaseGroup): FleetShare {
  const known = shares[phase].get(share);
  if (known !== undefined) return known;
  const own = phase === 'prefill' ? { ...share, outputTokensMean: 0 } : { ...share, prefillTokensMean: 0 };
  shares[phase].set(share, own);
  return own;
}
