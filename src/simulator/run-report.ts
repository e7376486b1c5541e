// A simulated run in numbers: what `paceline simulate` prints, and what runs are compared by.
import type { JobReport } from '../scheduler/events.ts';
import { percentiles, type Percentiles } from '../statistics/percentiles.ts';
import type { BudgetHeld } from './power-meter.ts';
import type { SimulatedRun } from './simulate.ts';

/** Field names are read by scripts: only ever added to. */
export interface RunReport {
  readonly policy: string;
  readonly replicas: number;
  readonly seed: number;
  readonly requests: number;
  readonly completed: number;
  readonly rejected: number;
  /** Share of all requests that met every SLO they carried; best effort ones meet by completing. */
  readonly attainment: number;
  /** The same over those that could be met at all: on a replica of their own, at the fastest clock. */
  readonly attainmentOfFeasible: number;
  readonly attainmentByClass: Readonly<Record<string, number>>;
  /** Of all device groups, idle included, from the start to the end of the last job. */
  readonly energyJ: number;
  /** Its kilowatt-hours, each at the price of its time; `null` without prices. */
  readonly cost: number | null;
  readonly joulesPerOutputToken: number | null;
  readonly ttftMs: Percentiles;
  readonly tpotMs: Percentiles;
  readonly e2eMs: Percentiles;
  readonly clockMhzMean: number;
  readonly meanPowerW: number;
  /** Share of replica time with work on the devices. */
  readonly utilisation: number;
  readonly durationS: number;
  /** Requests whose SLO nothing could have met: not even alone at the fastest clock. */
  readonly infeasibleAlone: number;
  /** Requests that could not be met when they were sent, even at the fastest point, with the load as it was; and those never sent. */
  readonly infeasibleWhenSent: number;
  /** Of the worth of all requests, that of those which met; absent where all are worth the same. */
  readonly worthAttained?: number;
  /** What was drawn under each power budget; absent without any. */
  readonly budgets?: readonly BudgetHeld[];
  /** Share of prompt tokens that were in the prefix cache. */
  readonly cachedPromptShare: number;
  /** What a reader must know of this run, for people; `null` where there is nothing. */
  readonly note: string | null;
  /** Who did how much, in a fleet of several profiles; absent otherwise. */
  readonly byProfile?: readonly ProfileShare[];
}

/** What the replicas of one profile did. */
export interface ProfileShare {
  readonly profile: string;
  readonly replicas: number;
  /** Of the requests that any replica ended. */
  readonly requestShare: number;
  /** Idling included. */
  readonly energyJ: number;
  /** Of all of their energy, idling included. */
  readonly joulesPerOutputToken: number | null;
  readonly clockMhzMean: number;
  /** Share of their time with work on the devices. */
  readonly utilisation: number;
}

/** From this share on a load is called infeasible. */
const INFEASIBLE_SHARE = 0.01;
/** … and from this share of misses on too heavy. */
const OVERLOAD_SHARE = 0.1;

/**
 * `feasible` says of each request of the workload, by its index, whether it could be met at all (`feasibleAlone`); empty stands
 * for all of them. `profiles` names the profile of each replica, in the order of the fleet; `worths`: of each request, where they are not all worth the same.
 */
