// Which cap on a replica's jobs takes the least energy per token, where no profile says? Tried out while serving, one window of time at
// a cap after another: what each costs is noisy, a cap that costs deadlines is let go at once, and the rest is a bandit's.

import { createExplorationCredit, EXPLORED_MISS_SHARE, missShareUpper } from './exploration-credit.ts';

export interface BatchCapBandit {
  /** In force. */
  cap(): number;
  /** So many more output tokens have come. */
  tokens(count: number): void;
  /** A job ended that came in this window or before; `met`: as in its report. */
  ended(job: { readonly arrivedAtMs: number; readonly met: boolean | null }): void;
  /** One was refused because it could not be in time. */
  refused(): void;
  /** The counters of the devices have gone on by so much. */
  consumed(energyJ: number): void;
  /** Lets a cap go that does not hold, ends the window where it has told enough, and begins the next. */
  look(load: LoadContext, queue: CapQueue, belief: CapBelief, nowMs: number): void;
  /** For people. */
  status(): readonly CapStatus[];
}

/** What a cost was seen under; under another load it tells nothing. */
export interface LoadContext {
  readonly perMs: number;
  readonly promptTokensMean: number;
  readonly outputTokensMean: number;
}

/** How jobs stand that have not ended. */
export interface CapQueue {
  /** That have no place. */
  readonly waiting: number;
  /** That are on replicas. */
  readonly inFlight: number;
  /** Of those on replicas, that have missed a deadline already. */
  readonly late: number;
  /** What the tightest want; `Infinity` where nobody wants any. */
  readonly ttftMs: number;
}

/** What is thought of caps before anything was seen of them, under the load of now. */
export interface CapBelief {
  /** Above it there would be no memory, or steps too slow, or dearer tokens. */
  readonly plannedCap: number;
  /** Whether there would be room for what may come. */
  sustains(cap: number): boolean;
}

export interface CapStatus {
  readonly cap: number;
  /** Mean of what was seen, J per output token; `null`: nothing that still counts. */
  readonly costJ: number | null;
  readonly windows: number;
  readonly stopped: 'misses' | 'waits' | 'costs' | null;
}

