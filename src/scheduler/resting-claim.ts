// What replicas that are not awake claim of a power budget: asleep only what they draw so, and for waking it first has to be set aside.
import type { PowerClaim } from '../core/power-budget.ts';
import { wakePowerW } from '../core/sleep-worth.ts';
import type { Replica } from './replica.ts';

/** Somebody wants it awake. `roomSinceMs`: since when its limit would be enough; `null`: it is not. */
export interface WakeAsked {
  readonly askedAtMs: number;
  readonly roomSinceMs: number | null;
}

/** Watts are set aside for who is to wake while somebody asks, and have to have been there for a while: what is free for a moment is not for waking. */
export const WAKE_ASKED = { withinMs: 2_000, roomForMs: 1_000 };

/** Of all its devices; `null`: it is awake, or is to be, and claims as any other. `floorW`, `idleW`: what it may draw at its slowest, and idle. */
export function restingClaim({ spec: { replicaId, sleep, belief }, rest }: Replica, { floorW, idleW }: { readonly floorW: number; readonly idleW: number }, asked: boolean): PowerClaim | null {
  if (rest === null || rest.kind === 'awake' || sleep === undefined || (rest.kind === 'asleep' && asked)) return null;
  const holdsW = rest.kind === 'asleep' ? sleep.powerW : rest.kind === 'falling-asleep' ? idleW : Math.max(floorW, wakePowerW(sleep, belief.idlePowerW(belief.fastest)));
  return { replicaId, idleW: holdsW, floorW: holdsW, peakW: holdsW, busy: false, wantedW: holdsW, losses: () => [{ limitW: holdsW, loss: 0 }] };
}

/** What it is to have before it is woken. */
export function wakingNeedsW({ spec: { sleep, belief } }: Replica, floorW: number): number {
  return sleep === undefined ? floorW : Math.max(floorW, wakePowerW(sleep, belief.idlePowerW(belief.fastest)));
}

export function isAskedFor(asked: WakeAsked | null, nowMs: number): boolean {
  return asked !== null && nowMs - asked.askedAtMs < WAKE_ASKED.withinMs;
}
