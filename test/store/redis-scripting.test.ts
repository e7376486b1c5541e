// Scripts at a Redis that may be slow, forgetful or particular; what they do is for who writes them.
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { afterEach, expect, test } from 'vitest';
import { singleRedis } from '../../src/store/redis-connection.ts';
import type { RedisScripting } from '../../src/store/redis-scripting.ts';
import { openRedisScripting } from '../../src/store/redis-scripting.ts';
import type { RedisServer } from '../fixtures/redis.ts';
import { freePort, startRedis } from '../fixtures/redis.ts';

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const source = "return {KEYS[1], ARGV[1]}";
const ECHO = { source, sha: createHash('sha1').update(source).digest('hex') };

async function redis(...args: string[]): Promise<RedisServer> {
  const server = await startRedis({ arguments: args });
  opened.push({ close: server.stop });
  return server;
}
function scripting(url: string, commandMsMax?: number): { readonly redis: RedisScripting; readonly warned: string[] } {
  const warned: string[] = [];
  const opening = openRedisScripting({ target: singleRedis(url), connectionName: 'test', what: 'files and batches', log: { warn: (...line: unknown[]) => void warned.push(JSON.stringify(line)) }, ...(commandMsMax === undefined ? {} : { commandMsMax }) });
  opened.push(opening);
  return { redis: opening, warned };
}
const echo = (redis: RedisScripting): Promise<unknown> => redis.evaluate(ECHO, ['k'], ['v']);
async function eventually(check: () => Promise<boolean>): Promise<void> {
  const untilMs = performance.now() + 15_000;
  while (!(await check().catch(() => false))) {
    if (performance.now() > untilMs) throw new Error(`not in time: ${check.toString()}`);
    await delay(20);
  }
}

test.each([
  { what: 'evicts and keeps nothing on disk', args: ['--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru'], words: [/maxmemory-policy is 'allkeys-lru', want noeviction/, /appendonly is 'no', want yes/] },
  { what: 'keeps everything', args: ['--maxmemory', '100mb', '--maxmemory-policy', 'noeviction', '--appendonly', 'yes'], words: [] },
  { what: 'evicts only what has a time to live, which batches have not', args: ['--maxmemory-policy', 'volatile-lru', '--appendonly', 'yes'], words: [] },
])('the log says what is to be said of a Redis that $what', async ({ args, words }) => {
  const { redis: asked, warned } = scripting((await redis(...args)).url);
  expect(await echo(asked)).toEqual(['k', 'v']);
  if (words.length > 0) await eventually(async () => warned.length >= words.length);
  else await delay(300);
  expect(warned).toHaveLength(words.length);
  words.forEach((word, index) => expect(warned[index]).toMatch(word));
});

test('where EVALSHA is forbidden it is EVAL, and where INFO is, nothing is said', async () => {
  const server = await redis();
  const admin = new Redis(server.port);
  opened.push({ close: () => admin.disconnect() });
  await admin.call('ACL', 'SETUSER', 'app', 'on', '>pass-word', '~*', '+@all', '-evalsha', '-info');
  const { redis: asked, warned } = scripting(server.url.replace('://', '://app:pass-word@'));
  expect(await echo(asked)).toEqual(['k', 'v']);
  expect(await echo(asked)).toEqual(['k', 'v']);
  expect(warned).toEqual([]);
});

test('a Redis that is frozen is an error in time, and answers again once it goes on', async () => {
  const server = await redis();
  const { redis: asked } = scripting(server.url, 300);
  expect(await echo(asked)).toEqual(['k', 'v']);
  process.kill(server.pid, 'SIGSTOP');
  const startedAtMs = performance.now();
  await expect(echo(asked)).rejects.toThrow(/timed out/);
  expect(performance.now() - startedAtMs).toBeLessThan(5_000);
  process.kill(server.pid, 'SIGCONT');
  await eventually(async () => Array.isArray(await echo(asked)));
});

test('a Redis that is not there is an error that names it, without its password', async () => {
  const { redis: asked } = scripting(`redis://:pass-word@127.0.0.1:${await freePort()}`);
  const refused = echo(asked);
  await expect(refused).rejects.toThrow(/\*\*\*@127\.0\.0\.1.*ECONNREFUSED/);
  await expect(refused).rejects.not.toThrow(/pass-word/);
});
