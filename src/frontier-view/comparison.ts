// Two profiles side by side: what the second costs at the times the first can do, phase by phase. It says which of two measurements,
// GPUs or engines is the better one at which pace; times differ, so points cannot be compared by their names.
import { cheapestWithin, paretoFrontier } from '../frontier/frontier.ts';
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { OperatingPoint, Phase } from '../frontier/profile.ts';
import { candidatesFor } from '../frontier/work-frontier.ts';
import { iterationsOf, type ViewedWork } from './phase-points.ts';

export interface ComparedPoint {
  /** Of the first. */
  readonly point: OperatingPoint;
  readonly timeMs: number;
  readonly energyJ: number;
  /** The second's cheapest that takes no longer; `null`: it cannot be as fast. */
  readonly other: { readonly point: OperatingPoint; readonly timeMs: number; readonly energyJ: number; readonly energyRatio: number } | null;
}

export interface ComparedPhase {
  readonly phase: Phase;
  /** Of the first's efficient points, the fastest first. */
  readonly points: readonly ComparedPoint[];
  /** The fastest of the second over the fastest of the first. */
  readonly fastestTimeRatio: number;
  /** The least energy of the second over the least of the first, whatever the time. */
  readonly leastEnergyRatio: number;
  /** Geometric mean of the energy ratios at equal time, over the points where there is one; `null`: none. */
  readonly meanEnergyRatio: number | null;
}

/** The same work on both; a ratio below 1 says that the second takes less. */
export function compareProfiles(first: PerformanceModel, second: PerformanceModel, work: ViewedWork): ComparedPhase[] {
  return (['prefill', 'decode'] as const).map((phase) => {
    const [own, other] = [first, second].map((model) => paretoFrontier(candidatesFor(model, iterationsOf(model, phase, work))));
    const points = (own ?? []).map(({ timeMs, energyJ, choice }): ComparedPoint => {
      const match = cheapestWithin(other ?? [], timeMs);
      return {
        point: first.points[choice] as OperatingPoint,
        timeMs,
        energyJ,
        other: match.kind === 'infeasible' ? null : { point: second.points[match.point.choice] as OperatingPoint, timeMs: match.point.timeMs, energyJ: match.point.energyJ, energyRatio: match.point.energyJ / energyJ },
      };
    });
    const ratios = points.flatMap(({ other: match }) => (match === null ? [] : [match.energyRatio]));
    return {
      phase,
      points,
      fastestTimeRatio: (other?.[0]?.timeMs ?? Number.NaN) / (own?.[0]?.timeMs ?? Number.NaN),
      leastEnergyRatio: (other?.at(-1)?.energyJ ?? Number.NaN) / (own?.at(-1)?.energyJ ?? Number.NaN),
      meanEnergyRatio: ratios.length === 0 ? null : Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length),
    };
  });
}
