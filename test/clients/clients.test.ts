// The clients that people have, unchanged but for the address: what they send and what they make of the answers goes through
// a whole gateway to a server that does as the test says.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { APICallError, embedMany, generateText, streamText } from 'ai';
import OpenAI, { toFile } from 'openai';
import OpenAI4 from 'openai4';
import { afterEach, describe, expect, test } from 'vitest';
import { chatLines } from '../fixtures/batch-client.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, startGateway } from '../fixtures/gateway-under-test.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { completion, createStubUpstream, streamEvents, USAGE } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(answer: Answer = completion): Promise<{ gateway: GatewayUnderTest; upstream: StubUpstream }> {
  const upstream = await createStubUpstream(answer);
  opened.push(upstream);
  const gateway = await startGateway([upstream], { more: 'timeouts: { drainMs: 100 }' });
  opened.push(gateway);
  return { gateway, upstream };
}

interface Said {
  readonly text: string;
  readonly promptTokens: number | undefined;
  readonly outputTokens: number | undefined;
}

/** One of them, in words that all have. */
interface Client {
  readonly name: string;
  /** It asks for the usage of its streams by itself. */
  readonly asksUsage: boolean;
  chat(baseURL: string, retries?: number): Promise<Said>;
  /** Piece by piece; returns early when `enough` says so, and lets the stream go. */
  stream(baseURL: string, enough?: (pieces: readonly string[]) => boolean): Promise<{ readonly pieces: readonly string[]; readonly usage: Omit<Said, 'text'> | null }>;
  embed(baseURL: string): Promise<readonly (readonly number[])[]>;
  /** Status and message of what it throws. */
  failure(error: unknown): { readonly status: number | undefined; readonly message: string };
}

const MESSAGES = [{ role: 'user' as const, content: 'hi' }];
const never = (): boolean => false;

/** The two differ in nothing that is used here. */
function openai(name: string, Sdk: typeof OpenAI): Client {
  const sdk = (baseURL: string, maxRetries = 0): OpenAI => new Sdk({ baseURL, apiKey: 'sk-none', maxRetries });
  return {
    name,
    asksUsage: false,
    async chat(baseURL, retries) {
      const { choices, usage } = await sdk(baseURL, retries).chat.completions.create({ model: 'm', messages: MESSAGES });
      return { text: choices[0]?.message.content ?? '', promptTokens: usage?.prompt_tokens, outputTokens: usage?.completion_tokens };
    },
    async stream(baseURL, enough = never) {
      const pieces: string[] = [];
      let usage: Omit<Said, 'text'> | null = null;
      for await (const chunk of await sdk(baseURL).chat.completions.create({ model: 'm', messages: MESSAGES, stream: true })) {
        if (chunk.usage) usage = { promptTokens: chunk.usage.prompt_tokens, outputTokens: chunk.usage.completion_tokens };
        if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
        if (enough(pieces)) break;
      }
      return { pieces, usage };
    },
    async embed(baseURL) {
      const { data } = await sdk(baseURL).embeddings.create({ model: 'm', input: ['a', 'b'] });
      return data.map(({ embedding }) => embedding);
    },
    failure: (error) => ({ status: (error as { status?: number }).status, message: (error as Error).message }),
  };
}

/** The part of its messages that its types hide behind the version of their format. */
interface Counted {
  readonly usage_metadata?: { readonly input_tokens: number; readonly output_tokens: number };
}

const langchain: Client = {
  name: '@langchain/openai',
  asksUsage: true,
  async chat(baseURL, retries = 0) {
    const answer = (await new ChatOpenAI({ model: 'm', apiKey: 'sk-none', maxRetries: retries, configuration: { baseURL } }).invoke('hi')) as unknown as Counted & { readonly text: string };
    return { text: answer.text, promptTokens: answer.usage_metadata?.input_tokens, outputTokens: answer.usage_metadata?.output_tokens };
  },
  async stream(baseURL, enough = never) {
    const pieces: string[] = [];
    let usage: Omit<Said, 'text'> | null = null;
    // To leave the loop alone leaves its request running.
    const leaving = new AbortController();
    for await (const chunk of await new ChatOpenAI({ model: 'm', apiKey: 'sk-none', maxRetries: 0, configuration: { baseURL } }).stream('hi', { signal: leaving.signal })) {
      const told = (chunk as unknown as Counted).usage_metadata;
      if (told !== undefined) usage = { promptTokens: told.input_tokens, outputTokens: told.output_tokens };
      if (chunk.text !== '') pieces.push(chunk.text);
      if (!enough(pieces)) continue;
      leaving.abort();
      break;
    }
    return { pieces, usage };
  },
  embed: (baseURL) => new OpenAIEmbeddings({ model: 'm', apiKey: 'sk-none', maxRetries: 0, configuration: { baseURL } }).embedDocuments(['a', 'b']),
  failure: (error) => ({ status: (error as { status?: number }).status, message: (error as Error).message }),
};

