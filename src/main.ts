#!/usr/bin/env node
// argv -> one file per command. Nothing else happens here.
import type { Command } from './cli/command.ts';
import { UsageError } from './cli/command.ts';

/** Commands are loaded when asked for, so that `paceline emulate` does not pay for the gateway's imports. */
const COMMANDS: Readonly<Record<string, () => Promise<{ readonly command: Command }>>> = {
  serve: () => import('./cli/serve.ts'),
  emulate: () => import('./cli/emulate.ts'),
  simulate: () => import('./cli/simulate.ts'),
  bench: () => import('./cli/bench.ts'),
  keys: () => import('./cli/keys.ts'),
  profile: () => import('./cli/profile.ts'),
  frontier: () => import('./cli/frontier.ts'),
  demo: () => import('./cli/demo.ts'),
  report: () => import('./cli/report.ts'),
};

async function main(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(`${await overview()}\n`);
    return 0;
  }
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (load === undefined) throw new UsageError(`no command '${name}'; there are: ${Object.keys(COMMANDS).join(', ')}`);
  const { command } = await load();
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(`${command.usage}\n`);
    return 0;
  }
  return command.run(rest);
}

async function overview(): Promise<string> {
  const loaded = await Promise.all(Object.values(COMMANDS).map((load) => load()));
  const rows = loaded.map(({ command }) => `  ${command.name.padEnd(10)} ${command.summary}`);
  return ['paceline COMMAND [options]', '', ...rows, '', 'paceline COMMAND --help tells the options.'].join('\n');
}

// Whoever reads our output may have seen enough; a full disk is another matter, and said.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') process.stderr.write(`paceline: standard output: ${error.message}\n`);
  process.exit(error.code === 'EPIPE' ? 0 : 1);
});

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`paceline: ${error.message}\n`);
  process.exitCode = 2;
}
