// Watches a server-sent event stream go by: counts the events that carry tokens, picks up `usage`, and takes out the one
// event that the gateway asked for and its client did not. Whole events are never held back. An unfinished one, of use to
// nobody, is kept up to a bound, so that where a stream breaks off no client takes its half for a whole one.
import type { Usage } from '../core/job.ts';
import { usageIn } from './usage.ts';

/**
 * Of one unfinished line. Engines' token events are some hundred bytes; a responses `response.completed` repeats the
 * whole answer. Of a longer line the beginning is judged for tokens and the end for usage, the middle is let go.
 */
export const LINE_BYTES_MAX = 262_144;

/** Of an unfinished event; a longer one goes on as it comes. The one to take out holds a usage object and some names, and is never longer. */
export const KEPT_EVENT_BYTES_MAX = 8_192;

const LF = 0x0a;
const CR = 0x0d;
const QUOTE = 0x22;
const SPACE = 0x20;
const COLON = 0x3a;

/** Keys whose non-empty string value is output, most frequent first: chat, completions, reasoning, tools, responses, messages. */
const TOKEN_KEYS = ['"content":', '"text":', '"reasoning_content":', '"reasoning":', '"arguments":', '"delta":', '"refusal":', '"thinking":', '"partial_json":'].map((key) => Buffer.from(key));
const USAGE_KEY = Buffer.from('"usage"');
const ERROR_START = Buffer.from('{"error":');
/** The responses endpoint names its events; chat and completions never do. Only `….delta` brings new output. */
const RESPONSE_NAME = Buffer.from('response.');
const DELTA_NAME = Buffer.from('.delta');
/** How the endpoints that name their events tell of an error. */
const ERROR_NAMES = ['event: error', 'event:error', 'event: response.failed', 'event:response.failed'].map((name) => Buffer.from(name));
const NOTHING = Buffer.alloc(0);

export interface SseScanner {
  /** Reads the next bytes of the stream; answers how many events that carry output ended in them. */
  push(chunk: Buffer): number;
  /** Of the bytes pushed last, and of what was kept before them, what may go on to the client: mostly the chunk itself. */
  passed(): Buffer;
  /** What is kept of an event that will not be finished any more; nothing is kept after it. */
  rest(): Buffer;
  /** The last usage seen, or `null`. */
  usage(): Usage | null;
  /** The server told of an error inside the stream. */
  failed(): boolean;
  /** Nothing of an unfinished event has gone by: something else may be said here. */
  atBoundary(): boolean;
}

