// What became of workflows lately, by tenant and name: for people who look, in the status and on the dashboard. Bounded; all since the start is the
// metrics' to count.

/** One that has ended. */
export interface EndedWorkflow {
  readonly tenant: string;
  readonly name: string | null;
  /** By its deadline; `null`: its client ended it before. */
  readonly met: boolean | null;
  readonly deadlineMs: number;
  readonly tookMs: number;
  readonly energyJ: number;
}

export interface RecentRow {
  readonly tenant: string;
  /** `null`: they have none. */
  readonly name: string | null;
  readonly met: number;
  readonly missed: number;
  /** Their clients ended them before it was known. */
  readonly unknown: number;
  /** Of the deadline, the mean of those of which it is known; `null`: there are none. */
  readonly tookShare: number | null;
  /** The mean of all. */
  readonly energyJ: number;
}

export interface RecentWorkflows {
  ended(workflow: EndedWorkflow, nowMs: number): void;
  /** The most frequent first; those of names beyond `RECENT_NAMES_MAX` together, last. */
  read(nowMs: number): readonly RecentRow[];
}

export const RECENT_WINDOW_MS = 900_000;
/** Clients give names: told apart are as many in each minute, and in all. */
export const RECENT_NAMES_MAX = 32;
/** In the place of a tenant: none is called so. */
export const OTHER_NAMES = '(others)';
const BUCKET_MS = 60_000;

interface Sums {
  readonly tenant: string;
  readonly name: string | null;
  met: number;
  missed: number;
  unknown: number;
  tookShare: number;
  energyJ: number;
}

export function createRecentWorkflows(): RecentWorkflows {
  let buckets: { readonly fromMs: number; readonly names: Map<string, Sums> }[] = [];

  return {
    ended({ tenant, name, met, deadlineMs, tookMs, energyJ }, nowMs) {
      const fromMs = Math.floor(nowMs / BUCKET_MS) * BUCKET_MS;
      if (buckets.at(-1)?.fromMs !== fromMs) buckets = [...buckets, { fromMs, names: new Map() }].slice(-(RECENT_WINDOW_MS / BUCKET_MS + 1));
      const sums = sumsOf((buckets.at(-1) as (typeof buckets)[number]).names, tenant, name);
      sums[met === null ? 'unknown' : met ? 'met' : 'missed'] += 1;
      if (met !== null) sums.tookShare += tookMs / deadlineMs;
      sums.energyJ += energyJ;
    },
    read(nowMs) {
      const all = new Map<string, Sums>();
      for (const { fromMs, names } of buckets) {
        if (fromMs <= nowMs - RECENT_WINDOW_MS - BUCKET_MS) continue;
        for (const one of names.values()) {
          const sums = sumsOf(all, one.tenant, one.name);
          for (const key of ['met', 'missed', 'unknown', 'tookShare', 'energyJ'] as const) sums[key] += one[key];
        }
      }
      const isOther = ({ tenant }: Sums): number => (tenant === OTHER_NAMES ? 1 : 0);
      return [...all.values()].toSorted((a, b) => isOther(a) - isOther(b) || countOf(b) - countOf(a)).map(rowOf);
    },
  };
}

function sumsOf(names: Map<string, Sums>, tenant: string, name: string | null): Sums {
  const key = `${tenant}\n${name ?? ''}`;
  const isKept = tenant !== OTHER_NAMES && (names.has(key) || names.size < RECENT_NAMES_MAX - 1);
  const keptKey = isKept ? key : OTHER_NAMES;
  const sums = names.get(keptKey) ?? { tenant: isKept ? tenant : OTHER_NAMES, name: isKept ? name : null, met: 0, missed: 0, unknown: 0, tookShare: 0, energyJ: 0 };
  names.set(keptKey, sums);
  return sums;
}

function rowOf(sums: Sums): RecentRow {
  const { tenant, name, met, missed, unknown, tookShare, energyJ } = sums;
  return { tenant, name, met, missed, unknown, tookShare: met + missed === 0 ? null : tookShare / (met + missed), energyJ: energyJ / countOf(sums) };
}

function countOf({ met, missed, unknown }: Pick<Sums, 'met' | 'missed' | 'unknown'>): number {
  return met + missed + unknown;
}
