// What one tenant has had through this gateway: the last minute's requests and tokens, the places it holds, and the joules
// of the day. Decides by itself where no store does; where one does, it keeps the same account, for the day that is lost.
import type { Allowance, LimitKind, Standing, Standings } from './tenant-limits.ts';
import { createSlidingWindow, emptyAfterMs, leftAfterMs } from './sliding-window.ts';

export interface TenantLedger {
  /** Takes nothing yet. */
  /** What wants no tokens is not worked on: it needs no place either, and is counted as a request only. */
  check(allowance: Allowance, tokens: number, nowMs: number): LedgerCheck;
  take(tokens: number, nowMs: number): void;
  /** Frees the place; `atS` is when its tokens were taken. Tokens that were too many are given back there, too few are charged now. */
  settle(reserved: { readonly tokens: number; readonly atS: number }, tokens: number, nowMs: number): void;
  spend(energyJ: number, day: number): void;
  spentJ(day: number): number;
  /** Places held. */
  held(): number;
  standings(allowance: Allowance, nowMs: number): Standings;
}

export type LedgerCheck = { readonly kind: 'fits' } | { readonly kind: 'over'; readonly limit: Exclude<LimitKind, 'energy'>; readonly retryAfterMs: number };

/** When a place is free nobody can say: answers end when they end. Also of what is closed. */
export const UNKNOWN_RETRY_MS = 1_000;

export function createTenantLedger(): TenantLedger {
  const requests = createSlidingWindow();
  const tokens = createSlidingWindow();
  let held = 0;
  let energy = { day: 0, spentJ: 0 };

  return {
    check: (allowance, wantedTokens, nowMs) => {
      const nowS = Math.floor(nowMs / 1_000);
      if (wantedTokens > 0 && allowance.concurrency !== null && held >= allowance.concurrency) return { kind: 'over', limit: 'concurrency', retryAfterMs: UNKNOWN_RETRY_MS };
      const requestsOver = allowance.requests === null ? 0 : requests.sum(nowS) + 1 - allowance.requests;
      if (requestsOver > 0) return { kind: 'over', limit: 'requests', retryAfterMs: leftAfterMs(requests.slots(nowS), requestsOver, nowMs) ?? UNKNOWN_RETRY_MS };
      const tokensOver = wantedTokens === 0 || allowance.tokens === null ? 0 : tokens.sum(nowS) + wantedTokens - allowance.tokens;
      if (tokensOver > 0) return { kind: 'over', limit: 'tokens', retryAfterMs: leftAfterMs(tokens.slots(nowS), tokensOver, nowMs) ?? UNKNOWN_RETRY_MS };
      return { kind: 'fits' };
    },
    take: (taken, nowMs) => {
      const nowS = Math.floor(nowMs / 1_000);
      requests.add(nowS, 1, nowS);
      tokens.add(nowS, taken, nowS);
      held++;
    },
    settle: (reserved, spent, nowMs) => {
      const nowS = Math.floor(nowMs / 1_000);
      held--;
      const more = spent - reserved.tokens;
      tokens.add(more < 0 ? reserved.atS : nowS, more, nowS);
    },
    spend: (energyJ, day) => {
      // What is settled on the day after may be less than was charged then.
      energy = { day, spentJ: Math.max(0, (energy.day === day ? energy.spentJ : 0) + energyJ) };
    },
    spentJ: (day) => (energy.day === day ? energy.spentJ : 0),
    held: () => held,
    standings: (allowance, nowMs) => {
      const nowS = Math.floor(nowMs / 1_000);
      return {
        requests: allowance.requests === null ? null : standingOf(allowance.requests, requests.slots(nowS), nowMs),
        tokens: allowance.tokens === null ? null : standingOf(allowance.tokens, tokens.slots(nowS), nowMs),
      };
    },
  };
}

/** The oldest of the slots first. */
export function standingOf(limit: number, slots: readonly number[], nowMs: number): Standing {
  const used = slots.reduce((sum, count) => sum + count, 0);
  return { limit, remaining: Math.max(0, limit - used), resetMs: emptyAfterMs(slots, nowMs) };
}
