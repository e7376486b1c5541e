// What the dashboard remembers: power over the last minutes, whether requests met their SLOs, what was decided lately. All of it
// is bounded, and none of it is needed by anything else.
import type { JobId, ReplicaId } from '../core/job.ts';
import type { PhaseGroup } from '../core/replica-view.ts';
import type { Effect, Explanation, JobReport, RejectReason } from '../scheduler/events.ts';

/** So far back the page looks. */
export const WINDOW_MS = 900_000;
export const POWER_SAMPLES_MAX = 360;
export const CLOCK_CHANGES_MAX = 16;
export const REQUESTS_MAX = 16;
/** Classes come from the configuration; those beyond are counted together. */
export const CLASSES_MAX = 64;
/** Groups of devices whose last point is known; those beyond are not told of. */
const GROUPS_MAX = 4_096;
const BUCKET_MS = 60_000;
const OTHER_CLASSES = '(others)';
/** How fast the mean size of requests follows: over some fifty of them. */
const SIZE_STEP = 0.04;

export interface PowerSample {
  readonly atUnixMs: number;
  /** Of all devices that are metered; `null`: none is. */
  readonly powerW: number | null;
}

/** What a group of devices was asked to run at, and why. `null`: default clocks. */
export interface ClockChange {
  readonly atUnixMs: number;
  readonly replicaId: ReplicaId;
  readonly group: PhaseGroup | null;
  /** `undefined`: not known before. */
  readonly fromPointId: string | null | undefined;
  readonly toPointId: string | null;
  readonly why: Explanation;
}

export type EndedRequest = {
  readonly atUnixMs: number;
  readonly jobId: JobId | null;
  readonly sloClass: string;
} & ({ readonly kind: 'ended'; readonly report: JobReport } | { readonly kind: 'rejected'; readonly reason: RejectReason });

export interface Attainment {
  readonly sloClass: string;
  readonly met: number;
  readonly missed: number;
}

/** Means of the requests that ended lately. */
export interface RequestSize {
  readonly promptTokens: number;
  readonly outputTokens: number;
}

export interface Remembered {
  /** Oldest first. */
  readonly power: readonly PowerSample[];
  /** By name. */
  readonly attainment: readonly Attainment[];
  /** Newest first. */
  readonly clockChanges: readonly ClockChange[];
  readonly requests: readonly EndedRequest[];
  /** `null`: none has ended yet. */
  readonly size: RequestSize | null;
}

type Demand = Extract<Effect, { kind: 'demand' }>;

export interface History {
  sampled(sample: PowerSample): void;
  demanded(demand: Demand, atUnixMs: number): void;
  reported(report: JobReport, atUnixMs: number): void;
  rejected(reason: RejectReason, sloClass: string, atUnixMs: number): void;
  /** It has left, or its devices follow nobody any more: what they were told last holds no longer. */
  undemanded(replicaId: ReplicaId): void;
  read(atUnixMs: number): Remembered;
}

interface Bucket {
  readonly fromUnixMs: number;
  readonly classes: Map<string, { met: number; missed: number }>;
}

export function createHistory(): History {
  const power: PowerSample[] = [];
  const clockChanges: ClockChange[] = [];
  const requests: EndedRequest[] = [];
  const points = new Map<string, string | null>();
  let buckets: Bucket[] = [];
  let size: { promptTokens: number; outputTokens: number } | null = null;

  function countsOf(sloClass: string, atUnixMs: number): { met: number; missed: number } {
    const fromUnixMs = Math.floor(atUnixMs / BUCKET_MS) * BUCKET_MS;
    let bucket = buckets.at(-1);
    if (bucket === undefined || bucket.fromUnixMs !== fromUnixMs) {
      bucket = { fromUnixMs, classes: new Map() };
      buckets.push(bucket);
      buckets = buckets.slice(-(WINDOW_MS / BUCKET_MS + 1));
    }
    const name = bucket.classes.has(sloClass) || bucket.classes.size < CLASSES_MAX - 1 ? sloClass : OTHER_CLASSES;
    const counts = bucket.classes.get(name) ?? { met: 0, missed: 0 };
    bucket.classes.set(name, counts);
    return counts;
  }

  function attainment(atUnixMs: number): Attainment[] {
    const sums = new Map<string, { met: number; missed: number }>();
    for (const { fromUnixMs, classes } of buckets) {
      if (fromUnixMs <= atUnixMs - WINDOW_MS - BUCKET_MS) continue;
      for (const [sloClass, { met, missed }] of classes) {
        const name = sums.has(sloClass) || sums.size < CLASSES_MAX - 1 ? sloClass : OTHER_CLASSES;
        const sum = sums.get(name) ?? { met: 0, missed: 0 };
        sums.set(name, { met: sum.met + met, missed: sum.missed + missed });
      }
    }
    return [...sums].map(([sloClass, counts]) => ({ sloClass, ...counts })).toSorted((a, b) => (a.sloClass < b.sloClass ? -1 : 1));
  }

  return {
    sampled(sample) {
      power.push(sample);
      if (power.length > POWER_SAMPLES_MAX) power.shift();
    },
    demanded({ replicaId, group = null, point, why }, atUnixMs) {
      const key = `${replicaId}\n${group ?? ''}`;
      const toPointId = point?.id ?? null;
      const fromPointId = points.get(key);
      if (fromPointId === toPointId || (fromPointId === undefined && points.size >= GROUPS_MAX)) return;
      points.set(key, toPointId);
      keepNewest(clockChanges, { atUnixMs, replicaId, group, fromPointId, toPointId, why }, CLOCK_CHANGES_MAX);
    },
    reported(report, atUnixMs) {
      if (report.met !== null) countsOf(report.sloClass, atUnixMs)[report.met ? 'met' : 'missed'] += 1;
      keepNewest(requests, { kind: 'ended', atUnixMs, jobId: report.jobId, sloClass: report.sloClass, report }, REQUESTS_MAX);
      if (report.outcome !== 'finished') return;
      if (size === null) size = { promptTokens: report.promptTokens, outputTokens: report.outputTokens };
      else {
        size.promptTokens += SIZE_STEP * (report.promptTokens - size.promptTokens);
        size.outputTokens += SIZE_STEP * (report.outputTokens - size.outputTokens);
      }
    },
    rejected(reason, sloClass, atUnixMs) {
      keepNewest(requests, { kind: 'rejected', atUnixMs, jobId: null, sloClass, reason }, REQUESTS_MAX);
    },
    undemanded(replicaId) {
      for (const key of points.keys()) if (key.startsWith(`${replicaId}\n`)) points.delete(key);
    },
    read: (atUnixMs) => ({
      power: power.filter((sample) => sample.atUnixMs > atUnixMs - WINDOW_MS),
      attainment: attainment(atUnixMs),
      clockChanges: [...clockChanges],
      requests: [...requests],
      size: size === null ? null : { ...size },
    }),
  };
}

function keepNewest<Item>(list: Item[], item: Item, max: number): void {
  list.unshift(item);
  if (list.length > max) list.length = max;
}
