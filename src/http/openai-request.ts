// Reads from the body of an OpenAI request what a decision needs, and nothing more: the body itself goes on as it came.
import type { PromptPrefix } from '../core/job.ts';
import { unreachable } from '../core/unreachable.ts';
import type { Endpoint } from './endpoints.ts';
import { isPlainForm, multipartFields } from './multipart.ts';
import { promptPrefix } from './prompt-prefix.ts';

export interface InferenceRequest {
  /** `null` where none is named, which only some endpoints allow. */
  readonly model: string | null;
  readonly stream: boolean;
  readonly serviceTier: string | null;
  readonly maxOutputTokens: number | null;
  /** UTF-8 bytes of the text that becomes the prompt; images and audio are not counted. */
  readonly promptBytes: number;
  /** Where the prompt came as token ids. */
  readonly promptTokens: number | null;
  /** Where it was asked for and there is one. */
  readonly prefix?: PromptPrefix;
  /** There is a body, and what model a server finds in it is not known. */
  readonly unread: boolean;
  /** What the body has for `stream_options`, where its stream tells no usage unless it is asked to; else `false`. */
  readonly usageOptions: Json | null | undefined | false;
}

export type RequestReading =
  | { readonly kind: 'ok'; readonly request: InferenceRequest }
  | { readonly kind: 'bad'; readonly param: string | null; readonly message: string };

type Json = Readonly<Record<string, unknown>>;

/** `prefixSeed`: asks for the prompt's beginning to be hashed on top of it; `null` where it does not matter. */
export function readInferenceRequest(endpoint: Endpoint, body: Buffer, contentType = 'application/json', prefixSeed: (model: string) => string | null = () => null): RequestReading {
  if (endpoint === 'opaque') return { kind: 'ok', request: readOpaque(body, contentType) };
  let json: unknown;
  try {
    json = JSON.parse(body.toString('utf8'));
  } catch (error) {
    return bad(null, `We could not parse the JSON body of your request: ${error instanceof Error ? error.message : 'no JSON'}`);
  }
  if (!isObject(json)) return bad(null, 'The body must be a JSON object');
  const { model = null, service_tier: serviceTier = null } = json;
  if (model === null && endpoint !== 'prompt') return bad('model', 'you must provide a model parameter');
  if (model !== null && (typeof model !== 'string' || model === '')) return bad('model', 'model: want a non-empty string');
  if (serviceTier !== null && typeof serviceTier !== 'string') return bad('service_tier', 'service_tier: want a string');
  const tools = endpoint === 'chat' || endpoint === 'responses' || endpoint === 'messages' ? toolsText(json['tools']) : null;
  if (tools === false) return bad('tools', 'tools: nested too deeply');
  const size = promptSize(endpoint, json, tools);
  const seed = model === null ? null : prefixSeed(model);
  const prefix = seed === null ? null : promptPrefix(endpoint, json, size, tools, seed);
  const stream = json['stream'] === true;
  return {
    kind: 'ok',
    // Anthropic's tiers are other ones, and theirs to judge.
    request: { model, stream, serviceTier: endpoint === 'messages' ? null : serviceTier, maxOutputTokens: maxOutputTokens(endpoint, json), unread: false, ...size, ...(prefix === null ? {} : { prefix }), usageOptions: stream ? usageOptions(endpoint, json) : false },
  };
}

/** An upload, an image, whatever else is let through: of the size of the work nothing is known. */
function readOpaque(body: Buffer, contentType: string): InferenceRequest {
  return { ...opaqueModel(body, contentType), stream: false, serviceTier: null, maxOutputTokens: null, promptBytes: 0, promptTokens: 1, usageOptions: false };
}

/** Where it is no JSON and no plain form the server may find another model in it than we do, or one where we find none. */
function opaqueModel(body: Buffer, contentType: string): Pick<InferenceRequest, 'model' | 'unread'> {
  const field = multipartFields(body, contentType, 'model').at(-1);
  if (field !== undefined) return { model: body.toString('utf8', field.start, field.end), unread: !isPlainForm(body, contentType) };
  if (body.length === 0) return { model: null, unread: false };
  if (!/^application\/json\b/i.test(contentType)) return { model: null, unread: !isPlainForm(body, contentType) };
  try {
    const json: unknown = JSON.parse(body.toString('utf8'));
    return { model: isObject(json) && typeof json['model'] === 'string' && json['model'] !== '' ? json['model'] : null, unread: false };
  } catch {
    return { model: null, unread: true };
  }
}

