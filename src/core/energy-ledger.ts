// The energy of one replica, apportioned: what its devices' counters say between two readings goes to the jobs under way, by
// what the profile says of each one's share of the work, and to idling, so that all of it adds up to the meter. Where there
// is no meter it keeps the profile's word apart. It reads what jobs have done when it is asked; tokens cost it nothing.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import { addCost, clearCost, noWork, type WorkCost } from './energy-work.ts';
import { createScales, type JobAccount, openAccount, pendingOf, type Streams } from './job-account.ts';
import type { MeterReading } from './meter-window.ts';
import { corrects, createMeteredGroup, entersGroup, isRead, leavesGroup, type MeteredGroup, read, unread } from './metered-group.ts';
import type { PhaseGroup } from './replica-view.ts';
import { unreachable } from './unreachable.ts';

/** What is read of a job; its numbers grow while it runs. */
export interface EnergyJob {
  readonly promptTokens: number;
  readonly prefilledTokens: number;
  readonly firstTokenAtMs: number | null;
  readonly tokensOut: number;
}

/** Joules, by where they are known from: they are never added up without both being shown. */
export interface JobEnergy {
  /** By the devices' counters: they and what goes to others and to idling add up to the meter. */
  readonly meteredJ: number;
  /** By the profile, of times at which there was no meter, or which it has not told of yet. */
  readonly modelledJ: number;
  /** Counterfactual: the same work at the fastest point, by the profile, with the meter's correction where there was one. */
  readonly maximumClockJ: number;
}

/** What there was to do, as its server says; where it says nothing, what was seen counts. */
export interface WorkDone {
  /** Less what was cached. */
  readonly prefilledTokens: number;
  readonly outputTokens: number;
}

/** The account of a job that had ended before all of its energy was told. */
export interface Settled<Job> {
  readonly job: Job;
  /** More (or less) than was said at its end. */
  readonly more: JobEnergy;
}

/** One window of one group, for whoever learns how far the profile is off. */
export interface EnergyWindow {
  readonly group: PhaseGroup | null;
  readonly point: PointIndex;
  /** At this point all the while. */
  readonly steady: boolean;
  readonly windowMs: number;
  /** Of it something of ours was under way. */
  readonly busyMs: number;
  /** Less what idling took. */
  readonly measuredWorkJ: number;
  readonly modelledWorkJ: number;
  /** Of the modelled joules, those of prompts. */
  readonly prefillShare: number;
  /** Of the modelled joules, those of streams that are not ours. */
  readonly othersShare: number;
  /** What idling was measured to take at this point; `null`: it never was. */
  readonly idlePowerW: number | null;
}

/** Since the start. `requests.meteredJ + othersJ + idle.meteredJ + unapportionedJ = meterJ`, always. */
export interface ReplicaEnergy {
  /** Now, of all its devices, or of some. */
  readonly source: 'metered' | 'partly-metered' | 'modelled';
  /** What its counters said; `null` where there never was a meter. */
  readonly meterJ: number | null;
  /** At the last reading; `null` where that cannot be told. */
  readonly powerW: number | null;
  readonly requests: { readonly meteredJ: number; readonly modelledJ: number };
  readonly idle: { readonly meteredJ: number; readonly modelledJ: number };
  /** Streams that are not this gateway's. */
  readonly othersJ: number;
  /** Told by counters that had been out of sight for too long to say whose it was. */
  readonly unapportionedJ: number;
  /** Counterfactual, see `JobEnergy`; while working faster it would have idled longer, at the fastest point. */
  readonly maximumClock: { readonly requestsJ: number; readonly idleJ: number };
}

export interface EnergyLedger<Job extends EnergyJob> {
  /** It has been sent there. */
  began(job: Job, nowMs: number): void;
  /** What is known of it now; the rest is told when it is `settled`. */
  /** `done`: what its server says that there was; `unmetered`: what it is charged where nothing has been read since it began. */
  ended(job: Job, done: WorkDone | null, nowMs: number, unmetered: () => { readonly energyJ: number; readonly maximumClockJ: number }): JobEnergy;
  /** The same of one that is under way. */
  known(job: Job, done: WorkDone | null): JobEnergy;
  /** A group is at another point from now on. Jobs have to be up to date. */
  moved(group: PhaseGroup | null, point: PointIndex, nowMs: number): void;
  /** Its server sleeps, or wakes: all its devices draw so much together with nothing to do; `null`: they idle. */
  rests(powerW: number | null, nowMs: number): void;
  /** `null`: the meter is out of sight. Jobs have to be up to date. */
  metered(group: PhaseGroup | null, reading: MeterReading | null, nowMs: number): { readonly settled: readonly Settled<Job>[]; readonly window: EnergyWindow | null };
  /** All of its devices are metered. */
  isMetered(): boolean;
  /** Jobs that are under way or not settled. */
  open(): number;
  snapshot(nowMs: number): ReplicaEnergy;
}

