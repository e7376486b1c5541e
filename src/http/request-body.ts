// Reads a request's body, up to a bound.
import type { IncomingMessage } from 'node:http';
import { destroyAfter } from './cut.ts';

export type BodyReading =
  | { readonly kind: 'ok'; readonly body: Buffer }
  | { readonly kind: 'too-large' }
  | { readonly kind: 'encoded'; readonly encoding: string };

/** What a refused body may go on sending, so that its sender gets to read the refusal; then the connection is cut. */
const REFUSED_BODY_MS_MAX = 2_000;

/** Calls back once, or never when the client goes away before its body is complete. `goOn` is called before a body is read whose client asks first. */
export function readBody(incoming: IncomingMessage, bytesMax: number, goOn: () => void, done: (reading: BodyReading) => void): void {
  const encoding = incoming.headers['content-encoding'];
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    discard(incoming);
    return done({ kind: 'encoded', encoding });
  }
  if (Number(incoming.headers['content-length'] ?? 0) > bytesMax) {
    discard(incoming);
    return done({ kind: 'too-large' });
  }
  const { expect } = incoming.headers;
  if (expect !== undefined && incoming.httpVersion !== '1.0' && /\b100-continue\b/i.test(expect)) goOn();
  const chunks: Buffer[] = [];
  let bytes = 0;
  const onData = (chunk: Buffer): void => {
    bytes += chunk.length;
    chunks.push(chunk);
    if (bytes <= bytesMax) return;
    incoming.off('data', onData);
    incoming.off('end', onEnd);
    discard(incoming);
    done({ kind: 'too-large' });
  };
  const onEnd = (): void => {
    // An answer may take minutes, and is not to keep the question in memory.
    incoming.off('data', onData);
    incoming.off('end', onEnd);
    const body = chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
    chunks.length = 0;
    done({ kind: 'ok', body });
  };
  incoming.on('data', onData);
  incoming.on('end', onEnd);
  // The loss of the client is told by the close of the answer; unheard it would be an uncaught error here.
  incoming.on('error', ignore);
}

function discard(incoming: IncomingMessage): void {
  incoming.on('error', ignore);
  incoming.resume();
  destroyAfter(incoming, REFUSED_BODY_MS_MAX);
}

function ignore(): void {}
