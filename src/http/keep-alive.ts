// Keeps the connection of a waiting stream alive with comments, for proxies that cut what is idle: an event stream's headers and
// a comment after so long without an answer, and a comment every so often until its first byte. What can be said afterwards,
// events alone, is for the exchange to mind.
import type { ServerResponse } from 'node:http';

export interface KeepAlive {
  /** Headers are out and were none of a server's: what follows can be told as events alone. */
  hasBegun(): boolean;
  /** What goes out first of the answer, `bytes` of it, mostly as it is; no comment goes out any more. */
  first(bytes: Buffer): Buffer;
  /** No comment goes out any more. */
  stop(): void;
}

const COMMENT = ': keep-alive\n\n';
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/** Of a request that gets no comments. */
export const NO_KEEP_ALIVE: KeepAlive = { hasBegun: () => false, first: (bytes) => bytes, stop: () => {} };

/** From now on, until the answer's first byte or its end; whoever holds the answer stops it when its client is gone. */
export function createKeepAlive({ outgoing, requestId, everyMs }: { readonly outgoing: ServerResponse; readonly requestId: string; readonly everyMs: number }): KeepAlive {
  let begun = false;
  let commented = false;
  const timer = setInterval(() => {
    if (outgoing.destroyed || outgoing.writableEnded) return stop();
    if (!outgoing.headersSent) {
      begun = true;
      outgoing.writeHead(200, ['content-type', 'text/event-stream; charset=utf-8', 'cache-control', 'no-cache', 'x-request-id', requestId]);
    }
    // Who has not read the last one needs no other, and must not gather them here.
    if (outgoing.writableLength > 0) return;
    commented = true;
    outgoing.write(COMMENT);
  }, everyMs);

  function stop(): void {
    clearInterval(timer);
  }

  return {
    hasBegun: () => begun,
    first(bytes) {
      stop();
      // It marks the beginning of a stream; behind a comment it would be read as part of a field's name.
      return commented && bytes.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK) ? bytes.subarray(BYTE_ORDER_MARK.length) : bytes;
    },
    stop,
  };
}
