// How much there was in the last minute, exact to a second and never too little: 60 whole seconds and the one under way.
// A bucket that refills would let twice the limit through in its first minute.

export const WINDOW_S = 60;
/** Sixty whole seconds before this one, of which a minute that ends now may still hold a part. */
export const WINDOW_SLOTS = WINDOW_S + 1;

export interface SlidingWindow {
  sum(nowS: number): number;
  /** What is given back (below zero) is no more than its second has; seconds outside of the window are forgotten. */
  add(atS: number, amount: number, nowS: number): void;
  /** Seconds of the window, the oldest first. */
  slots(nowS: number): number[];
}

/** Seconds are whole, and those of one clock; a clock that steps back stands still here, by more than a window it begins anew. */
export function createSlidingWindow(): SlidingWindow {
  const counts = new Float64Array(WINDOW_SLOTS);
  let headS = 0;
  let total = 0;

  function advance(nowS: number): void {
    if (nowS - headS >= WINDOW_SLOTS || headS - nowS >= WINDOW_SLOTS) {
      counts.fill(0);
      total = 0;
      headS = nowS;
    }
    while (headS < nowS) {
      headS++;
      const place = headS % WINDOW_SLOTS;
      total -= counts[place] as number;
      counts[place] = 0;
    }
  }

  return {
    sum: (nowS) => {
      advance(nowS);
      return total;
    },
    add: (atS, amount, nowS) => {
      advance(nowS);
      const second = Math.min(atS, headS);
      if (headS - second >= WINDOW_SLOTS) return;
      const place = second % WINDOW_SLOTS;
      const before = counts[place] as number;
      const after = Math.max(0, before + amount);
      counts[place] = after;
      total += after - before;
    },
    slots: (nowS) => {
      advance(nowS);
      return Array.from({ length: WINDOW_SLOTS }, (_, index) => counts[(headS + 1 + index) % WINDOW_SLOTS] as number);
    },
  };
}

/** Until `excess` of what is in the window has left it; `null` where it has not so much. The oldest of the slots first. */
export function leftAfterMs(slots: readonly number[], excess: number, nowMs: number): number | null {
  let left = 0;
  for (const [index, count] of slots.entries()) {
    left += count;
    if (left >= excess) return leavesInMs(index, nowMs);
  }
  return null;
}

/** Until nothing is left in it; 0 where nothing is. */
export function emptyAfterMs(slots: readonly number[], nowMs: number): number {
  const newest = slots.findLastIndex((count) => count > 0);
  return newest < 0 ? 0 : leavesInMs(newest, nowMs);
}

/** The slot at `index` is of the second `now - 60 + index`, and leaves with the second 61 after it. */
function leavesInMs(index: number, nowMs: number): number {
  return (Math.floor(nowMs / 1_000) + index + 1) * 1_000 - nowMs;
}
