// What work costs at an operating point, above what idling parked would burn anyway. Plans compare power, routes joules.
import type { PointIndex } from '../frontier/performance-model.ts';
import type { DecodeWork } from '../frontier/profile.ts';
import type { Pricing } from './corrections.ts';
import type { PointCosts } from './point-costs.ts';
import { type ReplicaView, type WaitingPrompt, sequencesOf } from './replica-view.ts';

/**
 * Expected power above parked idling when the forecast is served at this point: energy of the work that arrives per
 * millisecond less what the group would have idled away in the same time, batch size at its fixed point. With work
 * that never ends it is the busy power, with gaps the gaps count as parked (Perseus' "power of waiting").
 */
export function excessPowerW(view: ReplicaView, costs: PointCosts): number {
  const { priced, forecast } = view;
  const parkedW = parkedPowerW(priced);
  const present = sequencesOf(view);
  // What is here counts as if it arrived within these times: it only sets how much prefill there is to decode.
  const prefillPerMs = forecast.perMs + view.waiting.length / PRESENT_PROMPTS_MS;
  const tokensPerMs = Math.max(forecast.perMs * view.outputTokensMean, present / PRESENT_TOKENS_MS);
  const settled = Number.isFinite(costs.settledSequences) ? costs.settledSequences : present;
  const sequences = Math.max(1, (present + settled) / 2);
  const contextTokens = sequences * (forecast.promptTokensMean + view.outputTokensMean / 2);
  const prefill = { tokens: Math.max(1, forecast.prefillTokensMean), contextTokens: forecast.promptTokensMean - forecast.prefillTokensMean };
  const decode = { sequences, contextTokens };
  const prefillJ = priced.prefillEnergyJ(prefill, costs.point) - (parkedW * priced.prefillTimeMs(prefill, costs.point)) / 1000;
  if (view.phase === 'prefill') return 1000 * prefillPerMs * prefillJ;
  const stepJ = priced.decodeEnergyJ(decode, costs.point) - (parkedW * priced.decodeTimeMs(decode, costs.point)) / 1000;
  if (view.phase === 'decode') return 1000 * (tokensPerMs / sequences) * stepJ;
  return 1000 * (prefillPerMs * prefillJ + (tokensPerMs / sequences) * stepJ);
}

/**
 * Energy above parked idling that one more job is charged on a replica: what routing compares. `withJob` has it as the last
 * of its waiting prompts; `before` and `after` are the points the replica runs at without and with it. It is charged its
 * prefill, an equal share of every step it takes part in, and, where it makes the replica run faster, the power that this
 * adds for `raisedMs`: power, since a replica that is never empty gains no rest by being fast. Of lengths the middle quantile.
 * Shares, and not what it adds: a step costs nearly as much for one stream as for thirty, so by what it adds two half-full
 * replicas look as cheap as one full one and neither ever drains; by shares the fuller is the cheaper until it would have to
 * run faster.
 */
export function chargedWorkJ(withJob: ReplicaView, before: PointIndex, after: PointIndex, raisedMs: number): number {
  const { priced } = withJob;
  const job = withJob.waiting.at(-1) as WaitingPrompt;
  const sequences = sequencesOf(withJob);
  const prefillJ = prefillChargeJ(priced, job, after);
  let contextTokens = withJob.contextTokens;
  for (const prompt of withJob.waiting) contextTokens += prompt.promptTokens;
  return prefillJ + stepsChargeJ(priced, { sequences, contextTokens }, job.outputTokensMiddle, after) + raiseChargeJ(priced, { sequences, contextTokens }, before, after, raisedMs);
}

/** The equal part of one of `all` in as many steps. `parkedW`: for whoever asks of many points. */
export function stepsChargeJ(priced: Pricing, all: DecodeWork, steps: number, point: PointIndex, parkedW = parkedPowerW(priced)): number {
  return (steps * excessStepJ(priced, parkedW, all.sequences, all.contextTokens, point)) / all.sequences;
}

/** What it takes more to run so much longer faster; nothing where the newcomer is alone. */
export function raiseChargeJ(priced: Pricing, { sequences, contextTokens }: DecodeWork, before: PointIndex, after: PointIndex, raisedMs: number): number {
  if (before === after || sequences === 1) return 0;
  return (Math.max(0, busyPowerW(priced, sequences, contextTokens, after) - busyPowerW(priced, sequences, contextTokens, before)) * raisedMs) / 1000;
}

/** Energy above parked idling of what a prompt still has to be prefilled. */
export function prefillChargeJ(priced: Pricing, prompt: Pick<WaitingPrompt, 'promptTokens' | 'prefilledTokens'>, point: PointIndex, parkedW = parkedPowerW(priced)): number {
  PREFILL.tokens = Math.max(1, prompt.promptTokens - prompt.prefilledTokens);
  PREFILL.contextTokens = prompt.prefilledTokens;
  return priced.prefillEnergyJ(PREFILL, point) - (parkedW * priced.prefillTimeMs(PREFILL, point)) / 1000;
}

function busyPowerW(priced: Pricing, sequences: number, contextTokens: number, point: PointIndex): number {
  DECODE.sequences = sequences;
  DECODE.contextTokens = contextTokens;
  return (1000 * priced.decodeEnergyJ(DECODE, point)) / priced.decodeTimeMs(DECODE, point);
}

function excessStepJ(priced: Pricing, parkedW: number, sequences: number, contextTokens: number, point: PointIndex): number {
  DECODE.sequences = sequences;
  DECODE.contextTokens = contextTokens;
  return priced.decodeEnergyJ(DECODE, point) - (parkedW * priced.decodeTimeMs(DECODE, point)) / 1000;
}

const PREFILL = { tokens: 0, contextTokens: 0 };
const DECODE = { sequences: 0, contextTokens: 0 };

/** What a group draws that has nothing to do and may wait at its cheapest point. */
export function parkedPowerW(priced: Pricing): number {
  let parkedW = Number.POSITIVE_INFINITY;
  for (let point = 0; point < priced.points.length; point++) parkedW = Math.min(parkedW, priced.idlePowerW(point));
  return parkedW;
}

const PRESENT_PROMPTS_MS = 1_000;
const PRESENT_TOKENS_MS = 10_000;
