// Inputs for the fuzzer: pieces of the corpus, cut, spliced and spoilt, and request bodies that are. One (seed, index) gives
// one input, so that a bad one can be made again alone.
import { CORPUS } from '../fixtures/corpus/corpus.ts';
import type { Endpoint } from '../../src/http/endpoints.ts';
import { ENDPOINTS as ROUTES } from '../../src/http/endpoints.ts';
import type { Random } from '../../src/random/random.ts';
import { createRandom } from '../../src/random/random.ts';

export interface FuzzInput {
  readonly kind: 'answer' | 'request';
  readonly bytes: Buffer;
  /** Of a request. */
  readonly endpoint: Endpoint;
  /** Where an answer is cut, ascending; the same place twice makes an empty piece. */
  readonly cuts: readonly number[];
}

const BYTES_MAX = 900;
const ENDPOINTS: readonly Endpoint[] = [...new Set(ROUTES.values())];
const ANSWERS = CORPUS.map(({ bytes }) => bytes).filter(({ length }) => length > 0);

/** What a reader of answers looks for, and what could fool it. */
const ANSWER_WORDS = [
  'data:', 'data: ', 'data', 'event: response.output_text.delta\n', 'event: response.completed\r\n', 'event:error\n', ': ', 'id: 1\n', '\n', '\r', '\r\n', '\n\n', '\r\r', '\r\n\r\n', '\uFEFF', '\u2028', '\0',
  '[DONE]', '{"error":', '{ "error" : ', '"content":', '"content": "', '"text":"x"', '"delta":', '"arguments":""', '"usage":', '"usage" : {', '"usage":{"prompt_tokens":1}', '"usage":{"prompt_tokens":1,"completion_tokens":2}',
  '"usage":{"input_tokens":9007199254740993}', '"usage":{"prompt_tokens":1e3}', '"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":9}}', '"usage":null', '\\', '\\"', '"', '{', '}', '[', ']', ',', ':', '🛶', '\\ud83d', ' '.repeat(40),
].map((word) => Buffer.from(word));

const BODIES = [
  '{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"Tides?"},{"type":"image_url","image_url":{"url":"data:,x"}}]}],"max_completion_tokens":64,"stream":true}',
  '{ "stream" : false,\n "model" : "org/m-7b",\n "messages" : [ ],\n "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"model":{"type":"string"}}}}}] }',
  '{"model":"m","prompt":["a","b\\n"],"max_tokens":16,"logit_bias":{"50256":-100},"temperature":1.0,"seed":12345678901234567890}',
  '{"prompt":[1,2,3],"model":"m","n":-0,"stop":["\\"model\\":"]}',
  '{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"hi \\ud83d\\udef6"}]}],"instructions":"i","max_output_tokens":10,"metadata":{"model":"x"}}',
  '{"model":"m","input":[[1,2],[3]],"encoding_format":"base64","dimensions":256}',
  '{"\\u006dodel":"m","model":"n","messages":[{"role":"assistant","content":null,"tool_calls":[{"function":{"arguments":"{\\"model\\":\\"y\\"}"}}]}],"service_tier":"flex"}',
  '{"messages":[{"content":"\\\\"}],"a":{"model":"x"},"b":[{"model":"x"},"model","model"],"model":"m\\"","model":"m"}',
].map((body) => Buffer.from(body));

const BODY_WORDS = [
  '"model":"m"', '"model":', ',"model":"z"', '"\\u006d\\u006f\\u0064\\u0065\\u006c":"q"', '"__proto__":{"model":"x"}', '"constructor":1', '"model"', '{', '}', '[', ']', '[[[[', ']]]]', '{"a":', ',', ':', '"', '\\', '\\"', '\\\\', '\\u0000', '\\ud83d',
  'null', 'true', '-0', '1e400', '1e-7', '0.1', '00', '123456789012345678901234567890', '"stream":true', '"max_tokens":-1', '"max_tokens":1e3', '"max_tokens":1.5', '"service_tier":7', '"tools":[]', '"tools":{}', '"input":[[1],"a",null]', '"messages":{"content":{"content":"x"}}', ' ', '\n', '\t', '\uFEFF', 'é', '🛶',
].map((word) => Buffer.from(word));

export function inputOf(seed: number, index: number): FuzzInput {
  const random = createRandom(seed, `fuzz-${index}`);
  const kind = random() < 0.6 ? 'answer' : 'request';
  const bytes = kind === 'answer' ? answerOf(random) : requestOf(random);
  return { kind, bytes, endpoint: pick(random, ENDPOINTS), cuts: cutsOf(random, bytes.length) };
}

