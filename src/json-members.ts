// Where the members of a JSON object stand in its bytes, for those who must leave every other byte as it came.

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN = new Set([0x7b, 0x5b]);
const CLOSE = new Set([0x7d, 0x5d]);

/** Where the values of that key of an object stand, in order; JSON's parsers take the last. The text must have parsed as a JSON object. */
export function topLevelValues(body: Buffer, key: string): { start: number; end: number }[] {
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
      if (depth === 1) ends(endBefore(body, index));
      depth--;
    } else if (byte === COMMA) {
      if (depth === 1) ends(endBefore(body, index));
      keyNext = true;
    }
  }
  return values;
}

/** Behind the last byte before `index` that is not blank. */
export function endBefore(body: Buffer, index: number): number {
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
