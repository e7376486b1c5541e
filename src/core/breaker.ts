// A circuit breaker for one replica: enough failures in a window open it, after a while one request at a time tries
// it again. It knows nothing of saturation, which is no failure; who may be sent where is for the scheduler to say.
import { unreachable } from './unreachable.ts';

export interface BreakerLimits {
  /** Failures within the window that open it. */
  readonly failuresMax: number;
  readonly windowMs: number;
  /** Until it is tried again; longer each time the trial fails. */
  readonly openMs: number;
}

export type BreakerState =
  | { readonly kind: 'closed'; readonly sinceMs: number }
  /** `turns`: how often it has opened without closing in between. */
  | { readonly kind: 'open'; readonly sinceMs: number; readonly untilMs: number; readonly turns: number }
  | { readonly kind: 'half-open'; readonly sinceMs: number; readonly turns: number };

/** `sentAtMs`: of the request that shows it. What was sent before the state began says nothing about it. */
export type BreakerEvent =
  /** The server has answered, whatever it said. */
  | { readonly kind: 'answered'; readonly sentAtMs: number }
  | { readonly kind: 'failed'; readonly sentAtMs: number }
  /** Nothing has come from it for long, on any request: as good as all the failures it takes. */
  | { readonly kind: 'silent'; readonly sentAtMs: number }
  /** It is another server now: it was gone, and is back. */
  | { readonly kind: 'reset' }
  /** Time has passed. */
  | { readonly kind: 'tick' };

export interface Breaker {
  /** The state from then on; the same object as long as nothing has changed. */
  handle(event: BreakerEvent, nowMs: number): BreakerState;
  state(): BreakerState;
}

/** Failures are this part of what came back in the window, at least: a client whose requests are a server's 500 must not shut it to others. */
export const FAILURE_SHARE_MIN = 0.25;
/** Each failed trial costs somebody a request, so they become rarer, up to this many times `openMs`. */
export const OPEN_TURNS_MAX = 8;

/** Closed at first. */
export function createBreaker({ failuresMax, windowMs, openMs }: BreakerLimits): Breaker {
  let state: BreakerState = { kind: 'closed', sinceMs: Number.NEGATIVE_INFINITY };
  const recent = createRecent(windowMs);

  function open(nowMs: number, turns: number): void {
    state = { kind: 'open', sinceMs: nowMs, untilMs: nowMs + openMs * Math.min(OPEN_TURNS_MAX, 2 ** (turns - 1)), turns };
  }

  function close(nowMs: number): void {
    recent.clear();
    state = { kind: 'closed', sinceMs: nowMs };
  }

  function failed(nowMs: number, certain: boolean): void {
    switch (state.kind) {
      case 'closed': {
        recent.add('failed', nowMs);
        const { answered, failed: failures } = recent.counts(nowMs);
        if (certain || (failures >= failuresMax && failures >= FAILURE_SHARE_MIN * (failures + answered))) open(nowMs, 1);
        return;
      }
      case 'half-open':
        return open(nowMs, state.turns + 1);
      case 'open':
        return;
      default:
        unreachable(state);
    }
  }

  return {
    state: () => state,
    handle(event, nowMs) {
      if (state.kind === 'open' && nowMs >= state.untilMs) state = { kind: 'half-open', sinceMs: nowMs, turns: state.turns };
      switch (event.kind) {
        case 'answered':
          if (state.kind === 'closed') recent.add('answered', nowMs);
          // Also while it is open: it is then the last that its model has, and was sent something all the same.
          else if (event.sentAtMs >= state.sinceMs) close(nowMs);
          return state;
        case 'failed':
        case 'silent':
          if (event.sentAtMs >= state.sinceMs) failed(nowMs, event.kind === 'silent');
          return state;
        case 'reset':
          if (state.kind !== 'closed') close(nowMs);
          else recent.clear();
          return state;
        case 'tick':
          return state;
        default:
          return unreachable(event);
      }
    },
  };
}

type Result = 'answered' | 'failed';

/** Slices of the window: one of them falls out at a time, so that the counts take the same room at any rate. */
const SLICES = 10;

/** Counts of the last `windowMs`, to a slice. */
function createRecent(windowMs: number): { add(result: Result, nowMs: number): void; counts(nowMs: number): Readonly<Record<Result, number>>; clear(): void } {
  const slices = Array.from({ length: SLICES }, () => ({ number: Number.NEGATIVE_INFINITY, answered: 0, failed: 0 }));
  const numberAt = (nowMs: number): number => Math.floor((nowMs / windowMs) * SLICES);
  return {
    add(result, nowMs) {
      const number = numberAt(nowMs);
      const slice = slices[((number % SLICES) + SLICES) % SLICES] as (typeof slices)[number];
      if (slice.number !== number) Object.assign(slice, { number, answered: 0, failed: 0 });
      slice[result] += 1;
    },
    counts(nowMs) {
      const oldest = numberAt(nowMs) - SLICES + 1;
      const counts = { answered: 0, failed: 0 };
      for (const slice of slices) {
        if (slice.number < oldest) continue;
        counts.answered += slice.answered;
        counts.failed += slice.failed;
      }
      return counts;
    },
    clear() {
      for (const slice of slices) slice.number = Number.NEGATIVE_INFINITY;
    },
  };
}
