// One request inside the batching engine: what it asked for, how far it is, what it holds.
import type { EngineEvent, EngineRequest } from './batching.ts';
import type { HeapItem } from './indexed-heap.ts';

/**
 * A mutable record instead of a union per state: it stays the same object from arrival to end, because thousands of sequences
 * per simulated second would otherwise be garbage. Which fields hold is said by `phase`.
 */
export interface Sequence<Id> extends HeapItem {
  readonly id: Id;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly prefixBlocks: readonly number[];
  readonly priority: number;
  /** Number of the arrival; kept over a preemption, which so goes back to the front of its equals. */
  readonly arrival: number;
  phase: 'waiting' | 'prefill' | 'decode' | 'done';
  preempted: boolean;

  /** What must be computed before the next token: the prompt, after a preemption also the output so far. */
  prefillTokens: number;
  computedTokens: number;
  /** In the iteration that runs. */
  chunkTokens: number;
  /** Leading entries of the prefix cache it holds. */
  sharedEntries: number;
  /** Up to date in 'prefill'; in 'decode' it follows from the context. */
  privateBlocks: number;
  /** Output when it last was not decoding. */
  outputSettled: number;

  // Kept by the decode set while it decodes.
  /** Context = `contextBase` + steps, output = `outputBase` + steps; it has all its tokens after the step `finishStep`. */
  contextBase: number;
  outputBase: number;
  finishStep: number;
  decodingSlot: number;

  readonly event: { -readonly [Field in keyof EngineEvent<Id>]: EngineEvent<Id>[Field] };
}

export function createSequence<Id>(request: EngineRequest<Id>, arrival: number): Sequence<Id> {
  const { id, promptTokens, outputTokens, prefixBlocks = NO_BLOCKS, priority = 0 } = request;
  return {
    id,
    promptTokens,
    outputTokens,
    prefixBlocks,
    priority,
    arrival,
    heapSlot: -1,
    phase: 'waiting',
    preempted: false,
    prefillTokens: promptTokens,
    computedTokens: 0,
    chunkTokens: 0,
    sharedEntries: 0,
    privateBlocks: 0,
    outputSettled: 0,
    contextBase: 0,
    outputBase: 0,
    finishStep: 0,
    decodingSlot: -1,
    event: { kind: 'token', id, outputTokens: 0, cachedTokens: 0 },
  };
}

const NO_BLOCKS: readonly number[] = [];

/** Before in the queue; reversed, it is who is preempted first. */
export function ranksBefore<Id>(a: Sequence<Id>, b: Sequence<Id>): boolean {
  return a.priority < b.priority || (a.priority === b.priority && a.arrival < b.arrival);
}

/** Prefix entries a new admission may reuse: full blocks, and at least one token is left to compute, or no next token would come. */
export function reusableEntries<Id>({ prefixBlocks, promptTokens, prefillTokens }: Sequence<Id>, entryTokens: number): number {
  return Math.min(prefixBlocks.length, Math.floor(Math.min(promptTokens, prefillTokens - 1) / entryTokens));
}

/** Back to the queue with nothing but its output so far, which is computed again together with the prompt. */
export function awaitRecompute<Id>(sequence: Sequence<Id>): void {
  sequence.phase = 'waiting';
  sequence.preempted = true;
  sequence.prefillTokens = sequence.promptTokens + sequence.outputSettled;
  sequence.computedTokens = 0;
  sequence.chunkTokens = 0;
  sequence.sharedEntries = 0;
  sequence.privateBlocks = 0;
}
