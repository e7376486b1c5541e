// The engine's KV memory: how many blocks are in use, and which prompt prefixes can be reused. Sizes only, no contents.
import assert from 'node:assert/strict';

/** vLLM's default `--block-size` on NVIDIA GPUs. */
export const KV_BLOCK_TOKENS = 16;

/**
 * Blocks are either private to a sequence or shared prefix entries. A prefix entry nobody holds stays until its room is
 * needed, the one let go longest ago first, as in vLLM's free-block queue; it counts as free.
 */
export interface KvCache {
  readonly totalBlocks: number;
  /** How many KV blocks one prefix entry covers. */
  readonly blocksPerEntry: number;
  /** Held by some sequence. */
  usedBlocks(): number;
  freeBlocks(): number;
  /** Rises whenever room or a new hit may have appeared; between equal values a prompt that did not fit still does not. */
  changes(): number;
  /** How many of the first `limit` entries are there, counted up to the first that is not. */
  leadingHits(hashes: readonly number[], limit: number): number;
  /** Free blocks that a sequence would take from others: private ones, and the idle among its first `hits` entries. */
  wouldTakeBlocks(privateBlocks: number, hashes: readonly number[], hits: number): number;
  takePrivate(blocks: number): void;
  givePrivate(blocks: number): void;
  /** Holds an entry that is there. */
  hold(hash: number): void;
  /** Turns `blocksPerEntry` private blocks of the caller into an entry it holds; where there is one already, they are given back. */
  share(hash: number): void;
  letGo(hash: number): void;
  /** Prefixes that nobody holds are gone. */
  forget(): void;
}

interface Entry {
  readonly hash: number;
  holders: number;
  /** Neighbours among the idle entries; `null` while held. */
  older: Entry | null;
  newer: Entry | null;
}

export function createKvCache({ kvTokens, entryTokens }: { readonly kvTokens: number; readonly entryTokens: number }): KvCache {
  const totalBlocks = Math.floor(kvTokens / KV_BLOCK_TOKENS);
  const blocksPerEntry = entryTokens / KV_BLOCK_TOKENS;
  if (!Number.isInteger(blocksPerEntry) || blocksPerEntry < 1) throw new RangeError(`prefix entries of ${entryTokens} tokens: want a multiple of ${KV_BLOCK_TOKENS}`);
  const entries = new Map<number, Entry>();
  let oldestIdle: Entry | null = null;
  let newestIdle: Entry | null = null;
  let idleBlocks = 0;
  let usedBlocks = 0;
  let changes = 0;

  function addIdle(entry: Entry): void {
    entry.older = newestIdle;
    entry.newer = null;
    if (newestIdle === null) oldestIdle = entry;
    else newestIdle.newer = entry;
    newestIdle = entry;
    idleBlocks += blocksPerEntry;
  }
  function removeIdle(entry: Entry): void {
    if (entry.older === null) oldestIdle = entry.newer;
    else entry.older.newer = entry.newer;
    if (entry.newer === null) newestIdle = entry.older;
    else entry.newer.older = entry.older;
    entry.older = null;
    entry.newer = null;
    idleBlocks -= blocksPerEntry;
  }
  function evict(): void {
    while (usedBlocks + idleBlocks > totalBlocks && oldestIdle !== null) {
      const entry: Entry = oldestIdle;
      removeIdle(entry);
      entries.delete(entry.hash);
    }
    assert(usedBlocks <= totalBlocks, 'nobody takes more KV blocks than are free');
  }
  function holdEntry(entry: Entry): void {
    if (entry.holders === 0) {
      removeIdle(entry);
      usedBlocks += blocksPerEntry;
    }
    entry.holders++;
  }

  return {
    totalBlocks,
    blocksPerEntry,
    usedBlocks: () => usedBlocks,
    freeBlocks: () => totalBlocks - usedBlocks,
    changes: () => changes,
    leadingHits: (hashes, limit) => {
      let hits = 0;
      while (hits < limit && entries.has(hashes[hits] as number)) hits++;
      return hits;
    },
    wouldTakeBlocks: (privateBlocks, hashes, hits) => {
      let blocks = privateBlocks;
      for (let index = 0; index < hits; index++) if (entries.get(hashes[index] as number)?.holders === 0) blocks += blocksPerEntry;
      return blocks;
    },
    takePrivate: (blocks) => {
      usedBlocks += blocks;
      evict();
    },
    givePrivate: (blocks) => {
      usedBlocks -= blocks;
      changes++;
    },
    hold: (hash) => {
      const entry = entries.get(hash);
      assert(entry !== undefined, 'only what leadingHits saw is held');
      holdEntry(entry);
    },
    share: (hash) => {
      changes++;
      const entry = entries.get(hash);
      if (entry === undefined) {
        entries.set(hash, { hash, holders: 1, older: null, newer: null });
        return;
      }
      usedBlocks -= blocksPerEntry;
      holdEntry(entry);
    },
    letGo: (hash) => {
      const entry = entries.get(hash);
      assert(entry !== undefined && entry.holders > 0, 'only what is held is let go');
      changes++;
      entry.holders--;
      if (entry.holders > 0) return;
      usedBlocks -= blocksPerEntry;
      addIdle(entry);
    },
    forget: () => {
      while (oldestIdle !== null) {
        const entry: Entry = oldestIdle;
        removeIdle(entry);
        entries.delete(entry.hash);
      }
    },
  };
}
