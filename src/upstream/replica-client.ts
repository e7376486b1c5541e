// Sends requests to one model server and hands the answers on: undici's lowest-level dispatch, no streams in between.
// Pieces that arrive together are handed on together; what they say (tokens, usage) is told beside them.
import type { IncomingHttpHeaders } from 'node:http';
import { Pool } from 'undici';
import type { Dispatcher } from 'undici';
import type { Usage } from '../core/job.ts';
import type { AnswerKind } from './connections.ts';
import { createConnections } from './connections.ts';
import type { Evidence, Verdict } from './evidence.ts';
import { tellsOfOverload, verdictOf } from './evidence.ts';
import type { SseScanner } from './sse-scanner.ts';
import { createSseScanner } from './sse-scanner.ts';
import { createTail } from './tail.ts';
import type { Tail } from './tail.ts';
import { usageIn } from './usage.ts';

export interface OutgoingRequest {
  readonly method: string;
  readonly path: string;
  /** Name, value, name, value …; the key of the replica is added here. */
  readonly headers: readonly string[];
  readonly body: Buffer | null;
  /** The usage of a stream was asked for by us alone: the event that tells it is taken out. */
  readonly hideUsage: boolean;
  /** Its answer should begin long before it ends: where nothing comes, that says something about the server. Default: false. */
  readonly streams?: boolean;
}

/** Why there is no (whole) answer. `unreachable`: nothing was sent to a server, another replica may take it. */
export interface UpstreamFailure {
  readonly kind: 'unreachable' | 'broken' | 'timeout';
  readonly error: Error;
  /** Of an event stream: no event is half said. */
  readonly atBoundary: boolean;
}

/** The end of a whole answer. */
export interface AnswerEnd {
  /** What arrived together with it; `null` where that was nothing. */
  readonly bytes: Buffer | null;
  readonly tokens: number;
  readonly usage: Usage | null;
  /** The server told of an error inside the stream. */
  readonly errorInside: boolean;
  readonly trailers: IncomingHttpHeaders;
}

/** What a request's owner is told. `answered` comes at most once, then `data`; `ended` or `failed` comes last, never after `abort`. */
export interface AnswerSink {
  answered(statusCode: number, headers: IncomingHttpHeaders, isEventStream: boolean): void;
  /** All that arrived in one turn of the event loop, and how many token events ended in it. */
  data(bytes: Buffer, tokens: number): void;
  ended(end: AnswerEnd): void;
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
  /** For probes, metrics and calls to the server itself; resolves with the status and at most `bytesMax` of the body. */
  get(path: string, options: { readonly timeoutMs: number; readonly bytesMax: number }): Promise<{ readonly statusCode: number; readonly body: Buffer }>;
  /** The same, without a body of its own. */
  post(path: string, options: { readonly timeoutMs: number; readonly bytesMax: number }): Promise<{ readonly statusCode: number; readonly body: Buffer }>;
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
  /** What each request shows of the server's health; at most once that it works, and once that it does not. */
  readonly onEvidence?: (evidence: Evidence) => void;
  /** A stream that waits while for so long nothing has come from the server, on any request. */
  readonly silentMs?: number;
}

interface Watched {
  check(nowMs: number): void;
}

