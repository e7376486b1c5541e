// Breaks an answer off so that its client can tell that it is not whole, in either version of HTTP; and what does not end by itself.
import type { ServerResponse } from 'node:http';
import type { Http2ServerResponse } from 'node:http2';
import { constants } from 'node:http2';
import type { Readable } from 'node:stream';

/**
 * HTTP/1.1 closes the connection; HTTP/2 only the stream, which without a code would look like an answer that ended well. In
 * HTTP/1.0 the close is what ends an answer: there it is a reset.
 */
export function cut(outgoing: ServerResponse | Http2ServerResponse): void {
  if ('stream' in outgoing) outgoing.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  else if (outgoing.req.httpVersionMinor === 0) outgoing.socket?.resetAndDestroy();
  else outgoing.destroy();
}

/** Whoever has been told the last word gets so long to close its end; then its side is destroyed. */
export function destroyAfter(side: Readable, limitMs: number): void {
  const late = setTimeout(() => side.destroy(), limitMs);
  late.unref();
  side.once('close', () => clearTimeout(late));
}

/** The server is done and the replica free; what is left waits in the socket for a client that may never read it. */
export function cutIfUnread(outgoing: ServerResponse, stallMs: number): void {
  if (outgoing.writableLength > 0) outgoing.setTimeout(stallMs, () => cut(outgoing));
}
