// Files and batches in one SQLite file, through Node's own `node:sqlite`. It works on the event loop, so every step is short:
// files are kept in pieces, lines come and go by the hundred. Several gateways of one machine may share the file.
import { dirname } from 'node:path';
import type { SQLInputValue } from 'node:sqlite';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';
import type { BatchRecord, FileRecord } from './batch-record.ts';
import { isOver } from './batch-record.ts';
import type { BatchStore, LineOutcome, LineResult, Page, PageQuery, StoredLine } from './batch-store.ts';
import { BatchStoreError } from './batch-store.ts';
import { makeDirectory } from '../make-directory.ts';

/** What another gateway's transaction may take; ours are a few milliseconds. */
const BUSY_MS_MAX = 2_000;
/** Of it SQLite waits so long by itself, and holds up everything else meanwhile; then we look again every so often, and it does not. */
const BUSY_MS = { blocking: 5, again: 20 };
const SQLITE_BUSY = 5;
/** Of this layout; another one is refused, for it is another version's. */
const LAYOUT = 1;

const SCHEMA = `
  CREATE TABLE workers (id TEXT PRIMARY KEY, alive_until_ms INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE files (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT, purpose TEXT, bytes INTEGER NOT NULL DEFAULT 0,
    expires_at_s INTEGER, worker TEXT, document TEXT);
  CREATE INDEX files_of_tenant ON files (tenant, seq);
  CREATE TABLE pieces (file_id TEXT NOT NULL, number INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (file_id, number));
  CREATE TABLE batches (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, due_at_ms INTEGER NOT NULL, created_at_s INTEGER NOT NULL,
    over INTEGER NOT NULL, worker TEXT, total INTEGER NOT NULL, completed INTEGER NOT NULL, failed INTEGER NOT NULL, document TEXT NOT NULL);
  CREATE INDEX batches_of_tenant ON batches (tenant, seq);
  CREATE INDEX open_batches ON batches (due_at_ms) WHERE over = 0;
  CREATE TABLE lines (batch_id TEXT NOT NULL, line INTEGER NOT NULL, custom_id TEXT NOT NULL, body TEXT, worker TEXT, not_before_ms INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, outcome TEXT, result TEXT, PRIMARY KEY (batch_id, line)) WITHOUT ROWID;
  CREATE INDEX open_lines ON lines (batch_id, line, not_before_ms, worker) WHERE outcome IS NULL;
  PRAGMA user_version = ${LAYOUT};
`;

const SWEPT = 'the file is gone: its gateway was silent for too long';
const DEAD = '(worker IS NULL OR worker NOT IN (SELECT id FROM workers WHERE alive_until_ms > ?))';

type Row = Record<string, unknown>;

