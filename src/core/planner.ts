// Which operating point? The cheapest at which every deadline on the replica is predicted to hold: planned for what is
// expected, kept recoverable (at the fastest point) for what may yet arrive. Pure: a view of the replica in, a plan out.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import type { Forecast } from './arrival-forecast.ts';
import type { JobId } from './job.ts';
import { SWITCH_ALLOWANCE_MS } from './limits.ts';
import { poissonQuantile } from './poisson.ts';

/** A prompt that has been sent and not answered yet, in the order the server will take them. */
export interface WaitingPrompt {
  readonly jobId: JobId;
  readonly promptTokens: number;
  /** How far the server has probably come with it. */
  readonly prefilledTokens: number;
  /** Instants; `Infinity` where there is no such SLO. */
  readonly ttftDeadlineAtMs: number;
  readonly e2eDeadlineAtMs: number;
  /** `Infinity` where there is none. */
  readonly tpotLimitMs: number;
  /** Quantiles of the answer's length, each ≥ 1. */
  readonly outputTokensMiddle: number;
  readonly outputTokensHigh: number;
  /** Caution of its class, standard deviations. */
  readonly guard: number;
}

/** A stream that has had its first token. */
export interface RunningStream {
  readonly jobId: JobId;
  readonly tpotLimitMs: number;
  /** What it is ahead of its TPOT so far: (tokensOut − 1) · limit − time since the first token; negative when behind. */
  readonly bankMs: number;
  readonly e2eDeadlineAtMs: number;
  /** Quantiles of the tokens still to come, each ≥ 1. */
  readonly remainingLow: number;
  readonly remainingMiddle: number;
  readonly remainingHigh: number;
  readonly guard: number;
}

export interface ReplicaView {
  readonly nowMs: number;
  /** The belief. */
  readonly model: PerformanceModel;
  /** Learnt corrections: real time over believed time. */
  readonly timeScale: { readonly prefill: number; readonly decode: number };
  /** Where the device is now; `null` at default clocks, which is the fastest point. */
  readonly appliedPoint: PointIndex | null;
  readonly waiting: readonly WaitingPrompt[];
  readonly running: readonly RunningStream[];
  /** Streams on the server that are not ours. */
  readonly foreignSequences: number;
  /** Tokens in the KV cache of all running streams. */
  readonly contextTokens: number;
  readonly forecast: Forecast;
  readonly outputTokensMean: number;
  /** The tightest TPOT limit of those seen lately; what newcomers will want. `Infinity` when none carried one. */
  readonly tightestTpotMs: number;
  /** The same of TTFT. */
  readonly tightestTtftMs: number;
  /** Jobs with a deadline that wait in our own queue because no replica has room. */
  readonly heldBackJobs: number;
  /** What the server takes at once: streams, and tokens in its KV cache. */
  readonly sequencesMax: number;
  readonly kvTokens: number;
  readonly controlPeriodMs: number;
}

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
}

/** What one operating point means for this view, worked out once. Times are scaled by the learnt corrections. */
interface PointCosts {
  readonly point: PointIndex;
  /** A decode step of everything that runs or will shortly. */
  readonly stepMs: number;
  /** What a typical arrival's prefill adds to every running stream. */
  readonly interferenceMs: number;
  /** The step with the expected share of time given to prefills: what a stream sees. */
  readonly stepWithPrefillsMs: number;
  /** What the prompts waiting now add to every running stream. */
  readonly backlogMs: number;
  /** From now to the first token of each waiting prompt. */
  readonly firstTokenMs: readonly number[];
  /** TPOT at the fixed point of arrivals, batch and step time; `Infinity` when there is none. */
  readonly settledTpotMs: number;
  readonly settledSequences: number;
}

/** Jobs whose deadlines can still be met: waiting prompts by index, running streams. */
interface Savable {
  readonly waiting: readonly number[];
  readonly running: readonly RunningStream[];
}

interface Verdict {
  readonly slackMs: number;
  readonly binding: Binding;
  readonly jobId: JobId | null;
}

/** Share of time, of places, of KV memory beyond which queues no longer settle within a stream's life. */
const UTILISATION_MAX = { time: 0.95, places: 0.85, kv: 0.9 };

