// Energy: power over the last minutes, joules per token against what maximum clock would have taken, and who used how much.
import type { EnergyAmounts, EnergyRow } from '../core/energy-book.ts';
import { chart, thinned } from '../plot/chart.ts';
import { type Cell, tableHtml } from '../plot/page.ts';
import { escaped } from '../plot/escape.ts';
import { numberText } from '../plot/scale.ts';
import { savedOf } from './fleet-fragment.ts';
import type { DashboardView } from './view.ts';
import { energyText, instantText, shareText } from './words.ts';

/** Rows of tenants; those with less are added up. */
export const TENANTS_MAX = 20;
const POINTS_MAX = 200;

export function powerFragment(view: DashboardView): string {
  return `${drawnFigure(view)}${budgetsTable(view)}`;
}

function budgetsTable({ snapshot: { budgets = [] } }: DashboardView): string {
  if (budgets.length === 0) return '';
  return tableHtml({ columns: ['power budget', 'may draw (W)', 'allotted (W)', 'draws (W)'], rows: budgets.map(({ name, watts, allottedW, drawnW }): Cell[] => [name, watts, allottedW, drawnW ?? 'not metered']) });
}

function drawnFigure({ remembered: { power }, atUnixMs }: DashboardView): string {
  const known = power.filter(({ powerW }) => powerW !== null);
  if (known.length < 2) return '<p class="none">Power has not been metered for long enough to be drawn; without an agent or another meter it is not known.</p>';
  const points = thinned(power.map(({ atUnixMs: at, powerW }) => ({ x: (at - atUnixMs) / 60_000, y: powerW ?? Number.NaN })), POINTS_MAX);
  const watts = known.map(({ powerW }) => powerW as number);
  const [least, most] = [Math.min(...watts), Math.max(...watts)];
  const svg = chart({
    title: 'Power of the fleet, by its counters',
    description: `Over the last 15 minutes between ${numberText(least)} and ${numberText(most)} watts`,
    x: { label: 'minutes ago', from: Math.min(-1, Math.floor((points[0] as { readonly x: number }).x)), to: 0 },
    y: { label: 'power (W)', from: 0 },
    series: [{ name: 'power', shape: 'line', points }],
    height: 240,
  });
  const table = tableHtml({ columns: ['time (UTC)', 'power (W)'], rows: thinnedRows(power).map(({ atUnixMs: at, powerW }) => [instantText(at), powerW]) });
  return `<figure><div class="scrolls" tabindex="0" role="group" aria-label="plot of power">${svg}</div><details><summary>The values (power)</summary>${table}</details></figure>`;
}

export function energyFragment(view: DashboardView): string {
  const { energy, sinceUnixMs } = view;
  const saved = savedOf(view);
  const sum = added(energy);
  if (saved === null || sum.outputTokens === 0) return '<p class="none">No request has ended yet.</p>';
  const tookJ = sum.meteredJ + sum.modelledJ;
  const perToken = (joules: number): number => joules / sum.outputTokens;
  const share = (took: number, fastest: number): string => (fastest <= 0 ? '' : `${took <= fastest ? '−' : '+'}${shareText(Math.abs(took / fastest - 1))}`);
  const table = tableHtml({
    columns: ['joules per output token', 'took', 'at maximum clock (counterfactual)', 'difference'],
    rows: [
      ['requests alone', perToken(tookJ), perToken(sum.maximumClockJ), share(tookJ, sum.maximumClockJ)],
      ['with idling', perToken(saved.tookJ), perToken(saved.maximumClockJ), share(saved.tookJ, saved.maximumClockJ)],
    ],
  });
  return `${table}<p class="note">Since ${instantText(sinceUnixMs)} UTC, ${numberText(sum.outputTokens)} output tokens; ${escaped(sourceText(sum))}. What maximum clock would have taken is nobody’s measurement: it is the profile’s word for the same requests at the fastest point, corrected by the meter where there is one. All of it are estimates.</p>`;
}

export function tenantsFragment({ energy }: DashboardView): string {
  const byTenant = new Map<string, EnergyRow[]>();
  for (const row of energy) byTenant.set(row.tenant, [...(byTenant.get(row.tenant) ?? []), row]);
  const tenants = [...byTenant].map(([tenant, rows]) => ({ tenant, ...added(rows) })).toSorted((a, b) => tookJ(b) - tookJ(a));
  if (tenants.length === 0) return '<p class="none">No request has ended yet.</p>';
  const rest = tenants.slice(TENANTS_MAX);
  const shown = rest.length === 0 ? tenants : [...tenants.slice(0, TENANTS_MAX), { tenant: `${rest.length} more`, ...added(rest) }];
  return tableHtml({
    columns: ['tenant', 'requests', 'prompt tokens', 'output tokens', 'energy', 'J per output token', 'against maximum clock', 'known by'],
    rows: shown.map((one): Cell[] => [
      one.tenant,
      one.requests,
      one.promptTokens,
      one.outputTokens,
      energyText(tookJ(one)),
      one.outputTokens === 0 ? '' : tookJ(one) / one.outputTokens,
      one.maximumClockJ <= 0 ? '' : `${tookJ(one) <= one.maximumClockJ ? '−' : '+'}${shareText(Math.abs(tookJ(one) / one.maximumClockJ - 1))}`,
      sourceText(one),
    ]),
  });
}

function added(rows: readonly EnergyAmounts[]): EnergyAmounts {
  const sum = { requests: 0, promptTokens: 0, cachedTokens: 0, outputTokens: 0, meteredJ: 0, modelledJ: 0, maximumClockJ: 0 };
  for (const row of rows) for (const key of Object.keys(sum) as (keyof EnergyAmounts)[]) sum[key] += row[key];
  return sum;
}

function tookJ({ meteredJ, modelledJ }: EnergyAmounts): number {
  return meteredJ + modelledJ;
}

function sourceText(amounts: EnergyAmounts): string {
  const took = tookJ(amounts);
  if (took <= 0) return 'nothing yet';
  const metered = amounts.meteredJ / took;
  return metered > 0.995 ? 'meter, shared out' : metered < 0.005 ? 'profile, no meter' : `${shareText(metered)} meter, the rest the profile`;
}

function thinnedRows<Row>(rows: readonly Row[]): readonly Row[] {
  const every = Math.ceil(rows.length / TABLE_ROWS_MAX);
  return rows.filter((_, index) => (rows.length - 1 - index) % every === 0);
}

const TABLE_ROWS_MAX = 30;
