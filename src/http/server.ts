// A listener around an app: a port or a Unix socket, with or without TLS, HTTP/1.1 and HTTP/2 side by side; its bounds,
// and its orderly end. What cannot be read as a request is answered here, in the same shape as everything else.
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { getRequestListener } from '@hono/node-server';
import type { ListenConfig } from '../config.ts';
import { ConfigError } from '../config/config-problems.ts';
import type { Telemetry } from '../telemetry/events.ts';
import type { App, ShortCut } from './app.ts';
import type { CertificatePaths, CertificateWatch } from './certificate.ts';
import { CertificateError, readCertificate, watchCertificate } from './certificate.ts';
import { destroyAfter } from './cut.ts';
import type { Refusal } from './error-response.ts';
import { rawRefusal, refusalResponse, writeRefusal } from './error-response.ts';
import { requestIdOf } from './headers.ts';
import { tellProtocol } from './http2-preface.ts';
import type { Http2Sessions } from './http2-sessions.ts';
import { createHttp2Sessions } from './http2-sessions.ts';
import { listenOnSocket } from './unix-socket.ts';

export interface Listener {
  /** `unix:` and the path where it is a Unix socket. */
  readonly url: string;
  /** Reads the certificate's files again; nothing without TLS. */
  reloadCertificate(): void;
  /** Accepts nothing more and resolves when every connection is closed; after `drainMs` those left are cut. */
  close(drainMs: number): Promise<void>;
}

export interface ListenOptions extends ListenConfig {
  /** Of the config, for messages. */
  readonly key: 'listen' | 'admin';
  readonly limits: { readonly headerBytesMax: number; readonly headersMax: number; readonly connectionsMax: number; readonly streamsPerConnectionMax: number };
  readonly timeouts: { readonly headersMs: number; readonly requestMs: number; readonly keepAliveMs: number };
  readonly telemetry: Pick<Telemetry, 'requestRefused' | 'connectionDropped' | 'certificateLoaded' | 'certificateRefused'>;
}

type HeaderLimits = Pick<ListenOptions['limits'], 'headerBytesMax' | 'headersMax'>;

const IDLE_CHECK_MS = 20;
/** Connections that may wait to be accepted; the system's own bound is mostly 4,096. Node's 511 overflow when a thousand clients come back at once. */
const BACKLOG = 4_096;
/** A new certificate is in use this long after its files have changed; two looks at a file cost nothing. */
const CERTIFICATE_LOOK_MS = 5_000;
/** Connections beyond `connectionsMax` that are being told so; those beyond these too are closed without a word. */
const REFUSED_AT_ONCE_MAX = 64;
/** What the client of a refused connection gets to read the refusal and to close its end. */
const REFUSED_MS_MAX = 2_000;

export async function listen(app: App, options: ListenOptions, shortCut: ShortCut | null = null): Promise<Listener> {
  const { address, tls, limits, timeouts, telemetry } = options;
  const hostname = address.kind === 'port' ? address.host : 'localhost';
  const refused = (refusal: Refusal, requestId: string = randomUUID()): string => {
    telemetry.requestRefused(refusal.kind, requestId);
    return requestId;
  };

  const server = tls === null ? createServer(http1Options(options)) : createSecureServer(tls, options);
  // Node may keep as many and pass over the rest, by its version; one more than allowed is enough to know.
  server.maxHeadersCount = limits.headersMax + 1;
  const answer = requestListener(app, hostname, shortCut, refused);
  const onRequest = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    const refusal = headerRefusal(incoming, limits);
    if (refusal === null) return answer.http1(incoming, outgoing);
    writeRefusal(outgoing, refusal, refused(refusal, requestIdOf(incoming.headers)));
    incoming.resume();
  };
  server.on('request', onRequest);
  // Others than `100-continue` may be passed over (RFC 9110, section 10.1.1), and Node's refusal has no body.
  server.on('checkExpectation', onRequest);
  server.on('checkContinue', (incoming, outgoing) => {
    askingFirst(outgoing);
    onRequest(incoming, outgoing);
  });
  const refusing = new WeakSet<Socket>();
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    if (refusing.has(socket)) return;
    const refusal = parseRefusal(error.code ?? '', limits);
    // Node's own way to the answer that is under way on this connection; nothing may come into the middle of it.
    const { _httpMessage: current } = socket as { readonly _httpMessage?: ServerResponse | null };
    if (refusal === null || !socket.writable || socket.bytesRead === 0 || current?.headersSent === true) return void socket.destroy(error);
    refusing.add(socket);
    const text = rawRefusal(refusal, refused(refusal));
    // With a request under way, what waits for it is let go at once. Else its sender is still sending: cutting it off
    // now would reset the connection, and the refusal would be lost with it.
    if (current) socket.end(text, () => socket.destroy());
    else endSoon(socket, text);
  });

  const http2 = options.http2 ? createHttp2Sessions({ ...limits, ...timeouts, request: (incoming, outgoing) => answer.http2(incoming as never, outgoing as never), refused: telemetry.requestRefused }) : null;
  const connections = boundConnections(server, http2, options, (socket) => {
    const refusal: Refusal = { kind: 'too-many-connections' };
    endSoon(socket, rawRefusal(refusal, refused(refusal)));
  });

  let certificateWatch: CertificateWatch | null = null;
  try {
    if (address.kind === 'socket') await listenOnSocket(server, address.path, address.mode);
    else await listenOnPort(server, options.key, address.host, address.port);
    if (tls !== null) certificateWatch = watch(server, tls, options);
  } catch (error) {
    http2?.close();
    throw error;
  }

  async function close(drainMs: number): Promise<void> {
    certificateWatch?.close();
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    connections.drain();
    http2?.drain();
    // Connections become idle one by one as their answers end.
    const idle = setInterval(() => server.closeIdleConnections(), IDLE_CHECK_MS);
    const late = setTimeout(connections.cut, drainMs);
    await closed;
    http2?.close();
    clearInterval(idle);
    clearTimeout(late);
  }

  return { url: urlOf(server, address, tls !== null), reloadCertificate: () => certificateWatch?.reload(), close };
}