/** Relative room in every time prediction: `FIXED + PER_GUARD · guard`. */
const MARGIN = { fixed: 0.02, perGuard: 0.02 };

/**
 * The plan for one replica. O(points × (waiting + running)); nothing is kept between calls.
 * Jobs that cannot be met even at the fastest point bind nothing (they are best effort now); where more is to come the
 * stability constraint still keeps their streams moving.
 */
export function planReplica(view: ReplicaView): Plan {
  const { model } = view;
  if (sequencesOf(view) === 0) return idlePlan(view);
  const fastest = costsAt(view, model.fastest);
  const savable: Savable = {
    waiting: view.waiting.flatMap((prompt, index) => (isWaitingLost(view, fastest, prompt, index) ? [] : [index])),
    running: view.running.filter((stream) => !isRunningLost(view, fastest, stream)),
  };
  const lost = view.waiting.length - savable.waiting.length + view.running.length - savable.running.length;

  let best: { costs: PointCosts; costW: number; verdict: Verdict } | null = null;
  const refused: { costW: number; verdict: Verdict }[] = [];
  for (let point = 0; point < model.points.length; point++) {
    const costs = point === model.fastest ? fastest : costsAt(view, point);
    const costW = excessPowerW(view, costs);
    if (best !== null && costW >= best.costW) continue;
    const verdict = judge(view, savable, costs, fastest, false);
    if (verdict.slackMs >= 0) best = { costs, costW, verdict };
    else refused.push({ costW, verdict });
  }
  const kind = lost > 0 ? 'infeasible' : best === null ? 'tight' : 'meets';
  if (best === null) {
    const { slackMs, jobId } = judge(view, savable, fastest, fastest, true);
    return { kind, point: model.fastest, binding: 'none-feasible', bindingJobId: jobId, slackMs, lost };
  }
  const { costs, costW } = best;
  const nextCheaper = refused.filter((other) => other.costW < costW).reduce<(typeof refused)[number] | null>((next, other) => (next === null || other.costW > next.costW ? other : next), null);
  const { binding, jobId } = nextCheaper?.verdict ?? { binding: 'energy', jobId: null };
  return { kind, point: costs.point, binding, bindingJobId: jobId, slackMs: judge(view, savable, costs, fastest, true).slackMs, lost };
}

function sequencesOf(view: ReplicaView): number {
  return view.running.length + view.waiting.length + view.foreignSequences;
}

/** Predicted time from now to the first token of the `index`-th waiting prompt, at the given point. */
export function predictFirstTokenMs(view: ReplicaView, point: PointIndex, index: number): number {
  return costsAt(view, point).firstTokenMs[index] ?? 0;
}

/** Predicted time per output token at the given point with the present load and the forecast prefills. */
export function predictTpotMs(view: ReplicaView, point: PointIndex): number {
  return costsAt(view, point).stepWithPrefillsMs;
}

/**
 * Where to wait for work: the least idle power at which an arrival as tight as those seen lately is still in time, either
 * without a raise or after one that takes as long as the profile's outliers.
 */
function idlePlan(view: ReplicaView): Plan {
  const { model, forecast, timeScale } = view;
  const { latencyMs, outlierMs = 0 } = model.profile.switch;
  const tokens = Math.ceil(forecast.promptTokensMean * (1 + Math.sqrt(forecast.promptUnevenness - 1)));
  const firstTokenMs = (point: PointIndex): number => model.iterationTimeMs({ prefill: { tokens, contextTokens: 0 }, decode: NO_DECODE }, point) * timeScale.prefill * (1 + MARGIN.fixed);
  const raised = latencyMs + outlierMs + firstTokenMs(model.fastest) <= view.tightestTtftMs;
  let parked = model.fastest;
  for (let point = 0; point < model.points.length; point++) {
    if (model.idlePowerW(point) < model.idlePowerW(parked) && (raised || firstTokenMs(point) <= view.tightestTtftMs)) parked = point;
  }
  return { kind: 'meets', point: parked, binding: 'idle', bindingJobId: null, slackMs: Number.POSITIVE_INFINITY, lost: 0 };
}

const NO_PREFILL = { tokens: 0, contextTokens: 0 };
const NO_DECODE = { sequences: 0, contextTokens: 0 };

