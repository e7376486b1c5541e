import fc from 'fast-check';
import { expect, test } from 'vitest';
import { withModelName, withUsageAsked } from '../../src/http/body-edit.ts';

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

test.each([
  ['{"model":"m"}', undefined, '{"model":"m","stream_options":{"include_usage":true}}'],
  ['{"model":"m", "n": 1.0 }\n', undefined, '{"model":"m", "n": 1.0 ,"stream_options":{"include_usage":true}}\n'],
  ['{"stream_options": null , "n":1.0}', null, '{"stream_options": {"include_usage":true} , "n":1.0}'],
  ['{"n":1.0,"stream_options":{"include_usage":false,"x":[1,{"y":"}"}]}}', { include_usage: false, x: [1, { y: '}' }] }, '{"n":1.0,"stream_options":{"include_usage":true,"x":[1,{"y":"}"}]}}'],
  ['{"stream_options":{ "x": 1.0 }}', { x: 1 }, '{"stream_options":{ "x": 1.0 ,"include_usage":true}}'],
  ['{"stream_options":{ }}', {}, '{"stream_options":{ "include_usage":true}}'],
])('asks for usage in %s', (body, given, expected) => {
  expect(withUsageAsked(Buffer.from(body), given).toString()).toBe(expected);
});

test('asking for usage changes nothing else of any body', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.option(fc.dictionary(fc.string(), fc.jsonValue()), { nil: undefined }), fc.constantFrom(0, 1, 3), (rest, options, indent) => {
      const body = Object.fromEntries(Object.entries({ ...rest, ...(options === undefined ? {} : { stream_options: options }), model: 'm' }).filter(([key]) => key !== '__proto__' && (key !== 'stream_options' || options !== undefined)));
      const text = JSON.stringify(body, null, indent);
      const given = (JSON.parse(text) as { stream_options?: Record<string, unknown> }).stream_options;
      expect(JSON.parse(withUsageAsked(Buffer.from(text), given).toString())).toEqual({ ...JSON.parse(text), stream_options: { ...given, include_usage: true } });
    }),
  );
});

// Twelve kilobytes that once ended the process: what parses at any depth is not written out at any depth.
test('asks for usage beside options of any depth', () => {
  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
  const body = `{"model":"m","stream_options":{"x":${deep}}}`;
  expect(withUsageAsked(Buffer.from(body), { x: [] }).toString()).toBe(`{"model":"m","stream_options":{"x":${deep},"include_usage":true}}`);
});
