// Limits of one gateway without a store: decided at once, by its own account. With Redis: test/store/fleet-limits.test.ts.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { LimitDecision, LimitedTenant, Spent } from '../src/core/tenant-limits.ts';
import { WINDOW_SLOTS } from '../src/core/sliding-window.ts';
import type { FleetLimits } from '../src/store/fleet-limits.ts';
import type { TenantAnswer, TenantCall } from '../src/store/limit-scripts.ts';
import type { TenantLimiter } from '../src/tenant-limiter.ts';
import { createTenantLimiter } from '../src/tenant-limiter.ts';
import { limitRequest, limitedTenant } from './fixtures/limits.ts';

const NOON_MS = Date.UTC(2026, 0, 2, 12);
const NOTHING: Spent = { promptTokens: 0, outputTokens: 0, energyJ: 0 };

function alone(): TenantLimiter & { nowMs: number; readonly decided: string[] } {
  const clock = { nowMs: 1_000_000 };
  const decided: string[] = [];
  const limiter = createTenantLimiter({
    fleet: null, timeoutMs: 0, gatewaysExpected: 1,
    whenLost: { requests: 'open', tokens: 'open', concurrency: 'open', energy: 'open' },
    now: () => clock.nowMs,
    unixNowMs: () => NOON_MS + clock.nowMs - 1_000_000,
    decided: (...words) => decided.push(words.join(' ')),
  });
  limiter.close();
  return { ...limiter, decided, get nowMs() { return clock.nowMs; }, set nowMs(value) { clock.nowMs = value; } };
}
/** Without a store the answer is there when `admit` returns. */
function decide(limiter: TenantLimiter, tenant: LimitedTenant, size?: Parameters<typeof limitRequest>[1]) {
  const request = limitRequest(tenant, size);
  let decision: LimitDecision | undefined;
  limiter.admit(request, (made) => (decision = made));
  if (decision === undefined) throw new Error('not decided at once');
  return { jobId: request.jobId, ...decision };
}

