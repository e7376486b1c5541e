// Tenants with their loads, played on virtual time by the gateway's own decisions, and what each got of it.
import type { PerformanceModel } from '../../src/frontier/performance-model.ts';
import { NO_PREFILL } from '../../src/frontier/performance-model.ts';
import type { Profile } from '../../src/frontier/profile.ts';
import { simulate } from '../../src/simulator/simulate.ts';
import type { Slo } from '../../src/core/job.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';

/** Sizes of the Azure conversation trace of 2023 (mean and coefficient of variation). */
const PROMPT = { kind: 'lognormal', meanTokens: 1195, cv: 0.95 } as const;
const OUTPUT = { kind: 'lognormal', meanTokens: 201, cv: 0.85 } as const;

export interface TenantLoad {
  readonly tenant: string;
  readonly weight: number;
  readonly infeasible: 'refuse' | 'best-effort';
  readonly slo: Slo;
  readonly ratePerS: number;
  readonly fromS: number;
  readonly untilS: number;
}

export interface TenantResult {
  readonly tenant: string;
  readonly weight: number;
  readonly offered: number;
  readonly admitted: number;
  /** Of the admitted, by whether all SLOs were met; those without any meet by ending well. */
  readonly attainment: number;
  /** Of all offered. */
  readonly metOfOffered: number;
  /** Output tokens per second of requests that were met. */
  readonly goodputTokensPerS: number;
}

export interface Played {
  readonly tenants: readonly TenantResult[];
  readonly offered: number;
  readonly admitted: number;
  readonly attainment: number;
  /** Requests met per second of the load. */
  readonly goodputPerS: number;
  /** Work of what was met and ended within the load, over the most that fits into its time (see `mostWorkMs`). */
  readonly usefulShare: number;
  /** Longest time from arrival to a request's end. */
  readonly longestS: number;
  readonly joulesPerOutputToken: number;
}

export interface Fleet {
  readonly profile: Profile;
  readonly model: PerformanceModel;
  readonly replicas: number;
  /** The devices' time over what the profile says of it. */
  readonly truthTime: number;
  readonly seed: number;
}

/** Requests of the first `warmUpS` are played and not counted: the gateway has yet to learn what its profile has wrong. */
export function play(fleet: Fleet, loads: readonly TenantLoad[], warmUpS = 0): Played {
  const { profile, model, replicas, truthTime, seed } = fleet;
  const requests = loads
    .flatMap((load, index) => {
      const { ratePerS, fromS, untilS } = load;
      const made = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS }, promptTokens: PROMPT, outputTokens: OUTPUT, durationS: untilS - fromS, seed: seed * 1000 + index });
      return made.requests.map((request) => ({ ...request, atMs: request.atMs + fromS * 1000, load }));
    })
    .sort((a, b) => a.atMs - b.atMs);
  const run = simulate({
    requests,
    classes: requests.map(({ load: { tenant, slo } }) => ({ name: tenant, slo })),
    tenants: requests.map(({ load: { tenant, weight, infeasible } }) => ({ name: tenant, weight, infeasible })),
    replicas,
    truth: profile,
    belief: profile,
    truthScale: { time: truthTime, power: 1 },
    policy: { kind: 'paceline' },
    seed,
  });
  const counts = (jobId: string): boolean => (requests[Number(jobId)]?.atMs ?? 0) >= warmUpS * 1000;
  const reports = run.reports.filter(({ jobId }) => counts(jobId));
  const counted = requests.filter(({ atMs }) => atMs >= warmUpS * 1000);
  const loadS = Math.max(...loads.map(({ untilS }) => untilS)) - warmUpS;
  const met = reports.filter((report) => report.met ?? report.outcome === 'finished');
  const tokens = run.reports.reduce((sum, { outputTokens }) => sum + outputTokens, 0);
  const tightestMs = Math.min(...loads.map(({ slo }) => slo.tpotMs ?? Number.POSITIVE_INFINITY));
  // Only what ended within the load: the bound is over its length, and what drains afterwards would be counted for nothing.
  const inTheLoad = met.filter(({ jobId, e2eMs }) => (requests[Number(jobId)]?.atMs ?? 0) + e2eMs <= (warmUpS + loadS) * 1000);
  const usefulMs = inTheLoad.reduce((sum, { promptTokens, outputTokens }) => sum + workMs(model, promptTokens, outputTokens), 0) * truthTime;
  return {
    tenants: [...new Map(loads.map((load) => [load.tenant, load])).values()].map(({ tenant, weight }) => {
      const offered = counted.filter(({ load }) => load.tenant === tenant).length;
      const admitted = reports.filter((report) => report.tenant === tenant);
      const metOfTenant = met.filter((report) => report.tenant === tenant);
      return {
        tenant,
        weight,
        offered,
        admitted: admitted.length,
        attainment: metOfTenant.length / Math.max(1, admitted.length),
        metOfOffered: metOfTenant.length / Math.max(1, offered),
        goodputTokensPerS: metOfTenant.reduce((sum, { outputTokens }) => sum + outputTokens, 0) / loadS,
      };
    }),
    offered: counted.length,
    admitted: reports.length,
    attainment: met.length / Math.max(1, reports.length),
    goodputPerS: met.length / loadS,
    usefulShare: usefulMs / mostWorkMs(model, { replicas, tightestMs: tightestMs / truthTime, loadMs: loadS * 1000 }),
    longestS: Math.max(0, ...reports.map(({ e2eMs }) => e2eMs)) / 1000,
    joulesPerOutputToken: run.energyJ / Math.max(1, tokens),
  };
}

