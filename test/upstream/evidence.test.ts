import { expect, test } from 'vitest';
import { retryAfterMsOf, tellsOfOverload, verdictOf } from '../../src/upstream/evidence.ts';

const NOW_UNIX_MS = Date.UTC(2026, 10, 26, 12, 0, 0);

test.each([
  { status: 200, headers: {}, verdict: 'works' },
  { status: 400, headers: {}, verdict: 'works' },
  { status: 401, headers: {}, verdict: 'works' },
  { status: 404, headers: {}, verdict: 'works' },
  { status: 501, headers: {}, verdict: 'works' },
  { status: 500, headers: {}, verdict: 'fails' },
  { status: 502, headers: { 'retry-after': '1' }, verdict: 'fails' },
  { status: 504, headers: {}, verdict: 'fails' },
  { status: 429, headers: {}, verdict: 'saturated', retryAfterMs: null },
  { status: 429, headers: { 'retry-after': '2' }, verdict: 'saturated', retryAfterMs: 2_000 },
  { status: 529, headers: {}, verdict: 'saturated', retryAfterMs: null },
  { status: 503, headers: { 'retry-after': '2' }, verdict: 'saturated', retryAfterMs: 2_000 },
  { status: 503, headers: {}, verdict: 'unclear' },
])('$status with $headers: $verdict', ({ status, headers, verdict, retryAfterMs }) => {
  expect(verdictOf(status, headers, NOW_UNIX_MS)).toEqual({ kind: verdict, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
});

test.each([
  [{ 'retry-after': '3' }, 3_000],
  [{ 'retry-after-ms': '250', 'retry-after': '1' }, 250],
  [{ 'retry-after': 'Thu, 26 Nov 2026 12:00:05 GMT' }, 5_000],
  [{ 'retry-after': 'Thu, 26 Nov 2026 11:59:00 GMT' }, 0],
  [{ 'retry-after': 'soon' }, null],
  [{ 'retry-after': '-1e9x' }, null],
  [{}, null],
])('a time to come back is read from %j', (headers, expected) => {
  expect(retryAfterMsOf(headers, NOW_UNIX_MS)).toBe(expected);
});

test.each([
  ['{"error":{"message":"The request queue is full.","type":"server_error","code":503}}', true],
  ['{"error":"Model is overloaded","error_type":"overloaded"}', true],
  ['{"error":"Exceeds maximum queue size"}', true],
  ['{"error":{"code":503,"message":"no slot available","type":"unavailable_error"}}', true],
  ['{"error":{"code":503,"message":"no free slots","type":"unavailable_error"}}', true],
  ['{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', false],
  ['<html><h1>503 Service Temporarily Unavailable</h1></html>', false],
  ['', false],
  [`${' '.repeat(5_000)}overloaded`, false],
])('the body %s tells of overload: %s', (body, expected) => {
  expect(tellsOfOverload(Buffer.from(body))).toBe(expected);
});