describe('one gateway alone', () => {
  test('lets as many requests a minute through as it may, and says when there is room again', () => {
    const [limiter, tenant] = [alone(), limitedTenant({ requestsPerMinute: 3 })];
    limiter.nowMs += 500;
    const kinds = [1, 2, 3, 4].map(() => decide(limiter, tenant));
    expect(kinds.map(({ kind }) => kind)).toEqual(['admitted', 'admitted', 'admitted', 'refused']);
    expect(kinds.map(({ standings }) => standings.requests?.remaining)).toEqual([2, 1, 0, 0]);
    expect(kinds[3]).toMatchObject({ limit: 'requests', allowed: 3, retryAfterMs: 60_500, standings: { requests: { limit: 3, resetMs: 60_500 }, tokens: null } });
    limiter.nowMs += 60_499;
    expect(decide(limiter, tenant).kind).toBe('refused');
    limiter.nowMs += 1;
    expect(decide(limiter, tenant).kind).toBe('admitted');
    expect(limiter.decided).toEqual(['none admitted gateway', 'none admitted gateway', 'none admitted gateway', 'requests refused gateway', 'requests refused gateway', 'none admitted gateway']);
  });

  test('keeps tokens for the whole answer, and gives back what it did not take', () => {
    const [limiter, tenant] = [alone(), limitedTenant({ tokensPerMinute: 1_000 })];
    const first = decide(limiter, tenant, { promptTokens: 100, maxOutputTokens: 800 });
    expect(decide(limiter, tenant)).toMatchObject({ kind: 'admitted', standings: { tokens: { remaining: 0 } } });
    expect(decide(limiter, tenant)).toMatchObject({ kind: 'refused', limit: 'tokens', asked: 100 });
    limiter.settle(first.jobId, { promptTokens: 120, outputTokens: 30, energyJ: 0 });
    expect(decide(limiter, tenant)).toMatchObject({ kind: 'admitted', standings: { tokens: { remaining: 650 } } });
  });

  test('what an answer took beyond what was kept for it is charged when it ends', () => {
    const [limiter, tenant] = [alone(), limitedTenant({ tokensPerMinute: 1_000 })];
    const { jobId } = decide(limiter, tenant, { promptTokens: 10, maxOutputTokens: 10 });
    limiter.nowMs += 30_000;
    limiter.settle(jobId, { promptTokens: 400, outputTokens: 500, energyJ: 0 });
    expect(decide(limiter, tenant, { promptTokens: 80, maxOutputTokens: 21 })).toMatchObject({ kind: 'refused', limit: 'tokens' });
    limiter.nowMs += 31_000;
    expect(decide(limiter, tenant, { promptTokens: 80, maxOutputTokens: 40 })).toMatchObject({ kind: 'admitted', standings: { tokens: { remaining: 0 } } });
  });

  test('what is only counted wants neither tokens nor a place, and is a request all the same', () => {
    const [limiter, tenant] = [alone(), limitedTenant({ requestsPerMinute: 3, tokensPerMinute: 100, concurrencyMax: 1 })];
    expect(decide(limiter, tenant, { promptTokens: 50, maxOutputTokens: 50 }).kind).toBe('admitted');
    const declared = decide(limiter, tenant, { promptTokens: 0, maxOutputTokens: null, work: 'declare' });
    expect(declared).toMatchObject({ kind: 'admitted', standings: { requests: { remaining: 1 }, tokens: { remaining: 0 } } });
    limiter.settle(declared.jobId, null);
    expect(limiter.tenants()[0]).toMatchObject({ concurrent: 1, requestsRemaining: 1 });
    limiter.settle(decide(limiter, tenant, { promptTokens: 0, work: 'declare' }).jobId, null);
    expect(decide(limiter, tenant, { promptTokens: 0, work: 'declare' })).toMatchObject({ kind: 'refused', limit: 'requests', asked: 1 });
  });

  test('a server that tells no usage has taken what was kept', () => {
    const [limiter, tenant] = [alone(), limitedTenant({ tokensPerMinute: 1_000 })];
    limiter.settle(decide(limiter, tenant, { promptTokens: 10, maxOutputTokens: 900 }).jobId, { promptTokens: 10, outputTokens: null, energyJ: 0 });
    expect(decide(limiter, tenant)).toMatchObject({ kind: 'refused', limit: 'tokens' });
  });

  test('an answer without a bound is taken to be as long as the others were, and half as long again', () => {
    const [limiter, tenant] = [alone(), limitedTenant({ tokensPerMinute: 100_000 })];
    const first = decide(limiter, tenant, { promptTokens: 88, maxOutputTokens: null });
    expect(first.standings.tokens?.remaining).toBe(100_000 - 600);
    limiter.settle(first.jobId, { promptTokens: 88, outputTokens: 100, energyJ: 0 });
    expect(decide(limiter, tenant, { promptTokens: 50, maxOutputTokens: null }).standings.tokens?.remaining).toBe(100_000 - 188 - 200);
  });

  test('one that can never fit is refused for good', () => {
    const tenant = limitedTenant({ tokensPerMinute: 99 });
    expect(decide(alone(), tenant)).toMatchObject({ kind: 'refused', limit: 'tokens', allowed: 99, asked: 100, retryAfterMs: null });
    expect(decide(alone(), tenant, { promptTokens: 9 })).toMatchObject({ kind: 'admitted' });
  });

  test('a place is free when its request ends, and time frees none', () => {
    const [limiter, tenant] = [alone(), limitedTenant({ concurrencyMax: 2 })];
    const [first] = [decide(limiter, tenant), decide(limiter, tenant)];
    limiter.nowMs += 3_600_000;
    expect(decide(limiter, tenant)).toMatchObject({ kind: 'refused', limit: 'concurrency', allowed: 2, retryAfterMs: 1_000 });
    limiter.settle(first.jobId, null);
    expect(decide(limiter, tenant).kind).toBe('admitted');
    expect(decide(limiter, tenant).kind).toBe('refused');
    expect(limiter.tenants()).toMatchObject([{ name: 'acme', scope: 'gateway', concurrent: 2 }]);
  });

  test('at the end of its energy a tenant is refused until midnight UTC', () => {
    const [limiter, tenant] = [alone(), limitedTenant({}, { energyBudget: { joulesPerDay: 100, atEnd: 'refuse' } })];
    limiter.settle(decide(limiter, tenant).jobId, { ...NOTHING, energyJ: 99 });
    const last = decide(limiter, tenant);
    expect(limiter.tenants()).toMatchObject([{ joulesRemaining: 1 }]);
    limiter.settle(last.jobId, { ...NOTHING, energyJ: 5 });
    expect(decide(limiter, tenant)).toMatchObject({ kind: 'refused', limit: 'energy', allowed: 100, retryAfterMs: 12 * 3_600_000 });
    expect(limiter.tenants()).toMatchObject([{ joulesRemaining: 0 }]);
    limiter.nowMs += 12 * 3_600_000;
    expect(decide(limiter, tenant).kind).toBe('admitted');
    expect(limiter.tenants()).toMatchObject([{ joulesRemaining: 100 }]);
  });

  test('counts what is known later of a request that is settled, more as well as less, and nothing of one that is not its own', () => {
    const [limiter, tenant] = [alone(), limitedTenant({}, { energyBudget: { joulesPerDay: 100, atEnd: 'refuse' } })];
    const left = (): number | null | undefined => limiter.tenants().find(({ name }) => name === 'acme')?.joulesRemaining;
    limiter.settle(decide(limiter, tenant).jobId, { ...NOTHING, energyJ: 60 });
    limiter.spentMore('acme', -20);
    limiter.spentMore('nobody', 50);
    expect(left()).toBe(60);
    limiter.spentMore('acme', 60);
    expect(decide(limiter, tenant)).toMatchObject({ kind: 'refused', limit: 'energy' });
    // The day after, what had been charged too much then is no credit.
    limiter.nowMs += 86_400_000;
    limiter.spentMore('acme', -30);
    expect(left()).toBe(100);
  });

  test('or gets another class, whatever it asks for', () => {
    const [limiter, tenant] = [alone(), limitedTenant({}, { energyBudget: { joulesPerDay: 100, atEnd: { class: 'batch' } } })];
    const first = decide(limiter, tenant);
    expect(first).toMatchObject({ kind: 'admitted', sloClass: null });
    limiter.settle(first.jobId, { ...NOTHING, energyJ: 100 });
    expect(decide(limiter, tenant)).toMatchObject({ kind: 'admitted', sloClass: 'batch' });
    expect(limiter.decided.at(-1)).toBe('energy class gateway');
  });

  test('tenants do not count against each other', () => {
    const limiter = alone();
    const [a, b] = ['a', 'b'].map((name) => limitedTenant({ requestsPerMinute: 1, concurrencyMax: 1 }, { name })) as [LimitedTenant, LimitedTenant];
    expect([a, b, a, b].map((tenant) => decide(limiter, tenant).kind)).toEqual(['admitted', 'admitted', 'refused', 'refused']);
  });
});

