// Plays what was planned for one replica on the emulated one: the same engine, device and switch latency, outliers
// included, that every other policy runs on. What a plan is worth is only ever said by this.
import type { EngineLimits } from '../engine/batching.ts';
import type { Physics } from '../engine/physics.ts';
import { createEmulatedReplica } from '../engine/replica.ts';
import type { Gear } from './clairvoyant-gears.ts';
import type { KnownRequest } from './clairvoyant-request.ts';

/** Sent to the replica at an instant at or after its arrival. */
export interface Dispatch {
  readonly request: KnownRequest;
  readonly sentAtMs: number;
}

export interface Stage {
  readonly physics: Physics;
  readonly limits: EngineLimits;
  /** Of the replica's device, which draws its slow switches from it. */
  readonly seed: number;
  readonly untilMs: number;
  /** Length of an interval of the clock schedule. */
  readonly controlMs: number;
  /** From a demand to the agent's call having been made. */
  readonly controlDelayMs: number;
}

export interface Played {
  readonly energyJ: number;
  /** Feasible requests that missed an SLO. */
  readonly missed: number;
  /** By how much, in total: what a repair has to make up for. */
  readonly lateMs: number;
  readonly endedAtMs: number;
  /** The feasible request that missed, of several the first to end. */
  readonly firstMissed: { readonly sentAtMs: number; readonly endAtMs: number } | null;
}

export interface Times {
  readonly firstAtMs: number;
  readonly endAtMs: number;
}

/**
 * The gear `schedule[i]` is demanded so early that it has settled at `i * controlMs`: who knows the future need not be late. The last one stays.
 * `dispatches` in order of `sentAtMs`. Goes on idling until
 * `untilMs`, or works until all is done. `times`, by the request's index, is filled where it is given. `firstMissed` is looked for
 * after `missesAfterMs`.
 */
export function playReplica(stage: Stage, dispatches: readonly Dispatch[], gears: readonly Gear[], schedule: Uint8Array, times?: Times[], missesAfterMs = -Infinity): Played {
  const { physics, limits, seed, untilMs, controlMs, controlDelayMs } = stage;
  const firstAtMs = new Map<number, number>();
  const byIndex = new Map(dispatches.map((dispatch) => [dispatch.request.index, dispatch]));
  let missed = 0;
  let lateMs = 0;
  let done = 0;
  let read = 0;
  let endedAtMs = 0;
  let firstMissed: Played['firstMissed'] = null;
  const replica = createEmulatedReplica<number>({
    physics,
    limits,
    seed,
    startMs: 0,
    tokenEvents: 'first-and-last',
    deliver: (events, atMs) => {
      for (const { kind, id } of events) {
        if (!firstAtMs.has(id)) {
          firstAtMs.set(id, atMs);
          read++;
        }
        if (kind !== 'finished') continue;
        done++;
        endedAtMs = atMs;
        const ended = { firstAtMs: firstAtMs.get(id) as number, endAtMs: atMs };
        const { request, sentAtMs } = byIndex.get(id) as Dispatch;
        if (request.feasible && !isMet(request, ended)) {
          missed++;
          lateMs += latenessMs(request, ended);
          if (atMs > missesAfterMs) firstMissed ??= { sentAtMs: sentAtMs, endAtMs: atMs };
        }
        if (times !== undefined) times[id] = ended;
      }
    },
  });
  const lowestMhz = replica.clockListMhz[0] as number;
  const { latencyMs } = physics.profile.switch;
  let sent = 0;
  let interval = 0;
  let gear = gears[0] as Gear;
  let demandedMhz = Number.NaN;
  function demand(clockMhz: number, nowMs: number): void {
    if (clockMhz === demandedMhz) return;
    demandedMhz = clockMhz;
    for (let device = 0; device < replica.devices; device++) replica.lock(device, { minMhz: lowestMhz, maxMhz: clockMhz }, nowMs);
  }
  for (;;) {
    while (interval > 0 && interval < schedule.length && schedule[interval] === schedule[interval - 1]) interval++;
    const demandAtMs = interval < schedule.length ? Math.max(interval * controlMs - latencyMs, controlDelayMs) : Infinity;
    const sendAtMs = dispatches[sent]?.sentAtMs ?? Infinity;
    const unread = sent - read;
    const readAtMs = unread > 0 && gear.prefillMhz !== gear.decodeMhz ? replica.nextEventAtMs() : Infinity;
    const nowMs = Math.min(demandAtMs, sendAtMs, readAtMs);
    if (nowMs === Infinity) break;
    if (demandAtMs <= nowMs) {
      gear = gears[schedule[interval++] as number] as Gear;
      demand(unread > 0 ? gear.prefillMhz : gear.decodeMhz, nowMs);
      continue;
    }
    if (readAtMs <= nowMs) {
      replica.advanceTo(nowMs);
      if (sent === read) demand(gear.decodeMhz, nowMs);
      continue;
    }
    const { request } = dispatches[sent++] as Dispatch;
    const { index, promptTokens, outputTokens } = request;
    if (replica.submit({ id: index, promptTokens, outputTokens }, nowMs).kind === 'rejected') {
      done++;
      read++;
      if (request.feasible) missed++;
    }
    demand(gear.prefillMhz, nowMs);
  }
  const busyUntilMs = (): number => (done < dispatches.length ? replica.nextEventAtMs() : 0);
  for (let nowMs = untilMs; ; nowMs = Math.max(untilMs, busyUntilMs())) {
    replica.advanceTo(nowMs);
    if (done === dispatches.length) break;
  }
  return { energyJ: replica.energyJ(), missed, lateMs, endedAtMs, firstMissed };
}

/** As `JobReport.met` says it for a stream. */
export function isMet({ atMs, outputTokens, slo }: KnownRequest, { firstAtMs, endAtMs }: Times): boolean {
  const { ttftMs = Infinity, tpotMs = Infinity, e2eMs = Infinity } = slo;
  return firstAtMs - atMs <= ttftMs && endAtMs - atMs <= e2eMs && (outputTokens < 2 || (endAtMs - firstAtMs) / (outputTokens - 1) <= tpotMs);
}

/** By how much it is too late for the SLOs that it missed, in total. */
function latenessMs({ atMs, outputTokens, slo }: KnownRequest, { firstAtMs, endAtMs }: Times): number {
  const { ttftMs = Infinity, tpotMs = Infinity, e2eMs = Infinity } = slo;
  return Math.max(0, firstAtMs - atMs - ttftMs) + Math.max(0, endAtMs - atMs - e2eMs) + Math.max(0, endAtMs - firstAtMs - tpotMs * (outputTokens - 1));
}
