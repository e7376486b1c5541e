// Watches a server-sent event stream go by: counts the events that carry tokens and picks up `usage`. It looks at
// bytes that are already on their way to the client, holds nothing back and keeps no more than one unfinished line.
import type { Usage } from '../core/job.ts';
import { usageIn } from './usage.ts';

/**
 * Of one unfinished line. Engines' token events are some hundred bytes; a responses `response.completed` repeats the
 * whole answer. Of a longer line the beginning is judged for tokens and the end for usage, the middle is let go.
 */
export const LINE_BYTES_MAX = 262_144;

const LF = 0x0a;
const CR = 0x0d;
const QUOTE = 0x22;
const SPACE = 0x20;
const COLON = 0x3a;

/** Keys whose non-empty string value is output, most frequent first: chat, completions, reasoning, tools, responses. */
const TOKEN_KEYS = ['"content":', '"text":', '"reasoning_content":', '"reasoning":', '"arguments":', '"delta":', '"refusal":'].map((key) => Buffer.from(key));
const USAGE_KEY = Buffer.from('"usage":');
const ERROR_START = Buffer.from('{"error":');
/** The responses endpoint names its events; chat and completions never do. Only `….delta` brings new output. */
const RESPONSE_NAME = Buffer.from('response.');
const DELTA_NAME = Buffer.from('.delta');

export interface SseScanner {
  /** Reads the next bytes of the stream; answers how many events that carry output ended in them. */
  push(chunk: Buffer): number;
  /** The last usage seen, or `null`. */
  usage(): Usage | null;
  /** The server told of an error inside the stream. */
  failed(): boolean;
  /** Nothing of an unfinished event has gone by: something else may be said here. */
  atBoundary(): boolean;
}

export function createSseScanner(): SseScanner {
  /** Of the unfinished line, when it began in an earlier chunk. */
  let held: Buffer[] = [];
  let heldBytes = 0;
  let overlong = false;
  let overlongHasOutput = false;
  let afterCr = false;
  let eventHasOutput = false;
  let eventOpen = false;
  /** The event's name says that it repeats what deltas have already brought. */
  let eventIsSummary = false;
  let lastUsage: Usage | null = null;
  let errorSeen = false;

  function hold(rest: Buffer): void {
    held.push(rest);
    heldBytes += rest.length;
    if (heldBytes <= LINE_BYTES_MAX) return;
    const line = Buffer.concat(held);
    if (!overlong) {
      overlong = true;
      overlongHasOutput = isData(line) && !eventIsSummary && carriesOutput(line);
    }
    // Copied, so that the big buffer behind it can go.
    held = [Buffer.from(line.subarray(line.length - LINE_BYTES_MAX / 2))];
    heldBytes = LINE_BYTES_MAX / 2;
  }

  /** One whole line without its end; answers 1 where it closes an event that carried output. */
  function line(bytes: Buffer): number {
    if (overlong) {
      if (overlongHasOutput) eventHasOutput = true;
      readUsage(bytes);
      overlong = false;
      overlongHasOutput = false;
      return 0;
    }
    if (bytes.length === 0) {
      const counted = eventHasOutput ? 1 : 0;
      eventHasOutput = false;
      eventOpen = false;
      eventIsSummary = false;
      return counted;
    }
    if (bytes[0] === COLON) return 0;
    eventOpen = true;
    if (!isData(bytes)) {
      if (isEventName(bytes) && bytes.includes(RESPONSE_NAME)) eventIsSummary = !bytes.includes(DELTA_NAME);
      return 0;
    }
    if (!eventHasOutput && !eventIsSummary) eventHasOutput = carriesOutput(bytes);
    readUsage(bytes);
    if (startsWithError(bytes)) errorSeen = true;
    return 0;
  }

  function readUsage(bytes: Buffer): void {
    if (bytes.includes(USAGE_KEY)) lastUsage = usageIn(bytes) ?? lastUsage;
  }

  function push(chunk: Buffer): number {
    let tokens = 0;
    let start = 0;
    if (afterCr && chunk.length > 0) {
      afterCr = false;
      if (chunk[0] === LF) start = 1;
    }
    // Engines end lines with LF alone, and looking for one byte is what memchr is good at.
    const hasCr = chunk.includes(CR);
    for (;;) {
      const end = hasCr ? lineEnd(chunk, start) : chunk.indexOf(LF, start);
      if (end < 0) break;
      const rest = chunk.subarray(start, end);
      if (heldBytes === 0) tokens += line(rest);
      else {
        held.push(rest);
        const whole = Buffer.concat(held);
        held = [];
        heldBytes = 0;
        tokens += line(whole);
      }
      start = end + 1;
      if (chunk[end] === CR) {
        if (start === chunk.length) afterCr = true;
        else if (chunk[start] === LF) start++;
      }
    }
    if (start < chunk.length) hold(chunk.subarray(start));
    return tokens;
  }

  return {
    push,
    usage: () => lastUsage,
    failed: () => errorSeen,
    atBoundary: () => heldBytes === 0 && !eventOpen,
  };
}

function lineEnd(chunk: Buffer, start: number): number {
  const lf = chunk.indexOf(LF, start);
  const cr = chunk.indexOf(CR, start);
  if (lf < 0) return cr;
  return cr >= 0 && cr < lf ? cr : lf;
}

/** `event:`; no other field begins with an e. */
function isEventName(line: Buffer): boolean {
  return line[0] === 0x65;
}

/** `data:`; comments, `event:`, `id:` and `retry:` are other things. */
function isData(line: Buffer): boolean {
  return line[0] === 0x64 && line[1] === 0x61 && line[2] === 0x74 && line[3] === 0x61 && line[4] === 0x3a;
}

/**
 * Some output key has a non-empty string. Bytes are searched instead of JSON parsed (a quarter of the cost): a quoted key
 * followed by a colon cannot stand inside a JSON string, where its quotes would be escaped.
 */
function carriesOutput(line: Buffer): boolean {
  for (const key of TOKEN_KEYS) {
    for (let at = line.indexOf(key); at >= 0; at = line.indexOf(key, at)) {
      at += key.length;
      while (line[at] === SPACE) at++;
      if (line[at] === QUOTE && at + 1 < line.length && line[at + 1] !== QUOTE) return true;
    }
  }
  return false;
}

function startsWithError(line: Buffer): boolean {
  const start = line[5] === SPACE ? 6 : 5;
  // Most lines begin `{"id"`: one byte tells them apart before the slower comparison.
  if (line[start + 2] !== ERROR_START[2] || line.length < start + ERROR_START.length) return false;
  return line.compare(ERROR_START, 0, ERROR_START.length, start, start + ERROR_START.length) === 0;
}
