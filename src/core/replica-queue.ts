// The queue model of one replica: what was sent there and what came back, told by events, and what follows from it.
// It keeps the state; the judging is `planner.ts`.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import { type ArrivalForecast, createArrivalForecast } from './arrival-forecast.ts';
import type { GuardBands } from './guard-band.ts';
import type { LengthPredictor } from './length-predictor.ts';
import type { ReplicaView, RunningStream, WaitingPrompt } from './planner.ts';
import type { TrackedJob } from './tracked-job.ts';

export interface ReplicaQueue {
  readonly model: PerformanceModel;
  readonly waitingCount: () => number;
  readonly runningCount: () => number;
  add(job: TrackedJob, nowMs: number): void;
  tokens(job: TrackedJob, tokens: number, nowMs: number): void;
  remove(job: TrackedJob, nowMs: number): void;
  /** The device is at another point from now on; `null` = default clocks. */
  applied(point: PointIndex | null, nowMs: number): void;
  /** All streams on the server by its own metrics, ours included. */
  load(running: number, waiting: number): void;
  /** Streams that other gateways have there, as they say themselves. */
  peerLoad(sequences: number): void;
  /** What the planner judges. With `candidate`: as if that job had just been sent here too. */
  view(nowMs: number, candidate?: TrackedJob): ReplicaView;
  timeScale(): { readonly prefill: number; readonly decode: number };
}

export interface ReplicaQueueOptions {
  readonly model: PerformanceModel;
  readonly lengths: LengthPredictor;
  readonly guards: GuardBands;
  readonly controlPeriodMs: number;
}

/** Quantiles of an answer's length that plans are made with. */
const LENGTH_QUANTILES = { low: 0.04, high: 0.9 };
/** How long a TPOT limit that was seen still counts for the newcomers expected. */
const TIGHTEST_TPOT_MEMORY_MS = 30_000;
/** A correction learns slowly and within bounds: beyond them the profile is of another machine. */
const SCALE = { rate: 0.05, min: 0.5, max: 2 };
/** A sample of the step time needs this many steps to be worth reading through token batching and timer noise. */
const SAMPLE_STEPS_MIN = 4;

