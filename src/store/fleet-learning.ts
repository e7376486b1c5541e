// Gateways of one fleet tell each other through Redis what they have learnt: a hash beside the load's with a field per process, a
// few times a minute, often at first. Nobody waits for it, and without Redis each goes on with what it knows.
import { createHash, randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import type { Learning } from '../core/shared-learning.ts';
import type { Script } from './limit-scripts.ts';
import { createPeerLearning, learningText } from './peer-learning.ts';
import { GATEWAYS_MAX } from './peer-loads.ts';
import { openRedisScripting } from './redis-scripting.ts';
import type { RedisTarget } from './redis-target.ts';

export interface FleetLearningOptions {
  readonly target: RedisTarget;
  readonly fleet: string;
  readonly gatewayId: string;
  /** What this gateway has learnt by itself. */
  readonly read: () => Learning;
  /** What all others have, after every answer. */
  readonly onPeers: (learning: Learning) => void;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly everyMs?: { readonly first: number; readonly usual: number };
}

export interface FleetLearning {
  close(): Promise<void>;
}

/** It doubles until it is the usual: a gateway learns most when it is young. */
const EVERY_MS = { first: 1_000, usual: 15_000 };
/** Of the whole hash after its last writer: a fleet that was restarted as a whole begins with it. */
const HASH_LIFE_MS = 3_600_000;

const SOURCE = `
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ${HASH_LIFE_MS})
end
for at = 3, #ARGV do redis.call('HDEL', KEYS[1], ARGV[at]) end
return redis.call('HRANDFIELD', KEYS[1], ${GATEWAYS_MAX}, 'WITHVALUES')
`;
const EXCHANGE: Script = { source: SOURCE, sha: createHash('sha1').update(SOURCE).digest('hex') };

/** Throws `RedisUrlError` for a wrong URL; nothing after that. */
export function createFleetLearning({ target, fleet, gatewayId, read, onPeers, log, everyMs = EVERY_MS }: FleetLearningOptions): FleetLearning {
  // The number is the format's.
  const key = `paceline:{${fleet}}:learnt:1`;
  const field = `${gatewayId}/${randomBytes(6).toString('hex')}`;
  const peers = createPeerLearning(field);
  const redis = openRedisScripting({ target, connectionName: `paceline-learning-${gatewayId}`, what: null, log });
  let closed = false;
  let count = 0;
  let heard = false;
  let nextMs = everyMs.first;
  let timer: NodeJS.Timeout | undefined;
  void beat();

  async function beat(): Promise<void> {
    try {
      const flat = await redis.evaluate(EXCHANGE, [key], [field, learningText(++count, read()), ...peers.takeAbandoned()]);
      if (closed) return;
      if (Array.isArray(flat)) hear(flat.map(String));
    } catch {
      // That Redis is lost is said by those who need it.
    }
    if (closed) return;
    timer = setTimeout(() => void beat(), nextMs);
    timer.unref();
    nextMs = Math.min(everyMs.usual, 2 * nextMs);
  }

  function hear(flat: readonly string[]): void {
    const { gateways, learning } = peers.read(Array.from({ length: Math.floor(flat.length / 2) }, (_, at) => [flat[2 * at] as string, flat[2 * at + 1] as string] as const));
    if (gateways === 0) return;
    if (!heard) log.info({ fleet, gateways, replicas: learning.timeScales.size, models: learning.bytesPerToken.size }, 'other gateways have told what they have learnt');
    heard = true;
    onPeers(learning);
  }

  return {
    close: async () => {
      closed = true;
      clearTimeout(timer);
      await redis.close();
    },
  };
}
