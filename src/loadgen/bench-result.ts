// The result of a run: its fields are read by scripts and by `paceline demo`, so names are only ever added. Pure.
import type { EnergyUse } from './energy-meter.ts';
import { type Percentiles, percentiles } from '../statistics/percentiles.ts';
import { FAILURE_KINDS_MAX } from './limits.ts';
import type { RequestRecord } from './request-record.ts';
import { meets } from './request-record.ts';

export interface BenchResult {
  /** Those that came to an end: `completed` + `failed`. */
  readonly requests: number;
  readonly completed: number;
  /** All that did not complete, refused ones included. */
  readonly failed: number;
  /** Share of `requests` that completed and met every SLO of their class; `null` without requests. */
  readonly attainment: number | null;
  readonly attainmentByClass: Readonly<Record<string, number>>;
  /** Of completed requests, from the intended send time. */
  readonly ttftMs: Percentiles;
  readonly tpotMs: Percentiles;
  readonly e2eMs: Percentiles;
  /** Of failed requests too: they cost energy all the same. */
  readonly outputTokens: number;
  /** Of the energy window, idle included. The three are `null` without an agent. */
  readonly energyJ: number | null;
  readonly joulesPerOutputToken: number | null;
  readonly meanPowerW: number | null;
  /** From the first intended send to the end of the last answer. */
  readonly durationS: number;

  /** What the energy was measured over: `durationS`, or `--window-s`. */
  readonly energyWindowS: number | null;
  /** Part of `failed`: answered 429, or refused with a dropped reason. */
  readonly rejected: number;
  readonly requestsByClass: Readonly<Record<string, number>>;
  /** How many completed requests broke which objective (one may break several). */
  readonly missed: { readonly ttftMs: number; readonly tpotMs: number; readonly e2eMs: number };
  /** Failures by reason and detail, most frequent first. */
  readonly failures: Readonly<Record<string, number>>;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  /** How late requests went out. More than a few milliseconds: the sending machine is overloaded, trust no latency. */
  readonly sendLatenessMs: Percentiles & { readonly max: number | null };
  readonly interrupted: boolean;
  /** Sent or due, but neither completed nor failed when the run was interrupted. */
  readonly unfinished: number;
  readonly workload: string;
  readonly seed: number;
  /** With it the prompts are the same to the word; without, they have the same lengths. */
  readonly promptSalt: number;
  readonly url: string;
  readonly model: string;
  readonly command: string | null;
  readonly startedAt: string;
  /** What a reader of the numbers has to know. */
  readonly notes: readonly string[];
}

export interface RunFacts {
  readonly records: readonly RequestRecord[];
  readonly energy: EnergyUse | null;
  readonly durationS: number;
  readonly interrupted: boolean;
  readonly unfinished: number;
  readonly workload: string;
  readonly seed: number;
  readonly promptSalt: number;
  readonly url: string;
  readonly model: string;
  readonly command: string | null;
  readonly startedAt: string;
  readonly notes: readonly string[];
}

export function benchResult({ records, energy, ...facts }: RunFacts): BenchResult {
  const completed = records.filter((record) => record.kind === 'completed');
  const failed = records.filter((record) => record.kind === 'failed');
  const outputTokens = sum(records.map((record) => record.outputTokens));
  const byClass = Map.groupBy(records, ({ className }) => className);
  const latenessMs = records.map((record) => record.latenessMs);
  const measured = energy?.kind === 'measured' ? energy : null;
  const missed = (slo: 'ttftMs' | 'tpotMs' | 'e2eMs') => completed.filter((record) => record.missed.includes(slo)).length;
  return {
    requests: records.length,
    completed: completed.length,
    failed: failed.length,
    attainment: records.length === 0 ? null : attainmentOf(records),
    attainmentByClass: Object.fromEntries([...byClass].map(([name, ofClass]) => [name, attainmentOf(ofClass)])),
    ttftMs: percentiles(completed.map(({ times }) => times.ttftMs)),
    tpotMs: percentiles(completed.flatMap(({ times }) => times.tpotMs ?? [])),
    e2eMs: percentiles(completed.map(({ times }) => times.e2eMs)),
    outputTokens,
    energyJ: measured?.energyJ ?? null,
    joulesPerOutputToken: measured === null || outputTokens === 0 ? null : measured.energyJ / outputTokens,
    meanPowerW: measured === null || measured.windowS <= 0 ? null : measured.energyJ / measured.windowS,
    durationS: facts.durationS,
    energyWindowS: measured?.windowS ?? null,
    rejected: failed.filter(({ reason }) => reason === 'rejected').length,
    requestsByClass: Object.fromEntries([...byClass].map(([name, ofClass]) => [name, ofClass.length])),
    missed: { ttftMs: missed('ttftMs'), tpotMs: missed('tpotMs'), e2eMs: missed('e2eMs') },
    failures: countFailures(failed.map(({ reason, detail }) => (detail === '' ? reason : `${reason}: ${detail}`))),
    promptTokens: sum(records.map((record) => record.promptTokens)),
    cachedTokens: sum(records.map((record) => record.cachedTokens)),
    sendLatenessMs: { ...percentiles(latenessMs), max: latenessMs.length === 0 ? null : latenessMs.reduce((one, other) => Math.max(one, other)) },
    interrupted: facts.interrupted,
    unfinished: facts.unfinished,
    workload: facts.workload,
    seed: facts.seed,
    promptSalt: facts.promptSalt,
    url: facts.url,
    model: facts.model,
    command: facts.command,
    startedAt: facts.startedAt,
    notes: energy?.kind === 'unknown' ? [...facts.notes, `energy unknown: ${energy.why}`] : facts.notes,
  };
}

/** Whether a parsed file is a result: by the fields that every version of it has had. */
export function isBenchResult(value: unknown): value is BenchResult {
  if (typeof value !== 'object' || value === null) return false;
  const fields = value as Partial<Record<keyof BenchResult, unknown>>;
  const counts = [fields.requests, fields.completed, fields.failed, fields.outputTokens, fields.durationS, fields.seed];
  const measures = [fields.attainment, fields.energyJ, fields.joulesPerOutputToken, fields.meanPowerW, fields.energyWindowS];
  return (
    counts.every((count) => typeof count === 'number') &&
    measures.every((measure) => measure === null || typeof measure === 'number') &&
    [fields.ttftMs, fields.tpotMs, fields.e2eMs].every((times) => typeof times === 'object' && times !== null) &&
    typeof fields.workload === 'string'
  );
}

function attainmentOf(records: readonly RequestRecord[]): number {
  return records.filter(meets).length / records.length;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}


function countFailures(names: readonly string[]): Record<string, number> {
  const counts = [...Map.groupBy(names, (name) => name)].map(([name, same]) => [name, same.length] as const).sort(([, one], [, other]) => other - one);
  const kept = counts.slice(0, FAILURE_KINDS_MAX);
  const rest = sum(counts.slice(FAILURE_KINDS_MAX).map(([, count]) => count));
  return Object.fromEntries(rest === 0 ? kept : [...kept, ['other', rest]]);
}
