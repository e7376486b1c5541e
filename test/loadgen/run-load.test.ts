import { afterEach, describe, expect, test } from 'vitest';
import type { LoadOptions } from '../../src/loadgen/run-load.ts';
import { runLoad } from '../../src/loadgen/run-load.ts';
import type { WorkloadRequest } from '../../src/workload/request.ts';
import type { SeenRequest, StubServer } from './stub-server.ts';
import { chunk, sleep, startStub, streamTokens } from './stub-server.ts';

let server: StubServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

type Answer = Parameters<typeof startStub>[0];

async function play(requests: readonly WorkloadRequest[], answer: Answer, options: Partial<LoadOptions> = {}) {
  server = await startStub(answer);
  return runLoad({ url: server.url, workload: { name: 'test', requests }, ...options });
}

const request = (atMs: number, outputTokens = 3, promptTokens = 8): WorkloadRequest => ({ atMs, promptTokens, outputTokens });
const wantedTokens = ({ body }: SeenRequest) => Number(body.metadata?.emulate_output_tokens);
const STRICT = [{ name: 'strict', share: 1, slo: { ttftMs: 100, tpotMs: 40, e2eMs: 400 } }];

test('measures the times of a stream and takes tokens from its usage', async () => {
  const result = await play([request(0, 5), request(50, 5), request(100, 1)], (seen, response) => streamTokens(response, { tokens: wantedTokens(seen), ttftMs: 60, tpotMs: 20 }));
  expect(result).toMatchObject({ requests: 3, completed: 3, failed: 0, attainment: 1, attainmentByClass: { 'best-effort': 1 }, outputTokens: 11, promptTokens: 33, cachedTokens: 12, model: 'stub-model', energyJ: null, meanPowerW: null, joulesPerOutputToken: null, notes: [] });
  expect(result.ttftMs.p50).toBeGreaterThanOrEqual(59);
  expect(result.ttftMs.p50).toBeLessThan(120);
  expect(result.tpotMs.p50).toBeGreaterThanOrEqual(19.5);
  expect(result.tpotMs.p50).toBeLessThan(40);
  expect(result.durationS).toBeGreaterThan(0.15);
});

test('sends at the intended times, however slow the answers are', async () => {
  const times = [0, 40, 80, 120, 160];
  const result = await play(times.map((atMs) => request(atMs)), (_, response) => streamTokens(response, { tokens: 3, ttftMs: 500, tpotMs: 5 }));
  const sentAt = server!.seen.map(({ atMs }) => atMs - server!.seen[0]!.atMs);
  for (const [index, atMs] of times.entries()) expect(Math.abs(sentAt[index]! - atMs)).toBeLessThan(40);
  expect(result.completed).toBe(5);
  expect(result.sendLatenessMs.max).toBeLessThan(40);
});

test('what the sender is late counts as waiting, and is told apart', async () => {
  // The process is busy from before the second request is due until 250 ms after.
  setTimeout(() => {
    const untilMs = performance.now() + 300;
    while (performance.now() < untilMs);
  }, 100);
  const result = await play([request(0), request(150)], (_, response) => streamTokens(response, { tokens: 3, ttftMs: 10, tpotMs: 5 }), { classes: [{ name: 'strict', share: 1, slo: { ttftMs: 150 } }] });
  expect(result.sendLatenessMs.max).toBeGreaterThan(150);
  expect(result.ttftMs.p99).toBeGreaterThan(160);
  expect(result.attainment).toBeLessThan(1);
  expect(result.notes.join()).toContain('late: this machine is too busy to send');
});

test('says what the class promises, to a model of its choice, with a key', async () => {
  await play([request(0, 40)], (_, response) => streamTokens(response, { tokens: 40, ttftMs: 1, tpotMs: 0 }), { classes: STRICT, model: 'other', apiKey: 'k', headers: { 'x-run': '7' } });
  const { headers, body, path } = server!.seen[0]!;
  expect(headers).toMatchObject({ 'x-slo-ttft-ms': '100', 'x-slo-tpot-ms': '40', 'x-slo-e2e-ms': '400', authorization: 'Bearer k', 'x-run': '7', 'content-type': 'application/json' });
  expect(body).toMatchObject({ model: 'other', max_tokens: 1024, metadata: { emulate_output_tokens: '40' } });
  expect(path).toBe('/v1/chat/completions');
});

