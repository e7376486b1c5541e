// `usage` out of an answer's bytes, without parsing the rest of it: an answer may be megabytes, its usage is not.
import type { Usage } from '../core/job.ts';

const KEY = Buffer.from('"usage"');
/** Longer than any engine's usage object; a bound, so that odd bytes cannot make this walk far. */
const USAGE_BYTES_MAX = 4_096;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const COLON = 0x3a;

/**
 * The last `"usage": {…}` in the bytes of a JSON document or of its end; `null` where there is none.
 * Cannot be fooled by text that talks of usage: inside a JSON string its quotes are escaped. The messages endpoint tells of
 * the prompt at the start of a stream and of the answer at its end: what is missing is taken from `before`.
 */
export function usageIn(bytes: Buffer, before: Usage | null = null): Usage | null {
  // What its caller keeps in `metadata` may have a key of that name too, and is written out behind it.
  for (let keyAt = bytes.lastIndexOf(KEY), tried = 0; keyAt >= 0 && tried < TRIED_MAX; tried++) {
    const usage = usageAt(bytes, keyAt + KEY.length, before);
    if (usage !== null) return usage;
    keyAt = keyAt === 0 ? -1 : bytes.lastIndexOf(KEY, keyAt - 1);
  }
  return null;
}

/** Keys called `usage` that are looked at before it is given up. */
const TRIED_MAX = 8;

function usageAt(bytes: Buffer, afterKey: number, before: Usage | null): Usage | null {
  let start = skipBlank(bytes, afterKey);
  if (bytes[start] !== COLON) return null;
  start = skipBlank(bytes, start + 1);
  if (bytes[start] !== OPEN) return null;
  const end = closingBrace(bytes, start);
  if (end < 0) return null;
  try {
    return usageOf(JSON.parse(bytes.toString('utf8', start, end + 1)), before);
  } catch {
    return null;
  }
}

/** Chat and completions say prompt/completion, responses and messages say input/output; messages count what was cached apart. */
function usageOf(value: Record<string, unknown>, before: Usage | null): Usage | null {
  const outputTokens = count(value['completion_tokens'] ?? value['output_tokens']);
  const told = count(value['prompt_tokens'] ?? value['input_tokens']);
  if (told === null) return before === null || outputTokens === null ? null : { ...before, outputTokens };
  const read = count(value['cache_read_input_tokens']) ?? 0;
  const promptTokens = told + read + (count(value['cache_creation_input_tokens']) ?? 0);
  const details = value['prompt_tokens_details'] ?? value['input_tokens_details'];
  const cached = typeof details === 'object' && details !== null ? count((details as Record<string, unknown>)['cached_tokens']) : null;
  return { promptTokens, cachedTokens: Math.min(cached ?? read, promptTokens), outputTokens: outputTokens ?? 0 };
}

function count(value: unknown): number | null {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : null;
}

function closingBrace(bytes: Buffer, start: number): number {
  const stop = Math.min(bytes.length, start + USAGE_BYTES_MAX);
  let depth = 0;
  let inString = false;
  for (let index = start; index < stop; index++) {
    const byte = bytes[index];
    if (inString) {
      if (byte === BACKSLASH) index++;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) inString = true;
    else if (byte === OPEN) depth++;
    else if (byte === CLOSE && --depth === 0) return index;
  }
  return -1;
}

function skipBlank(bytes: Buffer, from: number): number {
  let index = from;
  while (bytes[index] === 0x20 || bytes[index] === 0x09 || bytes[index] === 0x0a || bytes[index] === 0x0d) index++;
  return index;
}
