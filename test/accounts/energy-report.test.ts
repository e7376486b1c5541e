import { describe, expect, test } from 'vitest';
import type { HourlyReplica, HourlyUsage } from '../../src/accounts/account-record.ts';
import { energyReport, type Intensities, type ReportGroup } from '../../src/accounts/energy-report.ts';
import { formatReport, reportCsv } from '../../src/accounts/format-report.ts';

const DAY = Date.UTC(2026, 10, 1) / 1_000;
const KWH = 3_600_000;
const usage = (over: Partial<HourlyUsage> = {}): HourlyUsage => ({ hourAtS: DAY, tenant: 'acme', model: 'llama', sloClass: 'chat', requests: 10, promptTokens: 1_000, cachedTokens: 100, outputTokens: 500, meteredJ: 2 * KWH, modelledJ: 0, maximumClockJ: 3 * KWH, ...over });
const replica = (over: Partial<HourlyReplica> = {}): HourlyReplica => ({ hourAtS: DAY, replica: 'r0', idleMeteredJ: KWH, idleModelledJ: 0, othersJ: 0, unapportionedJ: 0, maximumClockIdleJ: 2 * KWH, ...over });
const NONE: Intensities = { pricePerKwh: null, currency: 'EUR', carbonGPerKwh: null, pue: 1 };
const PRICED: Intensities = { pricePerKwh: 0.5, currency: 'EUR', carbonGPerKwh: 400, pue: 1.5 };

function reportOf({ rows = [usage()], replicas = [replica()], by = 'tenant' as ReportGroup, intensities = NONE } = {}) {
  return energyReport(rows, replicas, { by, fromS: DAY, untilS: DAY + 30 * 86_400, intensities });
}

describe('a bill', () => {
  test.each<[ReportGroup, string[]]>([
    ['tenant', ['beta', 'acme']],
    ['model', ['llama', 'tiny']],
    ['class', ['chat', 'batch']],
    ['day', ['2026-11-01', '2026-11-03']],
  ])('by %s has a line for each, days in order and all else the largest first', (by, keys) => {
    const rows = [usage(), usage({ tenant: 'beta', sloClass: 'batch', hourAtS: DAY + 2 * 86_400 }), usage({ tenant: 'beta', model: 'tiny', meteredJ: KWH, hourAtS: DAY + 3_600 })];
    expect(reportOf({ rows, by }).lines.map(({ key }) => key)).toEqual(keys);
    expect(reportOf({ rows, by }).total).toMatchObject({ requests: 30, energyJ: 5 * KWH });
  });

  test('adds up what is metered and what is modelled, and shows both', () => {
    const { total } = reportOf({ rows: [usage({ meteredJ: 300, modelledJ: 100, outputTokens: 200 })] });
    expect(total).toMatchObject({ energyJ: 400, meteredJ: 300, modelledJ: 100, joulesPerOutputToken: 2 });
  });

  test('has no joules per token where there was no answer, no cost and no carbon where nobody gave an intensity', () => {
    expect(reportOf({ rows: [usage({ outputTokens: 0 })] }).total).toMatchObject({ joulesPerOutputToken: null, cost: null, carbonG: null });
  });

  test('costs and emits what its kilowatt-hours do, with what the site takes on top', () => {
    const { total, besides } = reportOf({ intensities: PRICED });
    expect(total).toMatchObject({ cost: 2 * 1.5 * 0.5, carbonG: 2 * 1.5 * 400 });
    expect(besides).toMatchObject({ idleMeteredJ: KWH, cost: 0.75, carbonG: 600 });
  });

  test('sets requests and idling against both at maximum clock', () => {
    expect(reportOf().maximumClockJ).toBe(5 * KWH);
  });

  test('of a time of which nothing is written down is empty', () => {
    expect(reportOf({ rows: [], replicas: [] })).toMatchObject({ lines: [], total: { requests: 0, energyJ: 0 }, seenFromS: null });
    expect(formatReport(reportOf({ rows: [], replicas: [] }))).toContain('nothing is written down of that time');
  });
});

describe('as text', () => {
  test('it says what is metered, what is nobody’s, what is an estimate and what by', () => {
    const text = formatReport(reportOf({ rows: [usage(), usage({ tenant: 'beta', meteredJ: 0, modelledJ: KWH })], replicas: [replica({ othersJ: KWH / 2, unapportionedJ: KWH / 4 })], intensities: PRICED }));
    expect(text).toMatch(/^Energy of requests from 2026-11-01 until 2026-12-01, by tenant/);
    expect(text).toMatch(/acme +10 +1000 +100 +500 +2 +100 % +14400\.00 +1\.50 +1\.2/);
    expect(text).toMatch(/beta .* 1 +0 % /);
    expect(text).toMatch(/total .* 3 +67 % /);
    expect(formatReport(reportOf({ rows: [usage({ modelledJ: 1 })] }))).toMatch(/acme .* 2 +99 % /);
    expect(text).toMatch(/idle +1 +100 %/);
    expect(text).toMatch(/not through here +0\.5/);
    expect(text).toMatch(/told too late +0\.25/);
    expect(text).toMatch(/all +4\.75 .*3\.56 +2\.85/);
    expect(text).toContain('an estimate at 0.5 EUR per kWh and a PUE of 1.5');
    expect(text).toContain('an estimate at 400 g CO2e per kWh');
    expect(text).toMatch(/Counterfactual: at maximum clock .* an estimated 8 kWh, .* what was taken is 50\.0 % less/);
  });

  test('it tells how to get cost and carbon where there is none', () => {
    const text = formatReport(reportOf());
    expect(text).toContain('accounts.pricePerKwh');
    expect(text).not.toContain('CO2e per kWh and');
  });
});

test('as CSV it has plain numbers, quotes what it must, and no name is a formula', () => {
  const lines = reportCsv(reportOf({ rows: [usage({ tenant: '=cmd|x,"y"' })], intensities: PRICED })).split('\n');
  expect(lines[0]).toBe('tenant,requests,prompt_tokens,cached_tokens,output_tokens,metered_j,modelled_j,energy_kwh,joules_per_output_token,cost,currency,carbon_g,maximum_clock_j_estimate');
  expect(lines[1]).toBe(`"'=cmd|x,""y""",10,1000,100,500,7200000,0,2,14400,1.5,EUR,1200,10800000`);
  expect(lines[2]).toMatch(/^total,10,/);
  expect(lines[3]).toBe('(idle),,,,,3600000,0,1,,,,,');
});
