// What a profile is measured through: a server's own OpenAI endpoint, with what real ones do.
import { afterEach, expect, test } from 'vitest';
import { openEndpoint } from '../../src/profiler/endpoint.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

// As llama.cpp streamed it: the one token was the first byte of a character, which nothing followed.
test('an answer whose only token has no text came when it ended', async () => {
  const upstream = await createStubUpstream((_request, _incoming, outgoing) => {
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    outgoing.write('data: {"choices":[{"text":"","index":0,"finish_reason":"length"}]}\n\n');
    outgoing.end('data: {"choices":[],"usage":{"completion_tokens":1,"prompt_tokens":64,"total_tokens":65}}\n\ndata: [DONE]\n\n');
  });
  opened.push(upstream);
  let nowMs = 100;
  const endpoint = await openEndpoint({ url: upstream.url, model: 'm', apiKey: null, endpoint: 'completions', salt: 1, now: () => nowMs++, signal: new AbortController().signal });
  opened.push(endpoint);
  const answer = await endpoint.ask({ promptTokens: 64, outputTokens: 1 });
  expect(answer).toMatchObject({ promptTokens: 64, outputTokens: 1 });
  expect(answer.firstTokenAtMs).toBeGreaterThanOrEqual(100);
  expect(answer.lastTokenAtMs).toBe(answer.firstTokenAtMs);
});

test('an answer without usage was taken for as many tokens as were asked for', async () => {
  const upstream = await createStubUpstream((_request, _incoming, outgoing) => {
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    outgoing.end('data: {"choices":[{"text":"a","index":0}]}\n\ndata: [DONE]\n\n');
  });
  opened.push(upstream);
  const endpoint = await openEndpoint({ url: upstream.url, model: 'm', apiKey: null, endpoint: 'completions', salt: 1, now: () => 0, signal: new AbortController().signal });
  opened.push(endpoint);
  await expect(endpoint.ask({ promptTokens: 64, outputTokens: 1 })).rejects.toThrow(/an answer has no usage/);
});

test('a server that hangs kept whoever pressed Ctrl-C waiting for ten minutes', async () => {
  const upstream = await createStubUpstream(() => {});
  opened.push(upstream);
  const stop = new AbortController();
  const endpoint = await openEndpoint({ url: upstream.url, model: 'm', apiKey: null, endpoint: 'completions', salt: 1, now: () => 0, signal: stop.signal });
  opened.push(endpoint);
  const occupied = endpoint.occupy(2, { promptTokens: 64, outputTokens: 64 });
  const asked = endpoint.ask({ promptTokens: 64, outputTokens: 1 });
  await upstream.next();
  stop.abort();
  await expect(asked).rejects.toMatchObject({ name: 'AbortError' });
  await occupied.release();
  expect(occupied.failed()).toBeNull();
});
