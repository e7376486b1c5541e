// From an OpenAI request body to what the emulated engine is asked to do, or to the reason why not.
import { createPromptReader } from './text.ts';
import type { PromptReader } from './text.ts';

export type Endpoint = 'chat' | 'completion' | 'response';

/** Tokens of a completion that names no limit, as in OpenAI's and vLLM's legacy endpoint; chat has none. */
const COMPLETION_TOKENS_DEFAULT = 16;
/** OpenAI's bound on the inputs of one embeddings call. */
export const EMBEDDING_INPUTS_MAX = 2048;
/** Numbers per embedding where the request names none; enough to see that there is one. */
const EMBEDDING_DIMENSIONS_DEFAULT = 16;
/** OpenAI's largest embedding has 3072. */
const EMBEDDING_DIMENSIONS_MAX = 4096;

export interface Prompt {
  readonly tokens: number;
  readonly prefixBlocks: readonly number[];
}

export interface GenerationRequest {
  readonly endpoint: Endpoint;
  readonly prompt: Prompt;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** The client's limit; `null` for none. */
  readonly maxTokens: number | null;
  readonly minTokens: number;
  readonly ignoreEos: boolean;
  /** `metadata.emulate_output_tokens`: where the answer would end by itself. A hint of load generators; no gateway reads it. */
  readonly naturalTokens: number | null;
  readonly priority: number;
}

export interface EmbeddingRequest {
  readonly inputs: readonly Prompt[];
  readonly encoding: 'float' | 'base64';
  readonly dimensions: number;
}

/** The client's fault. What OpenAI's error body holds, and the status. */
export class RequestError extends Error {
  override name = 'RequestError';
  readonly status: number;
  readonly param: string | null;
  readonly code: string | null;
  constructor(message: string, { status = 400, param = null, code = null }: { status?: number; param?: string | null; code?: string | null } = {}) {
    super(message);
    this.status = status;
    this.param = param;
    this.code = code;
  }
}

type Body = Readonly<Record<string, unknown>>;

export interface ServedModel {
  readonly model: string;
  /** vLLM's `--scheduling-policy priority`; without it a `priority` is refused, as there. */
  readonly priorityScheduling: boolean;
}

/** Throws `RequestError`, for a body that the real server would refuse too. */
export function readGenerationRequest(endpoint: Endpoint, json: unknown, served: ServedModel): GenerationRequest {
  const body = asBody(json);
  checkModel(body, served.model);
  if ((body['n'] ?? 1) !== 1) throw new RequestError(`n: got ${shown(body['n'])}, the emulated engine gives 1 answer a request`, { param: 'n' });
  const prompt = createPromptReader();
  if (endpoint === 'chat') readMessages(prompt, body['messages'], 'messages');
  else if (endpoint === 'completion') readPrompt(prompt, body['prompt']);
  else readResponseInput(prompt, body);

  const metadata = body['metadata'] ?? {};
  if (typeof metadata !== 'object') throw new RequestError(`metadata: got ${shown(metadata)}, want an object`, { param: 'metadata' });
  const naturalTokens = wholeNumber(hintOf(metadata as Body), 'metadata.emulate_output_tokens', 1);
  const limitName = endpoint === 'response' ? 'max_output_tokens' : (body['max_completion_tokens'] ?? null) === null ? 'max_tokens' : 'max_completion_tokens';
  const limit = wholeNumber(body[limitName], limitName, 1);
  const priority = wholeNumber(body['priority'], 'priority', Number.MIN_SAFE_INTEGER) ?? 0;
  if (priority !== 0 && !served.priorityScheduling) throw new RequestError(`priority: got ${priority}, but priority scheduling is not enabled (--scheduling-policy priority)`, { param: 'priority' });
  const streamOptions = (body['stream_options'] ?? {}) as Body;
  return {
    endpoint,
    prompt: { tokens: prompt.tokens(), prefixBlocks: prompt.prefixBlocks() },
    stream: flag(body, 'stream'),
    includeUsage: flag(streamOptions, 'include_usage', 'stream_options.'),
    maxTokens: limit ?? (endpoint === 'completion' && naturalTokens === null ? COMPLETION_TOKENS_DEFAULT : null),
    minTokens: wholeNumber(body['min_tokens'], 'min_tokens', 0) ?? 0,
    ignoreEos: flag(body, 'ignore_eos'),
    naturalTokens,
    priority,
  };
}