/** Throws `BatchStoreError` where the file cannot be opened or is something else. */
export function openSqliteStore(path: string, options: { readonly pagesMax?: number } = {}): BatchStore {
  const database = open(path);
  // What a full disk does, without one.
  if (options.pagesMax !== undefined) database.exec(`PRAGMA max_page_count = ${options.pagesMax}`);
  const statements = new Map<string, ReturnType<DatabaseSync['prepare']>>();

  function statement(sql: string): ReturnType<DatabaseSync['prepare']> {
    let prepared = statements.get(sql);
    if (prepared === undefined) statements.set(sql, (prepared = database.prepare(sql)));
    return prepared;
  }
  const all = (sql: string, ...values: SQLInputValue[]): Row[] => statement(sql).all(...values) as Row[];
  const first = (sql: string, ...values: SQLInputValue[]): Row | undefined => statement(sql).get(...values) as Row | undefined;
  const run = (sql: string, ...values: SQLInputValue[]): number => Number(statement(sql).run(...values).changes);

  /** All or nothing. What a client is told of is on the disk then, not only safe from the death of this process. */
  async function transaction<Result>(work: () => Result, durable = false): Promise<Result> {
    for (const untilMs = performance.now() + BUSY_MS_MAX; ; ) {
      try {
        return attempt(work, durable);
      } catch (error) {
        const busy = (error as { readonly errcode?: number }).errcode === SQLITE_BUSY;
        if (!busy || performance.now() >= untilMs) throw new BatchStoreError(`${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
      }
      await delay(BUSY_MS.again);
    }
  }
  /** In one go, so that there is one at a time. */
  function attempt<Result>(work: () => Result, durable: boolean): Result {
    if (durable) database.exec('PRAGMA synchronous = FULL');
    try {
      database.exec('BEGIN IMMEDIATE');
      const result = work();
      database.exec('COMMIT');
      return result;
    } catch (error) {
      if (database.isOpen && database.isTransaction) database.exec('ROLLBACK');
      throw error;
    } finally {
      if (durable && database.isOpen) database.exec('PRAGMA synchronous = NORMAL');
    }
  }
  const batchOf = (batchId: string): BatchRecord | null => toBatch(first('SELECT * FROM batches WHERE id = ?', batchId));

  function dropFile(fileId: string): boolean {
    run('DELETE FROM pieces WHERE file_id = ?', fileId);
    return run('DELETE FROM files WHERE id = ?', fileId) > 0;
  }

  function commitFile(file: FileRecord): void {
    const changes = run('UPDATE files SET tenant = ?, purpose = ?, expires_at_s = ?, worker = NULL, document = ? WHERE id = ? AND document IS NULL', file.tenant, file.purpose, file.expiresAtS, JSON.stringify(file), file.id);
    // Not told of as kept, nor a batch as finished with it.
    if (changes === 0) throw new Error(SWEPT);
  }

  function writeBatch(batch: BatchRecord): void {
    const { counts, ...document } = batch;
    run('UPDATE batches SET over = ?, total = ?, completed = ?, failed = ?, document = ? WHERE id = ?', overOf(batch), counts.total, counts.completed, counts.failed, JSON.stringify(document), batch.id);
  }

  function pageOf<Item>(table: 'files' | 'batches', where: string, values: SQLInputValue[], query: PageQuery, toItem: (row: Row) => Item): Page<Item> | null {
    const { after, limit, newestFirst } = query;
    const start = after === null ? undefined : first(`SELECT seq FROM ${table} WHERE id = ? AND ${where}`, after, ...values);
    if (after !== null && start === undefined) return null;
    const from = start === undefined ? '' : `AND seq ${newestFirst ? '<' : '>'} ${Number(start['seq'])}`;
    const rows = database.prepare(`SELECT * FROM ${table} WHERE ${where} ${from} ORDER BY seq ${newestFirst ? 'DESC' : 'ASC'} LIMIT ?`).all(...values, limit + 1) as Row[];
    return { items: rows.slice(0, limit).map(toItem), hasMore: rows.length > limit };
  }

  return {
    beginFile: (fileId, workerId) => transaction(() => void run('INSERT INTO files (id, worker) VALUES (?, ?)', fileId, workerId)),
    appendFile: (fileId, bytes, bytesMax) =>
      transaction(() => {
        const held = Number(first('SELECT coalesce(sum(bytes), 0) AS bytes FROM files')?.['bytes']);
        if (bytesMax !== null && held + bytes.length > bytesMax) return 'full';
        if (run('UPDATE files SET bytes = bytes + ? WHERE id = ? AND document IS NULL', bytes.length, fileId) === 0) throw new Error(SWEPT);
        run('INSERT INTO pieces SELECT ?, coalesce(max(number), 0) + 1, ? FROM pieces WHERE file_id = ?', fileId, bytes, fileId);
        return 'ok';
      }),
    commitFile: (file, filesMax) =>
      transaction(() => {
        const count = Number(first('SELECT count(*) AS count FROM files WHERE tenant = ?', file.tenant)?.['count']);
        if (filesMax !== null && count >= filesMax) return 'too-many';
        commitFile(file);
        return 'ok';
      }, true),
    dropFile: (fileId) =>
      transaction(() => {
        if (first('SELECT 1 FROM files WHERE id = ? AND document IS NULL', fileId) !== undefined) dropFile(fileId);
      }),
    file: (tenant, fileId) => transaction(() => toFile(first('SELECT document FROM files WHERE tenant = ? AND id = ?', tenant, fileId))),
    files: (tenant, query) =>
      transaction(() => pageOf('files', `tenant = ? AND ${query.purpose === null ? '? IS NULL' : 'purpose = ?'}`, [tenant, query.purpose], query, (row) => toFile(row) as FileRecord)),
    async *readFile(fileId) {
      for (let number = 1; ; number++) {
        const row = await transaction(() => first('SELECT bytes FROM pieces WHERE file_id = ? AND number = ?', fileId, number));
        if (row === undefined) return;
        yield Buffer.from(row['bytes'] as Uint8Array);
      }
    },
    deleteFile: (tenant, fileId) => transaction(() => first('SELECT 1 FROM files WHERE tenant = ? AND id = ?', tenant, fileId) !== undefined && dropFile(fileId), true),

    createBatch: (batch, activeMax) =>
      transaction(() => {
        const active = Number(first('SELECT count(*) AS count FROM batches WHERE tenant = ? AND over = 0', batch.tenant)?.['count']);
        if (active >= activeMax) return 'too-many';
        const { id, tenant, dueAtMs, createdAtS } = batch;
        run('INSERT INTO batches (id, tenant, due_at_ms, created_at_s, over, total, completed, failed, document) VALUES (?, ?, ?, ?, 0, 0, 0, 0, ?)', id, tenant, dueAtMs, createdAtS, '');
        writeBatch(batch);
        return 'ok';
      }, true),
    batch: (tenant, batchId) => transaction(() => toBatch(first('SELECT * FROM batches WHERE tenant = ? AND id = ?', tenant, batchId))),
    batches: (tenant, query) => transaction(() => pageOf('batches', 'tenant = ?', [tenant], query, (row) => toBatch(row) as BatchRecord)),
    changeBatch: (batchId, change) =>
      transaction(() => {
        const before = batchOf(batchId);
        const after = before === null ? null : change(before);
        if (after !== null) writeBatch(after);
        return after ?? before;
      }, true),
    openBatches: () => transaction(() => all('SELECT * FROM batches WHERE over = 0 ORDER BY due_at_ms').map((row) => toBatch(row) as BatchRecord)),

    beat: (workerId, nowMs, aliveUntilMs) =>
      transaction(() => {
        run('INSERT INTO workers VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET alive_until_ms = excluded.alive_until_ms', workerId, Math.ceil(aliveUntilMs));
        run('DELETE FROM workers WHERE alive_until_ms <= ?', Math.floor(nowMs));
      }),
    leave: (workerId) =>
      transaction(() => {
        run('UPDATE lines SET worker = NULL WHERE worker = ? AND outcome IS NULL', workerId);
        run('UPDATE batches SET worker = NULL WHERE worker = ?', workerId);
        run('DELETE FROM workers WHERE id = ?', workerId);
      }),
    claimBatch: (batchId, workerId, nowMs) => transaction(() => run(`UPDATE batches SET worker = ? WHERE id = ? AND over = 0 AND (worker = ? OR ${DEAD})`, workerId, batchId, workerId, Math.floor(nowMs)) > 0),
    unclaimBatch: (batchId, workerId) => transaction(() => void run('UPDATE batches SET worker = NULL WHERE id = ? AND worker = ?', batchId, workerId)),
    clearLines: (batchId) => transaction(() => void run('DELETE FROM lines WHERE batch_id = ?', batchId)),
    addLines: (batchId, lines) =>
      transaction(() => {
        for (const { line, customId, body } of lines) run('INSERT INTO lines (batch_id, line, custom_id, body) VALUES (?, ?, ?, ?)', batchId, line, customId, body);
      }),
    claimLines: (batchId, workerId, linesMax, nowMs) =>
      transaction(() => {
        // It may have been cancelled since the caller looked; nothing is begun then that nobody waits for.
        if (batchOf(batchId)?.status !== 'in_progress') return [];
        const nowWholeMs = Math.floor(nowMs);
        const rows = all(
          `SELECT line, custom_id, body, tries, failures FROM lines WHERE batch_id = ? AND outcome IS NULL AND not_before_ms <= ? AND ${DEAD} ORDER BY line LIMIT ?`,
          batchId, nowWholeMs, nowWholeMs, linesMax,
        );
        for (const { line } of rows) run('UPDATE lines SET worker = ? WHERE batch_id = ? AND line = ?', workerId, batchId, line as number);
        return rows.map((row): StoredLine => ({ line: Number(row['line']), customId: String(row['custom_id']), body: String(row['body']), tries: Number(row['tries']), failures: Number(row['failures']) }));
      }),
    claimedLines: (batchId, nowMs) =>
      transaction(() =>
        Number(first('SELECT count(*) AS count FROM lines WHERE batch_id = ? AND outcome IS NULL AND worker IN (SELECT id FROM workers WHERE alive_until_ms > ?)', batchId, Math.floor(nowMs))?.['count']),
      ),
    recordLine: (batchId, line, { outcome, text }) =>
      transaction(() => {
        if (batchOf(batchId)?.status !== 'in_progress') return false;
        // Its request is needed no more, and results are as long again.
        if (run('UPDATE lines SET outcome = ?, result = ?, body = NULL, worker = NULL WHERE batch_id = ? AND line = ? AND outcome IS NULL', outcome, text, batchId, line) === 0) return false;
        run(`UPDATE batches SET ${outcome} = ${outcome} + 1 WHERE id = ?`, batchId);
        return true;
      }),
    returnLine: (batchId, line, { tries, failures }, notBeforeMs) =>
      transaction(() => void run('UPDATE lines SET worker = NULL, tries = ?, failures = ?, not_before_ms = ? WHERE batch_id = ? AND line = ? AND outcome IS NULL', tries, failures, Math.ceil(notBeforeMs), batchId, line)),
    results: (batchId, afterLine, linesMax) =>
      transaction(() =>
        all('SELECT line, custom_id, outcome, result FROM lines WHERE batch_id = ? AND line > ? ORDER BY line LIMIT ?', batchId, afterLine, linesMax).map(
          (row): LineResult => ({ line: Number(row['line']), customId: String(row['custom_id']), outcome: row['outcome'] as LineOutcome | null, text: row['result'] as string | null }),
        ),
      ),
    finishBatch: (batch, workerId, files) =>
      transaction(() => {
        if (first('SELECT 1 FROM batches WHERE id = ? AND worker = ? AND over = 0', batch.id, workerId) === undefined) return false;
        for (const file of files) commitFile(file);
        writeBatch(batch);
        run('UPDATE batches SET worker = NULL WHERE id = ?', batch.id);
        run('DELETE FROM lines WHERE batch_id = ?', batch.id);
        return true;
      }, true),
    sweep: (nowMs, batchesBeforeS) =>
      transaction(() => {
        const gone = all(`SELECT id FROM files WHERE expires_at_s <= ? OR (document IS NULL AND ${DEAD}) LIMIT 100`, Math.floor(nowMs / 1_000), Math.floor(nowMs));
        for (const { id } of gone) dropFile(String(id));
        run('DELETE FROM batches WHERE over = 1 AND created_at_s < ?', batchesBeforeS);
      }),
    close: async () => database.close(),
  };
}

function open(path: string): DatabaseSync {
  let database: DatabaseSync | null = null;
  try {
    makeDirectory(dirname(path), 0o700);
    database = new DatabaseSync(path, { timeout: BUSY_MS_MAX });
    // Readers do not wait for writers then. NORMAL: safe from the death of a process; what clients are told of is FULL.
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
    database.exec('BEGIN IMMEDIATE');
    const layout = Number((database.prepare('PRAGMA user_version').get() as Row)['user_version']);
    const tables = Number((database.prepare('SELECT count(*) AS count FROM sqlite_schema').get() as Row)['count']);
    if (layout === 0 && tables === 0) database.exec(SCHEMA);
    else if (layout !== LAYOUT) throw new Error(`its layout is number ${layout}, this version has number ${LAYOUT}; choose another file`);
    database.exec(`COMMIT; PRAGMA busy_timeout = ${BUSY_MS.blocking}`);
    return database;
  } catch (error) {
    database?.close();
    throw new BatchStoreError(`${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

function overOf({ status }: BatchRecord): 0 | 1 {
  return isOver(status) ? 1 : 0;
}

function toFile(row: Row | undefined): FileRecord | null {
  return row === undefined ? null : (JSON.parse(String(row['document'])) as FileRecord);
}

function toBatch(row: Row | undefined): BatchRecord | null {
  if (row === undefined) return null;
  const counts = { total: Number(row['total']), completed: Number(row['completed']), failed: Number(row['failed']) };
  return { ...(JSON.parse(String(row['document'])) as Omit<BatchRecord, 'counts'>), counts };
}
