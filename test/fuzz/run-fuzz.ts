// Feeds inputs to the laws until one is broken or all have passed, and watches the memory meanwhile.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { FuzzInput } from './inputs.ts';
import { inputOf } from './inputs.ts';
import type { Targets } from './laws.ts';
import { TARGETS, violationOf } from './laws.ts';

export type FuzzResult =
  | { readonly kind: 'held'; readonly inputs: number; readonly bytes: number; readonly heap: HeapReading }
  | { readonly kind: 'violated'; readonly index: number; readonly input: FuzzInput; readonly shortest: FuzzInput; readonly violation: string }
  | { readonly kind: 'grew'; readonly what: string; readonly keptBytes: number; readonly keptBytesMax: number };

export interface HeapReading {
  /** After the first tenth of the inputs and after all of them, garbage collected. */
  readonly earlyBytes: number;
  readonly lateBytes: number;
}

/** Compiled code and its feedback grow for a while; a leak of one small object per input would be ten times that. */
const GROWTH_BYTES_MAX = 16 * 1_048_576;
const SHRINK_TRIES_MAX = 4_000;

export function runFuzz({ inputs, seed, from = 0, targets = TARGETS }: { readonly inputs: number; readonly seed: number; readonly from?: number; readonly targets?: Targets }): FuzzResult {
  let bytes = 0;
  let earlyBytes = 0;
  for (let index = from; index < from + inputs; index++) {
    const input = inputOf(seed, index);
    bytes += input.bytes.length;
    const violation = violationOf(input, targets);
    if (violation !== null) return { kind: 'violated', index, input, shortest: shortened(input, targets), violation };
    if (index - from === Math.floor(inputs / 10)) earlyBytes = heapBytes();
  }
  const lateBytes = heapBytes();
  if (lateBytes - earlyBytes > GROWTH_BYTES_MAX) return { kind: 'grew', what: `${inputs} inputs`, keptBytes: lateBytes - earlyBytes, keptBytesMax: GROWTH_BYTES_MAX };
  return { kind: 'held', inputs, bytes, heap: { earlyBytes, lateBytes } };
}

/** Parts are left out as long as some law is still broken. */
function shortened(input: FuzzInput, targets: Targets): FuzzInput {
  let shortest = input;
  let tries = 0;
  for (let size = Math.ceil(input.bytes.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < shortest.bytes.length && tries < SHRINK_TRIES_MAX; tries++) {
      const bytes = Buffer.concat([shortest.bytes.subarray(0, at), shortest.bytes.subarray(at + size)]);
      const cuts = shortest.cuts.map((cut) => (cut <= at ? cut : Math.max(at, cut - size))).map((cut) => Math.min(cut, bytes.length));
      if (violationOf({ ...shortest, bytes, cuts }, targets) === null) at += size;
      else shortest = { ...shortest, bytes, cuts };
    }
  }
  return shortest;
}

interface Endless {
  readonly what: string;
  readonly piece: Buffer;
  readonly times: number;
  readonly keptBytesMax: number;
}

/** One line of 256 KB may be kept, and what stands around it; in single bytes each of them is an object of its own. */
const LINE_KEPT_BYTES_MAX = 2 * 1_048_576;
const SINGLE_BYTES_KEPT_MAX = 64 * 1_048_576;
const ENDLESS: readonly Endless[] = [
  { what: 'a line without end', piece: Buffer.from('x'.repeat(65_536)), times: 400, keptBytesMax: LINE_KEPT_BYTES_MAX },
  { what: 'a line of output without end', piece: Buffer.from(`data: {"content":"${'x'.repeat(8_000)}`), times: 3_000, keptBytesMax: LINE_KEPT_BYTES_MAX },
  { what: 'a line without end in single bytes', piece: Buffer.from('x'), times: 600_000, keptBytesMax: SINGLE_BYTES_KEPT_MAX },
  { what: 'a comment without end', piece: Buffer.from(`: ${'x'.repeat(30_000)}`), times: 1_000, keptBytesMax: LINE_KEPT_BYTES_MAX },
  { what: 'an event without end', piece: Buffer.from('data: {"content":"x"}\n'.repeat(1_000)), times: 500, keptBytesMax: LINE_KEPT_BYTES_MAX },
  { what: 'blank lines', piece: Buffer.from('\r\n\n\r'.repeat(10_000)), times: 500, keptBytesMax: LINE_KEPT_BYTES_MAX },
];

/** Streams of tens of megabytes that never come to the point: little of them may be kept. `null` where that is so. */
export function feedEndless(targets: Pick<Targets, 'createSseScanner'> = TARGETS): Extract<FuzzResult, { kind: 'grew' }> | null {
  for (const { what, piece, times, keptBytesMax } of ENDLESS) {
    const before = heapBytes();
    const scanner = targets.createSseScanner();
    // Copied, as pieces from a socket are: what keeps a piece keeps its memory.
    for (let time = 0; time < times; time++) scanner.push(Buffer.from(piece));
    const keptBytes = heapBytes() - before;
    scanner.push(Buffer.from('\n'));
    if (keptBytes > keptBytesMax) return { kind: 'grew', what, keptBytes, keptBytesMax };
  }
  return null;
}

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Objects, and the bytes of buffers outside of them. Twice, for the first time leaves what it has yet to sweep. */
function heapBytes(): number {
  collectGarbage();
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