test('two runs ask for the same with other words, so that the second finds no cache warm; a salt gives the same words', async () => {
  const answer: Answer = (_, response) => streamTokens(response, { tokens: 3, ttftMs: 1, tpotMs: 1 });
  const promptOf = async (options: Partial<LoadOptions>) => {
    const result = await play([request(0, 3, 50)], answer, options);
    const prompt = server!.seen[0]!.body.messages![0]!.content;
    await server!.close();
    return { prompt, salt: result.promptSalt };
  };
  const [one, other] = [await promptOf({}), await promptOf({})];
  expect(other.prompt).not.toBe(one.prompt);
  expect(other.prompt.split(' ')).toHaveLength(one.prompt.split(' ').length);
  expect((await promptOf({ promptSalt: one.salt })).prompt).toBe(one.prompt);
});

test('talks to the completions endpoint with exact lengths, at an address that ends in /v1', async () => {
  server = await startStub((_, response) => {
    response.writeHead(200);
    response.end(`${chunk({ choices: [{ text: 'a', finish_reason: null }] })}${chunk({ choices: [{ text: 'b', finish_reason: 'length' }] })}data: [DONE]\n\n`);
  });
  const result = await runLoad({ url: `${server.url}/v1/`, workload: { name: 'test', requests: [request(0, 2)] }, endpoint: 'completions', lengths: 'exact' });
  expect(server.seen[0]).toMatchObject({ path: '/v1/completions', body: { max_tokens: 2, ignore_eos: true } });
  expect(result).toMatchObject({ completed: 1, outputTokens: 2, notes: ['1 answers came without usage: their tokens are counted events'] });
});

describe('attainment', () => {
  test.each([
    { name: 'all in time', answer: { tokens: 4, ttftMs: 10, tpotMs: 10 }, attainment: 1, missed: { ttftMs: 0, tpotMs: 0, e2eMs: 0 } },
    { name: 'a late first token', answer: { tokens: 4, ttftMs: 140, tpotMs: 10 }, attainment: 0, missed: { ttftMs: 1, tpotMs: 0, e2eMs: 0 } },
    { name: 'slow tokens', answer: { tokens: 4, ttftMs: 10, tpotMs: 70 }, attainment: 0, missed: { ttftMs: 0, tpotMs: 1, e2eMs: 0 } },
    { name: 'a late end', answer: { tokens: 21, ttftMs: 10, tpotMs: 22 }, attainment: 0, missed: { ttftMs: 0, tpotMs: 0, e2eMs: 1 } },
    { name: 'one token, which has no time between tokens', answer: { tokens: 1, ttftMs: 10, tpotMs: 0 }, attainment: 1, missed: { ttftMs: 0, tpotMs: 0, e2eMs: 0 } },
  ])('$name', async ({ answer, attainment, missed }) => {
    const result = await play([request(0, answer.tokens)], (_, response) => streamTokens(response, answer), { classes: STRICT });
    expect(result).toMatchObject({ completed: 1, attainment, attainmentByClass: { strict: attainment }, missed });
  });

  test('is told by class, as the seed deals them', async () => {
    const classes = [{ name: 'fast', share: 0.5, slo: { ttftMs: 20 } }, { name: 'slow', share: 0.5, slo: { ttftMs: 5000 } }];
    const result = await play(Array.from({ length: 12 }, (_, index) => request(index * 5)), (_, response) => streamTokens(response, { tokens: 3, ttftMs: 60, tpotMs: 1 }), { classes, seed: 3 });
    expect(result.attainmentByClass).toEqual({ fast: 0, slow: 1 });
    expect(result.requestsByClass['fast']! + result.requestsByClass['slow']!).toBe(12);
    expect(result.attainment).toBeCloseTo(result.requestsByClass['slow']! / 12, 10);
  });
});

