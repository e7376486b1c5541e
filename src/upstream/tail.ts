// The last bytes of an answer that is not a stream: `usage` stands at its end, after choices or embeddings.

/** Kept per answer in flight. Usage is a few hundred bytes; what may follow it (service tier, timings) is small too. */
export const TAIL_BYTES_MAX = 65_536;

export interface Tail {
  push(chunk: Buffer): void;
  bytes(): Buffer;
}

export function createTail(): Tail {
  const chunks: Buffer[] = [];
  let total = 0;
  return {
    push: (chunk) => {
      chunks.push(chunk);
      total += chunk.length;
      while (total - (chunks[0]?.length ?? 0) >= TAIL_BYTES_MAX) total -= chunks.shift()?.length ?? 0;
    },
    bytes: () => {
      const all = chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
      return all.subarray(Math.max(0, all.length - TAIL_BYTES_MAX));
    },
  };
}
