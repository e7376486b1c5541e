// The one place where anything that goes wrong becomes a status and a body, in OpenAI's error shape or Anthropic's.
import type { ServerResponse } from 'node:http';
import { STATUS_CODES } from 'node:http';
import type { LimitKind } from '../core/tenant-limits.ts';
import { unreachable } from '../core/unreachable.ts';
import type { RejectReason } from '../scheduler/events.ts';
import type { Dialect } from './endpoints.ts';

/** Everything that keeps a request from its answer, as a closed list. */
export type Refusal =
  | { readonly kind: 'bad-request'; readonly param: string | null; readonly message: string }
  | { readonly kind: 'malformed'; readonly why: string }
  /** Or too many of them: Node does not always say which. */
  | { readonly kind: 'headers-too-large'; readonly bytesMax: number; readonly headersMax: number }
  | { readonly kind: 'request-timeout' }
  | { readonly kind: 'too-many-connections' }
  | { readonly kind: 'unauthorized'; readonly message: string }
  | { readonly kind: 'unknown-route'; readonly method: string; readonly path: string }
  | { readonly kind: 'wrong-method'; readonly method: string; readonly path: string; readonly allowed: string }
  | { readonly kind: 'unknown-model'; readonly model: string; /** Where it stands; default `model`. */ readonly param?: string }
  | { readonly kind: 'body-too-large'; readonly bytesMax: number }
  | { readonly kind: 'body-encoded'; readonly encoding: string }
  | { readonly kind: 'rejected'; readonly reason: Exclude<RejectReason, 'unknown-model'>; readonly retryAfterMs: number | null }
  | { readonly kind: 'no-such-object'; readonly object: 'File' | 'Batch' | 'Workflow'; readonly id: string }
  | { readonly kind: 'batch-bound'; readonly what: 'files' | 'file bytes' | 'batches in progress'; readonly max: number }
  | { readonly kind: 'conflict'; readonly message: string }
  /** At the fastest all of it would take so long. */
  | { readonly kind: 'workflow-infeasible'; readonly deadlineMs: number; readonly fastestMs: number }
  /** `max`: of the tenant's open ones; `null`: what is kept of all tenants together, or of all nodes of one, is at its bound. */
  | { readonly kind: 'workflows-full'; readonly tenant: string; readonly max: number | null }
  | { readonly kind: 'batch-store-lost' }
  /** Of its tenant's limits. */
  | { readonly kind: 'limit'; readonly limit: LimitKind; readonly tenant: string; readonly allowed: number; readonly asked: number; readonly retryAfterMs: number | null }
  | { readonly kind: 'upstream-unreachable' }
  /** `answering`: it broke off in the middle of its answer. */
  | { readonly kind: 'upstream-broken'; readonly answering: boolean }
  | { readonly kind: 'upstream-refused-us' }
  /** Its own status, with words of ours. */
  | { readonly kind: 'upstream-failed'; readonly status: number; readonly message: string }
  /** The headers of an event stream are out already, and what came is none. */
  | { readonly kind: 'upstream-no-stream'; readonly got: string }
  | { readonly kind: 'upstream-timeout'; readonly answering: boolean };

export interface ErrorBody {
  readonly error: { readonly message: string; readonly type: string; readonly param: string | null; readonly code: string | null };
}

export interface ErrorResponse {
  readonly status: number;
  /** Name, value, name, value … beyond those that every answer has. */
  readonly headers: readonly string[];
  readonly body: ErrorBody;
}

/** Those that a mistyped one most likely meant. */
const NAMED_PATHS = ['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/embeddings', '/v1/messages', '/v1/models'];
/** Of a replica that is down: probes come every second, so asking again sooner finds nothing new. */
const NO_REPLICA_RETRY_MS = 1_000;
/** Of a store that is away: what is mended in less is not seen by anybody. */
const BATCH_STORE_RETRY_MS = 5_000;
/** Of as many workflows as may be: they end within seconds or minutes. */
const WORKFLOWS_RETRY_MS = 5_000;
/** Of a full house: connections come and go by the second. */
const CONNECTION_RETRY_MS = 1_000;

