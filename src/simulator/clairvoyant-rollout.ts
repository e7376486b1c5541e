// A replica looked ahead with: the batching engine and its physics without KV cache, switch latency and randomness, so
// small that it is copied and rolled forward thousands of times a second. What it says is a forecast; `playReplica` judges.
import type { Physics } from '../engine/physics.ts';
import type { Gear } from './clairvoyant-gears.ts';
import type { KnownRequest } from './clairvoyant-request.ts';

/** Immutable, so that copying a replica copies references. */
interface Stream {
  readonly finishStep: number;
  readonly finalTokens: number;
  readonly endByMs: number;
}

export interface Rollout {
  /** When the next iteration can begin. */
  nowMs: number;
  /** Decode steps since the start. */
  steps: number;
  contextTokens: number;
  /** By `finishStep`, the latest first. */
  streams: Stream[];
  waiting: KnownRequest[];
  /** Of the first one that waits. */
  prefilledTokens: number;
  /** Of all that is here when it has ended: an upper bound of the KV cache it takes. */
  finalTokens: number;
  /** Above parked idling. */
  excessJ: number;
}

export interface RolloutEngine {
  start(): Rollout;
  copy(rollout: Rollout): Rollout;
  /** False where the server might not have the place for it. */
  hasPlace(rollout: Rollout, request: KnownRequest): boolean;
  submit(rollout: Rollout, request: KnownRequest, atMs: number): void;
  /** Until the first boundary between iterations at or after `toMs` (`Infinity`: until all is done). False, at once, where a deadline is missed. */
  run(rollout: Rollout, gear: Gear, toMs: number): boolean;
}

/** `marginShare` of every TPOT and `marginMs` of every other deadline are kept for what the model leaves out. */
export function createRolloutEngine(physics: Physics, margin: { readonly tpotShare: number; readonly ms: number }): RolloutEngine {
  const { maxBatchTokens, maxSequences, kvTokens } = physics.profile.serving;
  const parkedW = Math.min(...physics.measuredClocksMhz.map((mhz) => physics.idlePowerW(mhz)));
  const work = { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };

  function spend(rollout: Rollout, clockMhz: number, repeats: number): void {
    const timeMs = repeats * physics.iterationTimeMs(work, clockMhz);
    rollout.excessJ += ((physics.iterationPowerW(work, clockMhz) - parkedW) * timeMs) / 1000;
    rollout.nowMs += timeMs;
  }

  function add(rollout: Rollout, stream: Stream): void {
    const { streams } = rollout;
    let place = streams.length;
    while (place > 0 && (streams[place - 1] as Stream).finishStep < stream.finishStep) place--;
    streams.splice(place, 0, stream);
  }

  /** Streams that have all their tokens now. */
  function endStreams(rollout: Rollout): boolean {
    const { streams } = rollout;
    let met = true;
    for (let last = streams.at(-1); last !== undefined && last.finishStep <= rollout.steps; last = streams.at(-1)) {
      streams.pop();
      if (rollout.nowMs > last.endByMs) met = false;
      rollout.contextTokens -= last.finalTokens;
      rollout.finalTokens -= last.finalTokens;
    }
    return met;
  }

  function decode(rollout: Rollout, clockMhz: number, toMs: number): boolean {
    const { streams } = rollout;
    const sequences = streams.length;
    work.prefill.tokens = 0;
    work.prefill.contextTokens = 0;
    work.decode.sequences = sequences;
    let steps = (streams.at(-1) as Stream).finishStep - rollout.steps;
    if (toMs < Infinity) steps = Math.min(steps, 1 + physics.decodeStepsWithin({ sequences, contextTokens: rollout.contextTokens }, clockMhz, toMs - rollout.nowMs));
    work.decode.contextTokens = rollout.contextTokens + (sequences * (steps - 1)) / 2;
    spend(rollout, clockMhz, steps);
    rollout.steps += steps;
    rollout.contextTokens += sequences * steps;
    return endStreams(rollout);
  }

  /** An iteration with prefill, and a decode step of all streams where there are any. */
  function prefill(rollout: Rollout, clockMhz: number): boolean {
    const { waiting, streams } = rollout;
    const sequences = streams.length;
    let budgetTokens = maxBatchTokens - sequences;
    let attention = 0;
    let ready = 0;
    let doneTokens = rollout.prefilledTokens;
    work.prefill.tokens = 0;
    for (const { promptTokens } of waiting) {
      const tokens = Math.min(promptTokens - doneTokens, budgetTokens);
      attention += tokens * (tokens / 2 + doneTokens);
      work.prefill.tokens += tokens;
      budgetTokens -= tokens;
      if (doneTokens + tokens < promptTokens) {
        doneTokens += tokens;
        break;
      }
      doneTokens = 0;
      ready++;
      if (budgetTokens === 0) break;
    }
    work.prefill.contextTokens = attention / work.prefill.tokens - work.prefill.tokens / 2;
    work.decode.sequences = sequences;
    work.decode.contextTokens = rollout.contextTokens;
    spend(rollout, clockMhz, 1);
    let met = true;
    if (sequences > 0) {
      rollout.steps++;
      rollout.contextTokens += sequences;
      met = endStreams(rollout);
    }
    rollout.prefilledTokens = doneTokens;
    for (let index = 0; index < ready; index++) {
      const { promptTokens, outputTokens, firstByMs, tpotMs, endByMs } = waiting[index] as KnownRequest;
      if (rollout.nowMs > firstByMs - margin.ms || (outputTokens === 1 && rollout.nowMs > endByMs - margin.ms)) met = false;
      const finalTokens = promptTokens + outputTokens;
      if (outputTokens === 1) {
        rollout.finalTokens -= finalTokens;
        continue;
      }
      rollout.contextTokens += promptTokens + 1;
      const byTpotMs = rollout.nowMs + (outputTokens - 1) * tpotMs * (1 - margin.tpotShare);
      add(rollout, { finishStep: rollout.steps + outputTokens - 1, finalTokens, endByMs: Math.min(byTpotMs, endByMs - margin.ms) });
    }
    waiting.splice(0, ready);
    return met;
  }

  return {
    start: () => ({ nowMs: 0, steps: 0, contextTokens: 0, streams: [], waiting: [], prefilledTokens: 0, finalTokens: 0, excessJ: 0 }),
    copy: (rollout) => ({ ...rollout, streams: rollout.streams.slice(), waiting: rollout.waiting.slice() }),
    hasPlace: ({ streams, waiting, finalTokens }, { promptTokens, outputTokens }) => streams.length + waiting.length < maxSequences && finalTokens + promptTokens + outputTokens <= kvTokens,
    submit: (rollout, request, atMs) => {
      rollout.nowMs = Math.max(rollout.nowMs, atMs);
      rollout.waiting.push(request);
      rollout.finalTokens += request.promptTokens + request.outputTokens;
    },
    run: (rollout, { prefillMhz, decodeMhz }, toMs) => {
      let met = true;
      while (rollout.nowMs < toMs) {
        if (rollout.waiting.length > 0) met = prefill(rollout, prefillMhz) && met;
        else if (rollout.streams.length > 0) met = decode(rollout, decodeMhz, toMs) && met;
        else break;
        if (!met) return false;
      }
      return true;
    },
  };
}
