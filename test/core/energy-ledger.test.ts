import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createEnergyLedger, type EnergyJob, type EnergyLedger, UNSETTLED_MAX } from '../../src/core/energy-ledger.ts';
import { METER_GAP_MS_MAX } from '../../src/core/metered-group.ts';
import type { PhaseGroup } from '../../src/core/replica-view.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const MODEL = createPerformanceModel(CLOCK_PROFILE);
const SLOWEST = MODEL.bySlowness[0] as number;
const UNMETERED = () => ({ energyJ: 7, maximumClockJ: 9 });

interface Job extends EnergyJob {
  promptTokens: number;
  prefilledTokens: number;
  firstTokenAtMs: number | null;
  tokensOut: number;
}

function job(over: Partial<Job> = {}): Job {
  return { promptTokens: 1_000, prefilledTokens: 0, firstTokenAtMs: null, tokensOut: 0, ...over };
}

function ledgerOf(options: { readonly groups?: readonly (PhaseGroup | null)[]; readonly foreign?: () => number; readonly decoding?: () => number } = {}): EnergyLedger<Job> {
  const { foreign = () => 0, decoding = () => 4 } = options;
  return createEnergyLedger<Job>({ model: MODEL, groups: options.groups ?? [null], streams: () => ({ sequences: decoding() + foreign(), contextTokens: 1_000 * (decoding() + foreign()), foreign: foreign() }) });
}

const reading = (energyJ: number, epoch = 1, powerW: number | null = null) => ({ energyJ, epoch, powerW });

function balance(ledger: EnergyLedger<Job>, nowMs: number): number {
  const { requests, idle, othersJ, unapportionedJ, meterJ } = ledger.snapshot(nowMs);
  return requests.meteredJ + idle.meteredJ + othersJ + unapportionedJ - (meterJ ?? 0);
}

