// When a replica whose requests are known runs at which clock. First the lowest one that holds over a horizon, from interval
// to interval; then played, repaired where it came too late, and lowered wherever playing it again shows that it may be.
import type { Gear } from './clairvoyant-gears.ts';
import type { Dispatch, Played, Stage } from './clairvoyant-play.ts';
import { playReplica } from './clairvoyant-play.ts';
import type { Rollout, RolloutEngine } from './clairvoyant-rollout.ts';

/** How far ahead other requests are looked at. All that is there by then is looked at to its end. */
const HORIZON_MS = 8_000;

/** Gear of each control interval. */
export function forecastClocks(engine: RolloutEngine, stage: Stage, gears: readonly Gear[], dispatches: readonly Dispatch[]): Uint8Array {
  const { controlMs, untilMs } = stage;
  const lastMs = dispatches.at(-1)?.sentAtMs ?? 0;
  const rollout = engine.start();
  const schedule: number[] = [];
  let sent = 0;

  /** Submits what is sent before `toMs` on the way there. */
  function runTo(state: Rollout, from: number, gear: number, toMs: number): { readonly met: boolean; readonly sent: number } {
    let next = from;
    let met = true;
    for (let dispatch = dispatches[next]; dispatch !== undefined && dispatch.sentAtMs < toMs; dispatch = dispatches[++next]) {
      met = engine.run(state, gears[gear] as Gear, dispatch.sentAtMs) && met;
      if (!met && state !== rollout) return { met, sent: next };
      while (!engine.run(state, gears[gear] as Gear, dispatch.sentAtMs));
      engine.submit(state, dispatch.request, dispatch.sentAtMs);
    }
    met = engine.run(state, gears[gear] as Gear, toMs) && met;
    return { met, sent: next };
  }
  function holds(gear: number, nowMs: number): boolean {
    const ahead = engine.copy(rollout);
    return runTo(ahead, sent, gear, nowMs + HORIZON_MS).met && engine.run(ahead, gears[gear] as Gear, Infinity);
  }

  for (let nowMs = 0; nowMs < untilMs || nowMs <= lastMs || rollout.streams.length + rollout.waiting.length > 0; nowMs += controlMs) {
    const endMs = nowMs + controlMs;
    const idle = rollout.streams.length + rollout.waiting.length === 0 && (dispatches[sent]?.sentAtMs ?? Infinity) > endMs;
    if (idle) {
      schedule.push(0);
      continue;
    }
    let low = 0;
    let high = gears.length - 1;
    while (low < high) {
      const middle = low === 0 && high === gears.length - 1 ? 0 : (low + high) >> 1;
      if (holds(middle, nowMs)) high = middle;
      else low = middle + 1;
    }
    // A switch may settle late: one step above what is needed is kept rather than left.
    const gear = schedule.at(-1) === low + 1 ? low + 1 : low;
    schedule.push(gear);
    ({ sent } = runTo(rollout, sent, gear, endMs));
    while (!engine.run(rollout, gears[gear] as Gear, endMs));
  }
  return Uint8Array.from(schedule);
}

export interface ClockPlan {
  readonly gears: readonly Gear[];
  readonly schedule: Uint8Array;
  readonly played: Played;
}

/** Fewer feasible requests missed, then fewer joules. */
export function isBetter(a: Played, b: Played): boolean {
  if (a.missed !== b.missed) return a.missed < b.missed;
  return a.missed > 0 && a.lateMs !== b.lateMs ? a.lateMs < b.lateMs : a.energyJ < b.energyJ;
}

/**
 * Coordinate descent: blocks of intervals, from long ones to short ones, are shifted by some clocks down or up, and it stays so
 * if the replica played anew is better for it.
 */
export function improveClocks(stage: Stage, dispatches: readonly Dispatch[], start: ClockPlan, passes: readonly { readonly blockMs: number; readonly shifts: readonly number[] }[], plays: { left: number }): ClockPlan {
  const { gears } = start;
  let { schedule, played } = start;
  for (const { blockMs, shifts } of passes) {
    const length = Math.max(1, Math.round(blockMs / stage.controlMs));
    for (let from = 0; from < schedule.length; from += length) {
      for (const shift of shifts) {
        const shifted = shiftBlock(schedule, gears.length, { from, length, shift });
        if (shifted === null) continue;
        if (plays.left-- <= 0) return { gears, schedule, played };
        const again = playReplica(stage, dispatches, gears, shifted);
        if (!isBetter(again, played)) continue;
        schedule = shifted;
        played = again;
        break;
      }
    }
  }
  return { gears, schedule, played };
}

/**
 * From the first miss to the last: the gears from its sending to its end are raised until it is none. In order of time, because
 * whatever is changed changes all that comes after it, down to which switches settle late, and nothing before.
 */
export function repairClocks(stage: Stage, dispatches: readonly Dispatch[], start: ClockPlan, plays: { left: number }): ClockPlan {
  const { gears } = start;
  let { schedule, played } = start;
  let best = start;
  /** Misses before this are given up. */
  let fromMs = 0;
  for (;;) {
    const missed = played.firstMissed;
    if (missed === null || plays.left <= 0) break;
    const from = Math.max(0, Math.floor(missed.sentAtMs / stage.controlMs) - 1);
    const length = Math.ceil(missed.endAtMs / stage.controlMs) - from;
    let repaired = false;
    for (const shift of REPAIR_SHIFTS) {
      const shifted = shiftBlock(schedule, gears.length, { from, length, shift });
      if (shifted === null) continue;
      plays.left--;
      const again = playReplica(stage, dispatches, gears, shifted, undefined, fromMs);
      if (again.firstMissed !== null && again.firstMissed.endAtMs <= missed.endAtMs) continue;
      schedule = shifted;
      played = again;
      repaired = true;
      break;
    }
    if (!repaired) {
      fromMs = missed.endAtMs;
      played = playReplica(stage, dispatches, gears, schedule, undefined, fromMs);
    }
    if (isBetter(played, best.played)) best = { gears, schedule, played };
  }
  return best;
}

const REPAIR_SHIFTS = [1, 2, 4, 8, 16];

function shiftBlock(schedule: Uint8Array, gears: number, { from, length, shift }: { readonly from: number; readonly length: number; readonly shift: number }): Uint8Array | null {
  const shifted = schedule.slice();
  let changed = false;
  for (let index = from; index < Math.min(schedule.length, from + length); index++) {
    const gear = schedule[index] as number;
    const moved = Math.min(gears - 1, Math.max(0, gear + shift));
    changed ||= moved !== gear;
    shifted[index] = moved;
  }
  return changed ? shifted : null;
}
