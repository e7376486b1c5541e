// The gateways that are compared, each with one worker, kept connections to the server and no access log; and how each starts.
import type { ChildProcess } from 'node:child_process';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join, resolve } from 'node:path';
import { GATEWAY_CORE, ROOT, freePort, processTree, sleep, stopProcess } from './rig.ts';

export interface Gateway {
  readonly name: string;
  readonly version: string;
  /** Headers that a client of this gateway must send. */
  readonly headers: (stubPort: number) => Readonly<Record<string, string>>;
  readonly launch: (place: Place) => Launch;
}

interface Place {
  readonly port: number;
  readonly adminPort: number;
  readonly stubPort: number;
  /** A directory of its own, for its configuration and log. */
  readonly directory: string;
}

interface Launch {
  readonly command: readonly [string, ...string[]];
  readonly env?: Readonly<Record<string, string>>;
}

export interface RunningGateway {
  readonly port: number;
  readonly adminPort: number;
  readonly pid: number;
  /** From the start of its process to its first answered request. */
  readonly startMs: number;
  /** Its processes as they are now. */
  pids(): number[];
  close(): Promise<void>;
}

/** A peer that the bench knows and does not measure, with the reason. */
export interface Absent {
  readonly name: string;
  readonly why: string;
}

const PEERS = resolve(import.meta.dirname, '.peers');
const START_MS_MAX = 60_000;
const POLL_MS = 5;

const NONE = (): Readonly<Record<string, string>> => ({});

const NEVER: readonly Absent[] = [
  { name: 'bifrost', why: 'not in a registry: its npm package downloads a binary from elsewhere, the Go module proxy has no version of its HTTP transport' },
];

/** Those that can be measured here, and those that cannot. */
export function findGateways(): { readonly present: readonly Gateway[]; readonly absent: readonly Absent[] } {
  const present: Gateway[] = [];
  const absent: Absent[] = [...NEVER];
  const add = (name: string, version: string | null, rest: Omit<Gateway, 'name' | 'version'>): void => {
    if (version === null) absent.push({ name, why: 'not installed; bench/overhead/peers.sh installs it' });
    else present.push({ name, version, ...rest });
  };

  add('paceline', packageVersion(ROOT), { headers: NONE, launch: launchPaceline });
  add('nginx', said('nginx', ['-v'], /nginx\/(\S+)/), {
    headers: NONE,
    launch: ({ port, stubPort, directory }) => {
      const config = join(directory, 'nginx.conf');
      writeFileSync(config, nginxConfig(port, stubPort, directory));
      return { command: ['nginx', '-p', directory, '-e', join(directory, 'error.log'), '-c', config] };
    },
  });
  add('haproxy', said('haproxy', ['-v'], /version (\S+)/), {
    headers: NONE,
    launch: ({ port, stubPort, directory }) => {
      const config = join(directory, 'haproxy.cfg');
      writeFileSync(config, haproxyConfig(port, stubPort));
      return { command: ['haproxy', '-db', '-f', config] };
    },
  });
  const portkey = join(PEERS, 'portkey/node_modules/@portkey-ai/gateway');
  add('portkey', packageVersion(portkey), {
    headers: (stubPort) => ({ 'x-portkey-provider': 'openai', 'x-portkey-custom-host': `http://127.0.0.1:${stubPort}/v1` }),
    launch: ({ port, stubPort }) => ({ command: [process.execPath, '--import', new URL('portkey-headers.ts', import.meta.url).href, join(portkey, 'build/start-server.js'), `--port=${port}`, '--headless'], env: { NODE_ENV: 'production', TRUSTED_CUSTOM_HOSTS: `127.0.0.1,localhost,127.0.0.1:${stubPort}` } }),
  });
  const litellm = join(PEERS, 'litellm/bin/litellm');
  add('litellm', pythonVersion('litellm', 'litellm', litellm), {
    headers: NONE,
    launch: ({ port, stubPort, directory }) => {
      const config = join(directory, 'litellm.yaml');
      writeFileSync(config, `model_list:\n  - model_name: bench\n    litellm_params: { model: openai/bench, api_base: 'http://127.0.0.1:${stubPort}/v1', api_key: bench }\nlitellm_settings: { telemetry: false, drop_params: true }\n`);
      return { command: [litellm, '--config', config, '--host', '127.0.0.1', '--port', String(port), '--num_workers', '1'], env: { LITELLM_LOG: 'ERROR', LITELLM_LOCAL_MODEL_COST_MAP: 'True', LITELLM_MODE: 'PRODUCTION', LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY: 'true' } };
    },
  });
  const router = (name: string, command: readonly [string, ...string[]], more: readonly string[]): void =>
    add(name, pythonVersion(name, name, command[0]), {
      headers: NONE,
      launch: ({ port, adminPort, stubPort }) => ({ command: [...command, '--host', '127.0.0.1', '--port', String(port), '--worker-urls', `http://127.0.0.1:${stubPort}`, '--policy', 'round_robin', '--prometheus-port', String(adminPort), ...more], env: { TOKIO_WORKER_THREADS: '1' } }),
    });
  router('sglang-router', [join(PEERS, 'sglang-router/bin/python'), '-m', 'sglang_router.launch_router'], ['--log-level', 'error', '--max-concurrent-requests', '-1']);
  router('vllm-router', [join(PEERS, 'vllm-router/bin/vllm-router')], ['--log-level', 'error']);
  router('smg', [join(PEERS, 'smg/bin/smg'), 'launch'], ['--log-level', 'error', '--max-concurrent-requests', '-1']);
  return { present, absent };
}

