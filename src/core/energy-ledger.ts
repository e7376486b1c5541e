// The energy of one replica, apportioned: what its devices' counters say between two readings goes to the jobs under way, by
// what the profile says of each one's share of the work, and to idling, so that all of it adds up to the meter. Where there
// is no meter it keeps the profile's word apart. It reads what jobs have done when it is asked; tokens cost it nothing.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import type { DecodeWork } from '../frontier/profile.ts';
import { addCost, addPrompt, addTokens, clearCost, noWork, scaleCost, tokenCostOf, type WorkCost } from './energy-work.ts';
import { createMeterWindow, type MeterReading, type MeterWindow } from './meter-window.ts';
import type { PhaseGroup } from './replica-view.ts';

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
  ended(job: Job, done: WorkDone | null, nowMs: number, unmetered: { readonly energyJ: number; readonly maximumClockJ: number }): JobEnergy;
  /** The same of one that is under way. */
  known(job: Job, done: WorkDone | null): JobEnergy;
  /** A group is at another point from now on. Jobs have to be up to date. */
  moved(group: PhaseGroup | null, point: PointIndex, nowMs: number): void;
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
  /** All streams that decode there now, foreign ones too, and how many of them are foreign. */
  readonly streams: () => DecodeWork & { readonly foreign: number };
}

/** Jobs that have ended and wait for the next reading; beyond it the oldest are settled by the profile. */
export const UNSETTLED_MAX = 4_096;

/** A meter that was out of sight for longer cannot say any more whose its joules are. */
export const METER_GAP_MS_MAX = 3_000;

/** How fast the measured over modelled joules of late are followed, and within which bounds. */
const CORRECTION = { rate: 0.2, min: 0.2, max: 5 };

interface Entry<Job> {
  readonly job: Job;
  /** Of its prompt, believed to have been cached. */
  readonly cachedTokens: number;
  /** What has been looked at: of its prompt, and tokens of steps. */
  prefilled: number;
  decoded: number;
  /** Its server has said how much it was, and all of it is looked at. */
  isWhole: boolean;
  group: Group;
  /** Since the last reading. */
  readonly prefill: WorkCost;
  readonly decode: WorkCost;
  meteredJ: number;
  modelledJ: number;
  maximumClockJ: number;
  /** What was said at its end. */
  told: JobEnergy | null;
  /** Has ended, and waits for readings of these. */
  awaits: readonly Group[];
}

interface Group {
  readonly phase: PhaseGroup | null;
  readonly window: MeterWindow;
  /** Jobs that are under way here. */
  jobs: number;
  /** The last reading and when; `null`: there was none. */
  meter: { readonly reading: MeterReading; readonly atMs: number; readonly unreadSinceMs: number | null; /** It was out of sight for too long. */ readonly lost: boolean } | null;
  /** Measured over modelled joules of late. */
  correction: number;
}