test('law: however often and in whatever order they are settled, once all have ended every place is free and only what was taken is counted', () => {
  fc.assert(
    fc.property(fc.array(fc.record({ reserve: fc.integer({ min: 1, max: 50 }), spend: fc.option(fc.integer({ min: 0, max: 80 })), times: fc.integer({ min: 1, max: 3 }), turn: fc.double({ min: 0, max: 1, noNaN: true }) }), { maxLength: 40 }), (jobs) => {
      const [limiter, tenant] = [alone(), limitedTenant({ tokensPerMinute: 1_000_000, concurrencyMax: 1_000 })];
      const admitted = jobs.map((job) => ({ ...job, ...decide(limiter, tenant, { promptTokens: job.reserve, maxOutputTokens: 1 }) }));
      const endings = admitted.flatMap((job) => Array.from({ length: job.times }, () => job)).toSorted((a, b) => a.turn - b.turn);
      for (const { jobId, spend } of endings) limiter.settle(jobId, spend === null ? null : { ...NOTHING, promptTokens: spend });
      expect(limiter.tenants()[0]?.concurrent ?? 0).toBe(0);
      expect(limiter.tenants()[0]?.tokensRemaining ?? 1_000_000).toBe(1_000_000 - jobs.reduce((sum, { spend }) => sum + (spend ?? 0), 0));
    }),
    { seed: 11, numRuns: 200 },
  );
});

test('who is told first and settles at once does not make the store believe that the others, who are told after it, hold nothing', () => {
  const calls: { readonly call: TenantCall; readonly done: (answer: TenantAnswer | null) => void }[] = [];
  const fleet: FleetLimits = {
    state: () => ({ kind: 'up', gateways: 1 }),
    clockMs: () => NOON_MS,
    ask: (call, _withinMs, done) => void calls.push({ call, done }),
    onBeat: () => {},
    ready: async () => {},
    close: async () => {},
  };
  const lost = { requests: 'open', tokens: 'open', concurrency: 'open', energy: 'open' } as const;
  const limiter = createTenantLimiter({ fleet, timeoutMs: 1_000, gatewaysExpected: 1, whenLost: lost, now: () => 0, unixNowMs: () => NOON_MS, decided: () => {} });
  const tenant = limitedTenant({ concurrencyMax: 10 });
  const slots = Array.from({ length: WINDOW_SLOTS }, () => 0);
  const answer = (verdicts: TenantAnswer['verdicts'], held: number): TenantAnswer => ({ nowMs: NOON_MS, verdicts, spentJ: 0, held, requestSlots: slots, tokenSlots: slots });
  // The first alone, then three in one call: as many as have come while the first eight were under way.
  for (let count = 0; count < 8; count++) limiter.admit(limitRequest(tenant), () => {});
  const requests = [1, 2, 3].map(() => limitRequest(tenant));
  for (const request of requests) limiter.admit(request, () => request === requests[0] && limiter.settle(request.jobId, null));
  for (const { done } of calls.splice(0, 7)) done(answer(['concurrency'], 0));
  calls.shift()?.done(answer(['concurrency'], 0));
  const all = calls.splice(0).filter(({ call }) => call.wanted.length === 3);
  expect(all).toHaveLength(1);
  all[0]?.done(answer(['admitted', 'admitted', 'admitted'], 3));
  expect(calls.map(({ call }) => call.places)).toEqual([{ kind: 'held', count: 2 }]);
  limiter.close();
});
