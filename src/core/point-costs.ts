// What one operating point means for a replica as it is: step times, prompts' first tokens, where the forecast settles.
import type { PointIndex } from '../frontier/performance-model.ts';
import { SWITCH_ALLOWANCE_MS } from './limits.ts';
import { type ReplicaView, sequencesOf } from './replica-view.ts';

/** Share of time that may be spent before queues no longer settle within a stream's life. */
export const TIME_SHARE_MAX = 0.95;

/** Worked out once per point and plan. Times are scaled by the learnt corrections. */
export interface PointCosts {
  readonly point: PointIndex;
  /** A decode step of everything that runs or will shortly. */
  readonly stepMs: number;
  /** What a typical arrival's prefill adds to every running stream. */
  readonly interferenceMs: number;
  /** The step with the expected share of time given to prefills: what a stream sees. */
  readonly stepWithPrefillsMs: number;
  /** What the prompts waiting now add to every running stream. */
  readonly backlogMs: number;
  /** From now to the first token of each waiting prompt. */
  readonly firstTokenMs: readonly number[];
  /** TPOT at the fixed point of arrivals, batch and step time; `Infinity` when there is none. */
  readonly settledTpotMs: number;
  readonly settledSequences: number;
}

/** Predicted time from now to the first token of the `index`-th waiting prompt, at the given point. */
export function predictFirstTokenMs(view: ReplicaView, point: PointIndex, index: number): number {
  return costsAt(view, point).firstTokenMs[index] ?? 0;
}

/** Predicted time per output token at the given point with the present load and the forecast prefills. */
export function predictTpotMs(view: ReplicaView, point: PointIndex): number {
  return costsAt(view, point).stepWithPrefillsMs;
}

export function costsAt(view: ReplicaView, point: PointIndex): PointCosts {
  const { model, timeScale, forecast } = view;
  const sequences = sequencesOf(view);
  const waitingTokens = view.waiting.reduce((sum, prompt) => sum + prompt.promptTokens, 0);
  const decode = { sequences, contextTokens: view.contextTokens + waitingTokens };
  const rawStepMs = model.iterationTimeMs({ prefill: NO_PREFILL, decode }, point);
  const stepMs = rawStepMs * timeScale.decode;
  const added = (tokens: number): number =>
    tokens <= 0 ? 0 : (model.iterationTimeMs({ prefill: { tokens, contextTokens: 0 }, decode }, point) - rawStepMs) * timeScale.prefill;
  const interferenceMs = added(forecast.promptTokensMean);
  const prefillShare = forecast.perMs * interferenceMs;

  // Batch, step and arrivals at their fixed point: B = λ·n·s (Little), s = (α + β·B)/(1 − ρ), both linear in B.
  const outPerMs = forecast.perMs * view.outputTokensMean;
  const contextPerSequence = forecast.promptTokensMean + view.outputTokensMean / 2;
  const stepOf = (count: number): number => model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences: count, contextTokens: count * contextPerSequence } }, point) * timeScale.decode;
  const perSequenceMs = (stepOf(65) - stepOf(1)) / 64;
  const baseMs = stepOf(1) - perSequenceMs;
  const utilisation = prefillShare + perSequenceMs * outPerMs;
  const settledTpotMs = utilisation >= TIME_SHARE_MAX ? Number.POSITIVE_INFINITY : baseMs / (1 - utilisation) + perSequenceMs;
  return {
    point,
    stepMs,
    interferenceMs,
    stepWithPrefillsMs: stepMs / (1 - Math.min(TIME_SHARE_MAX, prefillShare)),
    ...promptTimes(view, point, stepMs),
    settledTpotMs,
    settledSequences: outPerMs * settledTpotMs,
  };
}

/**
 * When each waiting prompt gets its first token, and what all of them take from the running streams. In order of arrival:
 * the step under way, the switch if one is still needed, all prompts up to it; for each batch of `maxBatchTokens` one
 * decode step rides along, and the pass over the weights is paid once.
 */
function promptTimes(view: ReplicaView, point: PointIndex, stepMs: number): { firstTokenMs: number[]; backlogMs: number } {
  const { model, timeScale } = view;
  if (view.waiting.length === 0) return { firstTokenMs: [], backlogMs: 0 };
  const { maxBatchTokens } = model.profile.serving;
  const passMs = model.prefillTimeMs({ tokens: 1, contextTokens: 0 }, point) * timeScale.prefill;
  const decoding = view.running.length + view.foreignSequences > 0;
  const perBatchMs = Math.max(decoding ? stepMs : 0, passMs + model.profile.launchOverheadMs);
  const startMs = switchMs(view, point) + (decoding ? stepMs / 2 : 0);
  const firstTokenMs: number[] = [];
  let tokens = 0;
  let workMs = 0;
  for (const prompt of view.waiting) {
    const left = Math.max(1, prompt.promptTokens - prompt.prefilledTokens);
    tokens += left;
    workMs += model.prefillTimeMs({ tokens: left, contextTokens: prompt.prefilledTokens }, point) * timeScale.prefill - passMs;
    firstTokenMs.push(startMs + workMs + perBatchMs * Math.ceil(tokens / maxBatchTokens));
  }
  return { firstTokenMs, backlogMs: workMs + (decoding ? 0 : passMs) };
}

/** Allowance for a raise that is still to come. A lowering costs no deadline: until it lands we are faster than planned. */
export function switchMs(view: ReplicaView, point: PointIndex): number {
  const { speedRank, fastest } = view.model;
  return (speedRank[point] as number) < (speedRank[view.appliedPoint ?? fastest] as number) ? SWITCH_ALLOWANCE_MS : 0;
}

const NO_PREFILL = { tokens: 0, contextTokens: 0 };
