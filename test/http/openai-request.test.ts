import fc from 'fast-check';
import { expect, test } from 'vitest';
import { withModelName } from '../../src/http/model-name.ts';
import type { Endpoint } from '../../src/http/openai-request.ts';
import { readInferenceRequest } from '../../src/http/openai-request.ts';

function read(endpoint: Endpoint, body: unknown) {
  return readInferenceRequest(endpoint, Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)));
}

test.each([
  ['chat', { messages: [{ role: 'user', content: 'hello' }] }, { promptBytes: 5, promptTokens: null, stream: false, maxOutputTokens: null }],
  ['chat', { messages: [{ role: 'user', content: 'grüß' }], stream: true, max_tokens: 7 }, { promptBytes: 6, stream: true, maxOutputTokens: 7 }],
  ['chat', { messages: [], max_tokens: 7, max_completion_tokens: 9 }, { maxOutputTokens: 9 }],
  ['chat', { messages: [{ content: [{ type: 'text', text: 'abc' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } }] }] }, { promptBytes: 3 }],
  ['chat', { messages: [{ content: 'a', tool_calls: [{ function: { name: 'f', arguments: '{}' } }] }] }, { promptBytes: 3 }],
  ['chat', { messages: [], tools: [{ type: 'function' }] }, { promptBytes: 21 }],
  ['chat', { messages: [], max_tokens: -1, stream: 'yes' }, { maxOutputTokens: null, stream: false }],
  ['completions', { prompt: 'abc', max_tokens: 3 }, { promptBytes: 3, maxOutputTokens: 3 }],
  ['completions', { prompt: ['abc', 'de'] }, { promptBytes: 5, promptTokens: null }],
  ['completions', { prompt: [1, 2, 3] }, { promptBytes: 0, promptTokens: 3 }],
  ['completions', { prompt: [[1, 2, 3], [4]] }, { promptBytes: 0, promptTokens: 4 }],
  ['embeddings', { input: ['abc', 'd'] }, { promptBytes: 4 }],
  ['embeddings', { input: [[1, 2]] }, { promptTokens: 2 }],
  ['responses', { input: 'abc', instructions: 'de', max_output_tokens: 5 }, { promptBytes: 5, maxOutputTokens: 5 }],
  ['responses', { input: [{ role: 'user', content: [{ type: 'input_text', text: 'abcd' }] }] }, { promptBytes: 4 }],
] as const)('reads a %s request %#', (endpoint, body, expected) => {
  expect(read(endpoint, { model: 'm', ...body })).toMatchObject({ kind: 'ok', request: { model: 'm', ...expected } });
});

test.each([
  ['', null, /could not parse/],
  ['{"model":', null, /could not parse/],
  ['[]', null, /must be a JSON object/],
  ['null', null, /must be a JSON object/],
  ['{}', 'model', /must provide a model/],
  ['{"model":7}', 'model', /non-empty string/],
  ['{"model":""}', 'model', /non-empty string/],
  ['{"model":"m","service_tier":7}', 'service_tier', /want a string/],
  // Twenty kilobytes that once ended the process: what parses at any depth is not written out at any depth.
  [`{"model":"m","tools":${'['.repeat(10_000)}${']'.repeat(10_000)}}`, 'tools', /nested too deeply/],
])('refuses %.60s', (body, param, message) => {
  expect(read('chat', body)).toMatchObject({ kind: 'bad', param, message: expect.stringMatching(message) });
});

test('a deeply nested body is read without deep recursion', () => {
  const deep = `${'[{"content":'.repeat(20_000)}"x"${'}]'.repeat(20_000)}`;
  expect(read('chat', `{"model":"m","messages":${deep}}`).kind).toBe('ok');
});

test('another model name replaces the top-level one and no other byte', () => {
  const body = '{ "n":1.0, "model" : "a\\"b", "messages":[{"model":"a"}], "big":12345678901234567890 }';
  expect(withModelName(Buffer.from(body), 'x"y').toString()).toBe('{ "n":1.0, "model" : "x\\"y", "messages":[{"model":"a"}], "big":12345678901234567890 }');
});

test('every spelling of the key is replaced, for parsers take the last', () => {
  expect(JSON.parse(withModelName(Buffer.from('{"model":"a","mod\\u0065l":"b"}'), 'c').toString())).toEqual({ model: 'c' });
});

test('replacing the model name changes nothing else of any body', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.string(), fc.string({ minLength: 1 }), (rest, before, after) => {
      const body = Object.fromEntries(Object.entries({ ...rest, model: before }).filter(([key]) => key !== '__proto__'));
      const text = JSON.stringify(body, null, 1);
      expect(JSON.parse(withModelName(Buffer.from(text), after).toString())).toEqual({ ...JSON.parse(text), model: after });
    }),
  );
});
