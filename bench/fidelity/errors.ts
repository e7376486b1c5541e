// Relative errors of outcomes against rows, and their medians.
import { percentiles } from '../../src/statistics/percentiles.ts';
import type { LoadTestRow, Outcome } from './load-test-table.ts';

export type Metric = keyof Outcome;

export interface MedianErrors {
  readonly rows: number;
  readonly powerMedianErrorPct: number;
  readonly ttftP99MedianErrorPct: number;
  readonly tpotP99MedianErrorPct: number;
}

/** Signed, in per cent: above 0 the engine gives more than was measured. */
export function errorPct(row: LoadTestRow, outcome: Outcome): Outcome {
  const of = (metric: Metric): number => 100 * (outcome[metric] / row[metric] - 1);
  return { powerW: of('powerW'), ttftP99Ms: of('ttftP99Ms'), tpotP99Ms: of('tpotP99Ms') };
}

/** Of the absolute errors; of an even number of rows, the mean of the middle two. */
export function medianErrors(errors: readonly Outcome[]): MedianErrors {
  return {
    rows: errors.length,
    powerMedianErrorPct: medianSize(errors.map(({ powerW }) => powerW)),
    ttftP99MedianErrorPct: medianSize(errors.map(({ ttftP99Ms }) => ttftP99Ms)),
    tpotP99MedianErrorPct: medianSize(errors.map(({ tpotP99Ms }) => tpotP99Ms)),
  };
}

export function largestSize(values: readonly number[]): number {
  return Math.max(...values.map(Math.abs));
}

export function medianSize(values: readonly number[]): number {
  return percentiles(values.map(Math.abs)).p50 ?? Number.NaN;
}

/** One line: median, mean with its sign, largest; of power, TPOT p99 and TTFT p99. */
export function summaryLine(name: string, errors: readonly Outcome[]): string {
  const of = (metric: Metric): string => {
    const values = errors.map((error) => error[metric]);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return `${medianSize(values).toFixed(1).padStart(6)} ${mean.toFixed(1).padStart(6)} ${largestSize(values).toFixed(1).padStart(6)}`;
  };
  return `${name.padEnd(30)} ${String(errors.length).padStart(4)}  ${of('powerW')}  ${of('tpotP99Ms')}  ${of('ttftP99Ms')}`;
}

export const SUMMARY_HEADER = `${'median, mean, largest in %'.padEnd(30)} rows  ${'power'.padStart(20)}  ${'TPOT p99'.padStart(20)}  ${'TTFT p99'.padStart(20)}`;
