// The account of one job on one replica: what it has done since it was last looked at, in joules by the profile, and what it was
// charged so far.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import type { DecodeWork } from '../frontier/profile.ts';
import { addPrompt, addTokens, noWork, scaleCost, type TokenCost, tokenCostOf, type WorkCost } from './energy-work.ts';
import type { EnergyJob, JobEnergy, WorkDone } from './energy-ledger.ts';
import type { MeteredGroup } from './metered-group.ts';

export interface JobAccount<Job> {
  readonly job: Job;
  /** Of its prompt, believed to have been cached. */
  readonly cachedTokens: number;
  /** What has been looked at: of its prompt, and tokens of steps. */
  prefilled: number;
  decoded: number;
  /** Its server has said how much it was, and all of it is looked at. */
  isWhole: boolean;
  group: MeteredGroup;
  /** Since the last reading. */
  readonly prefill: WorkCost;
  readonly decode: WorkCost;
  meteredJ: number;
  modelledJ: number;
  maximumClockJ: number;
  /** What was said at its end. */
  told: JobEnergy | null;
  /** Has ended, and waits for readings of these. */
  awaits: readonly MeteredGroup[];
}

/** All streams that decode on a replica now, foreign ones too, and how many of them are foreign. */
export type Streams = () => DecodeWork & { readonly foreign: number };

export interface Scales<Job> {
  /** Adds what it has done since it was last looked at, at the points of now. */
  weigh(account: JobAccount<Job>): void;
  /** At its end its server has said how much there was; what was seen until then may have been more or less. */
  weighWhole(account: JobAccount<Job>, done: WorkDone): void;
  /** Streams of others: as many steps as fit into so long. */
  weighOthers(windowMs: number): WorkCost;
}

export function openAccount<Job extends EnergyJob>(job: Job, group: MeteredGroup): JobAccount<Job> {
  return { job, cachedTokens: job.prefilledTokens, prefilled: job.prefilledTokens, decoded: 0, isWhole: false, group, prefill: noWork(), decode: noWork(), meteredJ: 0, modelledJ: 0, maximumClockJ: 0, told: null, awaits: [] };
}

/** What of a job's pending work a group's meter tells. */
export function pendingOf<Job>({ phase }: MeteredGroup, { prefill, decode }: JobAccount<Job>): readonly WorkCost[] {
  if (phase === null) return [prefill, decode];
  return phase === 'prefill' ? [prefill] : [decode];
}

/** `points`: what prompts and streams run at now. */
export function createScales<Job extends EnergyJob>(model: PerformanceModel, streams: Streams, points: { readonly prefill: () => PointIndex; readonly decode: () => PointIndex }): Scales<Job> {
  /** What a token costs, and for which company that was looked up. */
  let rate: { readonly point: PointIndex; readonly sequences: number; readonly contextTokens: number; readonly cost: TokenCost } | null = null;

  /** Looked up anew where it may have changed by more than a few parts in a hundred; it only weighs. */
  function tokenCost(): TokenCost {
    const all = streams();
    const point = points.decode();
    if (rate === null || rate.point !== point || rate.sequences !== all.sequences || Math.abs(all.contextTokens - rate.contextTokens) > 0.03 * rate.contextTokens) {
      rate = { point, sequences: all.sequences, contextTokens: all.contextTokens, cost: tokenCostOf(model, all, point) };
    }
    return rate.cost;
  }

  function weighTokens(account: JobAccount<Job>, decoded: number): void {
    const more = decoded - account.decoded;
    if (more <= 0) return;
    addTokens(account.decode, tokenCost(), more, account.job.promptTokens + account.decoded + more / 2);
    account.decoded = decoded;
  }

  return {
    weigh(account) {
      const { job } = account;
      if (account.isWhole) return;
      const prefilled = job.firstTokenAtMs === null ? Math.min(job.prefilledTokens, job.promptTokens) : job.promptTokens;
      if (prefilled > account.prefilled) {
        addPrompt(account.prefill, model, account.prefilled, prefilled, points.prefill());
        account.prefilled = prefilled;
      }
      weighTokens(account, Math.max(0, job.tokensOut - 1));
    },
    weighWhole(account, done) {
      if (account.isWhole) return;
      account.isWhole = true;
      const seen = account.prefilled - account.cachedTokens;
      if (done.prefilledTokens > seen) addPrompt(account.prefill, model, account.prefilled, account.prefilled + done.prefilledTokens - seen, points.prefill());
      else if (seen > 0) scaleCost(account.prefill, done.prefilledTokens / seen);
      const decoded = Math.max(0, done.outputTokens - 1);
      if (decoded < account.decoded) scaleCost(account.decode, decoded / account.decoded);
      weighTokens(account, decoded);
    },
    weighOthers(windowMs) {
      const others = noWork();
      const { foreign, ...all } = streams();
      if (foreign === 0) return others;
      const cost = tokenCost();
      const contextTokens = all.contextTokens / Math.max(1, all.sequences);
      const stepMs = all.sequences * (cost.step.timeMs + contextTokens * cost.context.timeMs);
      if (stepMs > 0) addTokens(others, cost, (foreign * windowMs) / stepMs, contextTokens);
      return others;
    },
  };
}
