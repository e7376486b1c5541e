// Real servers' answers, cut at every byte: what is read from them never depends on where a network cuts them.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createSseScanner } from '../../src/upstream/sse-scanner.ts';
import { createTail } from '../../src/upstream/tail.ts';
import { usageIn } from '../../src/upstream/usage.ts';
import type { CorpusItem } from '../fixtures/corpus/corpus.ts';
import { CORPUS, HUGE_STREAM } from '../fixtures/corpus/corpus.ts';

const SEED = 20_261_126;
const ALL = [...CORPUS, HUGE_STREAM];
const STREAMS = ALL.filter(({ kind }) => kind === 'stream');

interface Reading {
  readonly outputEvents: number;
  readonly usage: CorpusItem['usage'];
  readonly errorInside: boolean;
  readonly endsWhole: boolean;
}

function readingOf({ kind }: CorpusItem, chunks: Iterable<Buffer>): Reading {
  if (kind === 'document') {
    const tail = createTail();
    for (const chunk of chunks) tail.push(chunk);
    return { outputEvents: 0, usage: usageIn(tail.bytes()), errorInside: false, endsWhole: true };
  }
  const scanner = createSseScanner();
  let outputEvents = 0;
  for (const chunk of chunks) outputEvents += scanner.push(chunk);
  return { outputEvents, usage: scanner.usage(), errorInside: scanner.failed(), endsWhole: scanner.atBoundary() };
}

function wanted({ outputEvents, usage, errorInside, endsWhole }: CorpusItem): Reading {
  return { outputEvents, usage, errorInside, endsWhole };
}

/** Every position; of the huge one, those where a line begins or ends, or is about to be too long, and some of the others. */
function cutsOf({ bytes }: CorpusItem): number[] {
  const near = (at: number): boolean => at < 2_000 || at > bytes.length - 2_000 || Math.abs((at % 131_072) - 65_536) > 65_500;
  return Array.from({ length: bytes.length + 1 }, (_, at) => at).filter((at) => bytes.length < 20_000 || (near(at) ? at % 7 === 0 : at % 20_011 === 0));
}

test.each(ALL)('$name says what its server meant', (item) => {
  expect(readingOf(item, [item.bytes])).toEqual(wanted(item));
});

test.each(ALL)('$name says the same wherever it is cut in two', (item) => {
  const whole = JSON.stringify(readingOf(item, [item.bytes]));
  const different = cutsOf(item).filter((at) => JSON.stringify(readingOf(item, [item.bytes.subarray(0, at), item.bytes.subarray(at)])) !== whole);
  expect(different).toEqual([]);
});

test.each(ALL.filter(({ bytes }) => bytes.length < 20_000))('$name says the same when every byte comes alone', (item) => {
  expect(readingOf(item, piecesOf(item.bytes, [1]))).toEqual(readingOf(item, [item.bytes]));
});

test('events are counted when they end, no later and no earlier', () => {
  for (const item of STREAMS.filter(({ bytes }) => bytes.length < 20_000)) {
    const scanner = createSseScanner();
    let counted = 0;
    for (let at = 0; at < item.bytes.length; at++) {
      const now = scanner.push(item.bytes.subarray(at, at + 1));
      counted += now;
      expect(now).toBeLessThanOrEqual(1);
      // A line end is the only byte that can end an event.
      if (now === 1) expect([0x0a, 0x0d]).toContain(item.bytes[at]);
    }
    expect(counted).toBe(item.outputEvents);
  }
});

const sizes = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 400 })), { minLength: 1, maxLength: 60 }).filter((all) => all.some((size) => size > 0));

test('however often an answer is cut, and with nothing in between, the same is read from it', () => {
  fc.assert(
    fc.property(fc.constantFrom(...CORPUS), sizes, (item, pieceSizes) => {
      expect(readingOf(item, piecesOf(item.bytes, pieceSizes))).toEqual(readingOf(item, [item.bytes]));
    }),
    { seed: SEED, numRuns: 3_000 },
  );
});

test('answers that stand in one stream behind each other are read as their sum, however they are cut', () => {
  // A byte order mark is one at the start of a stream alone.
  const whole = CORPUS.filter(({ name, kind, endsWhole }) => kind === 'stream' && endsWhole && name !== 'edge-bom.sse');
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...whole), { minLength: 1, maxLength: 5 }), sizes, (items, pieceSizes) => {
      // A comment between them: of lines with output the last before another kind of line tells the usage.
      const bytes = Buffer.concat(items.flatMap((item) => [item.bytes, Buffer.from(': next\n\n')]));
      const reading = readingOf(items[0] as CorpusItem, piecesOf(bytes, pieceSizes));
      expect(reading).toEqual({
        outputEvents: items.reduce((sum, { outputEvents }) => sum + outputEvents, 0),
        usage: items.findLast(({ usage }) => usage !== null)?.usage ?? null,
        errorInside: items.some(({ errorInside }) => errorInside),
        endsWhole: true,
      });
    }),
    { seed: SEED, numRuns: 1_000 },
  );
});

/** In pieces of these sizes, again and again. */
function piecesOf(bytes: Buffer, pieceSizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0, index = 0; at < bytes.length; index++) {
    const size = pieceSizes[index % pieceSizes.length] as number;
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

/** What goes on to a client that did not ask for usage. */
function passedOf(chunks: Iterable<Buffer>): string {
  const scanner = createSseScanner({ hideUsage: true });
  const out: Buffer[] = [];
  for (const chunk of chunks) {
    scanner.push(chunk);
    out.push(Buffer.from(scanner.passed()));
  }
  return Buffer.concat([...out, scanner.rest()]).toString('latin1');
}

test.each(STREAMS)('of $name the same is taken out wherever it is cut', (item) => {
  const whole = passedOf([item.bytes]);
  const text = item.bytes.toString('latin1');
  // One event less, or none: the one that has no choices and tells of usage.
  const events = text.split(/(?<=\n\n|\r\n\r\n|\r\r|\n\r\n|\r\n\n)/);
  // Over several data lines it is neither read nor taken out. Comments before it have gone on.
  const kept = events.map((event) => (/^data:.*"choices": ?\[ ?\].*"usage": ?\{/m.test(event) ? (/^(:[^\r\n]*(\r\n|\n|\r))*/.exec(event)?.[0] ?? '') : event));
  expect(whole).toBe(kept.join(''));
  const different = cutsOf(item).filter((at) => passedOf([item.bytes.subarray(0, at), item.bytes.subarray(at)]) !== whole);
  expect(different).toEqual([]);
  if (item.bytes.length < 20_000) expect(passedOf(piecesOf(item.bytes, [1]))).toBe(whole);
});
