// The routes that go on to a model server, and what each is to the gateway: how its body tells the model, what kind of
// work it is, and in whose words its errors are told.

/** What a body is read as. `prompt`: JSON with a prompt and no answer to generate. `opaque`: nothing but the model is looked for. */
export type Endpoint = 'chat' | 'completions' | 'responses' | 'embeddings' | 'messages' | 'prompt' | 'opaque';

/** By path; all of them take POST. */
export const ENDPOINTS: ReadonlyMap<string, Endpoint> = new Map<string, Endpoint>([
  ['/v1/chat/completions', 'chat'],
  ['/v1/completions', 'completions'],
  ['/v1/responses', 'responses'],
  ['/v1/embeddings', 'embeddings'],
  // Anthropic's, for servers that speak it.
  ['/v1/messages', 'messages'],
  ['/v1/messages/count_tokens', 'prompt'],
  // vLLM's and SGLang's, under the names that their documents give.
  ['/v1/rerank', 'prompt'],
  ['/v2/rerank', 'prompt'],
  ['/rerank', 'prompt'],
  ['/v1/score', 'prompt'],
  ['/score', 'prompt'],
  ['/pooling', 'prompt'],
  ['/classify', 'prompt'],
  ['/tokenize', 'prompt'],
  ['/detokenize', 'prompt'],
  ['/v1/audio/speech', 'opaque'],
  ['/v1/audio/transcriptions', 'opaque'],
  ['/v1/audio/translations', 'opaque'],
  ['/v1/images/generations', 'opaque'],
  ['/v1/images/edits', 'opaque'],
  ['/v1/images/variations', 'opaque'],
]);

/** OpenTelemetry's names where it has one; all of chat's kin are `chat`. */
const OPERATIONS: Readonly<Partial<Record<Endpoint, string>>> = { chat: 'chat', responses: 'chat', messages: 'chat', completions: 'text_completion', embeddings: 'embeddings' };
const OPERATION_OF_PATH = new Map([...ENDPOINTS].map(([path, endpoint]) => [path, OPERATIONS[endpoint] ?? path.replace(/^\/(v\d\/)?/, '').replaceAll('/', '_')]));

/** What telemetry calls it, from a closed list: paths that pass through are one. */
export function operationOf(path: string): string {
  return OPERATION_OF_PATH.get(path) ?? 'pass_through';
}

/** Whose shape a refusal has. */
export type Dialect = 'openai' | 'anthropic';

export function dialectOf(path: string): Dialect {
  return path.startsWith('/v1/messages') ? 'anthropic' : 'openai';
}

/** `TRACE` would echo the key of the replica; `CONNECT` is no request at all. */
const PASSING_METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']);

/**
 * A path of the allow-list: as it stands, or everything below where it ends in `/*`. None that a server might read as another
 * one: dots that walk, empty segments, escapes and parameters are out.
 */
export function isAllowed(method: string, path: string, allowed: readonly string[]): boolean {
  if (allowed.length === 0 || !PASSING_METHODS.has(method) || !/^(\/(?!\.{1,2}(\/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)+\/?$/.test(path)) return false;
  return allowed.some((pattern) => (pattern.endsWith('/*') ? path.startsWith(pattern.slice(0, -1)) : path === pattern));
}
