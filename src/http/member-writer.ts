// Gives one member of a JSON object another value while the document goes by in pieces of any size, and leaves every other
// byte as it came. Nothing is kept of the document but where in it we are, so that its size does not matter.

/** In a piece: instead of the bytes from `from` to `to`, these. */
export interface Edit {
  readonly from: number;
  readonly to: number;
  readonly bytes: Buffer;
}

export interface MemberWriterOptions {
  readonly name: string;
  /** As JSON; asked for when the member's place has come. */
  readonly value: () => string;
  /** The object is what the document has under these names, one inside the other; none: it is the document. */
  readonly within: readonly string[];
  /** It is added only to an object that has a member of this name; `null`: to every one. Where it is there already it is replaced. */
  readonly beside: string | null;
}

export interface MemberWriter {
  /** The next bytes of the document are `chunk` from `from` to `to`; answers what is to become of them, in order. */
  push(chunk: Buffer, from: number, to: number): readonly Edit[];
  /** Another document begins. */
  restart(): void;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const NOTHING = Buffer.alloc(0);

/** Of a key, quotes included; the longest that is looked for could be written in 6 bytes for each letter. A longer one is another. */
const KEY_BYTES_MAX = 128;

/** What the next value is: the one to replace, the object that has it, or neither. */
type Awaited = 'value' | 'object' | null;

/** Documents that are no JSON come out with an edit too many or too few, and are no worse than before. */
export function createMemberWriter({ name, value, within, beside }: MemberWriterOptions): MemberWriter {
  const ownDepth = within.length + 1;
  let state: 'before' | 'in' | 'past' = 'before';
  let depth = 0;
  /** Objects of the way to it that are open. */
  let entered = 0;
  /** The object that is written to is open. */
  let open = false;
  let isEmpty = true;
  let isThere = false;
  let mayAdd = false;
  let keyNext = false;
  let awaited: Awaited = null;
  let inString = false;
  let escaped = false;
  /** Of the key that is being read, quotes included. */
  let key: number[] | null = null;
  /** What is being taken out: a string, an object or a list down to a depth, or a number and its like. */
  let skipping: { readonly kind: 'string' | 'scalar' } | { readonly kind: 'nested'; readonly untilDepth: number } | null = null;

  function restart(): void {
    state = 'before';
    depth = 0;
    entered = 0;
    [open, isEmpty, isThere, mayAdd, keyNext, inString, escaped] = [false, true, false, false, false, false, false];
    awaited = null;
    key = null;
    skipping = null;
  }

  function enter(): void {
    open = true;
    isEmpty = true;
    isThere = false;
    mayAdd = beside === null;
  }

  function keyEnded(bytes: readonly number[]): void {
    const isOwn = open && depth === ownDepth;
    if (isOwn) isEmpty = false;
    const said = textOf(bytes);
    if (isOwn && said === name) {
      awaited = 'value';
      isThere = true;
    } else if (isOwn && said === beside) mayAdd = true;
    else if (leadsOn() && said === within[entered]) awaited = 'object';
  }

  /** A key that is read now may be the next of the way. */
  function leadsOn(): boolean {
    return depth === entered + 1 && entered < within.length;
  }

  function push(chunk: Buffer, from: number, to: number): readonly Edit[] {
    if (state === 'past') return [];
    const edits: Edit[] = [];
    /** Where what is being taken out begins here, and what stands in for it. */
    let cutFrom = from;
    let cutFor = NOTHING;
    const cut = (end: number): void => {
      edits.push({ from: cutFrom, to: end, bytes: cutFor });
    };
    const skip = (at: number, what: NonNullable<typeof skipping>): void => {
      skipping = what;
      cutFrom = at;
      cutFor = Buffer.from(value());
      awaited = null;
    };
    const scalarEnds = (at: number): void => {
      if (skipping?.kind !== 'scalar') return;
      cut(at);
      skipping = null;
    };
    for (let at = from; at < to; at++) {
      const byte = chunk[at] as number;
      if (inString) {
        if (key !== null && key.length <= KEY_BYTES_MAX) key.push(byte);
        if (escaped) escaped = false;
        else if (byte === BACKSLASH) escaped = true;
        else if (byte === QUOTE) {
          inString = false;
          if (key !== null) keyEnded(key);
          key = null;
          if (skipping?.kind === 'string') {
            cut(at + 1);
            skipping = null;
          }
        }
        continue;
      }
      if (isBlank(byte)) {
        scalarEnds(at);
        continue;
      }
      if (state === 'before') {
        if (isByteOrderMark(byte)) continue;
        if (byte !== OPEN_OBJECT) {
          state = 'past';
          return edits;
        }
        state = 'in';
      }
      switch (byte) {
        case QUOTE:
          inString = true;
          if (keyNext && (leadsOn() || (open && depth === ownDepth))) key = [byte];
          else if (awaited === 'value') skip(at, { kind: 'string' });
          keyNext = false;
          if (key === null) awaited = null;
          break;
        case OPEN_OBJECT:
        case OPEN_ARRAY:
          if (awaited === 'value') skip(at, { kind: 'nested', untilDepth: depth });
          depth++;
          if (byte === OPEN_OBJECT && awaited === 'object') entered++;
          if (byte === OPEN_OBJECT && depth === ownDepth && (depth === 1 || awaited === 'object')) enter();
          awaited = null;
          keyNext = byte === OPEN_OBJECT;
          break;
        case CLOSE_OBJECT:
        case CLOSE_ARRAY:
          scalarEnds(at);
          if (open && depth === ownDepth) {
            open = false;
            if (!isThere && mayAdd) edits.push({ from: at, to: at, bytes: Buffer.from(`${isEmpty ? '' : ','}${JSON.stringify(name)}:${value()}`) });
          }
          if (depth === entered + 1 && entered > 0) entered--;
          depth--;
          keyNext = false;
          if (skipping?.kind === 'nested' && skipping.untilDepth === depth) {
            cut(at + 1);
            skipping = null;
          }
          if (depth === 0) {
            state = 'past';
            return edits;
          }
          break;
        case COMMA:
          scalarEnds(at);
          keyNext = true;
          awaited = null;
          break;
        case COLON:
          break;
        default:
          if (awaited === 'value') skip(at, { kind: 'scalar' });
          awaited = null;
      }
    }
    if (skipping !== null && to > cutFrom) cut(to);
    return edits;
  }

  return { push, restart };
}

/** The piece with its edits. */
export function withEdits(chunk: Buffer, edits: readonly Edit[]): Buffer {
  if (edits.length === 0) return chunk;
  const parts: Buffer[] = [];
  let settledTo = 0;
  for (const { from, to, bytes } of edits) {
    parts.push(chunk.subarray(settledTo, from), bytes);
    settledTo = to;
  }
  return Buffer.concat([...parts, chunk.subarray(settledTo)]);
}

function textOf(key: readonly number[]): string | null {
  if (key.length > KEY_BYTES_MAX) return null;
  try {
    return JSON.parse(Buffer.from(key).toString('utf8')) as string;
  } catch {
    return null;
  }
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function isByteOrderMark(byte: number): boolean {
  return byte === 0xef || byte === 0xbb || byte === 0xbf;
}
