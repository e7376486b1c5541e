import { expect, test } from 'vitest';
import type { Refusal } from '../../src/http/error-response.ts';
import { errorResponse } from '../../src/http/error-response.ts';

const RETRY_IN_1S = ['x-should-retry', 'true', 'retry-after-ms', '1000', 'retry-after', '1'];
const NO_RETRY = ['x-should-retry', 'false'];

test.each<[Refusal, number, string | null, string[]]>([
  [{ kind: 'bad-request', param: 'model', message: 'x' }, 400, null, []],
  [{ kind: 'malformed', why: 'x' }, 400, 'malformed_request', []],
  [{ kind: 'headers-too-large', bytesMax: 1, headersMax: 1 }, 431, 'headers_too_large', []],
  [{ kind: 'request-timeout' }, 408, 'request_timeout', []],
  [{ kind: 'too-many-connections' }, 503, 'too_many_connections', RETRY_IN_1S],
  [{ kind: 'unauthorized', message: 'x' }, 401, 'invalid_api_key', ['www-authenticate', 'Bearer']],
  [{ kind: 'unknown-route', method: 'GET', path: '/x' }, 404, 'unknown_url', []],
  [{ kind: 'unknown-model', model: 'x' }, 404, 'model_not_found', []],
  [{ kind: 'body-too-large', bytesMax: 1 }, 413, 'request_too_large', []],
  [{ kind: 'body-encoded', encoding: 'gzip' }, 415, null, []],
  [{ kind: 'rejected', reason: 'no-replica', retryAfterMs: null }, 503, 'no_replica', ['x-llm-d-request-dropped-reason', 'rejected-no-endpoints', ...RETRY_IN_1S]],
  [{ kind: 'rejected', reason: 'queue-full', retryAfterMs: 1000 }, 429, 'queue_full', ['x-llm-d-request-dropped-reason', 'rejected-saturated', ...RETRY_IN_1S]],
  [{ kind: 'rejected', reason: 'deadline-infeasible', retryAfterMs: null }, 429, 'deadline_infeasible', ['x-llm-d-request-dropped-reason', 'rejected-ttl-expired', ...NO_RETRY]],
  [{ kind: 'rejected', reason: 'deadline-infeasible', retryAfterMs: 250.2 }, 429, 'deadline_infeasible', ['x-llm-d-request-dropped-reason', 'rejected-ttl-expired', 'x-should-retry', 'true', 'retry-after-ms', '251', 'retry-after', '1']],
  [{ kind: 'rejected', reason: 'draining', retryAfterMs: null }, 503, 'draining', ['x-llm-d-request-dropped-reason', 'rejected-shutting-down', ...RETRY_IN_1S]],
  [{ kind: 'limit', limit: 'requests', tenant: 't', allowed: 1, asked: 1, retryAfterMs: 1000 }, 429, 'rate_limit_exceeded', ['x-llm-d-request-dropped-reason', 'rejected-saturated', ...RETRY_IN_1S]],
  [{ kind: 'limit', limit: 'tokens', tenant: 't', allowed: 1, asked: 2, retryAfterMs: null }, 429, 'rate_limit_exceeded', ['x-llm-d-request-dropped-reason', 'rejected-saturated', ...NO_RETRY]],
  [{ kind: 'limit', limit: 'energy', tenant: 't', allowed: 1, asked: 1, retryAfterMs: 1000 }, 429, 'insufficient_quota', ['x-llm-d-request-dropped-reason', 'rejected-saturated', 'x-should-retry', 'false', 'retry-after-ms', '1000', 'retry-after', '1']],
  [{ kind: 'no-such-object', object: 'Workflow', id: 'w' }, 404, null, []],
  [{ kind: 'workflow-infeasible', deadlineMs: 100, fastestMs: 250.5 }, 429, 'deadline_infeasible', ['x-llm-d-request-dropped-reason', 'rejected-ttl-expired', ...NO_RETRY]],
  [{ kind: 'workflows-full', tenant: 't', max: 1 }, 429, 'workflow_limit_exceeded', ['x-llm-d-request-dropped-reason', 'rejected-saturated', 'x-should-retry', 'true', 'retry-after-ms', '5000', 'retry-after', '5']],
  [{ kind: 'upstream-unreachable' }, 502, 'upstream_unreachable', RETRY_IN_1S],
  [{ kind: 'upstream-broken', answering: false }, 502, 'upstream_broken', NO_RETRY],
  [{ kind: 'upstream-refused-us' }, 502, 'upstream_refused', NO_RETRY],
  [{ kind: 'upstream-failed', status: 500, message: 'x' }, 500, null, []],
  [{ kind: 'upstream-no-stream', got: '200, application/json' }, 502, 'upstream_no_stream', NO_RETRY],
  [{ kind: 'upstream-timeout', answering: true }, 504, 'upstream_timeout', NO_RETRY],
])('%j is %i', (refusal, status, code, headers) => {
  const response = errorResponse(refusal);
  expect(response.status).toBe(status);
  expect(response.headers).toEqual(headers);
  expect(Object.keys(response.body.error)).toEqual(['message', 'type', 'param', 'code']);
  expect(response.body.error.code).toBe(code);
});
