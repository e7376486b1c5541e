// What one operating point means for a replica as it is: step times, prompts' first tokens, where the forecast settles.
import { type PerformanceModel, type PointIndex, isFaster } from '../frontier/performance-model.ts';
import { SWITCH_ALLOWANCE_MS } from './limits.ts';
import { type FleetShare, type ReplicaView, sequencesOf, type WaitingPrompt } from './replica-view.ts';

/** Share of time that may be spent before queues no longer settle within a stream's life. */
export const TIME_SHARE_MAX = 0.95;

/** Worked out once per point and plan. Times are scaled by the learnt corrections. Where only prompts are prefilled, steps take no time. */
export interface PointCosts {
  readonly point: PointIndex;
  /** A decode step of everything that runs or will shortly. */
  readonly stepMs: number;
  /** What a typical arrival's prefill adds to every running stream. */
  readonly interferenceMs: number;
  /** The step with the expected share of time given to prefills: what a stream sees once the prompts waiting now are through. */
  readonly stepWithPrefillsMs: number;
  /** Iterations that the prompts waiting now take, and how long all of them last; each brings every running stream a token. */
  readonly prefillIterations: number;
  readonly prefillMs: number;
  /** From now to the first token of each waiting prompt, and in which of those iterations it comes (from 1). */
  readonly firstTokenMs: readonly number[];
  readonly firstTokenIteration: readonly number[];
  /** TPOT at the fixed point of arrivals, batch and step time; `Infinity` when there is none. */
  readonly settledTpotMs: number;
  readonly settledSequences: number;
}

/** Predicted time from now to the first token of the `index`-th waiting prompt, at the given point. */
export function predictFirstTokenMs(view: ReplicaView, point: PointIndex, index: number): number {
  return costsAt(view, point).firstTokenMs[index] ?? 0;
}

/**
 * Time until a stream that gets a token in each iteration has had `tokens` more: first the iterations that prefill what
 * waits now (those after the `from`-th), then decode steps of `stepMs`.
 */
export function tokensTakeMs(costs: PointCosts, tokens: number, stepMs: number, from = 0): number {
  const iterations = costs.prefillIterations - from;
  if (iterations <= 0) return tokens * stepMs;
  const iterationMs = costs.prefillMs / costs.prefillIterations;
  return tokens <= iterations ? tokens * iterationMs : iterations * iterationMs + (tokens - iterations) * stepMs;
}

/** Of one view the same costs are asked for by the plan, the risk and the route; a view never changes while it is judged. */
let judged: ReplicaView | null = null;
let judgedCosts: PointCosts[] = [];

export function costsAt(view: ReplicaView, point: PointIndex): PointCosts {
  if (view !== judged) {
    judged = view;
    judgedCosts = [];
  }
  return (judgedCosts[point] ??= workedOut(view, point));
}

function workedOut(view: ReplicaView, point: PointIndex): PointCosts {
  const { model, timeScale, forecast, mechanisms } = view;
  let waitingTokens = 0;
  for (const prompt of view.waiting) waitingTokens += prompt.promptTokens;
  const sequences = sequencesOf(view);
  WORK.prefill.tokens = 0;
  WORK.decode.sequences = view.phase === 'prefill' ? 0 : sequences;
  WORK.decode.contextTokens = view.contextTokens + waitingTokens;
  const rawStepMs = model.iterationTimeMs(WORK, point);
  const stepMs = rawStepMs * (timeScale.decode[point] as number);
  WORK.prefill.tokens = mechanisms.interference ? forecast.prefillTokensMean : 0;
  WORK.prefill.contextTokens = forecast.promptTokensMean - forecast.prefillTokensMean;
  const interferenceMs = (model.iterationTimeMs(WORK, point) - rawStepMs) * (timeScale.prefill[point] as number);
  WORK.prefill.contextTokens = 0;
  const perMs = mechanisms.forecast ? forecast.perMs : 0;
  const prefillShare = perMs * interferenceMs;

  const settled = settledAt(view, point);
  return {
    point,
    stepMs,
    interferenceMs,
    stepWithPrefillsMs: stepMs / (1 - Math.min(TIME_SHARE_MAX, prefillShare)),
    ...promptTimes(view, point, stepMs),
    ...settled,
  };
}

/**
 * Batch, step and arrivals at their fixed point: B = λ·n·s (Little), s = (α + β·B)/(1 − ρ), both linear in B. Of the fleet's
 * share, so that what the model says of it is worked out once for all replicas and for as long as the share stands.
 */
function settledAt({ model, share, timeScale, mechanisms, phase }: ReplicaView, point: PointIndex): Pick<PointCosts, 'settledTpotMs' | 'settledSequences'> {
  let byModel = shareTimes.get(share);
  if (byModel === undefined) {
    byModel = new WeakMap();
    shareTimes.set(share, byModel);
  }
  let times = byModel.get(model);
  if (times === undefined) {
    times = [];
    byModel.set(model, times);
  }
  const { oneMs, perSequenceMs, prefillMs } = (times[point] ??= shareTimesAt(model, share, point, phase === 'prefill'));
  const perMs = mechanisms.forecast ? share.perMs : 0;
  const outPerMs = perMs * share.outputTokensMean;
  const decodeScale = timeScale.decode[point] as number;
  const perSequence = perSequenceMs * decodeScale;
  const utilisation = (mechanisms.interference ? perMs * prefillMs * (timeScale.prefill[point] as number) : 0) + perSequence * outPerMs;
  const settledTpotMs = utilisation >= TIME_SHARE_MAX ? Number.POSITIVE_INFINITY : (oneMs * decodeScale - perSequence) / (1 - utilisation) + perSequence;
  return { settledTpotMs, settledSequences: outPerMs * settledTpotMs };
}

