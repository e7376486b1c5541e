import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { openAccountsFile } from '../../src/accounts/accounts-file.ts';
import type { EnergyReport } from '../../src/accounts/energy-report.ts';
import { UsageError } from '../../src/cli/command.ts';
import { command } from '../../src/cli/report.ts';

let directory: string;
const HOUR = Date.UTC(2026, 10, 3, 7) / 1_000;
const USAGE = { tenant: 'acme', model: 'm', sloClass: 'chat', requests: 2, promptTokens: 100, cachedTokens: 0, outputTokens: 50, meteredJ: 3_600_000, modelledJ: 0, maximumClockJ: 7_200_000 };

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-report-'));
  for (const name of ['a.sqlite', 'b.sqlite']) {
    const file = openAccountsFile(join(directory, name), { write: true });
    file.add(HOUR, [USAGE], [{ replica: 'r0', idleMeteredJ: 1_800_000, idleModelledJ: 0, othersJ: 0, unapportionedJ: 0, maximumClockIdleJ: 0 }]);
    file.close();
  }
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(directory, { recursive: true, force: true });
});

async function printed(...argv: string[]): Promise<string> {
  let text = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  try {
    expect(await command.run(argv)).toBe(0);
  } finally {
    write.mockRestore();
  }
  return text;
}
const at = (name: string): string => join(directory, name);

describe('paceline report', () => {
  test('adds the accounts of several gateways up, each file once', async () => {
    const { total, besides } = JSON.parse(await printed('--since', '2026-11-01', '--file', at('a.sqlite'), '--file', at('b.sqlite'), '--file', at('a.sqlite'), '--json')) as EnergyReport;
    expect(total).toMatchObject({ requests: 4, energyJ: 7_200_000, cost: null, carbonG: null });
    expect(besides.idleMeteredJ).toBe(3_600_000);
  });

  test.each([
    { since: '2026-11-03', until: '2026-11-04', requests: 2 },
    { since: '2026-11-03T07:00Z', until: '2026-11-03T08:00Z', requests: 2 },
    { since: '2026-11-03T09:00+02:00', until: '2026-11-04', requests: 2 },
    { since: '2026-11-03T08:00Z', until: '2026-11-04', requests: 0 },
    { since: '2026-10-01', until: '2026-11-03', requests: 0 },
  ])('has of $since until $until what began then', async ({ since, until, requests }) => {
    expect((JSON.parse(await printed('--since', since, '--until', until, '--file', at('a.sqlite'), '--json')) as EnergyReport).total.requests).toBe(requests);
  });

  test('takes file, price and intensity from the configuration, and options before those', async () => {
    writeFileSync(at('paceline.yaml'), 'replicas: [{ id: r, url: "http://127.0.0.1:1", models: [m], profile: p.json }]\naccounts: { file: a.sqlite, pricePerKwh: 0.2, currency: CHF, carbonGPerKwh: 100, pue: 1.5 }\n');
    const configured = JSON.parse(await printed('--since', '2026-11-01', '--config', at('paceline.yaml'), '--json')) as EnergyReport;
    expect(configured.total).toMatchObject({ requests: 2, cost: 1.5 * 0.2, carbonG: 150 });
    const text = await printed('--since', '2026-11-01', '--config', at('paceline.yaml'), '--price-per-kwh', '1', '--pue', '1');
    expect(text).toMatch(/acme .* 1\.00 +0\.1$/m);
    expect(text).toContain('an estimate at 1 CHF per kWh and a PUE of 1');
  });

  test.each<[string, string[], RegExp]>([
    ['no beginning', ['--file', 'a'], /--since DATE is missing/],
    ['a day that is none, of another time zone: it was read as the 2nd of March', ['--since', '2026-02-30T10:00+02:00', '--file', 'a'], /--since: got '2026-02-30T10:00\+02:00', want a day/],
    ['a day that is none', ['--since', '2026-02-30', '--file', 'a'], /--since: got '2026-02-30', want a day/],
    ['a time without a zone', ['--since', '2026-02-03T10:00', '--file', 'a'], /want a day such as/],
    ['an end before the beginning', ['--since', '2026-02-03', '--until', '2026-02-03', '--file', 'a'], /--until: got '2026-02-03', which is not after/],
    ['another group', ['--since', '2026-02-03', '--by', 'week', '--file', 'a'], /--by: got 'week', allowed: tenant, model, class, day/],
    ['two forms', ['--since', '2026-02-03', '--json', '--csv', '--file', 'a'], /want one of them/],
    ['no accounts', ['--since', '2026-02-03'], /where are the accounts/],
    ['a file that is not there', ['--since', '2026-02-03', '--file', '/nowhere/a'], /\/nowhere\/a: there is no such file/],
  ])('refuses %s in one line', async (_, argv, message) => {
    await expect(Promise.resolve().then(() => command.run(argv))).rejects.toThrow(UsageError);
    await expect(Promise.resolve().then(() => command.run(argv))).rejects.toThrow(message);
  });
});
