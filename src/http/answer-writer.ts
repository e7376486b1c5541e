// Tells a member of an object in an answer that goes by: in the document of an answer in JSON, or in the data of each event of a
// stream. It keeps nothing of what goes by, and every other byte stays as it came.
import type { Edit, MemberWriterOptions } from './member-writer.ts';
import { createMemberWriter, withEdits } from './member-writer.ts';

export interface AnswerWriter {
  /** The next bytes of the answer, cut wherever; answers them with what is to be told. */
  push(chunk: Buffer): Buffer;
}

const LF = 0x0a;
const CR = 0x0d;
const DATA = Buffer.from('data:');
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

export function ofDocument(options: MemberWriterOptions): AnswerWriter {
  const member = createMemberWriter(options);
  return { push: (chunk) => withEdits(chunk, member.push(chunk, 0, chunk.length)) };
}

/** The data of one event is one document, though it may stand in several lines. */
export function ofEvents(options: MemberWriterOptions): AnswerWriter {
  const member = createMemberWriter(options);
  /** What the line is, or how much of `data:` it has shown. */
  let line: { readonly kind: 'unclear'; readonly matched: number } | { readonly kind: 'data' } | { readonly kind: 'other' } = { kind: 'unclear', matched: 0 };
  let afterCr = false;
  /** Bytes of a byte order mark seen at the very beginning; `null`: it is past. */
  let marked: number | null = 0;

  function push(chunk: Buffer): Buffer {
    const edits: Edit[] = [];
    const hasCr = chunk.includes(CR);
    let at = 0;
    while (at < chunk.length) {
      const byte = chunk[at] as number;
      if (afterCr) {
        afterCr = false;
        if (byte === LF) {
          at++;
          continue;
        }
      }
      if (marked !== null) {
        if (byte === BYTE_ORDER_MARK[marked]) {
          marked = marked + 1 === BYTE_ORDER_MARK.length ? null : marked + 1;
          at++;
          continue;
        }
        marked = null;
      }
      if (line.kind === 'unclear' && byte !== LF && byte !== CR) {
        const matched: number = line.matched + 1;
        const matches = byte === DATA[line.matched];
        line = !matches ? { kind: 'other' } : matched === DATA.length ? { kind: 'data' } : { kind: 'unclear', matched };
        if (matches) at++;
        continue;
      }
      const end = lineEnd(chunk, at, hasCr);
      if (line.kind === 'data') edits.push(...member.push(chunk, at, end));
      if (end < chunk.length) {
        if (line.kind === 'unclear' && line.matched === 0) member.restart();
        line = { kind: 'unclear', matched: 0 };
        afterCr = chunk[end] === CR;
      }
      at = end + 1;
    }
    return withEdits(chunk, edits);
  }

  return { push };
}

/** Of the line that goes on at `at`; the chunk's end where it does not end in it. */
function lineEnd(chunk: Buffer, at: number, hasCr: boolean): number {
  if (!hasCr) {
    const end = chunk.indexOf(LF, at);
    return end < 0 ? chunk.length : end;
  }
  let end = at;
  while (end < chunk.length && chunk[end] !== LF && chunk[end] !== CR) end++;
  return end;
}
