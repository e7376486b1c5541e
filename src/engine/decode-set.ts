// The sequences that decode. A step moves all of them by one token, so it is counted once for all: what a sequence's context,
// output and KV blocks are follows from the count. Only joining and leaving touches a single sequence.
import { createIndexedHeap } from './indexed-heap.ts';
import { KV_BLOCK_TOKENS } from './kv-cache.ts';
import type { Sequence } from './sequence.ts';

export interface DecodeSet<Id> {
  /** In no order. */
  readonly sequences: readonly Sequence<Id>[];
  /** Tokens that the next step attends to, over all sequences. */
  contextTokens(): number;
  /** With `outputTokens` already there, at least 1, and more to come. */
  add(sequence: Sequence<Id>, outputTokens: number): void;
  remove(sequence: Sequence<Id>): void;
  /** Runs so many steps. The caller has the blocks for them. */
  advance(steps: number): void;
  /** KV blocks that so many steps from here begin to fill. */
  blocksFor(steps: number): number;
  /** How many steps those blocks allow. */
  stepsWithin(blocks: number): number;
  /** Until the first sequence has all its tokens; `Infinity` where there is none. */
  stepsToFinish(): number;
  /** Removes and returns one that has all its tokens. */
  shiftFinished(): Sequence<Id> | undefined;
  outputTokensOf(sequence: Sequence<Id>): number;
  /** Tokens whose keys and values are stored: the last output token's follow in the next step. */
  storedTokensOf(sequence: Sequence<Id>): number;
}

export function createDecodeSet<Id>(): DecodeSet<Id> {
  const sequences: Sequence<Id>[] = [];
  const nextToFinish = createIndexedHeap<Sequence<Id>>((a, b) => a.finishStep < b.finishStep);
  /** Steps run since the start. */
  let steps = 0;
  let contextTokens = 0;
  /** How many sequences begin a KV block in a step that has this number modulo 16. */
  const blockBegins = new Int32Array(KV_BLOCK_TOKENS);

  /** Those steps whose new token is the first of its block. */
  function beginSlot({ contextBase }: Sequence<Id>): number {
    return (1 - contextBase) & (KV_BLOCK_TOKENS - 1);
  }
  function remove(sequence: Sequence<Id>): void {
    const last = sequences.pop() as Sequence<Id>;
    if (last !== sequence) {
      sequences[sequence.decodingSlot] = last;
      last.decodingSlot = sequence.decodingSlot;
    }
    nextToFinish.remove(sequence);
    contextTokens -= sequence.contextBase + steps;
    (blockBegins[beginSlot(sequence)] as number)--;
  }
  function blocksFor(ahead: number): number {
    let blocks = Math.floor(ahead / KV_BLOCK_TOKENS) * sequences.length;
    for (let step = steps; step < steps + (ahead % KV_BLOCK_TOKENS); step++) blocks += blockBegins[step % KV_BLOCK_TOKENS] as number;
    return blocks;
  }

  return {
    sequences,
    contextTokens: () => contextTokens,
    add: (sequence, outputTokens) => {
      sequence.contextBase = sequence.promptTokens + outputTokens - steps;
      sequence.outputBase = outputTokens - steps;
      sequence.finishStep = steps + sequence.outputTokens - outputTokens;
      sequence.decodingSlot = sequences.length;
      sequences.push(sequence);
      nextToFinish.push(sequence);
      contextTokens += sequence.contextBase + steps;
      (blockBegins[beginSlot(sequence)] as number)++;
    },
    remove,
    advance: (count) => {
      steps += count;
      contextTokens += sequences.length * count;
    },
    blocksFor,
    stepsWithin: (blocks) => {
      // Whole turns of 16 steps take one block per sequence; what is left over is counted.
      let ahead = Math.floor(blocks / sequences.length) * KV_BLOCK_TOKENS;
      while (blocksFor(ahead + 1) <= blocks) ahead++;
      return ahead;
    },
    stepsToFinish: () => (nextToFinish.first()?.finishStep ?? Infinity) - steps,
    shiftFinished: () => {
      const next = nextToFinish.first();
      if (next === undefined || next.finishStep > steps) return undefined;
      remove(next);
      return next;
    },
    outputTokensOf: (sequence) => sequence.outputBase + steps,
    storedTokensOf: (sequence) => sequence.contextBase + steps - 1,
  };
}
