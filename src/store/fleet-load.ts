// Several gateways, one fleet of replicas: each says through Redis what it has sent where, and hears the sum of the others.
//
// One hash per fleet, a field per gateway process, and one pipelined round trip per beat: write our field, read all.
// - One key, because a key per gateway needs a list of keys beside it, or SCAN; and because it works behind proxies and
//   on clusters. Plain commands, because scripts do not (COMPLAINTS.md, row 17).
// - No expiry per field (Redis 7.4) and no timestamps: a field that has not changed for four of the reader's own beats is
//   a gateway that is gone (`peer-loads.ts`). The same rule covers a killed gateway and a lost Redis.
// - A request never waits for Redis: what is read is some 250 ms old, and without Redis the others' load counts as zero
//   (the model servers' own metrics still show it), which `state()` and the log say.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import type { ReplicaId } from '../core/job.ts';
import type { ReplicaLoads } from './peer-loads.ts';
import { GATEWAYS_MAX, REPLICAS_MAX, createPeerLoads, publishedText } from './peer-loads.ts';
import type { RedisTarget } from './redis-target.ts';
import type { RedisConnection } from './redis-connection.ts';
import { messageOf, openRedis, shownRedis } from './redis-connection.ts';

export type FleetLoadState =
  | { readonly kind: 'connecting'; readonly sinceMs: number }
  /** `gateways`: others that are alive. */
  | { readonly kind: 'connected'; readonly sinceMs: number; readonly gateways: number }
  | { readonly kind: 'lost'; readonly sinceMs: number; readonly why: string }
  | { readonly kind: 'closed'; readonly sinceMs: number };

export interface FleetLoadOptions {
  readonly target: RedisTarget;
  /** Gateways of one name share their load. */
  readonly fleet: string;
  /** For people; two gateways of the same id are still counted as two. */
  readonly gatewayId: string;
  /** What this gateway has on each replica now. */
  readonly read: () => ReplicaLoads;
  /** At every change: the sum of all others per replica. A replica that nobody names any more comes once more, with zeros. */
  readonly onPeers: (loads: ReplicaLoads) => void;
  /** Once per change of `kind`. */
  readonly onState?: (state: FleetLoadState) => void;
  readonly everyMs?: number;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** Monotonic. */
  readonly now?: () => number;
}

export interface FleetLoad {
  /** Instants on the monotonic clock of `now`. */
  state(): FleetLoadState;
  /** Takes our field back, where Redis answers, and resolves within the command timeout. */
  close(): Promise<void>;
}

/** Not a name that may stand in a key, or a field of one. */
export class FleetLoadError extends Error {
  override name = 'FleetLoadError';
}

const EVERY_MS_DEFAULT = 250;
/** A Redis on the same network answers in under a millisecond; one that needs longer is no help in routing. */
const COMMAND_MS_MAX = 200;
const RETRY_MS = { first: 100, max: 2_000 };
/** Of the whole hash, after the last beat of the last gateway. */
const HASH_LIFE_MS = 60_000;
const NAME = /^[A-Za-z0-9._:-]{1,64}$/;

assert(COMMAND_MS_MAX < EVERY_MS_DEFAULT, 'a round trip is over before the next one begins');
assert(HASH_LIFE_MS > 10 * RETRY_MS.max, 'the hash outlives any attempt to come back to it');

type Exchange = { readonly kind: 'answered'; readonly fields: readonly (readonly [string, string])[] } | { readonly kind: 'failed'; readonly why: string };