export interface EnergyLedgerOptions {
  readonly model: PerformanceModel;
  /** One group of devices for all, or one for each phase. */
  readonly groups: readonly (PhaseGroup | null)[];
  readonly streams: Streams;
}

/** Jobs that have ended and wait for the next reading; beyond it the oldest are settled by the profile. */
export const UNSETTLED_MAX = 4_096;

export function createEnergyLedger<Job extends EnergyJob>(options: EnergyLedgerOptions): EnergyLedger<Job> {
  const { model, streams } = options;
  const groups = options.groups.map((phase) => createMeteredGroup(model, phase));
  const prefillGroup = groups[0] as MeteredGroup;
  const decodeGroup = groups.at(-1) as MeteredGroup;
  const scales = createScales<Job>(model, streams, { prefill: prefillGroup.window.point, decode: decodeGroup.window.point });
  const underWay = new Map<Job, JobAccount<Job>>();
  let unsettled: JobAccount<Job>[] = [];
  /** Settled without a reading since the last one. */
  let settledAnyhow: Settled<Job>[] = [];
  const sums = { meterJ: 0, meteredJ: 0, modelledJ: 0, idleMeteredJ: 0, idleModelledJ: 0, othersJ: 0, unapportionedJ: 0, fastRequestsJ: 0, fastIdleJ: 0 };
  let wasMetered = false;

  function weigh(account: JobAccount<Job>): void {
    const { firstTokenAtMs } = account.job;
    if (firstTokenAtMs !== null && account.group !== decodeGroup) {
      leavesGroup(account.group, firstTokenAtMs);
      account.group = decodeGroup;
      entersGroup(decodeGroup, firstTokenAtMs);
    }
    scales.weigh(account);
  }

  function weighAll(): void {
    for (const account of underWay.values()) weigh(account);
    scales.priceAll(open());
  }

  function* open(): Iterable<JobAccount<Job>> {
    yield* underWay.values();
    yield* unsettled;
  }

  function knownOf(account: JobAccount<Job>): JobEnergy {
    let { modelledJ, maximumClockJ } = account;
    for (const group of groups) {
      for (const cost of pendingOf(group, account)) {
        modelledJ += cost.energyJ * group.correction;
        maximumClockJ += cost.fastestJ * group.correction;
      }
    }
    const unpriced = scales.unpriced(account);
    return { meteredJ: account.meteredJ, modelledJ: modelledJ + unpriced.energyJ * decodeGroup.correction, maximumClockJ: maximumClockJ + unpriced.fastestJ * decodeGroup.correction };
  }

  /** Work of a group's window, all of it together. */
  function workOf(group: MeteredGroup, others: Readonly<WorkCost>): { readonly all: WorkCost; readonly prefillJ: number } {
    const all = noWork();
    let prefillJ = 0;
    for (const account of open()) {
      for (const cost of pendingOf(group, account)) addCost(all, cost);
      if (group.phase !== 'decode') prefillJ += account.prefill.energyJ;
    }
    addCost(all, others);
    return { all, prefillJ };
  }

  /** What a reading says, to all that it is of. */
  function apportion(group: MeteredGroup, measuredJ: number, windowMs: number, nowMs: number): EnergyWindow {
    const { window } = group;
    const others = group.phase === 'prefill' ? noWork() : scales.weighOthers(windowMs);
    const { all, prefillJ } = workOf(group, others);
    const busyMs = window.busyMs(nowMs);
    const alike = all.energyJ > 0 ? [] : presentIn(group);
    const { idleJ, scale, evenlyJ } = window.share(measuredJ, all, { jobs: alike.length, others: others.energyJ > 0 }, nowMs);
    const modelledWorkJ = all.energyJ;
    for (const account of open()) {
      for (const cost of pendingOf(group, account)) {
        account.meteredJ += scale * cost.energyJ;
        account.maximumClockJ += scale * cost.fastestJ;
        sums.meteredJ += scale * cost.energyJ;
        sums.fastRequestsJ += scale * cost.fastestJ;
        clearCost(cost);
      }
    }
    shareEvenly(evenlyJ, alike);
    sums.othersJ += scale * others.energyJ;
    sums.idleMeteredJ += idleJ;
    sums.meterJ += measuredJ;
    sums.fastIdleJ += fastIdleJ(group, all, busyMs, nowMs);
    const seen: EnergyWindow = {
      group: group.phase,
      point: window.point(),
      steady: window.isSteady(),
      windowMs,
      busyMs,
      measuredWorkJ: measuredJ - idleJ,
      modelledWorkJ,
      prefillShare: modelledWorkJ > 0 ? prefillJ / modelledWorkJ : 0,
      othersShare: modelledWorkJ > 0 ? others.energyJ / modelledWorkJ : 0,
      idlePowerW: window.idleMeasuredW(window.point()),
    };
    if (seen.steady && scale > 0) corrects(group, scale);
    nextWindow(group, nowMs);
    return seen;
  }

  /** Nobody is believed to have done anything, and yet there may have been somebody. */
  function presentIn(group: MeteredGroup): readonly JobAccount<Job>[] {
    const present = [...underWay.values()].filter((account) => account.group === group);
    return present.length > 0 || group.phase !== null ? present : unsettled;
  }

  function shareEvenly(energyJ: number, accounts: readonly JobAccount<Job>[]): void {
    if (energyJ <= 0) return;
    for (const account of accounts) {
      account.meteredJ += energyJ / accounts.length;
      account.maximumClockJ += energyJ / accounts.length;
    }
    sums.meteredJ += energyJ;
    sums.fastRequestsJ += energyJ;
  }

  /** At the fastest point it would have idled as long, and for what it would have been done sooner. */
  function fastIdleJ({ window }: MeteredGroup, work: Readonly<WorkCost>, busyMs: number, nowMs: number): number {
    const savedMs = work.timeMs > 0 ? busyMs * (1 - Math.min(1, work.fastestMs / work.timeMs)) : 0;
    return window.idleCost(nowMs).fastestJ + (savedMs / 1_000) * window.idlePowerW(model.fastest);
  }

  /** Without a meter the profile's word stands. */
  function takeAsModelled(group: MeteredGroup, nowMs: number): void {
    const { all } = workOf(group, noWork());
    const busyMs = group.window.busyMs(nowMs);
    for (const account of open()) for (const cost of pendingOf(group, account)) modelled(account, cost, group.correction);
    sums.idleModelledJ += group.window.idleCost(nowMs).energyJ;
    sums.fastIdleJ += fastIdleJ(group, all, busyMs, nowMs);
    nextWindow(group, nowMs);
  }

  function nextWindow(group: MeteredGroup, nowMs: number): void {
    group.window.restart(nowMs);
    for (const account of unsettled) if (account.awaits.includes(group)) account.awaits = account.awaits.filter((other) => other !== group);
  }

  function modelled(account: JobAccount<Job>, cost: WorkCost, correction: number): void {
    account.modelledJ += correction * cost.energyJ;
    account.maximumClockJ += correction * cost.fastestJ;
    sums.modelledJ += correction * cost.energyJ;
    sums.fastRequestsJ += correction * cost.fastestJ;
    clearCost(cost);
  }

  function settle(): Settled<Job>[] {
    const settled = settledAnyhow;
    settledAnyhow = [];
    const still: JobAccount<Job>[] = [];
    for (const account of unsettled) {
      if (account.awaits.length > 0) still.push(account);
      else settled.push(settledOf(account));
    }
    unsettled = still;
    return settled;
  }

  function take(group: MeteredGroup, reading: MeterReading, nowMs: number): EnergyWindow | null {
    wasMetered = true;
    const use = read(group, reading, nowMs);
    switch (use.kind) {
      case 'window':
        return apportion(group, use.measuredJ, use.windowMs, nowMs);
      case 'gap':
        takeAsModelled(group, nowMs);
        sums.unapportionedJ += use.measuredJ;
        sums.meterJ += use.measuredJ;
        return null;
      case 'begins':
        takeAsModelled(group, nowMs);
        return null;
      case 'waits':
        return null;
      default:
        return unreachable(use);
    }
  }

  return {
    began(job, nowMs) {
      underWay.set(job, openAccount(job, prefillGroup));
      entersGroup(prefillGroup, nowMs);
    },
    ended(job, done, nowMs, unmetered) {
      const account = underWay.get(job);
      if (account === undefined) return { meteredJ: 0, modelledJ: 0, maximumClockJ: 0 };
      underWay.delete(job);
      // Nothing was ever read while it was there, and nothing will be.
      if (!groups.some(isRead) && account.meteredJ === 0 && account.modelledJ === 0) {
        leavesGroup(account.group, nowMs);
        const { energyJ, maximumClockJ } = unmetered();
        sums.modelledJ += energyJ;
        sums.fastRequestsJ += maximumClockJ;
        return { meteredJ: 0, modelledJ: energyJ, maximumClockJ };
      }
      weigh(account);
      leavesGroup(account.group, nowMs);
      if (done !== null) scales.weighWhole(account, done);
      if (!isRead(decodeGroup)) scales.price(account);
      for (const group of groups) if (!isRead(group)) for (const cost of pendingOf(group, account)) modelled(account, cost, group.correction);
      account.told = knownOf(account);
      account.awaits = groups.filter(isRead);
      if (account.awaits.length > 0) unsettled.push(account);
      if (unsettled.length > UNSETTLED_MAX) {
        const oldest = unsettled.shift() as JobAccount<Job>;
        scales.price(oldest);
        for (const group of groups) for (const cost of pendingOf(group, oldest)) modelled(oldest, cost, group.correction);
        settledAnyhow.push(settledOf(oldest));
      }
      return account.told;
    },
    known(job, done) {
      const account = underWay.get(job);
      if (account === undefined) return { meteredJ: 0, modelledJ: 0, maximumClockJ: 0 };
      weigh(account);
      if (done !== null) scales.weighWhole(account, done);
      return knownOf(account);
    },
    moved(phase, point, nowMs) {
      for (const group of groups) {
        if (group.phase !== phase || group.window.point() === point) continue;
        if (group.meter !== null) weighAll();
        group.window.movesTo(point, nowMs);
      }
    },
    rests(powerW, nowMs) {
      for (const { window } of groups) window.restsAt(powerW === null ? null : powerW / groups.length, nowMs);
    },
    metered(phase, reading, nowMs) {
      const group = groups.find((candidate) => candidate.phase === phase);
      if (group === undefined) return { settled: [], window: null };
      weighAll();
      let window: EnergyWindow | null = null;
      if (reading !== null) window = take(group, reading, nowMs);
      else if (unread(group, nowMs)) takeAsModelled(group, nowMs);
      return { settled: settle(), window };
    },
    isMetered: () => groups.every(isRead),
    open: () => underWay.size + unsettled.length,
    snapshot(nowMs) {
      const powers = groups.map(({ meter }) => meter?.reading.powerW ?? null);
      const unmetered = groups.filter((group) => !isRead(group));
      return {
        source: unmetered.length === 0 ? 'metered' : unmetered.length === groups.length ? 'modelled' : 'partly-metered',
        meterJ: wasMetered ? sums.meterJ : null,
        powerW: powers.reduce<number | null>((sum, powerW) => (sum === null || powerW === null ? null : sum + powerW), 0),
        requests: { meteredJ: sums.meteredJ, modelledJ: sums.modelledJ },
        idle: { meteredJ: sums.idleMeteredJ, modelledJ: sums.idleModelledJ + unmetered.reduce((sum, { window }) => sum + window.idleCost(nowMs).energyJ, 0) },
        othersJ: sums.othersJ,
        unapportionedJ: sums.unapportionedJ,
        maximumClock: { requestsJ: sums.fastRequestsJ, idleJ: sums.fastIdleJ + unmetered.reduce((sum, { window }) => sum + window.idleCost(nowMs).fastestJ, 0) },
      };
    },
  };
}

function settledOf<Job>({ job, told, meteredJ, modelledJ, maximumClockJ }: JobAccount<Job>): Settled<Job> {
  const said = told ?? { meteredJ: 0, modelledJ: 0, maximumClockJ: 0 };
  return { job, more: { meteredJ: meteredJ - said.meteredJ, modelledJ: modelledJ - said.modelledJ, maximumClockJ: maximumClockJ - said.maximumClockJ } };
}
