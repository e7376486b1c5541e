// The OpenAI-compatible HTTP face of one emulated replica. node:http directly: no stream adaptors between a token and its
// socket, so that the stand-in costs less than what is measured against it.
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { SleepCosts } from '../frontier/profile.ts';
import { type EngineLimits, WAITING_MAX } from './batching.ts';
import type { EngineMetrics } from './engine-metrics.ts';
import { createEngineMetrics } from './engine-metrics.ts';
import { KV_BLOCK_TOKENS } from './kv-cache.ts';
import type { Endpoint, GenerationRequest, Prompt, ServedModel } from './openai-request.ts';
import { RequestError, readEmbeddingRequest, readGenerationRequest } from './openai-request.ts';
import type { AnswerHead } from './openai-response.ts';
import { answerStream, errorBody, wholeAnswer } from './openai-response.ts';
import { outputLength } from './output-length.ts';
import { createRandom } from '../random/random.ts';
import type { RealTimeReplica } from './real-time.ts';
import { monotonicMs } from './real-time.ts';
import { createSleepMode, type SleepMode } from './sleep-mode.ts';
import { answerText, answerToken } from './text.ts';

/** A prompt of 400 000 short words is about 2.4 MB; twice that as JSON is more than any KV memory here holds. */
const BODY_BYTES_MAX = 4 * 1024 * 1024;
/** Longer than gateways keep idle connections, so that it is never this side that closes one just being used. */
const KEEP_ALIVE_MS = 75_000;

export interface ReplicaServerOptions {
  readonly replica: RealTimeReplica;
  /** Number among the replicas of this process; a label of the metrics. */
  readonly index: number;
  readonly served: ServedModel;
  readonly limits: EngineLimits;
  readonly seed: number;
  /** What its sleep mode takes; without it there is none, as in a vLLM that was started without. */
  readonly sleep?: SleepCosts;
  /** Told what becomes of every generation, at once. */
  readonly onRequest?: (note: RequestNote) => void;
}

/** By the caller's `x-request-id`. Who was accepted hears of one of the two ends, unless the server dies first. */
export interface RequestNote {
  readonly requestId: string;
  readonly kind: 'accepted' | 'first-token' | 'finished' | 'cancelled';
}

type Route = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