/** Throws `RedisUrlError` or `FleetLoadError` for wrong options; nothing after that. */
export function createFleetLoad(options: FleetLoadOptions): FleetLoad {
  const { fleet, gatewayId, log, everyMs = EVERY_MS_DEFAULT, now = () => performance.now() } = options;
  for (const [key, value] of Object.entries({ fleet, gatewayId })) {
    if (!NAME.test(value)) throw new FleetLoadError(`${key}: got '${value}', want 1 to 64 of A-Z a-z 0-9 . _ : -`);
  }
  const shown = shownRedis(options.target);
  // The braces keep it on one shard of a cluster whatever else is added; the number is the format's.
  const key = `paceline:{${fleet}}:load:1`;
  // Of this process: a gateway that was restarted does not continue, nor does a namesake overwrite, another one's field.
  const field = `${gatewayId}/${randomBytes(6).toString('hex')}`;
  const peers = createPeerLoads(field);
  let state: FleetLoadState = { kind: 'connecting', sinceMs: now() };
  let reported: ReplicaLoads = new Map();
  /** Ours, by which the silence of others is measured. */
  let beat = 0;
  let written = 0;
  let failures = 0;
  let exchanging = false;
  let lastError: string | null = null;
  let toldOfBounds = false;

  const retryStrategy = (): number | null => {
    if (state.kind === 'closed') return null;
    // Half of it at random: the gateways of a fleet lose Redis together and should not come back together.
    return Math.min(RETRY_MS.max, RETRY_MS.first * 2 ** Math.min(failures++, 10)) * (0.5 + Math.random() / 2);
  };
  const redis = openRedis(options.target, { connectionName: `paceline-${gatewayId}`, retryStrategy, commandMsMax: COMMAND_MS_MAX });
  // Its listeners may log no error object: ioredis puts a command and its arguments, the password's too, on it.
  redis.on('error', (error: NodeJS.ErrnoException) => (lastError = messageOf(error)));
  redis.on('close', () => lost(lastError ?? 'the connection closed'));
  redis.on('ready', () => void exchange());
  const timer = setInterval(() => {
    beat++;
    report();
    void exchange();
  }, everyMs);
  timer.unref();

  function become(next: FleetLoadState): void {
    state = next;
    options.onState?.(next);
  }
  function lost(why: string): void {
    if (state.kind === 'lost' || state.kind === 'closed') return;
    become({ kind: 'lost', sinceMs: now(), why });
    log.warn({ redis: shown, fleet, why }, 'the load of other gateways is unknown: Redis is lost; it counts as zero until Redis is back');
  }
  function connected(): void {
    failures = 0;
    lastError = null;
    if (state.kind === 'connected' || state.kind === 'closed') return;
    become({ kind: 'connected', sinceMs: now(), gateways: 0 });
    log.info({ redis: shown, fleet }, 'the load of other gateways is known');
  }

  /** Also without an answer: silence is what makes a peer vanish. */
  function report(): void {
    const { gateways, loads } = peers.sum(beat);
    if (state.kind === 'connected') state = { ...state, gateways };
    const gone = [...reported.keys()].filter((replicaId) => !loads.has(replicaId));
    const changed = [...loads].some(([replicaId, { running, waiting }]) => {
      const before = reported.get(replicaId);
      return before?.running !== running || before.waiting !== waiting;
    });
    if (gone.length === 0 && !changed) return;
    reported = loads;
    options.onPeers(new Map([...gone.map((replicaId): [ReplicaId, { running: 0; waiting: 0 }] => [replicaId, { running: 0, waiting: 0 }]), ...loads]));
  }

  /** One at a time: a Redis that does not answer is asked once, not once per beat. */
  async function exchange(): Promise<void> {
    if (exchanging || state.kind === 'closed' || redis.status !== 'ready') return;
    const loads = options.read();
    exchanging = true;
    const answer = await ask(redis, { key, field, text: publishedText(++written, loads), rubbish: peers.takeAbandoned() });
    exchanging = false;
    // `close` may have come meanwhile.
    if ((state as FleetLoadState).kind === 'closed') return;
    if (answer.kind === 'failed') {
      lost(answer.why);
      // A late answer must not be taken for the next one's, and a connection that hangs is not waited for.
      if (redis.status === 'ready') redis.disconnect(true);
      return;
    }
    connected();
    peers.read(answer.fields, answer.fields.length < GATEWAYS_MAX, beat);
    tellOfBounds(loads);
    report();
  }
  function tellOfBounds(loads: ReplicaLoads): void {
    const crowded = peers.overflowing();
    if (toldOfBounds || (!crowded && loads.size <= REPLICAS_MAX)) return;
    toldOfBounds = true;
    log.warn({ fleet }, crowded ? `more than ${GATEWAYS_MAX} gateways in the fleet: not all of them are counted` : `more than ${REPLICAS_MAX} replicas: the other gateways hear only of the busiest`);
  }

  return {
    state: () => state,
    close: async () => {
      if (state.kind === 'closed') return;
      const asked = redis.status === 'ready' && state.kind === 'connected';
      become({ kind: 'closed', sinceMs: now() });
      clearInterval(timer);
      // On the same connection, so it comes after a beat that may be under way. Where it fails, silence does the same.
      if (asked) await redis.hdel(key, field).catch(() => 0);
      redis.disconnect();
    },
  };
}

/** Never rejects. */
async function ask(redis: RedisConnection, { key, field, text, rubbish }: { readonly key: string; readonly field: string; readonly text: string; readonly rubbish: readonly string[] }): Promise<Exchange> {
  // HRANDFIELD (Redis 6.2) is an HGETALL with a bound: up to that many fields it answers all of them.
  const pipeline = redis.pipeline().hset(key, field, text).pexpire(key, HASH_LIFE_MS).hrandfield(key, GATEWAYS_MAX, 'WITHVALUES');
  // Last, for it is the one whose answer nobody needs. A gateway that was only paused writes its field anew.
  if (rubbish.length > 0) pipeline.hdel(key, ...rubbish);
  try {
    const answers = (await pipeline.exec()) ?? [];
    const failed = answers.find(([error]) => error !== null);
    if (failed !== undefined) return { kind: 'failed', why: messageOf(failed[0] as Error) };
    const flat = answers[2]?.[1];
    if (!Array.isArray(flat) || flat.length % 2 !== 0) return { kind: 'failed', why: 'HRANDFIELD was not answered with fields and values' };
    return { kind: 'answered', fields: Array.from({ length: flat.length / 2 }, (_, at) => [String(flat[2 * at]), String(flat[2 * at + 1])] as const) };
  } catch (error) {
    return { kind: 'failed', why: messageOf(error as Error) };
  }
}
