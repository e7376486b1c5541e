// The cells of the energy bench as a table, the losing ones first, and what they come to on average.
import type { CellResult } from './cell.ts';

/** Averages over the cells at low and middle load, where there is something to save. */
export interface Summary {
  readonly cells: number;
  readonly attainmentLeast: number;
  readonly cellsBelowTarget: number;
  /** Means of the ratios, over the cells in which the other reaches the attainment; `null` where none does. */
  readonly vsMaxClock: number | null;
  readonly vsBestStatic: number | null;
  readonly vsBestRival: number | null;
  readonly vsClairvoyant: number | null;
  readonly vsLowerBound: number | null;
  /** Cells in which no static clock, or no rival with any margin, reaches Paceline's attainment. */
  readonly noStatic: number;
  readonly noRival: number;
}

const TARGET = 0.99;

export interface Ratios {
  readonly maxClock: number;
  readonly bestStatic: number | null;
  readonly bestRival: number | null;
  readonly clairvoyant: number;
  readonly lowerBound: number | null;
}

export function ratiosOf({ paceline, maxClock, bestStatic, bestRival, clairvoyant, lowerBoundJ }: CellResult): Ratios {
  const to = (other: { readonly energyJ: number }): number => paceline.energyJ / other.energyJ;
  return {
    maxClock: to(maxClock),
    bestStatic: bestStatic === null ? null : to(bestStatic),
    bestRival: bestRival === null ? null : to(bestRival),
    clairvoyant: to(clairvoyant),
    lowerBound: lowerBoundJ === null ? null : paceline.energyJ / lowerBoundJ,
  };
}

export function summaryOf(cells: readonly CellResult[]): Summary {
  const counted = cells.filter(({ load }) => load !== 'high');
  const mean = (of: (ratios: Ratios) => number | null): number | null => {
    const values = counted.flatMap((cell) => of(ratiosOf(cell)) ?? []);
    return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
  };
  return {
    cells: counted.length,
    attainmentLeast: Math.min(1, ...counted.map(({ paceline }) => paceline.attainment)),
    cellsBelowTarget: counted.filter(({ paceline }) => paceline.attainment < TARGET).length,
    vsMaxClock: mean((ratios) => ratios.maxClock),
    vsBestStatic: mean((ratios) => ratios.bestStatic),
    vsBestRival: mean((ratios) => ratios.bestRival),
    vsClairvoyant: mean((ratios) => ratios.clairvoyant),
    vsLowerBound: mean((ratios) => ratios.lowerBound),
    noStatic: counted.filter(({ bestStatic }) => bestStatic === null).length,
    noRival: counted.filter(({ bestRival }) => bestRival === null).length,
  };
}

/** Losing first: below the attainment wanted, then by how little is saved against the best static clock and the best rival. */
export function formatCells(cells: readonly CellResult[]): string {
  const rank = (cell: CellResult): number => {
    const { bestStatic, bestRival, maxClock } = ratiosOf(cell);
    return (cell.paceline.attainment < TARGET ? -10 : 0) - Math.max(bestStatic ?? 0, bestRival ?? 0, maxClock);
  };
  const ratio = (value: number | null): string => (value === null ? 'none' : value.toFixed(3));
  const percent = (share: number): string => (100 * share).toFixed(2);
  const rows = [...cells].sort((a, b) => rank(a) - rank(b)).map((cell) => {
    const ratios = ratiosOf(cell);
    const { prediction } = cell;
    return [
      cell.profile,
      `${cell.workload}${cell.recorded || cell.workload === 'tenants' ? '' : ' (generated)'}`,
      cell.belief,
      cell.load,
      String(cell.requests),
      percent(cell.paceline.attainment),
      percent(cell.maxClock.attainment),
      ratio(ratios.maxClock),
      ratio(ratios.bestStatic),
      cell.bestStatic?.policy.replace('static:', '') ?? '-',
      ratio(ratios.bestRival),
      cell.bestRival?.policy ?? '-',
      ratio(ratios.clairvoyant),
      percent(cell.clairvoyant.attainment),
      ratios.lowerBound === null ? '-' : ratio(ratios.lowerBound),
      `${prediction.ttftErrorPct.toFixed(0)} / ${(100 * prediction.ttftCoverage).toFixed(0)}`,
      `${prediction.tpotErrorPct.toFixed(0)} / ${(100 * prediction.tpotCoverage).toFixed(0)}`,
    ];
  });
  const head = ['profile', 'workload', 'belief', 'load', 'requests', 'met %', 'max-clock %', '/max-clock', '/static', 'MHz', '/rival', 'which', '/clairv.', 'its %', '/bound', 'TTFT err/cover %', 'TPOT err/cover %'];
  const table = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...table.map((row) => (row[column] as string).length)));
  const lines = table.map((row) => row.map((text, column) => (column < 4 ? text.padEnd(widths[column] as number) : text.padStart(widths[column] as number))).join('  '));
  const summary = summaryOf(cells);
  return [
    ...lines,
    '',
    `low and middle load, ${summary.cells} cells: attainment of the feasible at least ${percent(summary.attainmentLeast)} % (${summary.cellsBelowTarget} cells below 99 %)`,
    `energy, mean of the cells: ${ratio(summary.vsMaxClock)} × maximum clock, ${ratio(summary.vsBestStatic)} × best static in hindsight, ${ratio(summary.vsBestRival)} × best rival, ${ratio(summary.vsClairvoyant)} × clairvoyant, ${ratio(summary.vsLowerBound)} × proven lower bound`,
    `no static clock reaches Paceline's attainment in ${summary.noStatic} of them, no rival with any margin in ${summary.noRival}: these are not in the means, and those with noisy times not in that of the bound`,
  ].join('\n');
}