export function createReplicaServer({ replica, index, served, limits, seed, sleep, onRequest = () => {} }: ReplicaServerOptions): Server {
  const { model } = served;
  const random = createRandom(seed, 'server');
  const roomTokens = Math.floor(limits.kvTokens / KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS;
  const metrics: EngineMetrics = createEngineMetrics({ model, engine: index, kvTokens: limits.kvTokens });
  const startedAtS = Math.floor(Date.now() / 1000);
  const processId = randomUUID().replaceAll('-', '').slice(0, 12);
  let requests = 0;
  const answers = new Set<ServerResponse>();
  const sleepMode: SleepMode | null = sleep === undefined ? null : createSleepMode({ replica, costs: sleep, parkedMax: limits.waitingMax ?? WAITING_MAX, abortAll: () => answers.forEach((answer) => answer.destroy()) });

  const routes: Readonly<Record<string, Readonly<Record<string, Route>>>> = {
    '/v1/chat/completions': { POST: (request, response) => generate('chat', request, response) },
    '/v1/completions': { POST: (request, response) => generate('completion', request, response) },
    '/v1/responses': { POST: (request, response) => generate('response', request, response) },
    '/v1/embeddings': { POST: embed },
    '/v1/models': {
      GET: (_, response) => sendJson(response, 200, JSON.stringify({ object: 'list', data: [{ id: model, object: 'model', created: startedAtS, owned_by: 'paceline', root: model, parent: null, max_model_len: roomTokens }] })),
    },
    '/health': { GET: (_, response) => void response.writeHead(200).end() },
    '/version': { GET: (_, response) => sendJson(response, 200, '{"version":"paceline-emulated"}') },
    '/metrics': {
      GET: (_, response) => void response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(metrics.text(replica.stats())),
    },
    ...(sleepMode === null ? {} : sleepRoutes(sleepMode)),
    '/emulator/state': {
      GET: (_, response) => sendJson(response, 200, JSON.stringify({ ...replica.stats(), energyJ: replica.energyJ(), powerW: replica.powerW(), clockMhz: replica.clockMhz() })),
    },
  };

  async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('x-request-id', request.headers['x-request-id'] ?? `req_${processId}${++requests}`);
    const path = (request.url ?? '/').split('?', 1)[0] as string;
    const methods = Object.hasOwn(routes, path) ? routes[path] : undefined;
    const route = methods?.[request.method ?? ''];
    try {
      if (methods === undefined) throw new RequestError(`no such path: ${path}; there are: ${Object.keys(routes).join(', ')}`, { status: 404 });
      if (route === undefined) throw new RequestError(`${path}: got ${request.method}, want ${Object.keys(methods).join(', ')}`, { status: 405 });
      await route(request, response);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      sendJson(response, error.status, errorBody(error.message, error.status, error.param, error.code));
    }
  }

  /** A prompt that leaves no room for a token can never run; told in OpenAI's words for it. */
  function checkPrompt(prompt: Prompt, outputTokens: number): void {
    if (prompt.tokens + outputTokens <= roomTokens) return;
    throw new RequestError(`This model's maximum context length is ${roomTokens} tokens, but the prompt has ${prompt.tokens} and the answer needs ${outputTokens}.`, { param: 'messages', code: 'context_length_exceeded' });
  }

  async function generate(endpoint: Endpoint, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = readGenerationRequest(endpoint, await readJson(request), served);
    // The client is gone already: nobody is left to answer or to cancel it.
    if (request.socket.destroyed) return;
    checkPrompt(asked.prompt, 1);
    await parkedUntilAwake();
    if (request.socket.destroyed) return;
    const id = ++requests;
    const requestId = String(response.getHeader('x-request-id'));
    const note = (kind: RequestNote['kind']): void => onRequest({ requestId, kind });
    const answer = createAnswer(asked, { id, response, note });
    const submission = replica.submit({ id, promptTokens: asked.prompt.tokens, outputTokens: answer.outputTokens, prefixBlocks: asked.prompt.prefixBlocks, priority: asked.priority }, answer.hear);
    if (submission.kind === 'rejected') throw queueFull();
    note('accepted');
    answers.add(response);
    answer.start();
    response.on('close', () => {
      answers.delete(response);
      if (!replica.cancel(id)) return;
      note('cancelled');
      metrics.ended('abort', monotonicMs() - answer.arrivedAtMs);
    });
  }

  async function parkedUntilAwake(): Promise<void> {
    if (sleepMode !== null && !(await sleepMode.awake())) throw queueFull();
  }

  /** What becomes of one generation: hears the engine's events and writes them to the client. */
  function createAnswer(asked: GenerationRequest, { id, response, note }: { readonly id: number; readonly response: ServerResponse; readonly note: (kind: RequestNote['kind']) => void }) {
    const { endpoint, prompt, stream, includeUsage } = asked;
    const arrivedAtMs = monotonicMs();
    const { tokens: outputTokens, finishReason } = outputLength(asked, roomTokens - prompt.tokens, random);
    const head: AnswerHead = { endpoint, id: `${ID_PREFIXES[endpoint]}${processId}${id}`, model, createdAtS: Math.floor(Date.now() / 1000), includeUsage };
    const written = stream ? answerStream(head) : null;
    // The same prompt gets the same words, whenever and wherever it is asked.
    const textSeed = prompt.prefixBlocks.at(-1) ?? prompt.tokens;
    let lastAtMs = 0;
    let begun = false;

    return {
      outputTokens,
      arrivedAtMs,
      start: (): void => {
        if (written === null) return;
        response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' });
        response.flushHeaders();
      },
      hear: (event: { readonly kind: 'token' | 'finished'; readonly outputTokens: number; readonly cachedTokens: number }, atMs: number): void => {
        if (begun) metrics.nextToken(atMs - lastAtMs);
        else metrics.firstToken(atMs - arrivedAtMs);
        lastAtMs = atMs;
        // The events of the Responses API are numbered, so what opens the stream is asked for first.
        const opening = begun ? '' : (written?.begin() ?? '');
        const token = written?.token(answerToken(textSeed, event.outputTokens - 1)) ?? '';
        if (!begun) note('first-token');
        begun = true;
        if (event.kind === 'token') {
          if (written !== null) response.write(opening + token);
          return;
        }
        metrics.ended(finishReason, atMs - arrivedAtMs);
        note('finished');
        const usage = { promptTokens: prompt.tokens, cachedTokens: event.cachedTokens, outputTokens };
        const wholeText = written === null || endpoint === 'response' ? answerText(textSeed, outputTokens) : '';
        if (written === null) sendJson(response, 200, wholeAnswer(head, wholeText, finishReason, usage));
        else response.end(opening + token + written.end(wholeText, finishReason, usage));
      },
    };
  }

  async function embed(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { inputs, encoding, dimensions } = readEmbeddingRequest(await readJson(request), served);
    if (request.socket.destroyed) return;
    for (const input of inputs) checkPrompt(input, 0);
    await parkedUntilAwake();
    if (request.socket.destroyed) return;
    const ids: number[] = [];
    let left = inputs.length;
    const cancelAll = (): void => {
      for (const id of ids) replica.cancel(id);
    };
    const hear = (): void => {
      left--;
      if (left > 0) return;
      const promptTokens = inputs.reduce((sum, { tokens }) => sum + tokens, 0);
      const data = inputs.map((input, position) => ({ object: 'embedding', index: position, embedding: embedding(input, dimensions, encoding) }));
      sendJson(response, 200, JSON.stringify({ object: 'list', data, model, usage: { prompt_tokens: promptTokens, total_tokens: promptTokens } }));
    };
    for (const input of inputs) {
      const id = ++requests;
      if (replica.submit({ id, promptTokens: input.tokens, outputTokens: 0, prefixBlocks: input.prefixBlocks }, hear).kind === 'rejected') {
        cancelAll();
        throw queueFull();
      }
      ids.push(id);
    }
    response.on('close', cancelAll);
  }

  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => {
    respond(request, response).catch((error: unknown) => {
      // The client went away while it was sending; there is nobody to tell.
      if (request.destroyed && !request.complete) return;
      throw error;
    });
  });
  return server;
}

