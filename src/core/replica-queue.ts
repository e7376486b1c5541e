// The queue model of one replica: what was sent there and what came back, told by events, and what follows from it.
// It keeps the state; the judging is `planner.ts`.
import { NO_DECODE, NO_PREFILL, type PerformanceModel, type PointIndex, promptTimeMs } from '../frontier/performance-model.ts';
import type { PowerLimitedModel } from '../frontier/power-limited.ts';
import type { DecodeWork, Phase } from '../frontier/profile.ts';
import { type ArrivalForecast, createArrivalForecast } from './arrival-forecast.ts';
import { type Corrections, createCorrections, pricedUnder } from './corrections.ts';
import { createDriftAlarm, type Drift } from './drift-alarm.ts';
import type { EnergyWindow } from './energy-ledger.ts';
import type { GuardBands } from './guard-band.ts';
import { LENGTH_LEVELS, LEVEL, type LengthPredictor } from './length-predictor.ts';
import { ALL_MECHANISMS, type Mechanisms } from './mechanisms.ts';
import { type FleetShare, type GroupState, type PhaseGroup, type ReplicaView, type WaitingPrompt } from './replica-view.ts';
import { createRunningStreams } from './running-streams.ts';
import type { LearnedModel } from './learned-model.ts';
import type { Learnt } from './shared-learning.ts';
import { createTightest } from './tightest.ts';
import { maxOutputOf, type PrefillSeen, tpotLimitOf, type TrackedJob } from './tracked-job.ts';

export interface ReplicaQueue {
  /** As it is now: under a power limit the model is the limited one. */
  readonly model: () => PerformanceModel;
  readonly waitingCount: () => number;
  readonly runningCount: () => number;
  /** Jobs that have missed a deadline already: without a first token by its deadline. */
  readonly lateCount: (nowMs: number) => number;
  /** Another number after every change that a view would show. */
  readonly version: () => number;
  /** The same, but for tokens of streams that run already. */
  readonly structure: () => number;
  /** Streams on the server that are not ours. */
  readonly foreignCount: () => number;
  /** All that decode there now, foreign ones too: how many, and what they have in the KV cache. */
  readonly decoding: () => DecodeWork & { readonly foreign: number };
  add(job: TrackedJob, nowMs: number): void;
  tokens(job: TrackedJob, tokens: number, nowMs: number): void;
  remove(job: TrackedJob, nowMs: number): void;
  /** All of it is due at another instant from now on. */
  deadlineMoved(job: TrackedJob, due: { readonly atMs: number; readonly moves: boolean }): void;
  /** Its jobs (or this one) show what they have probably done by now. */
  bringUpToDate(nowMs: number, job?: TrackedJob): void;
  /** What the server says of a job that has ended: so much of its prompt it had not to read. */
  cached(job: TrackedJob, promptTokens: number, cachedTokens: number): void;
  /** The device is at another point from now on; `null` = default clocks. */
  applied(point: PointIndex | null, nowMs: number): void;
  /** The same of one of the groups of a disaggregated server, and whether its clocks follow. */
  groupApplied(group: PhaseGroup, state: GroupState, nowMs: number): void;
  /** Its devices are held to a power limit from now on, under which they work as the given model says; `null`: to none. */
  limited(model: PowerLimitedModel | null, nowMs: number): void;
  /** All streams on the server by its own metrics, ours included. */
  load(running: number, waiting: number): void;
  /** Streams that other gateways have there, as they say themselves. */
  peerLoad(sequences: number): void;
  /** Jobs with a deadline that wait in our own queue for a replica like this one. */
  heldBack(jobs: number): void;
  /** What the planner judges, brought up to `nowMs`. With `candidate`: as if that job had just been sent here too. */
  view(nowMs: number, candidate?: TrackedJob): ReplicaView;
  readonly corrections: Corrections;
  /** Whether its times have left the profile, by phase. */
  drift(): Readonly<Record<Phase, Drift>>;
  /** What its counters said of a window. */
  energySeen(window: EnergyWindow): void;
  /** The same as seen here, without what others say. */
  learnt(): { readonly prefill: Learnt; readonly decode: Learnt };
  /** What other gateways have learnt of it, all together. */
  peersLearnt(others: { readonly prefill: Learnt; readonly decode: Learnt }): void;
}