function http1Options({ limits, timeouts }: ListenOptions) {
  return {
    // Node refuses what reaches its bound; ours may be reached.
    maxHeaderSize: limits.headerBytesMax + 1,
    // Node refuses to wait longer for a part than for the whole.
    headersTimeout: Math.min(timeouts.headersMs, timeouts.requestMs),
    requestTimeout: timeouts.requestMs,
    keepAliveTimeout: timeouts.keepAliveMs,
    // Node looks after late requests at intervals; its 30 s are too coarse for a bound of a few.
    connectionsCheckingInterval: Math.min(5_000, Math.max(20, Math.ceil(Math.min(timeouts.headersMs, timeouts.requestMs) / 4))),
    // Node's own refusal has no body; see `headerRefusal`.
    requireHostHeader: false,
  };
}

function createSecureServer(tls: CertificatePaths, options: ListenOptions): Server {
  const { cert, key } = first(tls, options);
  // ALPN decides before a byte of HTTP is sent. A client without it gets HTTP/1.1.
  return createTlsServer({ ...http1Options(options), cert, key, ALPNProtocols: options.http2 ? ['h2', 'http/1.1'] : ['http/1.1'], handshakeTimeout: options.timeouts.headersMs });
}

function first(tls: CertificatePaths, { telemetry }: ListenOptions): { readonly cert: string; readonly key: string } {
  try {
    const certificate = readCertificate(tls);
    telemetry.certificateLoaded({ ...certificate, certPath: tls.certPath });
    return certificate;
  } catch (error) {
    if (error instanceof CertificateError) throw new ConfigError([error.message]);
    throw error;
  }
}

/** Connections that are open keep the old certificate. */
function watch(server: Server, tls: CertificatePaths, { telemetry }: ListenOptions): CertificateWatch {
  return watchCertificate(tls, {
    everyMs: CERTIFICATE_LOOK_MS,
    changed: (certificate) => {
      (server as ReturnType<typeof createTlsServer>).setSecureContext({ cert: certificate.cert, key: certificate.key });
      telemetry.certificateLoaded({ ...certificate, certPath: tls.certPath });
    },
    broken: telemetry.certificateRefused,
  });
}

interface Connections {
  /** Those that have not said yet which protocol they speak have nothing under way. */
  drain(): void;
  cut(): void;
}

/**
 * Counts connections, refuses those beyond the bound, and gives the others to HTTP/1.1 or HTTP/2. With HTTP/1.1 alone,
 * and behind TLS, Node's server keeps its own way; a connection of HTTP/1.1 costs one look at its first packet more.
 */
function boundConnections(server: Server, http2: Http2Sessions | null, { tls, limits, timeouts, telemetry }: ListenOptions, refuse: (socket: Socket) => void): Connections {
  const open = new Set<Socket>();
  const undecided = new Set<Socket>();
  let refusing = 0;
  const track = (socket: Socket): void => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  };
  server.on('drop', () => telemetry.connectionDropped('connections-max'));

  if (tls === null) {
    server.maxConnections = limits.connectionsMax + REFUSED_AT_ONCE_MAX;
    const http1 = takeListener(server, 'connection');
    server.on('connection', (socket) => {
      track(socket);
      if (open.size - refusing > limits.connectionsMax) {
        refusing++;
        socket.once('close', () => refusing--);
        return refuse(socket);
      }
      if (http2 === null) return http1(socket);
      undecided.add(socket);
      const decided = () => undecided.delete(socket);
      socket.once('close', decided);
      tellProtocol(socket, timeouts.headersMs, {
        http1: () => {
          decided();
          http1(socket);
        },
        http2: () => {
          decided();
          http2.accept(socket);
        },
      });
    });
  } else {
    // To tell a client of TLS anything takes a handshake, which is what there is too much of.
    server.maxConnections = limits.connectionsMax;
    server.on('connection', track);
    server.on('tlsClientError', () => telemetry.connectionDropped('tls-handshake'));
    const http1 = takeListener(server, 'secureConnection');
    server.on('secureConnection', (socket: TLSSocket) => (http2 !== null && socket.alpnProtocol === 'h2' ? http2.accept(socket) : http1(socket)));
  }

  return {
    drain: () => {
      for (const socket of undecided) socket.destroy();
    },
    cut: () => {
      for (const socket of open) socket.destroy();
    },
  };
}