/** As vLLM's in its development mode. */
function sleepRoutes(mode: SleepMode): Readonly<Record<string, Readonly<Record<string, Route>>>> {
  return {
    '/sleep': {
      POST: async (request, response) => {
        const asked = new URL(request.url ?? '/', 'http://server').searchParams;
        const level = asked.get('level') ?? '1';
        if (level !== '1') throw new RequestError(`level: got ${level}, this server knows 1: weights to the host, cache discarded`, { param: 'level' });
        await mode.sleep(asked.get('mode') === 'wait' ? 'wait' : 'abort');
        response.writeHead(200).end();
      },
    },
    '/wake_up': {
      POST: async (_, response) => {
        await mode.wake();
        response.writeHead(200).end();
      },
    },
    '/is_sleeping': { GET: (_, response) => sendJson(response, 200, JSON.stringify({ is_sleeping: mode.isSleeping() })) },
  };
}

const ID_PREFIXES: Readonly<Record<Endpoint, string>> = { chat: 'chatcmpl-', completion: 'cmpl-', response: 'resp_' };

function queueFull(): RequestError {
  return new RequestError('the waiting queue is full; try again later', { status: 503, code: 'queue_full' });
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    // Read to its end all the same: a client that is still sending would not see the answer.
    if (bytes <= BODY_BYTES_MAX) chunks.push(chunk);
  }
  if (bytes > BODY_BYTES_MAX) throw new RequestError(`body: got ${bytes} bytes, at most ${BODY_BYTES_MAX} are read`, { status: 413, code: 'body_too_large' });
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown;
  } catch (error) {
    throw new RequestError(`body: not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function sendJson(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }).end(body);
}

/** A unit vector that depends on the input alone. */
function embedding({ tokens, prefixBlocks }: Prompt, dimensions: number, encoding: 'float' | 'base64'): number[] | string {
  const random = createRandom(prefixBlocks.at(-1) ?? tokens, 'embedding');
  const raw = Array.from({ length: dimensions }, () => random() * 2 - 1);
  const length = Math.hypot(...raw);
  const unit = Float32Array.from(raw, (value) => value / length);
  return encoding === 'base64' ? Buffer.from(unit.buffer).toString('base64') : [...unit];
}