function costsAt(view: ReplicaView, point: PointIndex): PointCosts {
  const { model, timeScale, forecast } = view;
  const sequences = sequencesOf(view);
  const waitingTokens = view.waiting.reduce((sum, prompt) => sum + prompt.promptTokens, 0);
  const decode = { sequences, contextTokens: view.contextTokens + waitingTokens };
  const rawStepMs = model.iterationTimeMs({ prefill: NO_PREFILL, decode }, point);
  const stepMs = rawStepMs * timeScale.decode;
  const added = (tokens: number): number =>
    tokens <= 0 ? 0 : (model.iterationTimeMs({ prefill: { tokens, contextTokens: 0 }, decode }, point) - rawStepMs) * timeScale.prefill;
  const interferenceMs = added(forecast.promptTokensMean);
  const prefillShare = forecast.perMs * interferenceMs;

  // Batch, step and arrivals at their fixed point: B = λ·n·s (Little), s = (α + β·B)/(1 − ρ), both linear in B.
  const outPerMs = forecast.perMs * view.outputTokensMean;
  const contextPerSequence = forecast.promptTokensMean + view.outputTokensMean / 2;
  const stepOf = (count: number): number => model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences: count, contextTokens: count * contextPerSequence } }, point) * timeScale.decode;
  const perSequenceMs = (stepOf(65) - stepOf(1)) / 64;
  const baseMs = stepOf(1) - perSequenceMs;
  const utilisation = prefillShare + perSequenceMs * outPerMs;
  const settledTpotMs = utilisation >= UTILISATION_MAX.time ? Number.POSITIVE_INFINITY : baseMs / (1 - utilisation) + perSequenceMs;
  return {
    point,
    stepMs,
    interferenceMs,
    stepWithPrefillsMs: stepMs / (1 - Math.min(UTILISATION_MAX.time, prefillShare)),
    ...promptTimes(view, point, stepMs),
    settledTpotMs,
    settledSequences: outPerMs * settledTpotMs,
  };
}

/**
 * When each waiting prompt gets its first token, and what all of them take from the running streams. In order of arrival:
 * the step under way, the switch if one is still needed, all prompts up to it; for each batch of `maxBatchTokens` one
 * decode step rides along, and the pass over the weights is paid once.
 */
function promptTimes(view: ReplicaView, point: PointIndex, stepMs: number): { firstTokenMs: number[]; backlogMs: number } {
  const { model, timeScale } = view;
  if (view.waiting.length === 0) return { firstTokenMs: [], backlogMs: 0 };
  const { maxBatchTokens } = model.profile.serving;
  const passMs = model.prefillTimeMs({ tokens: 1, contextTokens: 0 }, point) * timeScale.prefill;
  const decoding = view.running.length + view.foreignSequences > 0;
  const perBatchMs = Math.max(decoding ? stepMs : 0, passMs + model.profile.launchOverheadMs);
  const startMs = switchMs(view, point) + (decoding ? stepMs / 2 : 0);
  const firstTokenMs: number[] = [];
  let tokens = 0;
  let workMs = 0;
  for (const prompt of view.waiting) {
    const left = Math.max(1, prompt.promptTokens - prompt.prefilledTokens);
    tokens += left;
    workMs += model.prefillTimeMs({ tokens: left, contextTokens: prompt.prefilledTokens }, point) * timeScale.prefill - passMs;
    firstTokenMs.push(startMs + workMs + perBatchMs * Math.ceil(tokens / maxBatchTokens));
  }
  return { firstTokenMs, backlogMs: workMs + (decoding ? 0 : passMs) };
}

