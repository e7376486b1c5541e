import { expect, test } from 'vitest';
import { answerText, answerToken, createPromptReader } from '../../src/engine/text.ts';

function tokensOf(text: string): number {
  const reader = createPromptReader();
  reader.addText(text);
  return reader.tokens();
}

test.each([
  { text: '', tokens: 0 },
  { text: '  \n\t ', tokens: 0 },
  { text: 'one two\nthree', tokens: 3 },
  { text: 'abcdefghijkl', tokens: 1 },
  { text: 'abcdefghijklm', tokens: 4 },
  { text: 'äöüäöü', tokens: 1 },
  { text: 'äöüäöüx', tokens: 4 },
  { text: '漢字漢字漢', tokens: 4 },
  { text: '😀😀😀😀', tokens: 4 },
])('"$text" has $tokens tokens', ({ text, tokens }) => {
  expect(tokensOf(text)).toBe(tokens);
});

test('an answer has as many tokens when it comes back as a prompt', () => {
  const text = answerText(12_345, 500);
  expect(tokensOf(text)).toBe(500);
  expect(text).toBe(Array.from({ length: 500 }, (_, index) => answerToken(12_345, index)).join(''));
});

test('prompts have the same hashes exactly as far as they are the same in full blocks', () => {
  const words = Array.from({ length: 100 }, (_, index) => `w${index}`);
  const blocks = (changedAt: number): readonly number[] => {
    const reader = createPromptReader();
    reader.startMessage('user');
    reader.addText(words.map((word, index) => (index === changedAt ? 'other' : word)).join(' '));
    return reader.prefixBlocks();
  };
  expect(blocks(-1)).toHaveLength(6);
  const same = blocks(50).map((hash, index) => hash === blocks(-1)[index]);
  expect(same).toEqual([true, true, true, false, false, false]);
});

test('token ids are hashed like tokens', () => {
  const blocks = (last: number): readonly number[] => {
    const reader = createPromptReader();
    reader.addTokenIds([...Array.from({ length: 31 }, (_, index) => index), last]);
    return reader.prefixBlocks();
  };
  expect(blocks(1)[0]).toBe(blocks(2)[0]);
  expect(blocks(1)[1]).not.toBe(blocks(2)[1]);
});
