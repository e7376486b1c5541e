// The streams of one replica that have had their first token, and what a decision sees of them: each by itself while they
// are few; alike ones together when they are many, looked over no more often than a small share of the time allows. So
// what an arrival costs does not grow with what is in flight.
import type { GuardBands } from './guard-band.ts';
import { LEVEL } from './length-predictor.ts';
import { STREAMS } from './limits.ts';
import type { RunningStream, StreamRecord } from './replica-view.ts';
import { isOfWorkflow, maxOutputOf, tpotLimitOf, type TrackedJob } from './tracked-job.ts';

export interface RunningStreams {
  count(): number;
  /** Tokens in the KV cache of all of them. */
  contextTokens(): number;
  /** It had its first token at `nowMs`. */
  add(job: TrackedJob, nowMs: number): void;
  /** False where it was not here. */
  delete(job: TrackedJob): boolean;
  tokens(job: TrackedJob, tokens: number): void;
  /** Its end-to-end deadline is another one now. */
  deadlineMoved(job: TrackedJob): void;
  /** What a job has had that does not show it, as far as is believed. */
  bringUpToDate(job?: TrackedJob): void;
  /** So many decode steps are over: a token each for those whose tokens are not seen. */
  steps(steps: number): void;
  /** For a decision at `nowMs`; good until the next call. */
  seen(nowMs: number): readonly RunningStream[];
}

export interface RunningStreamsOptions {
  readonly guards: GuardBands;
  readonly tableOf: (job: TrackedJob) => Float64Array;
  /** Every stream by itself, however many. */
  readonly apart: boolean;
}

