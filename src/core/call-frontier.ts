// The time–energy frontier of one call of a model, in the company that it will have: what a workflow's slack is allotted by.
import type { Pricing } from './corrections.ts';
import type { TradeOffPoint } from './slack-allotment.ts';
import { prefillChargeJ, stepsChargeJ } from './work-energy.ts';

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
export function callFrontier(priced: Pricing, { promptTokens, outputTokens, company, interference = 0 }: ExpectedCall): TradeOffPoint[] {
  const sequences = Math.max(1, company);
  const steps = Math.max(0, outputTokens - 1);
  const decode = { sequences, contextTokens: sequences * (promptTokens + outputTokens / 2) };
  const prompt = { promptTokens, prefilledTokens: 0 };
  // Of a call whose prompt has been read.
  const isRead = promptTokens <= 0;
  const stretch = 1 / (1 - Math.min(INTERFERENCE_MAX, Math.max(0, interference)));
  return priced.points.map((_, point) => ({
    timeMs: priced.prefillTimeMs({ tokens: promptTokens, contextTokens: 0 }, point) + steps * priced.decodeTimeMs(decode, point) * stretch,
    energyJ: (isRead ? 0 : prefillChargeJ(priced, prompt, point)) + stepsChargeJ(priced, decode, steps, point),
  }));
}

/** The same of replicas that are unlike: all that any of them offers. */
export function callFrontiers(replicas: readonly Pricing[], call: ExpectedCall): TradeOffPoint[] {
  return replicas.flatMap((priced) => callFrontier(priced, call));
}