describe('what the counters say of a replica', () => {
  test('is all idling while nothing is under way', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(100), 0);
    ledger.metered(null, reading(400), 1_000);
    expect(ledger.snapshot(1_000)).toMatchObject({ source: 'metered', meterJ: 300, idle: { meteredJ: 300, modelledJ: 0 }, requests: { meteredJ: 0, modelledJ: 0 }, othersJ: 0 });
  });

  test('is idling while its server sleeps, and tells nothing of what it idles at awake', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    ledger.rests(40, 0);
    let window = ledger.metered(null, reading(40), 1_000).window;
    window = ledger.metered(null, reading(80), 2_000).window;
    expect(window).toMatchObject({ steady: false, idlePowerW: null });
    ledger.rests(null, 2_500);
    ledger.metered(null, reading(300), 3_000);
    expect(ledger.metered(null, reading(600), 4_000).window?.idlePowerW).toBeCloseTo(300, 6);
    expect(ledger.snapshot(4_000)).toMatchObject({ meterJ: 600, idle: { meteredJ: 600 } });
    expect(balance(ledger, 4_000)).toBeCloseTo(0, 9);
  });

  test('is all of the only job that was there', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    const only = job();
    ledger.began(only, 0);
    Object.assign(only, { firstTokenAtMs: 100, tokensOut: 20 });
    ledger.metered(null, reading(500), 500);
    expect(ledger.known(only, null)).toMatchObject({ meteredJ: 500, modelledJ: 0 });
  });

  test('goes by share of the work: a long prompt costs more than a short one, more tokens more than few', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    const [long, short] = [job({ promptTokens: 2_000 }), job({ promptTokens: 100 })];
    for (const each of [long, short]) ledger.began(each, 0);
    for (const each of [long, short]) each.firstTokenAtMs = 200;
    ledger.metered(null, reading(210), 300);
    const [longJ, shortJ] = [ledger.known(long, null).meteredJ, ledger.known(short, null).meteredJ];
    expect(longJ + shortJ).toBeCloseTo(210, 6);
    expect(longJ / shortJ).toBeGreaterThan(5);
    long.tokensOut = 3;
    short.tokensOut = 31;
    ledger.metered(null, reading(310), 600);
    expect(ledger.known(short, null).meteredJ - shortJ).toBeGreaterThan(10 * (ledger.known(long, null).meteredJ - longJ));
  });

  test('has idling taken out of it before a job that came late is charged', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    const idleW = MODEL.idlePowerW(MODEL.fastest);
    ledger.metered(null, reading(idleW), 1_000);
    const late = job();
    ledger.began(late, 1_900);
    late.prefilledTokens = 500;
    ledger.metered(null, reading(2 * idleW + 200), 2_000);
    expect(ledger.snapshot(2_000).idle.meteredJ).toBeCloseTo(1.9 * idleW, 6);
    expect(ledger.known(late, null).meteredJ).toBeCloseTo(200 + 0.1 * idleW, 6);
  });

  test('is shared with streams of other gateways, which are nobody’s idling', () => {
    let foreign = 0;
    const ledger = ledgerOf({ foreign: () => foreign, decoding: () => 1 });
    ledger.metered(null, reading(0), 0);
    const ours = job({ firstTokenAtMs: 0 });
    ledger.began(ours, 0);
    foreign = 3;
    ours.tokensOut = 20;
    ledger.metered(null, reading(400), 500);
    const { othersJ, idle } = ledger.snapshot(500);
    expect(othersJ).toBeGreaterThan(100);
    expect(idle.meteredJ).toBe(0);
    expect(balance(ledger, 500)).toBeCloseTo(0, 6);
  });

  test('has no idling in it while streams of others are there, though none of ours is', () => {
    const ledger = ledgerOf({ foreign: () => 2, decoding: () => 0 });
    ledger.metered(null, reading(0), 0);
    ledger.metered(null, reading(400), 500);
    expect(ledger.snapshot(500)).toMatchObject({ othersJ: 400, idle: { meteredJ: 0 } });
  });

  test('has idling taken out of it at the power that idling was measured to have', () => {
    const ledger = ledgerOf();
    const idleW = 2 * MODEL.idlePowerW(MODEL.fastest);
    ledger.metered(null, reading(0), 0);
    ledger.metered(null, reading(idleW), 1_000);
    const late = job({ promptTokens: 200 });
    ledger.began(late, 1_500);
    late.prefilledTokens = 200;
    ledger.metered(null, reading(2 * idleW + 500), 2_000);
    expect(ledger.known(late, null).meteredJ).toBeCloseTo(500 + idleW / 2, 6);
  });

  test('goes by what a server says that it has done, where less was done than seemed so', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    const [silent, other] = [job({ firstTokenAtMs: 0, tokensOut: 101 }), job({ firstTokenAtMs: 0, tokensOut: 11 })];
    for (const each of [silent, other]) ledger.began(each, 0);
    ledger.ended(silent, { prefilledTokens: 1_000, outputTokens: 11 }, 400, UNMETERED);
    ledger.ended(other, { prefilledTokens: 1_000, outputTokens: 11 }, 400, UNMETERED);
    const [first, second] = ledger.metered(null, reading(300), 400).settled.map(({ more }) => more.meteredJ) as [number, number];
    expect(first / second).toBeGreaterThan(0.9);
    expect(first / second).toBeLessThan(1.1);
  });

  test('of a job that has ended is told at the next reading, as what was not known at its end', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    const short = job({ promptTokens: 200 });
    ledger.began(short, 10);
    Object.assign(short, { firstTokenAtMs: 60, tokensOut: 5 });
    const told = ledger.ended(short, { prefilledTokens: 200, outputTokens: 5 }, 150, UNMETERED);
    expect(told).toMatchObject({ meteredJ: 0 });
    expect(told.modelledJ).toBeGreaterThan(0);
    const { settled } = ledger.metered(null, reading(150), 250);
    expect(settled).toHaveLength(1);
    const idleJ = ledger.snapshot(250).idle.meteredJ;
    expect(settled[0]?.job).toBe(short);
    expect(settled[0]?.more.meteredJ).toBeCloseTo(150 - idleJ, 6);
    expect(told.modelledJ + (settled[0]?.more.modelledJ ?? 0)).toBeCloseTo(0, 6);
    expect(ledger.open()).toBe(0);
  });

  test('is shared alike by jobs that nobody believes to have done anything', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    const [a, b] = [job(), job()];
    for (const each of [a, b]) ledger.began(each, 0);
    ledger.metered(null, reading(90), 200);
    expect([ledger.known(a, null).meteredJ, ledger.known(b, null).meteredJ]).toEqual([45, 45]);
  });
});

