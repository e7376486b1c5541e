// Prompts of a wanted length: common short English words, nearly all of them one token with the space before it.
import { PREFIX_BLOCK_TOKENS } from '../workload/prefix-block.ts';
import { createRandom, mix32 } from '../random/random.ts';
import type { WorkloadRequest } from '../workload/request.ts';

// 256, so that a byte is a word: the first words of a prompt spell its number.
const WORDS = (
  'the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not what all were we when your can said there ' +
  'use an each which she do how their if will up other about out many then them these so some her would make like him into time has look two more write go see ' +
  'number no way could people my than first water been call who oil its now find long down day did get come made may part over new sound take only little work ' +
  'know place year live me back give most very after thing our just name good sentence man think say great where help through much before line right too mean ' +
  'old any same tell boy follow came want show also around form three small set put end does another well large must big even such because turn here why ask ' +
  'went men read need land different home us move try kind hand picture again change off play spell air away animal house point page letter mother answer found ' +
  'study still learn should world high every near add food between own below country plant last school father keep tree never start city earth eye light ' +
  'thought head under story saw left few while along might close something seem next hard open example begin life always those both paper together got group often run ' +
  'river car feet care second eat face watch far let'
).split(' ');

const RING_WORDS = 8192;
const NUMBER_WORDS = 4;

export interface PromptText {
  /** Equal arguments give equal text; requests share the text of their leading equal blocks and nothing else. */
  readonly of: (request: WorkloadRequest, index: number) => string;
}

/**
 * `salt` chooses the words, never their number. Two runs on one server want different ones: the second would otherwise
 * find its whole prompts in the prefix cache that the first one filled, and look better than it is.
 */
export function createPromptText(salt: number): PromptText {
  const random = createRandom(salt, 'prompt-words');
  const ring = Array.from({ length: RING_WORDS }, () => WORDS[Math.floor(random() * WORDS.length)] ?? 'the');
  const ringText = `${ring.join(' ')} `;
  // Where each word of the ring starts, so that a piece is one slice and no loop over words.
  const startsAt = new Uint32Array(RING_WORDS + 1);
  ring.forEach((word, index) => (startsAt[index + 1] = (startsAt[index] ?? 0) + word.length + 1));

  /** `count` words that belong to `number`, each followed by a space. */
  function piece(number: number, count: number): string {
    const head = Array.from({ length: Math.min(NUMBER_WORDS, count) }, (_, index) => WORDS[(number >>> (8 * (NUMBER_WORDS - 1 - index))) & 255]);
    let text = head.length === 0 ? '' : `${head.join(' ')} `;
    let left = count - head.length;
    let from = mix32(number ^ salt) % RING_WORDS;
    while (left > 0) {
      const to = Math.min(from + left, RING_WORDS);
      text += ringText.slice(startsAt[from], startsAt[to]);
      left -= to - from;
      from = 0;
    }
    return text;
  }

  return {
    of: ({ promptTokens, prefixBlocks = [] }, index) => {
      let text = '';
      let left = promptTokens;
      for (const block of prefixBlocks) {
        if (left <= 0) break;
        text += piece(block, Math.min(PREFIX_BLOCK_TOKENS, left));
        left -= PREFIX_BLOCK_TOKENS;
      }
      // Without blocks nothing is shared: the request's own number comes first. The top bit keeps it out of the blocks' range.
      if (left > 0) text += piece((index | 0x80000000) ^ (mix32(salt) & 0x7f000000), left);
      return text.trimEnd();
    },
  };
}
