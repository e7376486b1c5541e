// Reads an answer as it comes and says what it amounts to, holding it against what it must say to the letter. Pure.
import { expectedText } from './expected-text.ts';
import type { PlannedRequest } from './schedule.ts';

export type ServerKind = 'emulated' | 'stub';

/** What the bytes of an answer amount to, once no more will come. */
export type Reading =
  | { readonly kind: 'whole'; readonly tokens: number }
  /** An event stream that ends with an error event, its tokens before it as they should be. */
  | { readonly kind: 'broken-off'; readonly code: string; readonly chars: number }
  /** An error of the gateway or the server, in OpenAI's shape. */
  | { readonly kind: 'refused'; readonly status: number; readonly code: string }
  /** Right so far, and then nothing. */
  | { readonly kind: 'unfinished'; readonly chars: number }
  | { readonly kind: 'malformed'; readonly why: string };

export interface AnswerCheck {
  push(bytes: Buffer): void;
  /** Tokens of text that have come. */
  events(): number;
  end(): Reading;
}

interface Chunk {
  readonly id?: unknown;
  readonly error?: unknown;
  readonly usage?: { readonly completion_tokens?: unknown } | null;
  readonly choices?: readonly { readonly text?: unknown; readonly delta?: { readonly content?: unknown }; readonly message?: { readonly content?: unknown } }[];
}

export function createAnswerCheck(request: PlannedRequest, status: number, contentType: string, server: ServerKind): AnswerCheck {
  if (status === 200 && request.stream && contentType.startsWith('text/event-stream')) return streamCheck(request, server);
  const pieces: Buffer[] = [];
  return { push: (bytes) => void pieces.push(bytes), events: () => 0, end: () => bodyReading(request, status, Buffer.concat(pieces).toString('utf8'), server) };
}

function streamCheck(request: PlannedRequest, server: ServerKind): AnswerCheck {
  const expected = expectedText(request, server);
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let unread = '';
  let text = '';
  let events = 0;
  let id: unknown;
  let usage: Chunk['usage'];
  let end: 'done' | { readonly error: unknown } | null = null;
  let wrong: string | null = null;

  function event(block: string): void {
    const data = block.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trimStart()).join('\n');
    if (data === '') return;
    if (end !== null) wrong ??= `an event after the end: ${shown(data)}`;
    else if (data === '[DONE]') end = 'done';
    else {
      const chunk = parsed(data);
      if (chunk === null) wrong ??= `an event that is no JSON: ${shown(data)}`;
      else if (chunk.error !== undefined) end = { error: chunk.error };
      else tokens(chunk);
    }
  }

  function tokens(chunk: Chunk): void {
    if (id !== undefined && chunk.id !== id) wrong ??= `an event of another answer: ${shown(chunk.id)} in ${shown(id)}`;
    id = chunk.id;
    if (chunk.usage !== undefined && chunk.usage !== null) usage = chunk.usage;
    const piece = chunk.choices?.[0]?.delta?.content ?? chunk.choices?.[0]?.text;
    if (typeof piece !== 'string' || piece === '') return;
    if (!expected.startsWith(piece, text.length)) wrong ??= `token ${events}: got ${shown(piece)}, want ${shown(expected.slice(text.length, text.length + 24))}`;
    text += piece;
    events += 1;
  }

  return {
    push: (bytes) => {
      try {
        unread += decoder.decode(bytes, { stream: true });
      } catch {
        wrong ??= 'bytes that are not UTF-8';
      }
      for (let at = unread.indexOf('\n\n'); at >= 0; at = unread.indexOf('\n\n')) {
        const block = unread.slice(0, at);
        unread = unread.slice(at + 2);
        event(block);
      }
    },
    events: () => events,
    end: () => {
      if (wrong !== null) return { kind: 'malformed', why: wrong };
      if (end === 'done') {
        if (unread !== '') return { kind: 'malformed', why: `bytes behind [DONE]: ${shown(unread)}` };
        if (text !== expected) return { kind: 'malformed', why: `[DONE] after ${text.length} of ${expected.length} characters` };
        if (request.asksUsage ? usage?.completion_tokens !== request.outputTokens : usage !== undefined) return { kind: 'malformed', why: `usage ${request.asksUsage ? 'asked for' : 'not asked for'}, got ${shown(usage)}` };
        return { kind: 'whole', tokens: request.outputTokens };
      }
      if (end !== null) {
        const code = errorCode({ error: end.error });
        return code === null ? { kind: 'malformed', why: `an error event in another shape: ${shown(end.error)}` } : { kind: 'broken-off', code, chars: text.length };
      }
      return { kind: 'unfinished', chars: text.length };
    },
  };
}

/** Of a body that has come to its end by its own framing. */
function bodyReading(request: PlannedRequest, status: number, body: string, server: ServerKind): Reading {
  const answer = parsed(body);
  if (status !== 200) {
    const code = answer === null ? null : errorCode(answer);
    return code === null ? { kind: 'malformed', why: `status ${status} with a body in another shape: ${shown(body)}` } : { kind: 'refused', status, code };
  }
  if (request.stream) return { kind: 'malformed', why: `asked for a stream, got ${shown(body)}` };
  if (answer === null) return body === '' ? { kind: 'unfinished', chars: 0 } : { kind: 'malformed', why: `a body that is no JSON: ${shown(body)}` };
  const text = answer.choices?.[0]?.message?.content ?? answer.choices?.[0]?.text;
  if (text !== expectedText(request, server)) return { kind: 'malformed', why: `another answer than its own: ${shown(text)}` };
  return answer.usage?.completion_tokens === request.outputTokens ? { kind: 'whole', tokens: request.outputTokens } : { kind: 'malformed', why: `usage ${shown(answer.usage)}, want ${request.outputTokens} tokens` };
}

/** `null` where it is not OpenAI's shape: message, type, param and code, the last two nullable. */
function errorCode({ error }: { readonly error?: unknown }): string | null {
  if (typeof error !== 'object' || error === null) return null;
  const { message, type, param, code } = error as Record<string, unknown>;
  if (typeof message !== 'string' || typeof type !== 'string' || param === undefined || code === undefined) return null;
  return typeof code === 'string' ? code : type;
}

function parsed(text: string): Chunk | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Chunk) : null;
  } catch {
    return null;
  }
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? 'nothing').slice(0, 120);
}
