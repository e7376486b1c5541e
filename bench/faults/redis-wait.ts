// What a request waits for Redis: of a tenant with limits, one after the other, while Redis is well, slow, frozen and gone. The
// gateway is a process of its own with the timeout that it has by itself; its server answers at once.
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { startChild } from '../../src/demo/children.ts';
import { percentiles } from '../../src/statistics/percentiles.ts';
import { startRedis } from '../../test/fixtures/redis.ts';
import { createStubUpstream } from '../../test/fixtures/stub-upstream.ts';
import { ROOT, signal, untilAllUp } from './rig.ts';

export interface RedisWaitResult {
  readonly targetMs: number;
  /** By what Redis is: whole requests, milliseconds, and how many were not answered with 200. */
  readonly states: readonly { readonly redis: string; readonly requests: number; readonly median: number; readonly max: number; readonly failed: number }[];
  /** The worst of any state over the median without limits. */
  readonly addedMsMax: number;
}

const TARGET_MS = 20;
const REQUESTS = 300;
/** One way, of the proxy that makes Redis slow: twice of it is more than the timeout. */
const SLOW_MS = 15;

export async function measureRedisWait(): Promise<RedisWaitResult> {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-redis-wait-'));
  const upstream = await createStubUpstream();
  const redis = await startRedis();
  const proxy = await startProxy(Number(new URL(redis.url).port));
  const configFile = join(directory, 'gateway.yaml');
  const tenants = [
    { name: 'limited', apiKeySha256: [sha256('limited')], limits: { requestsPerMinute: 1_000_000, tokensPerMinute: 1_000_000_000, concurrencyMax: 1_000 } },
    { name: 'free', apiKeySha256: [sha256('free')] },
  ];
  const profile = join(ROOT, 'config/profiles/llama-3.1-8b.h200.json');
  writeFileSync(configFile, stringify({ listen: { port: 0 }, admin: { port: 0 }, replicas: [{ id: 'only', url: upstream.url, models: ['m'], profile }], tenants, store: { redisUrl: `redis://127.0.0.1:${proxy.port}` }, health: { everyMs: 1_000 }, timeouts: { drainMs: 0 }, logging: { level: 'error' } }));
  const gateway = startChild('gateway', process.execPath, [join(ROOT, 'src/main.ts'), 'serve', '--config', configFile], () => {});
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const states: RedisWaitResult['states'][number][] = [];
  try {
    const at = (await gateway.ready) as { readonly url: string; readonly adminUrl: string };
    await untilAllUp(at);
    const measure = async (name: string, key: string): Promise<void> => {
      const tookMs: number[] = [];
      let failed = 0;
      for (let count = 0; count < REQUESTS; count++) {
        const startedAtMs = performance.now();
        if ((await ask(agent, at.url, key)) !== 200) failed++;
        tookMs.push(performance.now() - startedAtMs);
      }
      states.push({ redis: name, requests: REQUESTS, median: percentiles(tookMs).p50 ?? 0, max: Math.max(...tookMs), failed });
    };
    await measure('warming up', 'limited');
    states.pop();
    await measure('not asked (a tenant without limits)', 'free');
    await measure('well', 'limited');
    proxy.delayMs = SLOW_MS;
    await measure(`slow (${2 * SLOW_MS} ms there and back)`, 'limited');
    proxy.delayMs = 0;
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    signal(redis.pid, 'SIGSTOP');
    await measure('frozen', 'limited');
    signal(redis.pid, 'SIGCONT');
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await measure('well again', 'limited');
    await redis.stop();
    await measure('gone', 'limited');
  } finally {
    agent.destroy();
    await gateway.stop(0);
    await redis.stop();
    proxy.close();
    await upstream.close();
    rmSync(directory, { recursive: true, force: true });
  }
  const withoutMs = states[0]?.median ?? 0;
  return { targetMs: TARGET_MS, states, addedMsMax: Math.max(...states.slice(1).map(({ max }) => max)) - withoutMs };
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function ask(agent: Agent, url: string, key: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(`${url}/v1/chat/completions`, { method: 'POST', agent, headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' } }, (answer) => {
      answer.resume();
      answer.once('end', () => resolve(answer.statusCode ?? 0));
    });
    request.once('error', reject);
    request.end('{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}');
  });
}

/** Hands every piece on after `delayMs`, in order. */
async function startProxy(port: number): Promise<{ readonly port: number; delayMs: number; close(): void }> {
  const state = { delayMs: 0 };
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1');
    for (const [from, to] of [[near, far], [far, near]] as const) {
      from.on('data', (bytes: Buffer) => void setTimeout(() => to.write(bytes), state.delayMs));
      from.on('close', () => to.destroy());
      from.on('error', () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    get delayMs() {
      return state.delayMs;
    },
    set delayMs(value) {
      state.delayMs = value;
    },
    close: () => server.close(),
  };
}
