// Does `paceline profile` find the truth that an emulated engine follows? For each shipped profile: the sweep on real processes in real time,
// then its error over the truth's whole grid. The sweep is told what an operator knows (what the engine was started with, the devices), never the truth.
//   npm run -s bench:profile                     all three, and the accounts; some ten minutes
//   npm run -s bench:profile -- --only mistral-7b.v100 --no-accounts --json
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { loadProfile } from '../../src/profile-file.ts';
import { measureAccountError } from '../accounts/account-error.ts';
import { recoveryOf, type Recovery } from './recovery.ts';
import { startSweepRig } from './sweep-rig.ts';

const { values } = parseArgs({ options: { only: { type: 'string' }, json: { type: 'boolean', default: false }, 'no-accounts': { type: 'boolean', default: false } } });
const NAMES = ['llama-3.1-8b.h200', 'llama-3.1-70b.h100-tp4', 'mistral-7b.v100'];
const names = values.only === undefined ? NAMES : values.only.split(',');
const TARGET_PCT = 5;
const SHARE_MAX = 0.1;

interface Swept extends Recovery {
  readonly profile: string;
  readonly measurements: number;
  readonly points: readonly string[];
  readonly seconds: number;
}

const swept: Swept[] = [];
for (const name of names) {
  const truthPath = resolve(import.meta.dirname, '../../config/profiles', `${name}.json`);
  const truth = loadProfile(truthPath);
  const clocksMhz = truth.points.map(({ knobs }) => Number(knobs['clockMhz']));
  const { maxBatchTokens, maxSequences, kvTokens } = truth.serving;
  const rows = truth.prefill.length + truth.decode.length;
  const rig = await startSweepRig(truthPath);
  const startedAtMs = performance.now();
  try {
    const out = join(rig.directory, 'measured.json');
    const { code, stdout, stderr } = await rig.profile([
      '--url', rig.url, '--agent-socket', rig.agentSocket, '--devices', rig.devices.join(','), '--out', out, '--json',
      '--max-batch-tokens', String(maxBatchTokens), '--max-sequences', String(maxSequences), '--kv-tokens', String(kvTokens),
      // Below these the truth itself knows nothing.
      '--clock-min', String(Math.min(...clocksMhz)), '--clock-max', String(Math.max(...clocksMhz)), '--measurements', String(Math.floor(rows * SHARE_MAX)),
    ]);
    if (code !== 0) throw new Error(`paceline profile ended with ${code}: ${stderr.slice(-2_000)}`);
    const { measurements, points } = JSON.parse(stdout) as { measurements: number; points: string[] };
    const recovery = recoveryOf(truth, loadProfile(out));
    swept.push({ profile: name, measurements, points, seconds: Math.round((performance.now() - startedAtMs) / 1_000), ...recovery });
    if (!values.json) process.stdout.write(`${told(swept.at(-1) as Swept)}\n`);
    if (process.env['KEEP_SWEEPS'] !== undefined) process.stderr.write(readFileSync(out.replace('.json', '.sweep.ndjson'), 'utf8'));
  } finally {
    await rig.close();
  }
}
const accounts = values['no-accounts'] ? null : await measureAccountError({ profile: resolve(import.meta.dirname, '../../config/profiles/llama-3.1-70b.h100-tp4.json'), replicas: 2, policy: 'paceline', ratePerS: 4, durationS: 20, seed: 1 });
const worst = (of: (one: Swept) => number): number => Math.max(...swept.map(of));
const result = {
  timeErrorPct: worst(({ timeErrorPct }) => timeErrorPct),
  energyErrorPct: worst(({ energyErrorPct }) => energyErrorPct),
  measurements: swept.reduce((sum, { measurements }) => sum + measurements, 0),
  gridPoints: swept.reduce((sum, { gridPoints }) => sum + gridPoints, 0),
  accountErrorPct: accounts?.accountErrorPct ?? null,
  profiles: swept,
};
const met = result.timeErrorPct <= TARGET_PCT && result.energyErrorPct <= TARGET_PCT && swept.every(({ measurements, gridPoints }) => measurements <= SHARE_MAX * gridPoints) && (result.accountErrorPct ?? 0) <= 1;
if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`);
else process.stdout.write(`worst of ${swept.length}: time off by ${result.timeErrorPct.toFixed(2)} %, energy by ${result.energyErrorPct.toFixed(2)} % (want at most ${TARGET_PCT}); ${result.measurements} of ${result.gridPoints} measured (want at most a tenth)${result.accountErrorPct === null ? '' : `; accounts off by ${result.accountErrorPct.toFixed(3)} % (want at most 1)`}: ${met ? 'met' : 'MISSED'}\n`);
if (!met) process.exitCode = 1;

function told({ profile, measurements, gridPoints, points, seconds, timeErrorPct, energyErrorPct, idleErrorPct, phases }: Swept): string {
  const phase = ({ timeErrorPct: time, energyErrorPct: energy, timeErrorMaxPct: timeMax, energyErrorMaxPct: energyMax }: Recovery['phases']['prefill']): string => `time ${time.toFixed(2)} % (worst row ${timeMax.toFixed(1)}), energy ${energy.toFixed(2)} % (worst ${energyMax.toFixed(1)})`;
  return `${profile}: ${measurements} of ${gridPoints} measured in ${seconds} s, points ${points.join(' ')}\n  all rows: time off by ${timeErrorPct.toFixed(2)} %, energy by ${energyErrorPct.toFixed(2)} %, idle power by ${idleErrorPct.toFixed(2)} %\n  prefill: ${phase(phases.prefill)}\n  decode: ${phase(phases.decode)}`;
}