function answerOf(random: Random): Buffer {
  const how = random();
  if (how < 0.05) return noise(random, 1 + below(random, 200));
  if (how < 0.15) return Buffer.concat(Array.from({ length: 1 + below(random, 25) }, () => pick(random, ANSWER_WORDS)));
  const parts = Array.from({ length: how < 0.6 ? 1 : 2 + below(random, 2) }, () => slice(random, pick(random, ANSWERS), BYTES_MAX / 2));
  return mutated(random, Buffer.concat(parts), ANSWER_WORDS);
}

function requestOf(random: Random): Buffer {
  const how = random();
  if (how < 0.02) return noise(random, 1 + below(random, 60));
  if (how < 0.3) return Buffer.from(objectText(random));
  const body = pick(random, BODIES);
  if (how < 0.4) return Buffer.concat([body.subarray(0, below(random, body.length)), pick(random, BODIES)]);
  return how < 0.5 ? body : mutated(random, body, BODY_WORDS);
}

/** A well-formed object with a model in it, sometimes twice, sometimes with its key escaped. */
function objectText(random: Random): string {
  const blank = (): string => (random() < 0.15 ? pick(random, [' ', '\n', '\t', '\r\n  ']) : '');
  const string = (): string => JSON.stringify(pick(random, ['', 'model', 'm', '{"model":"x"}', '\\', '"', '\u0000', '🛶', '\ud800', 'a\nb', '}],"model":"', '\u2028']));
  const scalar = (): string => pick(random, [string(), string(), 'null', 'true', 'false', '0', '-0', '1e400', '1.50', '123456789012345678901', '1E-3']);
  const value = (depth: number): string => {
    const size = below(random, 4);
    if (depth > 3 || random() < 0.5) return scalar();
    return random() < 0.5
      ? `[${Array.from({ length: size }, () => blank() + value(depth + 1) + blank()).join(',')}]`
      : `{${Array.from({ length: size }, () => `${blank()}${key()}${blank()}:${blank()}${value(depth + 1)}`).join(',')}}`;
  };
  const key = (): string => pick(random, ['"model"', '"\\u006dodel"', '"messages"', '"prompt"', '"input"', '"tools"', '"content"', '"stream"', '"__proto__"', '""', '"max_tokens"', string()]);
  const pairs = Array.from({ length: below(random, 5) }, () => `${blank()}${key()}${blank()}:${blank()}${value(1)}${blank()}`);
  pairs.splice(below(random, pairs.length + 1), 0, `${blank()}${random() < 0.2 ? '"mode\\u006C"' : '"model"'}${blank()}:${blank()}${pick(random, ['"m"', '"m"', '"m\\n"', '"\\u006d"', '"org/🛶"'])}`);
  return `${blank()}{${pairs.join(',')}}${blank()}`;
}

function mutated(random: Random, original: Buffer, words: readonly Buffer[]): Buffer {
  let bytes: Buffer = Buffer.from(original);
  for (let turns = below(random, 5); turns > 0; turns--) {
    const at = below(random, bytes.length + 1);
    const how = below(random, 6);
    if (how === 0 && at < bytes.length) bytes[at] = below(random, 256);
    else if (how === 1) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + below(random, 30))]);
    else if (how === 2) bytes = Buffer.concat([bytes.subarray(0, at), slice(random, bytes, 60), bytes.subarray(at)]);
    else if (how === 3 && at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << below(random, 8));
    else bytes = Buffer.concat([bytes.subarray(0, at), pick(random, words), bytes.subarray(at)]);
  }
  return bytes.subarray(0, BYTES_MAX);
}

function cutsOf(random: Random, length: number): number[] {
  const pieces = random() < 0.2 ? 60 : 6;
  return Array.from({ length: below(random, pieces) }, () => below(random, length + 1)).sort((a, b) => a - b);
}

function slice(random: Random, bytes: Buffer, bytesMax: number): Buffer {
  const where = random();
  const length = 1 + below(random, bytesMax);
  // Often the end: usage and errors stand there.
  if (where < 0.35) return bytes.subarray(-length);
  const start = where < 0.65 ? 0 : below(random, bytes.length);
  return bytes.subarray(start, start + length);
}

function noise(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => below(random, 256)));
}

function pick<Item>(random: Random, items: readonly Item[]): Item {
  return items[below(random, items.length)] as Item;
}

function below(random: Random, limit: number): number {
  return Math.floor(random() * limit);
}
