// The two long steps of a batch, done by the one gateway that has claimed it: its input file becomes lines, and its lines
// become files. Both can be done again from the start by another gateway.
import { randomBytes } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import type { BatchRecord, FileRecord, LineError, Stamp } from './batch-record.ts';
import type { BatchStore } from './batch-store.ts';
import type { InputLine, LineLimits } from './input-lines.ts';
import { createLineReader } from './input-lines.ts';
import { errorLine } from './line-result.ts';

/** Lines that go to the store, or come from it, at once: what holds up everything else for a few milliseconds. */
const LINES_AT_ONCE = { in: 200, out: 20 };
/** Of an output file, at once. */
const PIECE_BYTES = 262_144;

/** Reads and checks the input; the batch is `in_progress` or `failed` then, unless it was cancelled meanwhile. */
export async function validateBatch(store: BatchStore, batch: BatchRecord, limits: LineLimits, nowS: () => number): Promise<void> {
  await store.clearLines(batch.id);
  const file = await store.file(batch.tenant, batch.inputFileId);
  const reader = createLineReader(batch.endpoint, limits);
  let waiting: InputLine[] = [];
  async function keep(lines: readonly InputLine[], atLeast: number): Promise<void> {
    waiting.push(...lines);
    while (waiting.length > 0 && waiting.length >= atLeast) {
      // Where the file is refused anyway its lines are only counted.
      if (reader.errors.length === 0) await store.addLines(batch.id, waiting.slice(0, LINES_AT_ONCE.in));
      waiting = waiting.slice(LINES_AT_ONCE.in);
      await turn();
    }
  }
  let bytes = 0;
  for await (const piece of store.readFile(batch.inputFileId)) {
    bytes += piece.length;
    await keep(reader.push(piece), LINES_AT_ONCE.in);
    if (reader.full()) break;
    await turn();
  }
  await keep(reader.end(), 1);
  // A part of it is no batch, whatever that part says.
  const cut = file === null || (!reader.full() && bytes < file.bytes);
  const errors: LineError[] = cut ? [{ code: 'file_not_found', line: null, param: 'input_file_id', message: `The file ${batch.inputFileId} was deleted before it was read.` }] : [...reader.errors];
  if (reader.count() === 0 && errors.length === 0) errors.push({ code: 'empty_file', line: null, param: null, message: 'The input file has no requests.' });
  if (errors.length > 0) await store.clearLines(batch.id);
  await store.changeBatch(batch.id, (current) => {
    if (current.status !== 'validating') return null;
    if (errors.length > 0) return stamped({ ...current, status: 'failed', errors }, 'failed_at', nowS());
    return stamped({ ...current, status: 'in_progress', counts: { total: reader.count(), completed: 0, failed: 0 } }, 'in_progress_at', nowS());
  });
}

/** Writes the output and the error file, each in the order of the input, and ends the batch as its `ending` says. */
export async function finishBatch(store: BatchStore, batch: BatchRecord, workerId: string, nowS: () => number): Promise<void> {
  const { ending } = batch;
  if (ending === null) throw new Error(`batch ${batch.id} is to be finished, but not how`);
  const output = createFileWriter(store, batch, 'output', workerId, nowS());
  const errors = createFileWriter(store, batch, 'error', workerId, nowS());
  try {
    for (let after = 0; ; ) {
      const lines = await store.results(batch.id, after, LINES_AT_ONCE.out);
      if (lines.length === 0) break;
      for (const { customId, outcome, text } of lines) {
        if (text === null) await errors.write(unfinishedLine(customId, ending));
        else await (outcome === 'completed' ? output : errors).write(text);
      }
      after = lines.at(-1)?.line ?? after;
      await turn();
    }
    const [outputFile, errorFile] = [await output.end(), await errors.end()];
    const done = stamped({ ...batch, status: ending, outputFileId: outputFile?.id ?? null, errorFileId: errorFile?.id ?? null }, `${ending}_at`, nowS());
    const ours = await store.finishBatch(done, workerId, [outputFile, errorFile].filter((file) => file !== null));
    if (!ours) await Promise.all([output.drop(), errors.drop()]);
  } catch (error) {
    // What cannot be deleted now goes with the next sweep after this process.
    await Promise.allSettled([output.drop(), errors.drop()]);
    throw error;
  }
}

export function stamped(batch: BatchRecord, stamp: Stamp, nowS: number): BatchRecord {
  return { ...batch, stampsS: { ...batch.stampsS, [stamp]: nowS } };
}

function unfinishedLine(customId: string, ending: 'completed' | 'expired' | 'cancelled'): string {
  return ending === 'cancelled'
    ? errorLine(customId, 'batch_cancelled', 'The batch was cancelled before this request was finished.')
    : errorLine(customId, 'batch_expired', 'This request could not be executed before the completion window expired.');
}

interface FileWriter {
  write(line: string): Promise<void>;
  /** `null`: nothing was written, and there is no such file. */
  end(): Promise<FileRecord | null>;
  drop(): Promise<void>;
}

function createFileWriter(store: BatchStore, batch: BatchRecord, name: 'output' | 'error', workerId: string, nowS: number): FileWriter {
  const id = newId('file-');
  let begun = false;
  let bytes = 0;
  let open: string[] = [];
  let openBytes = 0;
  async function flush(): Promise<void> {
    if (openBytes === 0) return;
    if (!begun) await store.beginFile(id, workerId);
    begun = true;
    // Results are there already and have been paid for: for them there is always room.
    await store.appendFile(id, Buffer.from(open.join('')), null);
    bytes += openBytes;
    open = [];
    openBytes = 0;
  }
  return {
    async write(line) {
      open.push(line, '\n');
      openBytes += Buffer.byteLength(line) + 1;
      if (openBytes >= PIECE_BYTES) await flush();
    },
    async end() {
      await flush();
      return begun ? { id, tenant: batch.tenant, filename: `${batch.id}_${name}.jsonl`, purpose: 'batch_output', bytes, createdAtS: nowS, expiresAtS: nowS + batch.outputSeconds } : null;
    },
    drop: async () => {
      if (begun) await store.dropFile(id);
    },
  };
}

export function newId(prefix: 'file-' | 'batch_'): string {
  return `${prefix}${randomBytes(16).toString('hex')}`;
}
