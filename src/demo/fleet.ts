// The small fleet of the demonstration: emulated replicas, the agent (or its labelled stand-in), and one gateway at a
// time over them. Everything lives in one temporary directory and ends with `close()`.
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { stringify } from 'yaml';
import { readDeviceDescription } from '../engine/device-file.ts';
import { type Child, startChild } from './children.ts';

export interface FleetOptions {
  readonly profile: string;
  readonly replicas: number;
  /** Of the public listener; 0 takes any free one. */
  readonly port: number;
  /** `fake-nvml`: the agent's NVML driver over the fake library, which stands on the same emulated devices. Default `sim`. */
  readonly driver?: 'sim' | 'fake-nvml';
  /** More of the gateway's configuration. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Called when something that should be running is not. */
  readonly onTrouble: (message: string) => void;
}

export interface Fleet {
  readonly agentSocket: string;
  /** `stand-in` where no agent binary was there to be started. */
  readonly agent: 'native' | 'stand-in';
  readonly model: string;
  readonly devices: number;
  readonly deviceDir: string;
  /** Process ids of what runs now; `agent` is `null` for the stand-in, which runs in this process. */
  pids(): { readonly emulator: number; readonly agent: number | null; readonly gateway: number | null };
  /** Starts a gateway with this policy (and routing, where not the policy's own); the one before it is stopped first. */
  gateway(policy: string, routing?: string): Promise<{ readonly url: string; readonly adminUrl: string }>;
  /** Writes the configuration of a gateway over these replicas, for who starts gateways by themselves. Resolves with its path. */
  writeConfig(policy?: string): Promise<string>;
  /** Ends everything and removes the directory. Resolves with the devices that were not at default clocks by then. */
  close(): Promise<readonly string[]>;
}

interface EmulatorReady {
  readonly replicas: readonly { readonly url: string; readonly devices: readonly string[]; readonly model: string }[];
}

const ROOT = resolve(import.meta.dirname, '../..');
/** Development runs `src/main.ts`, an installed package `dist/main.js`: this file's own ending tells which. */
const MAIN = resolve(import.meta.dirname, import.meta.filename.endsWith('.ts') ? '../main.ts' : '../main.js');
const AGENT_BINARIES = ['release', 'debug'].map((kind) => join(ROOT, 'agent/target', kind, 'paceline-agent'));
const AGENT_READY_WITHIN_MS = 5_000;

