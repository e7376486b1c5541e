// Puts another model name into a request body and leaves every other byte as it came: parsing and printing JSON
// would change numbers and the order the client chose.

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** The body must have parsed as a JSON object. Every top-level `model` is replaced: parsers take the last of two. */
export function withModelName(body: Buffer, model: string): Buffer {
  const replacement = Buffer.from(JSON.stringify(model));
  const parts: Buffer[] = [];
  let keptUpTo = 0;
  for (const { start, end } of topLevelModelValues(body)) {
    parts.push(body.subarray(keptUpTo, start), replacement);
    keptUpTo = end;
  }
  return keptUpTo === 0 ? body : Buffer.concat([...parts, body.subarray(keptUpTo)]);
}

function topLevelModelValues(body: Buffer): { start: number; end: number }[] {
  const values: { start: number; end: number }[] = [];
  let depth = 0;
  /** A string at depth 1 is a key when the last sign before it was `{` or `,`. */
  let keyNext = false;
  let valueOfModel = false;
  for (let index = 0; index < body.length; index++) {
    const byte = body[index];
    if (byte === QUOTE) {
      const end = stringEnd(body, index);
      if (depth === 1) {
        if (keyNext) valueOfModel = JSON.parse(body.toString('utf8', index, end)) === 'model';
        else if (valueOfModel) values.push({ start: index, end });
      }
      index = end - 1;
      keyNext = false;
    } else if (byte === 0x7b || byte === 0x5b) {
      depth++;
      keyNext = byte === 0x7b;
    } else if (byte === 0x7d || byte === 0x5d) depth--;
    else if (byte === 0x2c) {
      keyNext = true;
      valueOfModel = false;
    }
  }
  return values;
}

/** Just behind the closing quote. */
function stringEnd(body: Buffer, start: number): number {
  let index = start + 1;
  while (index < body.length && body[index] !== QUOTE) index += body[index] === BACKSLASH ? 2 : 1;
  return index + 1;
}
