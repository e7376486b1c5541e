// A comparison as text for a terminal. Pure.
import { percent } from '../loadgen/format-result.ts';
import type { Analysis } from './analysis.ts';
import type { Comparison } from './comparison-file.ts';
import { msInterval, verdictText } from './verdict-text.ts';

export function comparisonText({ load }: Comparison, { arms, against, rounds, notes }: Analysis): string {
  const table = [
    ['', 'requests', 'met', 'attainment', '95 %', 'TTFT p50/p99', 'TPOT p50/p99', 'energy/round', 'power', 'J/token'],
    ...arms.map((arm) => [
      arm.name,
      String(arm.requests),
      String(arm.met),
      percent(arm.attainment),
      arm.attainmentInterval === null ? '-' : `${(100 * arm.attainmentInterval.low).toFixed(1)}–${(100 * arm.attainmentInterval.high).toFixed(1)}`,
      `${ms(arm.ttftMs.p50)} / ${ms(arm.ttftMs.p99)}`,
      `${ms(arm.tpotMs.p50)} / ${ms(arm.tpotMs.p99)}`,
      arm.energyJ === null ? 'not measured' : `${arm.energyJ.toFixed(0)} J`,
      arm.meanPowerW === null ? '-' : `${arm.meanPowerW.toFixed(0)} W`,
      arm.joulesPerOutputToken?.toFixed(3) ?? '-',
    ]),
  ];
  const widths = (table[0] ?? []).map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  const lines = table.map((row) => row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join('  ').trimEnd());
  return [
    `${load.workload}; ${rounds.length} of ${load.rounds} rounds count, each of ${load.loadS} s and ${load.tailS} s for the last answers; intervals of 95 %`,
    '',
    ...lines,
    '',
    ...against.flatMap((one) => [verdictText(one), ...one.latency.filter(({ difference }) => difference !== null).map(({ name, difference }) => `  ${name}: ${msInterval(difference)}`)]),
    ...notes.map((note) => `note: ${note}`),
  ].join('\n');
}

function ms(value: number | null): string {
  return value === null ? '-' : `${value >= 100 ? Math.round(value) : value.toFixed(1)} ms`;
}
