// What is thought of one replica: what its probes say, what its answers say (a breaker), and what an operator wants (draining).
// Tells of changes; who gets which job is for the scheduler.
import { type BreakerLimits, type BreakerState, createBreaker } from '../core/breaker.ts';
import { unreachable } from '../core/unreachable.ts';
import type { Evidence } from './evidence.ts';

export interface ReplicaWatchOptions {
  readonly breaker: BreakerLimits;
  readonly now: () => number;
  readonly onState: (state: 'up' | 'draining' | 'down', why: string) => void;
  readonly onBreaker: (state: BreakerState['kind'], why: string) => void;
  readonly onSaturated: (retryAfterMs: number | null) => void;
}

export interface ReplicaWatch {
  told(evidence: Evidence): void;
  probed(health: 'up' | 'down', why: string): void;
  /** It gets no new jobs, those that run there end; until it is said otherwise. */
  drain(on: boolean): void;
  close(): void;
}

export function createReplicaWatch({ now, onState, onBreaker, onSaturated, breaker: limits }: ReplicaWatchOptions): ReplicaWatch {
  const breaker = createBreaker(limits);
  let health: 'unknown' | 'up' | 'down' = 'unknown';
  let draining = false;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  function handle(event: Parameters<typeof breaker.handle>[0], why: string): void {
    const before = breaker.state();
    const state = breaker.handle(event, now());
    if (state === before || closed) return;
    clearTimeout(timer);
    // Up to a millisecond early, timers are: once more is as good as exactly then.
    if (state.kind === 'open') timer = setTimeout(look, state.untilMs - now() + 1);
    timer?.unref();
    if (state.kind !== before.kind) onBreaker(state.kind, why);
  }

  function look(): void {
    handle({ kind: 'tick' }, 'it is tried again');
    if (breaker.state().kind === 'open' && !closed) timer = setTimeout(look, 5).unref();
  }

  return {
    told(evidence) {
      const { sentAtMs } = evidence;
      switch (evidence.kind) {
        case 'answered':
          return handle({ kind: 'answered', sentAtMs }, 'it has answered');
        case 'saturated':
          onSaturated(evidence.retryAfterMs);
          // It refuses in good order, so it is alive.
          return handle({ kind: 'answered', sentAtMs }, 'it has answered');
        case 'failed':
        case 'silent':
          return handle({ kind: evidence.kind, sentAtMs }, evidence.why);
        default:
          return unreachable(evidence);
      }
    },
    probed(now, why) {
      if (now === 'up' && health === 'down') handle({ kind: 'reset' }, 'it was down and is back');
      health = now;
      onState(now === 'up' && draining ? 'draining' : now, why);
    },
    drain(on) {
      if (draining === on) return;
      draining = on;
      if (health === 'up') onState(on ? 'draining' : 'up', on ? 'an operator drains it' : 'an operator has ended its draining');
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}