const vercel: Client = {
  name: "Vercel's ai",
  asksUsage: false,
  async chat(baseURL, retries = 0) {
    const { text, usage } = await generateText({ model: createOpenAICompatible({ name: 'gateway', baseURL, apiKey: 'sk-none' })('m'), prompt: 'hi', maxRetries: retries });
    return { text, promptTokens: usage.inputTokens, outputTokens: usage.outputTokens };
  },
  async stream(baseURL, enough = never) {
    const leaving = new AbortController();
    const { textStream } = streamText({ model: createOpenAICompatible({ name: 'gateway', baseURL, apiKey: 'sk-none' })('m'), prompt: 'hi', maxRetries: 0, abortSignal: leaving.signal, onError: () => {} });
    const pieces: string[] = [];
    for await (const piece of textStream) {
      pieces.push(piece);
      if (enough(pieces)) {
        leaving.abort();
        break;
      }
    }
    return { pieces, usage: null };
  },
  async embed(baseURL) {
    return (await embedMany({ model: createOpenAICompatible({ name: 'gateway', baseURL, apiKey: 'sk-none' }).embeddingModel('m'), values: ['a', 'b'], maxRetries: 0 })).embeddings;
  },
  failure: (error) => (APICallError.isInstance(error) ? { status: error.statusCode, message: error.message } : { status: undefined, message: String(error) }),
};

const CLIENTS: readonly Client[] = [openai('openai 7', OpenAI), openai('openai 4', OpenAI4 as unknown as typeof OpenAI), langchain, vercel];

const EMBEDDINGS = { object: 'list', model: 'm', data: [[1, 2], [3, 4]].map((embedding, index) => ({ object: 'embedding', index, embedding })), usage: { prompt_tokens: 2, total_tokens: 2 } };

/** Floats or base64, as the request wants them. */
const embeddings: Answer = ({ body }, _incoming, outgoing) => {
  const { encoding_format: encoding } = JSON.parse(body) as { encoding_format?: string };
  const packed = (numbers: readonly number[]): string => Buffer.from(Float32Array.from(numbers).buffer).toString('base64');
  const data = EMBEDDINGS.data.map((item) => (encoding === 'base64' ? { ...item, embedding: packed(item.embedding) } : item));
  outgoing.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ ...EMBEDDINGS, data }));
};

/** Refuses all but the last of so many requests, with the headers that tell what to do about it. */
function refusing(times: number, headers: Record<string, string>): Answer {
  let asked = 0;
  return (request, incoming, outgoing) => {
    asked += 1;
    if (asked > times) return completion(request, incoming, outgoing);
    outgoing.writeHead(429, { 'content-type': 'application/json', ...headers }).end(JSON.stringify({ error: { message: 'slow down', type: 'rate_limit_error', param: null, code: 'x' } }));
  };
}

