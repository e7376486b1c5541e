// Writes down what the accounts have grown by, every so often and at the end. What could not be written is kept for the next time;
// what a crash takes is no more than since the last time.
import type { AccountsFile } from './accounts-file.ts';
import { AccountsFileError } from './accounts-file.ts';
import type { ReplicaRow, UsageAmounts, UsageRow } from './account-record.ts';
import { hourOf } from './account-record.ts';

/** Since the start, as they stand. */
export interface Totals {
  readonly usage: readonly UsageRow[];
  readonly replicas: readonly ReplicaRow[];
}

export interface AccountKeeperOptions {
  readonly file: AccountsFile;
  readonly read: () => Totals;
  readonly flushEveryMs: number;
  readonly retentionDays: number;
  readonly unixNowMs: () => number;
  /** Told at every change: why nothing can be written, `null` once it is. */
  readonly onState: (why: string | null) => void;
}

export interface AccountKeeper {
  /** Whether it could be written. */
  flush(): boolean;
  /** The replica is gone: one of its name counts from nothing. */
  forget(replica: string): void;
  /** Writes the rest and closes the file. */
  close(): void;
}

const DAY_S = 86_400;

const USAGE_AMOUNTS = ['requests', 'promptTokens', 'cachedTokens', 'outputTokens', 'meteredJ', 'modelledJ', 'maximumClockJ'] as const satisfies readonly (keyof UsageAmounts)[];
const REPLICA_AMOUNTS = ['idleMeteredJ', 'idleModelledJ', 'othersJ', 'unapportionedJ', 'maximumClockIdleJ'] as const satisfies readonly (keyof ReplicaRow)[];

export function createAccountKeeper({ file, read, flushEveryMs, retentionDays, unixNowMs, onState }: AccountKeeperOptions): AccountKeeper {
  let usageWritten = new Map<string, UsageRow>();
  let replicasWritten = new Map<string, ReplicaRow>();
  let prunedHourAtS = Number.NEGATIVE_INFINITY;
  let failing: string | null = null;

  function flush(): boolean {
    const { usage, replicas } = read();
    const hourAtS = hourOf(unixNowMs());
    try {
      const more = usage.flatMap((row) => grown(row, usageWritten.get(keyOf(row)), USAGE_AMOUNTS));
      const replicasMore = replicas.flatMap((row) => grown(row, sameSince(row, replicasWritten.get(row.replica)), REPLICA_AMOUNTS));
      if (more.length > 0 || replicasMore.length > 0) file.add(hourAtS, more, replicasMore);
      usageWritten = new Map(usage.map((row) => [keyOf(row), row]));
      replicasWritten = new Map(replicas.map((row) => [row.replica, row]));
      if (hourAtS > prunedHourAtS) {
        prunedHourAtS = hourAtS;
        file.prune(hourAtS - retentionDays * DAY_S);
      }
      tell(null);
      return true;
    } catch (error) {
      if (!(error instanceof AccountsFileError)) throw error;
      tell(error.message);
      return false;
    }
  }

  function tell(why: string | null): void {
    if (why === failing) return;
    failing = why;
    onState(why);
  }

  const timer = setInterval(flush, flushEveryMs);
  timer.unref();
  return {
    flush,
    forget: (replica) => void replicasWritten.delete(replica),
    close: () => {
      clearInterval(timer);
      file.patient();
      flush();
      file.close();
    },
  };
}

/** What a row has grown by since it was written; nothing where it has not. */
function grown<Row extends object, Name extends keyof Row>(row: Row, before: Row | undefined, names: readonly Name[]): Row[] {
  const more = Object.fromEntries(names.map((name) => [name, (row[name] as number) - ((before?.[name] as number | undefined) ?? 0)]));
  return Object.values(more).every((amount) => amount === 0) ? [] : [{ ...row, ...more }];
}

/** A replica that was taken out and is back counts from nothing. */
function sameSince(row: ReplicaRow, before: ReplicaRow | undefined): ReplicaRow | undefined {
  const sumJ = (of: ReplicaRow): number => REPLICA_AMOUNTS.reduce((sum, name) => sum + of[name], 0);
  return before !== undefined && sumJ(row) < sumJ(before) / 2 ? undefined : before;
}

function keyOf({ tenant, model, sloClass }: UsageRow): string {
  return `${tenant}\n${model}\n${sloClass}`;
}
