// `paceline demo` as people run it: real processes, and nothing left behind.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { BenchResult } from '../../src/loadgen/bench-result.ts';

let directory: string;
let demo: ChildProcess | null = null;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-demo-test-'));
});

afterEach(() => {
  demo?.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

/** Its temporary files go below `directory`, so that what it leaves can be seen. */
function startDemo(args: readonly string[]): { readonly child: ChildProcess; readonly output: () => string } {
  const child = spawn(process.execPath, ['src/main.ts', 'demo', '--port', '0', '--out', join(directory, 'result.json'), ...args], {
    env: { ...process.env, TMPDIR: directory },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  demo = child;
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
  }
  return { child, output: () => text };
}

async function exitCode(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null) return child.exitCode;
  const [code] = (await once(child, 'exit')) as [number | null];
  return code;
}

/** Processes that still have the demo's directory in their command line. */
function leftBehind(): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(join(directory, 'paceline-demo-'));
    } catch {
      return false;
    }
  });
}

test('compares maximum clock and Paceline, writes both results, and leaves nothing behind', async () => {
  const { child, output } = startDemo(['--exit', '--duration', '8']);
  expect(await exitCode(child), output()).toBe(0);
  const { maxClock, paceline, agent } = JSON.parse(readFileSync(join(directory, 'result.json'), 'utf8')) as { maxClock: BenchResult; paceline: BenchResult; agent: string };
  expect(agent).toBe('native');
  expect([maxClock.failed, paceline.failed]).toEqual([0, 0]);
  expect(paceline.requests).toBe(maxClock.requests);
  expect(paceline.energyJ).toBeLessThan(0.9 * (maxClock.energyJ ?? 0));
  expect(readdirSync(directory)).toEqual(['result.json']);
  expect(leftBehind()).toEqual([]);
}, 120_000);

test('Ctrl-C in the middle ends everything, exit code 0', async () => {
  const { child, output } = startDemo(['--duration', '60']);
  while (!output().includes('sent')) {
    expect(child.exitCode, output()).toBeNull();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  // As a terminal does it: to the whole process group.
  process.kill(-(child.pid as number), 'SIGINT');
  expect(await exitCode(child), output()).toBe(0);
  expect(output()).not.toMatch(/ended by itself|Error/);
  expect(readdirSync(directory)).toEqual([]);
  expect(leftBehind()).toEqual([]);
}, 60_000);

test('a port that is taken is said in one line, and nothing is left behind', async () => {
  const { createServer } = await import('node:net');
  const holder = createServer().listen(0, '127.0.0.1');
  await once(holder, 'listening');
  const { port } = holder.address() as { port: number };
  const { child, output } = startDemo(['--port', String(port), '--duration', '5']);
  expect(await exitCode(child)).toBe(1);
  expect(output()).toMatch(new RegExp(`EADDRINUSE.*${port}`));
  expect(leftBehind()).toEqual([]);
  holder.close();
}, 30_000);
