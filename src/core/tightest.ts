// The tightest limit of those seen lately: what newcomers will want.

export interface Tightest {
  /** `undefined`: it carries none. */
  observe(limitMs: number | undefined, nowMs: number): void;
  /** `Infinity` where none was seen within the memory. */
  at(nowMs: number): number;
}

/** How long a limit that was seen still counts for the newcomers expected. */
const TIGHTEST_MEMORY_MS = 30_000;

export function createTightest(): Tightest {
  let tightestMs = Number.POSITIVE_INFINITY;
  let seenAtMs = Number.NEGATIVE_INFINITY;
  const at = (nowMs: number): number => (nowMs - seenAtMs > TIGHTEST_MEMORY_MS ? Number.POSITIVE_INFINITY : tightestMs);
  return {
    at,
    observe(limitMs = Number.POSITIVE_INFINITY, nowMs) {
      if (limitMs > at(nowMs)) return;
      tightestMs = limitMs;
      seenAtMs = nowMs;
    },
  };
}
