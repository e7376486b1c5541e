// The time–energy frontier of one call of a model, in the company that it will have: what a workflow's slack is allotted by.
import type { DecodeWork } from '../frontier/profile.ts';
import type { Pricing } from './corrections.ts';
import type { TradeOffPoint } from './slack-allotment.ts';
import { parkedPowerW, prefillChargeJ, stepsChargeJ } from './work-energy.ts';

export interface ExpectedCall {
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** Streams in the batches that it shares, itself included; at least 1. */
  readonly company: number;
  /** Share of the replica's time that others' prompts take of its steps, 0 to below 1; default none. */
  readonly interference?: number;
}

/** Beyond it the fixed point of batch, step and prompts has long been lost. */
const INTERFERENCE_MAX = 0.8;

/**
 * One point for each operating point, in their order: milliseconds from being sent to the last token, and joules above what idling parked would
 * have burnt (its prefill, and an equal share of every step). The steps grow with the answer; half of it stands for all. Not thinned to the
 * efficient points.
 */
export function callFrontier(priced: Pricing, call: ExpectedCall): TradeOffPoint[] {
  const { promptTokens } = call;
  const steps = stepsOf(call);
  const decode = decodeOf(call);
  const prompt = { promptTokens, prefilledTokens: 0 };
  // Of a call whose prompt has been read.
  const isRead = promptTokens <= 0;
  const stretch = stretchOf(call);
  const prefill = { tokens: promptTokens, contextTokens: 0 };
  const parkedW = parkedPowerW(priced);
  return priced.points.map((_, point) => ({
    timeMs: priced.prefillTimeMs(prefill, point) + steps * priced.decodeTimeMs(decode, point) * stretch,
    energyJ: (isRead ? 0 : prefillChargeJ(priced, prompt, point, parkedW)) + stepsChargeJ(priced, decode, steps, point, parkedW),
  }));
}

/** The same of replicas that are unlike: all that any of them offers. */
export function callFrontiers(replicas: readonly Pricing[], call: ExpectedCall): TradeOffPoint[] {
  return replicas.flatMap((priced) => callFrontier(priced, call));
}

/** The least time of all that, in milliseconds, without what it costs; `Infinity` where there is no replica. */
export function fastestCallMs(replicas: readonly Pricing[], call: ExpectedCall): number {
  const [prefill, steps, decode, stretch] = [{ tokens: call.promptTokens, contextTokens: 0 }, stepsOf(call), decodeOf(call), stretchOf(call)];
  let leastMs = Number.POSITIVE_INFINITY;
  for (const priced of replicas) for (let point = 0; point < priced.points.length; point++) leastMs = Math.min(leastMs, priced.prefillTimeMs(prefill, point) + steps * priced.decodeTimeMs(decode, point) * stretch);
  return leastMs;
}

function stepsOf({ outputTokens }: ExpectedCall): number {
  return Math.max(0, outputTokens - 1);
}

function decodeOf({ promptTokens, outputTokens, company }: ExpectedCall): DecodeWork {
  const sequences = Math.max(1, company);
  return { sequences, contextTokens: sequences * (promptTokens + outputTokens / 2) };
}

function stretchOf({ interference = 0 }: ExpectedCall): number {
  return 1 / (1 - Math.min(INTERFERENCE_MAX, Math.max(0, interference)));
}
