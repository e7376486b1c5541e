// The limits' way to Redis: asks in one round trip, never longer than a request may wait, and knows whether there is anybody
// to ask. What is admitted where nobody is, is for the limiter to say.
//
// - One command per call: EVALSHA, and EVAL with the source until the server has run it, or where it forbids EVALSHA. No SCRIPT
//   LOAD, for proxies send it to one server of many (COMPLAINTS.md, row 17).
// - The first call without an answer in time opens the breaker: from then on nobody waits, while a beat in the background, which
//   writes as the calls do, looks whether Redis takes writes again. So the breaker sees a read-only replica and a full memory, too.
// - A beat says that this gateway is alive; how many are is what a local share is counted by.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import type { Script, TenantAnswer, TenantCall } from './limit-scripts.ts';
import { ALIVE_SCRIPT, PLACES_LIFE_MS, TENANT_SCRIPT, aliveKeys, readAliveAnswer, readTenantAnswer, tenantArguments, tenantKeys } from './limit-scripts.ts';
import { messageOf, openRedis, shownRedis } from './redis-connection.ts';
import type { RedisTarget } from './redis-target.ts';

export type FleetLimitsState =
  | { readonly kind: 'connecting' }
  /** `gateways`: alive, this one included. */
  | { readonly kind: 'up'; readonly gateways: number }
  /** `gateways`: last seen alive, this one included; 0 where none were ever seen. */
  | { readonly kind: 'lost'; readonly gateways: number; readonly why: string }
  | { readonly kind: 'closed' };

export interface FleetLimitsOptions {
  readonly target: RedisTarget;
  readonly fleet: string;
  readonly gatewayId: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** Once per change of `kind`. */
  readonly onState?: (state: FleetLimitsState) => void;
  readonly everyMs?: number;
  readonly now?: () => number;
}

export interface FleetLimits {
  state(): FleetLimitsState;
  /** Redis' clock as far as we know it, unix milliseconds. */
  clockMs(): number;
  /** `null`: not within `withinMs`, or not at all. Called exactly once, and at once where nobody is there to ask. */
  ask(call: TenantCall, withinMs: number, done: (answer: TenantAnswer | null) => void): void;
  /** Is called at every beat while Redis is there: places must be said again before they run out. */
  onBeat(listener: () => void): void;
  /** Resolves when Redis has answered for the first time, or after `withinMs`. */
  ready(withinMs: number): Promise<void>;
  close(): Promise<void>;
}

type Outcome = { readonly kind: 'answered'; readonly reply: unknown } | { readonly kind: 'failed'; readonly error: Error };

const BEAT_MS_DEFAULT = 1_000;
/** While lost, and before it first answered. */
const PROBE_MS = 100;
/** A probe that has no answer after so long is not waited for: the connection may be one into nowhere. */
const PROBE_MS_MAX = 1_000;
const CLOSE_MS_MAX = 200;
const RETRY_MS = { first: 50, max: 500 };

assert(PLACES_LIFE_MS >= 4 * BEAT_MS_DEFAULT, 'places outlive three missed beats');