export function createReplicaQueue(options: ReplicaQueueOptions): ReplicaQueue {
  const { model, lengths, guards, controlPeriodMs } = options;
  const waiting: TrackedJob[] = [];
  const running = new Set<TrackedJob>();
  const forecast: ArrivalForecast = createArrivalForecast();
  const scale = { prefill: 1, decode: 1 };
  let contextTokens = 0;
  let appliedPoint: PointIndex | null = null;
  /** By the server's metrics, and by what other gateways say: the larger counts. */
  let measuredForeign = 0;
  let peerSequences = 0;
  let foreignSequences = 0;
  /** Tokens of the first waiting prompt that the server has probably prefilled, as of `progressAtMs`. */
  let headTokens = 0;
  let progressAtMs = 0;
  let tightestTpot = { limitMs: Number.POSITIVE_INFINITY, seenAtMs: 0 };
  let outputTokensMean = 0;
  /** A stretch in which only decode ran at one point: what the step time is learnt from. */
  let stretch: { readonly fromMs: number; readonly stepMs: number; steps: number; job: TrackedJob } | null = null;

  function pointNow(): PointIndex {
    return appliedPoint ?? model.fastest;
  }

  function stepNowMs(): number {
    const decode = { sequences: running.size + foreignSequences, contextTokens };
    return model.iterationTimeMs({ prefill: { tokens: 0, contextTokens: 0 }, decode }, pointNow());
  }

  /** Moves the estimate of how far the server is with the first waiting prompt. */
  function progressTo(nowMs: number): void {
    const head = waiting[0];
    const passedMs = nowMs - progressAtMs;
    progressAtMs = nowMs;
    if (head === undefined || passedMs <= 0) return;
    const decode = { sequences: running.size + foreignSequences, contextTokens };
    const tokens = Math.min(model.profile.serving.maxBatchTokens, Math.max(1, head.promptTokens));
    const iterationMs = model.iterationTimeMs({ prefill: { tokens, contextTokens: 0 }, decode }, pointNow()) * scale.prefill;
    headTokens = Math.min(head.promptTokens - 1, headTokens + (tokens * passedMs) / iterationMs);
    // A job that does not stream shows no first token: taken as answered when its prefill should be done.
    if (!head.spec.streaming && head.spec.work === 'generate' && headTokens >= head.promptTokens - 1) startDecode(head, nowMs);
  }

  function startDecode(job: TrackedJob, nowMs: number): void {
    const position = waiting.indexOf(job);
    if (position >= 0) waiting.splice(position, 1);
    if (position === 0) headTokens = 0;
    job.firstTokenAtMs = nowMs;
    job.lastTokenAtMs = nowMs;
    running.add(job);
    contextTokens += job.promptTokens;
  }

  function learnPrefill(job: TrackedJob, nowMs: number): void {
    const startedAtMs = Math.max(job.dispatchedAtMs, progressStart);
    if (waiting[0] !== job || pointChangedAtMs > startedAtMs) return;
    const decode = { sequences: running.size + foreignSequences, contextTokens };
    const believedMs = model.iterationTimeMs({ prefill: { tokens: job.promptTokens, contextTokens: 0 }, decode }, pointNow());
    // The step under way at its arrival had to end first; half of one on average.
    const actualMs = nowMs - startedAtMs - (running.size > 0 ? stepNowMs() / 2 : 0);
    if (actualMs > 0) learn('prefill', actualMs / believedMs);
  }

  let progressStart = 0;
  let pointChangedAtMs = 0;

  function learn(phase: 'prefill' | 'decode', ratio: number): void {
    const bounded = Math.min(SCALE.max, Math.max(SCALE.min, ratio));
    scale[phase] += SCALE.rate * (bounded - scale[phase]);
  }

  /** Ends the stretch when anything that shapes the step changes, and learns from it if it was long enough. */
  function endStretch(nowMs: number): void {
    if (stretch !== null && stretch.steps >= SAMPLE_STEPS_MIN && running.has(stretch.job)) learn('decode', (nowMs - stretch.fromMs) / (stretch.steps * stretch.stepMs));
    stretch = null;
  }

  return {
    model,
    waitingCount: () => waiting.length,
    runningCount: () => running.size,
    timeScale: () => scale,
    add(job, nowMs) {
      progressTo(nowMs);
      stretch = null;
      if (waiting.length === 0) {
        headTokens = 0;
        progressStart = nowMs;
      }
      waiting.push(job);
      forecast.observe(job.promptTokens, nowMs);
      const expected = lengths.mean(job.key);
      outputTokensMean = outputTokensMean === 0 ? expected : outputTokensMean + 0.05 * (expected - outputTokensMean);
      const limitMs = job.spec.slo.tpotMs ?? Number.POSITIVE_INFINITY;
      if (limitMs <= tightestTpot.limitMs || nowMs - tightestTpot.seenAtMs > TIGHTEST_TPOT_MEMORY_MS) tightestTpot = { limitMs, seenAtMs: nowMs };
    },
    tokens(job, tokens, nowMs) {
      if (tokens <= 0) return;
      if (job.firstTokenAtMs === null) {
        progressTo(nowMs);
        learnPrefill(job, nowMs);
        startDecode(job, nowMs);
        progressStart = nowMs;
        stretch = null;
      } else if (stretch?.job === job) {
        stretch.steps += tokens;
        if (stretch.steps >= 4 * SAMPLE_STEPS_MIN) endStretch(nowMs);
      } else if (stretch === null && waiting.length === 0 && job.spec.streaming) {
        stretch = { fromMs: nowMs, stepMs: stepNowMs(), steps: 0, job };
      }
      job.tokensOut += tokens;
      job.lastTokenAtMs = nowMs;
      contextTokens += tokens;
    },
    remove(job, nowMs) {
      progressTo(nowMs);
      endStretch(nowMs);
      if (running.delete(job)) {
        contextTokens -= job.promptTokens + job.tokensOut;
        if (running.size === 0) contextTokens = 0;
        return;
      }
      const position = waiting.indexOf(job);
      if (position >= 0) waiting.splice(position, 1);
      if (position === 0) headTokens = 0;
    },
    applied(point, nowMs) {
      if (point === appliedPoint) return;
      progressTo(nowMs);
      stretch = null;
      appliedPoint = point;
      pointChangedAtMs = nowMs;
    },
    load(serverRunning, serverWaiting) {
      // Smoothed: the server's figures and ours are never of the same instant.
      const foreign = Math.max(0, serverRunning + serverWaiting - running.size - waiting.length);
      measuredForeign = foreign === 0 ? 0 : Math.round(measuredForeign + 0.5 * (foreign - measuredForeign));
      foreignSequences = Math.max(measuredForeign, peerSequences);
    },
    peerLoad(sequences) {
      peerSequences = Math.max(0, sequences);
      foreignSequences = Math.max(measuredForeign, peerSequences);
    },
    view(nowMs, candidate) {
      progressTo(nowMs);
      const jobs = candidate === undefined ? waiting : [...waiting, candidate];
      const stepMs = stepNowMs() * scale.decode;
      return {
        nowMs,
        model,
        timeScale: { ...scale },
        appliedPoint,
        waiting: jobs.map((job, index) => waitingPrompt(job, index === 0 && job !== candidate ? headTokens : 0, lengths, guards)),
        running: Array.from(running, (job) => runningStream(job, nowMs, stepMs, lengths, guards)),
        foreignSequences,
        contextTokens,
        forecast: forecast.at(nowMs),
        outputTokensMean,
        tightestTpotMs: nowMs - tightestTpot.seenAtMs > TIGHTEST_TPOT_MEMORY_MS ? Number.POSITIVE_INFINITY : tightestTpot.limitMs,
        controlPeriodMs,
      };
    },
  };
}