describe.each(CLIENTS)('$name', (client) => {
  test('has its answer, and what it used', async () => {
    const { gateway } = await start();
    expect(await client.chat(`${gateway.url}/v1`)).toEqual({ text: 'Hello there!', promptTokens: USAGE.prompt_tokens, outputTokens: USAGE.completion_tokens });
  });

  test('has a stream piece by piece, with the usage that it asked for or without, and the gateway knows it all the same', async () => {
    const { gateway } = await start();
    const { pieces, usage } = await client.stream(`${gateway.url}/v1`);
    expect(pieces).toEqual(['Hello', ' there', '!']);
    expect(usage).toEqual(client.asksUsage ? { promptTokens: USAGE.prompt_tokens, outputTokens: USAGE.completion_tokens } : null);
    expect(await gateway.event('ended')).toMatchObject({ outcome: 'finished', usage: { promptTokens: 9, outputTokens: 3 } });
  });

  test('that leaves in the middle of a stream frees the server at once', async () => {
    const { gateway, upstream } = await start((_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      outgoing.write(streamEvents({ id: 'c', created: 1, model: 'm' }).slice(0, 2).join(''));
    });
    await client.stream(`${gateway.url}/v1`, (pieces) => pieces.length === 1);
    await upstream.requests[0]?.aborted;
    expect(await gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
  });

  test('has its embeddings', async () => {
    const { gateway } = await start(embeddings);
    expect(await client.embed(`${gateway.url}/v1`)).toEqual([[1, 2], [3, 4]]);
  });

  test("throws its own error with the server's status and message", async () => {
    const { gateway } = await start((_request, _incoming, outgoing) => void outgoing.writeHead(400, { 'content-type': 'application/json' }).end('{"error":{"message":"max_tokens is too large","type":"invalid_request_error","param":"max_tokens","code":null}}'));
    const error = await client.chat(`${gateway.url}/v1`).catch((thrown: unknown) => thrown);
    expect(client.failure(error)).toEqual({ status: 400, message: expect.stringContaining('max_tokens is too large') });
  });

  test("throws its own error with the gateway's status and message", async () => {
    const { gateway } = await start();
    const error = await client.chat(`${gateway.url}/v2`).catch((thrown: unknown) => thrown);
    expect(client.failure(error)).toEqual({ status: 404, message: expect.stringContaining('/v2/chat/completions') });
  });

  test('throws where the server breaks off in the middle of a stream', async () => {
    const { gateway } = await start((_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      outgoing.write(streamEvents({ id: 'c', created: 1, model: 'm' }).slice(0, 2).join(''), () => outgoing.destroy());
    });
    const outcome = await client.stream(`${gateway.url}/v1`).then(
      ({ pieces }) => `ended after ${pieces.join('')}`,
      (error: unknown) => String(error),
    );
    // Vercel's tells its caller by `onError` alone, and ends the text.
    if (client === vercel) expect(outcome).toBe('ended after Hello');
    else expect(outcome).toContain('in the middle of its answer');
  });
});

/** Those that look at the headers of a refusal; Vercel's and LangChain's own retries wait by their own measure. */
describe.each(CLIENTS.slice(0, 2))('$name, refused', (client) => {
  test('comes back when it is told to, soon where it is told how soon', async () => {
    const { gateway, upstream } = await start(refusing(2, { 'retry-after-ms': '5', 'x-should-retry': 'true' }));
    const startedAtMs = performance.now();
    expect((await client.chat(`${gateway.url}/v1`, 2)).text).toBe('Hello there!');
    expect(upstream.requests).toHaveLength(3);
    // By its own measure it waits half a second and a second.
    expect(performance.now() - startedAtMs).toBeLessThan(1_000);
  });

  test('does not come back when it is told not to', async () => {
    const { gateway, upstream } = await start(refusing(2, { 'retry-after-ms': '5', 'x-should-retry': 'false' }));
    const error = await client.chat(`${gateway.url}/v1`, 2).catch((thrown: unknown) => thrown);
    expect(client.failure(error)).toEqual({ status: 429, message: expect.stringContaining('slow down') });
    expect(upstream.requests).toHaveLength(1);
  });

  test("comes back as the gateway's own refusal says, while no replica is up", async () => {
    const { gateway, upstream } = await start();
    upstream.healthStatus = 500;
    await eventually(async () => (await fetch(`${gateway.adminUrl}/readyz`)).status === 503);
    const asked = client.chat(`${gateway.url}/v1`, 3);
    await eventually(() => gateway.events.some(({ kind }) => kind === 'arrived'));
    upstream.healthStatus = 200;
    expect((await asked).text).toBe('Hello there!');
  });

  test('does not come back where the server broke off before its answer: it may have worked on it', async () => {
    const { gateway, upstream } = await start((_request, _incoming, outgoing) => void outgoing.destroy());
    const error = await client.chat(`${gateway.url}/v1`, 2).catch((thrown: unknown) => thrown);
    expect(client.failure(error)).toEqual({ status: 502, message: expect.stringContaining('before it answered') });
    expect(upstream.requests).toHaveLength(1);
  });
});

test('openai 7 says by default headers which workflow its calls are of, and by those of a call which stage', async () => {
  const { gateway, upstream } = await start();
  const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'sk-none', defaultHeaders: { 'x-paceline-workflow-id': 'run-1', 'x-paceline-workflow-deadline-ms': '30000', 'x-paceline-workflow-name': 'report' } });
  await client.chat.completions.create({ model: 'm', messages: MESSAGES }, { headers: { 'x-paceline-workflow-stage': 'plan' } });
  expect(await client.get('/workflows/run-1')).toMatchObject({ state: 'open', name: 'report', stages: [{ stage: 'plan', state: 'ended' }] });
  expect(await client.delete('/workflows/run-1')).toMatchObject({ state: 'ended', met: true, calls: 1 });
  expect(Object.keys(upstream.requests[0]?.headers ?? {}).filter((name) => name.startsWith('x-paceline'))).toEqual([]);
});

