// What a line of a batch becomes: a line of the output or error file, another try, or nothing because it was called back.
import { randomBytes } from 'node:crypto';
import type { LineOutcome, Tries } from './batch-store.ts';
import type { LineAnswer } from './line-client.ts';

export type LineEnd =
  | { readonly kind: 'result'; readonly outcome: LineOutcome; readonly text: string }
  | { readonly kind: 'again'; readonly inMs: number; readonly tries: Tries };

/** Tries of a line at which the server failed; overload (429, 503) is no failure and is waited for until the window ends. */
export const LINE_FAILURES_MAX = 3;
const AGAIN_MS = { first: 1_000, max: 60_000 };

/** `before`: without this one; `random` in [0, 1). */
export function lineEnd(customId: string, answer: LineAnswer, before: Tries, random: number): LineEnd {
  const backoffMs = Math.min(AGAIN_MS.max, AGAIN_MS.first * 2 ** Math.min(before.tries, 10)) * (0.5 + random / 2);
  const failed: Tries = { tries: before.tries + 1, failures: before.failures + 1 };
  switch (answer.kind) {
    case 'lost':
      if (failed.failures < LINE_FAILURES_MAX) return { kind: 'again', inMs: backoffMs, tries: failed };
      return { kind: 'result', outcome: 'failed', text: errorLine(customId, 'upstream_broken', `The model server broke off its answer, ${LINE_FAILURES_MAX} times.`) };
    case 'too-large':
      return { kind: 'result', outcome: 'failed', text: errorLine(customId, 'response_too_large', 'The answer is larger than a line of a batch may be.') };
    case 'answered': {
      const { statusCode } = answer;
      // What is more than its tenant may ever have is so at the window's end, too; what is spent until midnight is not.
      const never = statusCode === 429 && answer.final && answer.retryAfterMs === null;
      if (!never && (statusCode === 429 || statusCode === 503)) return { kind: 'again', inMs: Math.max(backoffMs, Math.min(AGAIN_MS.max, answer.retryAfterMs ?? 0)), tries: { ...before, tries: failed.tries } };
      if (statusCode >= 500 && failed.failures < LINE_FAILURES_MAX) return { kind: 'again', inMs: backoffMs, tries: failed };
      return { kind: 'result', outcome: statusCode < 400 ? 'completed' : 'failed', text: answeredLine(customId, answer) };
    }
  }
}

/** Of a request without an answer. */
export function errorLine(customId: string, code: string, message: string): string {
  return JSON.stringify({ id: resultId(), custom_id: customId, response: null, error: { code, message } });
}

function answeredLine(customId: string, { statusCode, requestId, text }: Extract<LineAnswer, { kind: 'answered' }>): string {
  return `{"id":${JSON.stringify(resultId())},"custom_id":${JSON.stringify(customId)},"response":{"status_code":${statusCode},"request_id":${JSON.stringify(requestId)},"body":${bodyJson(text)}},"error":null}`;
}

/** As the server wrote it, so that no number is rounded; on one line. What is no JSON becomes a string. */
function bodyJson(text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    return /[\r\n]/.test(text) ? JSON.stringify(value) : text.trim();
  } catch {
    return JSON.stringify(text);
  }
}

function resultId(): string {
  return `batch_req_${randomBytes(12).toString('hex')}`;
}
