// Sends requests to one model server and hands the answers on: undici's lowest-level dispatch, no streams in between.
// Pieces that arrive together are handed on together; what they say (tokens, usage) is told beside them.
import type { IncomingHttpHeaders } from 'node:http';
import { Pool } from 'undici';
import type { Dispatcher } from 'undici';
import type { Usage } from '../core/job.ts';
import type { SseScanner } from './sse-scanner.ts';
import { createSseScanner } from './sse-scanner.ts';
import { createTail } from './tail.ts';
import type { Tail } from './tail.ts';
import { usageIn } from './usage.ts';

export interface OutgoingRequest {
  readonly path: string;
  /** Name, value, name, value …; the key of the replica is added here. */
  readonly headers: readonly string[];
  readonly body: Buffer;
}

/** Why there is no (whole) answer. `unreachable`: nothing was sent to a server, another replica may take it. */
export interface UpstreamFailure {
  readonly kind: 'unreachable' | 'broken' | 'timeout';
  readonly error: Error;
  /** Of an event stream: no event is half said. */
  readonly atBoundary: boolean;
}

/** What a request's owner is told. `answered` comes at most once, then `data`; `ended` or `failed` comes last, never after `abort`. */
export interface AnswerSink {
  answered(statusCode: number, headers: IncomingHttpHeaders): void;
  /** All that arrived in one turn of the event loop, and how many token events ended in it. */
  data(bytes: Buffer, tokens: number): void;
  ended(usage: Usage | null, errorInside: boolean): void;
  failed(failure: UpstreamFailure): void;
}

export interface Call {
  /** The server's work is of no use any more: its connection is closed at once. Nothing is told after this. */
  abort(): void;
  pause(): void;
  resume(): void;
}

export interface ReplicaClient {
  send(request: OutgoingRequest, sink: AnswerSink): Call;
  /** For probes and metrics; resolves with the status and at most `bytesMax` of the body. */
  get(path: string, options: { readonly timeoutMs: number; readonly bytesMax: number }): Promise<{ readonly statusCode: number; readonly body: Buffer }>;
  close(): Promise<void>;
}

export interface ReplicaClientOptions {
  readonly origin: string;
  readonly apiKey: string | null;
  readonly connectMs: number;
  readonly firstByteMs: number;
  readonly stallMs: number;
  readonly now: () => number;
  /** A connection could not be made or broke before an answer; probes should look at once. */
  readonly onTrouble?: (error: Error) => void;
}

interface Watched {
  check(nowMs: number): void;
}

export function createReplicaClient(options: ReplicaClientOptions): ReplicaClient {
  const { now } = options;
  // Own timers instead of undici's: its 300 s for headers would end long answers without streaming (COMPLAINTS 27).
  const pool = new Pool(options.origin, { connectTimeout: options.connectMs, headersTimeout: 0, bodyTimeout: 0, pipelining: 1, allowH2: false });
  const authorization = options.apiKey === null ? [] : ['authorization', `Bearer ${options.apiKey}`];
  const watched = new Set<Watched>();
  // One timer for all calls: a late answer is a matter of minutes, a timer per piece of it is not worth its cost.
  const sweepEveryMs = Math.max(10, Math.min(1_000, options.firstByteMs / 4, options.stallMs / 4));
  const sweep = setInterval(() => {
    const nowMs = now();
    for (const call of watched) call.check(nowMs);
  }, sweepEveryMs);
  sweep.unref();

  function send(request: OutgoingRequest, sink: AnswerSink): Call {
    let controller: Dispatcher.DispatchController | null = null;
    let over = false;
    let sending = true;
    let answering = false;
    let paused = false;
    let movedAtMs = now();
    let scanner: SseScanner | null = null;
    let tail: Tail | null = null;
    let pieces: Buffer[] = [];
    let pieceTokens = 0;

    function finish(): void {
      over = true;
      watched.delete(watch);
    }
    function flush(): void {
      if (pieces.length === 0 || over) return;
      const bytes = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
      const tokens = pieceTokens;
      pieces = [];
      pieceTokens = 0;
      sink.data(bytes, tokens);
    }
    function fail(kind: UpstreamFailure['kind'], error: Error): void {
      if (over) return;
      // A refusal on the spot must not come before the caller has its `Call`.
      if (sending) return process.nextTick(fail, kind, error);
      flush();
      finish();
      sink.failed({ kind, error, atBoundary: scanner?.atBoundary() ?? false });
    }
    const watch: Watched = {
      check: (nowMs) => {
        const limitMs = answering ? options.stallMs : options.firstByteMs;
        if (nowMs - movedAtMs < limitMs) return;
        // While paused it is the client who does not read; the owner of the request hears of it all the same.
        const error = new Error(answering ? `${paused ? 'the client took' : 'the server sent'} nothing for ${limitMs} ms` : `no answer within ${limitMs} ms`);
        fail('timeout', error);
        controller?.abort(error);
      },
    };
    watched.add(watch);

    const handler: Dispatcher.DispatchHandler = {
      onRequestStart: (started) => {
        controller = started;
        if (over) started.abort(new Error('aborted before it was sent'));
      },
      onResponseStart: (_controller, statusCode, headers) => {
        if (over || statusCode < 200) return;
        answering = true;
        movedAtMs = now();
        if (String(headers['content-type'] ?? '').startsWith('text/event-stream')) scanner = createSseScanner();
        else tail = createTail();
        sink.answered(statusCode, headers);
      },
      onResponseData: (_controller, chunk) => {
        if (over) return;
        movedAtMs = now();
        if (scanner !== null) pieceTokens += scanner.push(chunk);
        else tail?.push(chunk);
        // undici parses a whole read of the socket before ticks run: all events in it become one write.
        if (pieces.push(chunk) === 1) process.nextTick(flush);
      },
      onResponseEnd: () => {
        if (over) return;
        flush();
        finish();
        sink.ended(scanner === null ? usageIn(tail?.bytes() ?? Buffer.alloc(0)) : scanner.usage(), scanner?.failed() ?? false);
      },
      onResponseError: (_controller, error) => {
        if (over) return;
        if (!answering) options.onTrouble?.(error);
        fail(controller === null ? 'unreachable' : 'broken', error);
      },
    };
    pool.dispatch({ path: request.path, method: 'POST', headers: request.headers.concat(authorization), body: request.body }, handler);
    sending = false;

    return {
      abort: () => {
        if (over) return;
        finish();
        controller?.abort(new Error('aborted by the gateway'));
      },
      pause: () => {
        paused = true;
        controller?.pause();
      },
      resume: () => {
        paused = false;
        movedAtMs = now();
        controller?.resume();
      },
    };
  }

  async function get(path: string, { timeoutMs, bytesMax }: { readonly timeoutMs: number; readonly bytesMax: number }): Promise<{ statusCode: number; body: Buffer }> {
    const answer = await pool.request({ path, method: 'GET', headers: authorization, signal: AbortSignal.timeout(timeoutMs) });
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > bytesMax) throw new Error(`${path} answered more than ${bytesMax} bytes`);
      chunks.push(chunk);
    }
    return { statusCode: answer.statusCode, body: Buffer.concat(chunks) };
  }

  return {
    send,
    get,
    close: async () => {
      clearInterval(sweep);
      await pool.destroy();
    },
  };
}
