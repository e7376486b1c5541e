// A whole answer that is kept until it has ended, so that its headers can tell what is known only then. One that is too long goes on
// before its end.
import type { AnswerHead } from './answer-head.ts';

export interface HeldAnswer {
  readonly head: AnswerHead;
  /** False once there is more than is kept. */
  push(bytes: Buffer): boolean;
  bytes(): Buffer;
}

/** Answers are some kilobytes; those with vectors or images are let go. */
export const HELD_BYTES_MAX = 1_048_576;

export function createHeldAnswer(head: AnswerHead): HeldAnswer {
  const pieces: Buffer[] = [];
  let length = 0;
  return {
    head,
    push(bytes) {
      pieces.push(bytes);
      length += bytes.length;
      return length <= HELD_BYTES_MAX;
    },
    bytes: () => (pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces)),
  };
}
