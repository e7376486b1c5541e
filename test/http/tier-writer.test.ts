// What is told of the tier, in real servers' answers and in made ones: it never depends on where a network cuts them, and every
// other byte stays.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { AnswerWriter } from '../../src/http/answer-writer.ts';
import { createMemberWriter, withEdits } from '../../src/http/member-writer.ts';
import { createTierWriter } from '../../src/http/tier-writer.ts';
import type { CorpusItem } from '../fixtures/corpus/corpus.ts';
import { CORPUS, HUGE_STREAM } from '../fixtures/corpus/corpus.ts';

const SEED = 20_261_126;
type Json = Record<string, unknown>;

const writer = ({ endpoint, kind }: Pick<CorpusItem, 'endpoint' | 'kind'>): AnswerWriter => createTierWriter('flex', { endpoint, streams: kind === 'stream' });

function written(of: Pick<CorpusItem, 'endpoint' | 'kind'>, chunks: Iterable<Buffer>): Buffer {
  const { push } = writer(of);
  const out: Buffer[] = [];
  for (const chunk of chunks) out.push(push(chunk));
  return Buffer.concat(out);
}

function* piecesOf(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** The data of each event, as the standard reads them. */
function dataOf(text: string): string[] {
  const events: string[] = [];
  let lines: string[] = [];
  for (const line of text.replace(/^\ufeff/, '').split(/\r\n|\r|\n/)) {
    if (line === '') {
      if (lines.length > 0) events.push(lines.join('\n'));
      lines = [];
    } else if (line.startsWith('data:')) lines.push(line.slice(5).replace(/^ /, ''));
  }
  return events;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** By parsing it all, which is what the writer does not do. */
function withTier(json: unknown, { endpoint, kind }: Pick<CorpusItem, 'endpoint' | 'kind'>): unknown {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return json;
  const object = json as Json;
  if (endpoint === 'responses' && kind === 'stream') {
    const { response } = object;
    return typeof response === 'object' && response !== null && !Array.isArray(response) ? { ...object, response: { ...response, service_tier: 'flex' } } : json;
  }
  return 'service_tier' in object || (endpoint === 'responses' ? 'output' : 'choices') in object ? { ...object, service_tier: 'flex' } : json;
}

/** Without any tier that is told. */
const bare = (bytes: Buffer): string => bytes.toString('latin1').replaceAll(/,?\s*"service_tier"\s*:\s*("[^"]*"|null)/g, '');

const ITEMS = [...CORPUS, HUGE_STREAM].filter(({ endpoint }) => endpoint === 'chat' || endpoint === 'completions' || endpoint === 'responses');

test('the answers of the corpus are with and without a tier of their own', () => {
  expect(ITEMS.length).toBeGreaterThan(40);
  expect(new Set(ITEMS.map(({ bytes }) => bytes.includes('"service_tier"')))).toEqual(new Set([true, false]));
});

test.each(ITEMS)('$name tells the tier wherever it has one to tell, and all else is as it was', (item) => {
  const out = written(item, [item.bytes]);
  const read = (bytes: Buffer): unknown[] => (item.kind === 'stream' ? dataOf(bytes.toString('utf8')).map(parsed) : [parsed(bytes.toString('utf8'))]);
  expect(read(out)).toEqual(read(item.bytes).map((json) => withTier(json, item)));
  expect(bare(out)).toBe(bare(item.bytes));
});

test.each(ITEMS)('$name comes out the same wherever it is cut in two', (item) => {
  const whole = written(item, [item.bytes]);
  const step = item.bytes.length < 20_000 ? 1 : Math.ceil(item.bytes.length / 200);
  const different = Array.from({ length: Math.ceil(item.bytes.length / step) }, (_, index) => index * step).filter((at) => !written(item, [item.bytes.subarray(0, at), item.bytes.subarray(at)]).equals(whole));
  expect(different).toEqual([]);
});

test.each(ITEMS)('$name comes out the same in pieces of one byte, and of seven', (item) => {
  const whole = written(item, [item.bytes]);
  for (const size of item.bytes.length < 20_000 ? [1, 7] : [977]) expect(written(item, piecesOf(item.bytes, size)).equals(whole)).toBe(true);
});

describe('a member', () => {
  const write = (text: string, { within = [], beside = 'choices' }: { within?: readonly string[]; beside?: string | null } = {}, size = text.length * 4): string => {
    const member = createMemberWriter({ name: 'service_tier', value: () => '"flex"', within, beside });
    return Buffer.concat([...piecesOf(Buffer.from(text), Math.max(1, size))].map((chunk) => withEdits(chunk, member.push(chunk, 0, chunk.length)))).toString();
  };

  test.each<[string, string, { within?: readonly string[]; beside?: string | null }?]>([
    ['{"choices":[]}', '{"choices":[],"service_tier":"flex"}'],
    ['{"choices":[] \n}\n', '{"choices":[] \n,"service_tier":"flex"}\n'],
    ['{"service_tier":null,"choices":[]}', '{"service_tier":"flex","choices":[]}'],
    ['{"service_tier" : "default" ,"choices":[]}', '{"service_tier" : "flex" ,"choices":[]}'],
    ['{"service_tier":"a\\"}","x":1}', '{"service_tier":"flex","x":1}'],
    ['{"choices":[],"service_tier":12}', '{"choices":[],"service_tier":"flex"}'],
    ['{"choices":[],"service_tier":true }', '{"choices":[],"service_tier":"flex" }'],
    ['{"service_tier":{"a":[1,{"service_tier":1}]},"choices":[]}', '{"service_tier":"flex","choices":[]}'],
    ['{"service_tier":[],"service_tier":"b"}', '{"service_tier":"flex","service_tier":"flex"}'],
    ['{"service\\u005ftier":"a"}', '{"service\\u005ftier":"flex"}'],
    ['{"choices":[{"service_tier":"a","choices":1}],"x":"service_tier"}', '{"choices":[{"service_tier":"a","choices":1}],"x":"service_tier","service_tier":"flex"}'],
    ['{"x":"choices","y":["choices"],"z":{"choices":1}}', '{"x":"choices","y":["choices"],"z":{"choices":1}}'],
    ['{"error":{"message":"no","choices":[]}}', '{"error":{"message":"no","choices":[]}}'],
    ['{"text":"\\\\","choices":[]}', '{"text":"\\\\","choices":[],"service_tier":"flex"}'],
    [`{"${'k'.repeat(300)}":1,"choices":[]}`, `{"${'k'.repeat(300)}":1,"choices":[],"service_tier":"flex"}`],
    ['\ufeff{"choices":[]}', '\ufeff{"choices":[],"service_tier":"flex"}'],
    ['{}', '{}'],
    ['{}', '{"service_tier":"flex"}', { beside: null }],
    ['[{"choices":[]}]', '[{"choices":[]}]'],
    ['"choices"', '"choices"'],
    ['[DONE]', '[DONE]'],
    ['{"choices":[]}{"choices":[]}', '{"choices":[],"service_tier":"flex"}{"choices":[]}'],
    ['{"response":{}}', '{"response":{"service_tier":"flex"}}', { within: ['response'], beside: null }],
    ['{"a":1,"response":{"service_tier":"auto","b":{"service_tier":1}},"service_tier":2}', '{"a":1,"response":{"service_tier":"flex","b":{"service_tier":1}},"service_tier":2}', { within: ['response'], beside: null }],
    ['{"response":null,"x":{"a":1},"y":[{"response":{}}]}', '{"response":null,"x":{"a":1},"y":[{"response":{}}]}', { within: ['response'], beside: null }],
    ['{"response":[{}],"x":{}}', '{"response":[{}],"x":{}}', { within: ['response'], beside: null }],
    ['{"response":"{","x":{}}', '{"response":"{","x":{}}', { within: ['response'], beside: null }],
    ['{"response":{"usage":{"a":1}},"usage":{}}', '{"response":{"usage":{"a":1,"service_tier":"flex"}},"usage":{}}', { within: ['response', 'usage'], beside: null }],
    ['{"usage":{"response":{}},"response":{"x":{"usage":{}},"usage":null}}', '{"usage":{"response":{}},"response":{"x":{"usage":{}},"usage":null}}', { within: ['response', 'usage'], beside: null }],
    ['{"response":{"response":{"usage":{}},"usage":[{"usage":{}}]},"response":{"usage":{}}}', '{"response":{"response":{"usage":{}},"usage":[{"usage":{}}]},"response":{"usage":{"service_tier":"flex"}}}', { within: ['response', 'usage'], beside: null }],
  ])('of %s is set as in %s', (text, wanted, options) => {
    expect(write(text, options)).toBe(wanted);
    expect(write(text, options, 1)).toBe(wanted);
  });

  test('is set as parsing and printing would, in any object however it is written and cut', () => {
    // Not `"` and `\` alone: JSON.parse of Node 24.21 takes the one for the other as a key, once it has seen both.
    const key = fc.constantFrom('service_tier', 'choices', 'response', 'output', 'a', 'b"{', 'c\\', 'é', '');
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof({ depthSize: 'small' }, fc.string(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean(), fc.constant(null), fc.array(tie('value'), { maxLength: 3 }), fc.dictionary(key, tie('value'), { maxKeys: 4 })),
    }));
    fc.assert(
      fc.property(fc.dictionary(key, value), fc.constantFrom(undefined, 1, '\t'), fc.integer({ min: 1, max: 9 }), fc.boolean(), (object, space, size, nested) => {
        const text = JSON.stringify(object, null, space);
        const of = { endpoint: 'responses', kind: nested ? 'stream' : 'document' } as const;
        const out = write(text, nested ? { within: ['response'], beside: null } : { beside: 'output' }, size);
        expect(JSON.parse(out)).toEqual(withTier(JSON.parse(text), of));
      }),
      { seed: SEED, numRuns: 3_000 },
    );
  });
});