export interface BatchCapBanditOptions {
  /** Of the whole fleet that learns together, what is configured: the largest arm. */
  readonly concurrencyMax: number;
  /** Share of jobs with deadlines that have to meet them in a window. */
  readonly attainmentTarget: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/** Caps half an octave apart from the configured one down; so few that each is seen soon. */
export const ARMS_MAX = 12;
const ARM_RATIO = Math.SQRT2;
const CAP_MIN = 4;

/** A window has told enough with so many jobs and time; and is worth nothing if it has not by `mostMs`. */
const WINDOW = { jobs: 40, leastMs: 20_000, mostMs: 300_000, jobsLeast: 10 };

/** And lasts so many times what a job does: of jobs that came in a shorter one only the short ones have ended, and those miss least. */
const WINDOW_SOJOURNS = 2;

/** Costs that are remembered of each arm: what is older was of other times. Zeus forgets by such a window too. */
const OBSERVATIONS_MAX = 6;

/** Seen so often, every arm that may be tried: then the bandit chooses. */
const EXPLORED_WINDOWS = 2;

/** An arm that costs so much more than the best on average is stopped (Zeus' β, there 2, of a job that then begins anew; here nothing is lost by stopping). */
const COST_RATIO_MAX = 1.15;

/** Of a cost's own standard deviation nothing less is believed, relative to it: with two windows they may agree by chance. */
const RELATIVE_DEVIATION_MIN = 0.02;

/** Misses may be this many standard deviations above what is expected before they count as too many; and one is nothing. */
const MISS_DEVIATIONS = 3;
const MISSES_MIN = { baseline: 3, trial: 2 };

/** What is expected of an arm that has been seen little is what the target allows, as if so many jobs had been seen. */
const EXPECTED_JOBS = 100;

/** With so many jobs seen at it an arm may be the one that others are compared with. */
const PROVEN_JOBS = 300;

/** What is believed to hold is as good as so many jobs of which none missed. */
const BELIEVED_JOBS = 300;

/** Jobs seen at an arm count half beyond these. */
const PROOF_JOBS_MAX = 20_000;

/** A load that an arm has borne may grow by so much before it has to be believed that it still does: rates of the last seconds go up and down by as much. */
const BORNE_RATIO = 1.25;

/** Jobs that come now and would wait for their place for so much of the time to their first token will miss it; a cap that brings that about is let go before they do. */
const WAIT_SHARE_MAX = 0.1;
const WAITING_MIN = 2;

/** What came in so long after another cap, or while jobs wait that it has left behind, is not judged. */
const SETTLE_MS = 15_000;

/** Loads whose rate or sizes differ by more than this factor are not alike. */
const CHANGED_RATIO = 1.5;

interface Judged {
  readonly jobs: number;
  readonly missed: number;
}

const NOTHING: Judged = { jobs: 0, missed: 0 };

interface Stopped extends Judged {
  readonly why: NonNullable<CapStatus['stopped']>;
  readonly load: LoadContext;
  /** It had been believed to hold. */
  readonly believed: boolean;
}

interface Arm {
  readonly cap: number;
  costs: { readonly costJ: number; readonly load: LoadContext }[];
  /** In its windows since it was stopped last, under loads like this one's; `load`: of the first of them. */
  proof: Judged & { readonly load: LoadContext | null };
  stopped: Stopped | null;
  /** The rate at which it was last moved to. */
  triedAtPerMs: number;
}

/**
 * Gaussian Thompson sampling over caps, with exploration that deadlines do not pay for. One arm is the baseline: the cheapest of those that
 * have been seen to hold, or, until there is one, the one that is believed best. Others are tried step by step from it, when all is well, and
 * only where the misses that a trial may cost at worst are within what exploring may cost in all (`exploration-credit.ts`): for an arm that nothing is
 * known of that is every job that it could reach, for one that is believed or has been seen to hold much less. A trial ends as soon as it falls behind
 * the baseline. None goes beyond an arm that was stopped, since cost is convex in the batch size. A baseline that does not hold is left at once:
 * that is no exploring and waits for no credit.
 *
 * Source: You, Chung and Chowdhury, Zeus: Understanding and Optimizing GPU Energy Consumption of DNN Training (NSDI'23), sections 4.3 and
 * 4.4, where the arms are batch sizes of a training job, the cost is that of the whole job, and early stopping is by cost. Stopped arms are
 * opened, and costs forgotten, when the load has changed. With every arm stopped the one with the best attainment stands.
 * Memory: `ARMS_MAX` × `OBSERVATIONS_MAX` costs.
 */
export function createBatchCapBandit({ concurrencyMax, attainmentTarget, random }: BatchCapBanditOptions): BatchCapBandit {
  /** The largest first. */
  const arms = capsOf(concurrencyMax).map((cap): Arm => ({ cap, costs: [], proof: { ...NOTHING, load: null }, stopped: null, triedAtPerMs: 0 }));
  const largest = arms[0] as Arm;
  const credit = createExplorationCredit(EXPLORED_MISS_SHARE);
  let arm = largest;
  let inForce = largest.cap;
  let baseline = largest;
  let begun = false;
  /** The cap before may still be felt since then; `null`: no more. */
  let settlingSinceMs: number | null = null;
  let lowered = false;
  /** The last trial, or the one that runs: what came from then until things had settled again may have suffered by it. */
  let trial = { sinceMs: Number.POSITIVE_INFINITY, untilMs: Number.NEGATIVE_INFINITY };
  /** Since this arm was moved to. */
  let judged = { sinceMs: Number.NEGATIVE_INFINITY, jobs: 0, missed: 0 };
  /** Of the load, over the looks of this window. */
  let seen = { looks: 0, perMs: 0, promptTokensMean: 0, outputTokensMean: 0 };
  let window = { sinceMs: Number.NEGATIVE_INFINITY, jobs: 0, withSlo: 0, missed: 0, outputTokens: 0, energyJ: 0 };

  const isTrial = (): boolean => arm !== baseline;

  function begin(sinceMs: number): void {
    window = { sinceMs, jobs: 0, withSlo: 0, missed: 0, outputTokens: 0, energyJ: 0 };
    seen = { looks: 0, perMs: 0, promptTokensMean: 0, outputTokensMean: 0 };
  }

  function seeLoad({ perMs, promptTokensMean, outputTokensMean }: LoadContext): void {
    seen = { looks: seen.looks + 1, perMs: seen.perMs + perMs, promptTokensMean: seen.promptTokensMean + promptTokensMean, outputTokensMean: seen.outputTokensMean + outputTokensMean };
  }

  function meanLoad(): LoadContext {
    const { looks, perMs, promptTokensMean, outputTokensMean } = seen;
    return { perMs: perMs / looks, promptTokensMean: promptTokensMean / looks, outputTokensMean: outputTokensMean / looks };
  }

  function expectedMissShare({ proof }: Arm): number {
    return (proof.missed + (1 - attainmentTarget) * EXPECTED_JOBS) / (proof.jobs + EXPECTED_JOBS);
  }

  /** The baseline has to be within the target, a trial within what the baseline does; beyond chance. Who is late already counts. */
  function misses(late: number): boolean {
    if (isTrial()) return isBeyondChance({ jobs: judged.jobs + late, missed: judged.missed + late }, expectedMissShare(baseline), MISSES_MIN.trial);
    // One burst does not refute what has long held.
    const weight = Math.min(1, PROVEN_JOBS / Math.max(1, arm.proof.jobs));
    return isBeyondChance({ jobs: weight * arm.proof.jobs + window.withSlo + late, missed: weight * arm.proof.missed + window.missed + late }, 1 - attainmentTarget, MISSES_MIN.baseline);
  }

  function costJ(): number | null {
    return window.energyJ <= 0 || window.outputTokens <= 0 ? null : window.energyJ / window.outputTokens;
  }

  function forgetOtherLoads(load: LoadContext): void {
    for (const known of arms) {
      known.costs = known.costs.filter((cost) => isAlike(cost.load, load));
      if (known.proof.load !== null && !isAlike(known.proof.load, load)) known.proof = { ...NOTHING, load: null };
      if (known.stopped !== null && isOpenedBy(known.stopped, load)) known.stopped = null;
    }
  }

  function bestCostJ(except: Arm): number {
    return Math.min(Number.POSITIVE_INFINITY, ...arms.flatMap((other) => (other === except || other.stopped !== null || other.costs.length === 0 ? [] : [meanOf(other)])));
  }

  function isRefuted(): boolean {
    return arms.some(({ stopped }) => stopped !== null && stopped.believed && stopped.why !== 'costs');
  }

  /** It has had such a load, or is believed to have room for it. */
  function bears({ cap, costs, triedAtPerMs }: Arm, load: LoadContext, belief: CapBelief): boolean {
    const bornePerMs = Math.max(triedAtPerMs, ...costs.map((cost) => cost.load.perMs));
    return cap === largest.cap || load.perMs <= BORNE_RATIO * bornePerMs || belief.sustains(played(cap, belief));
  }

  /** Of those that have been seen enough, dear ones too: what others are measured by, so that one that is a little worse is not followed by another. */
  function leastMissShare(): number {
    const known = arms.filter(({ proof }) => proof.jobs >= PROVEN_JOBS);
    return known.length === 0 ? missShareOf(baseline) : Math.min(...known.map(missShareOf));
  }

  /** What jobs go by when nothing is tried: the cheapest that has been seen to hold, or this one while it does, or what is believed best. */
  function baselineFor(load: LoadContext, belief: CapBelief): Arm {
    const proven = arms.filter((known) => known.stopped === null && known.costs.length > 0 && known.proof.jobs >= PROVEN_JOBS && bears(known, load, belief));
    const cheapest = cheapestOf(proven.filter((known) => missShareOf(known) <= leastMissShare() + EXPLORED_MISS_SHARE / 2));
    if (cheapest !== null) return cheapest;
    if (baseline.stopped === null && baseline.costs.length > 0 && bears(baseline, load, belief)) return baseline;
    const open = arms.filter(({ stopped }) => stopped === null);
    return open.length === 0 ? arms.reduce((best, other) => (attainmentOf(other) > attainmentOf(best) ? other : best)) : believedBest(open, belief);
  }

  /**
   * Where what is planned was refuted: an octave below the least that missed, if there is room for what may come, for nobody knows by how much
   * it was too large; above all under which jobs waited.
   */
  function believedBest(open: readonly Arm[], belief: CapBelief): Arm {
    const missedFrom = Math.min(Number.POSITIVE_INFINITY, ...arms.flatMap(({ cap, stopped }) => (stopped?.why === 'misses' ? [cap] : [])));
    const waitedUpTo = Math.max(0, ...arms.flatMap(({ cap, stopped }) => (stopped?.why === 'waits' ? [cap] : [])));
    const between = open.filter(({ cap }) => cap < missedFrom && cap > waitedUpTo);
    const left = between.length > 0 ? between : open;
    const most = Math.min(belief.plannedCap, Math.round(missedFrom / 2));
    const within = left.find(({ cap }) => cap <= most) ?? (left.at(-1) as Arm);
    if (belief.sustains(played(within.cap, belief))) return within;
    // Too few: the next larger one then, and where none has room the largest that is not known to fail.
    return left.findLast(({ cap }) => cap > within.cap && belief.sustains(cap)) ?? (missedFrom < Number.POSITIVE_INFINITY ? (left[0] as Arm) : nearestOf(left, belief.plannedCap));
  }

  /** The misses that a trial of it may cost beyond the baseline's: of what is there when it is let go, what comes until that can be seen, and a window. */
  function exposure(candidate: Arm, { inFlight }: CapQueue, sloShare: number, belief: CapBelief): number {
    const believed = isThought(candidate, belief) && !isRefuted();
    const { jobs, missed } = candidate.proof;
    const missShare = missShareUpper({ jobs: jobs + (believed ? BELIEVED_JOBS : 0), missed });
    return sloShare * (2 * inFlight + WINDOW.jobs) * Math.max(0, missShare - leastMissShare());
  }

  /** Those that were not seen often enough, the nearest first; then by Thompson sampling. */
  function next(queue: CapQueue, sloShare: number, belief: CapBelief): Arm {
    const reached = reachable().filter((candidate) => candidate === baseline || credit.covers(exposure(candidate, queue, sloShare, belief)));
    for (let round = 1; round <= EXPLORED_WINDOWS; round++) {
      for (const candidate of reached) if (candidate.costs.length < round) return candidate;
    }
    const sampled = reached.map((candidate) => ({ candidate, costJ: sampleOf(candidate) }));
    return sampled.reduce((best, other) => (other.costJ < best.costJ ? other : best)).candidate;
  }

  /** The baseline; and the cheapest seen with all around it up to those that were stopped, and one step beyond those that have been seen. The nearest to the cheapest first. */
  function reachable(): readonly Arm[] {
    const place = arms.indexOf(cheapestOf(arms.filter(({ stopped, costs }) => stopped === null && costs.length > 0)) ?? baseline);
    let [from, to] = [place, place];
    while (from > 0 && (arms[from] as Arm).costs.length > 0 && arms[from - 1]?.stopped === null) from--;
    while (to < arms.length - 1 && (arms[to] as Arm).costs.length > 0 && arms[to + 1]?.stopped === null) to++;
    return arms
      .map((candidate, index) => ({ candidate, index, distance: Math.abs(index - place) }))
      .filter(({ candidate, index }) => candidate === baseline || (index >= from && index <= to))
      .toSorted((a, b) => a.distance - b.distance || b.index - a.index)
      .map(({ candidate }) => candidate);
  }

  /** From the posterior of its mean, with a flat prior. */
  function sampleOf(candidate: Arm): number {
    const { costs } = candidate;
    const mean = meanOf(candidate);
    const variance = costs.reduce((sum, { costJ: cost }) => sum + (cost - mean) ** 2, 0) / Math.max(1, costs.length - 1);
    const deviation = Math.max(Math.sqrt(variance), RELATIVE_DEVIATION_MIN * mean);
    return mean + (deviation / Math.sqrt(costs.length)) * gaussian(random);
  }

  function moveTo(to: Arm, { perMs }: LoadContext, nowMs: number): void {
    const before = arm;
    arm = to;
    arm.triedAtPerMs = perMs;
    begin(nowMs);
    if (before === arm) return;
    settlingSinceMs = nowMs;
    judged = { sinceMs: nowMs, ...NOTHING };
    lowered = arm.cap < before.cap;
    if (isTrial()) trial = { sinceMs: nowMs, untilMs: Number.POSITIVE_INFINITY };
  }

  function stop(why: NonNullable<CapStatus['stopped']>, queue: CapQueue, belief: CapBelief, nowMs: number): void {
    const load = meanLoad();
    forgetOtherLoads(load);
    const { jobs, missed } = arm.stopped ?? NOTHING;
    arm.stopped = { why, load, believed: isThought(arm, belief), jobs: jobs + judged.jobs + queue.late, missed: missed + judged.missed + queue.late };
    if (why !== 'costs') {
      arm.proof = { ...NOTHING, load: null };
      // What was too dear beside this one holds at least.
      for (const other of arms) if (other.stopped?.why === 'costs') other.stopped = null;
    }
    baseline = baselineFor(load, belief);
    moveTo(baseline, load, nowMs);
  }

  /** Those that come now wait too long, for a place that a larger cap would give them. */
  function starves({ waiting, ttftMs }: CapQueue, { perMs }: LoadContext): boolean {
    if (arm === largest || waiting < WAITING_MIN) return false;
    return (perMs > 0 && waiting / perMs > WAIT_SHARE_MAX * ttftMs) || (isTrial() && waiting > arm.cap);
  }

  /** A trial runs, or has left things behind that are still felt. */
  const isExploring = (): boolean => trial.sinceMs < Number.POSITIVE_INFINITY && trial.untilMs === Number.POSITIVE_INFINITY;

  /** What a job that a trial reached missed, beyond what those of the baseline do, is what exploring cost. */
  function account(isReached: boolean, met: boolean): void {
    credit.judged();
    if (isReached) credit.spent((met ? 0 : 1) - leastMissShare());
  }

  function settle(queue: CapQueue, nowMs: number): void {
    begin(nowMs);
    const settledMs = nowMs - (settlingSinceMs as number);
    const isQuiet = queue.waiting === 0 && queue.late === 0;
    if (settledMs < SETTLE_MS || (!isQuiet && settledMs < WINDOW.mostMs)) return;
    settlingSinceMs = null;
    if (!isTrial() && isExploring()) trial = { ...trial, untilMs: nowMs };
  }

  /** It has lasted long enough, and held. */
  function close(queue: CapQueue, belief: CapBelief, nowMs: number): void {
    const load = meanLoad();
    forgetOtherLoads(load);
    const cost = costJ();
    if (cost === null || window.jobs < WINDOW.jobsLeast) return begin(nowMs);
    arm.costs = [...arm.costs, { costJ: cost, load }].slice(-OBSERVATIONS_MAX);
    arm.proof = added(arm.proof, { jobs: window.withSlo, missed: window.missed }, load);
    // The baseline, however dear, stands until another has been seen to hold.
    if (isTrial() && meanOf(arm) > COST_RATIO_MAX * bestCostJ(arm)) return stop('costs', queue, belief, nowMs);
    const allIsWell = queue.waiting === 0 && queue.late === 0 && window.missed <= Math.ceil(leastMissShare() * window.withSlo);
    const sloShare = window.withSlo / window.jobs;
    // It may have been proven just now.
    const onTrial = isTrial();
    baseline = baselineFor(load, belief);
    if (onTrial && !isTrial()) trial = { ...trial, untilMs: nowMs };
    moveTo(allIsWell ? next(queue, sloShare, belief) : baseline, load, nowMs);
  }

  function look(load: LoadContext, queue: CapQueue, belief: CapBelief, nowMs: number): void {
    if (!begun) {
      begun = true;
      seeLoad(load);
      baseline = baselineFor(load, belief);
      arm = baseline;
      settlingSinceMs = nowMs;
    }
    const settles = settlingSinceMs !== null;
    // What waits under a lower cap waits for it, and is nothing that another has left behind; nothing was late when a trial began.
    const judges = !settles || isTrial();
    if (settles) settle(queue, nowMs);
    seeLoad(load);
    if ((judges || lowered) && starves(queue, load)) return stop('waits', queue, belief, nowMs);
    if (judges && misses(queue.late)) return stop('misses', queue, belief, nowMs);
    // Nothing has been seen of it and the load it was thought good for has changed, or the load has grown beyond it. What would be as uncertain is no better.
    if (isTrial() || arm.costs.length > 0 ? !bears(arm, load, belief) : !isThought(arm, belief)) {
      const better = baselineFor(load, belief);
      if (better !== arm && (better.costs.length > 0 || (isThought(better, belief) && !isRefuted()))) {
        baseline = better;
        return moveTo(baseline, load, nowMs);
      }
    }
    const lastedMs = nowMs - window.sinceMs;
    const leastMs = Math.max(WINDOW.leastMs, load.perMs > 0 ? (WINDOW_SOJOURNS * queue.inFlight) / load.perMs : 0);
    if (settlingSinceMs !== null || lastedMs < Math.min(leastMs, WINDOW.mostMs) || (window.jobs < WINDOW.jobs && lastedMs < WINDOW.mostMs)) return;
    close(queue, belief, nowMs);
  }

  return {
    cap: () => inForce,
    tokens(count) {
      window.outputTokens += count;
    },
    ended({ arrivedAtMs, met }) {
      if (met !== null) {
        account(isExploring() || (arrivedAtMs >= trial.sinceMs && arrivedAtMs <= trial.untilMs), met);
        if (arrivedAtMs >= judged.sinceMs) judged = { ...judged, jobs: judged.jobs + 1, missed: judged.missed + (met ? 0 : 1) };
      }
      // What came before this window had its deadlines cut by the cap before.
      if (arrivedAtMs < window.sinceMs) return;
      window.jobs += 1;
      if (met === null) return;
      window.withSlo += 1;
      if (!met) window.missed += 1;
    },
    refused() {
      account(isExploring(), false);
      judged = { ...judged, jobs: judged.jobs + 1, missed: judged.missed + 1 };
      window.withSlo += 1;
      window.missed += 1;
    },
    consumed(energyJ) {
      window.energyJ += energyJ;
    },
    look(load, queue, belief, nowMs) {
      look(load, queue, belief, nowMs);
      inForce = Math.min(concurrencyMax, played(arm.cap, belief));
    },
    status: () => arms.map((known) => ({ cap: known.cap, costJ: known.costs.length === 0 ? null : meanOf(known), windows: known.costs.length, stopped: known.stopped?.why ?? null })),
  };
}

function isBeyondChance({ jobs, missed }: Judged, missShare: number, missesMin: number): boolean {
  const expected = missShare * jobs;
  return missed >= missesMin && missed > expected + MISS_DEVIATIONS * Math.sqrt(expected * (1 - missShare));
}

function isThought({ cap }: Arm, belief: CapBelief): boolean {
  return cap <= belief.plannedCap && belief.sustains(played(cap, belief));
}

/** An arm stands for all caps from its own up to the next one's: of them, for what is planned. */
function played(cap: number, { plannedCap }: CapBelief): number {
  return plannedCap > cap && plannedCap < Math.round(cap * ARM_RATIO) ? Math.floor(plannedCap) : cap;
}

function missShareOf({ proof: { jobs, missed } }: Pick<Arm, 'proof'>): number {
  return jobs === 0 ? 0 : missed / jobs;
}

function cheapestOf(arms: readonly Arm[]): Arm | null {
  return arms.reduce<Arm | null>((best, other) => (best === null || meanOf(other) < meanOf(best) ? other : best), null);
}

function nearestOf(arms: readonly Arm[], cap: number): Arm {
  return arms.reduce((nearest, other) => (Math.abs(Math.log(other.cap / cap)) < Math.abs(Math.log(nearest.cap / cap)) ? other : nearest));
}

function added(before: Arm['proof'], { jobs, missed }: Judged, load: LoadContext): Arm['proof'] {
  const share = before.jobs + jobs > PROOF_JOBS_MAX ? 0.5 : 1;
  return { jobs: share * (before.jobs + jobs), missed: share * (before.missed + missed), load: before.load ?? load };
}

/** From the configured one down by `ARM_RATIO`, never below `CAP_MIN` (or the configured one, if that is less). */
function capsOf(concurrencyMax: number): readonly number[] {
  const caps = [concurrencyMax];
  for (let cap = concurrencyMax / ARM_RATIO; Math.round(cap) >= CAP_MIN && caps.length < ARMS_MAX; cap /= ARM_RATIO) caps.push(Math.round(cap));
  return caps;
}

/** Of one that was stopped; one that was let go before anything could be said of it is not better than others. */
function attainmentOf({ stopped }: Pick<Arm, 'stopped'>): number {
  return stopped === null || stopped.jobs === 0 ? 0 : 1 - stopped.missed / stopped.jobs;
}

function meanOf({ costs }: Pick<Arm, 'costs'>): number {
  return costs.reduce((sum, { costJ }) => sum + costJ, 0) / costs.length;
}

function isAlike(a: LoadContext, b: LoadContext): boolean {
  return within(a.perMs, b.perMs) && within(a.promptTokensMean, b.promptTokensMean) && within(a.outputTokensMean, b.outputTokensMean);
}

/** What misses or waits under a load does so under a heavier one as well. */
function isOpenedBy({ why, load: then }: Stopped, load: LoadContext): boolean {
  if (why === 'costs') return !isAlike(then, load);
  return [load.perMs / then.perMs, load.promptTokensMean / then.promptTokensMean, load.outputTokensMean / then.outputTokensMean].some((ratio) => ratio * CHANGED_RATIO < 1);
}

function within(a: number, b: number): boolean {
  return Math.max(a, b) <= CHANGED_RATIO * Math.min(a, b) || a === b;
}

/** Source: Box and Muller, A Note on the Generation of Random Normal Deviates (1958). */
function gaussian(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
