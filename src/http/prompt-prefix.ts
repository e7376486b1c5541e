// How a prompt begins, as hashes of its text in the order in which chat templates write it: tools, instructions, messages.
// Only what is hashed is bounded; a long prompt's end does not decide where it goes.
import type { PromptPrefix } from '../core/job.ts';
import type { Endpoint } from './endpoints.ts';

/** Bytes of a block: some hundred tokens, as much as servers keep in a handful of cache blocks. */
const BLOCK_BYTES = 512;
/** 256 KB of text, some 65,000 tokens; where more than that is alike, that much decides. */
const BLOCKS_MAX = 512;
/** As which a token id is written. */
const TOKEN_BYTES = 4;
/** Of what is no text (an image, a file) only its ends are looked at; it may be megabytes. */
const OPAQUE_CHARACTERS = 256;
/** Bodies come from outside; as deep as their size is measured. */
const DEPTH_MAX = 5;

type Json = Readonly<Record<string, unknown>>;

/**
 * `null` where the endpoint has no prompt that a server would keep, it is shorter than a block, or there are several. Prompts with
 * different seeds never begin alike. `tools`: as they are written into the prompt.
 *
 * Each block's hash has 32 bits and is on top of those before it. Of a hundred thousand blocks one in forty thousand new ones looks
 * like one of them: such a prompt goes where it has nothing cached, once, and nobody sees anything of another's.
 */
export function promptPrefix(endpoint: Endpoint, json: Json, size: { readonly promptBytes: number; readonly promptTokens: number | null }, tools: string | null, seed: string): PromptPrefix | null {
  const beginning = createBeginning();
  if (tools !== null) beginning.text(tools);
  switch (endpoint) {
    case 'chat':
      addText(beginning, json['messages']);
      break;
    case 'responses':
      // What it goes on from is kept by the server; its name stands for it.
      beginning.text(shown(json['previous_response_id']));
      addText(beginning, json['instructions']);
      addText(beginning, json['input']);
      break;
    case 'messages':
      addText(beginning, json['system']);
      addText(beginning, json['messages']);
      break;
    case 'completions':
      if (!addPrompt(beginning, json['prompt'])) return null;
      break;
    default:
      return null;
  }
  const blocks = beginning.blocks(`${seed}\n${shown(json['cache_salt'])}\n${shown(json['prompt_cache_key'])}`);
  return blocks.length === 0 ? null : { blocks, blockShare: Math.min(1, BLOCK_BYTES / (size.promptTokens === null ? size.promptBytes : size.promptTokens * TOKEN_BYTES)) };
}

/** A prompt's beginning, written out as bytes until there are enough of them. */
interface Beginning {
  text(text: string): void;
  /** Between two texts, so that where one ends is told apart. */
  mark(what: number): void;
  tokens(ids: readonly unknown[]): void;
  blocks(seed: string): readonly number[];
}

/** One for all: prompts are read one at a time, and hashing words of bytes takes a quarter of the time that characters would. */
const SCRATCH = Buffer.alloc(BLOCKS_MAX * BLOCK_BYTES);
const WORDS = new Int32Array(SCRATCH.buffer, SCRATCH.byteOffset, SCRATCH.length / 4);
const BLOCK_WORDS = BLOCK_BYTES / 4;

function createBeginning(): Beginning {
  let filled = 0;
  return {
    text(text) {
      if (filled < SCRATCH.length) filled += SCRATCH.write(text, filled);
    },
    mark(what) {
      if (filled < SCRATCH.length) SCRATCH[filled++] = what;
    },
    tokens(ids) {
      for (let index = 0; index < ids.length && filled + TOKEN_BYTES <= SCRATCH.length; index++) filled = SCRATCH.writeInt32LE(Number(ids[index]) | 0, filled);
    },
    blocks: (seed) => blockHashes(Math.floor(filled / BLOCK_BYTES), seed),
  };
}

function blockHashes(count: number, seed: string): readonly number[] {
  const blocks: number[] = [];
  let hash = HASH_START;
  for (let index = 0; index < seed.length; index++) hash = mixed(hash, seed.charCodeAt(index));
  for (let block = 0; block < count; block++) {
    for (let word = block * BLOCK_WORDS; word < (block + 1) * BLOCK_WORDS; word++) hash = mixed(hash, WORDS[word] as number);
    // Signed, so that it is a small integer to V8 and not a number on its heap.
    blocks.push(hash | 0);
  }
  return blocks;
}

const HASH_START = 0x811c9dc5;

/** FNV-1a's step on a word, with a fold, since a multiplication carries nothing downwards; 2^32 over the golden ratio as multiplier (Knuth). */
function mixed(hash: number, word: number): number {
  const product = Math.imul(hash ^ word, 0x9e3779b1);
  return product ^ (product >>> 15);
}

/** Bytes that UTF-8 never has. */
const MARK = { text: 0xf8, message: 0xf9, opaque: 0xfa };

/** A string, a message, a content part, or a list of any of them: the same that count for the prompt's size, in their order. */
function addText(beginning: Beginning, value: unknown, depth = 0): void {
  if (typeof value === 'string') {
    beginning.mark(MARK.text);
    beginning.text(value);
    return;
  }
  if (depth > DEPTH_MAX || typeof value !== 'object' || value === null) return;
  if (Array.isArray(value)) {
    for (const item of value) addText(beginning, item, depth + 1);
    return;
  }
  const { role, name, content, text, arguments: toolArguments, tool_calls: toolCalls, function: call, output, image_url: image, source, input_audio: audio, file } = value as Json;
  if (typeof role === 'string') {
    beginning.mark(MARK.message);
    beginning.text(role);
  }
  for (const part of [name, content, text, toolArguments, toolCalls, call, output]) if (part !== undefined) addText(beginning, part, depth + 1);
  for (const part of [image, source, audio, file]) if (part !== undefined) addOpaque(beginning, part);
}

/** An address or what stands in for one; two pictures that differ only in their middle are taken for one, and are no worse for it. */
function addOpaque(beginning: Beginning, value: unknown): void {
  const strings = typeof value === 'object' && value !== null ? Object.values(value) : [value];
  for (const text of strings) {
    if (typeof text !== 'string') continue;
    beginning.mark(MARK.opaque);
    beginning.text(`${text.length} ${text.length <= OPAQUE_CHARACTERS ? text : text.slice(0, OPAQUE_CHARACTERS / 2) + text.slice(-OPAQUE_CHARACTERS / 2)}`);
  }
}

/** One text or one list of token ids; several prompts in one request begin each in its own way. */
function addPrompt(beginning: Beginning, prompt: unknown): boolean {
  const only: unknown = Array.isArray(prompt) && prompt.length === 1 && typeof prompt[0] !== 'number' ? prompt[0] : prompt;
  if (typeof only === 'string') addText(beginning, only);
  else if (Array.isArray(only) && typeof only[0] === 'number') beginning.tokens(only);
  else return false;
  return true;
}

/** What is no text is left for the server to refuse. */
function shown(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, 256) : '';
}
