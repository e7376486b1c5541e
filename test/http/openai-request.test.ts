import { expect, test } from 'vitest';
import type { Endpoint } from '../../src/http/endpoints.ts';
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
  ['messages', { system: 'ab', messages: [{ role: 'user', content: [{ type: 'text', text: 'cde' }] }], max_tokens: 9, service_tier: 'standard_only' }, { promptBytes: 5, maxOutputTokens: 9, serviceTier: null }],
  ['prompt', { query: 'ab', documents: ['c', 'de'] }, { promptBytes: 5 }],
  ['prompt', { text_1: 'ab', text_2: ['c'] }, { promptBytes: 3 }],
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

test.each([
  ['chat', { stream: true }, undefined],
  ['completions', { stream: true, stream_options: null }, null],
  ['chat', { stream: true, stream_options: { include_usage: false } }, { include_usage: false }],
  ['chat', { stream: true, stream_options: { include_usage: true } }, false],
  ['chat', { stream: true, stream_options: 'all' }, false],
  ['chat', { stream: false }, false],
  ['responses', { stream: true }, false],
  ['messages', { stream: true }, false],
] as const)('of a %s request with %j the options for usage are %j', (endpoint, body, usageOptions) => {
  expect(read(endpoint, { model: 'm', ...body })).toMatchObject({ request: { usageOptions } });
});

test('some endpoints need no model', () => {
  expect(read('prompt', { prompt: 'x' })).toMatchObject({ request: { model: null } });
  expect(read('opaque', 'not json')).toMatchObject({ request: { model: null, promptTokens: 1 } });
  expect(read('opaque', { model: 'm' })).toMatchObject({ request: { model: 'm' } });
});

const FORM = ['--b', 'Content-Disposition: form-data; name="file"; filename="model.wav"', 'Content-Type: audio/wav', '', '\r\n--c name="model"', '--b', 'content-disposition: form-data; name="model"', '', 'whisper', '--b--', ''].join('\r\n');

test.each([
  ['multipart/form-data; boundary=b', 'whisper'],
  ['multipart/form-data; charset=utf-8; boundary="b"', 'whisper'],
  ['multipart/form-data; boundary=x', null],
  ['multipart/form-data', null],
  ['text/plain', null],
])('the model of a form as %s', (contentType, model) => {
  expect(readInferenceRequest('opaque', Buffer.from(FORM), contentType)).toMatchObject({ request: { model } });
});

test.each([
  ['a value with the delimiter inside', ['--b', 'content-disposition: form-data; name="x"', '', 'a--b\r\n--bogus: y', '--b', 'content-disposition: form-data; name="model"', '', 'm', '--b--'], 'm'],
  ['two models, of which the last counts', ['--b', 'content-disposition: form-data; name=model', '', 'm', '--b', 'content-disposition: form-data; name="model"', '', 'n', '--b--'], 'n'],
  ['an empty one', ['--b', 'content-disposition: form-data; name="model"', '', '', '--b--'], null],
  ['one over two lines', ['--b', 'content-disposition: form-data; name="model"', '', 'm\r\nn', '--b--'], null],
])('the model of a form with %s', (_what, lines, model) => {
  expect(readInferenceRequest('opaque', Buffer.from(lines.join('\r\n')), 'multipart/form-data; boundary=b')).toMatchObject({ request: { model } });
});

test('a form that ends anywhere is read without an error', () => {
  for (let end = 0; end < FORM.length; end++) expect(readInferenceRequest('opaque', Buffer.from(FORM.slice(0, end)), 'multipart/form-data; boundary=b').kind).toBe('ok');
});