/** Throws `RedisUrlError` for a wrong URL; nothing after that. */
export function createFleetLimits(options: FleetLimitsOptions): FleetLimits {
  const { target, fleet, gatewayId, log, everyMs = BEAT_MS_DEFAULT, now = () => performance.now() } = options;
  const shown = shownRedis(target);
  // Of this process: places of a gateway that was killed are not those of the one that comes after it.
  const field = `${gatewayId}/${randomBytes(6).toString('hex')}`;
  let state: FleetLimitsState = { kind: 'connecting' };
  let gatewaysSeen = 0;
  /** Redis' clock less ours. */
  let clockOffsetMs = Date.now() - now();
  let failures = 0;
  let lastError: string | null = null;
  let probing = false;
  let probedAtMs = -Infinity;
  /** EVALSHA is forbidden here, or unknown. */
  let evalOnly = false;
  /** Scripts that the server on this connection has run: of them it knows the source. */
  const known = new Set<string>();
  const beatListeners: (() => void)[] = [];
  const readyListeners: (() => void)[] = [];

  const retryStrategy = (): number | null => (state.kind === 'closed' ? null : Math.min(RETRY_MS.max, RETRY_MS.first * 2 ** Math.min(failures++, 10)) * (0.5 + Math.random() / 2));
  const redis = openRedis(target, { connectionName: `paceline-limits-${gatewayId}`, retryStrategy });
  redis.on('error', (error: NodeJS.ErrnoException) => (lastError = messageOf(error)));
  redis.on('close', () => {
    // The next one may be another server.
    known.clear();
    lost(lastError ?? 'the connection closed');
  });
  redis.on('ready', probe);
  const timer = setInterval(() => {
    if (now() - probedAtMs >= (state.kind === 'up' ? everyMs : PROBE_MS)) probe();
  }, Math.min(everyMs, PROBE_MS));
  timer.unref();

  function become(next: FleetLimitsState): void {
    const changed = next.kind !== state.kind;
    state = next;
    if (changed) options.onState?.(next);
  }
  function lost(why: string): void {
    if (state.kind === 'lost' || state.kind === 'closed') return;
    become({ kind: 'lost', gateways: gatewaysSeen, why });
    log.warn({ redis: shown, fleet, why, gateways: gatewaysSeen }, 'limits are no longer kept fleet-wide: Redis is lost; each does what store.whenLost says until it is back');
  }
  function up(gateways: number): void {
    failures = 0;
    lastError = null;
    gatewaysSeen = gateways;
    if (state.kind === 'closed') return;
    const changed = state.kind !== 'up';
    become({ kind: 'up', gateways });
    if (changed) log.info({ redis: shown, fleet, gateways }, 'limits are kept fleet-wide');
    for (const listener of readyListeners.splice(0)) listener();
  }

  /** One at a time; its answer, however late, is what brings Redis back. */
  function probe(): void {
    if (state.kind === 'closed' || redis.status !== 'ready') return;
    if (probing) {
      if (now() - probedAtMs < PROBE_MS_MAX || state.kind !== 'lost') {
        if (now() - probedAtMs >= PROBE_MS_MAX) lost('no answer to a beat');
        return;
      }
      // Its commands fail with it, this probe among them.
      redis.disconnect(true);
      return;
    }
    probing = true;
    probedAtMs = now();
    void beat();
  }
  async function beat(): Promise<void> {
    const outcome = await evaluate(ALIVE_SCRIPT, aliveKeys(fleet), [field, String(PLACES_LIFE_MS)]);
    probing = false;
    if (outcome.kind === 'failed') return failed(outcome.error);
    const answer = readAliveAnswer(outcome.reply);
    if (answer === null) return lost('the script was not answered as it should be');
    clockOffsetMs = answer.nowMs - now();
    up(answer.gateways);
    for (const listener of beatListeners) listener();
  }
  function failed(error: Error): void {
    lost(messageOf(error));
    // Another server may be the one to write to by now, which only a new connection finds.
    if (error.message.startsWith('READONLY') && redis.status === 'ready') redis.disconnect(true);
  }

  async function evaluate({ source, sha }: Script, keys: readonly string[], args: readonly string[]): Promise<Outcome> {
    try {
      if (!evalOnly && known.has(sha)) {
        try {
          return { kind: 'answered', reply: await redis.evalsha(sha, keys.length, ...keys, ...args) };
        } catch (error) {
          const { message } = error as Error;
          if (/^NOPERM|unknown command|not allowed|not supported|disabled/i.test(message)) evalOnly = true;
          else if (message.startsWith('NOSCRIPT')) known.delete(sha);
          else throw error;
        }
      }
      // With the source from the first on, and not only where EVALSHA has failed: what was asked again would come behind what was
      // asked later, and a count of places that is absolute would undo what those took.
      const reply = await redis.eval(source, keys.length, ...keys, ...args);
      known.add(sha);
      return { kind: 'answered', reply };
    } catch (error) {
      return { kind: 'failed', error: error as Error };
    }
  }
  /** In time or not: what comes late has told us the time at least. */
  async function asked(call: TenantCall, late: () => boolean): Promise<TenantAnswer | null> {
    const outcome = await evaluate(TENANT_SCRIPT, tenantKeys(fleet, call.tenant), tenantArguments(field, call));
    if (outcome.kind === 'failed') {
      if (!late()) failed(outcome.error);
      return null;
    }
    const answer = readTenantAnswer(outcome.reply, call.wanted.length);
    if (answer === null) lost('the script was not answered as it should be');
    else clockOffsetMs = answer.nowMs - now();
    return answer;
  }

  return {
    state: () => state,
    clockMs: () => now() + clockOffsetMs,
    ask: (call, withinMs, done) => {
      // Before its own event says so.
      if (redis.status !== 'ready') lost(lastError ?? 'there is no connection');
      if (state.kind !== 'up') return done(null);
      let open = true;
      const end = (answer: TenantAnswer | null): void => {
        if (!open) return;
        open = false;
        clearTimeout(timeout);
        done(answer);
      };
      const timeout = setTimeout(() => {
        // Timers come before sockets in a turn: where this process was late itself, the answer may lie there already.
        setImmediate(() => {
          if (!open) return;
          lost(`no answer within ${Math.round(withinMs)} ms`);
          end(null);
        });
      }, withinMs);
      void asked(call, () => !open).then(end);
    },
    onBeat: (listener) => beatListeners.push(listener),
    ready: async (withinMs) => {
      if (state.kind === 'up' || state.kind === 'closed') return;
      await new Promise<void>((resolve) => {
        const timeout = setTimeout(resolve, withinMs);
        readyListeners.push(() => {
          clearTimeout(timeout);
          resolve();
        });
      });
    },
    close: async () => {
      if (state.kind === 'closed') return;
      const wasUp = state.kind === 'up' && redis.status === 'ready';
      become({ kind: 'closed' });
      clearInterval(timer);
      if (wasUp) {
        const leave = evaluate(ALIVE_SCRIPT, aliveKeys(fleet), [field, '0']);
        let timeout: NodeJS.Timeout | undefined;
        await Promise.race([leave, new Promise((resolve) => (timeout = setTimeout(resolve, CLOSE_MS_MAX)))]);
        clearTimeout(timeout);
      }
      redis.disconnect();
    },
  };
}
