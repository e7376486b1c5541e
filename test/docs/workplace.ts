// Where the documents' commands are run: a directory like a checkout, with ports and paths of its own in the place of those that the
// documents name, and nothing left running behind it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Workplace {
  readonly directory: string;
  /** The command as it is run here. */
  mapped(command: string): string;
  run(command: string, timeoutMs: number): Promise<Outcome>;
  /** Goes on until `close`. Resolves once `ready` does. */
  start(command: string, ready: () => Promise<boolean>): Promise<void>;
  /** What was started by such a command, as the document has it. */
  stop(match: RegExp): Promise<void>;
  write(file: string, content: string): void;
  read(file: string): string;
  close(): Promise<void>;
}

/** The documents' ports, by their distance from the first of ours. */
const PORTS: Readonly<Record<string, number>> = { 8080: 0, 8081: 1, 9001: 2, 9002: 3, 8000: 4, 6379: 5, 9464: 6, 8082: 7, 8180: 8, 8181: 9, 8280: 30, 8281: 31 };
const BLOCK = 40;
const READY_WITHIN_MS = 40_000;

/** Loads that take minutes, in seconds. */
const SHORTER: readonly (readonly [RegExp, string])[] = [
  [/--duration \d+/g, '--duration 4'],
  [/--window-s \d+/g, '--window-s 5'],
  [/--rounds \d+/g, '--rounds 2'],
  [/"max_tokens":2000/g, '"max_tokens":200'],
  [/paceline -- profile /g, 'paceline -- profile --measurements 12 '],
];

export async function createWorkplace(): Promise<Workplace> {
  const root = resolve('.');
  const directory = mkdtempSync(join(tmpdir(), 'pl-docs-'));
  const first = await freeBlock();
  for (const entry of readdirSync(root)) if (!['config', 'node_modules', '.git'].includes(entry)) symlinkSync(join(root, entry), join(directory, entry));
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'));
  cpSync(join(root, 'config'), join(directory, 'config'), { recursive: true });
  mkdirSync(join(directory, 'tmp'));
  const running: { command: string; pid: number; gone: Promise<unknown> }[] = [];

  function places(text: string): string {
    let out = text.replaceAll(/\/tmp\/paceline\b(-devices)?/g, (_, suffix: string | undefined) => `${directory}/tmp${suffix ?? ''}`);
    out = out.replaceAll(/\b(81|82)0\$n/g, (_, hundred: string) => `${(first + (hundred === '81' ? 10 : 20)) / 10}$n`).replaceAll(/\b(81|82)0([1-3])\b/g, (_, hundred: string, last: string) => String(first + (hundred === '81' ? 10 : 20) + Number(last)));
    for (const [port, distance] of Object.entries(PORTS)) out = out.replaceAll(new RegExp(`\\b${port}\\b`, 'g'), String(first + distance));
    return out;
  }
  for (const name of readdirSync(join(directory, 'config'))) {
    const path = join(directory, 'config', name);
    if (name.endsWith('.yaml')) writeFileSync(path, places(readFileSync(path, 'utf8')));
  }

  function mapped(command: string): string {
    let out = places(command);
    for (const [long, short] of SHORTER) out = out.replaceAll(long, short);
    // Its default is the README's port.
    if (/paceline -- bench /.test(out) && !/--(url|compare|help)/.test(out)) out = out.replace('paceline -- bench ', `paceline -- bench --url http://127.0.0.1:${first} `);
    // What npm would run, a second sooner each; curl shows a status by its exit code.
    out = out.replaceAll('npm run -s paceline --', `'${process.execPath}' src/main.ts`).replaceAll(/\bcurl /g, 'curl -sS --fail-with-body ');
    return out.replace(/^redis-server /, `redis-server --port ${first + 5} `);
  }

  function launch(command: string): ReturnType<typeof spawn> {
    return spawn('bash', ['-c', command], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'], detached: true, env: { ...process.env, PACELINE_ADMIN_KEY: 'unused', NO_COLOR: '1' } });
  }

  /** The group and all in it: a shell may have left some in the background. */
  function end(pid: number, signal: NodeJS.Signals): void {
    try {
      process.kill(-pid, signal);
    } catch {
      // They have ended.
    }
  }

  return {
    directory,
    mapped,
    run: async (command, timeoutMs) => {
      const child = launch(command);
      let [stdout, stderr] = ['', ''];
      child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
      child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
      const timer = setTimeout(() => end(child.pid ?? 0, 'SIGKILL'), timeoutMs);
      // What goes on in the background holds its outputs open.
      const background = command.trim().endsWith('&');
      if (background) running.push({ command, pid: child.pid ?? 0, gone: once(child, 'exit') });
      const [code] = (await once(child, background ? 'exit' : 'close')) as [number | null];
      clearTimeout(timer);
      return { code, stdout, stderr };
    },
    start: async (command, ready) => {
      const child = launch(command);
      let said = '';
      for (const output of [child.stdout, child.stderr]) output?.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4_000)));
      const gone = once(child, 'exit');
      running.push({ command, pid: child.pid ?? 0, gone });
      const untilMs = performance.now() + READY_WITHIN_MS;
      while (!(await ready().catch(() => false))) {
        if (performance.now() > untilMs || (child.exitCode !== null && child.exitCode !== 0)) throw new Error(`${command}\nis not ready: ${said}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    stop: async (match) => {
      const stopped = running.filter(({ command }) => match.test(command));
      for (const { pid } of stopped) end(pid, 'SIGTERM');
      await Promise.all(stopped.map(({ gone }) => gone));
    },
    write: (file, content) => writeFileSync(join(directory, file), content),
    read: (file) => readFileSync(join(directory, file), 'utf8'),
    close: async () => {
      for (const { pid } of running.toReversed()) end(pid, 'SIGTERM');
      await Promise.race([Promise.all(running.map(({ gone }) => gone)), new Promise((resolve) => setTimeout(resolve, 5_000))]);
      for (const { pid } of running) end(pid, 'SIGKILL');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** The first of a block of free ports, a multiple of ten. */
async function freeBlock(): Promise<number> {
  for (;;) {
    const first = 20_000 + Math.floor(Math.random() * 1_000) * 10;
    const free = await Promise.all(Array.from({ length: BLOCK }, (_, offset) => isFree(first + offset)));
    if (free.every(Boolean)) return first;
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  const outcome = await Promise.race([once(server, 'listening').then(() => true), once(server, 'error').then(() => false)]);
  server.close();
  return outcome;
}
