// `paceline report`: what requests took of the energy in a time, by the hourly accounts that gateways have written down.
import { openAccountsFile, AccountsFileError } from '../accounts/accounts-file.ts';
import { hourOf } from '../accounts/account-record.ts';
import { energyReport, type EnergyReport, type Intensities, REPORT_GROUPS, type ReportGroup } from '../accounts/energy-report.ts';
import { formatReport, reportCsv } from '../accounts/format-report.ts';
import { type Config, loadConfig } from '../config.ts';
import { ConfigError } from '../config/config-problems.ts';
import { defineCommand, UsageError } from './command.ts';

export const command = defineCommand({
  name: 'report',
  summary: 'A bill of energy, cost and carbon by tenant, model, class or day, from the accounts of gateways',
  options: {
    since: { type: 'text', value: 'DATE', help: 'from its beginning, UTC: 2026-11-01, or an instant such as 2026-11-01T12:00Z; accounts are by the hour' },
    until: { type: 'text', value: 'DATE', help: 'to its beginning; default: now' },
    by: { type: 'text', value: 'GROUP', help: 'a line for each', default: 'tenant', oneOf: REPORT_GROUPS },
    config: { type: 'text', value: 'FILE', help: "the gateway's configuration: names its accounts, price and carbon intensity" },
    file: { type: 'texts', value: 'FILE', help: 'accounts of a gateway; those of several are added up' },
    'price-per-kwh': { type: 'number', value: 'N', help: 'instead of the configured one', min: 0, max: 1_000 },
    currency: { type: 'text', value: 'LABEL', help: 'of the price' },
    'carbon-g-per-kwh': { type: 'number', value: 'N', help: 'instead of the configured intensity, grams of CO2 equivalent', min: 0, max: 10_000 },
    pue: { type: 'number', value: 'N', help: 'instead of the configured power usage effectiveness', min: 1, max: 5 },
    json: { type: 'flag', help: 'JSON instead of a table' },
    csv: { type: 'flag', help: 'CSV instead of a table' },
  },
  examples: ['paceline report --config paceline.yaml --since 2026-11-01', 'paceline report --file a.sqlite --file b.sqlite --since 2026-11-01 --until 2026-12-01 --by day --csv'],
  run: async (options) => {
    if (options.json && options.csv) throw new UsageError('--json and --csv: want one of them');
    if (options.since === undefined) throw new UsageError('--since DATE is missing, such as 2026-11-01; see: paceline report --help');
    const fromS = instantOf('since', options.since);
    const untilS = options.until === undefined ? hourOf(Date.now()) + 3_600 : instantOf('until', options.until);
    if (untilS <= fromS) throw new UsageError(`--until: got '${options.until ?? 'now'}', which is not after --since ${options.since}`);
    const config = options.config === undefined ? null : readConfig(options.config);
    const paths = options.file.length > 0 ? options.file : [accountsPathOf(config)];
    const known = config?.intensities;
    const intensities: Intensities = {
      pricePerKwh: options['price-per-kwh'] ?? known?.pricePerKwh ?? null,
      currency: options.currency ?? known?.currency ?? 'EUR',
      carbonGPerKwh: options['carbon-g-per-kwh'] ?? known?.carbonGPerKwh ?? null,
      pue: options.pue ?? known?.pue ?? 1,
    };
    const report = reportOf([...new Set(paths)], { by: options.by as ReportGroup, fromS, untilS, intensities });
    process.stdout.write(`${options.json ? JSON.stringify(report) : options.csv ? reportCsv(report) : formatReport(report)}\n`);
    return 0;
  },
});

function reportOf(paths: readonly string[], options: { readonly by: ReportGroup; readonly fromS: number; readonly untilS: number; readonly intensities: Intensities }): EnergyReport {
  try {
    const read = paths.map((path) => {
      const file = openAccountsFile(path, { write: false });
      try {
        return { usage: file.usage(options.fromS, options.untilS), replicas: file.replicas(options.fromS, options.untilS) };
      } finally {
        file.close();
      }
    });
    return energyReport(read.flatMap(({ usage }) => usage), read.flatMap(({ replicas }) => replicas), options);
  } catch (error) {
    if (error instanceof AccountsFileError) throw new UsageError(error.message);
    throw error;
  }
}

function readConfig(path: string): Config {
  try {
    return loadConfig(path);
  } catch (error) {
    if (error instanceof ConfigError) throw new UsageError(error.problems.join('\n'));
    throw error;
  }
}

function accountsPathOf(config: Config | null): string {
  if (config === null) throw new UsageError('--config FILE or --file FILE is missing: where are the accounts?; see: paceline report --help');
  if (config.accounts.path === null) throw new UsageError('the configuration names no accounts.file, so that nothing is written down; set it, or name files with --file');
  return config.accounts.path;
}

/** Seconds since 1970. */
function instantOf(name: string, text: string): number {
  const iso = /^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00Z` : /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})$/.test(text) ? text : null;
  const unixMs = iso === null ? Number.NaN : Date.parse(iso);
  // Date.parse takes the 31st of April for the 1st of May.
  const day = Date.parse(`${text.slice(0, 10)}T00:00Z`);
  if (Number.isNaN(unixMs) || Number.isNaN(day) || new Date(day).toISOString().slice(0, 10) !== text.slice(0, 10)) throw new UsageError(`--${name}: got '${text}', want a day such as 2026-11-01 or an instant such as 2026-11-01T12:00Z`);
  return Math.floor(unixMs / 1_000);
}
