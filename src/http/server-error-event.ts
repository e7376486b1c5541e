// What a server says who fails or refuses, told as an event where its status and headers can be said no more.
import { isReadable } from './answer-head.ts';
import type { Dialect } from './endpoints.ts';
import { errorEvent } from './error-response.ts';
import type { RefusedAnswer } from './refused-answer.ts';

/** Of a body that is no error in the client's dialect, what is quoted of it. */
const QUOTED_CHARACTERS_MAX = 500;

/** The server's own words where its clients would know them for an error, else in ours. */
export function serverErrorEvent({ head, bytes }: RefusedAnswer, dialect: Dialect): string {
  const { statusCode, headers } = head;
  const text = isReadable(headers) ? bytes().toString('utf8').trim() : '';
  // A line end in JSON stands between its tokens only; in an event it would end the line.
  if (isErrorIn(dialect, parsed(text))) return `${dialect === 'anthropic' ? 'event: error\n' : ''}data: ${text.replace(/[\r\n]+/g, ' ')}\n\n`;
  const quoted = text === '' ? '' : `: ${text.slice(0, QUOTED_CHARACTERS_MAX)}`;
  return errorEvent({ kind: 'upstream-failed', status: statusCode, message: `The model server answered ${statusCode}${quoted}` }, dialect);
}

function isErrorIn(dialect: Dialect, json: unknown): boolean {
  if (typeof json !== 'object' || json === null) return false;
  const { error, type } = json as { readonly error?: unknown; readonly type?: unknown };
  if (typeof error !== 'object' || error === null) return false;
  return dialect === 'openai' || type === 'error';
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