describe('a meter that fails', () => {
  test('leaves its jobs to the profile, and says so', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    const under = job();
    ledger.began(under, 0);
    under.prefilledTokens = 500;
    ledger.metered(null, reading(100), 250);
    under.prefilledTokens = 1_000;
    ledger.metered(null, null, 500);
    expect(ledger.isMetered()).toBe(true);
    ledger.metered(null, null, 500 + METER_GAP_MS_MAX + 1);
    expect(ledger.isMetered()).toBe(false);
    const known = ledger.known(under, null);
    expect(known.meteredJ).toBe(100);
    expect(known.modelledJ).toBeGreaterThan(0);
    expect(ledger.snapshot(4_000)).toMatchObject({ source: 'modelled', meterJ: 100, powerW: null });
  });

  test('and comes back with the same counters tells energy that is nobody’s', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    for (const atMs of [100, 100 + METER_GAP_MS_MAX + 1]) ledger.metered(null, null, atMs);
    ledger.metered(null, reading(900), 10_000);
    expect(ledger.snapshot(10_000)).toMatchObject({ source: 'metered', meterJ: 900, unapportionedJ: 900, idle: { meteredJ: 0 } });
    ledger.metered(null, reading(1_000), 10_500);
    expect(ledger.snapshot(10_500)).toMatchObject({ meterJ: 1_000, idle: { meteredJ: 100 } });
  });

  test('and comes back within the time allowed has told of the time between', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    // Long after the last reading: what counts is for how long it could not be read.
    for (const atMs of [5_000, 5_000 + METER_GAP_MS_MAX]) ledger.metered(null, null, atMs);
    ledger.metered(null, reading(300), 8_200);
    expect(ledger.snapshot(8_200)).toMatchObject({ meterJ: 300, unapportionedJ: 0, idle: { meteredJ: 300 } });
  });

  test('and begins anew says nothing of the time between', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(5_000), 0);
    const under = job();
    ledger.began(under, 0);
    under.prefilledTokens = 1_000;
    ledger.metered(null, reading(10, 2), 300);
    expect(ledger.snapshot(300)).toMatchObject({ meterJ: 0, requests: { meteredJ: 0 } });
    expect(ledger.known(under, null).modelledJ).toBeGreaterThan(0);
    ledger.metered(null, reading(60, 2), 600);
    expect(ledger.snapshot(600).meterJ).toBe(50);
  });

  test('and was carried on too far takes nothing back, and nothing is lost', () => {
    const ledger = ledgerOf();
    const under = job({ firstTokenAtMs: 0, tokensOut: 1 });
    ledger.metered(null, reading(0), 0);
    ledger.began(under, 0);
    under.tokensOut = 10;
    ledger.metered(null, reading(100), 250);
    under.tokensOut = 11;
    ledger.metered(null, reading(99), 500);
    expect(ledger.known(under, null).meteredJ).toBe(100);
    under.tokensOut = 20;
    ledger.metered(null, reading(160), 750);
    expect(ledger.known(under, null).meteredJ).toBe(160);
    expect(ledger.snapshot(750).meterJ).toBe(160);
  });
});

describe('without a meter', () => {
  test('a job is charged what the profile says, as a whole', () => {
    const ledger = ledgerOf();
    const done = job();
    ledger.began(done, 0);
    expect(ledger.ended(done, null, 900, UNMETERED)).toEqual({ meteredJ: 0, modelledJ: 7, maximumClockJ: 9 });
    const { source, meterJ, requests, idle, maximumClock } = ledger.snapshot(2_900);
    expect({ source, meterJ, requests }).toEqual({ source: 'modelled', meterJ: null, requests: { meteredJ: 0, modelledJ: 7 } });
    expect(idle).toEqual({ meteredJ: 0, modelledJ: 2 * MODEL.idlePowerW(MODEL.fastest) });
    expect(maximumClock.requestsJ).toBe(9);
  });

  test('what idling costs is by the point that it idles at; maximum clock would idle at the fastest', () => {
    const ledger = ledgerOf();
    ledger.moved(null, SLOWEST, 0);
    const { idle, maximumClock } = ledger.snapshot(1_000);
    expect(idle.modelledJ).toBeCloseTo(MODEL.idlePowerW(SLOWEST), 9);
    expect(maximumClock.idleJ).toBeCloseTo(MODEL.idlePowerW(MODEL.fastest), 9);
  });
});