export function errorResponse(refusal: Refusal): ErrorResponse {
  switch (refusal.kind) {
    case 'bad-request':
      return answer(400, 'invalid_request_error', null, refusal.message, { param: refusal.param });
    case 'malformed':
      return answer(400, 'invalid_request_error', 'malformed_request', `The request is not well-formed HTTP: ${refusal.why}`);
    case 'headers-too-large':
      return answer(431, 'invalid_request_error', 'headers_too_large', `The request has more than the ${refusal.bytesMax} bytes of target and headers allowed, or more than ${refusal.headersMax} headers`);
    case 'request-timeout':
      return answer(408, 'invalid_request_error', 'request_timeout', 'The request did not arrive in time');
    case 'too-many-connections':
      return answer(503, 'server_error', 'too_many_connections', 'Too many connections are open', { headers: retryHeaders(CONNECTION_RETRY_MS) });
    case 'unauthorized':
      return answer(401, 'invalid_request_error', 'invalid_api_key', refusal.message, { headers: ['www-authenticate', 'Bearer'] });
    case 'unknown-route':
      return answer(404, 'invalid_request_error', 'unknown_url', `Unknown request URL: ${refusal.method} ${refusal.path}; there are ${NAMED_PATHS.join(', ')} and others that the README lists; further ones go on by passThrough, metrics and health are on the admin listener`);
    case 'wrong-method':
      return answer(405, 'invalid_request_error', 'method_not_supported', `${refusal.path} takes ${refusal.allowed}, and not ${refusal.method}`, { headers: ['allow', refusal.allowed] });
    case 'unknown-model':
      return answer(404, 'invalid_request_error', 'model_not_found', `The model '${refusal.model}' does not exist; GET /v1/models lists those that do`, { param: refusal.param ?? 'model' });
    case 'body-too-large':
      return answer(413, 'invalid_request_error', 'request_too_large', `The request body is larger than the ${refusal.bytesMax} bytes allowed`);
    case 'body-encoded':
      return answer(415, 'invalid_request_error', null, `content-encoding: got '${refusal.encoding}', want none`);
    case 'rejected':
      return rejected(refusal.reason, refusal.retryAfterMs);
    case 'no-such-object':
      return answer(404, 'invalid_request_error', null, `No such ${refusal.object} object: ${refusal.id}`, { param: 'id' });
    case 'batch-bound':
      // It becomes less only when somebody deletes something or a batch ends, which no short wait brings about.
      return answer(429, 'rate_limit_error', 'batch_limit_exceeded', `There are as many ${refusal.what} as allowed: ${refusal.max}`, { headers: retryHeaders(null) });
    case 'conflict':
      return answer(409, 'invalid_request_error', null, refusal.message, { headers: retryHeaders(null) });
    case 'workflow-infeasible':
      return answer(429, 'rate_limit_error', 'deadline_infeasible', `The workflow cannot be finished within ${Math.round(refusal.deadlineMs)} ms: with all of its calls at full speed it takes about ${Math.ceil(refusal.fastestMs)} ms`, {
        param: 'deadlineMs',
        headers: ['x-llm-d-request-dropped-reason', 'rejected-ttl-expired', ...retryHeaders(null)],
      });
    case 'workflows-full':
      return answer(429, 'rate_limit_error', 'workflow_limit_exceeded', refusal.max === null ? 'As many workflows are open, or their nodes, as are kept; end some (DELETE /v1/workflows/ID), or come back' : `'${refusal.tenant}' has as many workflows open as allowed: ${refusal.max}; end some (DELETE /v1/workflows/ID), or come back`, {
        headers: ['x-llm-d-request-dropped-reason', 'rejected-saturated', ...retryHeaders(WORKFLOWS_RETRY_MS)],
      });
    case 'batch-store-lost':
      return answer(503, 'server_error', 'batch_store_unavailable', 'Files and batches cannot be reached now', { headers: retryHeaders(BATCH_STORE_RETRY_MS) });
    case 'limit':
      return overLimit(refusal);
    case 'upstream-unreachable':
      return answer(502, 'server_error', 'upstream_unreachable', 'The model server could not be reached', { headers: retryHeaders(NO_REPLICA_RETRY_MS) });
    case 'upstream-broken':
      // It may have worked on the request already: whether to send it again is for the caller to say.
      return answer(502, 'server_error', 'upstream_broken', `The model server closed the connection ${refusal.answering ? 'in the middle of its answer' : 'before it answered'}`, { headers: ['x-should-retry', 'false'] });
    case 'upstream-refused-us':
      return answer(502, 'server_error', 'upstream_refused', "The model server refused the gateway's own credentials", { headers: ['x-should-retry', 'false'] });
    case 'upstream-failed':
      return answer(refusal.status, refusal.status === 429 ? 'rate_limit_error' : refusal.status < 500 ? 'invalid_request_error' : 'server_error', null, refusal.message);
    case 'upstream-no-stream':
      return answer(502, 'server_error', 'upstream_no_stream', `The model server answered with ${refusal.got}, where a readable event stream was asked for and has been begun`, { headers: ['x-should-retry', 'false'] });
    case 'upstream-timeout':
      return answer(504, 'server_error', 'upstream_timeout', refusal.answering ? 'The model server fell silent in the middle of its answer' : 'The model server did not answer in time', { headers: ['x-should-retry', 'false'] });
    default:
      return unreachable(refusal);
  }
}

