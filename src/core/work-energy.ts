// What work costs at an operating point, above what idling parked would burn anyway. Plans compare power, routes joules.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import type { PointCosts } from './point-costs.ts';
import { type ReplicaView, sequencesOf } from './replica-view.ts';

/**
 * Expected power above parked idling when the forecast is served at this point: energy of the work that arrives per
 * millisecond less what the group would have idled away in the same time, batch size at its fixed point. With work
 * that never ends it is the busy power, with gaps the gaps count as parked (Perseus' "power of waiting").
 */
export function excessPowerW(view: ReplicaView, costs: PointCosts): number {
  const { model, forecast } = view;
  const parkedW = parkedPowerW(model);
  const present = sequencesOf(view);
  // What is here counts as if it arrived within these times: it only sets how much prefill there is to decode.
  const prefillPerMs = forecast.perMs + view.waiting.length / PRESENT_PROMPTS_MS;
  const tokensPerMs = Math.max(forecast.perMs * view.outputTokensMean, present / PRESENT_TOKENS_MS);
  const settled = Number.isFinite(costs.settledSequences) ? costs.settledSequences : present;
  const sequences = Math.max(1, (present + settled) / 2);
  const contextTokens = sequences * (forecast.promptTokensMean + view.outputTokensMean / 2);
  const prefill = { tokens: Math.max(1, forecast.promptTokensMean), contextTokens: 0 };
  const decode = { sequences, contextTokens };
  const prefillJ = model.prefillEnergyJ(prefill, costs.point) - (parkedW * model.prefillTimeMs(prefill, costs.point)) / 1000;
  const stepJ = model.decodeEnergyJ(decode, costs.point) - (parkedW * model.decodeTimeMs(decode, costs.point)) / 1000;
  return 1000 * (prefillPerMs * prefillJ + (tokensPerMs / sequences) * stepJ);
}

/**
 * Energy above parked idling to finish everything known at a point: what routing compares. Streams share their steps, so a
 * fuller batch is cheaper per token. Lengths are planned at their middle quantile.
 */
export function knownWorkJ(view: ReplicaView, point: PointIndex): number {
  const { model } = view;
  const parkedW = parkedPowerW(model);
  const sequences = sequencesOf(view);
  if (sequences === 0) return 0;
  let joules = 0;
  let tokens = 0;
  let contextTokens = view.contextTokens;
  for (const prompt of view.waiting) {
    const work = { tokens: Math.max(1, prompt.promptTokens - prompt.prefilledTokens), contextTokens: prompt.prefilledTokens };
    joules += model.prefillEnergyJ(work, point) - (parkedW * model.prefillTimeMs(work, point)) / 1000;
    tokens += prompt.outputTokensMiddle;
    contextTokens += prompt.promptTokens;
  }
  for (const stream of view.running) tokens += stream.remainingMiddle;
  const decode = { sequences, contextTokens };
  const stepJ = model.decodeEnergyJ(decode, point) - (parkedW * model.decodeTimeMs(decode, point)) / 1000;
  return joules + (tokens / sequences) * stepJ;
}

function parkedPowerW(model: PerformanceModel): number {
  let parkedW = Number.POSITIVE_INFINITY;
  for (let point = 0; point < model.points.length; point++) parkedW = Math.min(parkedW, model.idlePowerW(point));
  return parkedW;
}

const PRESENT_PROMPTS_MS = 1_000;
const PRESENT_TOKENS_MS = 10_000;
