// Files and batches in Redis, for gateways on several machines. Every step is one script (`redis-scripts.ts`), so it is whole or
// not at all; one whose answer is lost may have been done, which each step is safe to be asked again after. How Redis is reached
// is not known here.
import type { BatchRecord, FileRecord } from './batch-record.ts';
import { isOver } from './batch-record.ts';
import type { BatchStore, LineOutcome, LineResult, Page, PageQuery, StoredLine } from './batch-store.ts';
import { BatchStoreError } from './batch-store.ts';
import type { InputLine } from './input-lines.ts';
import type { BatchScript } from './redis-scripts.ts';
import { BATCH_SCRIPTS as SCRIPTS } from './redis-scripts.ts';

/** A way to Redis. Whatever goes wrong is thrown. */
export interface BatchRedis {
  evaluate(script: BatchScript, keys: readonly string[], args: readonly (string | Buffer)[]): Promise<unknown>;
  /** A field of a hash, as its bytes are. */
  field(key: string, name: string): Promise<Buffer | null>;
  close(): Promise<void>;
}

export interface RedisStoreOptions {
  readonly redis: BatchRedis;
  /** Gateways of one name share their batches. */
  readonly fleet: string;
  /** `redis`, which is what clocks of several machines need: who is alive is told by Redis' own. `caller`: by what calls say. */
  readonly lives?: 'redis' | 'caller';
}

/** Of the lines that one script adds: they hold up everybody else at that Redis. */
const ADDED_BYTES_MAX = 1_048_576;
/** Of two who change one batch at the same time one looks again; so many times in a row is a fault. */
const CHANGES_MAX = 100;
/** Half-written files that could not be dropped when it was time; more stay until this gateway ends. */
const UNDROPPED_MAX = 10_000;
/** Sweeps in a row: what is left comes with the next minute's. */
const SWEEPS_MAX = 10;

