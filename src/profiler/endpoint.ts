// The model server under test: prompts of a wanted length that it has never seen, and answers of a wanted length.
import { Agent, type Dispatcher } from 'undici';
import { createCompletionStream } from '../loadgen/completion-stream.ts';
import { createPromptText } from '../loadgen/prompt-text.ts';
import { readServerLoad } from '../upstream/server-metrics.ts';

/** The server refused, broke off, or answers otherwise than was asked for. */
export class EndpointError extends Error {
  override name = 'EndpointError';
}

export interface Answer {
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly cachedTokens: number;
  readonly firstTokenAtMs: number;
  readonly lastTokenAtMs: number;
}

export interface EndpointUnderTest {
  readonly model: string;
  /** One answer as a stream, read to its end. */
  ask(request: { readonly promptTokens: number; readonly outputTokens: number; readonly signal?: AbortSignal; readonly onToken?: (tokens: number, atMs: number) => void }): Promise<Answer>;
  /** Streams that only keep the engine busy; nobody reads them. `accepted` when the server has answered all of them, `release` when all are let go. */
  occupy(streams: number, request: { readonly promptTokens: number; readonly outputTokens: number }): { readonly accepted: () => Promise<void>; readonly release: () => Promise<void>; readonly failed: () => string | null };
  /** Requests that the server itself says it runs and keeps waiting; `null` where it does not tell. */
  load(): Promise<{ readonly running: number; readonly waiting: number } | null>;
  /** Makes prompts as long as they are asked for: how many of the server's tokens are a word. */
  calibrate(): Promise<void>;
  /** Tokens of its KV memory, as vLLM's metrics tell; `null`: not told. */
  kvTokens(): Promise<number | null>;
  close(): Promise<void>;
}

export interface EndpointOptions {
  readonly url: string;
  readonly model: string | null;
  readonly apiKey: string | null;
  readonly endpoint: 'completions' | 'chat';
  /** Chooses the words; another one each time, so that no cache knows them. */
  readonly salt: number;
  readonly now: () => number;
  /** Whatever is under way ends with it, by an error that is nobody's fault. */
  readonly signal: AbortSignal;
}

const CONNECT_MS = 10_000;
/** Of one request: a long prompt on a slow clock takes seconds, and streams that only occupy live as long as the window. */
const REQUEST_MS_MAX = 600_000;
const CALIBRATION_WORDS = 400;

