// Which operating point? The cheapest at which every deadline on the replica is predicted to hold: planned for what is
// expected, kept recoverable (at the fastest point) for what may yet arrive. Pure: a view of the replica in, a plan out.
import { NO_DECODE, type PointIndex } from '../frontier/performance-model.ts';
import type { JobId } from './job.ts';
import { SWITCH_ALLOWANCE_MS } from './limits.ts';
import { HIGH_DEVIATIONS, shareLonger, shareShorter } from './length-predictor.ts';
import { costsAt, type PointCosts, TIME_SHARE_MAX, switchMs, tokensTakeMs } from './point-costs.ts';
import { type PhaseGroup, type ReplicaView, type RunningStream, sequencesOf, type WaitingPrompt } from './replica-view.ts';
import { excessPowerW } from './work-energy.ts';

export type Binding = 'idle' | 'ttft' | 'tpot' | 'e2e' | 'stability' | 'energy' | 'none-feasible';

export interface Plan {
  /**
   * `meets`: every deadline holds with its margin. `tight`: all can still hold, but not with the margins, so it is the fastest
   * point. `infeasible`: some deadline fails even at the fastest point; `point` is then the cheapest for the others.
   */
  readonly kind: 'meets' | 'tight' | 'infeasible';
  readonly point: PointIndex;
  /** What forbids the next cheaper point; `energy` when nothing does and this point is simply the cheapest. */
  readonly binding: Binding;
  readonly bindingJobId: JobId | null;
  /** Least slack at the chosen point over the deadlines that can still hold; `Infinity` without any. */
  readonly slackMs: number;
  /** Deadlines that fail even at the fastest point. */
  readonly lost: number;
  /** Where prefills and decodes have devices of their own, the plan of each; the other fields then say what holds for both, and `point` is the decode group's. */
  readonly groups?: Readonly<Record<PhaseGroup, Plan>>;
}

/** Deadlines that are expected to be missed, each counted by its job's worth; `last`: the risk of the last waiting prompt, by itself. */
export interface LossRisk {
  readonly expected: number;
  readonly last: number;
  /**
   * The same without the chance that an answer gets too long for its end-to-end deadline: waiting takes from whoever waits as much as it
   * gives to others, so for that alone nobody is kept back.
   */
  readonly sparable: { readonly expected: number; readonly last: number };
}

/** Jobs whose deadlines can still be met: waiting prompts by index, running streams. */
interface Savable {
  readonly waiting: number[];
  readonly running: RunningStream[];
}

interface Verdict {
  readonly slackMs: number;
  readonly binding: Binding;
  readonly jobId: JobId | null;
}

/** Share of places and of KV memory beyond which queues no longer settle within a stream's life. */
const SHARE_MAX = { places: 0.85, kv: 0.9 };

/** Of what a large newcomer's prefill takes from a stream, at the fastest point, so much is kept in the bank of one that may end soon. */
const RESERVE = 0.3;

/** Room in the time of a batch that prefills: it is one, so that its error is not averaged, and all streams on the replica share it. */
const BATCH_MARGIN = { fixed: 0.05, perGuard: 0.03 };

/** Relative room in every time prediction: `FIXED + PER_GUARD · guard`. */
const MARGIN = { fixed: 0.01, perGuard: 0.02 };

/**
 * The plan for one replica; where its clocks cannot be driven (`fixed`), only the fastest point is judged. O(points × (waiting + running)) at worst, and O(points + waiting + running) where one stream
 * binds: it is asked first at every point. Nothing is kept between calls.
 * Jobs that cannot be met even at the fastest point bind nothing (they are best effort now); where more is to come the
 * stability constraint still keeps their streams moving.
 */
