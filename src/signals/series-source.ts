// Where a series comes from: a file that is read again when it changes, or an address that is asked every so often. What cannot
// be had or read is said and never taken over: the last good series stays, and since when it is only kept is told beside it.
import { readFileSync, statSync } from 'node:fs';
import { Agent } from 'undici';
import { watchFiles } from '../config/file-watch.ts';
import type { Series } from './series.ts';
import { parseSeries, SERIES_BYTES_MAX, SeriesError } from './series.ts';
import { boundedText } from '../bounded-text.ts';
import { tokenIn } from '../token-file.ts';

export type SeriesPlace =
  | { readonly kind: 'file'; readonly path: string }
  /** `tokenPath`: file with a bearer token. */
  | { readonly kind: 'http'; readonly url: string; readonly tokenPath: string | null; readonly everyMs: number; readonly timeoutMs: number };

export interface SeriesSource {
  /** The newest good one; `null` before the first. */
  series(): Series | null;
  /** Why what is there now could not be had, and since when nothing could, on the clock of `now`; `null`: the newest is in force. */
  trouble(): { readonly why: string; readonly sinceMs: number } | null;
  close(): Promise<void>;
}

export interface SeriesSourceOptions {
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** There is another series. */
  readonly onSeries: () => void;
  /** Told when it changes: why it could not be had; `null`: it can again. */
  readonly onTrouble: (why: string | null) => void;
}

const FILE_LOOK_MS = 1_000;
/** After a failure sooner than the interval asks for, but not for ever. */
const RETRY_MS = { first: 5_000, max: 60_000 };

/** The first reading has happened when this returns, of a file; of an address it has begun. */
export function openSeries(place: SeriesPlace, options: SeriesSourceOptions): SeriesSource {
  return place.kind === 'file' ? openFile(place.path, options) : openAddress(place, options);
}

/** What is known of one source, whichever it is. */
function createKept({ now, onSeries, onTrouble }: SeriesSourceOptions) {
  let series: Series | null = null;
  let trouble: ReturnType<SeriesSource['trouble']> = null;
  let retryMs = RETRY_MS.first;
  return {
    series: () => series,
    trouble: () => trouble,
    got(next: Series): void {
      series = next;
      retryMs = RETRY_MS.first;
      if (trouble !== null) onTrouble(null);
      trouble = null;
      onSeries();
    },
    failed(error: unknown): void {
      const why = error instanceof Error ? error.message : String(error);
      const known = trouble;
      trouble = { why, sinceMs: known?.sinceMs ?? now() };
      if (known?.why !== why) onTrouble(why);
    },
    /** How long to wait before the next try; every time longer. */
    retryMs(): number {
      const waitMs = retryMs;
      retryMs = Math.min(RETRY_MS.max, retryMs * 2);
      return waitMs;
    },
  };
}

function openFile(path: string, options: SeriesSourceOptions): SeriesSource {
  const kept = createKept(options);
  let retry: NodeJS.Timeout | undefined;
  function read(): void {
    clearTimeout(retry);
    try {
      kept.got(seriesIn(path));
    } catch (error) {
      kept.failed(error);
      // The right to read it may come back without the file being another one.
      retry = setTimeout(read, kept.retryMs());
      retry.unref();
    }
  }
  const watch = watchFiles(() => [path], { everyMs: FILE_LOOK_MS, changed: read });
  read();
  return {
    series: kept.series,
    trouble: kept.trouble,
    close: async () => {
      clearTimeout(retry);
      watch.close();
    },
  };
}

function openAddress(place: Extract<SeriesPlace, { kind: 'http' }>, options: SeriesSourceOptions): SeriesSource {
  const kept = createKept(options);
  const dispatcher = new Agent({ connections: 1, pipelining: 1, connect: { timeout: place.timeoutMs } });
  const closing = new AbortController();
  let next: NodeJS.Timeout | undefined;
  async function ask(): Promise<void> {
    let waitMs = place.everyMs;
    try {
      kept.got(await seriesAt(place, dispatcher, closing.signal));
    } catch (error) {
      if (closing.signal.aborted) return;
      kept.failed(error);
      waitMs = Math.min(waitMs, kept.retryMs());
    }
    if (closing.signal.aborted) return;
    next = setTimeout(() => void ask(), waitMs);
    next.unref();
  }
  void ask();
  return {
    series: kept.series,
    trouble: kept.trouble,
    close: async () => {
      closing.abort();
      clearTimeout(next);
      await dispatcher.destroy();
    },
  };
}

function seriesIn(path: string): Series {
  const what = statSync(path);
  // A pipe would be waited for.
  if (!what.isFile()) throw new SeriesError(`${path} is no file`);
  if (what.size > SERIES_BYTES_MAX) throw new SeriesError(`${path} has ${what.size} bytes, want at most ${SERIES_BYTES_MAX}`);
  const text = readFileSync(path, 'utf8');
  try {
    return parseSeries(text);
  } catch (error) {
    throw error instanceof SeriesError ? new SeriesError(`${path}: ${error.message}`) : error;
  }
}

/** Throws whatever keeps it from being had in time. The address is told without its query, which may hold a key. */
async function seriesAt({ url, tokenPath, timeoutMs }: Extract<SeriesPlace, { kind: 'http' }>, dispatcher: Agent, closing: AbortSignal): Promise<Series> {
  const { origin, pathname, search } = new URL(url);
  const where = `${origin}${pathname}`;
  const signal = AbortSignal.any([closing, AbortSignal.timeout(timeoutMs)]);
  try {
    const headers = { accept: 'application/json, text/csv', ...(tokenPath === null ? {} : { authorization: `Bearer ${tokenIn(tokenPath)}` }) };
    const answer = await dispatcher.request({ origin, path: `${pathname}${search}`, method: 'GET', headers, signal });
    if (answer.statusCode !== 200) {
      // Its end is nobody's concern, an error of it included.
      answer.body.on('error', () => {}).destroy();
      // Elsewhere the token would go, and the series might come from anybody.
      const way = answer.statusCode >= 300 && answer.statusCode < 400 ? ', a redirect, which is not followed' : '';
      throw new SeriesError(`was answered ${answer.statusCode}${way}`);
    }
    return parseSeries(await boundedText(answer.body, SERIES_BYTES_MAX));
  } catch (error) {
    const why = signal.aborted ? `no answer within ${timeoutMs} ms` : error instanceof Error ? error.message || error.name : String(error);
    throw new SeriesError(`${where}: ${why}`, { cause: error });
  }
}
