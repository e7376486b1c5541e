// The machinery around a gateway under measurement: the stub and the load (built from C when their sources change), pinning, and
// what /proc says of a process and its descendants.
import type { ChildProcess } from 'node:child_process';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

export const ROOT = resolve(import.meta.dirname, '../..');
const LOAD_DIR = resolve(import.meta.dirname, 'load');
const BUILT_DIR = join(LOAD_DIR, 'target');

/** The gateway alone on one core, stub and load on the other; on a machine with more, the last two. */
export const GATEWAY_CORE = cpus().length - 1;
export const LOAD_CORE = Math.max(0, cpus().length - 2);

export interface Quantiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly count: number;
}

/** What `load` prints; latencies in microseconds. */
export interface LoadResult {
  readonly seconds: number;
  readonly requests: number;
  readonly errors: number;
  readonly left: number;
  readonly unanswered: number;
  readonly events: number;
  readonly held: number;
  /** Of the gateway within the window. */
  readonly cpuS: number;
  readonly loadCpuS: number;
  readonly stubCpuS: number;
  readonly latencyUs: Quantiles;
  readonly firstEventUs: Quantiles;
  readonly transitUs: Quantiles;
}

export interface Stub {
  readonly port: number;
  readonly pid: number;
  close(): Promise<void>;
}

/** Where a rig keeps requests, configurations and logs; removed when the bench ends. */
export function createScratch(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'paceline-bench-overhead-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }) };
}

export function buildLoad(): void {
  mkdirSync(BUILT_DIR, { recursive: true });
  for (const name of ['stub', 'load']) {
    const [source, built] = [join(LOAD_DIR, `${name}.c`), join(BUILT_DIR, name)];
    const changedMs = Math.max(statSync(source).mtimeMs, statSync(join(LOAD_DIR, 'common.h')).mtimeMs);
    if (existsSync(built) && statSync(built).mtimeMs > changedMs) continue;
    const compiled = spawnSync('cc', ['-O2', '-Wall', '-Wextra', '-o', built, source, '-lm'], { encoding: 'utf8' });
    if (compiled.status !== 0) throw new Error(`cc ${source}: ${compiled.error?.message ?? compiled.stderr}`);
  }
}

export async function startStub(): Promise<Stub> {
  const port = await freePort();
  const child = spawn('taskset', ['-c', String(LOAD_CORE), join(BUILT_DIR, 'stub'), String(port)], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  return { port, pid: child.pid as number, close: () => stopProcess(child) };
}

export interface LoadOptions {
  readonly port: number;
  /** A file with one whole HTTP request; see `writeRequest`. */
  readonly request: string;
  readonly mode: 'closed' | 'open';
  readonly conns: number;
  readonly seconds: number;
  readonly warmS: number;
  readonly ratePerS?: number;
  readonly rampS?: number;
  readonly leaveShare?: number;
  readonly cpuOf?: readonly number[];
  readonly stubPid?: number;
}

export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const child = startLoad({ ...options });
  let said = '';
  for await (const chunk of child.stdout as AsyncIterable<Buffer>) said += chunk.toString();
  return JSON.parse(said) as LoadResult;
}

export interface HeldStreams {
  /** Lets all of them go. */
  close(): Promise<LoadResult>;
}

/** Opens `conns` streams and resolves when each has had its first event. Throws where they do not all come within `withinMs`. */
export async function holdStreams(options: Pick<LoadOptions, 'port' | 'request' | 'conns' | 'rampS'>, withinMs: number): Promise<HeldStreams> {
  const child = startLoad({ ...options, mode: 'hold', seconds: 0, warmS: 0 });
  let said = '';
  const held = new Promise<void>((resolve, reject) => {
    const late = setTimeout(() => {
      child.kill('SIGTERM');
      reject(new Error(`not all of ${options.conns} streams had their first event within ${withinMs / 1000} s`));
    }, withinMs);
    child.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (!said.startsWith('held ')) return;
      clearTimeout(late);
      resolve();
    });
  });
  await held;
  return {
    close: async () => {
      const ended = once(child, 'close');
      child.kill('SIGTERM');
      await ended;
      return JSON.parse(said.slice(said.indexOf('{'))) as LoadResult;
    },
  };
}

