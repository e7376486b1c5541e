// The real processes of a fault schedule: emulated model servers, an agent for each node, Redis, gateways; and one model
// server that misbehaves on demand. Each can be killed, stopped and started again where it was.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { stringify } from 'yaml';
import type { Child } from '../../src/demo/children.ts';
import { startChild } from '../../src/demo/children.ts';
import type { DeviceStateFile } from '../../src/engine/device-file.ts';
import { openDeviceStateFile } from '../../src/engine/device-file.ts';
import { startRedis } from '../../test/fixtures/redis.ts';
import type { RedisServer } from '../../test/fixtures/redis.ts';
import { lastingPort } from './lasting-port.ts';

export const ROOT = resolve(import.meta.dirname, '../..');
export const AGENT_BINARY = join(ROOT, 'agent/target/release/paceline-agent');
export const MODEL = 'the-model';

/** A process that can be killed and started again at the same place. */
export interface Part {
  readonly name: string;
  /** Of the process that runs now. */
  pid(): number;
  start(): Promise<void>;
  /** SIGKILL, and no more is heard of it. */
  kill(): void;
  /** SIGTERM. */
  stop(): Promise<void>;
}

/** A machine with emulated replicas, their devices, and the agent. */
export interface Node {
  readonly servers: Part;
  readonly agent: Part | null;
  readonly agentSocket: string;
  readonly replicas: readonly { readonly url: string; readonly devices: readonly string[] }[];
  readonly requestLog: string;
  /** Highest clock that each device is locked to; 0: at its default. */
  locksMhz(): number[];
  /** Of the agent's worker, which is its sentinel's child. */
  workerPid(): number | null;
}

export interface Gateway extends Part {
  readonly url: string;
  readonly adminUrl: string;
}

export interface Rig {
  readonly directory: string;
  readonly nodes: readonly Node[];
  readonly gateways: readonly Gateway[];
  readonly redis: { server(): RedisServer; stop(): Promise<void>; start(): Promise<void> };
  /** Processes that ended without having been told to. */
  readonly troubles: readonly string[];
  close(): Promise<void>;
}

export interface RigOptions {
  readonly profile: string;
  /** Each with so many emulated replicas; one node for each number. */
  readonly nodes: readonly number[];
  readonly gateways: number;
  /** Further model servers, without devices, by the ids of their replicas. */
  readonly servers: Readonly<Record<string, string>>;
  /** Keys of the configuration, beside those that the rig sets. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Of every replica. */
  readonly replica?: Readonly<Record<string, unknown>>;
  readonly ttlMs: number;
  readonly logLevel?: string;
}

const MAIN = join(ROOT, 'src/main.ts');
const READY_MS_MAX = 15_000;

