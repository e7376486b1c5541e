// Answers from which something else is read than their server meant. These tests fail until that is mended; an item
// leaves this file when its `open` in corpus.ts is taken away.
import { expect, test } from 'vitest';
import { createSseScanner } from '../../src/upstream/sse-scanner.ts';
import { usageIn } from '../../src/upstream/usage.ts';
import { CORPUS } from '../fixtures/corpus/corpus.ts';

const open = CORPUS.filter((item) => item.open !== null);

test.each(open.filter(({ kind }) => kind === 'stream'))('$name says what its server meant ($open)', ({ bytes, outputEvents, usage, errorInside }) => {
  const scanner = createSseScanner();
  expect({ outputEvents: scanner.push(bytes), usage: scanner.usage(), errorInside: scanner.failed() }).toEqual({ outputEvents, usage, errorInside });
});

test.each(open.filter(({ kind }) => kind === 'document'))('$name says what its server meant ($open)', ({ bytes, usage }) => {
  expect(usageIn(bytes)).toEqual(usage);
});