/** Sends a refusal where no part of an answer has been sent yet. */
export function writeRefusal(outgoing: ServerResponse, refusal: Refusal, requestId: string, dialect: Dialect = 'openai'): void {
  if (outgoing.headersSent || outgoing.destroyed) return;
  const response = errorResponse(refusal);
  const bytes = Buffer.from(JSON.stringify(bodyIn(dialect, response)));
  // HTTP/2 has no header of this kind: there the connection itself says that it closes.
  const more = outgoing.req.httpVersionMajor === 1 && closes(refusal) ? ['connection', 'close'] : [];
  outgoing.writeHead(response.status, ['content-type', 'application/json', 'content-length', String(bytes.length), 'x-request-id', requestId, ...response.headers, ...more]);
  outgoing.end(bytes);
}

/** The same as text, for a connection on which HTTP/1.1 has no request to answer: it could not be read, or is not wanted. */
export function rawRefusal(refusal: Refusal, requestId: string): string {
  const { status, headers, body } = errorResponse(refusal);
  const text = JSON.stringify(body);
  const all = ['content-type', 'application/json', 'content-length', String(Buffer.byteLength(text)), 'x-request-id', requestId, ...headers, 'connection', 'close'];
  const lines = pairsOf(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${text}`;
}

/** And as the answer of a route. */
export function refusalResponse(refusal: Refusal, requestId: string): Response {
  const { status, headers, body } = errorResponse(refusal);
  return Response.json(body, { status, headers: [['x-request-id', requestId], ...pairsOf(headers)] });
}

function pairsOf(headers: readonly string[]): [name: string, value: string][] {
  return Array.from({ length: headers.length / 2 }, (_, index) => [headers[2 * index] as string, headers[2 * index + 1] as string]);
}

/** After these the connection is of no use: we go away, or cannot tell where the next request begins. */
function closes(refusal: Refusal): boolean {
  return refusal.kind === 'malformed' || refusal.kind === 'request-timeout' || (refusal.kind === 'rejected' && refusal.reason === 'draining');
}

/** What breaks an event stream that has begun: SDKs turn a payload with `error` into an exception. */
export function errorEvent(refusal: Refusal, dialect: Dialect = 'openai'): string {
  const name = dialect === 'anthropic' ? 'event: error\n' : '';
  return `${name}data: ${JSON.stringify(bodyIn(dialect, errorResponse(refusal)))}\n\n`;
}

function bodyIn(dialect: Dialect, { status, body }: ErrorResponse): object {
  if (dialect === 'openai') return body;
  const type = ANTHROPIC_TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error');
  return { type: 'error', error: { type, message: body.error.message } };
}

const ANTHROPIC_TYPES: Readonly<Record<number, string>> = { 401: 'authentication_error', 404: 'not_found_error', 413: 'request_too_large', 429: 'rate_limit_error', 503: 'overloaded_error', 504: 'timeout_error' };

function rejected(reason: Exclude<RejectReason, 'unknown-model'>, retryAfterMs: number | null): ErrorResponse {
  switch (reason) {
    case 'no-replica':
      return answer(503, 'server_error', 'no_replica', 'No replica of this model is up', {
        headers: ['x-llm-d-request-dropped-reason', 'rejected-no-endpoints', ...retryHeaders(retryAfterMs ?? NO_REPLICA_RETRY_MS)],
      });
    case 'queue-full':
      return answer(429, 'rate_limit_error', 'queue_full', 'Too many requests are waiting for this model', {
        headers: ['x-llm-d-request-dropped-reason', 'rejected-saturated', ...retryHeaders(retryAfterMs)],
      });
    case 'deadline-infeasible':
      return answer(429, 'rate_limit_error', 'deadline_infeasible', 'The request cannot be finished by its deadline, even at full speed, with what is there already', {
        headers: ['x-llm-d-request-dropped-reason', 'rejected-ttl-expired', ...retryHeaders(retryAfterMs)],
      });
    case 'queue-timeout':
      return answer(429, 'rate_limit_error', 'queue_timeout', 'The request has waited for a replica as long as it may', {
        headers: ['x-llm-d-request-dropped-reason', 'rejected-ttl-expired', ...retryHeaders(retryAfterMs)],
      });
    case 'draining':
      return answer(503, 'server_error', 'draining', 'The gateway is shutting down', {
        headers: ['x-llm-d-request-dropped-reason', 'rejected-shutting-down', ...retryHeaders(retryAfterMs ?? NO_REPLICA_RETRY_MS)],
      });
    default:
      return unreachable(reason);
  }
}

const LIMIT_UNITS: Readonly<Record<LimitKind, string>> = { requests: 'requests per minute', tokens: 'tokens per minute', concurrency: 'requests at once', energy: 'joules per day (UTC)' };

/** In OpenAI's words, whose SDKs and users know them: a rate that is reached, or a quota that is spent. */
function overLimit({ limit, tenant, allowed, asked, retryAfterMs }: Extract<Refusal, { kind: 'limit' }>): ErrorResponse {
  const dropped = ['x-llm-d-request-dropped-reason', 'rejected-saturated'];
  const what = `${allowed} ${LIMIT_UNITS[limit]}`;
  if (limit === 'energy') {
    // It will not be there for hours: an SDK that comes back within a minute only loads us.
    const back = retryAfterMs === null ? [] : retryHeaders(retryAfterMs).slice(2);
    return answer(429, 'insufficient_quota', 'insufficient_quota', `The energy budget of '${tenant}' is spent: ${what}`, { headers: [...dropped, 'x-should-retry', 'false', ...back] });
  }
  if (retryAfterMs === null) {
    return answer(429, limit, 'rate_limit_exceeded', `Request too large for '${tenant}': it may take ${asked} tokens, prompt and answer, and the limit is ${what}, so it can never be admitted; ask for fewer (max_completion_tokens)`, { headers: [...dropped, ...retryHeaders(null)] });
  }
  const asks = limit === 'tokens' ? `, and this request may take ${asked}` : '';
  return answer(429, limit, 'rate_limit_exceeded', `Rate limit reached for '${tenant}': ${what}${asks}; try again in ${(Math.ceil(retryAfterMs) / 1_000).toString()} s`, { headers: [...dropped, ...retryHeaders(retryAfterMs)] });
}

/** The SDKs obey these; without a time to come back at, coming back makes no sense. */
function retryHeaders(retryAfterMs: number | null): string[] {
  if (retryAfterMs === null) return ['x-should-retry', 'false'];
  const wholeMs = Math.max(1, Math.ceil(retryAfterMs));
  return ['x-should-retry', 'true', 'retry-after-ms', String(wholeMs), 'retry-after', String(Math.ceil(wholeMs / 1_000))];
}

function answer(
  status: number,
  type: string,
  code: string | null,
  message: string,
  more: { readonly param?: string | null; readonly headers?: readonly string[] } = {},
): ErrorResponse {
  return { status, headers: more.headers ?? [], body: { error: { message, type, param: more.param ?? null, code } } };
}
