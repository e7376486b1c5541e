// Commands of the documents that no test runs as they stand, each with the reason and with what is looked at instead. A command that is
// neither here nor can be run fails test/docs/commands.test.ts.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { wordsOf } from './commands.ts';

export interface NotRun {
  readonly match: RegExp;
  readonly why: string;
  /** What is wrong with the command; empty where nothing is. */
  readonly look: (command: string) => readonly string[];
}

const NOT_IN_A_TEST = 'it changes the machine it is run on: users, services, /etc';

export const NOT_RUN: readonly NotRun[] = [
  { match: /^make /, why: 'a whole target takes minutes, and CI runs the most of them', look: targetMissing },
  { match: /^npm (ci|install)\b/, why: 'what runs the tests is installed so already', look: () => [] },
  { match: /^npm run fuzz/, why: 'two minutes; test/fuzz has a short one', look: scriptMissing },
  { match: /^npm run (-s )?bench:/, why: 'a bench takes minutes; what it prints is in bench/results', look: scriptMissing },
  { match: /^cargo build /, why: 'make agent has built it', look: filesMissing },
  { match: /^(install|systemctl|systemd-sysusers|usermod|useradd|groupadd|chown|chmod|mkdir -p) .*\/(etc|usr|var|run|opt)\//, why: NOT_IN_A_TEST, look: filesMissing },
  { match: /^(systemctl|systemd-\S+|usermod|journalctl) /, why: NOT_IN_A_TEST, look: filesMissing },
  { match: /^sudo /, why: NOT_IN_A_TEST, look: (command) => [...filesMissing(command), ...optionsMissing(command)] },
  { match: /^docker /, why: 'there is no Docker here; test/deploy reads the Dockerfiles', look: filesMissing },
  { match: /^(kubectl|helm) /, why: 'there is no cluster here; test/deploy renders and checks what they apply', look: filesMissing },
  { match: /^ssh /, why: 'there is no other machine', look: () => [] },
  { match: /nvidia-smi|--driver nvml/, why: 'there is no GPU here', look: optionsMissing },
  { match: /^(pip install )?vllm\b|^pip install /, why: 'vLLM wants a GPU; make test-engines has other engines', look: () => [] },
  { match: /--import \S*otel\.mjs/, why: 'test/processes/open-telemetry.test.ts runs it, with a receiver', look: filesMissing },
  { match: /bench --(compare [\w-]+=|report-from)/, why: 'an A/B takes minutes; test/compare has its parts, and bench:compare runs one', look: optionsMissing },
  { match: /^npx vitest /, why: 'it is what runs this', look: filesMissing },
  { match: /(azure|mooncake|servegen|burstgpt)[:/]|--rows /i, why: 'the recorded traces are not part of this repository', look: optionsMissing },
];

function targetMissing(command: string): string[] {
  const targets = new Set([...readFileSync('Makefile', 'utf8').matchAll(/^([a-z][a-z-]*):/gm)].map(([, target]) => target));
  return wordsOf(command)
    .slice(1)
    .filter((word) => !word.includes('='))
    .filter((word) => !targets.has(word))
    .map((word) => `no target ${word} in the Makefile`);
}

function scriptMissing(command: string): string[] {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> };
  const name = wordsOf(command).find((word, index) => index > 1 && !word.startsWith('-')) ?? '';
  return name in scripts ? [] : [`no script ${name} in package.json`];
}

/** Of what looks like a path into this repository. */
function filesMissing(command: string): string[] {
  return wordsOf(command)
    .filter((word) => /^(agent|bench|config|deploy|docs|src|test)\/[\w./-]+$/.test(word) && !word.startsWith('agent/target/'))
    .filter((path) => !existsSync(path))
    .map((path) => `no ${path} here`);
}

/** Options that the help of `paceline` or of its agent does not know. */
export function optionsMissing(command: string): string[] {
  const words = wordsOf(command.split(/ [|;&]+ /)[0] ?? '');
  const agentAt = words.findIndex((word) => word.endsWith('paceline-agent'));
  const ownAt = words.findIndex((word, index) => word === '--' && words[index - 1] === 'paceline');
  if (agentAt < 0 && ownAt < 0) return [];
  const [name = '', ...rest] = words.slice((agentAt < 0 ? ownAt : agentAt) + 1);
  const help = agentAt < 0 ? helpOf(process.execPath, ['src/main.ts', name, '--help']) : helpOf('agent/target/release/paceline-agent', [name, '--help']);
  const options = rest.filter((word) => /^--[a-z]/.test(word)).map((word) => word.split('=')[0] as string);
  return options.filter((option) => !new RegExp(`${option}(?![\\w-])`).test(help)).map((option) => `${name} has no ${option}`);
}

function helpOf(command: string, args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