/** Throws `EndpointError` where the server cannot be reached or names no model. */
export async function openEndpoint(options: EndpointOptions): Promise<EndpointUnderTest> {
  const { endpoint, apiKey, now } = options;
  const origin = options.url.replace(/\/(v1\/?)?$/, '');
  const dispatcher = new Agent({ connections: null, pipelining: 1, connectTimeout: CONNECT_MS, headersTimeout: 0, bodyTimeout: 0 });
  const headers = { 'content-type': 'application/json', ...(apiKey === null ? {} : { authorization: `Bearer ${apiKey}` }) };
  const prompts = createPromptText(options.salt);
  let asked = 0;
  let wordsPerToken = 1;
  let tokensBeside = 0;
  /** Not every server knows how to go on after an end; then answers may be shorter than was asked for. */
  let ignoresEos = true;
  const model = options.model ?? (await firstModel());

  async function get(path: string): Promise<string> {
    try {
      const { statusCode, body } = await dispatcher.request({ origin, path, method: 'GET', headers, headersTimeout: CONNECT_MS, signal: AbortSignal.any([AbortSignal.timeout(CONNECT_MS), options.signal]) });
      const text = await body.text();
      if (statusCode !== 200) throw new EndpointError(`GET ${origin}${path} was answered ${statusCode}: ${text.slice(0, 120)}`);
      return text;
    } catch (error) {
      if (error instanceof EndpointError || options.signal.aborted) throw error;
      throw new EndpointError(`${origin} cannot be reached: ${messageOf(error)}`, { cause: error });
    }
  }

  async function firstModel(): Promise<string> {
    const text = await get('/v1/models');
    try {
      const { data } = JSON.parse(text) as { data: { id: string }[] };
      const id = data[0]?.id;
      if (typeof id === 'string') return id;
    } catch {
      // Said below.
    }
    throw new EndpointError(`GET ${origin}/v1/models names no model: ${text.slice(0, 120)}; name one with --model`);
  }

  function bodyOf(promptTokens: number, outputTokens: number): string {
    asked += 1;
    // A prompt begins with its number, the largest part first: of numbers in a row all would begin alike, and a cache would know them.
    const text = prompts.of({ atMs: 0, promptTokens: Math.max(1, Math.round((promptTokens - tokensBeside) * wordsPerToken)), outputTokens }, Math.imul(asked, 0x9e3779b1) >>> 1);
    return JSON.stringify({
      model,
      ...(endpoint === 'chat' ? { messages: [{ role: 'user', content: text }] } : { prompt: text }),
      max_tokens: outputTokens,
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
      ...(ignoresEos ? { ignore_eos: true, min_tokens: outputTokens } : {}),
    });
  }

  async function open(promptTokens: number, outputTokens: number, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
    const answer = await dispatcher.request({ origin, path: endpoint === 'chat' ? '/v1/chat/completions' : '/v1/completions', method: 'POST', headers, body: bodyOf(promptTokens, outputTokens), signal });
    if (answer.statusCode === 200) return answer;
    const text = (await answer.body.text()).slice(0, 200);
    if (ignoresEos && (answer.statusCode === 400 || answer.statusCode === 422)) {
      ignoresEos = false;
      return open(promptTokens, outputTokens, signal);
    }
    throw new EndpointError(`${origin} answered ${answer.statusCode}: ${text}`);
  }

  async function ask({ promptTokens, outputTokens, signal, onToken }: Parameters<EndpointUnderTest['ask']>[0]): Promise<Answer> {
    const limit = AbortSignal.any([AbortSignal.timeout(REQUEST_MS_MAX), options.signal, ...(signal === undefined ? [] : [signal])]);
    const stream = createCompletionStream();
    let lastAtMs = Number.NaN;
    try {
      const { body } = await open(promptTokens, outputTokens, limit);
      let seen = 0;
      for await (const chunk of body) {
        const atMs = now();
        lastAtMs = atMs;
        stream.push(chunk as Buffer, atMs);
        const { contentEvents } = stream.measured();
        if (contentEvents > seen) onToken?.(contentEvents, atMs);
        seen = contentEvents;
      }
    } catch (error) {
      if (error instanceof EndpointError || signal?.aborted === true || options.signal.aborted) throw error;
      throw new EndpointError(`${origin}: ${messageOf(error)}`, { cause: error });
    }
    const end = stream.end();
    const { usage, ...told } = stream.measured();
    // A token may have no text: the first bytes of a character that others would have ended. It came with the end, at the latest.
    const untold = end.kind === 'complete' && usage !== null && usage.outputTokens > 0 ? lastAtMs : null;
    const [firstTokenAtMs, lastTokenAtMs] = [told.firstTokenAtMs ?? untold, told.lastTokenAtMs ?? untold];
    if (end.kind !== 'complete' || firstTokenAtMs === null || lastTokenAtMs === null) throw new EndpointError(`${origin}: an answer ${end.kind === 'error' ? `failed: ${end.message}` : end.kind === 'truncated' ? 'broke off' : 'had no token'}`);
    // How long a prompt was in the server's tokens nobody else can say; a profile by our words would be wrong by a third and look right.
    if (usage === null) throw new EndpointError(`${origin}: an answer has no usage (stream_options.include_usage was asked for): without it nobody knows how many tokens a prompt had`);
    return { promptTokens: usage.promptTokens, outputTokens: usage.outputTokens, cachedTokens: usage.cachedTokens ?? 0, firstTokenAtMs, lastTokenAtMs };
  }

  return {
    model,
    ask,
    occupy(streams, { promptTokens, outputTokens }) {
      const stop = new AbortController();
      const ending = AbortSignal.any([stop.signal, options.signal]);
      let failure: string | null = null;
      const opened: Promise<unknown>[] = [];
      const all = Array.from({ length: streams }, async () => {
        try {
          const opening = open(promptTokens, outputTokens, ending);
          opened.push(opening);
          const { body } = await opening;
          // What nobody reads is thrown away as it comes: a full socket would stall the server's writer.
          await body.dump({ limit: Number.MAX_SAFE_INTEGER, signal: ending });
          if (!ending.aborted) failure ??= 'a stream that was to occupy the engine ended too soon: the server must know ignore_eos, or --max-output-tokens must be larger';
        } catch (error) {
          if (!ending.aborted) failure ??= messageOf(error);
        }
      });
      return {
        accepted: async () => void (await Promise.allSettled(opened)),
        failed: () => failure,
        release: async () => {
          stop.abort();
          await Promise.all(all);
        },
      };
    },
    load: async () => {
      try {
        const load = readServerLoad(await get('/metrics'));
        return load === null ? null : { running: load.running, waiting: load.waiting };
      } catch {
        return null;
      }
    },
    calibrate: async () => {
      const short = await ask({ promptTokens: CALIBRATION_WORDS / 4, outputTokens: 1 });
      const long = await ask({ promptTokens: CALIBRATION_WORDS, outputTokens: 1 });
      const tokensPerWord = (long.promptTokens - short.promptTokens) / (0.75 * CALIBRATION_WORDS);
      if (!(tokensPerWord > 0)) throw new EndpointError(`${origin} counts ${short.promptTokens} tokens for a prompt of ${CALIBRATION_WORDS / 4} words and ${long.promptTokens} for one of ${CALIBRATION_WORDS}; its usage cannot be relied on`);
      wordsPerToken = 1 / tokensPerWord;
      tokensBeside = long.promptTokens - CALIBRATION_WORDS * tokensPerWord;
    },
    kvTokens: async () => {
      const page = await get('/metrics').catch(() => '');
      const line = page.split('\n').find((one) => one.startsWith('vllm:cache_config_info{'));
      const [block, blocks] = ['block_size', 'num_gpu_blocks'].map((label) => Number(new RegExp(`${label}="(\\d+)"`).exec(line ?? '')?.[1]));
      return block !== undefined && blocks !== undefined && block * blocks > 0 ? block * blocks : null;
    },
    close: () => dispatcher.destroy(),
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
