// Two engines that nobody here wrote, each behind a gateway of its own: what clients ask of them arrives, and what they do otherwise
// than others is known and harmless.
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { BenchResult } from '../../src/loadgen/bench-result.ts';
import { readServerLoad } from '../../src/upstream/server-metrics.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';
import type { BehindGateway } from './behind-gateway.ts';
import { MODEL, serveEngine } from './behind-gateway.ts';
import type { Engine } from './engine.ts';
import { ENGINES, PLACES, startEngine } from './engine.ts';
import { prompt, roughProfile } from './rough-profile.ts';

interface Chunk {
  readonly choices: readonly { readonly delta: { readonly content?: string | null }; readonly finish_reason?: string | null }[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
}

const messages = [{ role: 'user' as const, content: 'bado fiku nemi' }];
const CHAT = { messages, max_tokens: 12 };
/** No answer of the tests comes to its end of itself before it: the end token is one of two thousand. */
const LONG = { messages, max_tokens: 1_500, stream: true };

describe.each(ENGINES)('%s', (name) => {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-engines-'));
  const profile = join(directory, 'profile.json');
  let engine: Engine;
  let gateway: BehindGateway;

  beforeAll(async () => {
    engine = await startEngine(name);
    writeFileSync(profile, JSON.stringify(await roughProfile(engine)));
    gateway = await serveEngine(engine, profile);
  });
  afterAll(async () => {
    await gateway?.close();
    await engine?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function chunksOf(answer: Response): Promise<Chunk[]> {
    const events = (await answer.text()).split('\n\n').filter((event) => event.startsWith('data: ') && event !== 'data: [DONE]');
    return events.map((event) => JSON.parse(event.slice(6)) as Chunk);
  }

  const idle = async (): Promise<boolean> => (await gateway.status()).inFlight === 0;

  /** Falls still: it takes less than a tenth of a core for a second. */
  async function engineFallsStill(): Promise<void> {
    await eventually(async () => {
      const before = engine.cpuS();
      await delay(1_000);
      return engine.cpuS() - before < 0.1;
    }, 30_000);
  }

  test('the model is listed by the name that the config gives it, and by no other', async () => {
    const answer = await fetch(`${gateway.served.url}/v1/models`);
    expect(((await answer.json()) as { data: { id: string }[] }).data.map(({ id }) => id)).toEqual([MODEL]);
  });

  test('an answer comes whole, with usage and what the gateway says of it', async () => {
    const answer = await gateway.post(CHAT);
    expect(answer.status).toBe(200);
    expect(answer.headers.get('x-paceline-replica')).toBe('engine');
    for (const header of ['x-paceline-predicted-ttft-ms', 'openai-processing-ms']) expect(Number(answer.headers.get(header)), header).toBeGreaterThan(0);
    const { choices, usage } = (await answer.json()) as { choices: { message: { content: string }; finish_reason: string }[]; usage: Chunk['usage'] };
    expect(choices[0]?.message.content.length).toBeGreaterThan(0);
    expect(choices[0]?.finish_reason).toBe('length');
    expect(usage).toMatchObject({ completion_tokens: 12, prompt_tokens: expect.any(Number) });
  });

  test.each([true, false])('a stream comes piece by piece, and with its usage where that was asked for (%s)', async (asked) => {
    const answer = await gateway.post({ ...CHAT, stream: true, ...(asked ? { stream_options: { include_usage: true } } : {}) });
    expect(answer.headers.get('content-type')).toMatch(/^text\/event-stream/);
    const chunks = await chunksOf(answer);
    expect(chunks.filter(({ choices }) => choices[0]?.delta.content).length).toBeGreaterThan(1);
    expect(chunks.flatMap(({ choices }) => choices).at(-1)?.finish_reason).toBe('length');
    const usage = chunks.flatMap((chunk) => (chunk.usage == null ? [] : [chunk.usage]));
    // transformers tells it whether asked or not, in the event that ends the answer: which is not ours to take out.
    if (asked || name === 'transformers') expect(usage).toMatchObject([{ completion_tokens: 12 }]);
    else expect(usage).toEqual([]);
    // And never the event that it would have come in.
    if (!asked) expect(chunks.filter(({ choices }) => choices.length === 0)).toEqual([]);
  });

  test('tokens are counted as the engine tells them, whatever the events are that they come in', async () => {
    const tokens = async (): Promise<number> => Number(/^paceline_tokens_total\{direction="output"\} (\d+)$/m.exec(await (await fetch(`${gateway.served.adminUrl}/metrics`)).text())?.[1]);
    await eventually(idle);
    const before = await tokens();
    await (await gateway.post({ ...CHAT, max_tokens: 30, stream: true })).text();
    await eventually(idle);
    expect((await tokens()) - before).toBe(30);
  });

  test('stop ends an answer where the engine knows it', async () => {
    const answer = await gateway.post({ messages, max_tokens: 60, stop: ['a', 'e', 'i', 'o', 'u'] });
    const { choices } = (await answer.json()) as { choices: { message: { content: string }; finish_reason: string }[] };
    // Under continuous batching transformers does not (5.24); it goes on to the end, and says so.
    expect(choices[0]?.finish_reason).toBe(name === 'transformers' ? 'length' : 'stop');
    if (name === 'llama.cpp') expect(choices[0]?.message.content).not.toMatch(/[aeiou]/);
  });

  test('what the engine refuses comes with its own status and words, and the next request is served', async () => {
    const refused = await gateway.post({ messages, max_tokens: 'many' });
    // What transformers cannot read makes its handler fail: after such a 500 its server closes the connection without a word.
    expect(refused.status).toBe(name === 'transformers' ? 500 : 400);
    expect(await refused.text()).toMatch(name === 'transformers' ? /Internal Server Error/ : /max_tokens/);
    for (let next = 0; next < 3; next++) expect((await gateway.post(CHAT)).status).toBe(200);
    const unknown = await gateway.post({ ...CHAT, mirostat: 1 });
    expect(unknown.status).toBe(name === 'transformers' ? 422 : 200);
    if (name === 'transformers') expect(await unknown.json()).toEqual({ detail: "Unexpected fields in the request: {'mirostat'}" });
  });

  test('a model that nobody serves is 404, and the engine is not asked', async () => {
    const answer = await gateway.post({ ...CHAT, model: engine.model === './tiny-llama' ? engine.model : 'other' });
    expect(answer.status).toBe(404);
    expect(await answer.json()).toMatchObject({ error: { code: 'model_not_found' } });
  });

  test('prompts that are too long: refused by the engine that has bounds, in its words', async () => {
    const answer = await gateway.post({ prompt: prompt(3_000), max_tokens: 4 }, { path: '/v1/completions' });
    expect(answer.status).toBe(name === 'transformers' ? 200 : 400);
    if (name === 'llama.cpp') expect(await answer.json()).toMatchObject({ error: { type: 'exceed_context_size_error' } });
  });

  test('whom the client leaves the engine drops: its processor falls still long before the answer would have ended', async () => {
    const leave = new AbortController();
    const answer = await gateway.post(LONG, { signal: leave.signal });
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    await reader.read();
    const busyFrom = engine.cpuS();
    await delay(500);
    // Else there would be nothing to stop.
    expect(engine.cpuS() - busyFrom).toBeGreaterThan(0.2);
    leave.abort();
    await eventually(idle, 2_000);
    const leftAtMs = performance.now();
    await engineFallsStill();
    expect(performance.now() - leftAtMs).toBeLessThan(4_000);
    expect((await gateway.post(CHAT)).status).toBe(200);
  });

  test('more at once than it has places for: all are served, and it is never sent more than fit', async () => {
    let busiest = 0;
    const watching = new AbortController();
    const watch = (async () => {
      while (!watching.signal.aborted) {
        const { replicas } = (await gateway.status()) as unknown as { replicas: { runningStreams: number; waitingPrompts: number }[] };
        busiest = Math.max(busiest, ...replicas.map(({ runningStreams, waitingPrompts }) => runningStreams + waitingPrompts));
        await delay(20);
      }
    })();
    const answers = await Promise.all(Array.from({ length: 3 * PLACES }, async () => chunksOf(await gateway.post({ ...CHAT, max_tokens: 40, stream: true }))));
    watching.abort();
    await watch;
    expect(answers.map((chunks) => chunks.flatMap(({ choices }) => choices).at(-1)?.finish_reason)).toEqual(answers.map(() => expect.stringMatching(/^(length|stop)$/)));
    expect(busiest).toBeGreaterThan(PLACES / 2);
    expect(busiest).toBeLessThanOrEqual(PLACES);
  });

  test('requests under one id each have their own answer', async () => {
    const answers = await Promise.all(Array.from({ length: 4 }, async () => chunksOf(await gateway.post({ ...CHAT, stream: true, stream_options: { include_usage: true } }, { headers: { 'x-request-id': 'the-same' }, signal: AbortSignal.timeout(30_000) }))));
    expect(answers.map((chunks) => chunks.find(({ usage }) => usage != null)?.usage?.completion_tokens)).toEqual([12, 12, 12, 12]);
  });

  test('deadlines: one that is far enough is met and told of, one that nobody could meet is refused at once where that is asked for', async () => {
    const far = await gateway.post(CHAT, { headers: { 'x-slo-ttft-ms': '600000', 'x-slo-tpot-ms': '60000' } });
    expect(far.status).toBe(200);
    expect(Number(far.headers.get('x-paceline-slack-ms'))).toBeGreaterThan(0);
    const strict = await serveEngine(engine, profile, { more: { admission: { infeasible: 'refuse' } } });
    try {
      const near = await strict.post({ ...CHAT, messages: [{ role: 'user', content: prompt(1_200) }] }, { headers: { 'x-slo-ttft-ms': '2' } });
      expect(near.status).toBe(429);
      expect(near.headers.get('x-llm-d-request-dropped-reason')).toBeTruthy();
      expect((await strict.post(CHAT, { headers: { 'x-slo-ttft-ms': '600000', 'x-slo-tpot-ms': '60000' } })).status).toBe(200);
    } finally {
      await strict.close();
    }
  });

  test('its own load is read where it tells of it', async () => {
    const page = await fetch(`${engine.url}/metrics`);
    if (name === 'transformers') return expect(page.status).toBe(404);
    await page.text();
    const leave = new AbortController();
    // Beside the gateway, as another one would.
    const asked = Array.from({ length: PLACES + 3 }, () =>
      fetch(`${engine.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ ...LONG, model: engine.model }), signal: leave.signal }).then((answer) => answer.text()),
    );
    try {
      await eventually(async () => {
        const load = readServerLoad(await (await fetch(`${engine.url}/metrics`)).text());
        return load !== null && load.running === PLACES && load.waiting === 3;
      }, 20_000);
    } finally {
      leave.abort();
      await Promise.allSettled(asked);
      await engineFallsStill();
    }
  });

  test('the openai SDK has answers, streams, and errors that it knows', async () => {
    const client = new OpenAI({ baseURL: `${gateway.served.url}/v1`, apiKey: 'sk-none', maxRetries: 0 });
    const whole = await client.chat.completions.create({ ...CHAT, model: MODEL });
    expect(whole.usage?.completion_tokens).toBe(12);
    let [text, ends] = ['', 0];
    for await (const chunk of await client.chat.completions.create({ ...CHAT, model: MODEL, stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta.content ?? '';
      if (chunk.choices[0]?.finish_reason != null) ends += 1;
    }
    expect([text.length > 0, ends]).toEqual([true, 1]);
    const legacy = await client.completions.create({ model: MODEL, prompt: 'bado', max_tokens: 5 });
    expect(legacy.choices[0]?.text.length).toBeGreaterThan(0);
    await expect(client.chat.completions.create({ ...CHAT, model: 'nobody-serves-it' })).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
    await expect(client.embeddings.create({ model: MODEL, input: 'x' })).rejects.toMatchObject({ status: name === 'transformers' ? 404 : 501 });
  });

  test('paceline bench plays a load against it with the lengths that the workload wants', async () => {
    const out = join(directory, 'bench.json');
    const args = ['bench', '--url', gateway.served.url, '--synthetic', 'poisson', '--rate', '2', '--duration', '10', '--prompt-tokens', '100', '--output-tokens', '20', '--lengths', name === 'transformers' ? 'capped' : 'exact', '--timeout', '60', '--out', out];
    await promisify(execFile)(process.execPath, ['src/main.ts', ...args]);
    const result = JSON.parse(readFileSync(out, 'utf8')) as BenchResult;
    expect(result.completed).toBeGreaterThan(5);
    expect(result.failed).toBe(0);
  });
});
