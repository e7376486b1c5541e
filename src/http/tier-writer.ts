// Tells in an answer, as OpenAI does, which service tier the request was served with: in the object of an answer in JSON, and
// in that of each event of a stream. It keeps nothing of what goes by.
import type { AnswerHead } from './answer-head.ts';
import { isReadable } from './answer-head.ts';
import type { Endpoint } from './endpoints.ts';
import type { Edit } from './member-writer.ts';
import { createMemberWriter, withEdits } from './member-writer.ts';

export interface TierWriter {
  /** The next bytes of the answer, cut wherever; answers them with what is to be told. */
  push(chunk: Buffer): Buffer;
}

const LF = 0x0a;
const CR = 0x0d;
const DATA = Buffer.from('data:');
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/** Of chat, completions and responses. */
export function createTierWriter(tier: string, { endpoint, streams }: { readonly endpoint: Endpoint; readonly streams: boolean }): TierWriter {
  const member = { name: 'service_tier', value: JSON.stringify(tier) };
  // Events of `responses` have a response inside where they tell of one, and nothing else has a tier. An error has no choices, and gets none.
  if (endpoint === 'responses') return streams ? ofEvents({ ...member, within: 'response', beside: null }) : ofDocument({ ...member, within: null, beside: 'output' });
  const beside = { ...member, within: null, beside: 'choices' };
  return streams ? ofEvents(beside) : ofDocument(beside);
}

/** For an answer in JSON, or a stream, that can be read and is no error; `null` where it is another. */
export function tierWriterFor(tier: string, endpoint: Endpoint, { statusCode, headers, streams }: AnswerHead): TierWriter | null {
  if (statusCode !== 200 || !isReadable(headers)) return null;
  if (!streams && !/^application\/json\b/i.test(headers['content-type'] ?? '')) return null;
  return createTierWriter(tier, { endpoint, streams });
}

function ofDocument(options: Parameters<typeof createMemberWriter>[0]): TierWriter {
  const member = createMemberWriter(options);
  return { push: (chunk) => withEdits(chunk, member.push(chunk, 0, chunk.length)) };
}

/** The data of one event is one document, though it may stand in several lines. */
function ofEvents(options: Parameters<typeof createMemberWriter>[0]): TierWriter {
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
