import { expect, test } from 'vitest';
import { createLineReader, LINE_ERRORS_MAX } from '../../src/batch/input-lines.ts';
import { completionWindowMs } from '../../src/batch/completion-window.ts';
import { chatLine } from '../fixtures/batch-client.ts';

const ENDPOINT = '/v1/chat/completions';
const LIMITS = { requestsMax: 1_000, lineBytesMax: 10_000 };

function read(text: string, limits = LIMITS, pieceBytes = Infinity) {
  const reader = createLineReader(ENDPOINT, limits);
  const bytes = Buffer.from(text);
  const lines = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) lines.push(...reader.push(bytes.subarray(at, at + pieceBytes)));
  lines.push(...reader.end());
  return { lines, errors: reader.errors, count: reader.count() };
}

test('lines are the same wherever the file is cut, with or without a last line end', () => {
  const text = [chatLine('a', 'äöü€'), '', `${chatLine('b')}\r`, chatLine('c')].join('\n');
  const whole = read(text);
  expect(whole.lines.map(({ line, customId }) => [line, customId])).toEqual([[1, 'a'], [3, 'b'], [4, 'c']]);
  expect(whole.errors).toEqual([]);
  for (const pieceBytes of [1, 2, 3, 7, 64]) expect(read(text, LIMITS, pieceBytes)).toEqual(whole);
  expect(read(`${text}\n`)).toEqual(whole);
  expect(JSON.parse(whole.lines[0]?.body ?? '')).toEqual({ model: 'm', messages: [{ role: 'user', content: 'äöü€' }] });
});

test.each([
  { line: '[]', code: 'invalid_json_line', param: null },
  { line: JSON.stringify({ method: 'POST', url: ENDPOINT, body: { model: 'm' } }), code: 'missing_required_parameter', param: 'custom_id' },
  { line: chatLine('', 'x'), code: 'invalid_custom_id', param: 'custom_id' },
  { line: chatLine('x'.repeat(513)), code: 'invalid_custom_id', param: 'custom_id' },
  { line: JSON.stringify({ custom_id: 'a', url: ENDPOINT, body: { model: 'm' } }), code: 'missing_required_parameter', param: 'method' },
  { line: JSON.stringify({ custom_id: 'a', method: 'POST', body: { model: 'm' } }), code: 'missing_required_parameter', param: 'url' },
  { line: JSON.stringify({ custom_id: 'a', method: 'POST', url: ENDPOINT }), code: 'missing_required_parameter', param: 'body' },
  { line: JSON.stringify({ custom_id: 'a', method: 'POST', url: ENDPOINT, body: 'x' }), code: 'invalid_body', param: 'body' },
  { line: JSON.stringify({ custom_id: 'a', method: 'POST', url: ENDPOINT, body: {} }), code: 'missing_required_parameter', param: 'body.model' },
])('a line is refused for its $param as $code', ({ line, code, param }) => {
  expect(read(line).errors).toMatchObject([{ line: 1, code, param }]);
  expect(read(line).lines).toEqual([]);
});

test('a body is sent byte for byte as its line has it: a seed of 64 bits, spaces, the last of two bodies', () => {
  const body = '{ "model":"m", "seed": 9007199254740993, "x":"\\u00e9", "body":{"a":[1.0]} }';
  const [line] = read(`{"custom_id":"a","method":"POST","url":"${ENDPOINT}","body":{"model":"n"},"body" :  ${body} }`).lines;
  expect(line?.body).toBe(body);
});

test('a custom_id with half of a pair of surrogates, which no store gives back, is refused', () => {
  expect(read(`{"custom_id":"\\ud800","method":"POST","url":"${ENDPOINT}","body":{"model":"m"}}`).errors).toMatchObject([{ line: 1, code: 'invalid_custom_id', param: 'custom_id' }]);
});

// The gateway ended of it, and again at each restart.
test.each([
  { line: (deep: string) => `{"custom_id":"a","method":"POST","url":"${ENDPOINT}","body":{"model":"m","messages":${deep}}}`, code: 'invalid_body', param: 'body' },
  { line: (deep: string) => `{"custom_id":"a","method":"POST","url":${deep},"body":{"model":"m"}}`, code: 'invalid_url', param: 'url' },
  { line: (deep: string) => `{"custom_id":${deep},"method":"POST","url":"${ENDPOINT}","body":{"model":"m"}}`, code: 'invalid_custom_id', param: 'custom_id' },
])('a line whose $param is nested deeper than can be written out again is refused as $code', ({ line, code, param }) => {
  const text = line(`${'['.repeat(20_000)}${']'.repeat(20_000)}`);
  expect(read(text, { ...LIMITS, lineBytesMax: 100_000 }).errors).toMatchObject([{ line: 1, code, param }]);
});

test('a custom_id of 512 characters is one', () => {
  expect(read(chatLine('x'.repeat(512), 'y')).errors).toEqual([]);
});

test('a line has as many bytes as allowed and not one more', () => {
  const line = chatLine('a');
  const bytes = Buffer.byteLength(line);
  expect(read(line, { ...LIMITS, lineBytesMax: bytes }).errors).toEqual([]);
  expect(read(`${line}\n${chatLine('b')}`, { ...LIMITS, lineBytesMax: bytes - 1 }).errors.map((error) => [error.code, error.line])).toEqual([['line_too_large', 1], ['line_too_large', 2]]);
});

test('as many requests as allowed are read, and one more is one error', () => {
  const text = (count: number) => Array.from({ length: count }, (_, index) => chatLine(`${index}`)).join('\n');
  expect(read(text(5), { ...LIMITS, requestsMax: 5 })).toMatchObject({ count: 5, errors: [] });
  expect(read(text(50), { ...LIMITS, requestsMax: 5 }).errors).toMatchObject([{ code: 'too_many_requests', line: 6 }]);
});

test('errors are told up to their bound', () => {
  expect(read('x\n'.repeat(LINE_ERRORS_MAX)).errors).toHaveLength(LINE_ERRORS_MAX);
  expect(read('x\n'.repeat(LINE_ERRORS_MAX + 1)).errors).toHaveLength(LINE_ERRORS_MAX);
});

test.each([
  ['24h', 86_400_000],
  ['1m', 60_000],
  ['1h30m', 5_400_000],
  ['168h', 604_800_000],
  ['168h1m', null],
  ['0h', null],
  ['24', null],
  ['', null],
  ['1d', null],
  ['-1h', null],
] as const)('a window of %j is %s ms', (text, windowMs) => {
  expect(completionWindowMs(text)).toBe(windowMs);
});
