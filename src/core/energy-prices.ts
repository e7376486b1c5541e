// What energy costs, now and later, and when work that has the slack for it is cheapest. Unit free: money or carbon, for only
// ratios count.

import { MOVING } from './limits.ts';

export interface EnergyPrice {
  /** On the clock of whoever asks. It holds until the next one, the last for ever. */
  readonly fromMs: number;
  readonly price: number;
}

export interface CheapestStart {
  readonly startAtMs: number;
  /** Mean price while the work runs, if it starts now and if it starts then. */
  readonly nowPrice: number;
  readonly thenPrice: number;
}

/**
 * The earliest start, from now to the latest, at which work of so long costs least, at constant power. `prices` ascend; before the first
 * one its price is taken. Without prices, and where no later start is cheaper, that is now.
 *
 * The cost of `[s, s + d]` is piecewise linear in the start `s`, with bends only where `s` or `s + d` meets a change of price, so that a
 * least one stands at the ends or at such a bend: O(changes in reach × log changes).
 */
export function cheapestStart(prices: readonly EnergyPrice[], { nowMs, latestStartAtMs, workMs }: { readonly nowMs: number; readonly latestStartAtMs: number; readonly workMs: number }): CheapestStart {
  const forMs = Math.max(1, workMs);
  const nowPrice = meanPrice(prices, nowMs, forMs);
  let best = { startAtMs: nowMs, thenPrice: nowPrice };
  for (const startAtMs of candidates(prices, nowMs, latestStartAtMs, forMs)) {
    const thenPrice = meanPrice(prices, startAtMs, forMs);
    // Rounding is no saving.
    if (thenPrice < best.thenPrice * (1 - 1e-9)) best = { startAtMs, thenPrice };
  }
  return { ...best, nowPrice };
}

export interface MovableWork {
  readonly nowMs: number;
  readonly arrivedAtMs: number;
  /** After it nothing can be in time, at the fastest with nobody else there. */
  readonly latestStartAtMs: number;
  /** What it then takes. */
  readonly aloneMs: number;
  /** What it takes to work off what waits for cheap hours already. */
  readonly drainMs: number;
  /** Joules that it takes more now, and in so long a time, in which all that waits is worked off. */
  readonly takesJ: { readonly now: number; readonly within: (ms: number) => number };
}

export type Moving =
  /** It has not the slack, or no more, or nothing is known of prices. */
  | { readonly kind: 'goes' }
  | { readonly kind: 'waits'; readonly untilMs: number }
  /** Nothing cheaper is in reach, and until then it is as cheap and the work may begin. */
  | { readonly kind: 'may-go'; readonly untilMs: number };

/**
 * Whether work waits for cheaper energy: where what it takes more then, at the price of that time, is less than now by more than may be
 * error. Joules are not the same at any hour: with others running it may take next to none. No longer than its latest start less a margin: a share of its slack for what is not known, its own
 * time in company, and what is to be worked off before it.
 */
export function movingOf(prices: readonly EnergyPrice[], { nowMs, arrivedAtMs, latestStartAtMs, aloneMs, drainMs, takesJ }: MovableWork): Moving {
  const slackMs = latestStartAtMs - arrivedAtMs;
  if (prices.length === 0 || slackMs < Math.max(MOVING.slackMinMs, MOVING.slackTimes * aloneMs) || slackMs === Number.POSITIVE_INFINITY) return { kind: 'goes' };
  const workMs = MOVING.stretch * aloneMs;
  const lastAtMs = latestStartAtMs - (workMs - aloneMs) - drainMs - MOVING.marginShare * slackMs;
  const { startAtMs, nowPrice, thenPrice } = cheapestStart(prices, { nowMs, latestStartAtMs: lastAtMs, workMs });
  if (startAtMs > nowMs && thenPrice <= MOVING.savingRatio * nowPrice) {
    const cheapMs = Math.min(asCheapUntilMs(prices, startAtMs), latestStartAtMs) - startAtMs;
    if (thenPrice * takesJ.within(Math.max(workMs, cheapMs)) <= MOVING.costRatio * nowPrice * takesJ.now) return { kind: 'waits', untilMs: startAtMs };
  }
  const untilMs = Math.min(lastAtMs, asCheapUntilMs(prices, nowMs));
  return untilMs > nowMs ? { kind: 'may-go', untilMs } : { kind: 'goes' };
}