export function createRedisStore({ redis, fleet, lives = 'redis' }: RedisStoreOptions): BatchStore {
  // The braces keep all keys on one server of a Cluster; the number is the layout's.
  const root = `paceline:{${fleet}}:batch:1`;
  const livesAt = (nowMs: number): string => (lives === 'redis' ? '' : String(nowMs));
  /** Of the last claim of lines that was answered, by batch and worker. */
  const answered = new Map<string, { readonly batchId: string; readonly claim: number }>();
  // Higher than those of an earlier process, should it have had the same name.
  let claims = Date.now() * 1_024;
  const undropped = new Set<string>();

  async function guarded<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof BatchStoreError) throw error;
      throw new BatchStoreError(`Redis: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
  const evaluate = (script: BatchScript, ...args: (string | number | Buffer)[]): Promise<unknown> =>
    guarded(() => redis.evaluate(script, [root], args.map((arg) => (typeof arg === 'number' ? String(arg) : arg))));

  async function evaluateFor<Word extends string>(words: readonly Word[], script: BatchScript, ...args: (string | number | Buffer)[]): Promise<Word> {
    const reply = await evaluate(script, ...args);
    if (reply === 'gone') throw new BatchStoreError('Redis: the file or batch is gone: its gateway was silent for too long, or Redis has lost it');
    if (reply === 'twice') throw new BatchStoreError('Redis: the lines are there already: another gateway has read the file, too');
    const word = words.find((wanted) => wanted === reply);
    if (word === undefined) throw new BatchStoreError(`Redis: got ${JSON.stringify(reply)}, want ${words.join(' or ')}`);
    return word;
  }

  async function pageOf<Item>(script: BatchScript, list: string, { after, limit, newestFirst }: PageQuery, toItem: (row: unknown) => Item): Promise<Page<Item> | null> {
    const rows = (await evaluate(script, list, after ?? '', limit + 1, newestFirst ? 1 : 0)) as readonly unknown[] | null;
    return rows === null ? null : { items: rows.slice(0, limit).map(toItem), hasMore: rows.length > limit };
  }

  async function dropFile(fileId: string): Promise<void> {
    try {
      await evaluate(SCRIPTS.dropFile, fileId);
      undropped.delete(fileId);
    } catch (error) {
      if (undropped.size < UNDROPPED_MAX) undropped.add(fileId);
      throw error;
    }
  }

  const batchOf = async (batchId: string, tenant = ''): Promise<BatchRecord | null> => {
    const row = (await evaluate(SCRIPTS.batch, batchId, tenant)) as readonly string[] | null;
    return row === null ? null : toBatch(row);
  };

  return {
    beginFile: async (fileId, workerId) => void (await evaluate(SCRIPTS.beginFile, fileId, workerId)),
    appendFile: (fileId, bytes, bytesMax) => evaluateFor(['ok', 'full'], SCRIPTS.appendFile, fileId, bytesMax ?? -1, bytes),
    commitFile: (file, filesMax) => evaluateFor(['ok', 'too-many'], SCRIPTS.commitFile, filesMax ?? -1, ...committed(file)),
    dropFile,
    file: async (tenant, fileId) => {
      const document = (await evaluate(SCRIPTS.file, fileId, tenant)) as string | null;
      return document === null ? null : toFile(document);
    },
    files: (tenant, query) => pageOf(SCRIPTS.files, query.purpose === null ? listOf('files', tenant) : listOf('files', tenant, query.purpose), query, toFile),
    async *readFile(fileId) {
      for (let number = 1; ; number++) {
        const piece = await guarded(() => redis.field(`${root}:pieces:${fileId}`, String(number)));
        if (piece === null) return;
        yield piece;
      }
    },
    deleteFile: async (tenant, fileId) => (await evaluate(SCRIPTS.deleteFile, fileId, tenant)) === 1,

    createBatch: (batch, activeMax) => {
      const { id, tenant, dueAtMs, createdAtS, counts } = batch;
      return evaluateFor(
        ['ok', 'too-many'], SCRIPTS.createBatch,
        id, tenant, listOf('batches', tenant), listOf('active', tenant), activeMax, dueAtMs, createdAtS, documentOf(batch), batch.status, overOf(batch), counts.total, counts.completed, counts.failed,
      );
    },
    batch: (tenant, batchId) => batchOf(batchId, tenant),
    batches: (tenant, query) => pageOf(SCRIPTS.batches, listOf('batches', tenant), query, toBatch),
    async changeBatch(batchId, change) {
      for (let attempt = 0; attempt < CHANGES_MAX; attempt++) {
        const before = await batchOf(batchId);
        const after = before === null ? null : change(before);
        if (before === null || after === null) return before;
        // As differences: results are counted meanwhile.
        const more = (['total', 'completed', 'failed'] as const).map((key) => after.counts[key] - before.counts[key]);
        const reply = await evaluate(SCRIPTS.changeBatch, batchId, documentOf(before), documentOf(after), after.status, overOf(after), ...more);
        if (reply !== 'changed') return reply === null ? null : toBatch(reply);
      }
      throw new BatchStoreError(`Redis: the batch ${batchId} was changed by others ${CHANGES_MAX} times in a row`);
    },
    async openBatches() {
      const open = ((await evaluate(SCRIPTS.openBatches)) as unknown[]).map(toBatch);
      const ids = new Set(open.map(({ id }) => id));
      for (const [key, { batchId }] of answered) if (!ids.has(batchId)) answered.delete(key);
      return open;
    },

    beat: async (workerId, nowMs, aliveUntilMs) => void (await evaluate(SCRIPTS.beat, workerId, livesAt(nowMs), aliveUntilMs - nowMs)),
    leave: async (workerId) => void (await evaluate(SCRIPTS.leave, workerId)),
    claimBatch: async (batchId, workerId, nowMs) => (await evaluate(SCRIPTS.claimBatch, batchId, workerId, livesAt(nowMs))) === 1,
    unclaimBatch: async (batchId, workerId) => void (await evaluate(SCRIPTS.unclaimBatch, batchId, workerId)),
    clearLines: async (batchId) => void (await evaluate(SCRIPTS.clearLines, batchId)),
    async addLines(batchId, lines) {
      for (const some of inPieces(lines)) await evaluateFor(['ok'], SCRIPTS.addLines, batchId, ...some.flatMap(({ line, customId, body }) => [line, customId, body]));
    },
    async claimLines(batchId, workerId, linesMax, nowMs) {
      const key = `${workerId} ${batchId}`;
      const claim = ++claims;
      const rows = (await evaluate(SCRIPTS.claimLines, batchId, workerId, linesMax, nowMs, livesAt(nowMs), claim, answered.get(key)?.claim ?? 0)) as readonly (readonly (string | null)[])[];
      // One without lines is not noted by Redis either.
      if (rows.length > 0) answered.set(key, { batchId, claim });
      return rows.map(([line, customId, body, tried]): StoredLine => {
        const [tries = 0, failures = 0] = (tried ?? '').split(' ').map(Number);
        return { line: Number(line), customId: String(customId), body: String(body), tries, failures };
      });
    },
    claimedLines: async (batchId, nowMs) => Number(await evaluate(SCRIPTS.claimedLines, batchId, livesAt(nowMs))),
    recordLine: async (batchId, line, { outcome, text }) => (await evaluate(SCRIPTS.recordLine, batchId, line, outcome, text)) === 1,
    returnLine: async (batchId, line, { tries, failures }, notBeforeMs) => void (await evaluate(SCRIPTS.returnLine, batchId, line, `${tries} ${failures}`, notBeforeMs)),
    async results(batchId, afterLine, linesMax) {
      const rows = (await evaluate(SCRIPTS.results, batchId, afterLine, linesMax)) as readonly (readonly (string | null)[])[];
      return rows.map(([line, customId, result]): LineResult => ({ line: Number(line), customId: String(customId), ...resultOf(result ?? null) }));
    },
    async finishBatch(batch, workerId, files) {
      const { total, completed, failed } = batch.counts;
      const reply = await evaluate(SCRIPTS.finishBatch, batch.id, workerId, documentOf(batch), batch.status, total, completed, failed, ...files.flatMap(committed));
      if (reply === 'gone') throw new BatchStoreError('Redis: the files of the batch are gone: this gateway was silent for too long');
      return reply === 1;
    },
    async sweep(nowMs, batchesBeforeS) {
      for (const fileId of undropped) await dropFile(fileId);
      for (let round = 0; round < SWEEPS_MAX; round++) if (Number(await evaluate(SCRIPTS.sweep, Math.floor(nowMs / 1_000), livesAt(nowMs), batchesBeforeS)) === 0) return;
    },
    close: () => redis.close(),
  };
}

/** Names of tenants and purposes may hold anything, so they are told apart by quotes. */
function listOf(kind: 'files' | 'batches' | 'active', ...names: readonly string[]): string {
  return `${kind}:${JSON.stringify(names)}`;
}

function committed(file: FileRecord): (string | number)[] {
  return [file.id, file.tenant, listOf('files', file.tenant), listOf('files', file.tenant, file.purpose), file.expiresAtS, JSON.stringify(file)];
}

function* inPieces(lines: readonly InputLine[]): Generator<readonly InputLine[]> {
  let [open, bytes] = [[] as InputLine[], 0];
  for (const line of lines) {
    const more = Buffer.byteLength(line.body) + Buffer.byteLength(line.customId);
    if (open.length > 0 && bytes + more > ADDED_BYTES_MAX) {
      yield open;
      [open, bytes] = [[], 0];
    }
    open.push(line);
    bytes += more;
  }
  if (open.length > 0) yield open;
}

function overOf({ status }: BatchRecord): 0 | 1 {
  return isOver(status) ? 1 : 0;
}

/** Without its counts, which Redis counts by itself. */
function documentOf(batch: BatchRecord): string {
  return JSON.stringify({ ...batch, counts: undefined });
}

function toFile(document: unknown): FileRecord {
  return parsed(document) as FileRecord;
}

function toBatch(row: unknown): BatchRecord {
  const [document, total, completed, failed] = row as readonly string[];
  return { ...(parsed(document) as Omit<BatchRecord, 'counts'>), counts: { total: Number(total), completed: Number(completed), failed: Number(failed) } };
}

function parsed(document: unknown): unknown {
  try {
    return JSON.parse(String(document));
  } catch (error) {
    throw new BatchStoreError('Redis: what is kept of a file or batch is no JSON: somebody else has written there', { cause: error });
  }
}

function resultOf(kept: string | null): Pick<LineResult, 'outcome' | 'text'> {
  if (kept === null) return { outcome: null, text: null };
  const at = kept.indexOf(' ');
  return { outcome: kept.slice(0, at) as LineOutcome, text: kept.slice(at + 1) };
}
