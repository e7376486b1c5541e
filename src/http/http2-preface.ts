// HTTP/1.1 and HTTP/2 on one port without TLS: the first bytes of a connection say which one it is. They are looked at
// once per connection and put back; after that the socket is read by the protocol's own parser as if it had come there first.
import type { Socket } from 'node:net';

/** What every HTTP/2 connection begins with (RFC 9113, section 3.4). No request of HTTP/1.1 does: `PRI` is reserved for it. */
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/** Calls `http1` or `http2` once enough has come, mostly with the first packet. A connection that says nothing for `limitMs` is closed. */
export function tellProtocol(socket: Socket, limitMs: number, take: { readonly http1: (socket: Socket) => void; readonly http2: (socket: Socket) => void }): void {
  let seen: Buffer | null = null;

  const onData = (chunk: Buffer): void => {
    seen = seen === null ? chunk : Buffer.concat([seen, chunk]);
    const protocol = protocolOf(seen);
    if (protocol === null) return;
    letGo();
    socket.pause();
    socket.unshift(seen);
    take[protocol](socket);
    // A session of HTTP/2 takes what is in the buffer itself; flowing, it would go nowhere.
    if (protocol === 'http1') socket.resume();
  };
  const onGone = (): void => {
    letGo();
    socket.on('error', ignore);
    socket.destroy();
  };
  const late = setTimeout(onGone, limitMs);
  late.unref();
  function letGo(): void {
    clearTimeout(late);
    socket.off('data', onData);
    socket.off('end', onGone);
    socket.off('close', onGone);
    socket.off('error', onGone);
  }
  socket.on('data', onData);
  socket.on('end', onGone);
  socket.on('close', onGone);
  socket.on('error', onGone);
}

/** `null` while the bytes may be either. */
function protocolOf(bytes: Buffer): 'http1' | 'http2' | null {
  const length = Math.min(bytes.length, PREFACE.length);
  if (bytes.compare(PREFACE, 0, length, 0, length) !== 0) return 'http1';
  return length === PREFACE.length ? 'http2' : null;
}

function ignore(): void {}