export function createRunningStreams({ guards, tableOf, apart }: RunningStreamsOptions): RunningStreams {
  /** With the number of steps that were over when it began. */
  const jobs = new Map<TrackedJob, number>();
  /** Of jobs that do not stream: what they have had is only believed. */
  let unseen = 0;
  let stepsOver = 0;
  let contextTokens = 0;
  let groups = new Map<number, StreamRecord>();
  let surveyedAtMs = Number.NEGATIVE_INFINITY;
  /** How coarse the groups have to be. */
  let width = 1;
  let surveys = 0;
  /** Began since the last survey. */
  let fresh: TrackedJob[] = [];

  function bringUpToDate(job: TrackedJob): void {
    if (job.spec.streaming) return;
    job.tokensOut = Math.min(maxOutputOf(job), stepsOver - (jobs.get(job) ?? stepsOver));
  }

  function seenAt(job: TrackedJob, nowMs: number): RunningStream {
    bringUpToDate(job);
    return streamOf(job, nowMs, tableOf(job), guards.of(job.spec.sloClass));
  }

  /** Into the group of its like; `false` where that would be one more than there may be. */
  function fold(job: TrackedJob, nowMs: number, groupsMax: number): boolean {
    const stream = seenAt(job, nowMs);
    const key = groupKey(stream, nowMs, width);
    const group = groups.get(key);
    if (group !== undefined) join(group, stream);
    else if (groups.size < groupsMax || width >= WIDEST) groups.set(key, { ...stream });
    else return false;
    return true;
  }

  /** One pass over all, into as few groups as are allowed: where there are too many, once more with wider ones. */
  function survey(nowMs: number): void {
    surveyedAtMs = nowMs;
    fresh.length = 0;
    surveys += 1;
    // Now and then it is tried with finer ones again.
    if (surveys % NARROWED_EVERY === 0) width = Math.max(1, width / 2);
    for (;;) {
      groups = new Map();
      contextTokens = 0;
      let fits = true;
      for (const job of jobs.keys()) {
        if (!fold(job, nowMs, STREAMS.groupsMax)) {
          fits = false;
          break;
        }
        contextTokens += job.promptTokens + job.tokensOut;
      }
      if (fits) return;
      width *= 2;
    }
  }

  /** What has begun since the last survey, to the others; a survey where it fits nowhere. */
  function foldFresh(nowMs: number): void {
    const all = fresh;
    fresh = [];
    if (!all.every((job) => fold(job, nowMs, STREAMS.groupsMax + STREAMS.freshMax))) survey(nowMs);
  }

  return {
    count: () => jobs.size,
    contextTokens: () => contextTokens,
    bringUpToDate(job) {
      if (job !== undefined) bringUpToDate(job);
      else if (unseen > 0) for (const each of jobs.keys()) bringUpToDate(each);
    },
    add(job, nowMs) {
      job.firstTokenAtMs = nowMs;
      job.lastTokenAtMs = nowMs;
      jobs.set(job, stepsOver - job.tokensOut);
      if (!job.spec.streaming) unseen += 1;
      contextTokens += job.promptTokens;
      if (fresh.length <= STREAMS.freshMax) fresh.push(job);
      // Nobody has looked for so long that they are too many to be remembered one by one.
      else surveyedAtMs = Number.NEGATIVE_INFINITY;
    },
    delete(job) {
      if (!jobs.has(job)) return false;
      bringUpToDate(job);
      jobs.delete(job);
      if (!job.spec.streaming) unseen -= 1;
      contextTokens = jobs.size === 0 ? 0 : Math.max(0, contextTokens - job.promptTokens - job.tokensOut);
      const place = fresh.indexOf(job);
      if (place >= 0) fresh.splice(place, 1);
      return true;
    },
    tokens(job, tokens) {
      job.tokensOut += tokens;
      contextTokens += tokens;
    },
    deadlineMoved(job) {
      if (job.seenAs === null) return;
      job.seenAs.e2eDeadlineAtMs = job.e2eDeadlineAtMs;
      job.seenAs.e2eMoves = job.e2eMoves;
      surveyedAtMs = Number.NEGATIVE_INFINITY;
    },
    steps(steps) {
      stepsOver += steps;
      contextTokens += unseen * steps;
    },
    seen(nowMs) {
      const list: RunningStream[] = [];
      if (apart || jobs.size <= STREAMS.apartMax) {
        surveyedAtMs = Number.NEGATIVE_INFINITY;
        fresh.length = 0;
        contextTokens = 0;
        for (const job of jobs.keys()) {
          list.push(seenAt(job, nowMs));
          contextTokens += job.promptTokens + job.tokensOut;
        }
        return list;
      }
      if (nowMs - surveyedAtMs >= jobs.size * STREAMS.surveyMsPerStream) survey(nowMs);
      else if (fresh.length > STREAMS.freshMax) foldFresh(nowMs);
      for (const group of groups.values()) list.push(group);
      for (const job of fresh) list.push(seenAt(job, nowMs));
      return list;
    },
  };
}

/** Surveys between two tries with finer groups. */
const NARROWED_EVERY = 16;

/** From here on everything with the same kinds of limits is one group. */
const WIDEST = 64;

/** Streams with one key are near each other in limit, bank, tokens to come and deadline: each within a factor that grows with `width`. */
function groupKey(stream: RunningStream, nowMs: number, width: number): number {
  const { tpotLimitMs, e2eDeadlineAtMs, e2eMoves, bankMs, remainingLow } = stream;
  const limit = tpotLimitMs === Number.POSITIVE_INFINITY ? 0 : 1 + Math.min(62, Math.floor((4 * Math.log2(1 + tpotLimitMs)) / width));
  const deadline = e2eDeadlineAtMs === Number.POSITIVE_INFINITY ? 0 : 1 + bin(Math.max(0, e2eDeadlineAtMs - nowMs), 2 / width, 62);
  if (limit === 0 && deadline === 0) return 0;
  const bank = limit === 0 ? 0 : 32 + Math.sign(bankMs) * bin(Math.abs(bankMs) / tpotLimitMs, 1 / width, 31);
  return (((Number(e2eMoves) * 64 + limit) * 64 + deadline) * 64 + bank) * 64 + bin(remainingLow, 1 / width, 63);
}