describe('what maximum clock would have cost', () => {
  test('is the same as was measured, where it ran at maximum clock', () => {
    const ledger = ledgerOf();
    ledger.metered(null, reading(0), 0);
    const under = job({ firstTokenAtMs: 0, tokensOut: 1 });
    ledger.began(under, 0);
    under.tokensOut = 10;
    ledger.metered(null, reading(100), 250);
    const { maximumClock, requests } = ledger.snapshot(250);
    expect(maximumClock.requestsJ + maximumClock.idleJ).toBeCloseTo(requests.meteredJ, 6);
  });

  test('is more of the work, and idling for what it would have been done sooner, where it ran slower', () => {
    const ledger = ledgerOf();
    ledger.moved(null, SLOWEST, 0);
    ledger.metered(null, reading(0), 0);
    const under = job({ firstTokenAtMs: 0, tokensOut: 1 });
    ledger.began(under, 0);
    under.tokensOut = 10;
    ledger.metered(null, reading(100), 400);
    const { maximumClock } = ledger.snapshot(400);
    expect(maximumClock.requestsJ).toBeGreaterThan(105);
    expect(maximumClock.idleJ).toBeGreaterThan(0);
    expect(maximumClock.idleJ).toBeLessThan(0.4 * MODEL.idlePowerW(MODEL.fastest));
  });
});

test('a window tells how far the profile was off, at which point and in which phase', () => {
  const ledger = ledgerOf();
  ledger.moved(null, SLOWEST, 0);
  ledger.metered(null, reading(0), 0);
  const under = job({ firstTokenAtMs: 0, tokensOut: 1 });
  ledger.began(under, 0);
  under.tokensOut = 10;
  const first = ledger.metered(null, reading(100), 250).window;
  expect(first).toMatchObject({ group: null, point: SLOWEST, steady: true, windowMs: 250, busyMs: 250, measuredWorkJ: 100 });
  expect(first?.prefillShare).toBeGreaterThan(0.1);
  under.tokensOut = 20;
  ledger.moved(null, MODEL.fastest, 400);
  const second = ledger.metered(null, reading(200), 500).window;
  expect(second).toMatchObject({ point: MODEL.fastest, steady: false, prefillShare: 0 });
});

test('of a server with a group for each phase each meter pays for its own phase', () => {
  const ledger = ledgerOf({ groups: ['prefill', 'decode'] });
  for (const group of ['prefill', 'decode'] as const) ledger.metered(group, reading(0), 0);
  const under = job();
  ledger.began(under, 0);
  Object.assign(under, { firstTokenAtMs: 100, tokensOut: 1 });
  under.tokensOut = 10;
  ledger.metered('prefill', reading(60), 250);
  const afterPrefill = ledger.known(under, null);
  expect(afterPrefill.meteredJ).toBeGreaterThan(0);
  expect(afterPrefill.modelledJ).toBeGreaterThan(0);
  ledger.ended(under, null, 300, UNMETERED);
  expect(ledger.metered('prefill', reading(70), 400).settled).toEqual([]);
  expect(ledger.metered('decode', reading(200), 400).settled).toHaveLength(1);
  expect(balance(ledger, 400)).toBeCloseTo(0, 6);
  expect(ledger.snapshot(400)).toMatchObject({ source: 'metered', meterJ: 270 });
});

test('of jobs that wait for a reading which does not come the oldest are settled by the profile', () => {
  const ledger = ledgerOf();
  ledger.metered(null, reading(0), 0);
  for (let count = 0; count < UNSETTLED_MAX + 3; count++) {
    const each = job({ prefilledTokens: 0 });
    ledger.began(each, count);
    each.firstTokenAtMs = count + 0.5;
    ledger.ended(each, null, count + 0.6, UNMETERED);
  }
  expect(ledger.open()).toBe(UNSETTLED_MAX);
  const { settled } = ledger.metered(null, reading(1_000), 9_000);
  expect(settled).toHaveLength(UNSETTLED_MAX + 3);
  expect(settled.filter(({ more }) => more.meteredJ === 0)).toHaveLength(3);
  expect(balance(ledger, 9_000)).toBeCloseTo(0, 6);
});

const STEP = fc.record({
  what: fc.constantFrom('begin', 'prefill', 'tokens', 'tokens', 'end', 'end-told', 'read', 'read', 'read', 'lost', 'reset', 'move', 'foreign'),
  group: fc.nat(1),
  which: fc.nat(7),
  amount: fc.double({ min: 0, max: 1, noNaN: true }),
  afterMs: fc.integer({ min: 0, max: 1_500 }),
});