function startLoad(options: Omit<LoadOptions, 'mode'> & { readonly mode: LoadOptions['mode'] | 'hold' }): ChildProcess {
  const given: Record<string, string | number | undefined> = {
    '--port': options.port,
    '--request': options.request,
    '--mode': options.mode,
    '--conns': options.conns,
    '--seconds': options.seconds,
    '--warm': options.warmS,
    '--rate': options.ratePerS,
    '--ramp': options.rampS,
    '--leave': options.leaveShare,
    '--cpu-of': options.cpuOf === undefined || options.cpuOf.length === 0 ? undefined : options.cpuOf.join(','),
    '--stub': options.stubPid,
  };
  const args = Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)]));
  return spawn('taskset', ['-c', String(LOAD_CORE), join(BUILT_DIR, 'load'), ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
}

/** Writes a whole request for a chat completion; what the stub shall answer is in the prompt (see `load/stub.c`). */
export function writeRequest(path: string, directive: string, headers: Readonly<Record<string, string>>): string {
  const prompt = `@stub ${directive}\n${'Time is what the impatient have least of, and the patient spend on purpose. '.repeat(10)}`;
  const body = JSON.stringify({ model: 'bench', messages: [{ role: 'system', content: 'You are brief.' }, { role: 'user', content: prompt }], max_tokens: 256, temperature: 0.7, stream: directive.includes('e=') });
  const all = { host: '127.0.0.1', 'content-type': 'application/json', accept: '*/*', 'user-agent': 'bench', authorization: 'Bearer bench', 'x-slo-ttft-ms': '1500', 'x-slo-tpot-ms': '100', ...headers, 'content-length': String(Buffer.byteLength(body)) };
  writeFileSync(path, `POST /v1/chat/completions HTTP/1.1\r\n${Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`);
  return path;
}

/** A process and all that descend from it. */
export function processTree(pid: number): number[] {
  const children = readdirTasks(pid).flatMap((task) => readOr(`/proc/${pid}/task/${task}/children`, '').trim().split(' ').filter((text) => text !== '').map(Number));
  return [pid, ...children.flatMap(processTree)];
}

/** Resident memory in KiB; pages that processes share count in each. */
export function residentKib(pids: readonly number[]): number {
  return pids.reduce((total, pid) => total + Number(/^VmRSS:\s+(\d+)/m.exec(readOr(`/proc/${pid}/status`, ''))?.[1] ?? 0), 0);
}

export function openSockets(pid: number): number {
  let sockets = 0;
  for (const fd of readdirOr(`/proc/${pid}/fd`)) {
    try {
      // A link's target would be read with readlink; a socket's `stat` says as much.
      if (statSync(`/proc/${pid}/fd/${fd}`).isSocket()) sockets += 1;
    } catch {
      // It was closed in between.
    }
  }
  return sockets;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** SIGTERM, and SIGKILL where that is not heeded within three seconds; its descendants go with it. */
export async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const tree = processTree(child.pid);
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const kill = setTimeout(() => child.kill('SIGKILL'), 3_000);
  await exited;
  clearTimeout(kill);
  for (const pid of tree) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // Gone by itself.
    }
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Quartiles by linear interpolation. */
export function quartiles(values: readonly number[]): { readonly p25: number; readonly p50: number; readonly p75: number } {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number): number => {
    const place = share * (sorted.length - 1);
    const [below, above] = [sorted[Math.floor(place)] ?? Number.NaN, sorted[Math.ceil(place)] ?? Number.NaN];
    return below + (above - below) * (place - Math.floor(place));
  };
  return { p25: at(0.25), p50: at(0.5), p75: at(0.75) };
}

function readdirTasks(pid: number): string[] {
  return readdirOr(`/proc/${pid}/task`);
}

function readdirOr(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return otherwise;
  }
}
