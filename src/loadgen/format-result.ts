// Results as text for people. Pure; the JSON is the result itself.
import type { Percentiles } from '../statistics/percentiles.ts';
import type { BenchResult } from './bench-result.ts';

export function formatResult(result: BenchResult): string {
  const { attainment, energyJ } = result;
  const rows: (readonly [string, string])[] = [
    ['workload', `${result.workload}, seed ${result.seed}`],
    ['model', `${result.model} at ${result.url}`],
    ['requests', `${result.requests}: ${result.completed} completed, ${result.failed} failed${result.rejected === 0 ? '' : ` (${result.rejected} rejected)`}`],
    ['attainment', percent(attainment)],
    ...Object.entries(result.attainmentByClass).map(([name, share]) => [`  ${name}`, `${percent(share)} of ${result.requestsByClass[name] ?? 0}`] as const),
    ['missed', `${result.missed.ttftMs} TTFT, ${result.missed.tpotMs} TPOT, ${result.missed.e2eMs} e2e, ${result.failed} failed`],
    ['TTFT', percentilesText(result.ttftMs)],
    ['TPOT', percentilesText(result.tpotMs)],
    ['e2e', percentilesText(result.e2eMs)],
    ['tokens', `${result.promptTokens} in (${result.cachedTokens} cached), ${result.outputTokens} out`],
    ['energy', energyJ === null ? 'not measured (--agent-socket)' : `${round(energyJ)} J over ${seconds(result.energyWindowS)}, mean ${round(result.meanPowerW)} W`],
    ['J/token', result.joulesPerOutputToken === null ? '-' : result.joulesPerOutputToken.toFixed(3)],
    ['duration', seconds(result.durationS)],
    ['sent late', percentilesText(result.sendLatenessMs)],
    ...Object.entries(result.failures).map(([name, count]) => ['failure', `${count} × ${name}`] as const),
    ...result.notes.map((note) => ['note', note] as const),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}

export interface LabelledResult {
  readonly label: string;
  readonly result: BenchResult;
}

/** Attainment may be lower by this and still be called the same: one request in a thousand is noise. */
const ISO_ATTAINMENT_TOLERANCE = 0.001;
/** Windows that differ by more leave different idle energy in. */
const WINDOW_TOLERANCE = 0.02;

/** Runs side by side, the first being what the others are compared to. Says where the comparison is not a fair one. */
export function formatComparison(runs: readonly LabelledResult[]): string {
  const [base] = runs;
  if (base === undefined) return 'nothing to compare';
  const saving = (result: BenchResult): string => {
    if (result === base.result) return '';
    if (result.energyJ === null || base.result.energyJ === null || base.result.energyJ === 0) return '-';
    return `${(100 * (result.energyJ / base.result.energyJ - 1)).toFixed(1).replace(/^(?=\d)/, '+')} %`;
  };
  const columns: (readonly [string, (result: BenchResult) => string])[] = [
    ['requests', ({ requests }) => String(requests)],
    ['failed', ({ failed }) => String(failed)],
    ['attainment', ({ attainment }) => percent(attainment)],
    ['TTFT p50/p99', ({ ttftMs }) => `${ms(ttftMs.p50)} / ${ms(ttftMs.p99)}`],
    ['TPOT p50/p99', ({ tpotMs }) => `${ms(tpotMs.p50)} / ${ms(tpotMs.p99)}`],
    ['energy', ({ energyJ }) => (energyJ === null ? '-' : `${round(energyJ)} J`)],
    ['power', ({ meanPowerW }) => (meanPowerW === null ? '-' : `${round(meanPowerW)} W`)],
    ['J/token', ({ joulesPerOutputToken }) => joulesPerOutputToken?.toFixed(3) ?? '-'],
    ['energy vs first', saving],
  ];
  const table = [['', ...columns.map(([name]) => name)], ...runs.map(({ label, result }) => [label, ...columns.map(([, cell]) => cell(result))])];
  const widths = table[0]?.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0))) ?? [];
  const lines = table.map((row) => row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join('  ').trimEnd());
  return [...lines, ...runs.slice(1).flatMap((run) => comparisonWarnings(base, run))].join('\n');
}

function comparisonWarnings(base: LabelledResult, { label, result }: LabelledResult): string[] {
  const warnings: string[] = [];
  const [ours, theirs] = [result.attainment, base.result.attainment];
  if (ours !== null && theirs !== null && ours < theirs - ISO_ATTAINMENT_TOLERANCE) warnings.push(`${label}: attainment ${percent(ours)} against ${percent(theirs)}: the energies are not of equal attainment`);
  if (result.workload !== base.result.workload || result.seed !== base.result.seed || result.requests !== base.result.requests) warnings.push(`${label}: another workload, seed or number of requests than ${base.label}`);
  const [window, baseWindow] = [result.energyWindowS, base.result.energyWindowS];
  if (window !== null && baseWindow !== null && Math.abs(window / baseWindow - 1) > WINDOW_TOLERANCE) warnings.push(`${label}: energy over ${seconds(window)}, ${base.label} over ${seconds(baseWindow)}; give both the same --window-s`);
  return warnings;
}

export function percent(share: number | null): string {
  if (share === null) return '-';
  // 99.996 % is not 100 %: rounding must not hide the one that failed.
  return `${share < 1 && share > 0.9995 ? '99.9+' : (100 * share).toFixed(1)} %`;
}

function percentilesText({ p50, p90, p99 }: Percentiles): string {
  return `p50 ${ms(p50)}  p90 ${ms(p90)}  p99 ${ms(p99)}`;
}

function ms(value: number | null): string {
  return value === null ? '-' : `${value >= 100 ? Math.round(value) : value.toFixed(1)} ms`;
}

function round(value: number | null): string {
  return value === null ? '-' : value >= 100 ? String(Math.round(value)) : value.toFixed(1);
}

function seconds(value: number | null): string {
  return value === null ? '-' : `${value.toFixed(1)} s`;
}