export function readEmbeddingRequest(json: unknown, served: ServedModel): EmbeddingRequest {
  const body = asBody(json);
  checkModel(body, served.model);
  const { input } = body;
  const single = typeof input === 'string' || isTokenIds(input);
  const inputs = single ? [input] : input;
  if (!Array.isArray(inputs) || inputs.length === 0 || inputs.length > EMBEDDING_INPUTS_MAX) throw new RequestError(`input: want a text, token ids, or 1 to ${EMBEDDING_INPUTS_MAX} of them`, { param: 'input' });
  const encoding = body['encoding_format'] ?? 'float';
  if (encoding !== 'float' && encoding !== 'base64') throw new RequestError(`encoding_format: got ${shown(encoding)}, allowed: float, base64`, { param: 'encoding_format' });
  return {
    inputs: inputs.map((one: unknown) => {
      const prompt = createPromptReader();
      if (typeof one === 'string') prompt.addText(one);
      else if (isTokenIds(one)) prompt.addTokenIds(one);
      else throw new RequestError(`input: got ${shown(one)} among the inputs, want texts or arrays of token ids`, { param: 'input' });
      return asPrompt(prompt, 'input');
    }),
    encoding,
    dimensions: wholeNumber(body['dimensions'], 'dimensions', 1, EMBEDDING_DIMENSIONS_MAX) ?? EMBEDDING_DIMENSIONS_DEFAULT,
  };
}

function asBody(json: unknown): Body {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new RequestError(`body: got ${shown(json)}, want a JSON object`);
  return json as Body;
}

function checkModel({ model }: Body, served: string): void {
  if (typeof model !== 'string') throw new RequestError(`model: got ${shown(model)}, want a text`, { param: 'model' });
  if (model !== served) throw new RequestError(`The model \`${model}\` does not exist; this server has \`${served}\`.`, { status: 404, param: 'model', code: 'model_not_found' });
}

function asPrompt(reader: PromptReader, param: string): Prompt {
  if (reader.tokens() === 0) throw new RequestError(`${param}: got an empty prompt, want at least one token`, { param });
  return { tokens: reader.tokens(), prefixBlocks: reader.prefixBlocks() };
}

function readPrompt(reader: PromptReader, prompt: unknown): void {
  const only = Array.isArray(prompt) && prompt.length === 1 && (typeof prompt[0] === 'string' || isTokenIds(prompt[0])) ? (prompt[0] as unknown) : prompt;
  if (typeof only === 'string') reader.addText(only);
  else if (isTokenIds(only)) reader.addTokenIds(only);
  else throw new RequestError(`prompt: got ${shown(prompt)}, want one text or one array of token ids`, { param: 'prompt' });
  asPrompt(reader, 'prompt');
}

function readMessages(reader: PromptReader, messages: unknown, param: string): void {
  if (!Array.isArray(messages) || messages.length === 0) throw new RequestError(`${param}: got ${shown(messages)}, want at least one message`, { param });
  messages.forEach((message: unknown, index) => {
    const { role, content } = (message ?? {}) as Body;
    if (typeof role !== 'string') throw new RequestError(`${param}[${index}].role: got ${shown(role)}, want a text`, { param });
    reader.startMessage(role);
    readContent(reader, content, `${param}[${index}].content`);
  });
}

function readContent(reader: PromptReader, content: unknown, param: string): void {
  // An assistant's message that only called tools has no content.
  if (content === undefined || content === null) return;
  if (typeof content === 'string') {
    reader.addText(content);
    return;
  }
  if (!Array.isArray(content)) throw new RequestError(`${param}: got ${shown(content)}, want a text or an array of parts`, { param });
  for (const part of content as unknown[]) {
    const { type, text } = (part ?? {}) as Body;
    if (typeof text !== 'string') throw new RequestError(`${param}: got a part of type ${shown(type)}, the emulated model reads text only`, { param });
    reader.addText(text);
  }
}

function readResponseInput(reader: PromptReader, body: Body): void {
  const { input, instructions } = body;
  if ((body['previous_response_id'] ?? null) !== null) throw new RequestError('previous_response_id: the emulated engine keeps no responses; send the whole input', { param: 'previous_response_id' });
  if (typeof instructions === 'string') readMessages(reader, [{ role: 'system', content: instructions }], 'instructions');
  readMessages(reader, typeof input === 'string' ? [{ role: 'user', content: input }] : input, 'input');
}

function isTokenIds(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0 && value.every((item) => Number.isInteger(item) && (item as number) >= 0);
}

/** OpenAI's metadata holds texts only, so a number may come as one. */
function hintOf(metadata: Body): unknown {
  const hint = metadata['emulate_output_tokens'];
  return typeof hint === 'string' && hint.trim() !== '' ? Number(hint) : hint;
}

function wholeNumber(value: unknown, param: string, min: number, max = Number.MAX_SAFE_INTEGER): number | null {
  if (value === undefined || value === null) return null;
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) throw new RequestError(`${param}: got ${shown(value)}, want a whole number from ${min} to ${max}`, { param });
  return value as number;
}

function flag(body: Body, name: string, path = ''): boolean {
  const value = body[name] ?? false;
  if (typeof value !== 'boolean') throw new RequestError(`${path}${name}: got ${shown(value)}, want true or false`, { param: `${path}${name}` });
  return value;
}

/** A value as the client wrote it, cut short. */
function shown(value: unknown): string {
  try {
    return (JSON.stringify(value) ?? 'nothing').slice(0, 80);
  } catch {
    // It recurses, and a client may nest as deep as it likes.
    return 'something nested too deeply';
  }
}