export function createEnergyLedger<Job extends EnergyJob>(options: EnergyLedgerOptions): EnergyLedger<Job> {
  const { model, streams } = options;
  const groups: readonly Group[] = options.groups.map((phase) => ({ phase, window: createMeterWindow(model, model.fastest), jobs: 0, meter: null, correction: 1 }));
  const prefillGroup = groups[0] as Group;
  const decodeGroup = groups.at(-1) as Group;
  const underWay = new Map<Job, Entry<Job>>();
  let unsettled: Entry<Job>[] = [];
  /** Settled without a reading since the last one. */
  let settledAnyhow: Settled<Job>[] = [];
  const sums = { meterJ: 0, meteredJ: 0, modelledJ: 0, idleMeteredJ: 0, idleModelledJ: 0, othersJ: 0, unapportionedJ: 0, fastRequestsJ: 0, fastIdleJ: 0 };
  let wasMetered = false;

  function enters(group: Group, nowMs: number): void {
    group.jobs += 1;
    if (group.jobs === 1) group.window.works(nowMs);
  }

  function leaves(group: Group, nowMs: number): void {
    group.jobs -= 1;
    if (group.jobs === 0) group.window.idles(nowMs);
  }

  /** Adds what it has done since it was last looked at, at the points of now. */
  function weigh(entry: Entry<Job>): void {
    const { job } = entry;
    if (entry.isWhole) return;
    if (job.firstTokenAtMs !== null && entry.group !== decodeGroup) {
      leaves(entry.group, job.firstTokenAtMs);
      entry.group = decodeGroup;
      enters(decodeGroup, job.firstTokenAtMs);
    }
    const prefilled = job.firstTokenAtMs === null ? Math.min(job.prefilledTokens, job.promptTokens) : job.promptTokens;
    if (prefilled > entry.prefilled) {
      addPrompt(entry.prefill, model, entry.prefilled, prefilled, prefillGroup.window.point());
      entry.prefilled = prefilled;
    }
    weighTokens(entry, Math.max(0, job.tokensOut - 1));
  }

  function weighTokens(entry: Entry<Job>, decoded: number): void {
    const more = decoded - entry.decoded;
    if (more <= 0) return;
    addTokens(entry.decode, tokenCostOf(model, streams(), decodeGroup.window.point()), more, entry.job.promptTokens + entry.decoded + more / 2);
    entry.decoded = decoded;
  }

  /** At its end its server has said how much there was; what was seen until then may have been more or less. */
  function weighWhole(entry: Entry<Job>, done: WorkDone): void {
    if (entry.isWhole) return;
    entry.isWhole = true;
    const seen = entry.prefilled - entry.cachedTokens;
    if (done.prefilledTokens > seen) addPrompt(entry.prefill, model, entry.prefilled, entry.prefilled + done.prefilledTokens - seen, prefillGroup.window.point());
    else if (seen > 0) scaleCost(entry.prefill, done.prefilledTokens / seen);
    weighTokens(entry, Math.max(0, done.outputTokens - 1));
  }

  function weighAll(): void {
    for (const entry of underWay.values()) weigh(entry);
  }

  function* open(): Iterable<Entry<Job>> {
    yield* underWay.values();
    yield* unsettled;
  }

  /** What of a job's pending work is a group's. */
  function pendingOf(group: Group, { prefill, decode }: Entry<Job>): readonly WorkCost[] {
    if (group.phase === null) return [prefill, decode];
    return group.phase === 'prefill' ? [prefill] : [decode];
  }

  function knownOf(entry: Entry<Job>): JobEnergy {
    let { modelledJ, maximumClockJ } = entry;
    for (const group of groups) {
      for (const cost of pendingOf(group, entry)) {
        modelledJ += cost.energyJ * group.correction;
        maximumClockJ += cost.fastestJ * group.correction;
      }
    }
    return { meteredJ: entry.meteredJ, modelledJ, maximumClockJ };
  }

  /** Work of a group's window, all of it together. */
  function workOf(group: Group, others: Readonly<WorkCost>): { readonly all: WorkCost; readonly prefillJ: number } {
    const all = noWork();
    let prefillJ = 0;
    for (const entry of open()) {
      for (const cost of pendingOf(group, entry)) addCost(all, cost);
      if (group.phase !== 'decode') prefillJ += entry.prefill.energyJ;
    }
    addCost(all, others);
    return { all, prefillJ };
  }

  /** Streams of others: as many steps as fit into the window. */
  function othersIn(group: Group, windowMs: number): WorkCost {
    const others = noWork();
    const { foreign, ...all } = streams();
    if (foreign === 0 || group.phase === 'prefill') return others;
    const cost = tokenCostOf(model, all, group.window.point());
    const contextTokens = all.contextTokens / Math.max(1, all.sequences);
    const stepMs = all.sequences * (cost.step.timeMs + contextTokens * cost.context.timeMs);
    if (stepMs > 0) addTokens(others, cost, (foreign * windowMs) / stepMs, contextTokens);
    return others;
  }

  /** What a reading says, to all that it is of. */
  function apportion(group: Group, measuredJ: number, windowMs: number, nowMs: number): EnergyWindow {
    const { window } = group;
    const others = othersIn(group, windowMs);
    const { all, prefillJ } = workOf(group, others);
    const busyMs = window.busyMs(nowMs);
    const alike = all.energyJ > 0 ? [] : presentIn(group);
    const { idleJ, scale, evenlyJ } = window.share(measuredJ, all, { jobs: alike.length, others: others.energyJ > 0 }, nowMs);
    const modelledWorkJ = all.energyJ;
    for (const entry of open()) {
      for (const cost of pendingOf(group, entry)) {
        entry.meteredJ += scale * cost.energyJ;
        entry.maximumClockJ += scale * cost.fastestJ;
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
    };
    if (seen.steady && scale > 0) group.correction += CORRECTION.rate * (Math.min(CORRECTION.max, Math.max(CORRECTION.min, scale)) - group.correction);
    nextWindow(group, nowMs);
    return seen;
  }

  /** Nobody is believed to have done anything, and yet there may have been somebody. */
  function presentIn(group: Group): readonly Entry<Job>[] {
    const present = [...underWay.values()].filter((entry) => entry.group === group);
    return present.length > 0 || group.phase !== null ? present : unsettled;
  }

  function shareEvenly(energyJ: number, entries: readonly Entry<Job>[]): void {
    if (energyJ <= 0) return;
    for (const entry of entries) {
      entry.meteredJ += energyJ / entries.length;
      entry.maximumClockJ += energyJ / entries.length;
    }
    sums.meteredJ += energyJ;
    sums.fastRequestsJ += energyJ;
  }

  /** At the fastest point it would have idled as long, and for what it would have been done sooner. */
  function fastIdleJ({ window }: Group, work: Readonly<WorkCost>, busyMs: number, nowMs: number): number {
    const savedMs = work.timeMs > 0 ? busyMs * (1 - Math.min(1, work.fastestMs / work.timeMs)) : 0;
    return window.idleCost(nowMs).fastestJ + (savedMs / 1_000) * window.idlePowerW(model.fastest);
  }

  /** Without a meter the profile's word stands. */
  function takeAsModelled(group: Group, nowMs: number): void {
    const { all } = workOf(group, noWork());
    const busyMs = group.window.busyMs(nowMs);
    for (const entry of open()) for (const cost of pendingOf(group, entry)) modelled(entry, cost, group.correction);
    sums.idleModelledJ += group.window.idleCost(nowMs).energyJ;
    sums.fastIdleJ += fastIdleJ(group, all, busyMs, nowMs);
    nextWindow(group, nowMs);
  }

  function nextWindow(group: Group, nowMs: number): void {
    group.window.restart(nowMs);
    for (const entry of unsettled) if (entry.awaits.includes(group)) entry.awaits = entry.awaits.filter((other) => other !== group);
  }

  function modelled(entry: Entry<Job>, cost: WorkCost, correction: number): void {
    entry.modelledJ += correction * cost.energyJ;
    entry.maximumClockJ += correction * cost.fastestJ;
    sums.modelledJ += correction * cost.energyJ;
    sums.fastRequestsJ += correction * cost.fastestJ;
    clearCost(cost);
  }

  function settle(): Settled<Job>[] {
    const settled = settledAnyhow;
    settledAnyhow = [];
    const still: Entry<Job>[] = [];
    for (const entry of unsettled) {
      if (entry.awaits.length > 0) still.push(entry);
      else settled.push(settledOf(entry));
    }
    unsettled = still;
    return settled;
  }

  function take(group: Group, reading: MeterReading, nowMs: number): EnergyWindow | null {
    const { meter } = group;
    wasMetered = true;
    if (meter === null || meter.reading.epoch !== reading.epoch) {
      takeAsModelled(group, nowMs);
      group.meter = { reading, atMs: nowMs, unreadSinceMs: null, lost: false };
      return null;
    }
    const measuredJ = reading.energyJ - meter.reading.energyJ;
    if (meter.lost) {
      takeAsModelled(group, nowMs);
      sums.unapportionedJ += Math.max(0, measuredJ);
      sums.meterJ += Math.max(0, measuredJ);
    }
    // A counter that is carried on by its power may be a little behind what was carried too far: it is waited for.
    if (measuredJ < 0 && nowMs - meter.atMs > METER_GAP_MS_MAX) {
      takeAsModelled(group, nowMs);
      group.meter = { reading, atMs: nowMs, unreadSinceMs: null, lost: false };
      return null;
    }
    if (measuredJ <= 0 && !meter.lost) {
      group.meter = { reading: { ...meter.reading, powerW: reading.powerW }, atMs: meter.atMs, unreadSinceMs: null, lost: false };
      return null;
    }
    group.meter = { reading: measuredJ > 0 ? reading : { ...meter.reading, powerW: reading.powerW }, atMs: nowMs, unreadSinceMs: null, lost: false };
    return meter.lost ? null : apportion(group, measuredJ, nowMs - meter.atMs, nowMs);
  }

  function outOfSight(group: Group, nowMs: number): void {
    const { meter } = group;
    if (meter === null || meter.lost) return;
    const unreadSinceMs = meter.unreadSinceMs ?? nowMs;
    const lost = nowMs - unreadSinceMs > METER_GAP_MS_MAX;
    if (lost) takeAsModelled(group, nowMs);
    group.meter = { reading: { ...meter.reading, powerW: null }, atMs: meter.atMs, unreadSinceMs, lost };
  }

  function isMetered(): boolean {
    return groups.every(({ meter }) => meter !== null && !meter.lost);
  }

  return {
    began(job, nowMs) {
      underWay.set(job, { job, cachedTokens: job.prefilledTokens, prefilled: job.prefilledTokens, decoded: 0, isWhole: false, group: prefillGroup, prefill: noWork(), decode: noWork(), meteredJ: 0, modelledJ: 0, maximumClockJ: 0, told: null, awaits: [] });
      enters(prefillGroup, nowMs);
    },
    ended(job, done, nowMs, unmetered) {
      const entry = underWay.get(job);
      if (entry === undefined) return { meteredJ: 0, modelledJ: 0, maximumClockJ: 0 };
      underWay.delete(job);
      // Nothing was ever read while it was there, and nothing will be.
      if (groups.every(({ meter }) => meter === null || meter.lost) && entry.meteredJ === 0 && entry.modelledJ === 0) {
        leaves(entry.group, nowMs);
        sums.modelledJ += unmetered.energyJ;
        sums.fastRequestsJ += unmetered.maximumClockJ;
        return { meteredJ: 0, modelledJ: unmetered.energyJ, maximumClockJ: unmetered.maximumClockJ };
      }
      weigh(entry);
      leaves(entry.group, nowMs);
      if (done !== null) weighWhole(entry, done);
      for (const group of groups) if (group.meter === null || group.meter.lost) for (const cost of pendingOf(group, entry)) modelled(entry, cost, group.correction);
      entry.told = knownOf(entry);
      entry.awaits = groups.filter(({ meter }) => meter !== null && !meter.lost);
      if (entry.awaits.length > 0) unsettled.push(entry);
      if (unsettled.length > UNSETTLED_MAX) {
        const oldest = unsettled.shift() as Entry<Job>;
        for (const group of groups) for (const cost of pendingOf(group, oldest)) modelled(oldest, cost, group.correction);
        settledAnyhow.push(settledOf(oldest));
      }
      return entry.told;
    },
    known(job, done) {
      const entry = underWay.get(job);
      if (entry === undefined) return { meteredJ: 0, modelledJ: 0, maximumClockJ: 0 };
      weigh(entry);
      if (done !== null) weighWhole(entry, done);
      return knownOf(entry);
    },
    moved(phase, point, nowMs) {
      for (const group of groups) {
        if (group.phase !== phase || group.window.point() === point) continue;
        if (group.meter !== null) weighAll();
        group.window.movesTo(point, nowMs);
      }
    },
    metered(phase, reading, nowMs) {
      const group = groups.find((candidate) => candidate.phase === phase);
      if (group === undefined) return { settled: [], window: null };
      weighAll();
      let window: EnergyWindow | null = null;
      if (reading !== null) window = take(group, reading, nowMs);
      else outOfSight(group, nowMs);
      return { settled: settle(), window };
    },
    isMetered,
    open: () => underWay.size + unsettled.length,
    snapshot(nowMs) {
      const read = groups.filter(({ meter }) => meter !== null && !meter.lost);
      const powers = groups.map(({ meter }) => meter?.reading.powerW ?? null);
      const unmetered = groups.filter(({ meter }) => meter === null || meter.lost);
      return {
        source: read.length === groups.length ? 'metered' : read.length === 0 ? 'modelled' : 'partly-metered',
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

function settledOf<Job>({ job, told, meteredJ, modelledJ, maximumClockJ }: Entry<Job>): Settled<Job> {
  const said = told ?? { meteredJ: 0, modelledJ: 0, maximumClockJ: 0 };
  return { job, more: { meteredJ: meteredJ - said.meteredJ, modelledJ: modelledJ - said.modelledJ, maximumClockJ: maximumClockJ - said.maximumClockJ } };
}
