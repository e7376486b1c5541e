// What is asked of the fleet as a whole, by model: what arrives, what is sent on, how large it is, and what of it falls to one
// replica. The planner provides for a replica's part of this and not for what routing happened to send there lately.
import { type ArrivalForecast, createArrivalForecast } from '../core/arrival-forecast.ts';
import type { AwakeLoad } from '../core/awake-plan.ts';
import type { Corrections } from '../core/corrections.ts';
import type { JobSpec } from '../core/job.ts';
import type { FleetShare } from '../core/replica-view.ts';
import { marginalJ, targetPoint } from '../core/target-point.ts';
import { createTightest, type Tightest } from '../core/tightest.ts';
import { parkedPowerW } from '../core/work-energy.ts';
import type { PendingJob } from '../core/tracked-job.ts';
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import type { PowerDemand } from './power-limits.ts';
import type { ReplicaSpec } from './replica.ts';

export interface FleetDemand {
  /** `prefillTokens`: of its prompt what no replica has cached; `outputTokens`: as long as its answer is expected to get. */
  arrived(job: PendingJob, sizes: { readonly prefillTokens: number; readonly outputTokens: number }, nowMs: number): void;
  sent(job: PendingJob, nowMs: number): void;
  /** Jobs of a model that will be sent in so long. Who waits for company may count on these, and not on others that wait as well. */
  sentWithin(model: string, ms: number, nowMs: number): number;
  /** What falls to a replica if every one that is up takes its part of the models it serves. Looked up once for all replicas that serve the same. */
  shareOf(spec: ReplicaSpec, nowMs: number): FleetShare;
  /** The point at which the fleet does best, of replicas with this one's belief, by what arrives for the job's model; looked up again every second. */
  targetOf(spec: ReplicaSpec, learnt: Pick<Corrections, 'time' | 'priced'>, job: PendingJob, nowMs: number): PointIndex;
  /** What falls to a replica in the same way, with what an output token may take on average and what a job is worth. */
  powerDemandOf(spec: ReplicaSpec, nowMs: number): PowerDemand;
  /**
   * Joules that one more job of the model takes: at the rate at which they are sent now, and where as many come as arrive now and so many
   * that wait are worked off within a time. Looked up again every second.
   */
  takesJ(spec: ReplicaSpec, learnt: Pick<Corrections, 'time' | 'priced'>, of: { readonly model: string; readonly waiting: number; readonly sleeps: boolean }, nowMs: number): { readonly now: number; readonly within: (ms: number) => number };
  /** All that arrives for these models, and what there must be room for so long from now. */
  loadOf(models: readonly string[], horizonMs: number, nowMs: number): AwakeLoad;
  /** Some replica came, went, or has another breaker. */
  changed(): void;
}

/** What arrives for a model: mean output tokens, and mean of 1/TPOT, so that jobs without a limit count, too. */
interface ArrivalSizes {
  outputTokensMean: number;
  perTpotMean: number;
  worthMean: number;
  /** Of those with a limit alone; 0: none has one. */
  limitedPerTpotMean: number;
  readonly tightestTtft: Tightest;
}

/** How old what was looked up for many jobs may get. */
export const TARGET_EVERY_MS = 1_000;

/** The fleet's rate and sizes move over seconds. */
const SHARE_EVERY_MS = 250;

/** Arrivals in a stretch are about Poisson: this many standard deviations above their mean come in one of twenty. */
const PEAK_DEVIATIONS = 1.645;

/** No peak is looked for in less time than this; a server queues for as long without harm. */
const PEAK_MS_MIN = 5_000;

/** Times so alike are one. */
const SAME_TIME_SHARE = 0.05;

/** Of each job in the means of sizes: about the last fifty of a model count. */
const SIZE_WEIGHT = 0.02;

