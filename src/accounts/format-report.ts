// A bill as people read it, and as spreadsheets do.
import type { BillLine, EnergyReport, Intensities } from './energy-report.ts';

const KWH_J = 3_600_000;

export function formatReport(report: EnergyReport): string {
  const { by, fromS, untilS, lines, total, besides, intensities, maximumClockJ } = report;
  const besidesJ = besides.idleMeteredJ + besides.idleModelledJ + besides.othersJ + besides.unapportionedJ;
  const allJ = total.energyJ + besidesJ;
  const header = [by, 'requests', 'tokens in', 'cached', 'tokens out', 'kWh', 'of it metered', 'J/token out', ...moneyHeader(intensities)];
  const rows = [...lines, total].map((line) => [line.key, whole(line.requests), whole(line.promptTokens), whole(line.cachedTokens), whole(line.outputTokens), kwh(line.energyJ), share(line.meteredJ, line.energyJ), line.joulesPerOutputToken === null ? '-' : line.joulesPerOutputToken.toFixed(2), ...money(line, intensities)]);
  const restOf = (name: string, energyJ: number): string[] => [name, '', '', '', '', kwh(energyJ), '', ''];
  const idleMetered = share(besides.idleMeteredJ, besides.idleMeteredJ + besides.idleModelledJ);
  const rest = [
    [...restOf('idle', besides.idleMeteredJ + besides.idleModelledJ).slice(0, 6), idleMetered, ''],
    ...(besides.othersJ > 0 ? [restOf('not through here', besides.othersJ)] : []),
    ...(besides.unapportionedJ > 0 ? [restOf('told too late', besides.unapportionedJ)] : []),
    [...restOf('all', allJ), ...money({ cost: sumOf(total.cost, besides.cost), carbonG: sumOf(total.carbonG, besides.carbonG) }, intensities)],
  ];
  return [
    `Energy of requests from ${instant(fromS)} until ${instant(untilS)}, by ${by}${lines.length === 0 ? ': nothing is written down of that time' : ''}`,
    '',
    ...table([header, ...rows, ...rest]),
    '',
    ...notes(report, total.energyJ + besides.idleMeteredJ + besides.idleModelledJ, maximumClockJ),
  ].join('\n');
}

/** One line for each of the group, then the total; numbers without units in the columns' names' unit. */
export function reportCsv({ by, lines, total, besides, intensities }: EnergyReport): string {
  const header = [by, 'requests', 'prompt_tokens', 'cached_tokens', 'output_tokens', 'metered_j', 'modelled_j', 'energy_kwh', 'joules_per_output_token', 'cost', 'currency', 'carbon_g', 'maximum_clock_j_estimate'];
  const rows = [...lines, total].map((line) => [line.key, line.requests, line.promptTokens, line.cachedTokens, line.outputTokens, line.meteredJ, line.modelledJ, line.energyJ / KWH_J, line.joulesPerOutputToken, line.cost, line.cost === null ? null : intensities.currency, line.carbonG, line.maximumClockJ]);
  const besidesRows = ([['(idle)', besides.idleMeteredJ, besides.idleModelledJ], ['(not through here)', besides.othersJ, 0], ['(told too late)', besides.unapportionedJ, 0]] as const).map(([key, meteredJ, modelledJ]) => [key, null, null, null, null, meteredJ, modelledJ, (meteredJ + modelledJ) / KWH_J, null, null, null, null, null]);
  return [header, ...rows, ...besidesRows].map((row) => row.map(csvField).join(',')).join('\n');
}

function csvField(value: string | number | null): string {
  if (value === null) return '';
  if (typeof value === 'number') return String(Number(value.toPrecision(12)));
  // A spreadsheet takes what begins so for a formula.
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function notes({ intensities, besides, total, seenFromS, seenUntilS }: EnergyReport, comparedJ: number, maximumClockJ: number): string[] {
  const { pricePerKwh, currency, carbonGPerKwh, pue } = intensities;
  const said = [
    seenFromS === null || seenUntilS === null ? null : `Written down: hours from ${instant(seenFromS)} to ${instant(seenUntilS)}.`,
    'All of this is an estimate. Metered: the devices\' counters, shared out by what the profile says each request did. The rest is by the profile alone.',
    'Idle is nobody\'s and kept apart. Energy is of the devices (GPUs), without hosts, network and cooling.',
    besides.unapportionedJ > 0 ? '"Told too late" may be in requests already, as modelled: counters were out of sight meanwhile.' : null,
    maximumClockJ > 0 && total.requests > 0 ? `Counterfactual: at maximum clock the same requests and idling would have taken an estimated ${kwh(maximumClockJ)} kWh, by the profile and with routing as it was; what was taken is ${against(comparedJ / maximumClockJ - 1)}.` : null,
    pricePerKwh === null && carbonGPerKwh === null ? 'No price and no carbon intensity are known: accounts.pricePerKwh and accounts.carbonGPerKwh in the configuration, or --price-per-kwh and --carbon-g-per-kwh.' : null,
    pricePerKwh === null ? null : `Cost: an estimate at ${pricePerKwh} ${currency} per kWh and a PUE of ${pue}; electricity alone.`,
    carbonGPerKwh === null ? null : `Carbon: an estimate at ${carbonGPerKwh} g CO2e per kWh and a PUE of ${pue}; of the electricity, not of the hardware.`,
  ];
  return said.filter((line) => line !== null);
}

function moneyHeader({ pricePerKwh, currency, carbonGPerKwh }: Intensities): string[] {
  return [...(pricePerKwh === null ? [] : [`cost, ${currency}`]), ...(carbonGPerKwh === null ? [] : ['kg CO2e'])];
}

function money({ cost, carbonG }: Pick<BillLine, 'cost' | 'carbonG'>, { pricePerKwh, carbonGPerKwh }: Intensities): string[] {
  return [...(pricePerKwh === null ? [] : [cost === null ? '-' : cost >= 1 ? cost.toFixed(2) : small(cost)]), ...(carbonGPerKwh === null ? [] : [carbonG === null ? '-' : small(carbonG / 1_000)])];
}

function sumOf(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a + b;
}

function table(rows: readonly (readonly string[])[]): string[] {
  const columns = Math.max(...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  return rows.map((row) => widths.map((width, column) => (column === 0 ? (row[column] ?? '').padEnd(width) : (row[column] ?? '').padStart(width))).join('  ').trimEnd());
}

function whole(value: number): string {
  return String(Math.round(value));
}

function kwh(energyJ: number): string {
  return small(energyJ / KWH_J);
}

/** Four digits that count: a test's milliwatt-hours as well as a month's megawatt-hours. */
function small(value: number): string {
  if (value === 0) return '0';
  return Math.abs(value) >= 1_000 ? value.toFixed(0) : String(Number(value.toPrecision(4)));
}

function share(part: number, whole: number): string {
  if (whole === 0) return '-';
  // All of it is said of all of it only.
  return `${part > whole * (1 - 1e-9) ? 100 : Math.min(99, Math.round((100 * part) / whole))} %`;
}

function against(ratio: number): string {
  return `${Math.abs(100 * ratio).toFixed(1)} % ${ratio > 0 ? 'more' : 'less'}`;
}

function instant(atS: number): string {
  return new Date(atS * 1_000).toISOString().replace(/:\d\d\.000Z$/, 'Z').replace('T00:00Z', '');
}