test('openai 7 reads a stream behind comments as any other, and throws the error that comes instead', async () => {
  let asked = 0;
  const upstream = await createStubUpstream(async (request, incoming, outgoing) => {
    asked += 1;
    await new Promise((resolve) => setTimeout(resolve, 1_300));
    if (asked === 1) return completion(request, incoming, outgoing);
    outgoing.writeHead(400, { 'content-type': 'application/json' }).end('{"error":{"message":"max_tokens is too large","type":"invalid_request_error","param":"max_tokens","code":null}}');
  });
  opened.push(upstream);
  const gateway = await startGateway([upstream], { more: 'timeouts: { drainMs: 100 }\nadmission: { keepAliveMs: 1000 }' });
  opened.push(gateway);
  const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'sk-none', maxRetries: 0 });
  const answer = await client.chat.completions.create({ model: 'm', messages: MESSAGES, stream: true }).asResponse();
  // They came before the answer, or this would show nothing.
  expect(answer.headers.get('x-paceline-replica')).toBeNull();
  await answer.body?.cancel();
  asked = 0;
  expect((await (CLIENTS[0] as Client).stream(`${gateway.url}/v1`)).pieces).toEqual(['Hello', ' there', '!']);
  const error = await (CLIENTS[0] as Client).stream(`${gateway.url}/v1`).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(OpenAI.APIError);
  expect(error).toMatchObject({ message: 'max_tokens is too large', type: 'invalid_request_error', param: 'max_tokens' });
});

test.each([{ name: 'openai 7', Sdk: OpenAI }, { name: 'openai 4', Sdk: OpenAI4 as unknown as typeof OpenAI }])('$name goes the whole round of a batch', async ({ Sdk }) => {
  const directory = mkdtempSync(join(tmpdir(), 'client-batches-'));
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) });
  const upstream = await createStubUpstream(completion);
  opened.push(upstream);
  const gateway = await startGateway([upstream], { more: `timeouts: { drainMs: 100 }\nbatch: { store: { sqlite: '${join(directory, 'b.sqlite')}' } }` });
  opened.push(gateway);
  const client = new Sdk({ baseURL: `${gateway.url}/v1`, apiKey: 'sk-none', maxRetries: 0 });
  const file = await client.files.create({ file: await toFile(Buffer.from(chatLines(3)), 'in.jsonl'), purpose: 'batch' });
  const created = await client.batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h', metadata: { a: 'b' } });
  expect(created.metadata).toEqual({ a: 'b' });
  let batch = created;
  await eventually(async () => (batch = await client.batches.retrieve(created.id)).status === 'completed', 20_000);
  expect(batch.request_counts).toEqual({ total: 3, completed: 3, failed: 0 });
  const text = await (await client.files.content(batch.output_file_id ?? '')).text();
  expect(text.trimEnd().split('\n').map((line) => (JSON.parse(line) as { custom_id: string }).custom_id)).toEqual(['line-1', 'line-2', 'line-3']);
  const listed: string[] = [];
  for await (const { id } of client.batches.list({ limit: 1 })) listed.push(id);
  expect(listed).toEqual([created.id]);
  const files: string[] = [];
  for await (const { id } of client.files.list({ limit: 1 })) files.push(id);
  expect(files).toEqual([batch.output_file_id, file.id]);
  await expect(client.batches.cancel(created.id)).rejects.toMatchObject({ status: 409 });
  await client.files.delete?.(file.id);
});
