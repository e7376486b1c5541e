// HTTP/2: sessions on sockets that others have accepted, bounded in everything their clients decide, and their orderly end.
// Requests go on through Node's compatible request and response, so that routes and exchange know one kind only.
import type { ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse, ServerHttp2Session } from 'node:http2';
import { constants, createServer } from 'node:http2';
import type { Socket } from 'node:net';
import { destroyAfter } from './cut.ts';
import { writeRefusal } from './error-response.ts';
import type { Refusal } from './error-response.ts';
import { requestIdOf } from './headers.ts';

export interface Http2Options {
  readonly headerBytesMax: number;
  readonly headersMax: number;
  readonly streamsPerConnectionMax: number;
  readonly headersMs: number;
  readonly requestMs: number;
  readonly keepAliveMs: number;
  readonly request: (incoming: Http2ServerRequest, outgoing: Http2ServerResponse) => void;
  readonly refused: (kind: Refusal['kind'], requestId: string) => void;
}

export interface Http2Sessions {
  /** A socket whose client speaks HTTP/2; what has been read of it is in its buffer. */
  accept(socket: Socket): void;
  /** Every session is told to go away, and ends with its last request. */
  drain(): void;
  close(): void;
}

/** Of the four pseudo-headers, which count as headers here but not in `headersMax`. */
const PSEUDO_HEADERS_MAX = 4;
/** RFC 9113 counts each field 32 bytes larger than it is. */
const FIELD_OVERHEAD_BYTES = 32;
/**
 * What a request may be too large by and is still read, so that it gets its 431. Beyond, its stream is reset: answering
 * would mean to read and keep what nobody wants.
 */
const OVERRUN = { headers: 32, bytes: 16_384 };
/** A stream's upload in flight: at 64 KB, the protocol's default, a prompt of a megabyte takes 16 round trips. */
const STREAM_WINDOW_BYTES = 262_144;
/** All uploads of a connection together. */
const CONNECTION_WINDOW_BYTES = 4_194_304;
/**
 * What Node may hold for a session below our own buffers: frames that wait to be written, headers that are being read. Beyond, it
 * refuses new streams. A thousand streams with slow readers have been seen to fit in 16; Node's own bound is 10.
 */
const SESSION_MEMORY_MB = 64;
/** Frames that break the protocol until the session is ended. Node's 1,000 are for clients with faults; ours have none to learn. */
const INVALID_FRAMES_MAX = 100;
/** Streams opened beyond the bound until the session is ended: a client that has not seen it yet may run over it once. */
const REJECTED_STREAMS_MAX = 1_000;
/**
 * Streams a client may open and take back (CVE-2023-44487): a batch of the largest size at once, then so many a second.
 * A proxy whose users leave stays far below; a flood is ended with its connection.
 */
const RESETS = { burst: 2_000, perSecond: 200 };
/** What a client may go on sending after its request has been answered, so that it gets to read the answer. */
const UNWANTED_BODY_MS_MAX = 2_000;
/** What a client gets to close its end after ours; then the socket is cut. */
const GOODBYE_MS_MAX = 2_000;

interface Session {
  readonly session: ServerHttp2Session;
  readonly socket: Socket;
  streams: number;
  /** It has had a request. */
  served: boolean;
  idleSinceMs: number;
}

