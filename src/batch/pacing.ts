// How many lines of batches are wanted in flight: few while others use the fleet, more while it is idle, and as many as it
// takes when a window's end comes near; where it is known what energy costs, in the cheapest hours that suffice. Pure; the runner
// measures and acts.
import { type EnergyPrice, isAmongCheapest, timeAsCheapMs } from '../core/energy-prices.ts';
import { MOVING } from '../core/limits.ts';

export interface BatchView {
  /** Without a result, those in flight included. */
  readonly remaining: number;
  readonly leftMs: number;
  /** Mean time of a line lately; `null` before the first has come back. */
  readonly lineMs: number | null;
}

export interface PacingView {
  /** In the order of their windows' ends. */
  readonly batches: readonly BatchView[];
  /** What the replicas that are up take at once, all together. */
  readonly room: number;
  /** On the replicas and in the gateway's queue, those of batches included. */
  readonly running: number;
  readonly queued: number;
  readonly ownInFlight: number;
  readonly concurrencyMax: number;
  /** What energy costs, `fromMs` counted from now; none: nothing is known. */
  readonly prices?: readonly EnergyPrice[];
}

/** Of the room, what batches and others may fill together: beyond it others' tokens get slower for the sake of what has hours. */
const FILL_SHARE = 0.5;
/** So much sooner than at the last moment: lines get longer, replicas fail, others come back. */
const HASTE = 2;
/** A line of which nothing is known. */
const LINE_MS_GUESS = 30_000;

/** For each batch, in the same order; together no more than `concurrencyMax`, nor more than `room`, where there is any. */
export function linesWanted(view: PacingView): readonly number[] {
  const { batches, room, concurrencyMax, prices = [] } = view;
  if (room <= 0) return batches.map(() => 0);
  let left = Math.min(concurrencyMax, room);
  const waiting = waitingForPrice(view, prices);
  // First what each must have, for time passes for the most urgent first; then what is idle.
  const wanted = batches.map((batch, index) => {
    const { leftMs } = batch;
    // What is to be done is done in the hours that are no dearer than this one.
    const must = waiting[index] === true ? 0 : Math.min(left, neededLines({ ...batch, leftMs: Math.min(leftMs, timeAsCheapMs(prices, 0, leftMs)) }), batch.remaining);
    left -= must;
    return must;
  });
  const others = Math.max(0, view.running + view.queued - view.ownInFlight);
  // Where others already wait there is no idle room, whatever the replicas say that they take.
  const othersWait = view.queued > view.ownInFlight;
  let idle = othersWait ? 0 : Math.floor(room * FILL_SHARE) - others;
  // One line is always under way: without it nothing is known of how long they take.
  idle = Math.min(left, Math.max(idle, 1) - wanted.reduce((sum, lines) => sum + lines, 0));
  batches.forEach((batch, index) => {
    const waits = waiting[index] === true;
    if (waits && batch.lineMs !== null) return;
    const more = Math.max(0, Math.min(waits ? 1 : idle, idle, batch.remaining - (wanted[index] as number)));
    wanted[index] = (wanted[index] as number) + more;
    idle -= more;
  });
  return wanted;
}

/** Which of them have enough hours left that are cheaper than this one, those before them counted. Haste is for what goes wrong in them. */
function waitingForPrice({ batches, room, concurrencyMax }: PacingView, prices: readonly EnergyPrice[]): readonly boolean[] {
  const lines = Math.max(1, Math.min(concurrencyMax, Math.floor(room * FILL_SHARE)));
  let neededMs = 0;
  return batches.map(({ remaining, leftMs, lineMs }) => {
    neededMs += (remaining * (lineMs ?? LINE_MS_GUESS) * HASTE) / lines;
    return prices.length > 0 && !isAmongCheapest(prices, { nowMs: 0, endAtMs: leftMs, neededMs });
  });
}

/** Lines that must be in flight all the time for a batch to end within its window (Little's law), with haste; 0: there is time. */
export function neededLines({ remaining, leftMs, lineMs }: BatchView): number {
  if (remaining === 0) return 0;
  if (leftMs <= 0) return remaining;
  const needed = (remaining * (lineMs ?? LINE_MS_GUESS) * HASTE) / leftMs;
  return needed < 1 ? 0 : Math.ceil(needed);
}

/**
 * What one line may take, so that with so many in flight the rest of the batch ends in its window: the scheduler keeps what
 * has slack, and were each line told all that is left it might use it up alone.
 */
export function lineDeadlineMs({ remaining, leftMs, lineMs }: BatchView, inFlight: number, prices: readonly EnergyPrice[] = []): number {
  const ownMs = lineMs ?? LINE_MS_GUESS;
  const shareMs = (leftMs * Math.max(1, inFlight)) / (Math.max(1, remaining) * HASTE);
  // What was sent in this hour was meant for it: with less slack than that it is not kept for another.
  const mostMs = prices.length === 0 ? Number.POSITIVE_INFINITY : Math.max(4 * ownMs, MOVING.slackMinMs);
  return Math.max(1, Math.min(leftMs, mostMs, Math.max(shareMs, 2 * ownMs)));
}
