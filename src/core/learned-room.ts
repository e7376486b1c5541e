// How many jobs does a server really take at once? Its profile says what it could; its own metrics show when it takes no
// more: requests wait there although as many run as before. What it does not run had better wait here, where it is put
// in order. It never falls for being busy alone, and grows back by itself.

export interface LearnedRoom {
  /** A reading of the server's metrics, all its traffic; `ours` is what we have there. */
  observe(load: { readonly running: number; readonly waiting: number; readonly kvUsage: number }, ours: number): void;
  /** Jobs of ours that it may be sent at once; `Infinity` while nothing speaks against what is configured. */
  room(): number;
}

/** Readings in a row in which it was full, until it is believed: one may be a burst of prompts on their way in. */
const FULL_READINGS = 2;
/** So many more than it runs are sent, that it never waits for us. */
const AHEAD = { share: 0.05, min: 2 };
/** Per reading in which nobody waits there while we use all of it. */
const GROWTH = { share: 0.05, min: 1 };
/** By so much the number of running requests may rise while the server counts as full: streams end and begin all the time. */
const RISE = { share: 0.02, min: 1 };
/** Above it memory is what it has not enough of, whatever the running requests do. */
const KV_FULL = 0.95;

export function createLearnedRoom(concurrencyMax: number): LearnedRoom {
  let room = Number.POSITIVE_INFINITY;
  let runningBefore = 0;
  let fullReadings = 0;

  return {
    observe({ running, waiting, kvUsage }, ours) {
      const settled = running <= runningBefore + Math.max(RISE.min, RISE.share * runningBefore);
      const full = waiting > 0 && running > 0 && (settled || kvUsage >= KV_FULL);
      runningBefore = running;
      fullReadings = full ? fullReadings + 1 : 0;
      if (fullReadings >= FULL_READINGS) {
        const foreign = Math.max(0, running + waiting - ours);
        room = Math.max(1, Math.round(running - foreign + Math.max(AHEAD.min, AHEAD.share * running)));
      } else if (waiting === 0 && ours >= room - 1) {
        room += Math.max(GROWTH.min, GROWTH.share * room);
        if (room >= concurrencyMax) room = Number.POSITIVE_INFINITY;
      }
    },
    room: () => (room === Number.POSITIVE_INFINITY ? room : Math.floor(room)),
  };
}