test.each([{ groups: [null] }, { groups: ['prefill', 'decode'] as const }])('whatever happens, requests, idling, others and what cannot be told add up to the meter: $groups', ({ groups }) => {
  fc.assert(
    fc.property(fc.array(STEP, { maxLength: 120 }), (steps) => {
      let foreign = 0;
      const ledger = ledgerOf({ groups, foreign: () => foreign, decoding: () => jobs.filter(({ firstTokenAtMs }) => firstTokenAtMs !== null).length });
      const jobs: Job[] = [];
      const meters = groups.map(() => ({ energyJ: 1_000, epoch: 1 }));
      /** By what was told at ends and settled since. */
      let accountsJ = 0;
      let nowMs = 0;
      const energyOf = (all: readonly { readonly more: { readonly meteredJ: number; readonly modelledJ: number } }[]): number => all.reduce((sum, { more }) => sum + more.meteredJ + more.modelledJ, 0);
      for (const { what, group, which, amount, afterMs } of steps) {
        nowMs += afterMs;
        const index = group % groups.length;
        const phase = groups[index] as PhaseGroup | null;
        const meter = meters[index] as { energyJ: number; epoch: number };
        const chosen = jobs[which % Math.max(1, jobs.length)];
        if (what === 'begin' && jobs.length < 8) {
          const newcomer = job({ promptTokens: 1 + Math.floor(3_000 * amount), prefilledTokens: 0 });
          jobs.push(newcomer);
          ledger.began(newcomer, nowMs);
        } else if (what === 'prefill' && chosen !== undefined && chosen.firstTokenAtMs === null) chosen.prefilledTokens += amount * (chosen.promptTokens - chosen.prefilledTokens);
        else if (what === 'tokens' && chosen !== undefined) {
          chosen.firstTokenAtMs ??= nowMs;
          chosen.tokensOut += 1 + Math.floor(30 * amount);
        } else if ((what === 'end' || what === 'end-told') && chosen !== undefined) {
          jobs.splice(jobs.indexOf(chosen), 1);
          const { meteredJ, modelledJ } = ledger.ended(chosen, what === 'end' ? null : { prefilledTokens: Math.floor(chosen.promptTokens * amount), outputTokens: chosen.tokensOut + which }, nowMs, UNMETERED);
          accountsJ += meteredJ + modelledJ;
        } else if (what === 'read') {
          meter.energyJ += amount * 2_000 - (which === 0 ? 100 : 0);
          accountsJ += energyOf(ledger.metered(phase, { ...meter, powerW: null }, nowMs).settled);
        } else if (what === 'lost') accountsJ += energyOf(ledger.metered(phase, null, nowMs).settled);
        else if (what === 'reset') {
          meter.energyJ = amount * 10;
          meter.epoch += 1;
        } else if (what === 'move') ledger.moved(phase, which % MODEL.points.length, nowMs);
        else if (what === 'foreign') foreign = which;
      }
      const { meterJ, requests, idle, othersJ, unapportionedJ } = ledger.snapshot(nowMs);
      const scale = Math.max(1, meterJ ?? 0);
      expect(Math.abs(balance(ledger, nowMs)) / scale).toBeLessThan(1e-9);
      for (const part of [requests.meteredJ, requests.modelledJ, idle.meteredJ, idle.modelledJ, othersJ, unapportionedJ]) expect(part).toBeGreaterThanOrEqual(0);
      // What was told of jobs, one by one, is what the replica says of all of them.
      for (const left of jobs.splice(0)) {
        const { meteredJ, modelledJ } = ledger.ended(left, null, nowMs, UNMETERED);
        accountsJ += meteredJ + modelledJ;
      }
      for (const [at, phase] of groups.entries()) {
        const meter = meters[at] as { energyJ: number; epoch: number };
        // Twice, and anew: whatever the counters were, nothing is left open.
        for (const more of [1, 2]) accountsJ += energyOf(ledger.metered(phase, { energyJ: meter.energyJ, epoch: meter.epoch + more, powerW: null }, nowMs).settled);
      }
      expect(ledger.open()).toBe(0);
      const all = ledger.snapshot(nowMs).requests;
      expect(accountsJ).toBeCloseTo(all.meteredJ + all.modelledJ, 3);
    }),
    { numRuns: 400 },
  );
});