/** When energy gets dearer than now by what moving work takes as a saving; `Infinity`: never, as far as is known. */
function asCheapUntilMs(prices: readonly EnergyPrice[], nowMs: number): number {
  const first = Math.max(0, placeAt(prices, nowMs));
  const now = prices[first]?.price ?? 0;
  return prices.slice(first).find(({ price }) => price * MOVING.savingRatio > now)?.fromMs ?? Number.POSITIVE_INFINITY;
}

/**
 * Whether work that can be done in pieces and takes so long in all should go on now: the time until its end at which energy is cheaper than
 * now does not suffice for it. Doing so at every instant uses the cheapest of the hours there are.
 */
export function isAmongCheapest(prices: readonly EnergyPrice[], { nowMs, endAtMs, neededMs }: { readonly nowMs: number; readonly endAtMs: number; readonly neededMs: number }): boolean {
  return timeBelow(prices, nowMs, endAtMs, (price, now) => price < now) < neededMs;
}

/** How long until the end energy costs no more than now. */
export function timeAsCheapMs(prices: readonly EnergyPrice[], nowMs: number, endAtMs: number): number {
  return prices.length === 0 ? Math.max(0, endAtMs - nowMs) : timeBelow(prices, nowMs, endAtMs, (price, now) => price <= now);
}

function timeBelow(prices: readonly EnergyPrice[], nowMs: number, endAtMs: number, counts: (price: number, now: number) => boolean): number {
  const first = Math.max(0, placeAt(prices, nowMs));
  const now = prices[first]?.price ?? 0;
  let sumMs = 0;
  for (let place = first; place < prices.length; place++) {
    const { fromMs, price } = prices[place] as EnergyPrice;
    if (fromMs >= endAtMs) break;
    const untilMs = Math.min(endAtMs, prices[place + 1]?.fromMs ?? Number.POSITIVE_INFINITY);
    if (counts(price, now)) sumMs += Math.max(0, untilMs - Math.max(nowMs, place === first ? nowMs : fromMs));
  }
  return sumMs;
}

/** Mean price over `[fromMs, fromMs + forMs]`; 0 without prices. */
export function meanPrice(prices: readonly EnergyPrice[], fromMs: number, forMs: number): number {
  let sum = 0;
  let place = Math.max(0, placeAt(prices, fromMs));
  for (let atMs = fromMs; atMs < fromMs + forMs && place < prices.length; place++) {
    const untilMs = Math.min(fromMs + forMs, Math.max(atMs, prices[place + 1]?.fromMs ?? Number.POSITIVE_INFINITY));
    sum += (prices[place] as EnergyPrice).price * (untilMs - atMs);
    atMs = untilMs;
  }
  return sum / forMs;
}

/** Starts at which the cost may be least, ascending. */
function candidates(prices: readonly EnergyPrice[], nowMs: number, latestStartAtMs: number, forMs: number): number[] {
  if (!(latestStartAtMs > nowMs)) return [];
  const starts: number[] = [];
  for (let place = Math.max(0, placeAt(prices, nowMs)); place < prices.length; place++) {
    const { fromMs } = prices[place] as EnergyPrice;
    if (fromMs - forMs > latestStartAtMs) break;
    for (const startAtMs of [fromMs - forMs, fromMs]) if (startAtMs > nowMs && startAtMs <= latestStartAtMs) starts.push(startAtMs);
  }
  if (Number.isFinite(latestStartAtMs)) starts.push(latestStartAtMs);
  return starts.toSorted((a, b) => a - b);
}

/** The last price that holds at the instant; -1 before the first. */
function placeAt(prices: readonly EnergyPrice[], atMs: number): number {
  let from = 0;
  let to = prices.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((prices[middle] as EnergyPrice).fromMs <= atMs) from = middle + 1;
    else to = middle;
  }
  return from - 1;
}