/** What a server of Node's does with a new connection, so that we can do something before it. */
function takeListener(server: Server, event: 'connection' | 'secureConnection'): (socket: Socket) => void {
  const [listener, ...more] = server.listeners(event) as ((socket: Socket) => void)[];
  if (listener === undefined || more.length > 0) throw new Error(`Node's server has ${more.length + 1} listeners of '${event}', want one`);
  server.removeListener(event, listener);
  return (socket) => listener.call(server, socket);
}

function requestListener(app: App, hostname: string, shortCut: ShortCut | null, refused: (refusal: Refusal) => string) {
  const options = {
    overrideGlobalObjects: false,
    hostname,
    // Hono asks it only where the target or the host of a request make no URL.
    errorHandler: (error: unknown) => {
      const refusal: Refusal = { kind: 'malformed', why: error instanceof Error ? error.message : String(error) };
      return refusalResponse(refusal, refused(refusal));
    },
  };
  const fetchOf = app.fetch as Parameters<typeof getRequestListener>[0];
  const http1 = getRequestListener(fetchOf, options);
  // Its care for bodies that nobody reads would end requests of HTTP/2 whose answer takes longer than their body.
  const http2 = getRequestListener(fetchOf, { ...options, autoCleanupIncoming: false });
  const behind =
    (listener: typeof http1) =>
    (incoming: IncomingMessage, outgoing: ServerResponse): void => {
      if (shortCut === null || !shortCut(incoming, outgoing)) void listener(incoming, outgoing);
    };
  return { http1: behind(http1), http2: behind(http2) };
}

/** Who is refused before it was told to go on may never send its body: nobody knows then where its next request begins. */
function askingFirst(outgoing: ServerResponse): void {
  const { shouldKeepAlive } = outgoing;
  outgoing.shouldKeepAlive = false;
  const writeContinue = outgoing.writeContinue.bind(outgoing);
  outgoing.writeContinue = () => {
    outgoing.shouldKeepAlive = shouldKeepAlive;
    writeContinue();
  };
}

/** What Node would pass over in silence or refuse without a body. */
function headerRefusal(incoming: IncomingMessage, limits: HeaderLimits): Refusal | null {
  if (incoming.rawHeaders.length > 2 * limits.headersMax) return headersTooLarge(limits);
  if (incoming.headers.host === undefined && incoming.httpVersionMinor === 1) return { kind: 'malformed', why: 'the Host header is missing' };
  return null;
}

/** `null`: there is nobody to tell. */
function parseRefusal(code: string, limits: HeaderLimits): Refusal | null {
  if (code === 'HPE_HEADER_OVERFLOW') return headersTooLarge(limits);
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return { kind: 'request-timeout' };
  // It closed in the middle of its request: it is gone.
  if (code === 'HPE_INVALID_EOF_STATE') return null;
  return code.startsWith('HPE_') ? { kind: 'malformed', why: code } : null;
}

function headersTooLarge({ headerBytesMax, headersMax }: HeaderLimits): Refusal {
  return { kind: 'headers-too-large', bytesMax: headerBytesMax, headersMax };
}

function endSoon(socket: Socket, text: string): void {
  socket.on('error', () => socket.destroy());
  destroyAfter(socket, REFUSED_MS_MAX);
  socket.end(text);
  socket.resume();
}

function listenOnPort(server: Server, key: string, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const refused = (error: NodeJS.ErrnoException): void => {
      const why = error.code === 'EADDRINUSE' ? `EADDRINUSE: another process listens on ${host}:${port}` : error.message;
      reject(new ConfigError([`${key}: ${why}; choose another with ${key}.port or --${key} HOST:PORT`]));
    };
    server.once('error', refused);
    server.listen({ port, host, backlog: BACKLOG }, () => {
      server.off('error', refused);
      resolve();
    });
  });
}

function urlOf(server: Server, address: ListenConfig['address'], secure: boolean): string {
  if (address.kind === 'socket') return `unix:${address.path}`;
  const bound = server.address() as AddressInfo;
  return `${secure ? 'https' : 'http'}://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`;
}
