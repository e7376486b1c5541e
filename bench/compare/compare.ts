// An A/B on an emulated fleet, from nothing: engines, the agent, and `paceline bench --compare` of maximum clock against Paceline over the
// same devices. Writes the result, its report and a summary with the command.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { readComparison } from '../../src/compare/comparison-file.ts';
import { startFleet } from '../../src/demo/fleet.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const PROFILE = 'config/profiles/llama-3.1-70b.h100-tp4.json';

const { values } = parseArgs({
  options: {
    replicas: { type: 'string', default: '2' },
    rate: { type: 'string', default: '4' },
    duration: { type: 'string', default: '30' },
    rounds: { type: 'string', default: '4' },
    'warm-up': { type: 'string', default: '5' },
    rest: { type: 'string', default: '3' },
    slo: { type: 'string', default: 'config/slo/mixed.json' },
    /** Arms, as policies. */
    policies: { type: 'string', default: 'max-clock,paceline' },
    out: { type: 'string', default: 'bench/results/compare' },
  },
});
const out = resolve(ROOT, values.out);
await mkdir(out, { recursive: true });
const fleet = await startFleet({
  profile: join(ROOT, PROFILE),
  replicas: Number(values.replicas),
  port: 0,
  onTrouble: (message) => {
    process.stderr.write(`${message}\n`);
    process.exitCode = 1;
  },
});
try {
  const config = await fleet.writeConfig();
  const argsFor = (at: { readonly config: string; readonly socket: string; readonly out: string }): string[] => [
    'bench', ...values.policies.split(',').flatMap((policy) => ['--compare', `${policy}=${at.config}#${policy}`]),
    '--synthetic', 'poisson', '--rate', values.rate, '--duration', values.duration, '--prompt-tokens', 'lognormal:900:0.8', '--output-tokens', 'lognormal:120:0.7', '--slo', values.slo,
    '--rounds', values.rounds, '--warm-up', values['warm-up'], '--rest', values.rest, '--meter', `agent:${at.socket}`, '--out', join(at.out, 'result.json'), '--report', join(at.out, 'report.html'),
  ];
  const child = spawn(process.execPath, [join(ROOT, 'src/main.ts'), ...argsFor({ config, socket: fleet.agentSocket, out })], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  let summary = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    summary += text;
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => child.kill(signal));
  const [code] = (await once(child, 'exit')) as [number | null];
  process.stdout.write(summary);
  if (code !== 0) process.exitCode = 1;
  // Recorded without the temporary files of this one run, which would mean nothing to anybody else; the report is made anew from that.
  const command = `paceline ${argsFor({ config: 'paceline.yaml', socket: 'agent.sock', out: '.' }).join(' ')}`;
  const measured = readComparison(await readFile(join(out, 'result.json'), 'utf8'), 'result.json');
  const arms = measured.arms.map((arm) => ({ ...arm, target: arm.target.replace(config, 'paceline.yaml') }));
  await writeFile(join(out, 'result.json'), `${JSON.stringify({ ...measured, command, arms })}\n`);
  const again = spawn(process.execPath, [join(ROOT, 'src/main.ts'), 'bench', '--report-from', join(out, 'result.json'), '--report', join(out, 'report.html')], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
  await once(again, 'exit');
  await writeFile(join(out, 'summary.txt'), `${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}, Linux ${release()}, Node ${process.version}; agent: ${fleet.agent}; ${values.replicas} emulated replicas of ${PROFILE}\n${command}\n\n${summary}`);
} finally {
  await fleet.close();
}
