// What has been measured so far, on disk: a line for each measurement as soon as it is there, so that a sweep that was stopped goes on
// where it was. The first line says what is measured; a journal of something else is refused.
import { appendFileSync, existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { Measurement, Work } from './measurement.ts';

export class JournalError extends Error {
  override name = 'JournalError';
}

export interface Journal {
  /** As they were chosen when it was begun. */
  readonly works: readonly Work[];
  readonly done: readonly Measurement[];
  add(measurement: Measurement): void;
}

const FORMAT = 'paceline-sweep/1';
const workSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('idle') }),
  z.strictObject({ kind: z.literal('prefill'), tokens: z.number() }),
  z.strictObject({ kind: z.literal('decode'), sequences: z.number(), promptTokens: z.number() }),
]);
const measurementSchema: z.ZodType<Measurement> = z.strictObject({
  clockMhz: z.number().nullable(),
  work: workSchema,
  timeMs: z.number().positive().nullable(),
  powerW: z.number().positive().nullable(),
  tokens: z.number(),
  windowMs: z.number(),
  count: z.number(),
  actualClockMhz: z.number().nullable(),
  throttleReasons: z.array(z.string()),
});

/**
 * `subject`: everything that makes two sweeps one and the same. `works` are those of a sweep that begins here; which they are hangs on how fast the server was
 * just then, so one that goes on keeps its own. Throws `JournalError`.
 */
export function openJournal(path: string, subject: Readonly<Record<string, unknown>>, works: readonly Work[]): Journal {
  const header = { format: FORMAT, ...subject };
  const known = existsSync(path) ? readJournal(path, header) : null;
  const done = known?.done ?? [];
  const begun = known === null || done.length === 0 ? works : known.works;
  if (done.length === 0) write(() => writeFileSync(path, `${JSON.stringify({ ...header, works })}\n`), path);
  return {
    works: begun,
    done,
    add(measurement) {
      done.push(measurement);
      write(() => appendFileSync(path, `${JSON.stringify(measurement)}\n`), path);
    },
  };
}

function readJournal(path: string, header: object): { readonly works: readonly Work[]; readonly done: Measurement[] } {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new JournalError(`${path}: cannot be read: ${messageOf(error)}`);
  }
  const lines = text.split('\n');
  const first = parsed(lines[0] ?? '');
  if (typeof first !== 'object' || first === null || (first as { format?: unknown }).format !== FORMAT) throw new JournalError(`${path}: is no journal of a sweep; choose another file with --journal`);
  const other = Object.entries(JSON.parse(JSON.stringify(header)) as Record<string, unknown>).find(([key, value]) => !isDeepStrictEqual((first as Record<string, unknown>)[key], value));
  if (other !== undefined) throw new JournalError(`${path}: is of another sweep: its ${other[0]} is ${JSON.stringify((first as Record<string, unknown>)[other[0]])}, this one's ${JSON.stringify(other[1])}; remove it, or choose another file with --journal`);
  const works = z.array(workSchema).min(1).safeParse((first as { works?: unknown }).works);
  if (!works.success) throw new JournalError(`${path}: says nothing of what its sweep measures; remove it, or choose another file with --journal`);
  // The last line may have been cut off in the middle of writing. It is measured again, and what is written next must not stand behind its half.
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  if (whole.length < text.length) write(() => truncateSync(path, Buffer.byteLength(whole)), path);
  const done = lines.slice(1, -1).map((line, index): Measurement => {
    const checked = measurementSchema.safeParse(parsed(line));
    if (checked.success) return checked.data;
    throw new JournalError(`${path}: line ${index + 2}: is no measurement: ${line.slice(0, 60)}; remove that line, and it is measured again`);
  });
  return { works: works.data, done };
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function write(how: () => void, path: string): void {
  try {
    how();
  } catch (error) {
    throw new JournalError(`${path}: ${messageOf(error)}`);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