export interface ReplicaQueueOptions {
  readonly model: PerformanceModel;
  readonly lengths: LengthPredictor;
  readonly guards: GuardBands;
  readonly controlPeriodMs: number;
  /** Jobs sent at once at most. */
  readonly concurrencyMax: number;
  /** It prefills on some of its devices and decodes on the others. */
  readonly disaggregated?: boolean;
  /** What falls to this replica if all take their part of what the fleet is sent. Default: its own arrivals. */
  readonly share?: (nowMs: number) => FleetShare;
  /** `model` is this one's, and learns from what is seen here; it has no other corrections of times. */
  readonly learned?: LearnedModel;
  /** Default: all. */
  readonly mechanisms?: Mechanisms;
  /** Views show every running stream by itself, however many: for rivals that look at each. */
  readonly streamsApart?: boolean;
  /** Called at the start of `view`: tokens that came since may be told now. */
  readonly bringUpToDate?: () => void;
}

/** A table of length quantiles is looked up again when the answer has grown by this factor: the bins it is made of are as wide. */
const LOOK_UP_AGAIN = 1.15;
/** A stretch in which only decode ran, and alike, at one point. */
interface Stretch {
  readonly fromMs: number;
  readonly point: PointIndex;
  readonly decode: DecodeWork;
  steps: number;
  readonly job: TrackedJob;
}

/** A sample of the step time needs this many steps to be worth reading through token batching and timer noise. */
const SAMPLE_STEPS_MIN = 4;