export function planReplica(view: ReplicaView, fixed = false): Plan {
  const { model } = view;
  if (sequencesOf(view) === 0) return idlePlan(view);
  const fastest = costsAt(view, model.fastest);
  const savable: Savable = { waiting: [], running: [] };
  for (let index = 0; index < view.waiting.length; index++) if (!isWaitingLost(view, fastest, view.waiting[index] as WaitingPrompt, index)) savable.waiting.push(index);
  let lost = view.waiting.length - savable.waiting.length;
  for (const stream of view.running) {
    if (isRunningLost(view, fastest, stream)) lost += stream.streams;
    else savable.running.push(stream);
  }

  // From the slowest on: what forbids the last point before one that holds is what binds. Of those that hold the slowest is
  // nearly always the cheapest, and once the cost has risen twice it falls no further.
  let best: { costs: PointCosts; costW: number; verdict: Verdict; refused: Verdict | null } | null = null;
  let refused: Verdict | null = null;
  let dearer = 0;
  for (const point of fixed ? [model.fastest] : model.bySlowness) {
    const costs = point === model.fastest ? fastest : costsAt(view, point);
    if (best !== null) {
      const costW = excessPowerW(view, costs);
      if (costW >= best.costW) {
        dearer += 1;
        if (dearer >= 2) break;
        continue;
      }
      const verdict = judge(view, savable, costs, fastest, false);
      if (verdict.slackMs >= 0) best = { costs, costW, verdict, refused: null };
      continue;
    }
    const verdict = judge(view, savable, costs, fastest, false);
    if (verdict.slackMs >= 0) best = { costs, costW: excessPowerW(view, costs), verdict, refused };
    else {
      refused = verdict;
      askFirst(savable, verdict.jobId);
    }
  }
  const kind = lost > 0 ? 'infeasible' : best === null ? 'tight' : 'meets';
  if (best === null) {
    const { slackMs, jobId } = judge(view, savable, fastest, fastest, true);
    return { kind, point: model.fastest, binding: 'none-feasible', bindingJobId: jobId, slackMs, lost };
  }
  const { binding, jobId } = best.refused ?? { binding: 'energy', jobId: null };
  return { kind, point: best.costs.point, binding, bindingJobId: jobId, slackMs: best.verdict.slackMs, lost };
}

/** What forbade one point most likely forbids the next. */
function askFirst({ running }: Savable, jobId: JobId | null): void {
  if (jobId === null || running[0]?.jobId === jobId) return;
  const place = running.findIndex((stream) => stream.jobId === jobId);
  if (place <= 0) return;
  [running[0], running[place]] = [running[place] as RunningStream, running[0] as RunningStream];
}

/**
 * Where to wait for work: the least idle power at which an arrival as tight as those seen lately is still in time, either
 * without a raise or after one that takes as long as the profile's outliers.
 */
function idlePlan(view: ReplicaView): Plan {
  const { model, forecast, timeScale, priced } = view;
  const { latencyMs, outlierMs = 0 } = model.profile.switch;
  const tokens = Math.ceil(forecast.prefillTokensMean * (1 + Math.sqrt(forecast.promptUnevenness - 1)));
  const firstTokenMs = (point: PointIndex): number => model.iterationTimeMs({ prefill: { tokens, contextTokens: 0 }, decode: NO_DECODE }, point) * (timeScale.prefill[point] as number) * (1 + MARGIN.fixed);
  const raised = latencyMs + outlierMs + firstTokenMs(model.fastest) <= view.tightestTtftMs;
  let parked = view.mechanisms.parking ? model.fastest : (view.appliedPoint ?? model.fastest);
  for (let point = 0; view.mechanisms.parking && point < model.points.length; point++) {
    if (priced.idlePowerW(point) < priced.idlePowerW(parked) && (raised || firstTokenMs(point) <= view.tightestTtftMs)) parked = point;
  }
  return { kind: 'meets', point: parked, binding: 'idle', bindingJobId: null, slackMs: Number.POSITIVE_INFINITY, lost: 0 };
}

/**
 * The tightest constraint at a point. Negative slack: the point may not be taken. Stops at the first violation unless
 * `all` is asked for.
 */
