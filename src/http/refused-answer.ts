// A server's "not now" (429, 503), kept while another replica is asked: if none can serve the request, the client gets it as it is.
import type { AnswerHead } from './answer-head.ts';

/** Refusals are a line or two; a longer one is no such thing, and goes on as it comes. */
export const REFUSED_BYTES_MAX = 65_536;

export interface RefusedAnswer {
  readonly head: AnswerHead;
  /** False where it has become longer than what is kept. */
  push(bytes: Buffer | null): boolean;
  bytes(): Buffer;
}

/** The server has done no work for these, so that nothing is done twice by asking another. A 500 has, or may have. */
export function isRefusal(statusCode: number): boolean {
  return statusCode === 429 || statusCode === 503;
}

export function createRefusedAnswer(head: AnswerHead): RefusedAnswer {
  const chunks: Buffer[] = [];
  let total = 0;
  return {
    head,
    push(bytes) {
      if (bytes === null) return true;
      chunks.push(bytes);
      total += bytes.length;
      return total <= REFUSED_BYTES_MAX;
    },
    bytes: () => Buffer.concat(chunks),
  };
}
