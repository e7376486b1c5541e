// A continuous-batching engine as a state machine without clock, I/O or timers, shaped like vLLM's v1 scheduler: decodes
// first, then chunked prefill in order of arrival within a token budget, KV blocks with preemption by recompute, prefix
// cache. Who drives it (server or simulator) says how long an iteration takes.
import assert from 'node:assert/strict';
import type { IterationWork } from '../frontier/performance-model.ts';
import type { Profile } from '../frontier/profile.ts';
import { createDecodeSet } from './decode-set.ts';
import { createIndexedHeap } from './indexed-heap.ts';
import { KV_BLOCK_TOKENS, createKvCache } from './kv-cache.ts';
import type { Sequence } from './sequence.ts';
import { awaitRecompute, createSequence, ranksBefore, reusableEntries } from './sequence.ts';

/**
 * Requests that may wait in an engine. vLLM has no bound; here one keeps a flood from growing memory without end.
 * At a few requests per second and replica this is many minutes of work, so whoever waits behind it has long given up.
 */
export const WAITING_MAX = 4096;

export interface EngineLimits {
  /** New tokens per iteration, decodes and prefill chunks together. */
  readonly maxBatchTokens: number;
  /** Sequences admitted at once. */
  readonly maxSequences: number;
  readonly kvTokens: number;
  /** Default `WAITING_MAX`. */
  readonly waitingMax?: number;
  /** Tokens that one of a request's `prefixBlocks` stands for, a multiple of 16. Default 16; Mooncake's traces have 512. */
  readonly prefixBlockTokens?: number;
}

export interface EngineRequest<Id> {
  readonly id: Id;
  /** At least 1. */
  readonly promptTokens: number;
  /** Exactly so many will come; 0 is prefill only (embeddings). */
  readonly outputTokens: number;
  /** Chained hashes of the prompt's full blocks from its start: equal leading hashes are equal prefixes. */
  readonly prefixBlocks?: readonly number[];
  /** Lower goes first, as in vLLM; default 0. Equal priorities go in order of arrival. */
  readonly priority?: number;
}

export type Submission =
  | { readonly kind: 'queued' }
  /** `exceeds-kv`: prompt and output together can never fit, even alone. */
  | { readonly kind: 'rejected'; readonly reason: 'queue-full' | 'exceeds-kv' };

/** One more token of a request, or its end. The object is used again for the request's next event: copy what is kept. */
export interface EngineEvent<Id> {
  /** `finished` comes with the last token (with none, where `outputTokens` is 0). */
  readonly kind: 'token' | 'finished';
  readonly id: Id;
  /** Output tokens so far, this one included. */
  readonly outputTokens: number;
  /** Prompt tokens found in the prefix cache on admission. */
  readonly cachedTokens: number;
}

/** Counters since the start, and gauges of now. */
export interface EngineStats {
  readonly waiting: number;
  /** Admitted: prefilling and decoding. */
  readonly running: number;
  readonly decoding: number;
  /** 0 to 1; cached prefixes that nobody uses count as free. */
  readonly kvUsage: number;
  readonly iterations: number;
  /** Prompts whose prefill has ended, in tokens, cached ones included; recomputation is not counted again. */
  readonly promptTokens: number;
  readonly generationTokens: number;
  readonly prefixQueryTokens: number;
  readonly prefixHitTokens: number;
  readonly preemptions: number;
  readonly finished: number;
  readonly cancelled: number;
  readonly rejected: number;
}

export interface BatchingEngine<Id> {
  submit(request: EngineRequest<Id>): Submission;
  /** Frees all that the request holds, at any phase. False where no such request is there (any more). */
  cancel(id: Id): boolean;
  /** Forms the next batch; `null` when there is nothing to do. The object is used again by the next call. */
  beginIteration(): IterationWork | null;
  /** Ends the iteration begun last. The array is used again by the next call. */
  endIteration(): readonly EngineEvent<Id>[];
  /**
   * Iterations from here that only decode, all with the same sequences; the last of them may finish some. 0 when the next
   * one would prefill, preempt or have nothing to do. Not to be asked within an iteration.
   */
  iterationsUntilChange(): number;
  /** What the first of these iterations works on, for skipping over them; as `beginIteration` would say, without beginning. */
  decodeWork(): IterationWork['decode'];
  /** Runs so many iterations at once (at most `iterationsUntilChange()`); events are those of `endIteration`, last step only. */
  skipIterations(iterations: number): readonly EngineEvent<Id>[];
  /** Output tokens of a request so far, or after so many decode steps more; `undefined` where it is not here. */
  outputTokensOf(id: Id, stepsAhead?: number): number | undefined;
  /** Its prefix cache is empty from now on, but for what runs. */
  forgetPrefixes(): void;
  stats(): EngineStats;
}