function judge(view: ReplicaView, savable: Savable, costs: PointCosts, fastest: PointCosts, all: boolean): Verdict {
  let slackMs = Number.POSITIVE_INFINITY;
  let binding: Binding = 'energy';
  let jobId: JobId | null = null;
  const note = (candidateMs: number, kind: Binding, job: JobId | null): boolean => {
    if (candidateMs < slackMs) {
      slackMs = candidateMs;
      binding = kind;
      jobId = job;
    }
    return !all && slackMs < 0;
  };
  const verdict = (): Verdict => ({ slackMs, binding, jobId });

  if (costs.point !== fastest.point) {
    const unstableMs = instabilityMs(view, costs);
    if (unstableMs > 0 && note(-unstableMs, 'stability', null)) return verdict();
  }

  for (const index of savable.waiting) {
    const prompt = view.waiting[index] as WaitingPrompt;
    const room = roomOf(prompt.guard);
    const firstMs = (costs.firstTokenMs[index] as number) * room;
    if (prompt.ttftDeadlineAtMs !== Number.POSITIVE_INFINITY && note(prompt.ttftDeadlineAtMs - view.nowMs - firstMs, 'ttft', prompt.jobId)) return verdict();
    // By the step alone: what is prefilled behind it is spent from its bank like anybody's once it runs.
    if (prompt.tpotLimitMs !== Number.POSITIVE_INFINITY && note((prompt.tpotLimitMs - costs.stepWithPrefillsMs * room) * prompt.outputTokensMiddle, 'tpot', prompt.jobId)) return verdict();
    if (prompt.e2eDeadlineAtMs !== Number.POSITIVE_INFINITY) {
      const fastestLeftMs = prompt.e2eDeadlineAtMs - view.nowMs - (fastest.firstTokenMs[index] as number) * room;
      const planned = plannedTokens(prompt, { high: prompt.outputTokensHigh, middle: prompt.outputTokensMiddle, low: 1 }, fastestLeftMs, fastest, room);
      const endMs = firstMs + planned * costs.stepWithPrefillsMs * room;
      if (note(prompt.e2eDeadlineAtMs - view.nowMs - endMs, 'e2e', prompt.jobId)) return verdict();
    }
  }

  const reserveMs = RESERVE * fastest.interferenceMs * (1 + Math.sqrt(view.forecast.promptUnevenness - 1));
  for (const stream of savable.running) {
    const room = roomOf(stream.guard);
    const { tpotLimitMs, bankMs, remainingLow, remainingHigh } = stream;
    if (tpotLimitMs !== Number.POSITIVE_INFINITY) {
      if (!view.mechanisms.bankedSlack) {
        if (note(tpotLimitMs - costs.stepWithPrefillsMs * room, 'tpot', stream.jobId)) return verdict();
      } else {
        if (note(streamSlackMs(view, costs, fastest, remainingLow * tpotLimitMs + bankMs - reserveMs, remainingLow, room), 'tpot', stream.jobId)) return verdict();
        if (note(streamSlackMs(view, costs, fastest, remainingHigh * tpotLimitMs + bankMs, remainingHigh, room), 'tpot', stream.jobId)) return verdict();
      }
    }
    if (stream.e2eDeadlineAtMs !== Number.POSITIVE_INFINITY) {
      const leftMs = stream.e2eDeadlineAtMs - view.nowMs;
      const planned = plannedTokens(stream, { high: remainingHigh, middle: stream.remainingMiddle, low: remainingLow }, leftMs, fastest, room);
      if (note(streamSlackMs(view, costs, fastest, leftMs, planned, room), 'e2e', stream.jobId)) return verdict();
    }
  }
  return verdict();
}

/** By how much a time that was predicted may be exceeded, a factor. */
export function roomOf(guard: number): number {
  return 1 + MARGIN.fixed + MARGIN.perGuard * guard;
}

/**
 * By how much a point is unstable: were the fleet's arrivals shared out evenly, batch and step time must settle at it, and the
 * server must have place for them all. With jobs that have no place anywhere, every point but the fastest is unstable. 0 where
 * nothing is wrong, or nothing is expected. What newcomers want of TPOT is planned for when they are there.
 */
function instabilityMs(view: ReplicaView, costs: PointCosts): number {
  if (view.heldBackJobs > 0) return 1;
  if (view.share.perMs <= 0 || !view.mechanisms.forecast) return 0;
  if (!Number.isFinite(costs.settledTpotMs)) return 1;
  const contextTokens = costs.settledSequences * (view.share.promptTokensMean + view.share.outputTokensMean / 2);
  if (costs.settledSequences > SHARE_MAX.places * view.sequencesMax || contextTokens > SHARE_MAX.kv * view.kvTokens) return 1;
  return 0;
}

/**
 * How many tokens to plan an end-to-end deadline by: the length that its class' caution wants, where the fastest point can deliver it in `leftMs`. Where it
 * can only deliver less, but rather enough than not, that: nothing but the fastest point will do. Of one that others can make good (`e2eMoves`),
 * and of one that is rather lost, the first of the quantiles that can be delivered: a long tail would else keep the whole replica at its fastest for nothing.
 */
function plannedTokens({ e2eMoves, guard }: Pick<RunningStream, 'e2eMoves' | 'guard'>, { high, middle, low }: { readonly high: number; readonly middle: number; readonly low: number }, leftMs: number, fastest: PointCosts, room: number): number {
  const most = leftMs / (fastest.stepWithPrefillsMs * room);
  const cautious = Math.max(high, middle + (guard * (high - middle)) / HIGH_DEVIATIONS);
  if (!e2eMoves && most >= middle) return Math.min(most, cautious);
  return [high, middle].find((tokens) => tokens <= most) ?? low;
}

