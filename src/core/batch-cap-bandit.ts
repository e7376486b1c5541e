// Which cap on a replica's jobs takes the least energy per token, where no profile says? Tried out while serving, one window of time at
// a cap after another: what each costs is noisy, a cap that costs deadlines is let go at once, and the rest is a bandit's.

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
  /** Ends the window where it has told enough, and begins the next. `waiting`: jobs that have no place; `ttftMs`: what the tightest want, `Infinity` where nobody wants any. */
  look(load: LoadContext, queue: { readonly waiting: number; readonly ttftMs: number }, nowMs: number): void;
  /** For people. */
  status(): readonly CapStatus[];
}

/** What a cost was seen under; under another load it tells nothing. */
export interface LoadContext {
  readonly perMs: number;
  readonly promptTokensMean: number;
  readonly outputTokensMean: number;
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
  /** Where to begin: what a profile says, or what is configured. */
  readonly startCap: number;
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

/** Costs that are remembered of each arm: what is older was of other times. Zeus forgets by such a window too. */
const OBSERVATIONS_MAX = 6;

/** Seen so often, every arm that was not stopped: then the bandit chooses. */
const EXPLORED_WINDOWS = 2;

/** An arm that costs so much more than the best on average is stopped (Zeus' β, there 2, of a job that then begins anew; here nothing is lost by stopping). */
const COST_RATIO_MAX = 1.15;

/** Of a cost's own standard deviation nothing less is believed, relative to it: with two windows they may agree by chance. */
const RELATIVE_DEVIATION_MIN = 0.02;

/** Misses may be this many standard deviations above what the target allows before they count as missing it. */
const MISS_DEVIATIONS = 3;
const MISSES_MIN = 3;

/** Jobs that come now and would wait for their place for so much of the time to their first token will miss it; a cap that brings that about is let go before they do. */
const WAIT_SHARE_MAX = 0.1;
const WAITING_MIN = 2;

/** What came in so long after another cap, or while jobs wait that it has left behind, is not judged. */
const SETTLE_MS = 15_000;

/** Loads whose rate or sizes differ by more than this factor are not alike. */
const CHANGED_RATIO = 1.5;

interface Arm {
  readonly cap: number;
  costs: { readonly costJ: number; readonly load: LoadContext }[];
  /** A window passed at it without too many misses, under whatever load, and it was not stopped since. */
  held: boolean;
  stopped: { readonly why: NonNullable<CapStatus['stopped']>; readonly load: LoadContext; /** In all windows in which it was. */ readonly jobs: number; readonly missed: number } | null;
}

/**
 * Gaussian Thompson sampling over caps, after the exploration with pruning that goes before it: from where it begins outwards, each arm so
 * many windows, and none beyond one that was stopped, since cost is convex in the batch size. Source: You, Chung and
 * Chowdhury, Zeus: Understanding and Optimizing GPU Energy Consumption of DNN Training (NSDI'23), sections 4.3 and 4.4, where the arms are
 * batch sizes of a training job, the cost is that of the whole job, and early stopping is by cost; here it is by attainment as well.
 * Stopped arms are opened, and costs forgotten, when the load has changed. With every arm stopped the one with the best attainment stands.
 * Memory: `ARMS_MAX` × `OBSERVATIONS_MAX` costs.
 */
export function createBatchCapBandit({ concurrencyMax, startCap, attainmentTarget, random }: BatchCapBanditOptions): BatchCapBandit {
  /** The largest first. */
  const arms = capsOf(concurrencyMax).map((cap): Arm => ({ cap, costs: [], held: false, stopped: null }));
  let arm = arms.reduce((nearest, other) => (Math.abs(Math.log(other.cap / startCap)) < Math.abs(Math.log(nearest.cap / startCap)) ? other : nearest));
  /** The cap before may still be felt since then; `null`: no more. */
  let settlingSinceMs: number | null = null;
  let lowered = false;
  /** Of the load, over the looks of this window. */
  let seen = { looks: 0, perMs: 0, promptTokensMean: 0, outputTokensMean: 0 };
  let window = { sinceMs: Number.NEGATIVE_INFINITY, jobs: 0, withSlo: 0, missed: 0, outputTokens: 0, energyJ: 0 };

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

  /** More than a window at the target would have by chance. */
  function misses(): boolean {
    const expected = (1 - attainmentTarget) * window.withSlo;
    const deviation = Math.sqrt(expected * attainmentTarget);
    return window.missed >= MISSES_MIN && window.missed > expected + MISS_DEVIATIONS * deviation;
  }

  function costJ(): number | null {
    return window.energyJ <= 0 || window.outputTokens <= 0 ? null : window.energyJ / window.outputTokens;
  }

  function forgetOtherLoads(load: LoadContext): void {
    for (const known of arms) {
      known.costs = known.costs.filter((cost) => isAlike(cost.load, load));
      if (known.stopped !== null && !isAlike(known.stopped.load, load)) known.stopped = null;
    }
  }

  function bestCostJ(except: Arm): number {
    return Math.min(Number.POSITIVE_INFINITY, ...arms.flatMap((other) => (other === except || other.stopped !== null || other.costs.length === 0 ? [] : [meanOf(other)])));
  }

  /** Those that were not seen often enough, the nearest first; then by Thompson sampling. */
  function next(): Arm {
    const reached = reachable();
    const [first] = reached;
    if (first === undefined) return arms.reduce((best, other) => (attainmentOf(other) > attainmentOf(best) ? other : best));
    for (let round = 1; round <= EXPLORED_WINDOWS; round++) {
      for (const candidate of reached) if (candidate.costs.length < round) return candidate;
    }
    const sampled = reached.map((candidate) => ({ candidate, costJ: sampleOf(candidate) }));
    return sampled.reduce((best, other) => (other.costJ < best.costJ ? other : best)).candidate;
  }

  function cheapestHeld(): Arm | null {
    const held = arms.filter(({ stopped, costs }) => stopped === null && costs.length > 0);
    return held.reduce<Arm | null>((best, other) => (best === null || meanOf(other) < meanOf(best) ? other : best), null);
  }

  /** The cheapest that has held and all around it up to those that were stopped, the nearest first; where none has held yet, all that were not stopped, by how near they are to the last. */
  function reachable(): readonly Arm[] {
    const cheapest = cheapestHeld();
    const place = arms.indexOf(cheapest ?? arm);
    let [from, to] = [0, arms.length - 1];
    if (cheapest !== null) {
      for (from = place; from > 0 && arms[from - 1]?.stopped === null; from--);
      for (to = place; to < arms.length - 1 && arms[to + 1]?.stopped === null; to++);
    }
    return arms
      .map((candidate, index) => ({ candidate, index, distance: Math.abs(index - place) }))
      .filter(({ candidate, index }) => index >= from && index <= to && candidate.stopped === null)
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

  function moveTo(to: Arm, nowMs: number): void {
    const before = arm;
    arm = to;
    begin(nowMs);
    if (before !== arm) settlingSinceMs = nowMs;
    lowered = arm.cap < before.cap;
  }

  function stop(why: NonNullable<CapStatus['stopped']>, nowMs: number): void {
    const load = meanLoad();
    forgetOtherLoads(load);
    const { jobs = 0, missed = 0 } = arm.stopped ?? {};
    arm.stopped = { why, load, jobs: jobs + window.withSlo, missed: missed + window.missed };
    arm.held = false;
    // First back to what is known to hold, with the most room for those that wait; then the next.
    moveTo((why === 'waits' ? arms.find(({ held, cap }) => held && cap > arm.cap) : cheapestHeld()) ?? next(), nowMs);
  }

  /** Those that come now wait too long, for a place that a larger cap would give them. */
  function starves({ waiting, ttftMs }: { readonly waiting: number; readonly ttftMs: number }, { perMs }: LoadContext): boolean {
    return arm !== arms[0] && perMs > 0 && waiting >= WAITING_MIN && waiting / perMs > WAIT_SHARE_MAX * ttftMs;
  }

  return {
    cap: () => arm.cap,
    tokens(count) {
      window.outputTokens += count;
    },
    ended({ arrivedAtMs, met }) {
      // What came before this window had its deadlines cut by the cap before.
      if (arrivedAtMs < window.sinceMs) return;
      window.jobs += 1;
      if (met === null) return;
      window.withSlo += 1;
      if (!met) window.missed += 1;
    },
    refused() {
      window.withSlo += 1;
      window.missed += 1;
    },
    consumed(energyJ) {
      window.energyJ += energyJ;
    },
    look(load, queue, nowMs) {
      if (window.sinceMs === Number.NEGATIVE_INFINITY) settlingSinceMs = nowMs;
      if (settlingSinceMs !== null) {
        const settledMs = nowMs - settlingSinceMs;
        begin(nowMs);
        seeLoad(load);
        // What waits under a lower cap waits for it, and is nothing that another has left behind.
        if (lowered && starves(queue, load)) return stop('waits', nowMs);
        if (settledMs >= SETTLE_MS && (queue.waiting === 0 || settledMs >= WINDOW.mostMs)) settlingSinceMs = null;
        return;
      }
      seeLoad(load);
      if (starves(queue, load)) return stop('waits', nowMs);
      if (misses()) return stop('misses', nowMs);
      const lastedMs = nowMs - window.sinceMs;
      if (lastedMs < WINDOW.leastMs || (window.jobs < WINDOW.jobs && lastedMs < WINDOW.mostMs)) return;
      const mean = meanLoad();
      forgetOtherLoads(mean);
      const cost = costJ();
      if (cost === null || window.jobs < WINDOW.jobsLeast) return begin(nowMs);
      arm.held = true;
      arm.costs = [...arm.costs, { costJ: cost, load: mean }].slice(-OBSERVATIONS_MAX);
      if (meanOf(arm) > COST_RATIO_MAX * bestCostJ(arm)) stop('costs', nowMs);
      else moveTo(next(), nowMs);
    },
    status: () => arms.map((known) => ({ cap: known.cap, costJ: known.costs.length === 0 ? null : meanOf(known), windows: known.costs.length, stopped: known.stopped?.why ?? null })),
  };
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

function within(a: number, b: number): boolean {
  return Math.max(a, b) <= CHANGED_RATIO * Math.min(a, b) || a === b;
}

/** Source: Box and Muller, A Note on the Generation of Random Normal Deviates (1958). */
function gaussian(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