/** Allowance for a raise that is still to come. A lowering costs no deadline: until it lands we are faster than planned. */
function switchMs(view: ReplicaView, point: PointIndex): number {
  const { speedRank, fastest } = view.model;
  return (speedRank[point] as number) < (speedRank[view.appliedPoint ?? fastest] as number) ? SWITCH_ALLOWANCE_MS : 0;
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
    const room = 1 + MARGIN.fixed + MARGIN.perGuard * prompt.guard;
    const firstMs = (costs.firstTokenMs[index] as number) * room;
    if (prompt.ttftDeadlineAtMs !== Number.POSITIVE_INFINITY && note(prompt.ttftDeadlineAtMs - view.nowMs - firstMs, 'ttft', prompt.jobId)) return verdict();
    const tokens = prompt.outputTokensMiddle;
    if (prompt.tpotLimitMs !== Number.POSITIVE_INFINITY && note((prompt.tpotLimitMs - costs.stepWithPrefillsMs * room) * tokens, 'tpot', prompt.jobId)) return verdict();
    if (prompt.e2eDeadlineAtMs !== Number.POSITIVE_INFINITY) {
      const fastestLeftMs = prompt.e2eDeadlineAtMs - view.nowMs - (fastest.firstTokenMs[index] as number) * room;
      const planned = largestFeasible([prompt.outputTokensHigh, prompt.outputTokensMiddle, 1], fastestLeftMs, fastest, room);
      const endMs = firstMs + planned * costs.stepWithPrefillsMs * room;
      if (note(prompt.e2eDeadlineAtMs - view.nowMs - endMs, 'e2e', prompt.jobId)) return verdict();
    }
  }

  for (const stream of savable.running) {
    const room = 1 + MARGIN.fixed + MARGIN.perGuard * stream.guard;
    if (stream.tpotLimitMs !== Number.POSITIVE_INFINITY) {
      const slack = Math.min(
        streamSlackMs(view, costs, fastest, stream, stream.remainingLow * stream.tpotLimitMs + stream.bankMs, stream.remainingLow, room),
        streamSlackMs(view, costs, fastest, stream, stream.remainingHigh * stream.tpotLimitMs + stream.bankMs, stream.remainingHigh, room),
      );
      if (note(slack, 'tpot', stream.jobId)) return verdict();
    }
    if (stream.e2eDeadlineAtMs !== Number.POSITIVE_INFINITY) {
      const leftMs = stream.e2eDeadlineAtMs - view.nowMs;
      const planned = largestFeasible([stream.remainingHigh, stream.remainingMiddle, stream.remainingLow], leftMs, fastest, room);
      const slack = streamSlackMs(view, costs, fastest, stream, leftMs, planned, room);
      if (note(slack, 'e2e', stream.jobId)) return verdict();
    }
  }
  return verdict();
}

/**
 * By how much a point is unstable: where arrivals, batch and step time settle at it, newcomers must still get the tightest
 * TPOT seen lately, and the server must have place for them all. With jobs held back for want of place, every point but
 * the fastest is. 0 where nothing is wrong, or nothing is expected.
 */
function instabilityMs(view: ReplicaView, costs: PointCosts): number {
  if (view.heldBackJobs > 0) return 1;
  if (view.forecast.perMs <= 0) return 0;
  if (!Number.isFinite(costs.settledTpotMs)) return 1;
  const contextTokens = costs.settledSequences * (view.forecast.promptTokensMean + view.outputTokensMean / 2);
  if (costs.settledSequences > UTILISATION_MAX.places * view.sequencesMax || contextTokens > UTILISATION_MAX.kv * view.kvTokens) return 1;
  return Math.max(0, costs.settledTpotMs * (1 + MARGIN.fixed) - view.tightestTpotMs);
}

/**
 * How many tokens to plan an end-to-end deadline by: the first of the quantiles, largest first, that the fastest point can
 * still deliver. One answer's long tail would else keep the whole replica at its fastest for nothing.
 */
function largestFeasible(quantiles: readonly number[], leftMs: number, fastest: PointCosts, room: number): number {
  return quantiles.find((tokens) => tokens * fastest.stepWithPrefillsMs * room <= leftMs) ?? (quantiles.at(-1) as number);
}

/**
 * What is left of `budgetMs` when a stream has had its `remaining` tokens: the lesser of (1) staying at this point with
 * the expected interference and (2) one more control period here, then the fastest point, with an upper quantile of
 * interference. (2) is what the planner can fall back on, since it raises at once when something arrives.
 */