export async function startRig(options: RigOptions): Promise<Rig> {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-faults-'));
  const troubles: string[] = [];
  const parts: Part[] = [];
  const files: DeviceStateFile[] = [];

  function part(name: string, start: () => Child | Promise<Child>): Part {
    let child: Child | null = null;
    const own: Part = {
      name,
      pid: () => child?.pid ?? -1,
      start: async () => void (child = await start()),
      kill: () => {
        if (child === null) return;
        const { pid } = child;
        expectedToDie.add(pid);
        signal(pid, 'SIGKILL');
      },
      stop: async () => {
        if (child === null) return;
        expectedToDie.add(child.pid);
        signal(child.pid, 'SIGCONT');
        await child.stop(2_000);
      },
    };
    parts.push(own);
    return own;
  }
  const expectedToDie = new Set<number>();
  function child(name: string, command: string, args: readonly string[]): Child {
    const started = startChild(name, command, args, (message) => {
      if (!expectedToDie.has(started.pid)) troubles.push(message);
    });
    alive.add(started.pid);
    return started;
  }
  /** What is left of a run that was broken off. */
  const alive = new Set<number>();
  const onExit = (): void => {
    for (const pid of alive) signal(pid, 'SIGKILL');
  };
  process.once('exit', onExit);

  async function startNode(index: number, replicas: number): Promise<Node> {
    const place = join(directory, `node-${index}`);
    const deviceDir = join(place, 'devices');
    const requestLog = join(directory, `requests-${index}.jsonl`);
    // One alone comes back where it was; several take what is free.
    const port = replicas === 1 ? await lastingPort() : 0;
    let ready: { readonly replicas: Node['replicas'] } | null = null;
    const servers = part(`servers-${index}`, async () => {
      const started = child(`servers-${index}`, process.execPath, [MAIN, 'emulate', '--profile', resolve(ROOT, options.profile), '--replicas', String(replicas), '--port', String(port), '--device-dir', deviceDir, '--model', MODEL, '--request-log', requestLog]);
      ready = (await started.ready) as { readonly replicas: Node['replicas'] };
      return started;
    });
    await servers.start();
    const known = (ready as { readonly replicas: Node['replicas'] } | null)?.replicas ?? [];
    const agentSocket = join(directory, `agent-${index}.sock`);
    const agent = existsSync(AGENT_BINARY) ? part(`agent-${index}`, () => startAgent({ index, deviceDir, agentSocket })) : null;
    await agent?.start();
    const states = known.flatMap(({ devices }) => devices.map((device) => openDeviceStateFile(deviceDir, Number(device.slice('sim:'.length)))));
    files.push(...states);
    const lastMhz = states.map(() => 0);
    return {
      servers,
      agent,
      agentSocket,
      replicas: known,
      requestLog,
      // A block that is being written is read again next time.
      locksMhz: () => states.map((state, device) => (lastMhz[device] = state.readCommand()?.lockMaxMhz ?? (lastMhz[device] as number))),
      workerPid: () => (agent === null ? null : workerOf(agent.pid())),
    };
  }

  async function startAgent({ index, deviceDir, agentSocket }: { readonly index: number; readonly deviceDir: string; readonly agentSocket: string }): Promise<Child> {
    const policy = join(directory, `policy-${index}.json`);
    writeFileSync(policy, JSON.stringify({ format: 'paceline-agent-policy/1', principals: [{ name: 'bench', uids: [process.getuid?.() ?? 0], devices: ['sim:*'], controls: ['clock'] }] }), { mode: 0o600 });
    const args = ['serve', '--driver', 'sim', '--sim-dir', deviceDir, '--socket', agentSocket, '--state-dir', join(directory, `agent-${index}`), '--policy', policy, '--log-level', 'warn'];
    const giveUpAtMs = performance.now() + READY_MS_MAX;
    for (;;) {
      const started = child(`agent-${index}`, AGENT_BINARY, args);
      const gone: { why: string | null } = { why: null };
      started.ready.catch((error: unknown) => (gone.why = String(error)));
      while (gone.why === null && performance.now() < giveUpAtMs) {
        if ((await getText({ socketPath: agentSocket, path: '/readyz' })) !== null) return started;
        await delay(10);
      }
      // What was killed a moment ago may still hold its directory.
      if (performance.now() > giveUpAtMs) throw new Error(`agent-${index} does not serve: ${gone.why ?? 'no answer'}`);
      await delay(50);
    }
  }

  const redisPort = await lastingPort();
  let redis = await startRedis({ port: redisPort });

  async function startGateway(index: number, nodes: readonly Node[]): Promise<Gateway> {
    const [port, adminPort] = [await lastingPort(), await lastingPort()];
    const configFile = join(directory, `gateway-${index}.yaml`);
    const replica = { models: [MODEL], profile: resolve(ROOT, options.profile), ...options.replica };
    const emulated = nodes.flatMap((node, at) => node.replicas.map(({ url, devices }, number) => ({ id: `node-${at}-${number}`, url, ...replica, ...(node.agent === null ? {} : { devices, agent: `node-${at}` }) })));
    const others = Object.entries(options.servers).map(([id, url]) => ({ id, url, ...replica }));
    const agents = Object.fromEntries(nodes.flatMap((node, at) => (node.agent === null ? [] : [[`node-${at}`, { socket: node.agentSocket, ttlMs: options.ttlMs }]])));
    writeFileSync(configFile, stringify({
      listen: { host: '127.0.0.1', port },
      admin: { host: '127.0.0.1', port: adminPort },
      replicas: [...emulated, ...others],
      ...(Object.keys(agents).length === 0 ? {} : { agents }),
      store: { redisUrl: `redis://127.0.0.1:${redisPort}` },
      logging: { level: options.logLevel ?? 'error' },
      ...options.config,
    }));
    const own = part(`gateway-${index}`, async () => {
      const started = child(`gateway-${index}`, process.execPath, [MAIN, 'serve', '--config', configFile]);
      await started.ready;
      return started;
    });
    return Object.assign(own, { url: `http://127.0.0.1:${port}`, adminUrl: `http://127.0.0.1:${adminPort}` });
  }

  async function close(): Promise<void> {
    await Promise.all(parts.toReversed().map((one) => one.stop()));
    signal(redis.pid, 'SIGCONT');
    await redis.stop();
    for (const file of files) file.close();
    process.off('exit', onExit);
    rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }

  try {
    const nodes = await Promise.all(options.nodes.map((replicas, index) => startNode(index, replicas)));
    const gateways: Gateway[] = [];
    for (let index = 0; index < options.gateways; index++) gateways.push(await startGateway(index, nodes));
    await Promise.all(gateways.map((gateway) => gateway.start()));
    await Promise.all(gateways.map(untilAllUp));
    return {
      directory,
      nodes,
      gateways,
      redis: { server: () => redis, stop: () => redis.stop(), start: async () => void (redis = await startRedis({ port: redisPort })) },
      troubles,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Resolves with whether all replicas came up, as the gateway sees them. */
export async function untilAllUp({ adminUrl }: Pick<Gateway, 'adminUrl'>): Promise<boolean> {
  return until(async () => {
    const text = await getText(`${adminUrl}/paceline/status`);
    return text !== null && (JSON.parse(text) as { replicas: { state: string }[] }).replicas.every(({ state }) => state === 'up');
  }, READY_MS_MAX);
}

/** `false` where it did not come to be so within the time. */
export async function until(holds: () => boolean | Promise<boolean>, withinMs: number): Promise<boolean> {
  const giveUpAtMs = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > giveUpAtMs) return false;
    await delay(5);
  }
  return true;
}

/** The body of a 200; `null` for anything else. */
export function getText(target: string | { readonly socketPath: string; readonly path: string }): Promise<string | null> {
  return new Promise((resolveText) => {
    const { hostname, port, pathname } = typeof target === 'string' ? new URL(target) : { hostname: '', port: '', pathname: '' };
    const to = typeof target === 'string' ? { hostname, port, path: pathname } : target;
    const sent = request({ ...to, agent: false, timeout: 1_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
      response.once('end', () => resolveText(response.statusCode === 200 ? text : null)).once('error', () => resolveText(null));
    });
    sent.once('error', () => resolveText(null)).once('timeout', () => sent.destroy());
    sent.end();
  });
}

/** What is gone already needs none. */
export function signal(pid: number, name: NodeJS.Signals): void {
  if (pid <= 0) return;
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function workerOf(sentinelPid: number): number | null {
  try {
    const pid = Number(readFileSync(`/proc/${sentinelPid}/task/${sentinelPid}/children`, 'utf8').trim().split(' ').at(-1));
    return pid > 0 ? pid : null;
  } catch {
    return null;
  }
}
