// One request over HTTP and what came of it. Uses undici's handler directly: no stream object between socket and reader.
import type { Dispatcher } from 'undici';
import { ERROR_BODY_BYTES_MAX, RESPONSE_BYTES_MAX } from './limits.ts';
import type { Measured } from './completion-stream.ts';
import { createCompletionStream, errorMessage } from './completion-stream.ts';
import { SseTooLargeError } from './sse-reader.ts';

export type FailureReason =
  /** 429, or another refusal that names its reason in `x-llm-d-request-dropped-reason`. */
  | 'rejected'
  | 'http'
  | 'timeout'
  | 'connection'
  | 'truncated'
  | 'stream-error'
  | 'oversized'
  /** Complete, but without a token. */
  | 'empty'
  | 'in-flight-cap';

export type Reply =
  | { readonly kind: 'completed'; readonly endedAtMs: number; readonly measured: Measured & { readonly firstTokenAtMs: number; readonly lastTokenAtMs: number } }
  | { readonly kind: 'failed'; readonly endedAtMs: number; readonly reason: FailureReason; readonly detail: string; readonly measured: Measured | null }
  /** We gave up on it (Ctrl-C); it counts neither way. */
  | { readonly kind: 'cancelled'; readonly endedAtMs: number };

export interface OutgoingRequest {
  readonly origin: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** From now, not from the intended time: a late sender must not shorten what the server gets. */
  readonly timeoutMs: number;
}

/** Sends at once; `onReply` is called exactly once. Returns what cancels it. */
export function sendRequest(dispatcher: Dispatcher, request: OutgoingRequest, nowMs: () => number, onReply: (reply: Reply) => void): () => void {
  const stream = createCompletionStream();
  let controller: Dispatcher.DispatchController | null = null;
  let status = 0;
  let droppedReason: string | undefined;
  let errorBody = '';
  let bytes = 0;
  let settled = false;

  const timer = setTimeout(() => {
    // A server that keeps the connection after [DONE] is odd, not late.
    giveStreamEnd(() => fail('timeout', `no end within ${request.timeoutMs} ms`));
    abandon();
  }, request.timeoutMs);

  type Ending = { readonly kind: 'completed' } | { readonly kind: 'cancelled' } | { readonly kind: 'failed'; readonly reason: FailureReason; readonly detail: string };

  /** The first ending counts; what undici reports after our own abort does not. */
  function give(ending: Ending): void {
    if (settled) return;
    settled = true;
    clearTimeout(timer);
    const measured = stream.measured();
    const endedAtMs = measured.doneAtMs ?? nowMs();
    const { firstTokenAtMs, lastTokenAtMs } = measured;
    if (ending.kind === 'cancelled') onReply({ kind: 'cancelled', endedAtMs });
    else if (ending.kind === 'failed') onReply({ ...ending, endedAtMs, measured: bytes > 0 && status === 200 ? measured : null });
    else if (firstTokenAtMs === null || lastTokenAtMs === null) onReply({ kind: 'failed', reason: 'empty', detail: 'the answer held no text', endedAtMs, measured });
    else onReply({ kind: 'completed', endedAtMs, measured: { ...measured, firstTokenAtMs, lastTokenAtMs } });
  }

  /** Closes the connection under an exchange that is not over. */
  function abandon(): void {
    controller?.abort(new Error('abandoned'));
  }

  function fail(reason: FailureReason, detail: string): void {
    give({ kind: 'failed', reason, detail });
  }

  /** What the bytes that came amount to, now that no more will. */
  function giveStreamEnd(otherwise: () => void): void {
    const end = stream.end();
    if (end.kind === 'error') fail('stream-error', end.message);
    else if (end.kind === 'complete') give({ kind: 'completed' });
    else otherwise();
  }

  const handler: Dispatcher.DispatchHandler = {
    onRequestStart: (started) => {
      controller = started;
      // Timed out or cancelled while it waited for a connection.
      if (settled) abandon();
    },
    onResponseStart: (_controller, statusCode, headers) => {
      status = statusCode;
      const dropped = headers['x-llm-d-request-dropped-reason'];
      droppedReason = Array.isArray(dropped) ? dropped[0] : dropped;
    },
    onResponseData: (_controller, chunk) => {
      if (settled) return;
      bytes += chunk.length;
      if (bytes > RESPONSE_BYTES_MAX) {
        fail('oversized', `an answer of more than ${RESPONSE_BYTES_MAX} bytes`);
        return abandon();
      }
      if (status !== 200) {
        if (errorBody.length < ERROR_BODY_BYTES_MAX) errorBody += chunk.toString('utf8', 0, ERROR_BODY_BYTES_MAX);
        return;
      }
      try {
        stream.push(chunk, nowMs());
      } catch (error) {
        if (!(error instanceof SseTooLargeError)) throw error;
        fail('oversized', error.message);
        abandon();
      }
    },
    onResponseEnd: () => {
      if (status === 200) giveStreamEnd(() => fail('truncated', 'the stream ended before its [DONE]'));
      else if (status === 429 || droppedReason !== undefined) fail('rejected', `${status} ${droppedReason ?? errorCode(errorBody)}`.trim());
      else fail('http', `${status} ${errorCode(errorBody)}`.trim());
    },
    onResponseError: (_controller, error) => {
      // All tokens and the end were there; how the connection went down afterwards is no matter.
      const code = (error as NodeJS.ErrnoException).code ?? error.name;
      if (status === 200) giveStreamEnd(() => fail('truncated', `the connection broke within the stream (${code})`));
      else fail('connection', code);
    },
  };
  dispatcher.dispatch({ origin: request.origin, path: request.path, method: 'POST', headers: request.headers, body: request.body, headersTimeout: 0, bodyTimeout: 0 }, handler);
  return () => {
    give({ kind: 'cancelled' });
    abandon();
  };
}

/** Short and the same for the same cause, so that failures can be counted: the error's code or type, else its message. */
function errorCode(body: string): string {
  try {
    const { error } = JSON.parse(body) as { error?: { code?: unknown; type?: unknown } };
    for (const name of [error?.code, error?.type]) if (typeof name === 'string' && name !== '') return name;
    return error === undefined ? '' : errorMessage(error).slice(0, 60);
  } catch {
    return '';
  }
}