describe('a failed request is not met, and says why', () => {
  test.each<{ name: string; answer: Answer; failure: string; rejected?: number; outputTokens?: number; options?: Partial<LoadOptions> }>([
    { name: '500', answer: (_, response) => void response.writeHead(500).end('{"error":{"message":"boom","type":"server_error","code":null,"param":null}}'), failure: 'http: 500 server_error' },
    { name: '500 without a body we know', answer: (_, response) => void response.writeHead(500).end('<html>'), failure: 'http: 500' },
    { name: '429', answer: (_, response) => void response.writeHead(429, { 'x-llm-d-request-dropped-reason': 'rejected-saturated' }).end('{}'), failure: 'rejected: 429 rejected-saturated', rejected: 1 },
    { name: '503 with a dropped reason', answer: (_, response) => void response.writeHead(503, { 'x-llm-d-request-dropped-reason': 'rejected-shutting-down' }).end(), failure: 'rejected: 503 rejected-shutting-down', rejected: 1 },
    { name: 'a stream that ends early', answer: (_, response) => void response.writeHead(200).end(chunk({ choices: [{ delta: { content: 'a' } }] })), failure: 'truncated: the stream ended before its [DONE]', outputTokens: 1 },
    {
      name: 'a connection cut within the stream',
      answer: async (_, response) => {
        response.writeHead(200).write(chunk({ choices: [{ delta: { content: 'a' } }] }));
        await sleep(30);
        response.socket?.resetAndDestroy();
      },
      failure: 'truncated: the connection broke within the stream (ECONNRESET)',
      outputTokens: 1,
    },
    { name: 'a connection closed without an answer', answer: (_, response) => void response.socket?.destroy(), failure: 'connection: UND_ERR_SOCKET' },
    { name: 'an error within the stream', answer: (_, response) => void response.writeHead(200).end(`${chunk({ choices: [{ delta: { content: 'a' } }] })}data: {"error":{"message":"preempted"}}\n\ndata: [DONE]\n\n`), failure: 'stream-error: preempted', outputTokens: 1 },
    { name: 'an answer without text', answer: (_, response) => void response.writeHead(200).end('data: [DONE]\n\n'), failure: 'empty: the answer held no text' },
    { name: 'silence', answer: () => {}, failure: 'timeout: no end within 80 ms', options: { timeoutMs: 80 } },
    { name: 'a stream that does not end', answer: (_, response) => void response.writeHead(200).write(chunk({ choices: [{ delta: { content: 'a' } }] })), failure: 'timeout: no end within 80 ms', outputTokens: 1, options: { timeoutMs: 80 } },
  ])('$name', async ({ answer, failure, rejected = 0, outputTokens = 0, options = {} }) => {
    const result = await play([request(0), request(10)], (seen, response) => (server!.seen.length === 1 ? answer(seen, response) : streamTokens(response, { tokens: 3, ttftMs: 5, tpotMs: 5 })), options);
    expect(result).toMatchObject({ requests: 2, completed: 1, failed: 1, rejected, attainment: 0.5, failures: { [failure]: 1 }, outputTokens: 3 + outputTokens });
  });

  test('more in flight than allowed: not sent, counted, and said at once', async () => {
    const warnings: string[] = [];
    const result = await play(Array.from({ length: 6 }, (_, index) => request(index)), (_, response) => streamTokens(response, { tokens: 3, ttftMs: 150, tpotMs: 1 }), { inFlightMax: 4, onWarning: (message) => warnings.push(message) });
    expect(result).toMatchObject({ requests: 6, completed: 4, failed: 2, failures: { 'in-flight-cap: 4 in flight': 2 } });
    expect(warnings).toEqual(['4 requests are in flight, the most allowed: further ones are not sent and count as failed']);
    expect(result.notes.join()).toContain('2 requests were never sent');
    expect(server!.seen).toHaveLength(4);
  });
});

test('a server that leaves the connection open after [DONE] has answered', async () => {
  const result = await play([request(0)], (_, response) => void response.writeHead(200).write(`${chunk({ choices: [{ delta: { content: 'a' } }] })}data: [DONE]\n\n`), { timeoutMs: 200 });
  expect(result.completed).toBe(1);
  expect(result.e2eMs.p50).toBeLessThan(150);
});

test('an early end reports what there is and gives up the rest', async () => {
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 200);
  const result = await play([request(0), request(150), request(60_000)], (_, response) => streamTokens(response, server!.seen.length === 1 ? { tokens: 3, ttftMs: 10, tpotMs: 5 } : { tokens: 3, ttftMs: 60_000, tpotMs: 5 }), { signal: stop.signal });
  expect(result).toMatchObject({ requests: 1, completed: 1, failed: 0, attainment: 1, interrupted: true, unfinished: 1 });
  expect(result.durationS).toBeLessThan(1);
});

test('says that an engine does not take the lengths it is given', async () => {
  const result = await play([request(0, 30)], (_, response) => streamTokens(response, { tokens: 3, ttftMs: 1, tpotMs: 1 }));
  expect(result.notes.join()).toContain('answers have 3 tokens where the workload wants 30');
});

test.each<{ name: string; options: Partial<LoadOptions>; message: RegExp }>([
  { name: 'nobody listens', options: { url: 'http://127.0.0.1:9' }, message: /127\.0\.0\.1:9: cannot be reached \(ECONNREFUSED\); is the server running there\?/ },
  { name: 'an address that is none', options: { url: 'localhost:8080' }, message: /--url: got 'localhost:8080', want http:\/\/HOST:PORT/ },
  { name: 'no requests', options: { workload: { name: 'empty', requests: [] } }, message: /workload 'empty' has no requests/ },
  { name: 'a cap below the longest answer', options: { maxTokens: 2 }, message: /--max-tokens: got 2, the workload's longest answer has 3 tokens/ },
])('refuses to start: $name', async ({ options, message }) => {
  await expect(play([request(0)], () => {}, options)).rejects.toThrow(message);
});
