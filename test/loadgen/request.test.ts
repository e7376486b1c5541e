import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createPromptText } from '../../src/loadgen/prompt-text.ts';
import { maxTokensFor, requestBody, sloHeaders } from '../../src/loadgen/request-body.ts';
import { missedSlos, recordOf } from '../../src/loadgen/request-record.ts';

const words = (text: string) => text.split(' ');

test('a prompt has as many words as the request has tokens, always the same ones', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 20_000 }), fc.nat(1_000_000), fc.nat(2 ** 31 - 1), fc.option(fc.array(fc.nat(200_000), { maxLength: 20 }), { nil: undefined }), (promptTokens, index, salt, prefixBlocks) => {
      const request = { atMs: 0, promptTokens, outputTokens: 1, ...(prefixBlocks === undefined ? {} : { prefixBlocks }) };
      const text = createPromptText(salt).of(request, index);
      expect(words(text)).toHaveLength(promptTokens);
      expect(createPromptText(salt).of(request, index)).toBe(text);
      expect(text).toMatch(/^[a-z]+( [a-z]+)*$/);
    }),
    { numRuns: 30 },
  );
});

test('prompts share the text of their equal leading blocks and differ after it', () => {
  const prompts = createPromptText(1);
  const one = words(prompts.of({ atMs: 0, promptTokens: 1500, outputTokens: 1, prefixBlocks: [7, 8, 9] }, 0));
  const other = words(prompts.of({ atMs: 0, promptTokens: 1300, outputTokens: 1, prefixBlocks: [7, 8, 10] }, 1));
  expect(other.slice(0, 1024)).toEqual(one.slice(0, 1024));
  expect(other.slice(1024, 1028)).not.toEqual(one.slice(1024, 1028));
});

test('prompts without blocks differ within their first words, from each other, from blocks and with another salt', () => {
  const request = { atMs: 0, promptTokens: 40, outputTokens: 1 };
  const prompts = createPromptText(1);
  const heads = Array.from({ length: 20_000 }, (_, index) => words(prompts.of(request, index)).slice(0, 4).join(' '));
  const blocks = Array.from({ length: 1000 }, (_, block) => words(prompts.of({ ...request, prefixBlocks: [block] }, 0)).slice(0, 4).join(' '));
  expect(new Set([...heads, ...blocks]).size).toBe(21_000);
  expect(createPromptText(2).of(request, 0)).not.toBe(prompts.of(request, 0));
});

test('hidden lengths stand in the metadata alone; exact ones in max_tokens', () => {
  const plan = { endpoint: 'chat', lengths: 'hidden', model: 'm', maxTokens: 1024 } as const;
  expect(JSON.parse(requestBody(plan, 'the of', 77))).toEqual({
    model: 'm', messages: [{ role: 'user', content: 'the of' }], stream: true, stream_options: { include_usage: true }, max_tokens: 1024, metadata: { emulate_output_tokens: '77' },
  });
  expect(JSON.parse(requestBody({ ...plan, endpoint: 'completions', lengths: 'exact' }, 'the of', 77))).toEqual({
    model: 'm', prompt: 'the of', stream: true, stream_options: { include_usage: true }, max_tokens: 77, ignore_eos: true,
  });
  // What a server refuses that takes OpenAI's fields alone is left out.
  expect(Object.keys(JSON.parse(requestBody({ ...plan, lengths: 'capped' }, 'the of', 77)) as object).sort()).toEqual(['max_tokens', 'messages', 'model', 'stream', 'stream_options']);
});

test.each([
  { longest: 99, wanted: undefined, cap: 1024 },
  { longest: 1024, wanted: undefined, cap: 1024 },
  { longest: 1025, wanted: undefined, cap: 2048 },
  { longest: 99, wanted: 99, cap: 99 },
  { longest: 100, wanted: 99, cap: null },
])('the cap of all requests for a longest answer of $longest, wanted $wanted, is $cap', ({ longest, wanted, cap }) => {
  expect(maxTokensFor(longest, wanted)).toBe(cap);
});

test('the headers carry the objectives that are there', () => {
  expect(sloHeaders({ ttftMs: 600, tpotMs: 35.5 })).toEqual({ 'x-slo-ttft-ms': '600', 'x-slo-tpot-ms': '35.5' });
  expect(sloHeaders({ e2eMs: 1000 })).toEqual({ 'x-slo-e2e-ms': '1000' });
  expect(sloHeaders({})).toEqual({});
});

test.each([
  { times: { ttftMs: 100, tpotMs: 50, e2eMs: 1000 }, missed: [] },
  { times: { ttftMs: 100.1, tpotMs: 50, e2eMs: 1000 }, missed: ['ttftMs'] },
  { times: { ttftMs: 1, tpotMs: 50.1, e2eMs: 1001 }, missed: ['tpotMs', 'e2eMs'] },
  { times: { ttftMs: 1, tpotMs: null, e2eMs: 1 }, missed: [] },
])('$times miss $missed', ({ times, missed }) => {
  expect(missedSlos(times, { ttftMs: 100, tpotMs: 50, e2eMs: 1000 })).toEqual(missed);
});

test('times count from the intended send, tokens from usage; without usage events are counted', () => {
  const sent = { className: 'chat', slo: {}, intendedAtMs: 1000, sentAtMs: 1250, promptTokens: 10, outputTokens: 5 };
  const measured = { firstTokenAtMs: 1500, lastTokenAtMs: 1900, doneAtMs: 1950, contentEvents: 3, usage: { promptTokens: 12, outputTokens: 5, cachedTokens: 2 } };
  const record = recordOf(sent, { kind: 'completed', endedAtMs: 1950, measured });
  expect(record).toMatchObject({ latenessMs: 250, promptTokens: 12, cachedTokens: 2, outputTokens: 5, times: { ttftMs: 500, tpotMs: 100, e2eMs: 950 } });
  expect(recordOf(sent, { kind: 'completed', endedAtMs: 1950, measured: { ...measured, usage: null } })).toMatchObject({ promptTokens: 10, outputTokens: 3, usageReported: false, times: { tpotMs: 200 } });
  expect(recordOf(sent, { kind: 'completed', endedAtMs: 1950, measured: { ...measured, contentEvents: 1, usage: null } })).toMatchObject({ times: { tpotMs: null } });
});