export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const directory = await mkdtemp(join(tmpdir(), 'paceline-demo-'));
  const deviceDir = join(directory, 'devices');
  const agentSocket = join(directory, 'agent.sock');
  const { driver = 'sim' } = options;
  const running: { stop: () => Promise<unknown> }[] = [];
  let gateway: Child | null = null;

  /** Last started, first stopped: the gateway lets go of its lease before the agent leaves, the agent before its devices. */
  async function stopAll(): Promise<void> {
    await gateway?.stop();
    for (const part of running.toReversed()) await part.stop();
  }

  try {
    const emulator = paceline('emulator', ['emulate', '--profile', options.profile, '--replicas', String(options.replicas), '--port', '0', '--device-dir', deviceDir], options.onTrouble);
    running.push(emulator);
    const { replicas } = (await emulator.ready) as EmulatorReady;
    const binary = AGENT_BINARIES.find((path) => existsSync(path));
    running.push(binary === undefined ? await standIn(agentSocket, deviceDir) : await nativeAgent(binary, { directory, deviceDir, agentSocket, driver, onTrouble: options.onTrouble }));
    const [, agent] = running;
    const configFile = join(directory, 'paceline.yaml');
    const writeConfig = async (policy: string, routing?: string): Promise<string> => {
      const config = {
        listen: { host: '127.0.0.1', port: options.port },
        admin: { host: '127.0.0.1', port: 0 },
        replicas: replicas.map(({ url, devices, model }, index) => ({ id: `replica-${index}`, url, models: [model], profile: resolve(options.profile), devices: devices.map((device) => (driver === 'sim' ? device : nvmlId(deviceDir, device))) })),
        agent: { socket: agentSocket },
        planner: { policy, ...(routing === undefined ? {} : { routing }) },
        logging: { level: 'warn' },
        ...options.config,
      };
      await writeFile(configFile, stringify(config));
      return configFile;
    };

    return {
      agentSocket,
      agent: binary === undefined ? 'stand-in' : 'native',
      model: replicas[0]?.model ?? '',
      devices: replicas.reduce((sum, { devices }) => sum + devices.length, 0),
      deviceDir,
      pids: () => ({ emulator: emulator.pid, agent: agent !== undefined && 'pid' in agent ? (agent as Child).pid : null, gateway: gateway?.pid ?? null }),
      gateway: async (policy, routing) => {
        await gateway?.stop();
        await writeConfig(policy, routing);
        gateway = paceline('gateway', ['serve', '--config', configFile], options.onTrouble);
        const urls = (await gateway.ready) as { url: string; adminUrl: string };
        await untilReady(urls.adminUrl);
        return urls;
      },
      writeConfig: (policy = 'paceline') => writeConfig(policy),
      close: async () => {
        await gateway?.stop();
        gateway = null;
        const lowered = await loweredDevices(agentSocket);
        await stopAll();
        await rm(directory, { recursive: true, force: true });
        return lowered;
      },
    };
  } catch (error) {
    await stopAll();
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

function paceline(name: string, args: readonly string[], onTrouble: (message: string) => void): Child {
  return startChild(name, process.execPath, [MAIN, ...args], onTrouble);
}

async function standIn(socketPath: string, deviceDir: string): Promise<{ stop: () => Promise<void> }> {
  // Loaded only where it is needed: on most machines the native agent is there.
  const { startAgentStandIn } = await import('../agent-stand-in/agent-stand-in.ts');
  const agent = await startAgentStandIn({ socketPath, deviceDir });
  return { stop: () => agent.close() };
}

interface AgentPlace {
  readonly directory: string;
  readonly deviceDir: string;
  readonly agentSocket: string;
  readonly driver: 'sim' | 'fake-nvml';
  readonly onTrouble: (message: string) => void;
}

/** `sim:3` is the device whose NVML id is made of the UUID in `3.json`. */
function nvmlId(deviceDir: string, device: string): string {
  return `nvml:${readDeviceDescription(deviceDir, Number(device.slice('sim:'.length))).uuid}`;
}

async function nativeAgent(binary: string, at: AgentPlace): Promise<Child> {
  const policyFile = join(at.directory, 'agent-policy.json');
  await writeFile(policyFile, JSON.stringify({ format: 'paceline-agent-policy/1', principals: [{ name: 'demo', uids: [process.getuid?.() ?? 0], devices: ['sim:*', 'nvml:*'], controls: ['clock'] }] }), { mode: 0o600 });
  const driver = at.driver === 'sim' ? ['--driver', 'sim', '--sim-dir', at.deviceDir] : ['--driver', 'nvml', '--nvml-library', join(dirname(binary), 'libfake_nvml.so')];
  const args = ['serve', ...driver, '--socket', at.agentSocket, '--state-dir', join(at.directory, 'agent-state'), '--policy', policyFile, '--log-level', 'warn'];
  const agent = startChild('agent', binary, args, at.onTrouble, { PACELINE_FAKE_NVML_DIR: at.deviceDir });
  // The agent says that it is ready on its socket, not on stdout.
  agent.ready.catch(() => {});
  const giveUpAtMs = performance.now() + AGENT_READY_WITHIN_MS;
  while ((await getStatus({ socketPath: at.agentSocket, path: '/readyz' })) !== 200) {
    if (performance.now() > giveUpAtMs) {
      await agent.stop();
      throw new Error(`the agent was not ready within ${AGENT_READY_WITHIN_MS / 1000} s: ${binary} ${args.join(' ')}`);
    }
    await delay(20);
  }
  return agent;
}

async function untilReady(adminUrl: string): Promise<void> {
  for (let attempt = 0; attempt < 250; attempt++) {
    if ((await getStatus(`${adminUrl}/readyz`)) === 200) return;
    await delay(20);
  }
  throw new Error(`the gateway saw no replica up within 5 s; see ${adminUrl}/paceline/status`);
}

/** `null` where nobody answers. */
function getStatus(target: string | { socketPath: string; path: string }): Promise<number | null> {
  return new Promise((resolveStatus) => {
    const sent = request(target, (response) => {
      response.resume();
      resolveStatus(response.statusCode ?? null);
    });
    sent.once('error', () => resolveStatus(null));
    sent.end();
  });
}

async function loweredDevices(socketPath: string): Promise<readonly string[]> {
  const text = await new Promise<string>((resolveText) => {
    let body = '';
    const sent = request({ socketPath, path: '/v1/devices' }, (response) => {
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk;
      });
      response.once('end', () => resolveText(body));
    });
    sent.once('error', () => resolveText('{"devices":[]}'));
    sent.end();
  });
  const { devices } = JSON.parse(text) as { devices: readonly { device: string; target_mhz: number | null }[] };
  return devices.filter(({ target_mhz: targetMhz }) => targetMhz !== null).map(({ device }) => device);
}
