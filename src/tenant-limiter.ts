// Whether a tenant may have one more request: asks the fleet's store where there is one, and decides by this gateway's own
// account where there is none, where a tenant's limits are of each gateway, or where the store is lost. Between those it loses
// nothing: what was admitted without asking is told to the store when it is back.
import type { AnswerEstimate } from './core/answer-estimate.ts';
import { createAnswerEstimate } from './core/answer-estimate.ts';
import { configured, isOver, limitOf, lostScope, lostScopes, shareOf } from './core/allowance.ts';
import type { JobId } from './core/job.ts';
import type { PromptEstimator } from './core/prompt-estimator.ts';
import { createPromptEstimator } from './core/prompt-estimator.ts';
import { leftAfterMs } from './core/sliding-window.ts';
import type { TenantLedger } from './core/tenant-ledger.ts';
import { UNKNOWN_RETRY_MS, createTenantLedger, standingOf } from './core/tenant-ledger.ts';
import type { Allowance, LimitDecision, LimitKind, LimitRequest, LimitScope, LimitedTenant, Limiter, LostWay, Spent, Standings } from './core/tenant-limits.ts';
import type { FleetLimits } from './store/fleet-limits.ts';
import type { TenantAnswer, Verdict } from './store/limit-scripts.ts';

export interface TenantLimiterOptions {
  /** `null`: no store, this gateway is alone. */
  readonly fleet: FleetLimits | null;
  /** What a request waits for the store at most, from its coming. */
  readonly timeoutMs: number;
  readonly whenLost: Readonly<Record<LimitKind, LostWay>>;
  readonly gatewaysExpected: number;
  /** Monotonic. */
  readonly now: () => number;
  readonly unixNowMs: () => number;
  /** `limit` is what refused, or 'none'. */
  readonly decided: (limit: LimitKind | 'none', decision: 'admitted' | 'refused' | 'class', scope: LimitScope) => void;
}

export interface TenantLimits {
  readonly name: string;
  readonly scope: LimitScope | 'mixed';
  readonly requestsRemaining: number | null;
  readonly tokensRemaining: number | null;
  /** Of this gateway; of all of them too, where the store has told. */
  readonly concurrent: number;
  readonly concurrentInFleet: number | null;
  readonly joulesRemaining: number | null;
  readonly joulesPerDay: number | null;
}

export interface TenantLimiter extends Limiter {
  tenants(): readonly TenantLimits[];
  /** Of a tenant's request that is settled already: it took so much more energy than was known then, or less. */
  spentMore(tenant: string, energyJ: number): void;
  /** Lets the places go; to be called when no request is under way. */
  close(): void;
}

/** Requests that one call asks for; those beyond it come with the next. */
const WANTED_MAX = 64;
/** Calls of one tenant under way: a slow Redis is asked by several at once, a frozen one not by thousands. */
const CALLS_MAX = 8;
const FORGET_EVERY_MS = 60_000;
const DAY_MS = 86_400_000;
const NO_STANDINGS: Standings = { requests: null, tokens: null };

interface Waiting {
  readonly request: LimitRequest;
  readonly tokens: number;
  readonly answerTokens: number;
  readonly sinceMs: number;
  readonly done: (decision: LimitDecision) => void;
}

/** Admitted and not yet settled. */
interface Reservation {
  readonly account: Account;
  readonly tokens: number;
  readonly answerTokens: number;
  readonly atS: number;
  /** The same second by the store's clock; `null` where it was never told of it and never will be. */
  readonly fleetAtS: number | null;
  readonly estimateKey: string;
  readonly promptBytes: number;
}

interface Account {
  /** As the last request brought it: a new configuration may have changed it. */
  tenant: LimitedTenant;
  readonly ledger: TenantLedger;
  readonly waiting: Waiting[];
  calls: number;
  /** Places freed that the store has not been told of. */
  freed: number;
  /** By second of the store's clock: what it has not been told of. */
  readonly untold: Map<number, { requests: number; tokens: number }>;
  untoldJ: number;
  dirty: boolean;
  /** What the store last said. */
  answer: { readonly standings: Standings; readonly held: number; readonly spentJ: number; readonly day: number } | null;
}