/** `replicasOf`: replicas that jobs of a model go to now. All maps are bounded by the models and beliefs that are configured. */
export function createFleetDemand({ replicasOf }: { readonly replicasOf: (model: string) => number }): FleetDemand {
  const arrivals = new Map<string, ArrivalForecast>();
  const departures = new Map<string, ArrivalForecast>();
  const sizes = new Map<string, ArrivalSizes>();
  const shares = new Map<string, { readonly atMs: number; readonly share: FleetShare }>();
  const margins = new Map<string, { readonly atMs: number; readonly now: number; readonly within: (ms: number) => number }>();
  const targets = new Map<PerformanceModel, Map<string, { readonly atMs: number; readonly point: PointIndex }>>();

  function observeSizes({ work, slo, model, worth = 1 }: JobSpec, outputTokens: number, nowMs: number): void {
    const perTpot = work === 'embed' || slo.tpotMs === undefined ? 0 : 1 / slo.tpotMs;
    let known = sizes.get(model);
    if (known === undefined) {
      known = { outputTokensMean: outputTokens, perTpotMean: perTpot, limitedPerTpotMean: perTpot, worthMean: worth, tightestTtft: createTightest() };
      sizes.set(model, known);
    } else {
      known.outputTokensMean += SIZE_WEIGHT * (outputTokens - known.outputTokensMean);
      known.perTpotMean += SIZE_WEIGHT * (perTpot - known.perTpotMean);
      known.worthMean += SIZE_WEIGHT * (worth - known.worthMean);
      if (perTpot > 0) known.limitedPerTpotMean += (known.limitedPerTpotMean === 0 ? 1 : SIZE_WEIGHT) * (perTpot - known.limitedPerTpotMean);
    }
    known.tightestTtft.observe(slo.ttftMs, nowMs);
  }

  function shareOf(spec: ReplicaSpec, nowMs: number): FleetShare {
    const key = spec.models.length === 1 ? (spec.models[0] as string) : spec.models.join('\n');
    const known = shares.get(key);
    if (known !== undefined && nowMs - known.atMs < SHARE_EVERY_MS) return known.share;
    let perMs = 0;
    let promptTokensPerMs = 0;
    let prefillTokensPerMs = 0;
    let outputTokensPerMs = 0;
    for (const model of spec.models) {
      const forecast = arrivals.get(model)?.at(nowMs);
      if (forecast === undefined) continue;
      const part = forecast.perMs / Math.max(1, replicasOf(model));
      perMs += part;
      promptTokensPerMs += part * forecast.promptTokensMean;
      prefillTokensPerMs += part * forecast.prefillTokensMean;
      outputTokensPerMs += part * (sizes.get(model)?.outputTokensMean ?? 0);
    }
    const mean = (ofAllPerMs: number): number => (perMs > 0 ? ofAllPerMs / perMs : 0);
    const share = { perMs, promptTokensMean: mean(promptTokensPerMs), prefillTokensMean: mean(prefillTokensPerMs), outputTokensMean: mean(outputTokensPerMs) };
    shares.set(key, { atMs: nowMs, share });
    return share;
  }

  return {
    arrived(job, { prefillTokens, outputTokens }, nowMs) {
      forecastOf(arrivals, job.spec.model).observe(job.promptTokens, nowMs, prefillTokens);
      observeSizes(job.spec, outputTokens, nowMs);
    },
    sent: (job, nowMs) => forecastOf(departures, job.spec.model).observe(job.promptTokens, nowMs),
    sentWithin: (model, ms, nowMs) => forecastOf(departures, model).expectedWithin(ms, nowMs),
    shareOf,
    powerDemandOf(spec, nowMs) {
      const share = shareOf(spec, nowMs);
      let perMs = 0;
      let perTpot = 0;
      let worth = 0;
      for (const model of spec.models) {
        const ofModel = (arrivals.get(model)?.at(nowMs).perMs ?? 0) / Math.max(1, replicasOf(model));
        const { perTpotMean = 0, worthMean = 1 } = sizes.get(model) ?? {};
        perMs += ofModel;
        perTpot += ofModel * perTpotMean;
        worth += ofModel * worthMean;
      }
      return { ...share, tpotMs: perTpot <= 0 ? Number.POSITIVE_INFINITY : perMs / perTpot, worthMean: perMs <= 0 ? 1 : worth / perMs };
    },
    targetOf({ belief, disaggregated = false }, learnt, { spec: { model }, promptTokens }, nowMs) {
      let byModel = targets.get(belief);
      if (byModel === undefined) {
        byModel = new Map();
        targets.set(belief, byModel);
      }
      // Of a disaggregated server only the decode group has one: prompts are no cheaper in company.
      const key = disaggregated ? `${model}\ndecode` : model;
      const known = byModel.get(key);
      if (known !== undefined && nowMs - known.atMs < TARGET_EVERY_MS) return known.point;
      const forecast = arrivals.get(model)?.at(nowMs);
      const { outputTokensMean, perTpotMean } = sizes.get(model) ?? { outputTokensMean: 1, perTpotMean: 0 };
      const point = targetPoint(belief, {
        arrivalsPerMs: forecast?.perMs ?? 0,
        replicas: replicasOf(model),
        promptTokensMean: forecast?.promptTokensMean ?? promptTokens,
        prefillTokensMean: disaggregated ? 0 : (forecast?.prefillTokensMean ?? promptTokens),
        outputTokensMean,
        tpotMs: perTpotMean <= 0 ? Number.POSITIVE_INFINITY : 1 / perTpotMean,
        timeScale: learnt.time,
        priced: learnt.priced,
      });
      byModel.set(key, { atMs: nowMs, point });
      return point;
    },
    takesJ({ belief, sleep }, learnt, { model, waiting, sleeps }, nowMs) {
      const known = margins.get(model);
      if (known !== undefined && nowMs - known.atMs < TARGET_EVERY_MS) return known;
      const forecast = forecastOf(arrivals, model).at(nowMs);
      const sentPerMs = forecastOf(departures, model).at(nowMs).perMs;
      // What has no limit runs in one batch with what has, so that it is served at that limit too.
      const { outputTokensMean, limitedPerTpotMean } = sizes.get(model) ?? { outputTokensMean: 1, limitedPerTpotMean: 0 };
      const { promptTokensMean, prefillTokensMean } = forecast;
      const awakeW = sleeps && sleep !== undefined ? Math.max(0, parkedPowerW(learnt.priced) - sleep.powerW) : 0;
      const at = (arrivalsPerMs: number): number =>
        marginalJ(belief, { arrivalsPerMs, replicas: replicasOf(model), promptTokensMean, prefillTokensMean, outputTokensMean, tpotMs: limitedPerTpotMean <= 0 ? Number.POSITIVE_INFINITY : 1 / limitedPerTpotMean, timeScale: learnt.time, priced: learnt.priced, awakeW });
      /** Jobs alike wait for one hour, so that what was asked last is asked again. */
      let last = { ms: Number.NaN, takesJ: 0 };
      const margin = {
        atMs: nowMs,
        now: at(sentPerMs),
        within: (ms: number): number => {
          if (!(Math.abs(ms - last.ms) < SAME_TIME_SHARE * ms)) last = { ms, takesJ: at(Math.max(forecast.perMs, sentPerMs) + waiting / ms) };
          return last.takesJ;
        },
      };
      margins.set(model, margin);
      return margin;
    },
    loadOf(models, horizonMs, nowMs) {
      const sums = { perMs: 0, upperPerMs: 0, promptTokens: 0, prefillTokens: 0, outputTokens: 0, perTpot: 0 };
      let ttftMs = Number.POSITIVE_INFINITY;
      for (const model of models) {
        const own = arrivals.get(model);
        const size = sizes.get(model);
        // Of a model that has gone silent nothing is left to be ready for.
        if (own === undefined || size === undefined || own.expectedWithin(horizonMs + PEAK_MS_MIN, nowMs) === 0) continue;
        const forecast = own.at(nowMs);
        sums.perMs += forecast.perMs;
        sums.upperPerMs += forecast.upperPerMs;
        sums.promptTokens += forecast.perMs * forecast.promptTokensMean;
        sums.prefillTokens += forecast.perMs * forecast.prefillTokensMean;
        sums.outputTokens += forecast.perMs * size.outputTokensMean;
        sums.perTpot += forecast.perMs * size.perTpotMean;
        ttftMs = Math.min(ttftMs, size.tightestTtft.at(nowMs));
      }
      const mean = (ofAll: number): number => (sums.perMs > 0 ? ofAll / sums.perMs : 0);
      const stretchMs = Math.max(PEAK_MS_MIN, horizonMs);
      return {
        arrivalsPerMs: sums.perMs,
        peakPerMs: sums.upperPerMs + PEAK_DEVIATIONS * Math.sqrt(sums.upperPerMs / stretchMs),
        promptTokensMean: mean(sums.promptTokens),
        prefillTokensMean: mean(sums.prefillTokens),
        outputTokensMean: Math.max(1, mean(sums.outputTokens)),
        tpotMs: sums.perTpot > 0 ? sums.perMs / sums.perTpot : Number.POSITIVE_INFINITY,
        ttftMs,
      };
    },
    changed: () => {
      targets.clear();
      margins.clear();
    },
  };
}

/** Of `arrivals` or `departures`; begun with the first job of a model. */
function forecastOf(forecasts: Map<string, ArrivalForecast>, model: string): ArrivalForecast {
  let forecast = forecasts.get(model);
  if (forecast === undefined) {
    forecast = createArrivalForecast();
    forecasts.set(model, forecast);
  }
  return forecast;
}
