// Replays the recorded Azure conversation trace through real HTTP: emulated replicas, the native agent, the gateway at
// maximum clock and then under Paceline, the load by `paceline bench`. Writes every result with its command.
// Without the trace (it is not part of the package) a synthetic load of the same rate and sizes is played and said so.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { startFleet } from '../src/demo/fleet.ts';
import type { BenchResult } from '../src/loadgen/bench-result.ts';
import { formatComparison } from '../src/loadgen/format-result.ts';

const ROOT = resolve(import.meta.dirname, '..');
const PROFILE = 'config/profiles/llama-3.1-70b.h100-tp4.json';
/** Answers still running when the last request goes out end within this; all runs are metered over the same window. */
const WINDOW_TAIL_S = 30;

const { values } = parseArgs({
  options: {
    trace: { type: 'string', default: '../shared/data/azure-llm-2023/AzureLLMInferenceTrace_conv.csv' },
    replicas: { type: 'string', default: '4' },
    duration: { type: 'string', default: '600' },
    slo: { type: 'string', default: 'config/slo/chat.json' },
    /** Policies; `+` names the routing where it is not the policy's own, e.g. `max-clock+energy`. */
    policies: { type: 'string', default: 'max-clock,paceline' },
    /** Default: bench/results/azure-conversation, or a folder of its own for the stand-in of a trace that is not there. */
    out: { type: 'string' },
  },
});
const durationS = Number(values.duration);
const recorded = existsSync(resolve(ROOT, values.trace));
const folder = values.out ?? (recorded ? 'bench/results/azure-conversation' : 'azure-synthetic-result');
const out = resolve(ROOT, folder);
await mkdir(out, { recursive: true });
if (!recorded) process.stderr.write(`no trace at ${values.trace} (--trace FILE; AzureLLMInferenceTrace_conv.csv of github.com/Azure/AzurePublicDataset): a SYNTHETIC load of its rate and sizes instead; results go to ${folder}\n`);
const load = recorded
  ? ['--trace', `azure:${values.trace}`, '--duration', String(durationS)]
  : ['--synthetic', 'poisson', '--rate', '4.8', '--prompt-tokens', 'lognormal:1195:0.9', '--output-tokens', 'lognormal:201:0.8', '--duration', String(durationS)];

const fleet = await startFleet({
  profile: join(ROOT, PROFILE),
  replicas: Number(values.replicas),
  port: 0,
  onTrouble: (message) => {
    process.stderr.write(`${message}\n`);
    process.exitCode = 1;
  },
});
const runs: { label: string; result: BenchResult; command: string }[] = [];
try {
  for (const label of values.policies.split(',')) {
    const [policy = '', routing] = label.split('+');
    const { url } = await fleet.gateway(policy, routing);
    const file = join(folder, `${label.replace(/[^\w+-]/g, '-')}.json`);
    const argsFor = (at: { url: string; socket: string }): string[] => ['bench', '--url', at.url, ...load, '--slo', values.slo, '--agent-socket', at.socket, '--window-s', String(durationS + WINDOW_TAIL_S), '--out', file];
    const args = argsFor({ url, socket: fleet.agentSocket });
    // Recorded without the ports and temporary files of this one run, which would mean nothing to anybody else.
    const command = `npm run -s paceline -- ${argsFor({ url: 'GATEWAY', socket: 'AGENT_SOCKET' }).join(' ')}`;
    process.stdout.write(`${label}: ${command}\n`);
    const child = spawn(process.execPath, [join(ROOT, 'src/main.ts'), ...args], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
    // What was started ends with us: the load first, then, below, the fleet.
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => child.kill(signal));
    const [code] = (await once(child, 'exit')) as [number | null];
    if (code !== 0) throw new Error(`paceline bench ended with exit code ${String(code)}`);
    const result: BenchResult = { ...(JSON.parse(await readFile(resolve(ROOT, file), 'utf8')) as BenchResult), command, url: 'GATEWAY' };
    await writeFile(resolve(ROOT, file), `${JSON.stringify(result, null, 2)}\n`);
    runs.push({ label, result, command });
  }
} finally {
  await fleet.close();
}
const comparison = formatComparison(runs);
const summary = `# Azure conversation trace, ${durationS} s in real time, ${values.replicas} replicas

${recorded ? 'The recorded trace (Azure LLM inference traces 2023, CC-BY 4.0; Patel et al., Splitwise, ISCA 2024).' : 'The trace was not there: a SYNTHETIC load of the same rate and sizes.'}
Emulated replicas of ${PROFILE}, agent: ${fleet.agent}, SLOs: \`${values.slo}\`.
Machine: ${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}, Linux ${release()}, Node ${process.version}.
Energy: all emulated devices, idle included, over the same ${durationS + WINDOW_TAIL_S} s; relative to the first run.

\`\`\`
${comparison}
\`\`\`

All of it: \`npm run -s bench:azure -- --policies ${values.policies} --duration ${durationS} --slo ${values.slo}\`. Each run alone, against a gateway that is up:
${runs.map(({ label, command }) => `\n- \`${label}\`: \`${command}\``).join('')}
`;
await writeFile(join(out, 'README.md'), summary);
process.stdout.write(`\n${comparison}\n\nwritten to ${folder}\n`);
