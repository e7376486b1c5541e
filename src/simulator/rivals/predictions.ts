// What every rival with a performance model asks of the belief: a step, the first tokens of a queue. Each
// paper fits such a model from its own profiling runs; here all of them get the same profile that Paceline gets.
import { type ReplicaView, sequencesOf } from '../../core/replica-view.ts';
import { NO_PREFILL, type PerformanceModel, type PointIndex } from '../../frontier/performance-model.ts';

/** A decode step, nothing else in the batch. */
export function decodeStepMs(model: PerformanceModel, point: PointIndex, sequences: number, contextTokens: number): number {
  return model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences, contextTokens } }, point);
}

/** The decode step of everything that runs there. */
export function runningStepMs({ model, running, foreignSequences, contextTokens }: ReplicaView, point: PointIndex): number {
  return decodeStepMs(model, point, running.length + foreignSequences, contextTokens);
}

/**
 * From now to the first token of each waiting prompt, in order of arrival: chunks of what the server takes at once, with
 * everything that runs along in each, after half of the step under way.
 */
export function firstTokensMs(view: ReplicaView, point: PointIndex): readonly number[] {
  const { model, waiting, running, foreignSequences, contextTokens } = view;
  const { maxBatchTokens } = model.profile.serving;
  const decode = { sequences: running.length + foreignSequences, contextTokens };
  const startMs = decode.sequences === 0 ? 0 : runningStepMs(view, point) / 2;
  let doneMs = 0;
  let room = maxBatchTokens;
  return waiting.map(({ promptTokens, prefilledTokens }) => {
    let left = Math.max(1, promptTokens - prefilledTokens);
    while (left > room) {
      doneMs += model.iterationTimeMs({ prefill: { tokens: maxBatchTokens, contextTokens: 0 }, decode }, point);
      left -= room;
      room = maxBatchTokens;
    }
    room -= left;
    const chunk = { tokens: maxBatchTokens - room, contextTokens: 0 };
    return startMs + doneMs + model.iterationTimeMs({ prefill: chunk, decode }, point);
  });
}

/** Share of time that the expected prefills take from the streams. */
export function prefillShare(view: ReplicaView, point: PointIndex): number {
  const { model, forecast, contextTokens } = view;
  const decode = { sequences: sequencesOf(view), contextTokens };
  const withPrefillMs = model.iterationTimeMs({ prefill: { tokens: forecast.promptTokensMean, contextTokens: 0 }, decode }, point);
  return Math.min(SHARE_MAX, forecast.perMs * (withPrefillMs - model.iterationTimeMs({ prefill: NO_PREFILL, decode }, point)));
}

const SHARE_MAX = 0.95;
