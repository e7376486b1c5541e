// The emulator's tokenizer and its words: how many tokens a prompt has, which prefix blocks, and what the answer says. Not
// a real tokenizer on purpose: a rule of one line that a test can count by hand.
import { KV_BLOCK_TOKENS } from './kv-cache.ts';

/** A word up to this long is one token, a longer one a token per `LONG_WORD_TOKEN_BYTES`. */
const SHORT_WORD_BYTES_MAX = 12;
const LONG_WORD_TOKEN_BYTES = 4;
/** Role and separators, which a chat template adds to every message. */
export const TOKENS_PER_MESSAGE = 4;

/** A prompt, read piece by piece. */
export interface PromptReader {
  addText(text: string): void;
  /** Before each chat message. */
  startMessage(role: string): void;
  addTokenIds(tokenIds: readonly number[]): void;
  tokens(): number;
  /** One chained hash per full KV block: equal up to n means equal in the first 16·n tokens. */
  prefixBlocks(): readonly number[];
}

/** FNV-1a (Fowler, Noll, Vo), 32 bits. */
const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;
/** A second chain with another start and the multiplier of MurmurHash3, because 32 bits alone would collide in long runs. */
const SECOND_OFFSET = 0x9747b28c;
const SECOND_PRIME = 0xcc9e2d51;

export function createPromptReader(): PromptReader {
  let tokens = 0;
  let first = FNV_OFFSET;
  let second = SECOND_OFFSET;
  const prefixBlocks: number[] = [];

  function addToken(hash: number): void {
    first = Math.imul(first ^ hash, FNV_PRIME);
    second = Math.imul(second ^ hash ^ (second >>> 15), SECOND_PRIME);
    tokens++;
    // 32 bits of one chain and 20 of the other: whole numbers of 52 bits make fast keys.
    if (tokens % KV_BLOCK_TOKENS === 0) prefixBlocks.push((first >>> 0) * 2 ** 20 + (second >>> 12));
  }
  function addWord(hash: number, bytes: number): void {
    const count = bytes <= SHORT_WORD_BYTES_MAX ? 1 : Math.ceil(bytes / LONG_WORD_TOKEN_BYTES);
    for (let index = 0; index < count; index++) addToken(hash + index);
  }
  function addText(text: string): void {
    let hash = FNV_OFFSET;
    let bytes = 0;
    for (let index = 0; index < text.length; index++) {
      const code = text.charCodeAt(index);
      if (code === 32 || (code >= 9 && code <= 13)) {
        if (bytes > 0) addWord(hash, bytes);
        hash = FNV_OFFSET;
        bytes = 0;
      } else {
        hash = Math.imul(hash ^ code, FNV_PRIME);
        bytes += utf8Bytes(code);
      }
    }
    if (bytes > 0) addWord(hash, bytes);
  }

  return {
    addText,
    startMessage: (role) => {
      let hash = SECOND_OFFSET;
      for (let index = 0; index < role.length; index++) hash = Math.imul(hash ^ role.charCodeAt(index), FNV_PRIME);
      for (let index = 0; index < TOKENS_PER_MESSAGE; index++) addToken(hash + index);
    },
    addTokenIds: (tokenIds) => {
      for (const tokenId of tokenIds) addToken(tokenId);
    },
    tokens: () => tokens,
    prefixBlocks: () => prefixBlocks,
  };
}

/** Of one UTF-16 unit; the two of a surrogate pair make four together. */
function utf8Bytes(code: number): number {
  if (code < 0x80) return 1;
  if (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)) return 2;
  return 3;
}

const WORDS = 'a the time model power clock deadline slack energy token prompt stream queue runs waits ends fast slow just in before after every watt joule second answer finds keeps gives takes more less than when then and or of to with'.split(' ');

/** The answer's token at `index` (0 is the first), its leading space included; the same for the same `seed`. */
export function answerToken(seed: number, index: number): string {
  let mixed = Math.imul(seed ^ Math.imul(index + 1, 0x9e3779b1), 0x85ebca6b);
  mixed ^= mixed >>> 13;
  const word = WORDS[(mixed >>> 0) % WORDS.length] as string;
  return index === 0 ? word : ` ${word}`;
}

export function answerText(seed: number, tokens: number): string {
  let text = '';
  for (let index = 0; index < tokens; index++) text += answerToken(seed, index);
  return text;
}
