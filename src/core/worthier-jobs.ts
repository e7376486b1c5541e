// Jobs that are worth more than others and found no replica fast enough, by model: for a while those of less worth leave them one.
import type { JobSpec } from './job.ts';

/** Of the worthiest of them: the time per token that it wants, and its worth. */
export interface Worthier {
  readonly tpotMs: number;
  readonly worth: number;
}

export interface WorthierJobs {
  /** Steps are too long for it wherever it is best sent. One entry for each model that is served. */
  crowdedOut(job: JobSpec, nowMs: number): void;
  /** Whom such a job has to leave room; `undefined`: nobody. */
  before(job: JobSpec, nowMs: number): Worthier | undefined;
}

/** So long after it was last crowded out; about as long as streams that fill a replica take to leave it. */
const LEFT_ROOM_MS = 10_000;
/** Of its limit, so that its own prompt and those of others still fit in. */
const SHARE = 0.9;

export function createWorthierJobs(): WorthierJobs {
  const byModel = new Map<string, Worthier & { readonly untilMs: number }>();
  return {
    crowdedOut({ model, slo: { tpotMs }, worth = 1 }, nowMs) {
      if (tpotMs === undefined) return;
      const known = byModel.get(model);
      const stands = known !== undefined && nowMs < known.untilMs;
      if (stands && known.worth > worth) return;
      byModel.set(model, { worth, tpotMs: Math.min(SHARE * tpotMs, stands && known.worth === worth ? known.tpotMs : Number.POSITIVE_INFINITY), untilMs: nowMs + LEFT_ROOM_MS });
    },
    before({ model, worth = 1 }, nowMs) {
      const known = byModel.get(model);
      return known === undefined || nowMs >= known.untilMs || known.worth <= worth ? undefined : known;
    },
  };
}
