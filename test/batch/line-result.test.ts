import { expect, test } from 'vitest';
import { lineEnd, LINE_FAILURES_MAX } from '../../src/batch/line-result.ts';
import type { LineAnswer } from '../../src/batch/line-client.ts';

const answered = (statusCode: number, text = '{}', retryAfterMs: number | null = null, final = false): LineAnswer => ({ kind: 'answered', statusCode, requestId: 'req', retryAfterMs, final, text });
const NEW = { tries: 0, failures: 0 };
const LAST = { tries: 9, failures: LINE_FAILURES_MAX - 1 };

test.each([
  { answer: answered(200), before: NEW, end: { kind: 'result', outcome: 'completed' } },
  { answer: answered(400), before: NEW, end: { kind: 'result', outcome: 'failed' } },
  { answer: answered(401), before: NEW, end: { kind: 'result', outcome: 'failed' } },
  { answer: answered(429), before: NEW, end: { kind: 'again', inMs: 500, tries: { tries: 1, failures: 0 } } },
  { answer: answered(429, '{}', 7_000), before: NEW, end: { kind: 'again', inMs: 7_000 } },
  { answer: answered(429, '{}', 9_000_000), before: NEW, end: { kind: 'again', inMs: 60_000 } },
  // More than may ever be had, and a day's budget that is spent.
  { answer: answered(429, '{}', null, true), before: NEW, end: { kind: 'result', outcome: 'failed' } },
  { answer: answered(429, '{}', 9_000_000, true), before: NEW, end: { kind: 'again', inMs: 60_000 } },
  { answer: answered(503), before: { tries: 100, failures: 0 }, end: { kind: 'again', inMs: 30_000 } },
  { answer: answered(503), before: LAST, end: { kind: 'again', tries: { failures: LINE_FAILURES_MAX - 1 } } },
  { answer: answered(500), before: NEW, end: { kind: 'again', tries: { tries: 1, failures: 1 } } },
  { answer: answered(502), before: LAST, end: { kind: 'result', outcome: 'failed' } },
  { answer: { kind: 'lost' } as const, before: NEW, end: { kind: 'again', tries: { failures: 1 } } },
  { answer: { kind: 'lost' } as const, before: LAST, end: { kind: 'result', outcome: 'failed' } },
  { answer: { kind: 'too-large', requestId: 'r' } as const, before: NEW, end: { kind: 'result', outcome: 'failed' } },
])('$answer.kind $answer.statusCode after $before.failures failures: $end', ({ answer, before, end }) => {
  expect(lineEnd('a', answer, before, 0)).toMatchObject(end);
});

test.each([
  { text: '{"n":12345678901234567890.10}', body: '{"n":12345678901234567890.10}' },
  { text: '{\n "a": "b\\n" }\n', body: '{"a":"b\\n"}' },
  { text: 'no JSON\n', body: '"no JSON\\n"' },
  { text: '', body: '""' },
])('an answer of $text is kept on one line as $body', ({ text, body }) => {
  const end = lineEnd('an "id"', answered(200, text), NEW, 0);
  const line = end.kind === 'result' ? end.text : '';
  expect(line).not.toContain('\n');
  expect(line).toContain(`"response":{"status_code":200,"request_id":"req","body":${body}},"error":null}`);
  expect(JSON.parse(line)).toMatchObject({ custom_id: 'an "id"' });
});
