// One streamed completion as it is read: when tokens came, how many, and whether it came to its end. No I/O, no clock.
import { SSE_EVENT_CHARS_MAX } from './limits.ts';
import { createSseReader } from './sse-reader.ts';

/** The server's own count, from `usage`. */
export interface ReportedUsage {
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly cachedTokens: number;
}

export type StreamEnd =
  | { readonly kind: 'complete' }
  /** The bytes ended before `[DONE]` or a finish reason. */
  | { readonly kind: 'truncated' }
  /** The server said so in an event, or sent what is no completion. */
  | { readonly kind: 'error'; readonly message: string };

export interface CompletionStream {
  /** `nowMs`: when these bytes came. */
  readonly push: (chunk: Buffer, nowMs: number) => void;
  /** Asked when no more bytes come. */
  readonly end: () => StreamEnd;
  readonly measured: () => Measured;
}

export interface Measured {
  /** `null` until content came. */
  readonly firstTokenAtMs: number | null;
  readonly lastTokenAtMs: number | null;
  /** When `[DONE]` came. */
  readonly doneAtMs: number | null;
  /** Events with content; stands in for the tokens where the server reports none. */
  readonly contentEvents: number;
  readonly usage: ReportedUsage | null;
}

export function createCompletionStream(): CompletionStream {
  let nowAtMs = 0;
  let firstTokenAtMs: number | null = null;
  let lastTokenAtMs: number | null = null;
  let doneAtMs: number | null = null;
  let contentEvents = 0;
  let usage: ReportedUsage | null = null;
  let finished = false;
  let failure: string | null = null;

  const reader = createSseReader({ onData: takeData, eventCharsMax: SSE_EVENT_CHARS_MAX });

  function takeData(data: string): void {
    if (data === '[DONE]') {
      doneAtMs ??= nowAtMs;
      return;
    }
    if (doneAtMs !== null) return;
    let event: StreamEvent | null;
    try {
      event = JSON.parse(data) as StreamEvent | null;
    } catch {
      failure ??= `an event is not JSON: ${data.slice(0, 80)}`;
      return;
    }
    if (typeof event !== 'object' || event === null) {
      failure ??= `an event is no object: ${data.slice(0, 80)}`;
      return;
    }
    if (event.error != null) failure ??= errorMessage(event.error);
    if (event.usage != null) usage = readUsage(event.usage) ?? usage;
    const choices = Array.isArray(event.choices) ? event.choices : [];
    for (const choice of choices) {
      if (choice?.finish_reason != null) finished = true;
    }
    if (!choices.some(hasContent)) return;
    contentEvents++;
    firstTokenAtMs ??= nowAtMs;
    lastTokenAtMs = nowAtMs;
  }

  return {
    push: (chunk, nowMs) => {
      nowAtMs = nowMs;
      reader.push(chunk);
    },
    end: () => {
      if (failure !== null) return { kind: 'error', message: failure };
      return doneAtMs !== null || finished ? { kind: 'complete' } : { kind: 'truncated' };
    },
    measured: () => ({ firstTokenAtMs, lastTokenAtMs, doneAtMs, contentEvents, usage }),
  };
}

/** What may be in an event; nothing of it is sure. */
interface StreamEvent {
  readonly choices?: readonly (StreamChoice | null)[];
  readonly usage?: unknown;
  readonly error?: unknown;
}

interface StreamChoice {
  readonly text?: unknown;
  readonly delta?: { readonly content?: unknown; readonly reasoning_content?: unknown; readonly reasoning?: unknown; readonly tool_calls?: unknown } | null;
  readonly finish_reason?: unknown;
}

/** Text of any kind counts: what a reasoning model thinks is billed, and is what its reader waits for first. */
function hasContent(choice: StreamChoice | null): boolean {
  if (choice === null) return false;
  const { text, delta } = choice;
  if (isText(text)) return true;
  return delta != null && (isText(delta.content) || isText(delta.reasoning_content) || isText(delta.reasoning) || (Array.isArray(delta.tool_calls) && delta.tool_calls.length > 0));
}

function isText(value: unknown): boolean {
  return typeof value === 'string' && value !== '';
}

function readUsage(usage: unknown): ReportedUsage | null {
  const { prompt_tokens, completion_tokens, prompt_tokens_details } = usage as { prompt_tokens?: unknown; completion_tokens?: unknown; prompt_tokens_details?: { cached_tokens?: unknown } | null };
  if (!isCount(completion_tokens)) return null;
  const cached = prompt_tokens_details?.cached_tokens;
  return { promptTokens: isCount(prompt_tokens) ? prompt_tokens : 0, outputTokens: completion_tokens, cachedTokens: isCount(cached) ? cached : 0 };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0;
}

/** The `message` of an OpenAI error, or what there is instead. */
export function errorMessage(error: unknown): string {
  const message = typeof error === 'object' && error !== null && 'message' in error ? error.message : error;
  return (typeof message === 'string' ? message : (JSON.stringify(message) ?? 'unknown error')).slice(0, 200);
}
