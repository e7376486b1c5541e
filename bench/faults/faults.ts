// The command: what of the promises about faults, fleets and overload holds, measured over real processes.
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import type { SchedulesResult } from './run-schedules.ts';
import { runSchedules } from './run-schedules.ts';

const HELP = `npm run -s bench:faults -- [options]

Real gateways, emulated model servers, agents and Redis, all of them killed, frozen and worse by a seeded schedule, while a
client checks every byte that it gets. Ends with 1 where anything was violated.

  --schedules N   how many (default 12)
  --seed S        of the first of them (default 1)
  --only K        the K-th schedule of the seed alone, told in full
  --json          one JSON object on stdout, the rest on stderr
  --help          this text
`;

const { values } = parseArgs({
  options: {
    schedules: { type: 'string', default: '12' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

if (values.help) process.stdout.write(HELP);
else await main();

async function main(): Promise<void> {
  const say = (line: string): void => void (values.json ? process.stderr : process.stdout).write(`${line}\n`);
  const schedules = await runSchedules({ seed: wholeNumber('seed', values.seed), schedules: wholeNumber('schedules', values.schedules), only: values.only === undefined ? null : wholeNumber('only', values.only), onLine: say });
  say(told(schedules));
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ machine: `${cpus().length} x ${cpus()[0]?.model.trim()}, Node ${process.version}`, ...schedules, schedules: schedules.schedules, violations: schedules.violations.length, violated: schedules.violations })}\n`);
  }
  if (schedules.violations.length > 0) process.exitCode = 1;
}

function told({ schedules, violations, faults, requests, clocksBackMsMax }: SchedulesResult): string {
  return `${schedules} schedules, ${faults} faults, ${requests} requests: ${violations.length} violations; clocks were back within ${clocksBackMsMax?.toFixed(0) ?? '-'} ms`;
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`--${name}: got '${text}', want a whole number from 0 on`);
  return value;
}
