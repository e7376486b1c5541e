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
  /** Since the last reading: prompt, and tokens that have a price. */
  readonly prefill: WorkCost;
  readonly decode: WorkCost;
  /** Tokens that have none yet, and what they had in the cache, all together. */
  tokens: number;
  contexts: number;
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
  /** Adds what it has done since it was last looked at. */
  weigh(account: JobAccount<Job>): void;
  /** At its end its server has said how much there was; what was seen until then may have been more or less. */
  weighWhole(account: JobAccount<Job>, done: WorkDone): void;
  /** What tokens of these have cost at the point of now: one rate for all of one time, so that it does not matter who ended first. */
  priceAll(accounts: Iterable<JobAccount<Job>>): void;
  /** The same of one alone, in the company that there is now. */
  price(account: JobAccount<Job>): void;
  /** What that would be. */
  unpriced(account: JobAccount<Job>): Readonly<WorkCost>;
  /** Streams of others: as many steps as fit into so long. */
  weighOthers(windowMs: number): WorkCost;
}

export function openAccount<Job extends EnergyJob>(job: Job, group: MeteredGroup): JobAccount<Job> {
  return { job, cachedTokens: job.prefilledTokens, prefilled: job.prefilledTokens, decoded: 0, isWhole: false, group, prefill: noWork(), decode: noWork(), tokens: 0, contexts: 0, meteredJ: 0, modelledJ: 0, maximumClockJ: 0, told: null, awaits: [] };
}

/** What of a job's pending work a group's meter tells. */
export function pendingOf<Job>({ phase }: MeteredGroup, { prefill, decode }: JobAccount<Job>): readonly WorkCost[] {
  if (phase === null) return [prefill, decode];
  return phase === 'prefill' ? [prefill] : [decode];
}

/** `points`: what prompts and streams run at now. */
export function createScales<Job extends EnergyJob>(model: PerformanceModel, streams: Streams, points: { readonly prefill: () => PointIndex; readonly decode: () => PointIndex }): Scales<Job> {
  function addDecoded(account: JobAccount<Job>, decoded: number): void {
    const more = decoded - account.decoded;
    if (more <= 0) return;
    account.tokens += more;
    account.contexts += more * (account.job.promptTokens + account.decoded + more / 2);
    account.decoded = decoded;
  }

  function priceAt(account: JobAccount<Job>, cost: TokenCost): void {
    if (account.tokens === 0) return;
    addTokens(account.decode, cost, account.tokens, account.contexts / account.tokens);
    account.tokens = 0;
    account.contexts = 0;
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
      addDecoded(account, Math.max(0, job.tokensOut - 1));
    },
    weighWhole(account, done) {
      if (account.isWhole) return;
      account.isWhole = true;
      const seen = account.prefilled - account.cachedTokens;
      if (done.prefilledTokens > seen) addPrompt(account.prefill, model, account.prefilled, account.prefilled + done.prefilledTokens - seen, points.prefill());
      else if (seen > 0) scaleCost(account.prefill, done.prefilledTokens / seen);
      const decoded = Math.max(0, done.outputTokens - 1);
      if (decoded < account.decoded) scaleDecoded(account, decoded / account.decoded);
      addDecoded(account, decoded);
    },
    priceAll(accounts) {
      const all = [...accounts].filter(({ tokens }) => tokens > 0);
      if (all.length === 0) return;
      // Who has had the most was there all the time: so many steps there were, and the others took part in some of them.
      const steps = all.reduce((most, { tokens }) => Math.max(most, tokens), 0);
      const { sequences: now, contextTokens, foreign } = streams();
      const sequences = all.reduce((sum, { tokens }) => sum + tokens, 0) / steps + foreign;
      const cost = tokenCostOf(model, { sequences, contextTokens: all.reduce((sum, { contexts }) => sum + contexts, 0) / steps + (foreign * contextTokens) / Math.max(1, now) }, points.decode());
      for (const account of all) priceAt(account, cost);
    },
    price(account) {
      if (account.tokens > 0) priceAt(account, tokenCostOf(model, streams(), points.decode()));
    },
    unpriced({ tokens, contexts }) {
      const cost = noWork();
      if (tokens > 0) addTokens(cost, tokenCostOf(model, streams(), points.decode()), tokens, contexts / tokens);
      return cost;
    },
    weighOthers(windowMs) {
      const others = noWork();
      const { foreign, ...all } = streams();
      if (foreign === 0) return others;
      const cost = tokenCostOf(model, all, points.decode());
      const contextTokens = all.contextTokens / Math.max(1, all.sequences);
      const stepMs = all.sequences * (cost.step.timeMs + contextTokens * cost.context.timeMs);
      if (stepMs > 0) addTokens(others, cost, (foreign * windowMs) / stepMs, contextTokens);
      return others;
    },
  };
}

function scaleDecoded<Job>(account: JobAccount<Job>, factor: number): void {
  scaleCost(account.decode, factor);
  account.tokens *= factor;
  account.contexts *= factor;
}
