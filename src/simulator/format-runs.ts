// Simulated runs as a table for people. Energies are relative to the first run.
import { tableOf } from './format-table.ts';
import type { ProfileShare, RunReport } from './run-report.ts';

export function formatRuns(runs: readonly RunReport[]): string {
  const [first] = runs;
  if (first === undefined) return 'no runs';
  const columns: (readonly [string, (run: RunReport) => string])[] = [
    ['policy', ({ policy }) => policy],
    ['attainment', ({ attainment }) => `${(100 * attainment).toFixed(2)} %`],
    ['energy', ({ energyJ }) => `${(energyJ / 1000).toFixed(1)} kJ`],
    ['vs first', ({ energyJ }) => (first.energyJ > 0 ? (energyJ / first.energyJ).toFixed(3) : '-')],
    ['power', ({ meanPowerW }) => `${meanPowerW.toFixed(0)} W`],
    ['J/token', ({ joulesPerOutputToken }) => joulesPerOutputToken?.toFixed(2) ?? '-'],
    ['clock', ({ clockMhzMean }) => `${clockMhzMean.toFixed(0)} MHz`],
    ['TTFT p50/p99', ({ ttftMs }) => `${ms(ttftMs.p50)} / ${ms(ttftMs.p99)}`],
    ['TPOT p50/p99', ({ tpotMs }) => `${ms(tpotMs.p50)} / ${ms(tpotMs.p99)}`],
    ['rejected', ({ rejected }) => String(rejected)],
  ];
  const { cost: firstCost } = first;
  if (runs.some(({ cost }) => cost !== null)) columns.splice(4, 0, ['cost', ({ cost }) => cost?.toPrecision(4) ?? '-'], ['vs first', ({ cost }) => (cost === null || firstCost === null || firstCost === 0 ? '-' : (cost / firstCost).toFixed(3))]);
  if (runs.some(({ worthAttained }) => worthAttained !== undefined)) columns.splice(2, 0, ['of the worth', ({ worthAttained }) => (worthAttained === undefined ? '-' : `${(100 * worthAttained).toFixed(2)} %`)]);
  if (runs.some(({ budgets }) => budgets !== undefined)) columns.push(['peak', ({ budgets }) => budgets?.map(({ peakW }) => `${peakW.toFixed(0)} W`).join(', ') ?? '-'], ['over the cap', ({ budgets }) => budgets?.map(({ longestOverMs }) => `${longestOverMs.toFixed(0)} ms`).join(', ') ?? '-']);
  // Energies are comparable over one window; a run that took longer idled longer, too.
  const lengths = new Set(runs.map(({ durationS }) => Math.round(durationS)));
  if (lengths.size > 1) columns.push(['window', ({ durationS }) => `${durationS.toFixed(0)} s`]);
  const notes = runs.flatMap(({ policy, note }) => (note === null ? [] : [`${policy}: ${note}`]));
  return [tableOf(columns, runs), ...sharesOf(runs), ...(notes.length === 0 ? [] : ['', ...notes])].join('\n');
}

/** Who did how much, where the fleet has several profiles. */
function sharesOf(runs: readonly RunReport[]): string[] {
  const rows = runs.flatMap(({ policy, byProfile = [] }) => byProfile.map((share) => ({ policy, ...share })));
  if (rows.length === 0) return [];
  const columns: (readonly [string, (row: ProfileShare & { readonly policy: string }) => string])[] = [
    ['policy', ({ policy }) => policy],
    ['profile', ({ replicas, profile }) => `${replicas} x ${profile}`],
    ['requests', ({ requestShare }) => `${(100 * requestShare).toFixed(1)} %`],
    ['energy', ({ energyJ }) => `${(energyJ / 1000).toFixed(1)} kJ`],
    ['J/token', ({ joulesPerOutputToken }) => joulesPerOutputToken?.toFixed(2) ?? '-'],
    ['clock', ({ clockMhzMean }) => `${clockMhzMean.toFixed(0)} MHz`],
    ['busy', ({ utilisation }) => `${(100 * utilisation).toFixed(0)} %`],
  ];
  return ['', tableOf(columns, rows)];
}

function ms(value: number | null): string {
  return value === null ? '-' : `${value >= 100 ? Math.round(value) : value.toFixed(1)} ms`;
}