function bin(value: number, perDoubling: number, max: number): number {
  return Math.min(max, Math.floor(perDoubling * Math.log2(1 + value)));
}

/** Limits by the worst of the group, so that what holds for it holds for each; what is counted by the mean. */
function join(group: StreamRecord, stream: RunningStream): void {
  const streams = group.streams + 1;
  if (stream.bankMs < group.bankMs) {
    group.bankMs = stream.bankMs;
    group.jobId = stream.jobId;
  }
  group.bankMeanMs += (stream.bankMs - group.bankMeanMs) / streams;
  group.tokensOut += (stream.tokensOut - group.tokensOut) / streams;
  group.tpotLimitMs = Math.min(group.tpotLimitMs, stream.tpotLimitMs);
  group.e2eDeadlineAtMs = Math.min(group.e2eDeadlineAtMs, stream.e2eDeadlineAtMs);
  group.e2eMoves &&= stream.e2eMoves;
  group.remainingLow = Math.min(group.remainingLow, stream.remainingLow);
  group.remainingMiddle = Math.max(group.remainingMiddle, stream.remainingMiddle);
  group.remainingHigh = Math.max(group.remainingHigh, stream.remainingHigh);
  group.guard = Math.max(group.guard, stream.guard);
  const { worth = 1 } = group;
  if (stream.worth !== undefined || group.worth !== undefined) group.worth = worth + ((stream.worth ?? 1) - worth) / streams;
  group.streams = streams;
}

function streamOf(job: TrackedJob, nowMs: number, totals: Float64Array, guard: number): RunningStream {
  const { slo, jobId, streaming, worth } = job.spec;
  const firstTokenAtMs = job.firstTokenAtMs ?? nowMs;
  const tokensOut = Math.floor(job.tokensOut);
  const limitMs = tpotLimitOf(job);
  // One object per job, brought up to date in place: thousands a second would else be garbage.
  let record = job.seenAs;
  if (record === null) {
    // A missed TTFT cannot be made good: what is left of this job's objectives binds nothing any more.
    // Without a stream the first token is an estimate, and is not what the job is judged by.
    const missed = streaming && firstTokenAtMs - job.arrivedAtMs > (slo.ttftMs ?? Number.POSITIVE_INFINITY);
    record = {
      jobId,
      streams: 1,
      tpotLimitMs: missed ? Number.POSITIVE_INFINITY : limitMs,
      // What is left of a workflow is due all the same.
      e2eDeadlineAtMs: missed && !isOfWorkflow(job) ? Number.POSITIVE_INFINITY : job.e2eDeadlineAtMs,
      e2eMoves: job.e2eMoves,
      bankMs: 0,
      bankMeanMs: 0,
      tokensOut,
      remainingLow: 1,
      remainingMiddle: 1,
      remainingHigh: 1,
      totals,
      guard,
      ...(worth === undefined ? {} : { worth }),
    };
    job.seenAs = record;
  }
  // Without a stream, TTFT and TPOT are one budget: what the first token was early, the others may take.
  const earlyMs = streaming || slo.ttftMs === undefined ? 0 : job.arrivedAtMs + slo.ttftMs - firstTokenAtMs;
  record.bankMs = limitMs === Number.POSITIVE_INFINITY ? 0 : (tokensOut - 1) * limitMs - (nowMs - firstTokenAtMs) + earlyMs;
  record.bankMeanMs = record.bankMs;
  record.tokensOut = tokensOut;
  record.remainingLow = Math.max(1, (totals[LEVEL.low] as number) - tokensOut);
  record.remainingMiddle = Math.max(1, (totals[LEVEL.middle] as number) - tokensOut);
  record.remainingHigh = Math.max(1, (totals[LEVEL.high] as number) - tokensOut);
  record.totals = totals;
  record.guard = guard;
  return record;
}
