// throttLL'eM: predicts how long every answer gets, projects batch and KV cache over all iterations to come, and takes the
// slowest clock at which the projection keeps every SLO.
// Source: Kakolyris, Masouros, Vavaroutsos, Xydis and Soudris, throttLL'eM: Predictive GPU Throttling for Energy Efficient LLM
// Inference Serving, HPCA 2025, arXiv 2408.05235.
// Length: an upper quantile given what is out already, for the paper's predictor with its conservative correction.
// Scoreboard: tokens left per request; batch and KV cache change where a request ends. Performance model: the belief, for its
//   gradient-boosted trees over batch, KV and clock; a loaded engine's measured rate has prefills in it, so the expected
//   share of time that they take counts.
// Binary search over clocks: every iteration within the time-between-tokens limit, every request within its end-to-end limit;
//   with a request that even the fastest clock loses, the fastest, as published.
// Adapted: the paper has no TTFT objective; a request that carries one must have its first token in time in the projection.
// Left out: admission control (the gateway has sent what it sends; the server queues) and scaling of tensor parallelism.
import type { ReplicaView } from '../../core/replica-view.ts';
import type { PointIndex } from '../../frontier/performance-model.ts';
import type { ClockPolicy } from '../../scheduler/clock-policy.ts';
import { decodeStepMs, firstTokensMs, prefillShare } from './predictions.ts';
import type { RivalContext } from './rival.ts';

export function createThrottLlem({ belief }: RivalContext): ClockPolicy {
  const points = belief.bySlowness;
  return {
    name: 'throttllem',
    choose(_replicaId, view) {
      // Faster keeps whatever slower keeps, so the slowest that keeps everything is found by halving.
      let low = 0;
      let high = points.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (keepsAll(view, points[middle] as PointIndex)) high = middle;
        else low = middle + 1;
      }
      return points[low] as PointIndex;
    },
  };
}

interface Entry {
  readonly tokens: number;
  readonly contextTokens: number;
  readonly tpotLimitMs: number;
  readonly e2eDeadlineAtMs: number;
}

/** Whether the projection at this point keeps every limit. Exported for its test. */
export function keepsAll(view: ReplicaView, point: PointIndex): boolean {
  const { model, nowMs, waiting, running } = view;
  const firstMs = firstTokensMs(view, point);
  if (waiting.some(({ ttftDeadlineAtMs }, index) => nowMs + (firstMs[index] as number) > ttftDeadlineAtMs)) return false;

  const stretch = 1 / (1 - prefillShare(view, point));
  let contextTokens = view.contextTokens + waiting.reduce((sum, { promptTokens }) => sum + promptTokens, 0);
  const perStream = running.length === 0 ? 0 : view.contextTokens / (running.length + view.foreignSequences);
  const entries: Entry[] = [
    ...running.map((stream) => ({ ...stream, tokens: stream.remainingHigh, contextTokens: perStream })),
    ...waiting.map((prompt) => ({ ...prompt, tokens: prompt.outputTokensHigh, contextTokens: prompt.promptTokens })),
  ].sort((a, b) => a.tokens - b.tokens);

  // Between two ends the batch stays and the context grows by one token per sequence and step, so the mean step is that of
  // the stretch's middle; its last step is the longest.
  let limitMs = entries.reduce((least, { tpotLimitMs }) => Math.min(least, tpotLimitMs), Number.POSITIVE_INFINITY);
  let atMs = nowMs + (firstMs.at(-1) ?? 0);
  let doneTokens = 0;
  for (const [index, { tokens, e2eDeadlineAtMs, tpotLimitMs, contextTokens: ownTokens }] of entries.entries()) {
    const sequences = entries.length - index + view.foreignSequences;
    const steps = tokens - doneTokens;
    const lastMs = decodeStepMs(model, point, sequences, contextTokens + steps * sequences) * stretch;
    if (steps > 0 && lastMs > limitMs) return false;
    atMs += steps * decodeStepMs(model, point, sequences, contextTokens + (steps * sequences) / 2) * stretch;
    if (atMs > e2eDeadlineAtMs) return false;
    contextTokens += steps * sequences - (ownTokens + tokens);
    doneTokens = tokens;
    if (tpotLimitMs <= limitMs) limitMs = entries.slice(index + 1).reduce((least, entry) => Math.min(least, entry.tpotLimitMs), Number.POSITIVE_INFINITY);
  }
  return true;
}
