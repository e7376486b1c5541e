// Seeded randomness for workloads, stand-ins and the simulator. Every consumer has a stream of its own, named, so that drawing
// more numbers for one purpose never shifts those of another.

/** Uniform in [0, 1), 53 bits. */
export type Random = () => number;

/**
 * The stream `name` of `seed`. Equal arguments give equal numbers on every machine and Node version.
 * Streams of one seed are independent in practice, not provably: their start states are hashes, 2^128 numbers apart at worst by luck.
 */
export function createRandom(seed: number, name: string): Random {
  let hash = 0x811c9dc5;
  // FNV-1a over the stream's name, then the seed's two halves: seeds beyond 2^32 still differ.
  for (let index = 0; index < name.length; index++) hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193);
  const next = splitmix32((hash ^ mix32(seed >>> 0) ^ mix32(Math.floor(seed / 2 ** 32) + 0x9e3779b9)) >>> 0);
  const next32 = xoshiro128starstar([next(), next(), next(), next()]);
  return () => ((next32() >>> 5) * 2 ** 26 + (next32() >>> 6)) / 2 ** 53;
}

/**
 * 32-bit numbers from a state of four words, not all zero.
 * Source: Blackman & Vigna, xoshiro128** 1.1 (public domain), https://prng.di.unimi.it/xoshiro128starstar.c
 */
export function xoshiro128starstar(state: readonly [number, number, number, number]): () => number {
  let [a, b, c, d] = state;
  return () => {
    const result = Math.imul(rotateLeft(Math.imul(b, 5), 7), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotateLeft(d, 11);
    return result;
  };
}

function rotateLeft(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

/** Weyl sequence through a mixing function, as SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) but of 32 bits: only makes start states. */
function splitmix32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    return mix32(state);
  };
}

/** MurmurHash3's 32-bit finaliser (Appleby, public domain). */
export function mix32(word: number): number {
  let mixed = word >>> 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