/** With `hideUsage` the event that has no choices and tells the usage, as `stream_options.include_usage` asks for it, does not pass. */
export function createSseScanner({ hideUsage = false }: { readonly hideUsage?: boolean } = {}): SseScanner {
  /** Of the unfinished line, when it began in an earlier chunk. */
  let held: Buffer[] = [];
  let heldBytes = 0;
  let overlong = false;
  let overlongHasOutput = false;
  let afterCr = false;
  /** It may begin with a byte order mark. */
  let firstLine = true;
  let eventHasOutput = false;
  let eventOpen = false;
  /** The event's name says that it repeats what deltas have already brought. */
  let eventIsSummary = false;
  let eventIsHidden = false;
  /** Its beginning has gone on already: too late to take it out. */
  let eventIsReleased = false;
  let lastUsage: Usage | null = null;
  /**
   * The last line with output, while no other has followed it. A server that tells usage beside output tells it again with the
   * next output, so that it is looked for in the last of these alone.
   */
  let unread: Buffer | null = null;
  let errorSeen = false;
  /** Where in a line the last output stood, behind which key: a stream's lines are alike, and looking there first is cheap. */
  let likelyAt = -1;
  let likelyKey: Buffer = NOTHING;
  let passed: Buffer = NOTHING;
  /** Of the unfinished event, what has not been passed on. */
  let kept: Buffer[] = [];
  let keptBytes = 0;
  /** The line end that closed a hidden event may be half a CRLF: its other half goes with it. */
  let hiddenCr = false;

  function hold(rest: Buffer): void {
    held.push(rest);
    heldBytes += rest.length;
    if (heldBytes <= LINE_BYTES_MAX) return;
    const line = Buffer.concat(held);
    if (!overlong) {
      overlong = true;
      overlongHasOutput = isData(line, 0) && !eventIsSummary && carriesOutput(line);
    }
    // Copied, so that the big buffer behind it can go.
    held = [Buffer.from(line.subarray(line.length - LINE_BYTES_MAX / 2))];
    heldBytes = LINE_BYTES_MAX / 2;
  }

  /** One whole line that is not empty, without its end. */
  function line(bytes: Buffer): void {
    if (overlong) {
      if (overlongHasOutput) eventHasOutput = true;
      readUnread();
      readUsage(bytes);
      overlong = false;
      overlongHasOutput = false;
      return;
    }
    if (firstLine) {
      firstLine = false;
      if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) return line(bytes.subarray(3));
    }
    if (bytes.length === 0) return;
    const data = isData(bytes, 0);
    const output = data && carriesOutput(bytes);
    if (!output) readUnread();
    if (bytes[0] === COLON) return;
    eventOpen = true;
    if (!data) {
      if (!isEventName(bytes)) return;
      if (bytes.includes(RESPONSE_NAME)) eventIsSummary = !bytes.includes(DELTA_NAME);
      if (ERROR_NAMES.some((name) => bytes.equals(name))) errorSeen = true;
      return;
    }
    if (output) {
      if (!eventIsSummary) eventHasOutput = true;
      unread = bytes;
    } else if (readUsage(bytes) && hideUsage && tellsUsageAlone(bytes)) eventIsHidden = true;
    if (startsWithError(bytes)) errorSeen = true;
  }

  function readUnread(): void {
    if (unread !== null) readUsage(unread);
    unread = null;
  }

  function readUsage(bytes: Buffer): boolean {
    if (!bytes.includes(USAGE_KEY)) return false;
    const told = usageIn(bytes, lastUsage);
    lastUsage = told ?? lastUsage;
    return told !== null;
  }

  /** Some output key has a non-empty string. */
  function carriesOutput(line: Buffer): boolean {
    for (const key of TOKEN_KEYS) {
      for (let at = line.indexOf(key); at >= 0; at = line.indexOf(key, at)) {
        const keyAt = at;
        at += key.length;
        while (line[at] === SPACE) at++;
        if (line[at] !== QUOTE || at + 1 >= line.length || line[at + 1] === QUOTE) continue;
        likelyAt = keyAt;
        likelyKey = key;
        return true;
      }
    }
    return false;
  }

  /** At once true where a data line has its output where the last one had it; else it has to be looked at. */
  function isLikeTheLast(chunk: Buffer, start: number, end: number): boolean {
    if (likelyAt < 0) return false;
    let at = start + likelyAt;
    if (at + likelyKey.length + 1 >= end || !isData(chunk, start)) return false;
    for (let index = 0; index < likelyKey.length; index++) if (chunk[at + index] !== likelyKey[index]) return false;
    at += likelyKey.length;
    if (chunk[at] === SPACE) at++;
    return chunk[at] === QUOTE && at + 1 < end && chunk[at + 1] !== QUOTE;
  }

  function takeKept(): Buffer[] {
    const all = kept;
    kept = [];
    keptBytes = 0;
    return all;
  }

  function closeEvent(): number {
    const counted = eventHasOutput ? 1 : 0;
    eventHasOutput = false;
    eventOpen = false;
    eventIsSummary = false;
    return counted;
  }

  function push(chunk: Buffer): number {
    let tokens = 0;
    let start = 0;
    if (afterCr && chunk.length > 0) {
      afterCr = false;
      if (chunk[0] === LF) start = 1;
    }
    /** What passes in several parts; `null` while it is the whole chunk. */
    let parts: Buffer[] | null = null;
    /** Up to here the chunk is in the parts, or will not pass. */
    let settledTo = hiddenCr ? start : 0;
    if (settledTo > 0) parts = [];
    if (chunk.length > 0) hiddenCr = false;
    /** Where the unfinished event begins in this chunk. The other half of a CRLF is still part of what came before it. */
    let eventAt = keptBytes > 0 ? 0 : start;
    /** Where in this chunk the last line with output stands, while no other has followed it. */
    let outputAt = -1;
    let outputTo = -1;
    // Engines end lines with LF alone, and looking for one byte is what memchr is good at.
    const hasCr = chunk.includes(CR);
    let nextLf = hasCr ? chunk.indexOf(LF, start) : -1;
    let nextCr = hasCr ? chunk.indexOf(CR, start) : -1;
    for (;;) {
      let blank = false;
      let end: number;
      if (hasCr) {
        // Each is looked for again only when it has been passed: else a chunk of one kind alone is searched once per line.
        if (nextLf < start && nextLf >= 0) nextLf = chunk.indexOf(LF, start);
        if (nextCr < start && nextCr >= 0) nextCr = chunk.indexOf(CR, start);
        end = nextLf < 0 ? nextCr : nextCr < 0 ? nextLf : Math.min(nextLf, nextCr);
      } else end = chunk.indexOf(LF, start);
      if (end < 0) break;
      if (heldBytes > 0) {
        held.push(chunk.subarray(start, end));
        const whole = Buffer.concat(held);
        held = [];
        heldBytes = 0;
        line(whole);
      } else if (end > start) {
        if (!eventIsSummary && isLikeTheLast(chunk, start, end)) {
          eventOpen = true;
          eventHasOutput = true;
          outputAt = start;
          outputTo = end;
        } else {
          if (outputAt >= 0) unread = chunk.subarray(outputAt, outputTo);
          outputAt = -1;
          line(chunk.subarray(start, end));
        }
      } else {
        tokens += closeEvent();
        blank = true;
      }
      start = end + 1;
      if (chunk[end] === CR) {
        if (start === chunk.length) afterCr = true;
        else if (chunk[start] === LF) start++;
      }
      // A comment outside of events is whole by itself: a server may keep a connection alive with it.
      if (!blank && eventOpen) continue;
      // Longer it would pass or not by how it was cut.
      if (eventIsHidden && !eventIsReleased && keptBytes + start - eventAt <= KEPT_EVENT_BYTES_MAX) {
        parts ??= [];
        if (eventAt > settledTo) parts.push(chunk.subarray(settledTo, eventAt));
        settledTo = start;
        takeKept();
        hiddenCr = afterCr;
      }
      eventIsHidden = false;
      eventIsReleased = false;
      if (keptBytes > 0) parts = [...takeKept(), ...(parts ?? [])];
      eventAt = start;
    }
    if (outputAt >= 0) unread = chunk.subarray(outputAt, outputTo);
    // Copied, so that the big buffer behind it can go.
    if (unread !== null && chunk.length > 0) unread = Buffer.from(unread);
    if (start < chunk.length) hold(chunk.subarray(start));
    keepUnfinished(chunk, eventAt, settledTo, parts);
    return tokens;
  }

  /** What of the chunk belongs to an event that is not over yet stays here, unless that is too long already. */
  function keepUnfinished(chunk: Buffer, eventAt: number, settledTo: number, parts: Buffer[] | null): void {
    const unfinished = chunk.length - eventAt;
    const keeps = unfinished > 0 && !eventIsReleased && keptBytes + unfinished <= KEPT_EVENT_BYTES_MAX;
    if (unfinished > 0 && !keeps) eventIsReleased = true;
    if (parts === null && keptBytes === 0 && !keeps) {
      passed = chunk;
      return;
    }
    const out = parts ?? [];
    const upTo = keeps ? eventAt : chunk.length;
    if (!keeps && unfinished > 0) out.push(...takeKept());
    if (upTo > settledTo) out.push(chunk.subarray(settledTo, upTo));
    if (keeps) {
      kept.push(Buffer.from(chunk.subarray(eventAt)));
      keptBytes += unfinished;
    }
    passed = out.length === 1 ? (out[0] as Buffer) : Buffer.concat(out);
  }

  return {
    push,
    passed: () => passed,
    rest: () => Buffer.concat(takeKept()),
    usage() {
      readUnread();
      return lastUsage;
    },
    failed: () => errorSeen,
    atBoundary: () => heldBytes === 0 && !eventOpen,
  };
}

