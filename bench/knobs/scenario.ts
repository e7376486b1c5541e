// What the bench of software knobs plays: loads as shares of what a fleet can serve, one of them going up and down like a day.
import type { PerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Profile, SleepCosts } from '../../src/frontier/profile.ts';
import { createRandom } from '../../src/random/random.ts';
import { percentiles } from '../../src/statistics/percentiles.ts';
import { type FleetMember, simulate, type SimulatedRun, type SimulationOptions } from '../../src/simulator/simulate.ts';
import type { WorkloadRequest } from '../../src/workload/request.ts';
import { drawClasses, type SloClass } from '../../src/workload/slo-classes.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { sourceFrom } from '../energy/workloads.ts';

/** Shares of the capacity; `day` goes from the first to the second and back within the run. */
export const LOADS = { low: 0.1, middle: 0.35, high: 0.7, day: [0.05, 0.7] } as const;
export type Load = keyof typeof LOADS;

export const CHAT: readonly SloClass[] = [
  { name: 'premium', share: 0.2, slo: { ttftMs: 600, tpotMs: 35 } },
  { name: 'chat', share: 0.6, slo: { ttftMs: 1500, tpotMs: 50 } },
  { name: 'batch', share: 0.2, slo: { e2eMs: 120_000 } },
];

const PROMPT = { kind: 'lognormal', meanTokens: 900, cv: 1 } as const;
const OUTPUT = { kind: 'lognormal', meanTokens: 220, cv: 0.8 } as const;

export interface Played {
  readonly attainment: number;
  readonly energyJ: number;
  readonly perTokenJ: number;
  readonly ttftP99Ms: number;
  /** Of the run. */
  readonly meanPowerW: number;
}

/** Requests a second that one replica can serve at its fastest point with these sizes, as the energy bench reckons it. */
export function capacityPerS(model: PerformanceModel): number {
  const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: 10 }, durationS: 200, seed: 1, promptTokens: PROMPT, outputTokens: OUTPUT });
  return sourceFrom('tenants', model, requests, { recorded: false, lengthS: 200 }).steadyPerS;
}

/** Poisson arrivals, thinned where the rate goes up and down (Lewis and Shedler, 1979). */
export function requestsOf(load: Load, capacity: number, { lengthS, seed }: { readonly lengthS: number; readonly seed: number }): readonly WorkloadRequest[] {
  const share = LOADS[load];
  const peak = typeof share === 'number' ? share : share[1];
  const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: peak * capacity }, durationS: lengthS, seed, promptTokens: PROMPT, outputTokens: OUTPUT });
  if (typeof share === 'number') return requests;
  const [least, most] = share;
  const random = createRandom(seed, 'day');
  return requests.filter(({ atMs }) => random() * most < least + ((most - least) * (1 - Math.cos((2 * Math.PI * atMs) / (1000 * lengthS)))) / 2);
}

export function withSleep(profile: Profile, devicesSleep: SleepCosts): Profile {
  const { devices } = profile.deviceGroup;
  return { ...profile, sleep: { ...devicesSleep, powerW: devicesSleep.powerW * devices } };
}

export function play(members: readonly FleetMember[], requests: readonly WorkloadRequest[], classes: readonly SloClass[], over: Partial<SimulationOptions> & { readonly lengthS: number; readonly seed: number }): Played {
  const [{ truth, belief }] = members as [FleetMember, ...FleetMember[]];
  const { lengthS, ...options } = over;
  const run = simulate({ requests, classes: drawClasses(classes, requests.length, over.seed), replicas: members.length, truth, belief, fleet: members, policy: { kind: 'paceline' }, untilMs: (lengthS + 30) * 1000, ...options });
  return playedOf(run);
}

function playedOf(run: SimulatedRun): Played {
  const { reports, rejected, energyJ, durationMs } = run;
  const tokens = reports.reduce((sum, { outputTokens }) => sum + outputTokens, 0);
  return {
    attainment: reports.filter(({ met }) => met === true).length / Math.max(1, reports.length + rejected),
    energyJ,
    perTokenJ: energyJ / Math.max(1, tokens),
    ttftP99Ms: percentiles(reports.flatMap(({ ttftMs }) => ttftMs ?? [])).p99 ?? Number.NaN,
    meanPowerW: (1000 * energyJ) / durationMs,
  };
}
