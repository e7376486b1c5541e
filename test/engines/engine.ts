// Engines that nobody here wrote, as processes on loopback ports, with the small model that setup.sh makes.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { eventually } from '../fixtures/gateway-under-test.ts';

export interface Engine {
  readonly name: EngineName;
  readonly url: string;
  /** As it calls the model itself. */
  readonly model: string;
  readonly pid: number;
  /** Seconds of processor time it has taken so far: what tells that it works, of an engine that does not say so. */
  cpuS(): number;
  close(): Promise<void>;
}

export type EngineName = 'transformers' | 'llama.cpp';
export const ENGINES: readonly EngineName[] = ['transformers', 'llama.cpp'];

/** Requests that each takes at once here. */
export const PLACES = 8;
/** Tokens of a prompt and its answer that each takes. */
export const CONTEXT_TOKENS = 2_048;

const MADE = resolve(import.meta.dirname, '.engines');
const READY_WITHIN_MS = 120_000;
/** Of Linux' clock ticks, in which /proc counts. */
const TICKS_PER_S = 100;

/** Resolves once it answers. What it prints is in `.engines/NAME.log`. */
export async function startEngine(name: EngineName): Promise<Engine> {
  if (!existsSync(join(MADE, 'model.made'))) throw new Error('there are no engines here: make test-engines sets them up');
  const port = await freePort();
  const { command, args, model } = commandOf(name, port);
  mkdirSync(MADE, { recursive: true });
  // A file of its own: a pipe that nobody empties would stop the engine.
  const log = openSync(join(MADE, `${name}.log`), 'w');
  // Offline: nothing is asked of a hub. Two threads each: they share their machine with whoever asks them.
  const child = spawn(command, args, { cwd: join(MADE, 'model'), stdio: ['ignore', log, log], env: { ...process.env, HF_HUB_OFFLINE: '1', HF_HOME: join(MADE, 'hub'), OMP_NUM_THREADS: '2' } });
  closeSync(log);
  const gone = once(child, 'exit');
  const url = `http://127.0.0.1:${port}`;
  const healthy = async (): Promise<boolean> => {
    if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}: see ${join(MADE, `${name}.log`)}`);
    return fetch(`${url}/health`).then(
      async (answer) => (await answer.arrayBuffer(), answer.status === 200),
      () => false,
    );
  };
  try {
    await eventually(healthy, READY_WITHIN_MS);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  return {
    name,
    url,
    model,
    pid: child.pid ?? -1,
    cpuS: () => cpuS(child.pid ?? -1),
    close: async () => {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

function commandOf(name: EngineName, port: number): { readonly command: string; readonly args: readonly string[]; readonly model: string } {
  const listen = ['--host', '127.0.0.1', '--port', String(port)];
  if (name === 'llama.cpp') {
    const model = 'tiny-llama';
    // The context is of all its places together.
    const args = ['--model', 'tiny-llama.gguf', '--alias', model, '--ctx-size', String(CONTEXT_TOKENS * PLACES), '--parallel', String(PLACES), '--threads', '2', '--metrics', '--no-ui', ...listen];
    return { command: join(MADE, 'llama-server'), args, model };
  }
  const model = './tiny-llama';
  const pageTokens = 32;
  const args = ['serve', model, '--continuous-batching', '--device', 'cpu', '--dtype', 'float32', '--attn-implementation', 'sdpa', '--cb-block-size', String(pageTokens), '--cb-num-blocks', String((CONTEXT_TOKENS * PLACES) / pageTokens), '--cb-max-batch-tokens', '512', ...listen];
  return { command: join(MADE, 'venv/bin/transformers'), args, model };
}

/** Both do not say which port they took of themselves, so that one is found for them. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/** Of all its threads. Source: proc_pid_stat(5), fields 14 and 15. */
function cpuS(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const [, , , , , , , , , , , user = '0', system = '0'] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(user) + Number(system)) / TICKS_PER_S;
}
