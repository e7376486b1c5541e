import { expect, test } from 'vitest';
import type { Endpoint } from '../../src/http/endpoints.ts';
import { readInferenceRequest } from '../../src/http/openai-request.ts';

type Json = Readonly<Record<string, unknown>>;

function prefixOf(endpoint: Endpoint, body: Json, seed: string | null = 'm\nacme'): readonly number[] {
  const reading = readInferenceRequest(endpoint, Buffer.from(JSON.stringify({ model: 'm', ...body })), 'application/json', () => seed);
  return reading.kind === 'ok' ? (reading.request.prefix?.blocks ?? []) : [];
}

/** How many blocks two prompts have in common at their beginning. */
function common(a: readonly number[], b: readonly number[]): number {
  const end = a.findIndex((block, index) => block !== b[index]);
  return end < 0 ? a.length : end;
}

const LONG = 'All work and no play makes Jack a dull boy. '.repeat(100);
const system = { role: 'system', content: LONG };
const user = (content: unknown): Json => ({ role: 'user', content });

test('a conversation begins as its turns before, and another one as far as its instructions go', () => {
  const first = prefixOf('chat', { messages: [system, user('Why?')] });
  const second = prefixOf('chat', { temperature: 0.7, messages: [system, user('Why?'), { role: 'assistant', content: LONG }, user('And why is that?')], stream: true });
  const other = prefixOf('chat', { messages: [system, user(`No. ${LONG}`)] });
  expect(first.length).toBe(Math.floor(LONG.length / 512));
  expect(common(first, second)).toBe(first.length);
  expect(second.length).toBeGreaterThan(first.length);
  expect(common(first, other)).toBe(first.length);
  expect(common(second, other)).toBe(first.length);
});

test.each<[string, Endpoint, Json, Json]>([
  ['who said it', 'chat', { messages: [{ role: 'system', content: LONG }] }, { messages: [{ role: 'user', content: LONG }] }],
  ['the order of messages', 'chat', { messages: [user('a'), user('b'), system] }, { messages: [user('b'), user('a'), system] }],
  ['where a message ends', 'chat', { messages: [user('ab'), user('c'), system] }, { messages: [user('a'), user('bc'), system] }],
  ['a word at the start', 'chat', { messages: [{ role: 'system', content: `a ${LONG}` }] }, { messages: [{ role: 'system', content: `b ${LONG}` }] }],
  ['the tools', 'chat', { messages: [system], tools: [{ type: 'function', function: { name: 'f' } }] }, { messages: [system], tools: [{ type: 'function', function: { name: 'g' } }] }],
  ['whether there are tools', 'chat', { messages: [system], tools: [{ type: 'function', function: { name: 'f' } }] }, { messages: [system] }],
  ['a picture', 'chat', { messages: [user([{ type: 'image_url', image_url: { url: 'http://a/1.png' } }]), system] }, { messages: [user([{ type: 'image_url', image_url: { url: 'http://a/2.png' } }]), system] }],
  ['the cache salt', 'chat', { messages: [system], cache_salt: 'a' }, { messages: [system], cache_salt: 'b' }],
  ['the cache key', 'chat', { messages: [system], prompt_cache_key: 'a' }, { messages: [system] }],
  ['the instructions', 'responses', { instructions: 'be brief', input: LONG }, { instructions: 'be long', input: LONG }],
  ['what it goes on from', 'responses', { previous_response_id: 'resp_1', input: LONG }, { previous_response_id: 'resp_2', input: LONG }],
  ['the system text', 'messages', { system: 'a', messages: [user(LONG)] }, { system: 'b', messages: [user(LONG)] }],
  ['a token', 'completions', { prompt: Array.from({ length: 300 }, () => 7) }, { prompt: [8, ...Array.from({ length: 299 }, () => 7)] }],
])('prompts that differ in %s from their start have nothing in common', (_, endpoint, a, b) => {
  const [first, second] = [prefixOf(endpoint, a), prefixOf(endpoint, b)];
  expect(first.length).toBeGreaterThan(0);
  expect(second.length).toBeGreaterThan(0);
  expect(common(first, second)).toBe(0);
});

test('the same text is another beginning under another seed, and none is made where it is not asked for', () => {
  const body = { messages: [system] };
  expect(common(prefixOf('chat', body), prefixOf('chat', body))).toBe(8);
  expect(common(prefixOf('chat', body, 'm\nacme'), prefixOf('chat', body, 'm\nrival'))).toBe(0);
  expect(prefixOf('chat', body, null)).toEqual([]);
});

test.each<[string, Endpoint, Json]>([
  ['shorter than a block', 'chat', { messages: [user('short')] }],
  ['several at once', 'completions', { prompt: [LONG, LONG] }],
  ['no prompt at all', 'completions', { prompt: 7 }],
  ['embeddings', 'embeddings', { input: LONG }],
  ['a rerank', 'prompt', { query: LONG }],
])('there is none of what is %s', (_, endpoint, body) => {
  expect(prefixOf(endpoint, body)).toEqual([]);
});

test('a prompt in a list of one is that prompt, and token ids are counted as tokens', () => {
  expect(prefixOf('completions', { prompt: [LONG] })).toEqual(prefixOf('completions', { prompt: LONG }));
  const ids = Array.from({ length: 300 }, (_, index) => index);
  expect(prefixOf('completions', { prompt: [ids] })).toEqual(prefixOf('completions', { prompt: ids }));
  expect(prefixOf('completions', { prompt: ids }).length).toBe(2);
});

test('no more is hashed of a long prompt than the first 512 blocks; one block more changes nothing, one less does', () => {
  const text = (blocks: number): Json => ({ prompt: 'x'.repeat(512 * blocks - 1) });
  expect([511, 512, 513, 2000].map((blocks) => prefixOf('completions', text(blocks)).length)).toEqual([511, 512, 512, 512]);
  const reading = readInferenceRequest('completions', Buffer.from(JSON.stringify({ model: 'm', ...text(1024) })), 'application/json', () => 's');
  expect(reading.kind === 'ok' && reading.request.prefix?.blockShare).toBeCloseTo(1 / 1024, 5);
});

test('what is nested without end is neither followed nor an error', () => {
  let content: unknown = LONG;
  for (let depth = 0; depth < 50; depth++) content = [content];
  expect(prefixOf('chat', { messages: [user(content), system] }).length).toBe(8);
});

test('hashing takes about as long as parsing the body, and no longer', () => {
  const body = Buffer.from(JSON.stringify({ model: 'm', messages: Array.from({ length: 60 }, (_, turn) => user(`${turn} ${LONG.slice(0, 4000)}`)) }));
  const leastMs = (run: () => void): number => {
    const times = Array.from({ length: 60 }, () => {
      const fromMs = performance.now();
      run();
      return performance.now() - fromMs;
    });
    return Math.min(...times);
  };
  for (let warm = 0; warm < 100; warm++) readInferenceRequest('chat', body, 'application/json', () => 's');
  const parsingMs = leastMs(() => JSON.parse(body.toString('utf8')));
  const withoutMs = leastMs(() => readInferenceRequest('chat', body));
  const withMs = leastMs(() => readInferenceRequest('chat', body, 'application/json', () => 's'));
  // The least of many: what a busy machine adds is no part of it.
  expect(withMs - withoutMs).toBeLessThan(1.5 * parsingMs);
});