/** `event:`; no other field begins with an e. */
function isEventName(line: Buffer): boolean {
  return line[0] === 0x65;
}

/** `data:`; comments, `event:`, `id:` and `retry:` are other things. */
function isData(bytes: Buffer, at: number): boolean {
  return bytes[at] === 0x64 && bytes[at + 1] === 0x61 && bytes[at + 2] === 0x74 && bytes[at + 3] === 0x61 && bytes[at + 4] === 0x3a;
}

/** It has no choices, and they are what an event is about. At most one line of a stream is parsed for it, unless its server repeats it. */
function tellsUsageAlone(line: Buffer): boolean {
  if (line.length > KEPT_EVENT_BYTES_MAX) return false;
  try {
    const { choices } = JSON.parse(line.toString('utf8', 5)) as { choices?: unknown };
    return Array.isArray(choices) && choices.length === 0;
  } catch {
    return false;
  }
}

function startsWithError(line: Buffer): boolean {
  const start = line[5] === SPACE ? 6 : 5;
  // Most lines begin `{"id"`: one byte tells them apart before the slower comparison.
  if (line[start + 2] !== ERROR_START[2] || line.length < start + ERROR_START.length) return false;
  if (line.compare(ERROR_START, 0, ERROR_START.length, start, start + ERROR_START.length) !== 0) return false;
  let at = start + ERROR_START.length;
  while (line[at] === SPACE) at++;
  // `null`: nothing went wrong.
  return line[at] !== 0x6e;
}
