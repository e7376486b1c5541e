// A bill of a time: energy by tenant, model, class or day, what it cost and which emissions go with it by intensities that are
// given, and what was no request's. Money and carbon are estimates: a price and an intensity are means of something that varies.
import type { HourlyReplica, HourlyUsage, UsageAmounts } from './account-record.ts';

export const REPORT_GROUPS = ['tenant', 'model', 'class', 'day'] as const;
export type ReportGroup = (typeof REPORT_GROUPS)[number];

/** What turns energy into money and carbon; `null`: not asked for, and absent from the bill. */
export interface Intensities {
  readonly pricePerKwh: number | null;
  readonly currency: string;
  readonly carbonGPerKwh: number | null;
  /** Of the site: what its meter shows over what its devices took. 1: the devices alone. */
  readonly pue: number;
}

export interface BillLine extends UsageAmounts {
  readonly key: string;
  readonly energyJ: number;
  /** Of the device group, over tokens of answers; `null` where there were none. */
  readonly joulesPerOutputToken: number | null;
  readonly cost: number | null;
  readonly carbonG: number | null;
}

export interface EnergyReport {
  readonly by: ReportGroup;
  readonly fromS: number;
  readonly untilS: number;
  readonly intensities: Intensities;
  readonly lines: readonly BillLine[];
  readonly total: BillLine;
  /** What is nobody's: kept apart, so that a tenant's bill does not depend on how much others came. */
  readonly besides: {
    readonly idleMeteredJ: number;
    readonly idleModelledJ: number;
    readonly othersJ: number;
    readonly unapportionedJ: number;
    readonly cost: number | null;
    readonly carbonG: number | null;
  };
  /** Counterfactual: the same work and idling at maximum clock; an estimate by the profile. */
  readonly maximumClockJ: number;
  /** First and last hour of which something is written down; `null` where nothing is. */
  readonly seenFromS: number | null;
  readonly seenUntilS: number | null;
}

const JOULES_PER_KWH = 3_600_000;

export function energyReport(usage: readonly HourlyUsage[], replicas: readonly HourlyReplica[], options: { readonly by: ReportGroup; readonly fromS: number; readonly untilS: number; readonly intensities: Intensities }): EnergyReport {
  const { by, intensities } = options;
  const groups = new Map<string, HourlyUsage[]>();
  for (const row of usage) {
    const key = keyOf(row, by);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [row]);
    else group.push(row);
  }
  const lines = [...groups].map(([key, rows]) => lineOf(key, rows, intensities));
  const total = lineOf('total', usage, intensities);
  const sum = (name: Exclude<keyof HourlyReplica, 'replica'>): number => replicas.reduce((all, row) => all + row[name], 0);
  const besides = { idleMeteredJ: sum('idleMeteredJ'), idleModelledJ: sum('idleModelledJ'), othersJ: sum('othersJ'), unapportionedJ: sum('unapportionedJ') };
  const besidesJ = Object.values(besides).reduce((all, energyJ) => all + energyJ, 0);
  const hours = [...usage, ...replicas].map(({ hourAtS }) => hourAtS);
  return {
    ...options,
    lines: by === 'day' ? lines.sort((a, b) => (a.key < b.key ? -1 : 1)) : lines.sort((a, b) => b.energyJ - a.energyJ),
    total,
    besides: { ...besides, cost: costOf(besidesJ, intensities), carbonG: carbonOf(besidesJ, intensities) },
    maximumClockJ: total.maximumClockJ + sum('maximumClockIdleJ'),
    seenFromS: hours.length === 0 ? null : hours.reduce((least, hour) => Math.min(least, hour)),
    seenUntilS: hours.length === 0 ? null : hours.reduce((most, hour) => Math.max(most, hour)) + 3_600,
  };
}

function keyOf({ tenant, model, sloClass, hourAtS }: HourlyUsage, by: ReportGroup): string {
  switch (by) {
    case 'tenant':
      return tenant;
    case 'model':
      return model;
    case 'class':
      return sloClass;
    case 'day':
      return new Date(hourAtS * 1_000).toISOString().slice(0, 10);
    default:
      return by satisfies never;
  }
}

function lineOf(key: string, rows: readonly HourlyUsage[], intensities: Intensities): BillLine {
  const sum = (name: keyof UsageAmounts): number => rows.reduce((all, row) => all + row[name], 0);
  const amounts = { requests: sum('requests'), promptTokens: sum('promptTokens'), cachedTokens: sum('cachedTokens'), outputTokens: sum('outputTokens'), meteredJ: sum('meteredJ'), modelledJ: sum('modelledJ'), maximumClockJ: sum('maximumClockJ') };
  const energyJ = amounts.meteredJ + amounts.modelledJ;
  return { key, ...amounts, energyJ, joulesPerOutputToken: amounts.outputTokens === 0 ? null : energyJ / amounts.outputTokens, cost: costOf(energyJ, intensities), carbonG: carbonOf(energyJ, intensities) };
}

function costOf(energyJ: number, { pricePerKwh, pue }: Intensities): number | null {
  return pricePerKwh === null ? null : (energyJ / JOULES_PER_KWH) * pue * pricePerKwh;
}

function carbonOf(energyJ: number, { carbonGPerKwh, pue }: Intensities): number | null {
  return carbonGPerKwh === null ? null : (energyJ / JOULES_PER_KWH) * pue * carbonGPerKwh;
}