export function createReplicaQueue(options: ReplicaQueueOptions): ReplicaQueue {
  const { model: unlimited, learned, lengths, guards, controlPeriodMs, mechanisms = ALL_MECHANISMS } = options;
  let model = unlimited;
  const { maxSequences, kvTokens } = model.profile.serving;
  const sequencesMax = Math.min(options.concurrencyMax, maxSequences);
  const waiting: TrackedJob[] = [];
  const forecast: ArrivalForecast = createArrivalForecast();
  const corrections = createCorrections(model);
  let priced = corrections.priced;
  const drift = { prefill: createDriftAlarm(), decode: createDriftAlarm() };
  const running = createRunningStreams({ guards, tableOf, apart: options.streamsApart ?? false });
  let version = 0;
  let structure = 0;
  /** The last view, good for as long as neither time nor version has moved on. */
  let seen: ReplicaView | null = null;
  let seenVersion = -1;
  let appliedPoint: PointIndex | null = null;
  let groups: Readonly<Record<PhaseGroup, GroupState>> | null = options.disaggregated === true ? { prefill: DEFAULT_CLOCKS, decode: DEFAULT_CLOCKS } : null;
  /** By the server's metrics, and by what other gateways say: the larger counts. */
  let measuredForeign = 0;
  let peerSequences = 0;
  let foreignSequences = 0;
  let heldBackJobs = 0;
  let progressAtMs = 0;
  /** When the server probably turned to the first waiting prompt. */
  let headSinceMs = 0;
  let pointChangedAtMs = 0;
  const tightestTpot = createTightest();
  const tightestTtft = createTightest();
  let outputTokensMean = 0;
  /** A stretch in which only decode ran at one point: what the step time is learnt from. */
  let stretch: Stretch | null = null;

  function pointNow(): PointIndex {
    return appliedPoint ?? model.fastest;
  }

  /** What prompts are prefilled at, and beside. */
  function prefillsNow(): { readonly point: PointIndex; readonly decode: DecodeWork } {
    if (groups !== null) return { point: groups.prefill.appliedPoint ?? model.fastest, decode: NO_DECODE };
    return { point: pointNow(), decode: decodingNow() };
  }

  function stepNowMs(): number {
    return model.iterationTimeMs({ prefill: NO_PREFILL, decode: decodingNow() }, pointNow());
  }

  function decodingNow(): DecodeWork {
    return { sequences: running.count() + foreignSequences, contextTokens: running.contextTokens() };
  }

  /** Lets what cannot be seen go on: prompts being prefilled, in order, and the tokens of jobs that do not stream. */
  function progressTo(nowMs: number): void {
    const passedMs = nowMs - progressAtMs;
    if (passedMs <= 0) return;
    progressAtMs = nowMs;
    if (running.count() > 0) running.steps(passedMs / (stepNowMs() * (corrections.time.decode[pointNow()] as number)));
    if (waiting.length === 0) return;
    // Batch by batch: with more context behind it each takes longer, and a long prompt's last batches several times its first.
    for (let leftMs = passedMs; leftMs > 0 && waiting.length > 0; ) {
      const head = waiting[0] as TrackedJob;
      const ofHead = head.promptTokens - head.prefilledTokens;
      let unseen = 0;
      for (const job of waiting) unseen += job.promptTokens - job.prefilledTokens;
      const tokens = Math.min(model.profile.serving.maxBatchTokens, unseen);
      if (tokens <= 0) break;
      const prefill = { tokens, contextTokens: head.prefilledTokens * Math.min(1, ofHead / tokens) };
      const { point, decode } = prefillsNow();
      const batchMs = model.iterationTimeMs({ prefill, decode }, point) * (corrections.time.prefill[point] as number);
      const share = Math.min(1, leftMs / batchMs);
      leftMs -= batchMs;
      prefillSome(share * tokens, nowMs);
    }
  }

  function prefillSome(tokens: number, nowMs: number): void {
    let done = tokens;
    for (const job of waiting.slice()) {
      const prefilled = Math.min(done, job.promptTokens - job.prefilledTokens);
      job.prefilledTokens += prefilled;
      done -= prefilled;
      // A job that does not stream shows no first token: taken as answered when its prefill should be done.
      if (!job.spec.streaming && job.spec.work === 'generate' && job.prefilledTokens >= job.promptTokens) {
        version += 1;
        structure += 1;
        startDecode(job, nowMs);
      }
      if (done <= 0) break;
    }
  }

  function leaveQueue(job: TrackedJob, nowMs: number): void {
    const position = waiting.indexOf(job);
    if (position >= 0) waiting.splice(position, 1);
    if (position === 0) headSinceMs = nowMs;
  }

  function startDecode(job: TrackedJob, nowMs: number): void {
    leaveQueue(job, nowMs);
    running.add(job, nowMs);
  }

  /** From a prompt that had the server's prefill to itself; of several in one batch nobody can tell whose time it was. */
  function learnPrefill(job: TrackedJob, nowMs: number): void {
    const startedAtMs = Math.max(job.dispatchedAtMs, headSinceMs);
    if (waiting.length !== 1 || waiting[0] !== job || pointChangedAtMs > startedAtMs || job.dispatchedAtMs < headSinceMs) return;
    // The step under way at its arrival had to end first; half of one on average.
    const actualMs = nowMs - startedAtMs - (groups === null && running.count() > 0 ? stepNowMs() / 2 : 0);
    if (actualMs <= 0) return;
    const seen = { tookMs: actualMs, ...prefillsNow() };
    // What was cached of it only the server knows, which tells at the end.
    if (mechanisms.prefixAffinity && job.spec.prefix !== undefined) job.prefillSeen = seen;
    else learnPrompt(seen, job.promptTokens, 0, nowMs);
  }

  function believedPrefillMs({ point, decode }: PrefillSeen, promptTokens: number, cachedTokens: number): number {
    return promptTimeMs(promptTokens, model.profile.serving.maxBatchTokens, (prefill) => model.iterationTimeMs({ prefill, decode }, point), cachedTokens);
  }

  function learnPrompt(seen: PrefillSeen, promptTokens: number, cachedTokens: number, nowMs: number): void {
    if (!mechanisms.residuals) return;
    if (learned !== undefined) learned.prefillSeen({ ...seen, promptTokens, cachedTokens });
    else timeSeen('prefill', seen.point, seen.tookMs / believedPrefillMs(seen, promptTokens, cachedTokens), nowMs);
  }

  function learnStep({ point, decode, job }: Stretch, tookMs: number): void {
    if (!mechanisms.residuals) return;
    if (learned !== undefined) learned.decodeSeen({ point, decode, stepMs: tookMs });
    else timeSeen('decode', point, tookMs / model.iterationTimeMs({ prefill: NO_PREFILL, decode }, point), job.lastTokenAtMs);
  }

  function timeSeen(phase: Phase, point: PointIndex, ratio: number, nowMs: number): void {
    corrections.timeSeen(phase, point, ratio);
    drift[phase].observe(ratio, nowMs);
  }

  /** Ends the stretch, up to its job's last token, when anything that shapes the step changes; learns from it if it was long enough. */
  function endStretch(): void {
    if (stretch !== null && stretch.steps >= SAMPLE_STEPS_MIN) learnStep(stretch, (stretch.job.lastTokenAtMs - stretch.fromMs) / stretch.steps);
    stretch = null;
  }

  function tableOf(job: TrackedJob): Float64Array {
    if (job.totals === null || job.tokensOut > LOOK_UP_AGAIN * job.totalsAtTokens + 1) {
      job.totalsAtTokens = Math.floor(job.tokensOut);
      job.totals = mechanisms.lengthQuantiles
        ? lengths.totals(job.lengthKey, job.totalsAtTokens, maxOutputOf(job))
        : new Float64Array(LENGTH_LEVELS.length).fill(Math.min(maxOutputOf(job), Math.max(job.totalsAtTokens + 1, lengths.mean(job.lengthKey))));
    }
    return job.totals;
  }

  function updateForeign(): void {
    // What waits on the server is counted with what runs there, but no more run at once than it takes.
    foreignSequences = Math.min(maxSequences, Math.max(Math.round(measuredForeign), peerSequences));
  }

  return {
    model: () => model,
    waitingCount: () => waiting.length,
    runningCount: () => running.count(),
    lateCount: (nowMs) => waiting.reduce((sum, { arrivedAtMs, e2eDeadlineAtMs, spec: { slo } }) => sum + Number(nowMs > Math.min(e2eDeadlineAtMs, arrivedAtMs + (slo.ttftMs ?? Number.POSITIVE_INFINITY))), 0),
    version: () => version,
    structure: () => structure,
    foreignCount: () => foreignSequences,
    decoding: () => ({ sequences: running.count() + foreignSequences, contextTokens: running.contextTokens() * (1 + foreignSequences / Math.max(1, running.count())), foreign: foreignSequences }),
    corrections,
    drift: () => ({ prefill: drift.prefill.state(), decode: drift.decode.state() }),
    energySeen(window) {
      if (mechanisms.residuals) corrections.energySeen(window);
    },
    learnt: () => ({ prefill: corrections.own('prefill'), decode: corrections.own('decode') }),
    peersLearnt(told) {
      // What others have learnt is how far a profile is off, and here is none.
      if (!mechanisms.residuals || learned !== undefined) return;
      version += 1;
      structure += 1;
      corrections.peers(told);
    },
    add(job, nowMs) {
      version += 1;
      structure += 1;
      progressTo(nowMs);
      stretch = null;
      if (waiting.length === 0) headSinceMs = nowMs;
      waiting.push(job);
      forecast.observe(job.promptTokens, nowMs, job.promptTokens - job.cachedTokens);
      const expected = job.spec.work === 'embed' ? 1 : Math.min(maxOutputOf(job), lengths.mean(job.lengthKey));
      outputTokensMean = outputTokensMean === 0 ? expected : outputTokensMean + 0.05 * (expected - outputTokensMean);
      tightestTtft.observe(job.spec.slo.ttftMs, nowMs);
      // A limit that one stream alone cannot keep at the fastest point is nothing to plan newcomers by.
      const aloneMs = model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences: 1, contextTokens: job.promptTokens } }, model.fastest) * (corrections.time.decode[model.fastest] as number);
      if (tpotLimitOf(job) > aloneMs) tightestTpot.observe(tpotLimitOf(job), nowMs);
    },
    tokens(job, tokens, nowMs) {
      version += 1;
      if (tokens <= 0) return;
      const first = job.firstTokenAtMs === null;
      if (first) {
        structure += 1;
        progressTo(nowMs);
        learnPrefill(job, nowMs);
        startDecode(job, nowMs);
        stretch = null;
      }
      running.tokens(job, tokens);
      job.lastTokenAtMs = nowMs;
      if (first) return;
      if (stretch?.job === job) {
        stretch.steps += tokens;
        if (stretch.steps >= 4 * SAMPLE_STEPS_MIN) endStretch();
      } else if (stretch === null && (groups !== null || waiting.length === 0) && job.spec.streaming) {
        stretch = { fromMs: nowMs, point: pointNow(), decode: decodingNow(), steps: 0, job };
      }
    },
    remove(job, nowMs) {
      version += 1;
      structure += 1;
      progressTo(nowMs);
      endStretch();
      if (!running.delete(job)) leaveQueue(job, nowMs);
    },
    deadlineMoved(job, { atMs, moves }) {
      version += 1;
      structure += 1;
      job.e2eDeadlineAtMs = atMs;
      job.e2eMoves = moves;
      running.deadlineMoved(job);
    },
    bringUpToDate(nowMs, job) {
      progressTo(nowMs);
      running.bringUpToDate(job);
    },
    cached(job, promptTokens, cachedTokens) {
      if (job.prefillSeen === null || cachedTokens >= promptTokens) return;
      learnPrompt(job.prefillSeen, promptTokens, cachedTokens, job.firstTokenAtMs ?? job.dispatchedAtMs);
      job.prefillSeen = null;
    },
    applied(point, nowMs) {
      if (point === appliedPoint) return;
      version += 1;
      structure += 1;
      progressTo(nowMs);
      stretch = null;
      appliedPoint = point;
      pointChangedAtMs = nowMs;
    },
    groupApplied(group, state, nowMs) {
      if (groups === null) return;
      const before = groups[group];
      if (before.appliedPoint === state.appliedPoint && before.controlled === state.controlled) return;
      version += 1;
      structure += 1;
      progressTo(nowMs);
      if (before.appliedPoint !== state.appliedPoint) {
        if (group === 'prefill') pointChangedAtMs = nowMs;
        else stretch = null;
      }
      groups = { ...groups, [group]: state };
      appliedPoint = groups.decode.appliedPoint;
    },
    limited(under, nowMs) {
      const next = under ?? unlimited;
      if (next === model) return;
      version += 1;
      structure += 1;
      progressTo(nowMs);
      stretch = null;
      model = next;
      priced = under === null ? corrections.priced : pricedUnder(corrections.priced, under);
      pointChangedAtMs = nowMs;
    },
    load(serverRunning, serverWaiting) {
      version += 1;
      structure += 1;
      // Smoothed: the server's figures and ours are never of the same instant.
      const foreign = Math.max(0, serverRunning + serverWaiting - running.count() - waiting.length);
      measuredForeign = foreign === 0 ? 0 : measuredForeign + 0.5 * (foreign - measuredForeign);
      updateForeign();
    },
    peerLoad(sequences) {
      version += 1;
      structure += 1;
      peerSequences = Math.max(0, sequences);
      updateForeign();
    },
    heldBack(jobs) {
      if (jobs === heldBackJobs) return;
      version += 1;
      structure += 1;
      heldBackJobs = jobs;
    },
    view(nowMs, candidate) {
      options.bringUpToDate?.();
      progressTo(nowMs);
      if (seen === null || seen.nowMs !== nowMs || seenVersion !== version) {
        seen = viewNow(nowMs);
        seenVersion = version;
      }
      return candidate === undefined ? seen : { ...seen, waiting: [...seen.waiting, waitingPrompt(candidate, tableOf(candidate), guards)] };
    },
  };

  function viewNow(nowMs: number): ReplicaView {
    const expected = forecast.at(nowMs);
    return {
      nowMs,
      model,
      mechanisms,
      timeScale: corrections.time,
      priced,
      appliedPoint,
      ...(groups === null ? {} : { groups }),
      waiting: waiting.map((job) => waitingPrompt(job, tableOf(job), guards)),
      running: running.seen(nowMs),
      runningCount: running.count(),
      foreignSequences,
      contextTokens: running.contextTokens(),
      forecast: expected,
      share: options.share?.(nowMs) ?? { perMs: expected.perMs, promptTokensMean: expected.promptTokensMean, prefillTokensMean: expected.prefillTokensMean, outputTokensMean },
      outputTokensMean,
      tightestTpotMs: tightestTpot.at(nowMs),
      tightestTtftMs: tightestTtft.at(nowMs),
      heldBackJobs,
      sequencesMax,
      kvTokens,
      controlPeriodMs,
    };
  }
}


const DEFAULT_CLOCKS: GroupState = { appliedPoint: null, controlled: false };

function waitingPrompt(job: TrackedJob, totals: Float64Array, guards: GuardBands): WaitingPrompt {
  const { slo, work, jobId, sloClass, worth } = job.spec;
  return {
    jobId,
    promptTokens: job.promptTokens,
    prefilledTokens: Math.floor(job.prefilledTokens),
    ttftDeadlineAtMs: job.arrivedAtMs + (slo.ttftMs ?? Number.POSITIVE_INFINITY),
    e2eDeadlineAtMs: job.e2eDeadlineAtMs,
    e2eMoves: job.e2eMoves,
    tpotLimitMs: tpotLimitOf(job),
    outputTokensMiddle: work === 'embed' ? 1 : (totals[LEVEL.middle] as number),
    outputTokensHigh: work === 'embed' ? 1 : (totals[LEVEL.high] as number),
    totals,
    guard: guards.of(sloClass),
    ...(worth === undefined ? {} : { worth }),
  };
}
