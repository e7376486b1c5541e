import { expect, test } from 'vitest';
import { outputLength } from '../../src/engine/output-length.ts';
import { createRandom } from '../../src/random/random.ts';

const OPEN = { maxTokens: null, minTokens: 0, ignoreEos: false, naturalTokens: null };

test.each([
  { asked: { naturalTokens: 40 }, tokens: 40, finishReason: 'stop' },
  { asked: { naturalTokens: 40, maxTokens: 30 }, tokens: 30, finishReason: 'length' },
  { asked: { naturalTokens: 40, maxTokens: 40 }, tokens: 40, finishReason: 'length' },
  { asked: { naturalTokens: 40, minTokens: 60 }, tokens: 60, finishReason: 'stop' },
  { asked: { naturalTokens: 40, minTokens: 60, maxTokens: 50 }, tokens: 50, finishReason: 'length' },
  { asked: { naturalTokens: 40, maxTokens: 500, ignoreEos: true }, tokens: 500, finishReason: 'length' },
  { asked: { naturalTokens: 5000 }, tokens: 1000, finishReason: 'length' },
])('$asked gives $tokens tokens, finished by $finishReason', ({ asked, tokens, finishReason }) => {
  expect(outputLength({ ...OPEN, ...asked }, 1000, createRandom(1, 'test'))).toEqual({ tokens, finishReason });
});

test('lengths that nobody asked for have a median near 150', () => {
  const random = createRandom(5, 'test');
  const lengths = Array.from({ length: 4001 }, () => outputLength(OPEN, 1_000_000, random).tokens).sort((a, b) => a - b);
  expect(lengths[2000]).toBeGreaterThan(140);
  expect(lengths[2000]).toBeLessThan(160);
  expect(lengths[0]).toBeGreaterThanOrEqual(1);
});
