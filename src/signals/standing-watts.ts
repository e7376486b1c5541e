// What a budget stands at now, by its configuration, its series and what an operator has said for a while. Pure.
import { nextChangeAfter, type Series, valueAt } from './series.ts';

/** Where its watts come from: `held` is the last value of a series that has run out, is too old, or has not begun; `nothing`: no limit, for nothing is known of it yet. */
export type WattsFrom = 'override' | 'configuration' | 'schedule' | 'held' | 'fallback' | 'nothing';

export interface StandingWatts {
  /** `null`: no limit. */
  readonly watts: number | null;
  readonly from: WattsFrom;
  /** When it may be another one, by what is known now; `Infinity`: never. */
  readonly changesAtUnixMs: number;
  /** For how long the series has been kept although it has run out or could not be had; 0: it is as it should be, or there is none. */
  readonly staleMs: number;
}

export interface WattsKnown {
  readonly configured: { readonly kind: 'fixed'; readonly watts: number } | { readonly kind: 'schedule'; readonly series: Series | null; readonly failingForMs: number; readonly staleAfterMs: number; readonly fallbackW: number | null };
  readonly override: { readonly watts: number; readonly endsAtUnixMs: number } | null;
  /** In force before, `null` where there was no limit: what is held while nothing else is known. */
  readonly lastW: number | null;
}

export function standingWatts({ configured, override, lastW }: WattsKnown, unixMs: number): StandingWatts {
  const without = configured.kind === 'fixed' ? { watts: configured.watts, from: 'configuration' as const, changesAtUnixMs: Number.POSITIVE_INFINITY, staleMs: 0 } : scheduled(configured, lastW, unixMs);
  return override === null ? without : { ...without, watts: override.watts, from: 'override', changesAtUnixMs: override.endsAtUnixMs };
}

function scheduled({ series, failingForMs, staleAfterMs, fallbackW }: Extract<WattsKnown['configured'], { kind: 'schedule' }>, lastW: number | null, unixMs: number): StandingWatts {
  const never = Number.POSITIVE_INFINITY;
  const staleMs = staleFor(series, failingForMs, unixMs);
  const instead = fallbackW === null ? null : ({ watts: fallbackW, from: 'fallback', changesAtUnixMs: never, staleMs } as const);
  if (series === null) return instead ?? (lastW === null ? { watts: null, from: 'nothing', changesAtUnixMs: never, staleMs } : { watts: lastW, from: 'held', changesAtUnixMs: never, staleMs });
  const changesAtUnixMs = nextChangeAfter(series, unixMs);
  const value = valueAt(series, unixMs);
  const counts = unixMs < series.endsAtUnixMs && failingForMs <= staleAfterMs;
  if (!counts && instead !== null) return { ...instead, changesAtUnixMs };
  // What was in force goes on until the first point.
  if (value === null) return lastW !== null ? { watts: lastW, from: 'held', changesAtUnixMs, staleMs } : instead !== null ? { ...instead, changesAtUnixMs } : { watts: null, from: 'nothing', changesAtUnixMs, staleMs };
  return { watts: value, from: counts ? 'schedule' : 'held', changesAtUnixMs, staleMs };
}

/** The longer of the two: since it ran out, since it could not be had. */
export function staleFor(series: Series | null, failingForMs: number, unixMs: number): number {
  return Math.max(0, failingForMs, series === null ? 0 : unixMs - series.endsAtUnixMs);
}
