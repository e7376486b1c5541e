// An arm that is a configuration: `paceline serve` with it, on free loopback ports, for as long as its turn lasts.
import { resolve } from 'node:path';
import { type Child, startChild } from '../demo/children.ts';
import { ArmError, type ArmTarget } from './arm-target.ts';

export interface RunningArm {
  readonly url: string;
  close(): Promise<void>;
}

const MAIN = resolve(import.meta.dirname, import.meta.filename.endsWith('.ts') ? '../main.ts' : '../main.js');
const READY_WITHIN_MS = 10_000;

/** Resolves when its replicas are up, at once for an endpoint. Throws `ArmError`. `onTrouble`: it ended by itself. */
export async function startArm(name: string, target: ArmTarget, onTrouble: (message: string) => void): Promise<RunningArm> {
  if (target.kind === 'endpoint') return { url: target.url, close: async () => {} };
  const policy = target.policy === null ? [] : ['--policy', target.policy];
  const child: Child = startChild(`the gateway of ${name}`, process.execPath, [MAIN, 'serve', '--config', target.file, ...policy, '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'], onTrouble);
  try {
    const { url, adminUrl } = (await child.ready) as { readonly url: string; readonly adminUrl: string };
    await untilReady(name, adminUrl);
    return { url, close: () => child.stop() };
  } catch (cause) {
    await child.stop();
    throw cause instanceof ArmError ? cause : new ArmError((cause instanceof Error ? cause.message : String(cause)).trim(), { cause });
  }
}

async function untilReady(name: string, adminUrl: string): Promise<void> {
  const giveUpAtMs = performance.now() + READY_WITHIN_MS;
  while (performance.now() < giveUpAtMs) {
    const status = await fetch(`${adminUrl}/readyz`, { signal: AbortSignal.timeout(2_000) }).then(async (answer) => {
      await answer.body?.cancel();
      return answer.status;
    }, () => null);
    if (status === 200) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new ArmError(`the gateway of ${name} saw no replica up within ${READY_WITHIN_MS / 1000} s; are the model servers of its configuration running?`);
}