function usageOptions(endpoint: Endpoint, json: Json): InferenceRequest['usageOptions'] {
  if (endpoint !== 'chat' && endpoint !== 'completions') return false;
  const options = json['stream_options'];
  if (options === undefined || options === null) return options;
  // What is no object the server refuses, in its own words.
  return isObject(options) && options['include_usage'] !== true ? options : false;
}

/** What is no positive whole number is left for the server to refuse: it knows its own limits. */
function maxOutputTokens(endpoint: Endpoint, json: Json): number | null {
  const value = endpoint === 'responses' ? json['max_output_tokens'] : (json['max_completion_tokens'] ?? json['max_tokens']);
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : null;
}

/** Where rerank, score, pooling, classify and tokenize have their text. */
const PROMPT_KEYS = ['query', 'queries', 'documents', 'items', 'text_1', 'text_2', 'prompt', 'input', 'messages', 'system'];

interface PromptSize {
  readonly promptBytes: number;
  readonly promptTokens: number | null;
}

function promptSize(endpoint: Endpoint, json: Json, tools: string | null): PromptSize {
  switch (endpoint) {
    case 'chat':
      return withTools(textBytes(json['messages']), tools);
    case 'responses':
      return withTools(textBytes(json['input']) + textBytes(json['instructions']), tools);
    case 'completions':
      return ofPrompt(json['prompt']);
    case 'embeddings':
      return ofPrompt(json['input']);
    case 'messages':
      return withTools(textBytes(json['messages']) + textBytes(json['system']), tools);
    case 'prompt':
      return { promptBytes: PROMPT_KEYS.reduce((sum, key) => sum + textBytes(json[key]), 0), promptTokens: null };
    case 'opaque':
      return { promptBytes: 0, promptTokens: 1 };
    default:
      return unreachable(endpoint);
  }
}

/** A string, several, token ids, or several lists of them. */
function ofPrompt(prompt: unknown): PromptSize {
  if (!Array.isArray(prompt) || prompt.length === 0 || typeof prompt[0] === 'string') return { promptBytes: textBytes(prompt), promptTokens: null };
  const promptTokens = typeof prompt[0] === 'number' ? prompt.length : prompt.reduce((sum: number, ids) => sum + (Array.isArray(ids) ? ids.length : 0), 0);
  return { promptBytes: 0, promptTokens };
}

/** Text in a string, a message, a content part, or a list of any of them. A fixed depth: bodies come from outside. */
function textBytes(value: unknown, depth = 0): number {
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (depth > 4 || typeof value !== 'object' || value === null) return 0;
  if (Array.isArray(value)) {
    let sum = 0;
    for (const item of value) sum += textBytes(item, depth + 1);
    return sum;
  }
  const { content, text, arguments: toolArguments, tool_calls: toolCalls, function: call, output } = value as Json;
  let sum = 0;
  for (const part of [content, text, toolArguments, toolCalls, call, output]) if (part !== undefined) sum += textBytes(part, depth + 1);
  return sum;
}

function withTools(textBytes: number, tools: string | null): PromptSize {
  return { promptBytes: textBytes + (tools === null ? 0 : Buffer.byteLength(tools)), promptTokens: null };
}

/** Chat templates write the tools into the prompt, much as they stand in the body; `null` without any, `false` where they cannot be written out again. */
function toolsText(tools: unknown): string | null | false {
  if (!Array.isArray(tools) || tools.length === 0) return null;
  try {
    return JSON.stringify(tools);
  } catch (error) {
    // `JSON.parse` takes any depth, `JSON.stringify` recurses: a few kilobytes of `[[[…` overflow its stack.
    if (error instanceof RangeError) return false;
    throw error;
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function bad(param: string | null, message: string): RequestReading {
  return { kind: 'bad', param, message };
}
