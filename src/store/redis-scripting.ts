// A way to Redis for what must be kept there and may wait: scripts and fields, each with an answer or an error, and a word about
// a Redis that does not keep things. Nothing is tried twice here, for who asks knows what that would do.
import type { Logger } from 'pino';
import type { Script } from './limit-scripts.ts';
import type { RedisConnection } from './redis-connection.ts';
import { messageOf, openRedis, shownRedis } from './redis-connection.ts';
import type { RedisTarget } from './redis-target.ts';

export interface RedisScripting {
  /** Throws what Redis says, or that it is not there. */
  evaluate(script: Script, keys: readonly string[], args: readonly (string | Buffer)[]): Promise<unknown>;
  /** A field of a hash, as its bytes are. */
  field(key: string, name: string): Promise<Buffer | null>;
  close(): Promise<void>;
}

export interface RedisScriptingOptions {
  readonly target: RedisTarget;
  readonly connectionName: string;
  /** What is kept there and must not be lost, for the log; `null`: nothing. */
  readonly what: string | null;
  readonly log: Pick<Logger, 'warn'>;
  readonly commandMsMax?: number;
}

/** A piece of a file is a quarter of a megabyte; one who is frozen is not waited for longer. */
const COMMAND_MS_MAX = 2_000;
/** What the first commands wait for the first connection. */
const FIRST_MS_MAX = 1_000;
const RETRY_MS = { first: 50, max: 1_000 };

/** Throws `RedisUrlError` for a wrong URL; nothing after that. */
export function openRedisScripting({ target, connectionName, what, log, commandMsMax = COMMAND_MS_MAX }: RedisScriptingOptions): RedisScripting {
  let closed = false;
  let failures = 0;
  let lastError: string | null = null;
  /** EVALSHA is forbidden here, or unknown. */
  let evalOnly = false;
  const told = new Set<string>();
  const retryStrategy = (): number | null => (closed ? null : Math.min(RETRY_MS.max, RETRY_MS.first * 2 ** Math.min(failures++, 10)) * (0.5 + Math.random() / 2));
  const redis = openRedis(target, { connectionName, retryStrategy, commandMsMax });
  const first = new Promise<void>((resolve) => {
    const timeout = setTimeout(resolve, FIRST_MS_MAX);
    timeout.unref();
    const end = (): void => {
      clearTimeout(timeout);
      resolve();
    };
    redis.once('ready', end);
    redis.once('end', end);
  });
  redis.on('error', (error: NodeJS.ErrnoException) => (lastError = messageOf(error)));
  redis.on('ready', () => {
    failures = 0;
    lastError = null;
    if (what !== null) void look();
  });

  /** What is lost is lost silently, so it is said while there is nothing to lose. */
  async function look(): Promise<void> {
    for (const problem of await keepingProblems(redis)) {
      if (told.has(problem)) continue;
      told.add(problem);
      log.warn({ redis: shownRedis(target) }, `${what}: ${problem}`);
    }
  }

  async function asked<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
    await first;
    if (redis.status !== 'ready') throw new Error(`${shownRedis(target)}: ${lastError ?? 'there is no connection'}`);
    try {
      return await ask();
    } catch (error) {
      const { message } = error as Error;
      // Answers that come late would be in the way of the next ones; and another server may be the one to write to by now.
      if (!closed && redis.status === 'ready' && /^READONLY|timed out/.test(message)) redis.disconnect(true);
      throw error;
    }
  }

  return {
    evaluate: ({ source, sha }, keys, args) =>
      asked(async () => {
        if (!evalOnly) {
          try {
            return await redis.evalsha(sha, keys.length, ...keys, ...args);
          } catch (error) {
            const { message } = error as Error;
            if (/^NOPERM|unknown command|not allowed|not supported|disabled/i.test(message)) evalOnly = true;
            else if (!message.startsWith('NOSCRIPT')) throw error;
          }
        }
        return redis.eval(source, keys.length, ...keys, ...args);
      }),
    field: (key, name) => asked(() => redis.hgetBuffer(key, name)),
    close: async () => {
      closed = true;
      redis.disconnect();
    },
  };
}

/** Whether Redis may forget. INFO, for CONFIG is often forbidden; where that is, too, nothing is known and nothing said. */
async function keepingProblems(redis: RedisConnection): Promise<string[]> {
  const read = async (section: string, field: string): Promise<string | null> => new RegExp(`^${field}:(\\S*)`, 'm').exec(await redis.info(section))?.[1] ?? null;
  try {
    const policy = await read('memory', 'maxmemory_policy');
    const appendOnly = await read('persistence', 'aof_enabled');
    return [
      ...(policy?.startsWith('allkeys-') ? [`Redis may throw them away when its memory is full: maxmemory-policy is '${policy}', want noeviction`] : []),
      ...(appendOnly === '0' ? ["Redis forgets the latest of them when it ends: appendonly is 'no', want yes"] : []),
    ];
  } catch {
    return [];
  }
}
