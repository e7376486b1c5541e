// What one request says: body and SLO headers. No I/O.
import type { Slo } from '../core/job.ts';

export type Endpoint = 'chat' | 'completions';

/**
 * How an engine comes to answer with the length the workload wants.
 * - `hidden`: `metadata.emulate_output_tokens`, which the emulated engine obeys and no gateway reads: like in production
 *   the length is known to nobody beforehand. `max_tokens` is the same cap for all requests.
 * - `exact`: `max_tokens` with `ignore_eos`, for real engines such as vLLM. A gateway that bounds its prediction by
 *   `max_tokens` then knows every length: fair between policies, flattering to all of them.
 * - `capped`: `max_tokens` alone, for servers that refuse what OpenAI does not have (transformers serve): an answer may end before it.
 */
export type Lengths = 'hidden' | 'exact' | 'capped';

export const PATHS: Readonly<Record<Endpoint, string>> = { chat: '/v1/chat/completions', completions: '/v1/completions' };

export interface BodyPlan {
  readonly endpoint: Endpoint;
  readonly lengths: Lengths;
  readonly model: string;
  /** Of `hidden` lengths; at least the longest answer of the workload. */
  readonly maxTokens: number;
}

export function requestBody(plan: BodyPlan, prompt: string, outputTokens: number): string {
  return JSON.stringify({
    model: plan.model,
    ...(plan.endpoint === 'chat' ? { messages: [{ role: 'user', content: prompt }] } : { prompt }),
    stream: true,
    stream_options: { include_usage: true },
    ...(plan.lengths === 'hidden'
      ? { max_tokens: plan.maxTokens, metadata: { emulate_output_tokens: String(outputTokens) } }
      : { max_tokens: outputTokens, ...(plan.lengths === 'exact' ? { ignore_eos: true } : {}) }),
  });
}

export function sloHeaders({ ttftMs, tpotMs, e2eMs }: Slo): Readonly<Record<string, string>> {
  return {
    ...(ttftMs === undefined ? {} : { 'x-slo-ttft-ms': String(ttftMs) }),
    ...(tpotMs === undefined ? {} : { 'x-slo-tpot-ms': String(tpotMs) }),
    ...(e2eMs === undefined ? {} : { 'x-slo-e2e-ms': String(e2eMs) }),
  };
}

const MAX_TOKENS_DEFAULT = 1024;

/**
 * One cap for the whole run: a cap per request would tell its length. Without a wanted one: 1024, doubled until the
 * longest answer fits. `null` where the wanted one is too small.
 */
export function maxTokensFor(longestOutputTokens: number, wanted: number | undefined): number | null {
  if (wanted !== undefined) return wanted >= longestOutputTokens ? wanted : null;
  let cap = MAX_TOKENS_DEFAULT;
  while (cap < longestOutputTokens) cap *= 2;
  return cap;
}
