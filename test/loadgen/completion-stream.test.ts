import { expect, test } from 'vitest';
import { createCompletionStream } from '../../src/loadgen/completion-stream.ts';

function stream(...events: readonly (readonly [atMs: number, event: object | string])[]) {
  const completion = createCompletionStream();
  for (const [atMs, event] of events) completion.push(Buffer.from(`data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`), atMs);
  return { ...completion.measured(), end: completion.end() };
}

const role = { choices: [{ delta: { role: 'assistant', content: '' }, finish_reason: null }], usage: null };
const token = { choices: [{ delta: { content: ' a' }, finish_reason: null }] };
const finish = { choices: [{ delta: {}, finish_reason: 'length' }] };
const usage = { choices: [], usage: { prompt_tokens: 5, completion_tokens: 7, prompt_tokens_details: { cached_tokens: 3 } } };

test('the first token is the first text, not the role before it nor the usage after it', () => {
  const { firstTokenAtMs, lastTokenAtMs, contentEvents, usage: reported, doneAtMs, end } = stream([10, role], [50, token], [60, token], [70, finish], [80, usage], [90, '[DONE]']);
  expect({ firstTokenAtMs, lastTokenAtMs, contentEvents, doneAtMs }).toEqual({ firstTokenAtMs: 50, lastTokenAtMs: 60, contentEvents: 2, doneAtMs: 90 });
  expect(reported).toEqual({ promptTokens: 5, outputTokens: 7, cachedTokens: 3 });
  expect(end).toEqual({ kind: 'complete' });
});

test.each([
  { name: 'completions', event: { choices: [{ text: ' a' }] } },
  { name: 'reasoning of vLLM', event: { choices: [{ delta: { reasoning_content: 'hm' } }] } },
  { name: 'reasoning by its other name', event: { choices: [{ delta: { reasoning: 'hm', content: null } }] } },
  { name: 'a tool call', event: { choices: [{ delta: { tool_calls: [{ index: 0 }] } }] } },
])('text counts as $name', ({ event }) => {
  expect(stream([5, event]).firstTokenAtMs).toBe(5);
});

test.each([
  { name: 'neither [DONE] nor a finish reason', events: [token], end: { kind: 'truncated' } },
  { name: 'a finish reason without [DONE]', events: [token, finish], end: { kind: 'complete' } },
  { name: '[DONE] alone', events: [token, '[DONE]'], end: { kind: 'complete' } },
  { name: 'an error event', events: [token, { error: { message: 'out of memory', code: null } }, '[DONE]'], end: { kind: 'error', message: 'out of memory' } },
  { name: 'what is not JSON', events: ['{"choices"'], end: { kind: 'error', message: 'an event is not JSON: {"choices"' } },
  { name: 'what is no object', events: ['null'], end: { kind: 'error', message: 'an event is no object: null' } },
  { name: 'nonsense in the places of choices and usage', events: [{ choices: 'x', usage: 'y' }, { choices: [null], usage: { completion_tokens: -1 } }, finish], end: { kind: 'complete' } },
])('a stream with $name ends as $end', ({ events, end }) => {
  expect(stream(...events.map((event) => [1, event] as const)).end).toEqual(end);
});

test('the last usage counts, for servers that send one with every event', () => {
  const continuous = [1, 2, 3].map((count) => [count, { ...token, usage: { prompt_tokens: 5, completion_tokens: count } }] as const);
  expect(stream(...continuous).usage).toEqual({ promptTokens: 5, outputTokens: 3, cachedTokens: 0 });
});
