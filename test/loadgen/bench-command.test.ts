import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { StubServer } from './stub-server.ts';
import { startStub, streamTokens } from './stub-server.ts';

let directory = '';
let server: StubServer;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-bench-'));
  server = await startStub((_, response) => streamTokens(response, { tokens: 5, ttftMs: 20, tpotMs: 5 }));
});
afterEach(async () => {
  await server.close();
  rmSync(directory, { recursive: true });
});

async function bench(args: readonly string[], { interruptAfterMs }: { readonly interruptAfterMs?: number } = {}) {
  const child = spawn(process.execPath, ['src/main.ts', 'bench', ...args], { env: { ...process.env, NODE_NO_WARNINGS: '1' } });
  const [out, err]: [string[], string[]] = [[], []];
  child.stdout.on('data', (text) => out.push(String(text)));
  child.stderr.on('data', (text) => err.push(String(text)));
  if (interruptAfterMs !== undefined) {
    // From the first request on: how long a process takes to start is no matter of the test.
    const poll = setInterval(() => {
      if (server.seen.length === 0) return;
      clearInterval(poll);
      setTimeout(() => child.kill('SIGINT'), interruptAfterMs);
    }, 10);
  }
  const code = await new Promise((resolve) => child.on('close', resolve));
  return { code, stdout: out.join(''), stderr: err.join('') };
}

const SYNTHETIC = ['--synthetic', 'poisson', '--rate', '40', '--output-tokens', '5', '--prompt-tokens', '20', '--duration', '0.5', '--seed', '3'];

test('prints JSON alone with --json, the same in the file, without the key', async () => {
  const file = join(directory, 'out.json');
  const { code, stdout } = await bench([...SYNTHETIC, '--url', server.url, '--slo', 'config/slo/mixed.json', '--json', '--out', file, '--api-key', 'secret']);
  expect(code).toBe(0);
  const result = JSON.parse(stdout) as Record<string, unknown>;
  expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual(result);
  expect(result).toMatchObject({ completed: server.seen.length, failed: 0, attainment: 1, seed: 3, model: 'stub-model' });
  expect(result['command']).toContain('--api-key ***');
  expect(stdout).not.toContain('secret');
  expect(server.seen[0]?.headers['authorization']).toBe('Bearer secret');
  const compared = await bench(['--compare', file, '--compare', file]);
  expect(compared.stdout).toMatch(/attainment[\s\S]*\nout +\d+ +0 +100\.0 %/);
});

test('a trace from a file is played and reported as a table', async () => {
  const file = join(directory, 'trace.csv');
  writeFileSync(file, 'TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00.0,30,5\n2023-11-16 18:00:01.0,30,5\n2023-11-16 18:09:00.0,30,5\n');
  const { code, stdout } = await bench(['--url', server.url, '--trace', `azure:${file}`, '--duration', '60', '--speed', '5']);
  expect(code).toBe(0);
  expect(stdout).toContain('azure trace 0-60 s x5');
  expect(stdout).toContain('2: 2 completed, 0 failed');
});

test('Ctrl-C ends the run and prints what there is', async () => {
  const { code, stdout } = await bench(['--synthetic', 'poisson', '--rate', '20', '--output-tokens', '5', '--prompt-tokens', '20', '--duration', '600', '--url', server.url, '--json'], { interruptAfterMs: 500 });
  expect(code).toBe(130);
  const result = JSON.parse(stdout) as { interrupted: boolean; completed: number };
  expect(result.interrupted).toBe(true);
  expect(result.completed).toBeGreaterThan(0);
});

test.each([
  { args: [], code: 2, message: 'want either --trace or --synthetic' },
  { args: ['--trace', 'azure:none.csv', '--rate', '5'], code: 2, message: '--rate: is for --synthetic; a trace has its own, change it with --speed' },
  { args: ['--trace', 'azure:none.csv'], code: 2, message: 'none.csv: does not exist' },
  { args: ['--synthetic', 'poisson', '--cv', '2'], code: 2, message: '--cv: Poisson arrivals' },
  { args: ['--synthetic', 'poisson', '--slo', 'package.json'], code: 2, message: 'package.json' },
  { args: ['--synthetic', 'poisson', '--header', 'nonsense'], code: 2, message: "--header: got 'nonsense', want NAME:VALUE" },
  { args: ['--compare', 'package.json'], code: 2, message: '--compare package.json: not a result written by --out' },
  { args: [...SYNTHETIC, '--url', 'http://127.0.0.1:9'], code: 1, message: 'cannot be reached (ECONNREFUSED)' },
])('$args is refused in one line', async ({ args, code, message }) => {
  const refused = await bench(args);
  expect(refused).toMatchObject({ code, stdout: '' });
  expect(refused.stderr).toContain(message);
  expect(refused.stderr.trim().split('\n')).toHaveLength(1);
});