/**
 * What is left of `budgetMs` when a stream has had its `remaining` tokens: the lesser of (1) staying at this point with
 * the expected interference and (2) one more control period here, then the fastest point with the most that arrives
 * lately. (2) is what the planner can fall back on, since it raises at once when something arrives, and newcomers are not
 * sent while they would cost a stream its deadline (`lossRisk`).
 */
function streamSlackMs(view: ReplicaView, costs: PointCosts, fastest: PointCosts, budgetMs: number, remaining: number, room: number): number {
  const expectedMs = budgetMs - tokensTakeMs(costs, remaining, costs.stepWithPrefillsMs) * room;
  if (costs.point === fastest.point) return expectedMs;
  const iterationMs = costs.prefillIterations > 0 ? costs.prefillMs / costs.prefillIterations : costs.stepMs;
  const hereMs = Math.min(view.controlPeriodMs + SWITCH_ALLOWANCE_MS, remaining * iterationMs);
  const here = hereMs / iterationMs;
  const busiestShare = view.mechanisms.forecast ? Math.min(TIME_SHARE_MAX, view.forecast.upperPerMs * fastest.interferenceMs) : 0;
  const laterMs = tokensTakeMs(fastest, remaining - here, fastest.stepMs / (1 - busiestShare), Math.min(here, fastest.prefillIterations));
  return Math.min(expectedMs, budgetMs - hereMs - laterMs * room);
}

/**
 * Even at the fastest point, without any margin and without waiting for the switch, it is too late; or its TPOT is below what
 * the fastest step takes. A raise that might come in time is worth trying.
 */
function isWaitingLost(view: ReplicaView, fastest: PointCosts, prompt: WaitingPrompt, index: number): boolean {
  const leftMs = Math.min(prompt.ttftDeadlineAtMs, prompt.e2eDeadlineAtMs) - view.nowMs;
  return (fastest.firstTokenMs[index] as number) - switchMs(view, fastest.point) > leftMs || prompt.tpotLimitMs < fastest.stepMs;
}

function isRunningLost(view: ReplicaView, fastest: PointCosts, stream: RunningStream): boolean {
  if (stream.e2eDeadlineAtMs - view.nowMs < stream.remainingLow * fastest.stepMs) return true;
  if (stream.tpotLimitMs === Number.POSITIVE_INFINITY) return false;
  // A longer answer has more time to catch up: lost only if the upper quantile of what is left is too little as well.
  const gainMs = stream.tpotLimitMs - fastest.stepMs;
  return Math.max(stream.remainingLow * gainMs, stream.remainingHigh * gainMs) + stream.bankMeanMs < 0;
}

/**
 * How many deadlines are expected to be missed on this replica even at the fastest point: each running stream's and
 * waiting prompt's TPOT by the distribution of its length (a short answer cannot make good what prefills took from
 * it), TTFT and e2e by whether they are predicted to hold. Routing and pacing compare it with and without a job.
 */
export function lossRisk(view: ReplicaView): LossRisk {
  if (sequencesOf(view) === 0) return NO_RISK;
  const fastest = costsAt(view, view.model.fastest);
  // Without what may yet arrive: that is kept back while it would cost a deadline.
  const { stepMs } = fastest;
  const risk = createRiskSum();
  for (const stream of view.running) addStreamRisk(risk, fastest, stream, view.nowMs);
  for (let index = 0; index < view.waiting.length; index++) {
    const prompt = view.waiting[index] as WaitingPrompt;
    const firstMs = (fastest.firstTokenMs[index] as number) * roomOf(prompt.guard);
    const from = fastest.firstTokenIteration[index] as number;
    const late = prompt.ttftDeadlineAtMs - view.nowMs < firstMs;
    const { worth = 1 } = prompt;
    if (late) risk.add(worth, 1, 1);
    else risk.add(worth, e2eRisk(fastest, prompt, prompt.e2eDeadlineAtMs - view.nowMs - firstMs, 1, from), tpotRisk(fastest, prompt, 0, 1, stepMs, from));
  }
  return risk.sum(view.waiting.length > 0);
}

