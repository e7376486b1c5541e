// A replica to be profiled: an emulated engine, and the real agent with its `sim` driver over the emulated devices; processes of their own.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, startChild } from '../../src/demo/children.ts';

export interface SweepRig {
  readonly url: string;
  readonly agentSocket: string;
  readonly devices: readonly string[];
  readonly deviceDir: string;
  readonly directory: string;
  /** `paceline profile` with these arguments; resolves with its exit code and what it printed. */
  profile(args: readonly string[], signal?: AbortSignal): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>;
  close(): Promise<void>;
}

const ROOT = resolve(import.meta.dirname, '../..');
const MAIN = join(ROOT, 'src/main.ts');
const AGENT = join(ROOT, 'agent/target/release/paceline-agent');
const AGENT_WITHIN_MS = 5_000;

/** Throws where there is no agent: `make agent` builds it. */
export async function startSweepRig(profilePath: string, emulatorArgs: readonly string[] = []): Promise<SweepRig> {
  if (!existsSync(AGENT)) throw new Error('agent/target/release/paceline-agent is not there: make agent');
  const directory = mkdtempSync(join(tmpdir(), 'paceline-sweep-'));
  const [deviceDir, agentSocket, policy] = [join(directory, 'devices'), join(directory, 'agent.sock'), join(directory, 'policy.json')];
  writeFileSync(policy, JSON.stringify({ format: 'paceline-agent-policy/1', principals: [{ uids: [userInfo().uid], devices: ['sim:*'], controls: ['clock'] }] }), { mode: 0o600 });
  const children: Child[] = [];
  const close = async (): Promise<void> => {
    for (const child of children.toReversed()) await child.stop();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const emulator = startChild('emulator', process.execPath, [MAIN, 'emulate', '--profile', profilePath, '--port', '0', '--device-dir', deviceDir, ...emulatorArgs], () => {});
    children.push(emulator);
    const { replicas } = (await emulator.ready) as { replicas: readonly { readonly url: string; readonly devices: readonly string[] }[] };
    const agent = startChild('agent', AGENT, ['serve', '--driver', 'sim', '--sim-dir', deviceDir, '--socket', agentSocket, '--state-dir', join(directory, 'state'), '--policy', policy], () => {});
    children.push(agent);
    agent.ready.catch(() => {});
    for (let waitedMs = 0; !existsSync(agentSocket); waitedMs += 20) {
      if (waitedMs >= AGENT_WITHIN_MS) throw new Error('the agent did not open its socket');
      await delay(20);
    }
    const replica = replicas[0];
    if (replica === undefined) throw new Error('the emulator has no replica');
    return { url: replica.url, devices: replica.devices, agentSocket, deviceDir, directory, profile, close };
  } catch (error) {
    await close();
    throw error;
  }

  function profile(args: readonly string[], signal?: AbortSignal): ReturnType<SweepRig['profile']> {
    return new Promise((done, failed) => {
      const child = spawn(process.execPath, [MAIN, 'profile', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
      let [stdout, stderr] = ['', ''];
      child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
      child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
      signal?.addEventListener('abort', () => child.kill('SIGINT'), { once: true });
      child.once('error', failed).once('close', (code) => done({ code, stdout, stderr }));
    });
  }
}
