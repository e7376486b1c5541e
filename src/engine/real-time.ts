// Runs an emulated replica by the wall clock. Iterations are planned on the monotonic clock, each from where the one before
// was planned to end, so that late timers make tokens a moment late but never the engine slower.
import type { EngineEvent, EngineLimits, EngineRequest, EngineStats, Submission } from './batching.ts';
import type { ClockLock, DeviceReading } from './device.ts';
import type { Physics } from './physics.ts';
import { createEmulatedReplica } from './replica.ts';

/** A process that was stopped or starved for longer has lost that time; shorter lateness is caught up. */
const CATCH_UP_MAX_MS = 250;

/** What a request's owner hears. The event is used again by the next one: copy what is kept. */
export type EngineListener = (event: EngineEvent<number>, atMs: number) => void;

export interface RealTimeReplica {
  readonly devices: number;
  readonly clockListMhz: readonly number[];
  submit(request: EngineRequest<number>, listener: EngineListener): Submission;
  cancel(id: number): boolean;
  lock(device: number, lock: ClockLock | null): void;
  limitPower(device: number, limitW: number | null): void;
  /** As of an emulated replica. */
  rest(powerW: number | null): void;
  idlePowerW(clockMhz: number): number;
  stats(): EngineStats;
  clockMhz(): number;
  powerW(): number;
  energyJ(): number;
  reading(device: number): DeviceReading;
  /** Lets no more time pass; what runs is forgotten. */
  close(): void;
}

export interface RealTimeOptions {
  readonly physics: Physics;
  readonly limits: EngineLimits;
  readonly seed: number;
  readonly initial?: readonly { readonly lock: ClockLock | null; readonly energyJ: number }[];
}

/** CLOCK_MONOTONIC in milliseconds: what the agent and the device files count in, too. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export function createRealTimeReplica(options: RealTimeOptions): RealTimeReplica {
  const listeners = new Map<number, EngineListener>();
  const replica = createEmulatedReplica<number>({
    ...options,
    startMs: monotonicMs(),
    tokenEvents: 'each',
    catchUpMaxMs: CATCH_UP_MAX_MS,
    deliver: (events, atMs) => {
      for (const event of events) {
        const listener = listeners.get(event.id);
        if (event.kind === 'finished') listeners.delete(event.id);
        listener?.(event, atMs);
      }
    },
  });
  let timer: NodeJS.Timeout | undefined;
  let timerAtMs = Infinity;
  let closed = false;

  /** After whatever may have moved the next event. */
  function arm(): void {
    const nextAtMs = replica.nextEventAtMs();
    if (closed || nextAtMs === timerAtMs) return;
    clearTimeout(timer);
    timerAtMs = nextAtMs;
    if (nextAtMs === Infinity) return;
    timer = setTimeout(wake, Math.max(1, Math.ceil(nextAtMs - monotonicMs())));
  }
  function wake(): void {
    timerAtMs = Infinity;
    replica.advanceTo(monotonicMs());
    arm();
  }
  function armed<T>(result: T): T {
    arm();
    return result;
  }

  return {
    devices: replica.devices,
    clockListMhz: replica.clockListMhz,
    submit: (request, listener) => {
      const submission = replica.submit(request, monotonicMs());
      if (submission.kind === 'queued') listeners.set(request.id, listener);
      return armed(submission);
    },
    cancel: (id) => {
      listeners.delete(id);
      return armed(replica.cancel(id, monotonicMs()));
    },
    lock: (device, lock) => armed(replica.lock(device, lock, monotonicMs())),
    limitPower: (device, limitW) => armed(replica.limitPower(device, limitW, monotonicMs())),
    rest: (powerW) => armed(replica.rest(powerW, monotonicMs())),
    idlePowerW: replica.idlePowerW,
    stats: replica.stats,
    clockMhz: replica.clockMhz,
    powerW: replica.powerW,
    energyJ: () => {
      replica.advanceTo(monotonicMs());
      return armed(replica.energyJ());
    },
    reading: (device) => {
      replica.advanceTo(monotonicMs());
      return armed(replica.reading(device));
    },
    close: () => {
      closed = true;
      clearTimeout(timer);
      listeners.clear();
    },
  };
}
