// Puts another value into a request body and leaves every other byte as it came: parsing and printing JSON would change
// numbers and the order the client chose.

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN = new Set([0x7b, 0x5b]);
const CLOSE = new Set([0x7d, 0x5d]);

/** The body must have parsed as a JSON object. Every top-level `model` that is a string is replaced: parsers take the last of two. */
export function withModelName(body: Buffer, model: string): Buffer {
  const name = Buffer.from(JSON.stringify(model));
  return withValue(body, 'model', (value) => (value[0] === QUOTE ? name : value));
}

/**
 * The body of a stream with `stream_options.include_usage` on; its other options stay as they were written. `given` is what the
 * body has for `stream_options`: `undefined` where it has none. The body must have parsed as a JSON object that has some key.
 */
export function withUsageAsked(body: Buffer, given: Readonly<Record<string, unknown>> | null | undefined): Buffer {
  if (given === undefined) return withMember(body, '"stream_options":{"include_usage":true}');
  return withValue(body, 'stream_options', (value) => {
    if (value[0] !== 0x7b) return Buffer.from('{"include_usage":true}');
    const switched = withValue(value, 'include_usage', () => Buffer.from('true'));
    return switched === value ? withMember(value, '"include_usage":true') : switched;
  });
}

/** The body with that number as its only top-level `priority`. It must have parsed as a JSON object that has some key. */
export function withPriority(body: Buffer, priority: number): Buffer {
  const replaced = withValue(body, 'priority', () => Buffer.from(String(priority)));
  return replaced === body ? withMember(body, `"priority":${priority}`) : replaced;
}

/** One member more at the end of an object. */
function withMember(object: Buffer, member: string): Buffer {
  const end = object.lastIndexOf(0x7d);
  const last = object[lastOfValue(object, end) - 1];
  return Buffer.concat([object.subarray(0, end), Buffer.from(last === 0x7b ? member : `,${member}`), object.subarray(end)]);
}

/** Every top-level value of that key as `edited` makes it; the same buffer where there is none, or nothing has changed. */
function withValue(body: Buffer, key: string, edited: (value: Buffer) => Buffer): Buffer {
  const parts: Buffer[] = [];
  let keptUpTo = 0;
  for (const { start, end } of topLevelValues(body, key)) {
    const value = body.subarray(start, end);
    const replacement = edited(value);
    if (replacement === value) continue;
    parts.push(body.subarray(keptUpTo, start), replacement);
    keptUpTo = end;
  }
  return keptUpTo === 0 ? body : Buffer.concat([...parts, body.subarray(keptUpTo)]);
}

function topLevelValues(body: Buffer, key: string): { start: number; end: number }[] {
  const values: { start: number; end: number }[] = [];
  let depth = 0;
  /** A string at depth 1 is a key when the last sign before it was `{` or `,`. */
  let keyNext = false;
  let wanted = false;
  let start = -1;
  const ends = (end: number): void => {
    if (start >= 0) values.push({ start, end });
    start = -1;
    wanted = false;
  };
  for (let index = 0; index < body.length; index++) {
    const byte = body[index] as number;
    if (isBlank(byte)) continue;
    if (depth === 1 && wanted && start < 0 && byte !== 0x3a && !CLOSE.has(byte)) start = index;
    if (byte === QUOTE) {
      const end = stringEnd(body, index);
      if (depth === 1 && keyNext) wanted = JSON.parse(body.toString('utf8', index, end)) === key;
      index = end - 1;
      keyNext = false;
    } else if (OPEN.has(byte)) {
      depth++;
      keyNext = byte === 0x7b;
    } else if (CLOSE.has(byte)) {
      if (depth === 1) ends(lastOfValue(body, index));
      depth--;
    } else if (byte === COMMA) {
      if (depth === 1) ends(lastOfValue(body, index));
      keyNext = true;
    }
  }
  return values;
}

/** Behind the last byte before `index` that is not blank. */
function lastOfValue(body: Buffer, index: number): number {
  let end = index;
  while (end > 0 && isBlank(body[end - 1] as number)) end--;
  return end;
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/** Just behind the closing quote. */
function stringEnd(body: Buffer, start: number): number {
  let index = start + 1;
  while (index < body.length && body[index] !== QUOTE) index += body[index] === BACKSLASH ? 2 : 1;
  return index + 1;
}
