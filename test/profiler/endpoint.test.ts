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