/** A batch as large as they get under load, for what one more sequence costs. */
const CONTEXT_EACH = 1296;

/** Step time at the fastest point, as base + perSequence · n. */
function steps(model: PerformanceModel): { readonly baseMs: number; readonly perSequenceMs: number } {
  const step = (sequences: number): number => model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences, contextTokens: sequences * CONTEXT_EACH } }, model.fastest);
  const perSequenceMs = (step(65) - step(1)) / 64;
  return { baseMs: step(1) - perSequenceMs, perSequenceMs };
}

/** What a request adds to a replica that runs anyway: its prefill beside a step, and its part of the steps. */
function workMs(model: PerformanceModel, promptTokens: number, outputTokens: number): number {
  const decode = { sequences: 1, contextTokens: CONTEXT_EACH };
  const alone = model.iterationTimeMs({ prefill: NO_PREFILL, decode }, model.fastest);
  return model.iterationTimeMs({ prefill: { tokens: promptTokens, contextTokens: 0 }, decode }, model.fastest) - alone + outputTokens * steps(model).perSequenceMs;
}

/**
 * Upper bound on the work that can be met: streams that keep a TPOT of L need a pass over the weights (base) at least every L, so
 * that (1 − base/L) of a replica's time is left for prefills and for what sequences add. A fluid bound: nothing comes in lumps, every
 * answer ends when its deadline does, and the fleet is full from the first second on.
 */
function mostWorkMs(model: PerformanceModel, { replicas, tightestMs, loadMs }: { readonly replicas: number; readonly tightestMs: number; readonly loadMs: number }): number {
  return replicas * loadMs * (1 - (Number.isFinite(tightestMs) ? steps(model).baseMs / tightestMs : 0));
}

const WARM_UP_S = 60;

/** The highest rate at which the target is still attained by requests of one class when none is refused; to a percent. */
export function capacityPerS(fleet: Fleet, slo: Slo, { target, lengthS }: { readonly target: number; readonly lengthS: number }): number {
  const attains = (ratePerS: number): boolean => play(fleet, [{ tenant: 'all', weight: 1, infeasible: 'best-effort', slo, ratePerS, fromS: 0, untilS: lengthS }], WARM_UP_S).attainment >= target;
  // From where there are enough requests to tell of a percent.
  let low = 4;
  while (attains(2 * low)) low *= 2;
  let high = 2 * low;
  while (high / low > 1.01) {
    const middle = Math.sqrt(low * high);
    if (attains(middle)) low = middle;
    else high = middle;
  }
  return low;
}
