// Accounts by the hour in one SQLite file, through Node's own `node:sqlite`. A gateway adds to its own file; reports read
// several. It works on the event loop, so a step writes no more than the rows that have changed.
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { makeDirectory } from '../make-directory.ts';
import type { HourlyReplica, HourlyUsage, ReplicaRow, UsageRow } from './account-record.ts';

/** The file cannot be used; the message says which and why. */
export class AccountsFileError extends Error {
  override name = 'AccountsFileError';
}

export interface AccountsFile {
  /** Adds to the hour's rows, all or nothing; on the disk when it returns. Throws `AccountsFileError`. */
  add(hourAtS: number, usage: readonly UsageRow[], replicas: readonly ReplicaRow[]): void;
  /** Deletes what began before. */
  prune(beforeS: number): void;
  /** Hours that begin in the time. */
  usage(fromS: number, untilS: number): readonly HourlyUsage[];
  replicas(fromS: number, untilS: number): readonly HourlyReplica[];
  /** From now on it waits for another process that writes: there is no next time. */
  patient(): void;
  close(): void;
}

/** Of this layout; another one is another version's. */
const LAYOUT = 1;
/** Another process writes for a moment. */
const BUSY_MS = 1_000;
/** While streams are under way on the same event loop: what cannot be written now is kept, and written the next time. */
const BUSY_WRITE_MS = 20;

const SCHEMA = `
  CREATE TABLE usage (hour_at_s INTEGER NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, slo_class TEXT NOT NULL, requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, metered_j REAL NOT NULL, modelled_j REAL NOT NULL, maximum_clock_j REAL NOT NULL,
    PRIMARY KEY (hour_at_s, tenant, model, slo_class)) WITHOUT ROWID;
  CREATE TABLE replicas (hour_at_s INTEGER NOT NULL, replica TEXT NOT NULL, idle_metered_j REAL NOT NULL, idle_modelled_j REAL NOT NULL, others_j REAL NOT NULL,
    unapportioned_j REAL NOT NULL, maximum_clock_idle_j REAL NOT NULL, PRIMARY KEY (hour_at_s, replica)) WITHOUT ROWID;
  PRAGMA application_id = 0x50434c41;
  PRAGMA user_version = ${LAYOUT};
`;

type Row = Record<string, string | number>;

export function openAccountsFile(path: string, { write }: { readonly write: boolean }): AccountsFile {
  const database = open(path, write);
  const failing = <Result>(work: () => Result): Result => {
    try {
      return work();
    } catch (error) {
      if (database.isOpen && database.isTransaction) database.exec('ROLLBACK');
      throw new AccountsFileError(`${path}: ${messageOf(error)}`, { cause: error });
    }
  };
  return {
    add: (hourAtS, usage, replicas) =>
      failing(() => {
        database.exec('BEGIN IMMEDIATE');
        const addUsage = database.prepare(
          `INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, prompt_tokens = prompt_tokens + excluded.prompt_tokens, cached_tokens = cached_tokens + excluded.cached_tokens,
            output_tokens = output_tokens + excluded.output_tokens, metered_j = metered_j + excluded.metered_j, modelled_j = modelled_j + excluded.modelled_j, maximum_clock_j = maximum_clock_j + excluded.maximum_clock_j`,
        );
        for (const row of usage) addUsage.run(hourAtS, row.tenant, row.model, row.sloClass, row.requests, row.promptTokens, row.cachedTokens, row.outputTokens, row.meteredJ, row.modelledJ, row.maximumClockJ);
        const addReplica = database.prepare(
          `INSERT INTO replicas VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET idle_metered_j = idle_metered_j + excluded.idle_metered_j, idle_modelled_j = idle_modelled_j + excluded.idle_modelled_j, others_j = others_j + excluded.others_j,
            unapportioned_j = unapportioned_j + excluded.unapportioned_j, maximum_clock_idle_j = maximum_clock_idle_j + excluded.maximum_clock_idle_j`,
        );
        for (const row of replicas) addReplica.run(hourAtS, row.replica, row.idleMeteredJ, row.idleModelledJ, row.othersJ, row.unapportionedJ, row.maximumClockIdleJ);
        database.exec('COMMIT');
      }),
    prune: (beforeS) =>
      failing(() => {
        database.prepare('DELETE FROM usage WHERE hour_at_s < ?').run(beforeS);
        database.prepare('DELETE FROM replicas WHERE hour_at_s < ?').run(beforeS);
      }),
    usage: (fromS, untilS) =>
      failing(() =>
        (database.prepare('SELECT * FROM usage WHERE hour_at_s >= ? AND hour_at_s < ? ORDER BY hour_at_s').all(fromS, untilS) as Row[]).map((row) => ({
          hourAtS: Number(row['hour_at_s']),
          tenant: String(row['tenant']),
          model: String(row['model']),
          sloClass: String(row['slo_class']),
          requests: Number(row['requests']),
          promptTokens: Number(row['prompt_tokens']),
          cachedTokens: Number(row['cached_tokens']),
          outputTokens: Number(row['output_tokens']),
          meteredJ: Number(row['metered_j']),
          modelledJ: Number(row['modelled_j']),
          maximumClockJ: Number(row['maximum_clock_j']),
        })),
      ),
    replicas: (fromS, untilS) =>
      failing(() =>
        (database.prepare('SELECT * FROM replicas WHERE hour_at_s >= ? AND hour_at_s < ? ORDER BY hour_at_s').all(fromS, untilS) as Row[]).map((row) => ({
          hourAtS: Number(row['hour_at_s']),
          replica: String(row['replica']),
          idleMeteredJ: Number(row['idle_metered_j']),
          idleModelledJ: Number(row['idle_modelled_j']),
          othersJ: Number(row['others_j']),
          unapportionedJ: Number(row['unapportioned_j']),
          maximumClockIdleJ: Number(row['maximum_clock_idle_j']),
        })),
      ),
    patient: () => void database.exec(`PRAGMA busy_timeout = ${BUSY_MS}`),
    close: () => database.close(),
  };
}

function open(path: string, write: boolean): DatabaseSync {
  let database: DatabaseSync | null = null;
  try {
    if (write) makeDirectory(dirname(path), 0o700);
    // SQLite would make an empty one, or say nothing of why it cannot.
    else statSync(path);
    database = new DatabaseSync(path, { timeout: BUSY_MS, readOnly: !write });
    // Readers do not wait for the writer then, nor it for them.
    if (write) database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE');
    const layout = Number((database.prepare('PRAGMA user_version').get() as Row)['user_version']);
    const tables = Number((database.prepare('SELECT count(*) AS count FROM sqlite_schema').get() as Row)['count']);
    const isOurs = Number((database.prepare('PRAGMA application_id').get() as Row)['application_id']) === 0x50434c41;
    if (write && layout === 0 && tables === 0) database.exec(SCHEMA);
    else if (!isOurs) throw new Error('it holds no accounts of energy');
    else if (layout !== LAYOUT) throw new Error(`its layout is number ${layout}, this version has number ${LAYOUT}`);
    if (write) database.exec(`COMMIT; PRAGMA busy_timeout = ${BUSY_WRITE_MS}`);
    return database;
  } catch (error) {
    database?.close();
    throw new AccountsFileError(`${path}: ${messageOf(error)}`, { cause: error });
  }
}

function messageOf(error: unknown): string {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'there is no such file';
  return error instanceof Error ? error.message : String(error);
}
