import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { OpenAI } from 'openai';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DeviceStateFile } from '../../src/engine/device-file.ts';
import { openDeviceStateFile } from '../../src/engine/device-file.ts';
import type { Emulator, EmulatorOptions } from '../../src/engine/emulator.ts';
import { startEmulator } from '../../src/engine/emulator.ts';
import { createPhysics } from '../../src/engine/physics.ts';
import { fixtureProfile } from './fixture-profile.ts';

const profile = fixtureProfile({ deviceGroup: { device: 'H100', devices: 2 } });
const physics = createPhysics(profile);
const MODEL = profile.model;

let deviceDir: string;
const emulators: Emulator[] = [];
const drivers: DeviceStateFile[] = [];
beforeEach(() => {
  deviceDir = mkdtempSync(join(tmpdir(), 'paceline-emulator-'));
});
afterEach(async () => {
  await Promise.all(emulators.splice(0).map((emulator) => emulator.close()));
  for (const driver of drivers.splice(0)) driver.close();
  rmSync(deviceDir, { recursive: true, force: true });
});

async function start(options: Partial<EmulatorOptions> = {}): Promise<string> {
  const emulator = await startEmulator({ profile, replicas: 1, host: '127.0.0.1', port: 0, deviceDir, seed: 1, ...options });
  emulators.push(emulator);
  return emulator.replicas[0]?.url as string;
}
function driverOf(device: number): DeviceStateFile {
  const driver = openDeviceStateFile(deviceDir, device);
  drivers.push(driver);
  return driver;
}
function lock(device: number, clockMhz: number): void {
  driverOf(device).writeCommand({ lockMinMhz: clockMhz, lockMaxMhz: clockMhz, powerLimitMw: 0, writerPid: process.pid, writtenAtNs: process.hrtime.bigint() });
}

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Record<string, unknown>;
}
async function post(url: string, path: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(url + path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers });
  return { status: response.status, headers: response.headers, body: (await response.json()) as Record<string, unknown> };
}
async function chat(url: string, outputTokens: number, more: Record<string, unknown> = {}): Promise<Answer> {
  return post(url, '/v1/chat/completions', { model: MODEL, messages: [{ role: 'user', content: 'one two three' }], metadata: { emulate_output_tokens: String(outputTokens) }, ...more });
}
async function state(url: string): Promise<Record<string, number>> {
  return (await (await fetch(`${url}/emulator/state`)).json()) as Record<string, number>;
}
async function until(holds: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (await holds()) return;
    await sleep(10);
  }
  throw new Error('it did not come to hold within 2 s');
}
/** The metric's value, of the first line with this name. */
function metric(text: string, name: string): number {
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${name}{`) || candidate.startsWith(`${name} `));
  return Number(line?.slice(line.lastIndexOf(' ')));
}

describe('an answer', () => {
  test('has the asked length, the usage, a finish reason and the request id of its client', async () => {
    const url = await start();
    const { status, headers, body } = await chat(url, 7, {});
    expect(status).toBe(200);
    expect(headers.get('x-request-id')).toMatch(/^req_/);
    expect(body).toMatchObject({ object: 'chat.completion', model: MODEL, usage: { prompt_tokens: 7, completion_tokens: 7, total_tokens: 14, prompt_tokens_details: { cached_tokens: 0 } } });
    const [choice] = body['choices'] as { message: { content: string }; finish_reason: string }[];
    expect(choice?.message.content.split(' ')).toHaveLength(7);
    expect(choice?.finish_reason).toBe('stop');
    const cut = await post(url, '/v1/completions', { model: MODEL, prompt: ['a b c'], max_tokens: 3, ignore_eos: true }, { 'x-request-id': 'mine' });
    expect(cut.headers.get('x-request-id')).toBe('mine');
    expect(cut.body).toMatchObject({ object: 'text_completion', choices: [{ finish_reason: 'length' }], usage: { prompt_tokens: 3, completion_tokens: 3 } });
  });

  test('streams each token in order, then the finish reason, the usage and [DONE]', async () => {
    const url = await start();
    const whole = await chat(url, 20);
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'one two three' }], metadata: { emulate_output_tokens: 20 }, stream: true, stream_options: { include_usage: true } }),
    });
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    const events = (await response.text()).split('\n\n').filter((event) => event !== '');
    expect(events.at(-1)).toBe('data: [DONE]');
    const chunks = events.slice(0, -1).map((event) => JSON.parse(event.slice('data: '.length)) as { choices: { delta: { role?: string; content?: string }; finish_reason: string | null }[]; usage: unknown });
    expect(chunks).toHaveLength(1 + 20 + 1 + 1);
    expect(chunks[0]?.choices[0]?.delta.role).toBe('assistant');
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe((whole.body['choices'] as { message: { content: string } }[])[0]?.message.content);
    expect(chunks[21]?.choices[0]?.finish_reason).toBe('stop');
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 20 } });
  });

  test('of a repeated prompt says what was cached', async () => {
    const url = await start();
    const messages = [{ role: 'user', content: Array.from({ length: 100 }, (_, index) => `w${index}`).join(' ') }];
    await chat(url, 2, { messages });
    expect((await chat(url, 2, { messages })).body['usage']).toMatchObject({ prompt_tokens: 104, prompt_tokens_details: { cached_tokens: 96 } });
  });

  test('of /v1/embeddings is the same vector for the same input, in both encodings', async () => {
    const url = await start();
    const { body } = await post(url, '/v1/embeddings', { model: MODEL, input: ['a b', 'c d e', [1, 2]], dimensions: 4 });
    expect(body['usage']).toEqual({ prompt_tokens: 7, total_tokens: 7 });
    const encoded = await post(url, '/v1/embeddings', { model: MODEL, input: 'a b', dimensions: 4, encoding_format: 'base64' });
    const bytes = Buffer.from((encoded.body['data'] as { embedding: string }[])[0]?.embedding ?? '', 'base64');
    expect(Array.from({ length: 4 }, (_, index) => bytes.readFloatLE(4 * index))).toEqual((body['data'] as { embedding: number[] }[])[0]?.embedding);
  });
});

describe('a bad request', () => {
  const message = [{ role: 'user', content: 'hi' }];
  test.each([
    { body: { model: MODEL, messages: message, n: 2 }, status: 400, says: 'n: got 2' },
    { body: { model: 'other', messages: message }, status: 404, says: 'does not exist' },
    { body: { model: MODEL, messages: [] }, status: 400, says: 'want at least one message' },
    { body: { model: MODEL, messages: message, max_tokens: 0 }, status: 400, says: 'max_tokens: got 0' },
    { body: { model: MODEL, messages: message, metadata: { emulate_output_tokens: 'many' } }, status: 400, says: 'emulate_output_tokens' },
    { body: { model: MODEL, messages: message, priority: 3 }, status: 400, says: 'priority scheduling is not enabled' },
    { body: { model: MODEL, messages: message, stream: 'yes' }, status: 400, says: 'stream: got "yes"' },
    { body: { model: MODEL, messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] }, status: 400, says: 'reads text only' },
    { body: '{"model":', status: 400, says: 'not JSON' },
    { body: '[]', status: 400, says: 'want a JSON object' },
    { body: { model: MODEL, messages: [{ role: 'user', content: 'w '.repeat(400_000) }] }, status: 400, says: 'maximum context length' },
    { body: { model: MODEL, messages: [{ role: 'user', content: 'w'.repeat(5 * 1024 * 1024) }] }, status: 413, says: 'at most 4194304 are read' },
  ])('is told: $says', async ({ body, status, says }) => {
    const answer = await post(await start(), '/v1/chat/completions', body);
    expect(answer.status).toBe(status);
    expect(answer.body['error']).toMatchObject({ message: expect.stringContaining(says) as string, type: 'invalid_request_error' });
    expect(Object.keys(answer.body['error'] as object)).toEqual(['message', 'type', 'param', 'code']);
  });

  test('is refused with 503 when the waiting queue is full', async () => {
    const url = await start({ waitingMax: 3 });
    const statuses = (await Promise.all(Array.from({ length: 12 }, () => chat(url, 3)))).map(({ status }) => status);
    expect(statuses).toContain(200);
    expect(statuses).toContain(503);
  });
});

describe('a client that goes away', () => {
  test.each([
    { when: 'while its tokens are streamed', stream: true, tokens: 4000, content: 'hi', waitForToken: true },
    { when: 'while its prompt is computed', stream: true, tokens: 5, content: 'w '.repeat(100_000), waitForToken: false },
    { when: 'while it waits for a whole answer', stream: false, tokens: 4000, content: 'hi', waitForToken: false },
  ])('$when frees its place at once', async ({ stream, tokens, content, waitForToken }) => {
    const url = await start();
    const body = JSON.stringify({ model: MODEL, messages: [{ role: 'user', content }], stream, metadata: { emulate_output_tokens: tokens } });
    const client = request(`${url}/v1/chat/completions`, { method: 'POST' });
    client.on('error', () => undefined);
    client.end(body);
    await until(async () => (await state(url))['running'] === 1 && (!waitForToken || ((await state(url))['generationTokens'] ?? 0) > 1));
    client.destroy();
    await until(async () => (await state(url))['running'] === 0);
    expect(await state(url)).toMatchObject({ cancelled: 1, finished: 0, kvUsage: 0, waiting: 0 });
    const text = await (await fetch(`${url}/metrics`)).text();
    expect(text).toContain('finished_reason="abort"} 1');
  });

  test('in the middle of its body leaves nothing behind', async () => {
    const url = await start();
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.write('POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"model"');
    await sleep(50);
    socket.destroy();
    expect((await chat(url, 2)).status).toBe(200);
    expect(await state(url)).toMatchObject({ finished: 1, cancelled: 0 });
  });
});

test('the openai client talks to it as to OpenAI', async () => {
  const client = new OpenAI({ baseURL: `${await start()}/v1`, apiKey: 'none', maxRetries: 0 });
  const metadata = { emulate_output_tokens: '9' };
  const messages = [{ role: 'user' as const, content: 'one two three' }];
  const whole = await client.chat.completions.create({ model: MODEL, messages, metadata });
  expect(whole.usage?.completion_tokens).toBe(9);
  let streamed = '';
  for await (const chunk of await client.chat.completions.create({ model: MODEL, messages, metadata, stream: true })) streamed += chunk.choices[0]?.delta.content ?? '';
  expect(streamed).toBe(whole.choices[0]?.message.content);
  const response = await client.responses.create({ model: MODEL, input: 'one two three', metadata });
  expect(response.output_text).toBe(streamed);
  expect(response.usage?.output_tokens).toBe(9);
  const stream = client.responses.stream({ model: MODEL, input: 'one two three', max_output_tokens: 4 });
  const types: string[] = [];
  const numbers: number[] = [];
  for await (const event of stream) {
    types.push(event.type);
    numbers.push(event.sequence_number);
  }
  expect(types.filter((type) => type === 'response.output_text.delta')).toHaveLength(4);
  expect([types[0], types.at(-1)]).toEqual(['response.created', 'response.incomplete']);
  expect(numbers).toEqual(numbers.map((_, index) => index));
  expect((await client.embeddings.create({ model: MODEL, input: 'hi' })).data[0]?.embedding).toHaveLength(16);
  expect((await client.completions.create({ model: MODEL, prompt: 'hi' })).usage?.completion_tokens).toBe(16);
  expect((await client.models.list()).data.map(({ id }) => id)).toEqual([MODEL]);
  await expect(client.chat.completions.create({ model: 'other', messages })).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
});

test('the metrics have vLLM names and count what was done', async () => {
  const url = await start();
  await Promise.all([chat(url, 10), chat(url, 20, { max_tokens: 5 })]);
  const text = await (await fetch(`${url}/metrics`)).text();
  for (const line of text.trim().split('\n')) expect(line).toMatch(/^(?:# (?:HELP|TYPE) \S+ .+|[a-z_:0-9]+\{[^}]*\} \S+)$/);
  expect(metric(text, 'vllm:generation_tokens_total')).toBe(15);
  expect(metric(text, 'vllm:prompt_tokens_total')).toBe(14);
  expect(metric(text, 'vllm:num_requests_running')).toBe(0);
  expect(metric(text, 'vllm:time_to_first_token_seconds_count')).toBe(2);
  expect(metric(text, 'vllm:inter_token_latency_seconds_count')).toBe(13);
  expect(metric(text, 'vllm:e2e_request_latency_seconds_count')).toBe(2);
  expect(text).toContain(`vllm:request_success_total{model_name="${MODEL}",engine="0",finished_reason="length"} 1`);
});

describe('speed and energy', () => {
  function expectedMs(clockMhz: number, tokens: number, truth = physics): number {
    const prefill = { tokens: 7, contextTokens: 0 };
    const none = { tokens: 0, contextTokens: 0 };
    let timeMs = truth.iterationTimeMs({ prefill, decode: { sequences: 0, contextTokens: 0 } }, clockMhz);
    for (let step = 1; step < tokens; step++) timeMs += truth.iterationTimeMs({ prefill: none, decode: { sequences: 1, contextTokens: 7 + step } }, clockMhz);
    return timeMs;
  }
  async function measureMs(url: string, tokens: number): Promise<number> {
    const startedAtMs = performance.now();
    await chat(url, tokens);
    return performance.now() - startedAtMs;
  }

  test('are those of the profile, without drift over many iterations', async () => {
    const url = await start();
    await chat(url, 1);
    const tookMs = await measureMs(url, 150);
    expect(tookMs).toBeGreaterThan(expectedMs(1980, 150) - 1);
    expect(tookMs).toBeLessThan(expectedMs(1980, 150) + 60);
  });

  test('are lower with a lock in the device file, as long as one device of the group has it', async () => {
    const url = await start();
    const driver = driverOf(1);
    lock(1, 795);
    await until(async () => driver.readTelemetry()?.clockMhz === 795);
    expect((await state(url))['clockMhz']).toBe(795);
    const tookMs = await measureMs(url, 100);
    expect(tookMs).toBeGreaterThan(expectedMs(795, 100) - 1);
    expect(tookMs).toBeLessThan(expectedMs(795, 100) + 60);
    expect(expectedMs(795, 100)).toBeGreaterThan(1.3 * expectedMs(1980, 100));
  });

  test('follow a truth that differs from the profile', async () => {
    const url = await start({ truth: { time: 2, power: 1.5 } });
    expect((await state(url))['powerW']).toBeCloseTo(1.5 * physics.idlePowerW(1980), 6);
    expect(await measureMs(url, 40)).toBeGreaterThan(2 * expectedMs(1980, 40) - 1);
  });

  test('an idle device burns its idle power and its counter ticks', async () => {
    await start();
    const driver = driverOf(0);
    // The first tick comes less than a period after the start.
    await sleep(150);
    const before = driver.readTelemetry();
    await sleep(450);
    const after = driver.readTelemetry();
    if (before === null || after === null) throw new Error('torn');
    const seconds = Number(after.energyAtNs - before.energyAtNs) / 1e9;
    expect(seconds).toBeGreaterThan(0.25);
    expect(Number(after.energyMj - before.energyMj) / 1000).toBeCloseTo((seconds * physics.idlePowerW(1980)) / 2, 0);
    expect(Number(process.hrtime.bigint() - after.energyAtNs) / 1e6).toBeLessThan(250);
    expect(after.powerMw).toBe(Math.round(physics.idlePowerW(1980) * 500));
  });
});

test('replicas have ports and consecutive devices of their own, and a lock outlives a restart', async () => {
  await start({ replicas: 2, model: 'renamed' });
  const [emulator] = emulators.splice(0) as [Emulator];
  expect(emulator.replicas.map(({ devices }) => devices)).toEqual([['sim:0', 'sim:1'], ['sim:2', 'sim:3']]);
  expect(new Set(emulator.replicas.map(({ url }) => url)).size).toBe(2);
  expect(emulator.replicas[1]?.model).toBe('renamed');
  lock(2, 1200);
  await emulator.close();
  await start({ replicas: 2 });
  expect((await state(emulators[0]?.replicas[1]?.url as string))['clockMhz']).toBe(1200);
  expect((await state(emulators[0]?.replicas[0]?.url as string))['clockMhz']).toBe(1980);
});