interface ShareTimes {
  readonly oneMs: number;
  readonly perSequenceMs: number;
  readonly prefillMs: number;
}

/** By model as well: under power limits replicas of one profile are unlike. */
const shareTimes = new WeakMap<FleetShare, WeakMap<PerformanceModel, ShareTimes[]>>();

/** As believed: one step of one sequence, what a further one adds, and what a prefill adds to it. */
function shareTimesAt(model: PerformanceModel, { promptTokensMean, prefillTokensMean, outputTokensMean }: FleetShare, point: PointIndex, prefillsAlone: boolean): ShareTimes {
  const contextEach = promptTokensMean + outputTokensMean / 2;
  const at = (sequences: number, tokens: number): number => {
    WORK.prefill.tokens = tokens;
    WORK.prefill.contextTokens = tokens === 0 ? 0 : promptTokensMean - prefillTokensMean;
    WORK.decode.sequences = sequences;
    WORK.decode.contextTokens = sequences * contextEach;
    const timeMs = model.iterationTimeMs(WORK, point);
    WORK.prefill.contextTokens = 0;
    return timeMs;
  };
  // With no streams beside them prompts have the pass over the weights to pay themselves.
  if (prefillsAlone) return { oneMs: 0, perSequenceMs: 0, prefillMs: at(0, prefillTokensMean) };
  const oneMs = at(1, 0);
  return { oneMs, perSequenceMs: (at(MANY, 0) - oneMs) / (MANY - 1), prefillMs: Math.max(0, at(1, prefillTokensMean) - oneMs) };
}

/** Batch at which the slope of the step time is read. */
const MANY = 65;

/** One for all calls: decisions are made one at a time, and thousands of them a second should leave no garbage. */
const WORK = { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };

/**
 * When each waiting prompt gets its first token, and how long the running streams share their iterations with prefills. As a
 * continuous-batching engine does it: after the step under way (and the switch, if one is still needed) each iteration takes a
 * token for every stream and fills up with prompts in order of arrival; who is through joins the streams.
 */
function promptTimes(view: ReplicaView, point: PointIndex, stepMs: number): Pick<PointCosts, 'firstTokenMs' | 'firstTokenIteration' | 'prefillIterations' | 'prefillMs'> {
  const { model, timeScale, waiting } = view;
  if (waiting.length === 0) return NO_PROMPTS;
  const { maxBatchTokens } = model.profile.serving;
  const decoding = view.runningCount + view.foreignSequences;
  const startMs = switchMs(view, point) + (decoding > 0 ? stepMs / 2 : 0);
  const firstTokenMs: number[] = [];
  const firstTokenIteration: number[] = [];
  let prefillMs = 0;
  let prefillIterations = 0;
  let next = 0;
  let left = tokensLeft(waiting[0] as WaitingPrompt);
  let sequences = decoding;
  let contextTokens = view.contextTokens;
  while (next < waiting.length) {
    let budget = Math.max(LEAST_PREFILL_SHARE * maxBatchTokens, maxBatchTokens - sequences);
    let attention = 0;
    let tokens = 0;
    const from = next;
    while (budget > 0 && next < waiting.length) {
      const prompt = waiting[next] as WaitingPrompt;
      const chunk = Math.min(left, budget);
      attention += chunk * (chunk / 2 + prompt.promptTokens - left);
      tokens += chunk;
      budget -= chunk;
      left -= chunk;
      if (left > 0) break;
      next += 1;
      if (next < waiting.length) left = tokensLeft(waiting[next] as WaitingPrompt);
    }
    WORK.prefill.tokens = tokens;
    // The context with which one prefill of so many tokens has the attention work of these chunks.
    WORK.prefill.contextTokens = attention / tokens - tokens / 2;
    WORK.decode.sequences = sequences;
    WORK.decode.contextTokens = contextTokens;
    prefillMs += model.iterationTimeMs(WORK, point) * (timeScale.prefill[point] as number);
    prefillIterations += 1;
    for (let done = from; done < next; done++) {
      firstTokenMs.push(startMs + prefillMs);
      firstTokenIteration.push(prefillIterations);
      // With devices of its own to decode on, who is through leaves the batch.
      if (view.phase === 'prefill') continue;
      sequences += 1;
      contextTokens += (waiting[done] as WaitingPrompt).promptTokens;
    }
  }
  WORK.prefill.contextTokens = 0;
  return { firstTokenMs, firstTokenIteration, prefillIterations, prefillMs };
}

function tokensLeft(prompt: WaitingPrompt): number {
  return Math.max(1, prompt.promptTokens - prompt.prefilledTokens);
}

/** Of a batch that streams leave to prompts at the least: were there more streams than a server takes, they would not all run at once. */
const LEAST_PREFILL_SHARE = 0.05;

const NO_PROMPTS = { firstTokenMs: [], firstTokenIteration: [], prefillIterations: 0, prefillMs: 0 };

/** Allowance for a raise that is still to come. A lowering costs no deadline: until it lands we are faster than planned. */
export function switchMs(view: ReplicaView, point: PointIndex): number {
  return isFaster(view.model, point, view.appliedPoint ?? view.model.fastest) ? SWITCH_ALLOWANCE_MS : 0;
}
