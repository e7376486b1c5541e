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
  /** Upper quantile of the answer's length. */
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
  readonly controlPeriodMs: number;
}

export type Binding = 'idle' | 'ttft' | 'tpot' | 'e2e' | 'stability' | 'energy' | 'none-feasible';

export interface Plan {
  /** `infeasible`: some deadline fails even at the fastest point; `point` is then the fastest, named as what it is. */
  readonly kind: 'meets' | 'infeasible';
  readonly point: PointIndex;
  /** What forbids the next cheaper point; `energy` when nothing does and this point is simply the cheapest. */
  readonly binding: Binding;
  readonly bindingJobId: JobId | null;
  /** Least slack over all deadlines at the chosen point; `Infinity` without deadlines. */
  readonly slackMs: number;
  /** Energy above parked idling to finish everything known, at the chosen point. What routing compares. */
  readonly knownWorkJ: number;
  /** Jobs given up: some deadline of theirs would be missed even at the fastest point. */
  readonly lost: number;
}

/** What one operating point means for this view, worked out once. Times are scaled by the learnt corrections. */
interface PointCosts {
  readonly point: PointIndex;
  /** A decode step of everything that runs or will shortly. */
  readonly stepMs: number;
  /** What a typical arrival's prefill adds to every running stream. */
  readonly interferenceMs: number;
  /** Share of time that forecast prefills take; ≥ 1 is unstable. */
  readonly prefillShare: number;
  /** The same for the upper forecast. */
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

/** Share of time beyond which queues no longer settle within a stream's life. */
const UTILISATION_MAX = 0.95;

/** Relative room in every time prediction: `FIXED + PER_GUARD · guard`. */
const MARGIN = { fixed: 0.02, perGuard: 0.02 };

/**
 * The plan for one replica. O(points × (waiting + running)); nothing is kept between calls.
 * Jobs that cannot be met even at the fastest point do not bind (they are best effort now); the stability
 * constraint still keeps their streams moving.
 */
export function planReplica(view: ReplicaView): Plan {
  const { model } = view;
  const sequences = view.running.length + view.waiting.length + view.foreignSequences;
  if (sequences === 0) return idlePlan(view);
  const fastest = costsAt(view, model.fastest);
  const savable: Savable = {
    waiting: view.waiting.flatMap((prompt, index) => (isWaitingLost(view, prompt, fastest.firstTokenMs[index] as number) ? [] : [index])),
    running: view.running.filter((stream) => !isRunningLost(view, fastest, stream)),
  };

  const lost = view.waiting.length - savable.waiting.length + view.running.length - savable.running.length;

  let best: { costs: PointCosts; costW: number; verdict: Verdict } | null = null;
  let refused: { costW: number; verdict: Verdict } | null = null;
  for (let point = 0; point < model.points.length; point++) {
    const costs = point === model.fastest ? fastest : costsAt(view, point);
    const costW = excessPowerW(view, costs);
    if (best !== null && costW >= best.costW) continue;
    const verdict = judge(view, savable, costs, fastest, false);
    if (verdict.slackMs >= 0) best = { costs, costW, verdict };
    else if (refused === null || costW < refused.costW) refused = { costW, verdict };
  }
  if (best === null) {
    const verdict = judge(view, savable, fastest, fastest, true);
    return { kind: 'infeasible', point: model.fastest, binding: 'none-feasible', bindingJobId: verdict.jobId, slackMs: verdict.slackMs, knownWorkJ: knownWorkJ(view, fastest), lost };
  }
  const why = refused !== null && refused.costW < best.costW ? refused.verdict : { binding: 'energy' as const, jobId: null };
  const slackMs = judge(view, savable, best.costs, fastest, true).slackMs;
  return { kind: 'meets', point: best.costs.point, binding: why.binding, bindingJobId: why.jobId, slackMs, knownWorkJ: knownWorkJ(view, best.costs), lost };
}

/** Predicted time from now to the first token of the `index`-th waiting prompt, at the given point. */
export function predictFirstTokenMs(view: ReplicaView, point: PointIndex, index: number): number {
  return costsAt(view, point).firstTokenMs[index] ?? 0;
}

/** Predicted time per output token at the given point with the present load and the forecast prefills. */
export function predictTpotMs(view: ReplicaView, point: PointIndex): number {
  return costsAt(view, point).stepWithPrefillsMs;
}

function idlePlan(view: ReplicaView): Plan {
  const { model } = view;
  let parked = 0;
  for (let point = 1; point < model.points.length; point++) if (model.idlePowerW(point) < model.idlePowerW(parked)) parked = point;
  return { kind: 'meets', point: parked, binding: 'idle', bindingJobId: null, slackMs: Number.POSITIVE_INFINITY, knownWorkJ: 0, lost: 0 };
}

function costsAt(view: ReplicaView, point: PointIndex): PointCosts {
  const { model, timeScale, forecast } = view;
  const sequences = view.running.length + view.waiting.length + view.foreignSequences;
  const waitingTokens = view.waiting.reduce((sum, prompt) => sum + prompt.promptTokens, 0);
  const decode = { sequences, contextTokens: view.contextTokens + waitingTokens };
  const none = { tokens: 0, contextTokens: 0 };
  const rawStepMs = model.iterationTimeMs({ prefill: none, decode }, point);
  const stepMs = rawStepMs * timeScale.decode;
  const added = (tokens: number): number =>
    tokens <= 0 ? 0 : (model.iterationTimeMs({ prefill: { tokens, contextTokens: 0 }, decode }, point) - rawStepMs) * timeScale.prefill;
  const interferenceMs = added(forecast.promptTokensMean);
  const prefillShare = forecast.perMs * interferenceMs;
  const upperShare = Math.min(UTILISATION_MAX, forecast.perMs * interferenceMs);

  // Batch, step and arrivals at their fixed point: B = λ·n·s (Little), s = (α + β·B)/(1 − ρ), both linear in B.
  const outPerMs = forecast.perMs * view.outputTokensMean;
  const contextPerSequence = forecast.promptTokensMean + view.outputTokensMean / 2;
  const stepOf = (count: number): number => model.iterationTimeMs({ prefill: none, decode: { sequences: count, contextTokens: count * contextPerSequence } }, point) * timeScale.decode;
  const perSequenceMs = (stepOf(65) - stepOf(1)) / 64;
  const baseMs = stepOf(1) - perSequenceMs;
  const utilisation = prefillShare + perSequenceMs * outPerMs;
  const settledTpotMs = utilisation >= UTILISATION_MAX ? Number.POSITIVE_INFINITY : baseMs / (1 - utilisation) + perSequenceMs;
  return {
    point,
    stepMs,
    interferenceMs,
    prefillShare,
    stepWithPrefillsMs: stepMs / (1 - upperShare),
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
  const perBatchMs = model.profile.launchOverheadMs + (decoding ? Math.max(stepMs, passMs) : passMs);
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

  // Stability: where the forecast settles at this point, newcomers must still get their TPOT.
  if (costs.point !== fastest.point && view.forecast.perMs > 0) {
    const limitMs = Number.isFinite(view.tightestTpotMs) ? view.tightestTpotMs : Number.MAX_VALUE;
    const settledMs = costs.settledTpotMs * (1 + MARGIN.fixed);
    if (settledMs > limitMs && note(limitMs - Math.min(settledMs, 1e9), 'stability', null)) return verdict();
  }

  for (const index of savable.waiting) {
    const prompt = view.waiting[index] as WaitingPrompt;
    const room = 1 + MARGIN.fixed + MARGIN.perGuard * prompt.guard;
    const firstMs = (costs.firstTokenMs[index] as number) * room;
    if (prompt.ttftDeadlineAtMs !== Number.POSITIVE_INFINITY && note(prompt.ttftDeadlineAtMs - view.nowMs - firstMs, 'ttft', prompt.jobId)) return verdict();
    if (prompt.tpotLimitMs !== Number.POSITIVE_INFINITY && note((prompt.tpotLimitMs - costs.stepWithPrefillsMs * room) * 10, 'tpot', prompt.jobId)) return verdict();
    if (prompt.e2eDeadlineAtMs !== Number.POSITIVE_INFINITY) {
      const endMs = firstMs + prompt.outputTokensHigh * costs.stepWithPrefillsMs * room;
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
      const slack = streamSlackMs(view, costs, fastest, stream, stream.e2eDeadlineAtMs - view.nowMs, stream.remainingHigh, room);
      if (note(slack, 'e2e', stream.jobId)) return verdict();
    }
  }
  return verdict();
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

/** Even at the fastest point and without any margin it is too late. */
function isWaitingLost(view: ReplicaView, prompt: WaitingPrompt, firstTokenMs: number): boolean {
  const leftMs = Math.min(prompt.ttftDeadlineAtMs, prompt.e2eDeadlineAtMs) - view.nowMs;
  return firstTokenMs > leftMs;
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
function excessPowerW(view: ReplicaView, costs: PointCosts): number {
  const { model, forecast } = view;
  const parkedW = parkedPowerW(model);
  const prefillPerMs = forecast.perMs + view.waiting.length / 1000;
  const present = view.running.length + view.waiting.length + view.foreignSequences;
  const tokensPerMs = Math.max(forecast.perMs * view.outputTokensMean, present / 10_000);
  const settled = Number.isFinite(costs.settledSequences) ? costs.settledSequences : present;
  const sequences = Math.max(1, (present + settled) / 2);
  const contextTokens = sequences * (forecast.promptTokensMean + view.outputTokensMean / 2);
  const prefill = { tokens: Math.max(1, forecast.promptTokensMean), contextTokens: 0 };
  const decode = { sequences, contextTokens };
  const prefillJ = model.prefillEnergyJ(prefill, costs.point) - (parkedW * model.prefillTimeMs(prefill, costs.point)) / 1000;
  const stepJ = model.decodeEnergyJ(decode, costs.point) - (parkedW * model.decodeTimeMs(decode, costs.point)) / 1000;
  return 1000 * (prefillPerMs * prefillJ + (tokensPerMs / sequences) * stepJ);
}

/** Energy above parked idling to finish what is known. Streams share their steps, so a fuller batch is cheaper per token. */
function knownWorkJ(view: ReplicaView, costs: PointCosts): number {
  const { model } = view;
  const parkedW = parkedPowerW(model);
  const sequences = view.running.length + view.waiting.length + view.foreignSequences;
  if (sequences === 0) return 0;
  let joules = 0;
  let tokens = 0;
  let contextTokens = view.contextTokens;
  for (const prompt of view.waiting) {
    const work = { tokens: Math.max(1, prompt.promptTokens - prompt.prefilledTokens), contextTokens: prompt.prefilledTokens };
    joules += model.prefillEnergyJ(work, costs.point) - (parkedW * model.prefillTimeMs(work, costs.point)) / 1000;
    tokens += prompt.outputTokensHigh / 2;
    contextTokens += prompt.promptTokens;
  }
  for (const stream of view.running) tokens += (stream.remainingLow + stream.remainingHigh) / 2;
  const decode = { sequences, contextTokens };
  const stepJ = model.decodeEnergyJ(decode, costs.point) - (parkedW * model.decodeTimeMs(decode, costs.point)) / 1000;
  return joules + (tokens / sequences) * stepJ;
}

function parkedPowerW(model: PerformanceModel): number {
  let parkedW = Number.POSITIVE_INFINITY;
  for (let point = 0; point < model.points.length; point++) parkedW = Math.min(parkedW, model.idlePowerW(point));
  return parkedW;
}