export function createReplicaClient(options: ReplicaClientOptions): ReplicaClient {
  const { now, silentMs = Number.POSITIVE_INFINITY } = options;
  const tell = options.onEvidence ?? (() => {});
  /** When anything came from the server, on whatever request. */
  let heardAtMs = Number.NEGATIVE_INFINITY;
  // Own timers instead of undici's: its 300 s for headers would end long answers without streaming (COMPLAINTS 27).
  const clientOptions = { connectTimeout: options.connectMs, headersTimeout: 0, bodyTimeout: 0, pipelining: 1, allowH2: false };
  const probes = new Pool(options.origin, { ...clientOptions, connections: 2 });
  const connections = createConnections({ origin: options.origin, connectMs: options.connectMs, clientOptions, now });
  const authorization = options.apiKey === null ? [] : ['authorization', `Bearer ${options.apiKey}`];
  const watched = new Set<Watched>();
  // One timer for all calls: a late answer is a matter of minutes, a timer per piece of it is not worth its cost.
  const sweepEveryMs = Math.max(10, Math.min(1_000, options.firstByteMs / 4, options.stallMs / 4, silentMs / 4));
  const sweep = setInterval(() => {
    const nowMs = now();
    for (const call of watched) call.check(nowMs);
    connections.sweep(watched.size);
  }, sweepEveryMs);
  sweep.unref();

  function send(request: OutgoingRequest, sink: AnswerSink): Call {
    const client = connections.take();
    let controller: Dispatcher.DispatchController | null = null;
    let holding = true;
    let over = false;
    let sending = true;
    let answering = false;
    let answer: AnswerKind = 'whole';
    let paused = false;
    const sentAtMs = now();
    let movedAtMs = sentAtMs;
    let verdict: Verdict = { kind: 'works' };
    const toldOf = { answered: false, trouble: false };
    let scanner: SseScanner | null = null;
    let tail: Tail | null = null;
    let pieces: Buffer[] = [];
    let tokens = 0;

    function works(): void {
      if (toldOf.answered || verdict.kind !== 'works') return;
      toldOf.answered = true;
      tell({ kind: 'answered', sentAtMs });
    }
    function fails(why: string): void {
      if (toldOf.trouble) return;
      toldOf.trouble = true;
      tell({ kind: 'failed', sentAtMs, why });
    }
    function judge(statusCode: number, headers: IncomingHttpHeaders): void {
      verdict = verdictOf(statusCode, headers, Date.now());
      if (verdict.kind === 'fails') fails(`it answered ${statusCode}`);
      if (verdict.kind === 'saturated') tell({ kind: 'saturated', sentAtMs, retryAfterMs: verdict.retryAfterMs });
    }
    /** Whose status alone did not say it. */
    function judgeWhole(): void {
      if (verdict.kind === 'works') works();
      else if (verdict.kind === 'unclear' && tail !== null && tellsOfOverload(tail.bytes())) tell({ kind: 'saturated', sentAtMs, retryAfterMs: null });
      else if (verdict.kind === 'unclear') fails('it answered 503');
    }

    /** Once: an answer that ends may still fail, where its owner throws. */
    function giveBack(carried: AnswerKind | null): void {
      if (!holding) return;
      holding = false;
      connections.giveBack(client, carried);
    }
    function finish(): void {
      over = true;
      watched.delete(watch);
    }
    /** What has come in since the last time, as it goes on. */
    function taken(): Buffer | null {
      tokens = 0;
      if (pieces.length === 0) return null;
      const bytes = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
      pieces = [];
      movedAtMs = now();
      works();
      if (scanner === null) {
        tail?.push(bytes);
        return bytes;
      }
      tokens = scanner.push(bytes);
      return scanner.passed();
    }
    function flush(): void {
      if (over) return;
      const bytes = taken();
      if (bytes !== null && (bytes.length > 0 || tokens > 0)) sink.data(bytes, tokens);
    }
    function fail(kind: UpstreamFailure['kind'], error: Error): void {
      if (over) return;
      // A refusal on the spot must not come before the caller has its `Call`.
      if (sending) return process.nextTick(fail, kind, error);
      flush();
      // Half an event, where it was kept, is of use to nobody: clients would take it for a whole one that is broken.
      const dropped = scanner !== null && scanner.rest().length > 0;
      finish();
      sink.failed({ kind, error, atBoundary: dropped || (scanner?.atBoundary() ?? false) });
    }
    const watch: Watched = {
      check: (nowMs) => {
        if (request.streams === true && !paused && nowMs - Math.max(movedAtMs, heardAtMs) >= silentMs) tell({ kind: 'silent', sentAtMs, why: `it has sent nothing for ${silentMs} ms, though a stream waits` });
        const limitMs = answering ? options.stallMs : options.firstByteMs;
        if (nowMs - movedAtMs < limitMs) return;
        // While paused it is the client who does not read; the owner of the request hears of it all the same.
        const error = new Error(answering ? `${paused ? 'the client took' : 'the server sent'} nothing for ${limitMs} ms` : `no answer within ${limitMs} ms`);
        if (!paused) fails(error.message);
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
        heardAtMs = movedAtMs;
        judge(statusCode, headers);
        const isEventStream = /^text\/event-stream\b/i.test(String(headers['content-type'] ?? ''));
        answer = statusCode === 500 ? 'crashed' : isEventStream ? 'stream' : 'whole';
        const encoding = headers['content-encoding'];
        // What is compressed goes on as it is, unread.
        if (encoding === undefined || encoding === 'identity') {
          if (isEventStream) scanner = createSseScanner({ hideUsage: request.hideUsage });
          else tail = createTail();
        }
        sink.answered(statusCode, headers, isEventStream);
      },
      onResponseData: (_controller, chunk) => {
        if (over) return;
        heardAtMs = now();
        // undici parses a whole read of the socket before ticks run: all events in it become one write.
        if (pieces.push(chunk) === 1) process.nextTick(flush);
      },
      onResponseEnd: (_controller, trailers) => {
        giveBack(answer);
        if (over) return;
        let bytes = taken();
        const rest = scanner?.rest();
        if (rest !== undefined && rest.length > 0) bytes = bytes === null ? rest : Buffer.concat([bytes, rest]);
        finish();
        judgeWhole();
        sink.ended({ bytes, tokens, usage: scanner?.usage() ?? (tail === null ? null : usageIn(tail.bytes())), errorInside: scanner?.failed() ?? false, trailers });
      },
      onResponseError: (_controller, error) => {
        // Not at once: who hears of it may send the next request on the spot, and undici is not done with this client.
        process.nextTick(giveBack, null);
        if (over) return;
        if (!answering) options.onTrouble?.(error);
        fails(error.message);
        fail(controller === null ? 'unreachable' : 'broken', error);
      },
    };
    client.dispatch({ path: request.path, method: request.method as Dispatcher.HttpMethod, headers: request.headers.concat(authorization), body: request.body }, handler);
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

  async function ask(method: 'GET' | 'POST', path: string, { timeoutMs, bytesMax }: { readonly timeoutMs: number; readonly bytesMax: number }): Promise<{ statusCode: number; body: Buffer }> {
    const answer = await probes.request({ path, method, headers: authorization, signal: AbortSignal.timeout(timeoutMs) });
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
    get: (path, limits) => ask('GET', path, limits),
    post: (path, limits) => ask('POST', path, limits),
    close: async () => {
      clearInterval(sweep);
      await Promise.all([probes.destroy(), connections.close()]);
    },
  };
}
