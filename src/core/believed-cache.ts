// Which beginnings of prompts does one replica have in its cache? What we believe of it: what was sent there, the least
// lately used forgotten first, up to what its memory holds. The server's own answer corrects it (`prefix-affinity.ts`).

export interface BelievedCache {
  /** How many of the leading blocks are believed to be there. */
  hits(blocks: readonly number[]): number;
  /** All of them are there now, of so many tokens each. */
  keep(blocks: readonly number[], tokensEach: number): void;
  /** Those from the `from`-th on are not there. */
  drop(blocks: readonly number[], from: number): void;
  /** It holds so many tokens from now on. */
  resize(capacityTokens: number): void;
  clear(): void;
  size(): number;
}

export function createBelievedCache(capacityMaxTokens: number, entriesMax: number): BelievedCache {
  /** From a block's hash to its tokens, the least lately used first. */
  const entries = new Map<number, number>();
  let capacityTokens = capacityMaxTokens;
  let tokens = 0;

  function forget(hash: number): void {
    tokens -= entries.get(hash) ?? 0;
    entries.delete(hash);
  }

  function evict(): void {
    if (tokens <= capacityTokens && entries.size <= entriesMax) return;
    for (const hash of entries.keys()) {
      forget(hash);
      if (tokens <= capacityTokens && entries.size <= entriesMax) return;
    }
  }

  return {
    hits(blocks) {
      // A block is never kept longer than those before it, so that those that are there come before those that are not.
      let there = 0;
      let end = blocks.length;
      while (there < end) {
        const middle = (there + end) >>> 1;
        if (entries.has(blocks[middle] as number)) there = middle + 1;
        else end = middle;
      }
      return there;
    },
    keep(blocks, tokensEach) {
      // From the tail, so that beginnings, which more prompts share, stay longest; servers do it alike.
      for (let index = blocks.length - 1; index >= 0; index--) {
        const hash = blocks[index] as number;
        forget(hash);
        entries.set(hash, tokensEach);
        tokens += tokensEach;
      }
      evict();
    },
    drop(blocks, from) {
      for (let index = from; index < blocks.length; index++) forget(blocks[index] as number);
    },
    resize(toTokens) {
      capacityTokens = Math.min(capacityMaxTokens, toTokens);
      evict();
    },
    clear() {
      entries.clear();
      tokens = 0;
    },
    size: () => entries.size,
  };
}
