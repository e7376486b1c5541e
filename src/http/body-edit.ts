// Puts another value into a request body and leaves every other byte as it came: parsing and printing JSON would change
// numbers and the order the client chose.

import { endBefore, topLevelValues } from '../json-members.ts';

const QUOTE = 0x22;

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
  const last = object[endBefore(object, end) - 1];
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
