// What a decision sees of one replica at one instant: plain values, made by `replica-queue.ts`, judged by `planner.ts`.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import type { Forecast } from './arrival-forecast.ts';
import type { PointScale, Pricing } from './corrections.ts';
import type { JobId } from './job.ts';
import type { Mechanisms } from './mechanisms.ts';

/** A prompt that has been sent and not answered yet, in the order the server will take them. */
export interface WaitingPrompt {
  readonly jobId: JobId;
  readonly promptTokens: number;
  /** How far the server has probably come with it, from what it had cached on. */
  readonly prefilledTokens: number;
  /** Instants; `Infinity` where there is no such SLO. */
  readonly ttftDeadlineAtMs: number;
  readonly e2eDeadlineAtMs: number;
  /** That deadline is its workflow's to move: what exceeds it, others make good, so that nobody is kept waiting for its sake. */
  readonly e2eMoves: boolean;
  /** `Infinity` where there is none. */
  readonly tpotLimitMs: number;
  /** Quantiles of the answer's length, each ≥ 1. */
  readonly outputTokensMiddle: number;
  readonly outputTokensHigh: number;
  /** The same as a table, see `LENGTH_LEVELS`. */
  readonly totals: Float64Array;
  /** Caution of its class, standard deviations. */
  readonly guard: number;
  /** What meeting its deadlines counts for; default 1. */
  readonly worth?: number;
}

/** A stream that has had its first token; or several that are alike, with the worst of each limit and of what is left to meet it. */
export interface RunningStream {
  readonly jobId: JobId;
  /** How many it stands for. */
  readonly streams: number;
  readonly tpotLimitMs: number;
  /** What it is ahead of its TPOT so far: (tokensOut − 1) · limit − time since the first token; negative when behind. */
  readonly bankMs: number;
  /** The mean of those it stands for. */
  readonly bankMeanMs: number;
  readonly e2eDeadlineAtMs: number;
  /** As of a prompt; of several: of all. */
  readonly e2eMoves: boolean;
  /** Of several the mean. */
  readonly tokensOut: number;
  /** Quantiles of the tokens still to come, each ≥ 1. */
  readonly remainingLow: number;
  readonly remainingMiddle: number;
  readonly remainingHigh: number;
  /** Quantiles of its whole length as a table, see `LENGTH_LEVELS`. */
  readonly totals: Float64Array;
  readonly guard: number;
  /** Of several the mean; default 1. */
  readonly worth?: number;
}

/** The same while it is made. */
export type StreamRecord = { -readonly [Field in keyof RunningStream]: RunningStream[Field] };

/** A replica's part of what the whole fleet is sent: sizes are the fleet's, since routing sends small and large prompts apart. */
export interface FleetShare {
  readonly perMs: number;
  readonly promptTokensMean: number;
  readonly prefillTokensMean: number;
  readonly outputTokensMean: number;
}

/** The device groups of a server that prefills on some devices and decodes on others. */
export const PHASE_GROUPS = ['prefill', 'decode'] as const;
export type PhaseGroup = (typeof PHASE_GROUPS)[number];

/** One of them: `appliedPoint` as in `ReplicaView`; whether its clocks follow. */
export interface GroupState {
  readonly appliedPoint: PointIndex | null;
  readonly controlled: boolean;
}

/** Its lists belong to the queue it was made by: good until the queue is told the next thing. */
export interface ReplicaView {
  readonly nowMs: number;
  /** The belief. */
  readonly model: PerformanceModel;
  readonly mechanisms: Mechanisms;
  /** Learnt corrections: real time over believed time, by point. */
  readonly timeScale: PointScale;
  /** What work costs in joules, with what was learnt of it. */
  readonly priced: Pricing;
  /** Where the device is now; `null` at default clocks, which is the fastest point. */
  readonly appliedPoint: PointIndex | null;
  /** Where prompts are prefilled on devices of their own; `appliedPoint` is then the decode group's. `phase-views.ts` makes two views of it. */
  readonly groups?: Readonly<Record<PhaseGroup, GroupState>>;
  /** It is a view of one of these groups: what the other does takes none of its time. */
  readonly phase?: PhaseGroup;
  readonly waiting: readonly WaitingPrompt[];
  readonly running: readonly RunningStream[];
  /** Streams that run, each counted by itself. */
  readonly runningCount: number;
  /** Streams on the server that are not ours. */
  readonly foreignSequences: number;
  /** Tokens in the KV cache of all running streams. */
  readonly contextTokens: number;
  readonly forecast: Forecast;
  /** What would arrive here if every replica that could serve it took its part: what a point must be able to sustain. */
  readonly share: FleetShare;
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

/** Everything that decodes there now or will shortly. */
export function sequencesOf(view: ReplicaView): number {
  return view.runningCount + view.waiting.length + view.foreignSequences;
}