export async function startGateway(gateway: Gateway, stubPort: number, scratch: string, nodeArgs: readonly string[] = []): Promise<RunningGateway> {
  const directory = join(scratch, gateway.name);
  mkdirSync(join(directory, 'temp'), { recursive: true });
  const place: Place = { port: await freePort(), adminPort: await freePort(), stubPort, directory };
  const { command, env } = gateway.launch(place);
  const [program, ...args] = command;
  const logPath = join(directory, 'log');
  const log = openSync(logPath, 'a');
  const fromMs = performance.now();
  const child = spawn('taskset', ['-c', String(GATEWAY_CORE), program, ...nodeArgs, ...args], { stdio: ['ignore', log, log], env: { ...process.env, ...env } });
  await firstAnswer(child, place.port, { ...gateway.headers(stubPort) }, `${gateway.name} (its log: ${logPath})`).catch(async (error: unknown) => {
    const why = readFileSync(logPath, 'utf8').trim().slice(-600);
    await stopProcess(child);
    throw new Error(`${error instanceof Error ? error.message : String(error)}; it said: ${why}`, { cause: error });
  });
  const startMs = performance.now() - fromMs;
  return { port: place.port, adminPort: place.adminPort, pid: child.pid as number, startMs, pids: () => processTree(child.pid as number), close: () => stopProcess(child) };
}

async function firstAnswer(child: ChildProcess, port: number, headers: Readonly<Record<string, string>>, who: string): Promise<void> {
  const giveUpAtMs = performance.now() + START_MS_MAX;
  let last = 'nothing listens';
  for (;;) {
    const answer = await ask(port, headers);
    if (answer.status === 200) return;
    last = answer.said;
    if (child.exitCode !== null) throw new Error(`${who} exited with ${child.exitCode}`);
    if (performance.now() > giveUpAtMs) throw new Error(`${who} has answered no request within ${START_MS_MAX / 1000} s: ${last}`);
    await sleep(POLL_MS);
  }
}

function ask(port: number, headers: Readonly<Record<string, string>>): Promise<{ readonly status: number | null; readonly said: string }> {
  return new Promise((resolve) => {
    const sent = request({ host: '127.0.0.1', port, path: '/v1/chat/completions', method: 'POST', agent: false, headers: { 'content-type': 'application/json', authorization: 'Bearer bench', ...headers }, timeout: 5_000 }, (answer) => {
      let said = '';
      answer.on('data', (chunk: Buffer) => (said += chunk.toString()));
      answer.on('error', (error) => resolve({ status: null, said: error.message }));
      answer.on('end', () => resolve({ status: answer.statusCode ?? null, said: said.slice(0, 300) }));
    });
    sent.on('timeout', () => sent.destroy(new Error('no answer within 5 s')));
    sent.on('error', (error) => resolve({ status: null, said: error.message }));
    sent.end(JSON.stringify({ model: 'bench', messages: [{ role: 'user', content: '@stub d=0' }] }));
  });
}

function launchPaceline({ port, adminPort, stubPort, directory }: Place): Launch {
  const config = join(directory, 'paceline.yaml');
  const profile = join(ROOT, 'config/profiles/llama-3.1-8b.h200.json');
  // Everything is as it is by default but the number of streams a replica takes, for the other gateways know no such bound.
  writeFileSync(config, `listen: { host: 127.0.0.1, port: ${port} }\nadmin: { host: 127.0.0.1, port: ${adminPort} }\nreplicas:\n  - { id: bench-0, url: 'http://127.0.0.1:${stubPort}', models: [bench], profile: ${JSON.stringify(profile)}, concurrencyMax: 8192 }\n`);
  return { command: [process.execPath, join(ROOT, 'dist/main.js'), 'serve', '--config', config] };
}

/** Bare by intent: no rewriting, no compression, nothing of its answers on disk. */
function nginxConfig(port: number, stubPort: number, directory: string): string {
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `  ${kind}_temp_path ${join(directory, 'temp', kind)};`).join('\n');
  return `daemon off;
pid ${join(directory, 'nginx.pid')};
worker_processes 1;
worker_rlimit_nofile 20000;
events { worker_connections 16384; }
http {
${temp}
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_buffer_size 128k;
  upstream server { server 127.0.0.1:${stubPort}; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://server;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }
  }
}
`;
}

function haproxyConfig(port: number, stubPort: number): string {
  return `global
  maxconn 8192
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  http-reuse always
  option http-no-delay
frontend front
  bind 127.0.0.1:${port} backlog 4096
  default_backend back
backend back
  server stub 127.0.0.1:${stubPort} maxconn 8192 pool-max-conn 1024
`;
}

function packageVersion(directory: string): string | null {
  const file = join(directory, 'package.json');
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version : null;
}

/** What the venv's own metadata says; `null` where the command is not there. */
function pythonVersion(peer: string, distribution: string, command: string): string | null {
  if (!existsSync(command)) return null;
  const code = `import importlib.metadata as m; print(m.version('${distribution}'))`;
  return said(join(PEERS, peer, 'bin/python'), ['-c', code], /(\S+)/);
}

function said(command: string, args: readonly string[], pattern: RegExp): string | null {
  const run = spawnSync(command, args, { encoding: 'utf8' });
  return run.error !== undefined || run.status !== 0 ? null : (pattern.exec(`${run.stdout}${run.stderr}`)?.[1] ?? null);
}