export interface RiskSum {
  /** Of so many alike, each counted by its worth: of one, the chance that it gets too long, and that it is late otherwise. */
  add(count: number, e2e: number, otherwise: number): void;
  /** `hasLast`: what was added last is the part of the last waiting prompt. */
  sum(hasLast: boolean): LossRisk;
}

export function createRiskSum(): RiskSum {
  let [expected, last, sparable, lastSparable] = [0, 0, 0, 0];
  return {
    add(count, e2e, otherwise) {
      last = Math.max(e2e, otherwise);
      lastSparable = e2e >= 1 ? 1 : otherwise;
      expected += count * last;
      sparable += count * lastSparable;
    },
    sum: (hasLast) => ({ expected, last: hasLast ? last : 0, sparable: { expected: sparable, last: hasLast ? lastSparable : 0 } }),
  };
}

/** Of one stream, or several that are alike, at the fastest point. */
export function addStreamRisk(risk: RiskSum, fastest: PointCosts, stream: RunningStream, nowMs: number, count = stream.streams * (stream.worth ?? 1)): void {
  risk.add(count, e2eRisk(fastest, stream, stream.e2eDeadlineAtMs - nowMs, stream.tokensOut, 0), tpotRisk(fastest, stream, stream.bankMeanMs, stream.tokensOut, fastest.stepMs, 0));
}

/**
 * Probability that an answer is longer than what can be had of it in `leftMs` at the fastest point: a token per iteration, the
 * first of which prefill as well. The longest in a hundred count as if they were in time: nobody knows how long they get. What
 * is rather lost than not is taken for lost; what is not, and moves, is no risk at all: others can make it good.
 */
function e2eRisk(fastest: PointCosts, { totals, e2eMoves: moves }: RunningStream | WaitingPrompt, leftMs: number, tokensOut: number, from: number): number {
  if (leftMs === Number.POSITIVE_INFINITY) return 0;
  if (leftMs <= 0) return 1;
  const iterations = Math.max(0, fastest.prefillIterations - from);
  const iterationMs = fastest.prefillIterations > 0 ? fastest.prefillMs / fastest.prefillIterations : fastest.stepMs;
  const tokens = leftMs < iterations * iterationMs ? leftMs / iterationMs : iterations + (leftMs - iterations * iterationMs) / fastest.stepMs;
  const risk = shareLonger(totals, tokensOut, tokensOut + tokens);
  if (risk >= RATHER_LOST) return 1;
  return moves ? 0 : risk;
}

const RATHER_LOST = 0.5;

const NO_RISK: LossRisk = { expected: 0, last: 0, sparable: { expected: 0, last: 0 } };

/**
 * Probability that a stream ends before it has made good what the prefills waiting now take from it. With c per iteration that
 * prefills (k of them), s per step after, limit L and bank b, n further tokens miss where n·L + b < k·c + (n − k)·s, that is
 * n < (k·(c − s) − b)/(L − s); of those, answers short enough to end within the bank, n ≤ b/(c − L), do not.
 */
function tpotRisk(fastest: PointCosts, { tpotLimitMs: limitMs, totals, guard }: RunningStream | WaitingPrompt, bankMs: number, tokensOut: number, stepMs: number, from: number): number {
  if (limitMs === Number.POSITIVE_INFINITY) return 0;
  const iterations = Math.max(0, fastest.prefillIterations - from);
  const iterationMs = iterations > 0 ? (fastest.prefillMs / fastest.prefillIterations) * (1 + BATCH_MARGIN.fixed + BATCH_MARGIN.perGuard * guard) : stepMs;
  const owedMs = iterations * Math.max(0, iterationMs - stepMs) - bankMs;
  if (limitMs <= stepMs) return owedMs > 0 ? 1 : 1 - shareShorter(totals, tokensOut, tokensOut - owedMs / Math.max(1e-6, stepMs - limitMs));
  if (owedMs <= 0) return 0;
  const untilEven = shareShorter(totals, tokensOut, tokensOut + owedMs / (limitMs - stepMs));
  if (iterationMs <= limitMs) {
    // Each iteration gains, if less than a step: nobody falls behind, and who was behind is even sooner or later.
    if (bankMs >= 0) return 0;
    const evenAfter = -bankMs / Math.max(1e-9, limitMs - iterationMs);
    return evenAfter <= iterations ? shareShorter(totals, tokensOut, tokensOut + evenAfter) : untilEven;
  }
  if (bankMs <= 0) return untilEven;
  return Math.max(0, untilEven - shareShorter(totals, tokensOut, tokensOut + bankMs / (iterationMs - limitMs)));
}