export function createHttp2Sessions(options: Http2Options): Http2Sessions {
  const open = new Set<Session>();
  let accepting: Socket | null = null;
  let draining = false;

  const server = createServer({
    settings: {
      maxConcurrentStreams: options.streamsPerConnectionMax,
      maxHeaderListSize: options.headerBytesMax + (options.headersMax + PSEUDO_HEADERS_MAX + OVERRUN.headers) * FIELD_OVERHEAD_BYTES + OVERRUN.bytes,
      initialWindowSize: STREAM_WINDOW_BYTES,
      enablePush: false,
    },
    maxHeaderListPairs: options.headersMax + PSEUDO_HEADERS_MAX + OVERRUN.headers,
    maxSessionMemory: SESSION_MEMORY_MB,
    maxSessionInvalidFrames: INVALID_FRAMES_MAX,
    maxSessionRejectedStreams: REJECTED_STREAMS_MAX,
    streamResetBurst: RESETS.burst,
    streamResetRate: RESETS.perSecond,
  });

  server.on('session', (session) => {
    if (accepting === null) throw new Error('a session without a socket of ours');
    const watched: Session = { session, socket: accepting, streams: 0, served: false, idleSinceMs: performance.now() };
    open.add(watched);
    session.once('close', () => open.delete(watched));
    session.on('stream', (stream) => {
      watched.streams++;
      watched.served = true;
      stream.once('close', () => {
        watched.streams--;
        watched.idleSinceMs = performance.now();
      });
    });
    // A fault of the client's ends its session, and with it its requests; there is nobody else to tell.
    session.on('error', ignore);
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
  });
  server.on('request', onRequest);
  // Others than `100-continue` may be passed over (RFC 9110, section 10.1.1), and Node's refusal has no body.
  server.on('checkExpectation', onRequest);
  server.on('checkContinue', onRequest);
  server.on('connect', onRequest);

  function onRequest(incoming: Http2ServerRequest, outgoing: Http2ServerResponse): void {
    boundBody(incoming, outgoing);
    const refusal = headerRefusal(incoming.rawHeaders, options);
    if (refusal === null) return options.request(incoming, outgoing);
    refuse(refusal, incoming, outgoing);
    incoming.resume();
  }

  function refuse(refusal: Refusal, incoming: Http2ServerRequest, outgoing: Http2ServerResponse): void {
    if (outgoing.headersSent) return;
    const requestId = requestIdOf(incoming.headers);
    options.refused(refusal.kind, requestId);
    // Node's compatible response has all of the other's that a refusal uses, which its type does not say.
    writeRefusal(outgoing as unknown as ServerResponse, refusal, requestId);
  }

  /** Node bounds the time of a request's body in HTTP/1.1 only. */
  function boundBody(incoming: Http2ServerRequest, outgoing: Http2ServerResponse): void {
    const { stream } = incoming;
    if (stream.endAfterHeaders) return;
    let timer = setTimeout(() => {
      refuse({ kind: 'request-timeout' }, incoming, outgoing);
      stream.close(constants.NGHTTP2_NO_ERROR);
    }, options.requestMs);
    timer.unref();
    const done = (): void => clearTimeout(timer);
    incoming.once('end', done);
    stream.once('close', done);
    stream.once('finish', () => {
      if (incoming.complete) return;
      done();
      incoming.resume();
      timer = setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), UNWANTED_BODY_MS_MAX);
      timer.unref();
    });
  }

  /** The socket may have been lost by its client long ago, or be held open by it; it gets a moment for its own goodbye. */
  function end({ session, socket }: Session): void {
    if (!session.closed) session.close();
    destroyAfter(socket, GOODBYE_MS_MAX);
  }

  const sweepEveryMs = Math.min(5_000, Math.max(20, Math.min(options.headersMs, options.keepAliveMs) / 4));
  const sweep = setInterval(() => {
    const nowMs = performance.now();
    for (const watched of open) {
      if (watched.streams > 0 || watched.session.closed) continue;
      // Pings keep nothing alive: who has no request has no claim on a connection either.
      if (nowMs - watched.idleSinceMs >= (watched.served ? options.keepAliveMs : options.headersMs)) end(watched);
    }
  }, sweepEveryMs);
  sweep.unref();

  return {
    accept: (socket) => {
      // A client that closes its half has left, whatever it has asked for; HTTP/1.1's server would keep the socket for its answers.
      socket.allowHalfOpen = false;
      accepting = socket;
      server.emit('connection', socket);
      accepting = null;
      if (draining) for (const watched of open) if (watched.socket === socket) watched.session.close();
    },
    drain: () => {
      draining = true;
      for (const { session } of open) session.close();
    },
    close: () => clearInterval(sweep),
  };
}

/** Names and values, without what HTTP/2 adds in its own count: the same bytes pass that pass in HTTP/1.1. */
function headerRefusal(rawHeaders: readonly string[], { headerBytesMax, headersMax }: Http2Options): Refusal | null {
  let bytes = 0;
  let headers = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const [name, value] = [rawHeaders[index] as string, rawHeaders[index + 1] as string];
    if (name.startsWith(':')) bytes += name === ':path' ? value.length : 0;
    else {
      headers++;
      bytes += name.length + value.length;
    }
  }
  return bytes > headerBytesMax || headers > headersMax ? { kind: 'headers-too-large', bytesMax: headerBytesMax, headersMax } : null;
}

function ignore(): void {}