/** The limits the profile's engine was started with. */
export function limitsOf({ serving }: Profile): EngineLimits {
  return { maxBatchTokens: serving.maxBatchTokens, maxSequences: serving.maxSequences, kvTokens: serving.kvTokens };
}

/**
 * `tokenEvents: 'each'` reports every token (the server streams them), `'first-and-last'` only a request's first and its
 * end (the simulator, which so pays nothing for the others).
 */
export function createBatchingEngine<Id extends string | number>(limits: EngineLimits, tokenEvents: 'each' | 'first-and-last' = 'each'): BatchingEngine<Id> {
  const { maxBatchTokens, maxSequences, kvTokens, waitingMax = WAITING_MAX, prefixBlockTokens = KV_BLOCK_TOKENS } = limits;
  // vLLM refuses to start for the same reason: a full batch of decodes would not fit into one iteration.
  if (maxSequences < 1 || maxBatchTokens < maxSequences) throw new RangeError(`maxBatchTokens: got ${maxBatchTokens}, want at least maxSequences, which is ${maxSequences}`);
  if (kvTokens < KV_BLOCK_TOKENS) throw new RangeError(`kvTokens: got ${kvTokens}, want at least one block of ${KV_BLOCK_TOKENS}`);
  const kv = createKvCache({ kvTokens, entryTokens: prefixBlockTokens });

  const sequences = new Map<Id, Sequence<Id>>();
  const waiting = createIndexedHeap<Sequence<Id>>(ranksBefore);
  /** Admitted, prompt not yet computed; in order of admission. */
  const prefilling: Sequence<Id>[] = [];
  const decoding = createDecodeSet<Id>();

  let arrivals = 0;
  let inFlight: 'none' | 'prefill' | 'decode' = 'none';
  /** A head of the queue that did not fit, and the KV state in which it did not. */
  let blockedHead: Sequence<Id> | null = null;
  let blockedAtChanges = -1;
  const events: EngineEvent<Id>[] = [];
  const work = { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };
  const count = { iterations: 0, promptTokens: 0, generationTokens: 0, prefixQueryTokens: 0, prefixHitTokens: 0, preemptions: 0, finished: 0, cancelled: 0, rejected: 0 };

  function running(): number {
    return prefilling.length + decoding.sequences.length;
  }

  function fitsNow(sequence: Sequence<Id>): boolean {
    if (running() >= maxSequences) return false;
    if (sequence === blockedHead && kv.changes() === blockedAtChanges) return false;
    const hits = kv.leadingHits(sequence.prefixBlocks, reusableEntries(sequence, prefixBlockTokens));
    // The whole prompt must fit, not its first chunk: vLLM's `scheduler_reserve_full_isl`, on by default, against thrashing.
    const privateBlocks = Math.ceil(sequence.prefillTokens / KV_BLOCK_TOKENS) - hits * kv.blocksPerEntry;
    if (kv.wouldTakeBlocks(privateBlocks, sequence.prefixBlocks, hits) <= kv.freeBlocks()) {
      sequence.sharedEntries = hits;
      sequence.privateBlocks = privateBlocks;
      return true;
    }
    blockedHead = sequence;
    blockedAtChanges = kv.changes();
    return false;
  }

  /** After `fitsNow`, which left on the sequence what it may take. */
  function admit(sequence: Sequence<Id>): void {
    for (let index = 0; index < sequence.sharedEntries; index++) kv.hold(sequence.prefixBlocks[index] as number);
    kv.takePrivate(sequence.privateBlocks);
    sequence.phase = 'prefill';
    sequence.computedTokens = sequence.sharedEntries * prefixBlockTokens;
    prefilling.push(sequence);
    if (sequence.preempted) return;
    sequence.event.cachedTokens = sequence.computedTokens;
    count.prefixQueryTokens += sequence.promptTokens;
    count.prefixHitTokens += sequence.computedTokens;
  }

  function freeBlocksOf(sequence: Sequence<Id>): void {
    // From the tail, so that the heads of prefixes, which more prompts share, stay longest.
    for (let index = sequence.sharedEntries - 1; index >= 0; index--) kv.letGo(sequence.prefixBlocks[index] as number);
    kv.givePrivate(sequence.privateBlocks);
  }
  /** Leaves the decode set's arithmetic behind on the sequence. */
  function settleDecode(sequence: Sequence<Id>): void {
    sequence.outputSettled = decoding.outputTokensOf(sequence);
    sequence.privateBlocks = Math.ceil(decoding.storedTokensOf(sequence) / KV_BLOCK_TOKENS) - sequence.sharedEntries * kv.blocksPerEntry;
  }
  /** Takes an admitted sequence out of the batch and frees its blocks. */
  function withdraw(sequence: Sequence<Id>): void {
    if (sequence.phase === 'prefill') prefilling.splice(prefilling.indexOf(sequence), 1);
    else {
      settleDecode(sequence);
      decoding.remove(sequence);
    }
    freeBlocksOf(sequence);
  }

  function preempt(sequence: Sequence<Id>): void {
    withdraw(sequence);
    awaitRecompute(sequence);
    waiting.push(sequence);
    count.preemptions++;
  }
  function lastInRank(): Sequence<Id> {
    let last: Sequence<Id> | undefined;
    for (const sequence of prefilling) if (last === undefined || ranksBefore(last, sequence)) last = sequence;
    for (const sequence of decoding.sequences) if (last === undefined || ranksBefore(last, sequence)) last = sequence;
    assert(last !== undefined, 'blocks are needed by somebody');
    return last;
  }

  function takeDecodeSteps(steps: number): void {
    kv.takePrivate(decoding.blocksFor(steps));
    decoding.advance(steps);
    count.generationTokens += decoding.sequences.length * steps;
  }

  /** Returns the tokens it takes of the budget. `work.prefill.contextTokens` gathers the attention work for now. */
  function scheduleChunk(sequence: Sequence<Id>, budgetTokens: number): number {
    const tokens = Math.min(sequence.prefillTokens - sequence.computedTokens, budgetTokens);
    sequence.chunkTokens = tokens;
    work.prefill.contextTokens += tokens * (tokens / 2 + sequence.computedTokens);
    work.prefill.tokens += tokens;
    return tokens;
  }

  function report(sequence: Sequence<Id>, outputTokens: number): void {
    sequence.event.outputTokens = outputTokens;
    events.push(sequence.event);
  }
  function finish(sequence: Sequence<Id>): void {
    freeBlocksOf(sequence);
    sequence.phase = 'done';
    sequence.event.kind = 'finished';
    sequences.delete(sequence.id);
    count.finished++;
    report(sequence, sequence.outputTokens);
  }

  function endDecodeStep(): void {
    for (let done = decoding.shiftFinished(); done !== undefined; done = decoding.shiftFinished()) {
      settleDecode(done);
      finish(done);
    }
    if (tokenEvents === 'each') for (const sequence of decoding.sequences) report(sequence, decoding.outputTokensOf(sequence));
  }

  /** True where the sequence leaves the prefill. */
  function endChunk(sequence: Sequence<Id>): boolean {
    sequence.computedTokens += sequence.chunkTokens;
    sequence.chunkTokens = 0;
    const shareable = Math.min(sequence.prefixBlocks.length, Math.floor(Math.min(sequence.computedTokens, sequence.promptTokens) / prefixBlockTokens));
    for (; sequence.sharedEntries < shareable; sequence.sharedEntries++) {
      kv.share(sequence.prefixBlocks[sequence.sharedEntries] as number);
      sequence.privateBlocks -= kv.blocksPerEntry;
    }
    if (sequence.computedTokens < sequence.prefillTokens) return false;
    if (sequence.outputSettled === 0) count.promptTokens += sequence.promptTokens;
    const outputTokens = Math.min(sequence.outputSettled + 1, sequence.outputTokens);
    count.generationTokens += outputTokens - sequence.outputSettled;
    if (outputTokens === sequence.outputTokens) {
      finish(sequence);
      return true;
    }
    sequence.phase = 'decode';
    decoding.add(sequence, outputTokens);
    if (tokenEvents === 'each' || outputTokens === 1) report(sequence, outputTokens);
    return true;
  }

  return {
    submit: (request) => {
      assert(!sequences.has(request.id), `request ${request.id} is submitted once`);
      const exceedsKv = request.promptTokens + request.outputTokens > kv.totalBlocks * KV_BLOCK_TOKENS;
      if (exceedsKv || waiting.size() >= waitingMax) {
        count.rejected++;
        return { kind: 'rejected', reason: exceedsKv ? 'exceeds-kv' : 'queue-full' };
      }
      const sequence = createSequence(request, arrivals++);
      sequences.set(request.id, sequence);
      waiting.push(sequence);
      return { kind: 'queued' };
    },

    cancel: (id) => {
      const sequence = sequences.get(id);
      if (sequence === undefined) return false;
      if (sequence.phase === 'waiting') waiting.remove(sequence);
      else withdraw(sequence);
      sequences.delete(id);
      count.cancelled++;
      return true;
    },

    beginIteration: () => {
      assert(inFlight === 'none', 'an iteration ends before the next begins');
      const preemptionsBefore = count.preemptions;
      // Ends with one sequence left at the latest: alone, each fits, or it would have been rejected.
      while (decoding.blocksFor(1) > kv.freeBlocks()) preempt(lastInRank());

      work.decode.sequences = decoding.sequences.length;
      work.decode.contextTokens = decoding.contextTokens();
      work.prefill.tokens = 0;
      work.prefill.contextTokens = 0;
      if (work.decode.sequences > 0) takeDecodeSteps(1);
      let budgetTokens = maxBatchTokens - work.decode.sequences;
      for (const sequence of prefilling) budgetTokens -= scheduleChunk(sequence, budgetTokens);
      // As in vLLM, nobody new is let in by the iteration that had to throw somebody out.
      while (budgetTokens > 0 && count.preemptions === preemptionsBefore) {
        const head = waiting.first();
        if (head === undefined || !fitsNow(head)) break;
        waiting.shift();
        admit(head);
        budgetTokens -= scheduleChunk(head, budgetTokens);
      }
      if (work.prefill.tokens === 0 && work.decode.sequences === 0) return null;
      if (work.prefill.tokens > 0) work.prefill.contextTokens = attentionContext(work.prefill.tokens, work.prefill.contextTokens);
      inFlight = work.decode.sequences > 0 ? 'decode' : 'prefill';
      return work;
    },

    endIteration: () => {
      assert(inFlight !== 'none', 'an iteration ends once');
      events.length = 0;
      // Whoever joins below had no part in this step; a cancelled sequence is gone from both lists already.
      if (inFlight === 'decode') endDecodeStep();
      inFlight = 'none';
      let kept = 0;
      for (const sequence of prefilling) {
        if (sequence.chunkTokens > 0 && endChunk(sequence)) continue;
        prefilling[kept++] = sequence;
      }
      prefilling.length = kept;
      count.iterations++;
      return events;
    },

    iterationsUntilChange: () => {
      assert(inFlight === 'none', 'asked between iterations');
      const head = waiting.first();
      if (decoding.sequences.length === 0 || prefilling.length > 0 || (head !== undefined && fitsNow(head))) return 0;
      const iterations = decoding.stepsToFinish();
      return decoding.blocksFor(iterations) <= kv.freeBlocks() ? iterations : decoding.stepsWithin(kv.freeBlocks());
    },

    decodeWork: () => ({ sequences: decoding.sequences.length, contextTokens: decoding.contextTokens() }),

    skipIterations: (iterations) => {
      assert(inFlight === 'none', 'skipped between iterations');
      events.length = 0;
      if (iterations === 0) return events;
      takeDecodeSteps(iterations);
      count.iterations += iterations;
      endDecodeStep();
      return events;
    },

    outputTokensOf: (id, stepsAhead = 0) => {
      const sequence = sequences.get(id);
      if (sequence === undefined) return undefined;
      if (sequence.phase !== 'decode') return sequence.outputSettled;
      // The step under way is counted already, but its tokens are not there yet.
      return decoding.outputTokensOf(sequence) - (inFlight === 'decode' ? 1 : 0) + stepsAhead;
    },

    forgetPrefixes: kv.forget,

    stats: () => ({
      ...count,
      waiting: waiting.size(),
      running: running(),
      decoding: decoding.sequences.length,
      kvUsage: kv.usedBlocks() / kv.totalBlocks,
    }),
  };
}

/**
 * The context with which one prefill of `tokens` has the attention work of several chunks, `attention` being the sum of
 * n·(n/2 + context) over them. Negative where short prompts are batched: they do not attend to each other.
 */
function attentionContext(tokens: number, attention: number): number {
  return attention / tokens - tokens / 2;
}