export function runReport(label: { readonly policy: string; readonly replicas: number; readonly seed: number }, run: SimulatedRun, feasible: readonly boolean[] = [], profiles: readonly string[] = [], worths: readonly number[] | null = null): RunReport {
  const { reports } = run;
  const finished = reports.filter(({ outcome }) => outcome === 'finished');
  const outputTokens = finished.reduce((sum, report) => sum + report.outputTokens, 0);
  const requests = reports.length + run.rejected;
  const isFeasible = ({ jobId }: JobReport): boolean => feasible[Number(jobId)] ?? true;
  const infeasibleAlone = feasible.filter((could) => !could).length;
  const { cachedPromptTokens = 0 } = run;
  const infeasibleWhenSent = reports.filter(({ prediction, replicaId }) => prediction?.feasible === false || replicaId === null).length + run.rejected;
  const byClass = Map.groupBy(reports, ({ sloClass }) => sloClass);
  return {
    ...label,
    requests,
    completed: finished.length,
    rejected: run.rejected,
    attainment: share(reports.filter(isMet).length, requests),
    attainmentOfFeasible: share(reports.filter((report) => isFeasible(report) && isMet(report)).length, requests - infeasibleAlone),
    attainmentByClass: Object.fromEntries([...byClass].sort(([a], [b]) => a.localeCompare(b)).map(([name, ofClass]) => [name, share(ofClass.filter(isMet).length, ofClass.length)])),
    energyJ: run.energyJ,
    cost: run.cost ?? null,
    joulesPerOutputToken: outputTokens === 0 ? null : run.energyJ / outputTokens,
    ttftMs: percentiles(finished.flatMap(({ ttftMs }) => ttftMs ?? [])),
    tpotMs: percentiles(finished.flatMap(({ tpotMs }) => tpotMs ?? [])),
    e2eMs: percentiles(finished.map(({ e2eMs }) => e2eMs)),
    clockMhzMean: run.clockMhzMean,
    meanPowerW: share(1000 * run.energyJ, run.durationMs),
    utilisation: run.utilisation,
    durationS: run.durationMs / 1000,
    infeasibleAlone,
    infeasibleWhenSent,
    cachedPromptShare: share(cachedPromptTokens, finished.reduce((sum, report) => sum + report.promptTokens, 0)),
    ...(worths === null ? {} : { worthAttained: share(reports.filter(isMet).reduce((sum, { jobId }) => sum + (worths[Number(jobId)] ?? 0), 0), worths.reduce((sum, worth) => sum + worth, 0)) }),
    ...(run.budgets === undefined ? {} : { budgets: run.budgets }),
    note: noteOf(requests, infeasibleAlone, infeasibleWhenSent, reports.filter(isMet).length),
    ...(new Set(profiles).size > 1 ? { byProfile: byProfile(run, profiles) } : {}),
  };
}

function byProfile({ reports, replicas = [], durationMs }: SimulatedRun, profiles: readonly string[]): readonly ProfileShare[] {
  const finished = reports.filter(({ outcome }) => outcome === 'finished');
  const byReplica = Map.groupBy(finished, ({ replicaId }) => replicaId);
  return [...Map.groupBy(replicas.keys(), (index) => profiles[index] ?? '')].map(([profile, indices]) => {
    const done = indices.flatMap((index) => replicas[index] ?? []);
    const ended = done.flatMap(({ replicaId }) => byReplica.get(replicaId) ?? []);
    const total = (of: (one: (typeof done)[number]) => number): number => done.reduce((sum, one) => sum + of(one), 0);
    const [energyJ, outputTokens] = [total((one) => one.energyJ), ended.reduce((sum, report) => sum + report.outputTokens, 0)];
    return {
      profile,
      replicas: done.length,
      requestShare: share(ended.length, finished.length),
      energyJ,
      joulesPerOutputToken: outputTokens === 0 ? null : energyJ / outputTokens,
      clockMhzMean: share(total(({ clockMhzMs }) => clockMhzMs), done.length * durationMs),
      utilisation: share(total(({ busyMs }) => busyMs), done.length * durationMs),
    };
  });
}

/** Facts first: what nothing could have met, then how many were missed where it is more than the machines' share of trouble. */
function noteOf(requests: number, infeasibleAlone: number, infeasibleWhenSent: number, met: number): string | null {
  const percent = (count: number): string => `${Number(((100 * count) / Math.max(1, requests)).toFixed(1))} %`;
  const missed = requests - infeasibleAlone - met;
  const parts = [
    ...(share(infeasibleAlone, requests) < INFEASIBLE_SHARE ? [] : [`${percent(infeasibleAlone)} of requests could not be met even with a replica of their own at the fastest clock`]),
    ...(share(missed, requests) < OVERLOAD_SHARE ? [] : [`${percent(missed)} were missed for the load${infeasibleWhenSent === 0 ? '' : ` (${percent(infeasibleWhenSent)} of all could not be met any more when they were sent)`}`]),
  ];
  return parts.length === 0 ? null : `infeasible: ${parts.join('; ')}`;
}

function isMet({ met, outcome }: JobReport): boolean {
  return met ?? outcome === 'finished';
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