function streamSlackMs(view: ReplicaView, costs: PointCosts, fastest: PointCosts, stream: RunningStream, budgetMs: number, remaining: number, room: number): number {
  const expectedMs = budgetMs - remaining * costs.stepWithPrefillsMs * room - costs.backlogMs;
  const hereMs = Math.min(view.controlPeriodMs + SWITCH_ALLOWANCE_MS, remaining * costs.stepMs);
  const later = Math.max(0, remaining - Math.max(0, hereMs - costs.backlogMs) / costs.stepMs);
  const laterMs = later * fastest.stepMs;
  const arrivals = poissonQuantile(view.forecast.upperPerMs * (hereMs + laterMs), stream.guard);
  const burstMs = fastest.interferenceMs * (arrivals + stream.guard * Math.sqrt(arrivals * (view.forecast.promptUnevenness - 1)));
  const recoverableMs = budgetMs - hereMs - laterMs * room - burstMs - Math.max(0, costs.backlogMs - hereMs);
  return Math.min(expectedMs, recoverableMs);
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
  // A longer answer has more time to catch up: lost only if the upper quantile of what is left is too little as well.
  const byTpot = Math.max(stream.remainingLow * (stream.tpotLimitMs - fastest.stepMs), stream.remainingHigh * (stream.tpotLimitMs - fastest.stepMs)) + stream.bankMs;
  return stream.tpotLimitMs !== Number.POSITIVE_INFINITY && byTpot < 0;
}

/**
 * Expected power above parked idling when the forecast is served at this point: energy of the work that arrives per
 * millisecond less what the group would have idled away in the same time, batch size at its fixed point. With work
 * that never ends it is the busy power, with gaps the gaps count as parked (Perseus' "power of waiting").
 */
const PRESENT_PROMPTS_MS = 1_000;
const PRESENT_TOKENS_MS = 10_000;

function excessPowerW(view: ReplicaView, costs: PointCosts): number {
  const { model, forecast } = view;
  const parkedW = parkedPowerW(model);
  const present = sequencesOf(view);
  // What is here counts as if it arrived within these times: it only sets how much prefill there is to decode.
  const prefillPerMs = forecast.perMs + view.waiting.length / PRESENT_PROMPTS_MS;
  const tokensPerMs = Math.max(forecast.perMs * view.outputTokensMean, present / PRESENT_TOKENS_MS);
  const settled = Number.isFinite(costs.settledSequences) ? costs.settledSequences : present;
  const sequences = Math.max(1, (present + settled) / 2);
  const contextTokens = sequences * (forecast.promptTokensMean + view.outputTokensMean / 2);
  const prefill = { tokens: Math.max(1, forecast.promptTokensMean), contextTokens: 0 };
  const decode = { sequences, contextTokens };
  const prefillJ = model.prefillEnergyJ(prefill, costs.point) - (parkedW * model.prefillTimeMs(prefill, costs.point)) / 1000;
  const stepJ = model.decodeEnergyJ(decode, costs.point) - (parkedW * model.decodeTimeMs(decode, costs.point)) / 1000;
  return 1000 * (prefillPerMs * prefillJ + (tokensPerMs / sequences) * stepJ);
}

/**
 * Energy above parked idling to finish everything known at a point: what routing compares. Streams share their steps, so a
 * fuller batch is cheaper per token. Lengths are planned at their middle quantile.
 */
export function knownWorkJ(view: ReplicaView, point: PointIndex): number {
  const { model } = view;
  const parkedW = parkedPowerW(model);
  const sequences = sequencesOf(view);
  if (sequences === 0) return 0;
  let joules = 0;
  let tokens = 0;
  let contextTokens = view.contextTokens;
  for (const prompt of view.waiting) {
    const work = { tokens: Math.max(1, prompt.promptTokens - prompt.prefilledTokens), contextTokens: prompt.prefilledTokens };
    joules += model.prefillEnergyJ(work, point) - (parkedW * model.prefillTimeMs(work, point)) / 1000;
    tokens += prompt.outputTokensMiddle;
    contextTokens += prompt.promptTokens;
  }
  for (const stream of view.running) tokens += stream.remainingMiddle;
  const decode = { sequences, contextTokens };
  const stepJ = model.decodeEnergyJ(decode, point) - (parkedW * model.decodeTimeMs(decode, point)) / 1000;
  return joules + (tokens / sequences) * stepJ;
}

function parkedPowerW(model: PerformanceModel): number {
  let parkedW = Number.POSITIVE_INFINITY;
  for (let point = 0; point < model.points.length; point++) parkedW = Math.min(parkedW, model.idlePowerW(point));
  return parkedW;
}