export function createTenantLimiter(options: TenantLimiterOptions): TenantLimiter {
  const { fleet, now, unixNowMs } = options;
  const accounts = new Map<string, Account>();
  const reservations = new Map<JobId, Reservation>();
  const prompts: PromptEstimator = createPromptEstimator();
  const answers: AnswerEstimate = createAnswerEstimate();

  fleet?.onBeat(() => {
    for (const account of accounts.values()) {
      if (account.ledger.held() > 0 && account.tenant.limits.concurrencyMax !== null) account.dirty = true;
      pump(account);
    }
  });

  function accountOf(tenant: LimitedTenant): Account {
    let account = accounts.get(tenant.name);
    if (account === undefined) {
      account = { tenant, ledger: createTenantLedger(), waiting: [], calls: 0, freed: 0, untold: new Map(), untoldJ: 0, dirty: false, answer: null };
      accounts.set(tenant.name, account);
    }
    account.tenant = tenant;
    return account;
  }

  function admit(request: LimitRequest, done: (decision: LimitDecision) => void): void {
    const { tenant } = request;
    const account = accountOf(tenant);
    const key = keyOf(request);
    const answerTokens = request.work !== 'generate' ? 0 : (request.maxOutputTokens ?? answers.tokens(key));
    // At least one, of what is worked on: none is what is only counted.
    const tokens = request.work === 'declare' ? 0 : Math.max(1, (request.promptTokens ?? prompts.tokens(key, request.promptBytes)) + answerTokens);
    const waiting: Waiting = { request, tokens, answerTokens, sinceMs: now(), done };
    const { tokensPerMinute } = tenant.limits;
    if (tokensPerMinute !== null && tokens > tokensPerMinute) {
      const scope = scopeOf(account);
      options.decided('tokens', 'refused', scope === 'lost' ? options.whenLost.tokens : scope);
      return done({ kind: 'refused', limit: 'tokens', allowed: tokensPerMinute, asked: tokens, retryAfterMs: null, standings: account.answer?.standings ?? account.ledger.standings(configured(tenant), now()) });
    }
    if (scopeOf(account) !== 'fleet') return decideHere(account, waiting);
    account.waiting.push(waiting);
    pump(account);
  }

  /** Asks the store for all that wait, and tells it what it does not know. */
  function pump(account: Account): void {
    if (fleet === null || account.tenant.limits.scope !== 'fleet') return;
    while (account.waiting.length > 0 || (account.dirty && account.calls === 0)) {
      // Those that wait for the answer of calls under way are asked for then, or go with them.
      if (account.calls >= CALLS_MAX) return;
      if (fleet.state().kind !== 'up') {
        for (const waiting of account.waiting.splice(0)) decideHere(account, waiting);
        return;
      }
      call(account, fleet);
    }
  }

  function call(account: Account, store: FleetLimits): void {
    const batch = account.waiting.splice(0, WANTED_MAX);
    const { limits, energyBudget } = account.tenant;
    const untold = [...account.untold];
    const { untoldJ, freed } = account;
    account.untold.clear();
    account.untoldJ = 0;
    account.freed = 0;
    account.dirty = false;
    const first = account.calls === 0;
    account.calls++;
    const withinMs = Math.max(1, options.timeoutMs - (now() - (batch[0]?.sinceMs ?? now())));
    store.ask(
      {
        tenant: account.tenant.name,
        limits: { requests: limits.requestsPerMinute, tokens: limits.tokensPerMinute, concurrency: limits.concurrencyMax, joulesPerDay: energyBudget?.joulesPerDay ?? null },
        refuseAtEnd: energyBudget?.atEnd === 'refuse',
        places: first ? { kind: 'held', count: account.ledger.held() } : { kind: 'freed', count: freed },
        energyJ: untoldJ,
        deltas: untold.map(([atS, { requests, tokens }]) => ({ atS, requests, tokens })),
        wanted: batch.map(({ tokens }) => tokens),
      },
      withinMs,
      (answer) => {
        if (answer === null) {
          // It may have been heard all the same, and is counted twice then: a limit errs by what one round trip held.
          for (const [atS, { requests, tokens }] of untold) addUntold(account, atS, requests, tokens);
          account.untoldJ += untoldJ;
          account.dirty = true;
          for (const waiting of batch) decideHere(account, waiting);
        } else heard(account, batch, answer);
        // Only now: who is told may settle at once, and a count of places made before all verdicts are in would be too low.
        account.calls--;
        pump(account);
      },
    );
  }

  function heard(account: Account, batch: readonly Waiting[], answer: TenantAnswer): void {
    const { tenant } = account;
    const standings = {
      requests: tenant.limits.requestsPerMinute === null ? null : standingOf(tenant.limits.requestsPerMinute, answer.requestSlots, answer.nowMs),
      tokens: tenant.limits.tokensPerMinute === null ? null : standingOf(tenant.limits.tokensPerMinute, answer.tokenSlots, answer.nowMs),
    };
    account.answer = { standings, held: answer.held, spentJ: answer.spentJ, day: Math.floor(answer.nowMs / DAY_MS) };
    batch.forEach((waiting, index) => {
      const verdict = answer.verdicts[index] as Verdict;
      if (verdict === 'admitted') return admitted(account, waiting, 'fleet', { standings, overBudget: isOver(tenant, answer.spentJ), fleetAtS: Math.floor(answer.nowMs / 1_000) });
      refused(account, waiting, verdict, 'fleet', { standings, retryAfterMs: retryAfterMs(tenant, waiting, verdict, answer) });
    });
  }

  /** By this gateway's own account. */
  function decideHere(account: Account, waiting: Waiting): void {
    const { tenant, ledger } = account;
    const scope = scopeOf(account);
    const gateway = scope === 'gateway';
    const nowMs = now();
    const allowance = gateway ? configured(tenant) : shareOf(tenant, options.whenLost, gateways());
    const standings = ledger.standings(allowance, nowMs);
    const overBudget = gateway ? isOver(tenant, ledger.spentJ(today())) : isOverWhileLost(account);
    if (overBudget && tenant.energyBudget?.atEnd === 'refuse') return refused(account, waiting, 'energy', gateway ? 'gateway' : options.whenLost.energy, { standings, retryAfterMs: !gateway && options.whenLost.energy === 'closed' ? UNKNOWN_RETRY_MS : untilMidnightMs(unixNowMs()) });
    const check = ledger.check(allowance, waiting.tokens, nowMs);
    if (check.kind === 'over') return refused(account, waiting, check.limit, gateway ? 'gateway' : options.whenLost[check.limit], { standings, retryAfterMs: check.retryAfterMs });
    const fleetAtS = gateway || fleet === null ? null : Math.floor(fleet.clockMs() / 1_000);
    if (fleetAtS !== null) {
      addUntold(account, fleetAtS, 1, waiting.tokens);
      account.dirty = true;
    }
    admitted(account, waiting, gateway ? 'gateway' : lostScope(tenant, options.whenLost), { standings: null, allowance, overBudget, fleetAtS });
  }

  function admitted(account: Account, { request, tokens, answerTokens, done }: Waiting, scope: LimitScope, how: { readonly standings: Standings | null; readonly allowance?: Allowance; readonly overBudget: boolean; readonly fleetAtS: number | null }): void {
    const nowMs = now();
    account.ledger.take(tokens, nowMs);
    reservations.set(request.jobId, { account, tokens, answerTokens, atS: Math.floor(nowMs / 1_000), fleetAtS: how.fleetAtS, estimateKey: keyOf(request), promptBytes: request.promptTokens === null ? request.promptBytes : 0 });
    const atEnd = request.tenant.energyBudget?.atEnd;
    const sloClass = how.overBudget && typeof atEnd === 'object' ? atEnd.class : null;
    options.decided(sloClass === null ? 'none' : 'energy', sloClass === null ? 'admitted' : 'class', scope);
    done({ kind: 'admitted', standings: how.standings ?? (how.allowance === undefined ? NO_STANDINGS : account.ledger.standings(how.allowance, nowMs)), sloClass });
  }

  function refused(account: Account, { tokens, done }: Waiting, limit: LimitKind, scope: LimitScope, { standings, retryAfterMs }: { readonly standings: Standings; readonly retryAfterMs: number }): void {
    const allowed = limitOf(account.tenant, limit) ?? 0;
    options.decided(limit, 'refused', scope);
    done({ kind: 'refused', limit, allowed, asked: limit === 'tokens' ? tokens : 1, retryAfterMs, standings });
  }

  function settle(jobId: JobId, spent: Spent | null): void {
    const reservation = reservations.get(jobId);
    if (reservation === undefined) return;
    reservations.delete(jobId);
    const { account, tokens, answerTokens, estimateKey, promptBytes } = reservation;
    const { limits, energyBudget } = account.tenant;
    const spentTokens = spent === null ? 0 : spent.promptTokens + (spent.outputTokens ?? answerTokens);
    account.ledger.settle(reservation, spentTokens, now());
    if (spent !== null) {
      account.ledger.spend(spent.energyJ, today());
      prompts.observe(estimateKey, promptBytes, spent.promptTokens);
      if (spent.outputTokens !== null && spent.outputTokens > 0) answers.observe(estimateKey, spent.outputTokens);
    }
    if (fleet === null || limits.scope !== 'fleet' || reservation.fleetAtS === null) return;
    const more = spentTokens - tokens;
    if (limits.tokensPerMinute !== null && more !== 0) addUntold(account, more < 0 ? reservation.fleetAtS : Math.floor(fleet.clockMs() / 1_000), 0, more);
    account.untoldJ += spent?.energyJ ?? 0;
    account.freed++;
    if ((limits.tokensPerMinute === null || more === 0) && limits.concurrencyMax === null && energyBudget === null) return;
    account.dirty = true;
    pump(account);
  }

  /** Seconds beyond the window are of no use to the store, so there are no more than those of it. */
  function addUntold({ untold }: Account, atS: number, requests: number, tokens: number): void {
    const known = untold.get(atS) ?? { requests: 0, tokens: 0 };
    untold.set(atS, { requests: known.requests + requests, tokens: known.tokens + tokens });
    if (untold.size <= 64) return;
    untold.delete(Math.min(...untold.keys()));
  }

  function scopeOf({ tenant }: Account): 'fleet' | 'gateway' | 'lost' {
    if (fleet === null || tenant.limits.scope === 'gateway') return 'gateway';
    return fleet.state().kind === 'up' ? 'fleet' : 'lost';
  }
  function gateways(): number {
    const state = fleet?.state();
    return Math.max(1, options.gatewaysExpected, state?.kind === 'lost' || state?.kind === 'up' ? state.gateways : 0);
  }
  /** As if the others spend as this one does, from what the store last said. */
  function isOverWhileLost(account: Account): boolean {
    const { tenant, answer } = account;
    if (tenant.energyBudget === null || options.whenLost.energy === 'open') return false;
    if (options.whenLost.energy === 'closed') return true;
    const before = answer !== null && answer.day === today() ? answer.spentJ : 0;
    return isOver(tenant, before + account.untoldJ * gateways());
  }
  function today(): number {
    return Math.floor(unixNowMs() / DAY_MS);
  }

  /** What is idle and empty is let go: names come with configurations, and those change. */
  function forgetIdle(): void {
    for (const [name, account] of accounts) {
      const { ledger, waiting, calls, dirty, untold } = account;
      const standings = ledger.standings({ requests: 1, tokens: 1, concurrency: null }, now());
      if (ledger.held() === 0 && waiting.length === 0 && calls === 0 && !dirty && untold.size === 0 && standings.requests?.resetMs === 0 && standings.tokens?.resetMs === 0 && ledger.spentJ(today()) === 0) accounts.delete(name);
    }
  }
  const timer = setInterval(forgetIdle, FORGET_EVERY_MS);
  timer.unref();

  function spentMore(tenant: string, energyJ: number): void {
    const account = accounts.get(tenant);
    if (account === undefined || energyJ === 0) return;
    account.ledger.spend(energyJ, today());
    if (fleet === null || account.tenant.limits.scope !== 'fleet' || account.tenant.energyBudget === null) return;
    // It goes with the next call; nothing waits for it.
    account.untoldJ += energyJ;
    account.dirty = true;
  }

  return {
    admit,
    settle,
    spentMore,
    tenants: () =>
      [...accounts].map(([name, account]) => {
        const { tenant, ledger, answer } = account;
        const scope = scopeOf(account);
        const standings = scope === 'fleet' ? (answer?.standings ?? NO_STANDINGS) : ledger.standings(scope === 'gateway' ? configured(tenant) : shareOf(tenant, options.whenLost, gateways()), now());
        const spentJ = scope === 'gateway' ? ledger.spentJ(today()) : (answer !== null && answer.day === today() ? answer.spentJ : 0) + account.untoldJ;
        return {
          name,
          scope: scope === 'lost' ? lostScopes(tenant, options.whenLost) : scope,
          requestsRemaining: standings.requests?.remaining ?? null,
          tokensRemaining: standings.tokens?.remaining ?? null,
          concurrent: ledger.held(),
          concurrentInFleet: scope === 'fleet' && tenant.limits.concurrencyMax !== null ? (answer?.held ?? null) : null,
          joulesPerDay: tenant.energyBudget?.joulesPerDay ?? null,
          joulesRemaining: tenant.energyBudget === null ? null : Math.max(0, tenant.energyBudget.joulesPerDay - spentJ),
        };
      }),
    close: () => clearInterval(timer),
  };
}

function retryAfterMs({ limits }: LimitedTenant, { tokens }: Waiting, limit: LimitKind, { nowMs, requestSlots, tokenSlots }: TenantAnswer): number {
  const sum = (slots: readonly number[]): number => slots.reduce((total, count) => total + count, 0);
  switch (limit) {
    case 'requests':
      return leftAfterMs(requestSlots, sum(requestSlots) + 1 - (limits.requestsPerMinute ?? 0), nowMs) ?? UNKNOWN_RETRY_MS;
    case 'tokens':
      return leftAfterMs(tokenSlots, sum(tokenSlots) + tokens - (limits.tokensPerMinute ?? 0), nowMs) ?? UNKNOWN_RETRY_MS;
    case 'energy':
      return untilMidnightMs(nowMs);
    case 'concurrency':
      return UNKNOWN_RETRY_MS;
    default:
      return limit satisfies never;
  }
}

function untilMidnightMs(unixMs: number): number {
  return DAY_MS - (unixMs % DAY_MS);
}

function keyOf({ model, tenant }: LimitRequest): string {
  return `${model}\n${tenant.name}`;
}
