// A client that holds every answer against what it must say, and says what came of a request: exactly once, or it is counted.
import type { IncomingMessage } from 'node:http';
import { request as httpRequest } from 'node:http';
import { monotonicMs } from '../../src/engine/real-time.ts';
import type { AnswerCheck, Reading, ServerKind } from './answer-check.ts';
import { createAnswerCheck } from './answer-check.ts';
import { requestBody } from './expected-text.ts';
import type { PlannedRequest } from './schedule.ts';

export type Outcome =
  | Exclude<Reading, { readonly kind: 'unfinished' }>
  /** The connection ended before the answer did. */
  | { readonly kind: 'cut'; readonly at: 'head' | 'body' }
  /** Nobody listened. */
  | { readonly kind: 'unreachable' }
  /** The client went away, as planned. */
  | { readonly kind: 'left' }
  | { readonly kind: 'hung'; readonly afterMs: number };

export interface Seen {
  readonly request: PlannedRequest;
  readonly gateway: number;
  /** The one that is said to have answered. */
  readonly replica: string | null;
  readonly outcome: Outcome;
  /** CLOCK_MONOTONIC, as all here. */
  readonly sentAtMs: number;
  readonly firstTokenAtMs: number | null;
  readonly lastTokenAtMs: number | null;
  readonly endedAtMs: number;
}

export interface ClientOptions {
  readonly url: string;
  readonly model: string;
  readonly gateway: number;
  /** Longer than anything configured may take. */
  readonly hungAfterMs: number;
  readonly serverKind: (replica: string | null) => ServerKind;
  readonly headers?: Readonly<Record<string, string>>;
}

/** `onOutcome` is called for every end that is seen: a second one is what the invariants look for. */
export function sendChecked(request: PlannedRequest, options: ClientOptions, onOutcome: (seen: Seen) => void): void {
  const path = request.endpoint === 'chat' ? '/v1/chat/completions' : '/v1/completions';
  const body = requestBody(request, options.model);
  const sentAtMs = monotonicMs();
  let check: AnswerCheck | null = null;
  let replica: string | null = null;
  let firstTokenAtMs: number | null = null;
  let lastTokenAtMs: number | null = null;
  /** We have gone: what comes now is nobody's. */
  let gone = false;
  let over = false;

  const sent = httpRequest(
    `${options.url}${path}`,
    { method: 'POST', agent: false, headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), 'x-request-id': request.id, ...request.slo, ...options.headers } },
    answered,
  );
  const hung = setTimeout(() => end({ kind: 'hung', afterMs: options.hungAfterMs }), options.hungAfterMs);
  const leave = request.leavesAfterMs === null ? undefined : setTimeout(() => !over && end({ kind: 'left' }), request.leavesAfterMs);
  sent.on('error', (error: NodeJS.ErrnoException) => {
    if (over) return;
    const garbled = error.code?.startsWith('HPE_') === true;
    if (check === null) end(error.code === 'ECONNREFUSED' ? { kind: 'unreachable' } : garbled ? { kind: 'malformed', why: `no HTTP: ${error.code}` } : { kind: 'cut', at: 'head' });
    else cut();
  });
  // Node's parser lets go of the connection at the end of an answer, whatever stands behind it.
  const raw: Buffer[] = [];
  sent.on('socket', (socket) => {
    socket.on('data', (bytes: Buffer) => void raw.push(bytes));
  });
  sent.end(body);

  function answered(response: IncomingMessage): void {
    const named = response.headers['x-paceline-replica'];
    replica = typeof named === 'string' ? named : null;
    const reading = createAnswerCheck(request, response.statusCode ?? 0, response.headers['content-type'] ?? '', options.serverKind(replica));
    check = reading;
    if (response.headers['x-request-id'] !== request.id) end({ kind: 'malformed', why: `x-request-id ${String(response.headers['x-request-id'])}, want ${request.id}` });
    response.on('data', (bytes: Buffer) => {
      if (gone) return;
      const before = reading.events();
      reading.push(bytes);
      if (reading.events() === before) return;
      lastTokenAtMs = monotonicMs();
      firstTokenAtMs ??= lastTokenAtMs;
    });
    response.on('end', () => {
      const outcome = reading.end();
      // A stream whose framing says that it is whole, though neither [DONE] nor an error has come.
      if (outcome.kind === 'unfinished') end({ kind: 'malformed', why: `it ends after ${outcome.chars} characters, neither with [DONE] nor with an error` });
      else end(outcome);
      const behind = bytesBehind(Buffer.concat(raw), response.headers['content-length']);
      if (behind !== 0) end({ kind: 'malformed', why: `${behind} bytes behind the answer` });
    });
    response.on('error', cut);
  }

  /** What came before it must have been right all the same. */
  function cut(): void {
    if (over) return;
    const outcome = check?.end();
    end(outcome?.kind === 'malformed' && request.stream ? outcome : { kind: 'cut', at: 'body' });
  }

  function end(outcome: Outcome): void {
    clearTimeout(hung);
    clearTimeout(leave);
    if (gone) return;
    over = true;
    gone = outcome.kind === 'left' || outcome.kind === 'hung' || outcome.kind === 'malformed';
    onOutcome({ request, gateway: options.gateway, replica, outcome, sentAtMs, firstTokenAtMs, lastTokenAtMs, endedAtMs: monotonicMs() });
    if (gone) sent.destroy();
  }
}

/** Behind an answer's end by its own framing. No text of a token looks like the last chunk. */
function bytesBehind(raw: Buffer, length: string | undefined): number {
  const bodyAt = raw.indexOf('\r\n\r\n') + 4;
  if (length !== undefined) return raw.length - bodyAt - Number(length);
  return raw.length - (raw.indexOf('\r\n0\r\n\r\n', bodyAt - 2) + 7);
}