function maxOutputOf(job: TrackedJob): number {
  return job.spec.maxOutputTokens ?? Number.POSITIVE_INFINITY;
}

function waitingPrompt(job: TrackedJob, prefilledTokens: number, lengths: LengthPredictor, guards: GuardBands): WaitingPrompt {
  const { slo } = job.spec;
  return {
    jobId: job.spec.jobId,
    promptTokens: job.promptTokens,
    prefilledTokens: Math.floor(prefilledTokens),
    ttftDeadlineAtMs: job.arrivedAtMs + (slo.ttftMs ?? Number.POSITIVE_INFINITY),
    e2eDeadlineAtMs: job.arrivedAtMs + (slo.e2eMs ?? Number.POSITIVE_INFINITY),
    tpotLimitMs: slo.tpotMs ?? Number.POSITIVE_INFINITY,
    outputTokensHigh: job.spec.work === 'embed' ? 1 : lengths.remaining(job.key, 0, LENGTH_QUANTILES.high, maxOutputOf(job)),
    guard: guards.of(job.spec.sloClass),
  };
}

function runningStream(job: TrackedJob, nowMs: number, stepMs: number, lengths: LengthPredictor, guards: GuardBands): RunningStream {
  const { slo } = job.spec;
  const max = maxOutputOf(job);
  const firstTokenAtMs = job.firstTokenAtMs ?? nowMs;
  const limitMs = slo.tpotMs ?? Number.POSITIVE_INFINITY;
  // Without a stream its tokens are not seen: counted by the time they should have taken.
  const tokensOut = job.spec.streaming ? job.tokensOut : 1 + Math.floor((nowMs - firstTokenAtMs) / stepMs);
  // A missed TTFT cannot be made good: what is left of this job's objectives binds nothing any more.
  const missed = firstTokenAtMs - job.arrivedAtMs > (slo.ttftMs ?? Number.POSITIVE_INFINITY);
  return {
    jobId: job.spec.jobId,
    tpotLimitMs: missed ? Number.POSITIVE_INFINITY : limitMs,
    bankMs: limitMs === Number.POSITIVE_INFINITY ? 0 : (tokensOut - 1) * limitMs - (nowMs - firstTokenAtMs),
    e2eDeadlineAtMs: missed ? Number.POSITIVE_INFINITY : job.arrivedAtMs + (slo.e2eMs ?? Number.POSITIVE_INFINITY),
    remainingLow: lengths.remaining(job.key, tokensOut, LENGTH_QUANTILES.low, max),
    remainingHigh: lengths.remaining(job.key, tokensOut, LENGTH_QUANTILES.high, max),
    guard: guards.of(job.spec.sloClass),
  };
}
