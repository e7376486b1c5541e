// The emulated device group as a model without clock or I/O: a lock settles after a while, work takes as long as the
// slowest member's clock says, energy adds up, the counter ticks. Time is an argument and never goes back.
import assert from 'node:assert/strict';
import type { IterationWork } from '../frontier/performance-model.ts';
import type { Physics } from './physics.ts';
import { createRandom } from '../random/random.ts';

/** The energy counter moves about this often, as NVML's does (FITS.md, "Constants"). */
export const ENERGY_TICK_MS = 100;
/** Step of the clock list, as on A100 and H100. */
const CLOCK_STEP_MHZ = 15;
/** The list goes down to here or to the lowest measured clock, whichever is lower (H100 SXM: 345). */
const CLOCK_LIST_FROM_MHZ = 345;
/** NVML's `nvmlClocksThrottleReasonSwPowerCap`. */
const THROTTLE_SW_POWER_CAP = 0x4;
/** First-order thermal model: 30 °C with nothing drawn, 70 °C at 700 W, a time constant of 15 s. Nothing depends on it. */
const AMBIENT_C = 30;
const HEATING_C_PER_W = 40 / 700;
const THERMAL_TIME_MS = 15_000;

export interface ClockLock {
  readonly minMhz: number;
  readonly maxMhz: number;
}

export interface DeviceReading {
  /** Actual. */
  readonly clockMhz: number;
  /** Of this instant. */
  readonly powerW: number;
  /** Since the start, up to this instant; the counter of a real device only shows `tickEnergyJ`. */
  readonly energyJ: number;
  readonly tickEnergyJ: number;
  readonly tickAtMs: number;
  /** Share of the last whole tick period with work on the device. */
  readonly utilisationPct: number;
  readonly temperatureC: number;
  /** NVML's bits. */
  readonly throttleReasons: number;
}

export interface EmulatedGroup {
  readonly devices: number;
  /** Ascending; an unlocked device runs at the last one. */
  readonly clockListMhz: readonly number[];
  /** The actual clock of the slowest member. */
  clockMhz(): number;
  /** Locks one member's clock, or with `null` lets it go. Latest wins; it settles after the switch latency. */
  lock(device: number, lock: ClockLock | null, nowMs: number): void;
  /** With nothing to do the whole group draws so much from now on, whatever its clocks are; `null`: it idles. */
  restAt(powerW: number | null, nowMs: number): void;
  /** Watts of one member; `null` for no limit. Work then runs at the highest clock that keeps within. */
  limitPower(device: number, limitW: number | null, nowMs: number): void;
  /** Starts work of `repeats` equal iterations (of mean size `work`; not whole where they take longer or shorter), `doneShare` of it being done already. */
  begin(work: IterationWork, repeats: number, nowMs: number, doneShare?: number): void;
  /** When the work in progress ends as things stand; `Infinity` without work. Changes whenever a clock settles. */
  endsAtMs(): number;
  /** When the next clock settles; `Infinity` when none is on its way. */
  settlesAtMs(): number;
  end(nowMs: number): void;
  /** Lets time pass, up to the next end or settling at most. */
  advance(nowMs: number): void;
  /** Applies what settles now. The work in progress goes on at the new speed. */
  settle(nowMs: number): void;
  powerW(): number;
  /** Of the whole group, since the start. */
  energyJ(): number;
  reading(device: number): DeviceReading;
}

interface Member {
  clockMhz: number;
  /** On its way; the latest of the demands that came meanwhile follows it. */
  settlingMhz: number | null;
  settlesAtMs: number;
  nextMhz: number | null;
  limitW: number;
  powerW: number;
  energyJ: number;
  tickAtMs: number;
  tickEnergyJ: number;
  /** Since the last tick. */
  busyMs: number;
  utilisationPct: number;
  temperatureC: number;
}

export interface GroupOptions {
  readonly physics: Physics;
  readonly seed: number;
  readonly startMs: number;
  /** Per device, from an earlier life: a lock outlives who set it, and so does the energy counter. */
  readonly initial?: readonly { readonly lock: ClockLock | null; readonly energyJ: number }[];
}

export function createEmulatedGroup({ physics, seed, startMs, initial = [] }: GroupOptions): EmulatedGroup {
  const { deviceGroup, switch: switching } = physics.profile;
  const clockListMhz = clockList(physics.measuredClocksMhz);
  const defaultMhz = clockListMhz.at(-1) as number;
  const random = createRandom(seed, 'device');
  // Counters of real devices do not tick together; so that nobody comes to rely on it, neither do these.
  const members = Array.from({ length: deviceGroup.devices }, (_, index): Member => {
    const { lock, energyJ } = initial[index] ?? { lock: null, energyJ: 0 };
    return {
      clockMhz: lock === null ? defaultMhz : lockedClock(lock, clockListMhz),
      settlingMhz: null,
      settlesAtMs: Infinity,
      nextMhz: null,
      limitW: Infinity,
      powerW: 0,
      energyJ,
      tickAtMs: startMs - random() * ENERGY_TICK_MS,
      tickEnergyJ: energyJ,
      busyMs: 0,
      utilisationPct: 0,
      temperatureC: AMBIENT_C,
    };
  });

  let nowMs = startMs;
  let clockMhz = 0;
  let settlesAtMs = Infinity;
  const work = { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };
  let busy = false;
  let repeats = 1;
  let workMs = 0;
  let doneShare = 0;
  let doneShareAtMs = startMs;
  let endsAtMs = Infinity;
  let capped = false;
  let restingW: number | null = null;

  function busyPowerW(atMhz: number): number {
    return physics.iterationPowerW(work, atMhz) / members.length;
  }
  /** The highest clock up to the member's own at which the work keeps within its power limit. */
  function cappedClockMhz(member: Member): number {
    if (!busy || busyPowerW(member.clockMhz) <= member.limitW) return member.clockMhz;
    let low = 0;
    let high = clockListMhz.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (busyPowerW(clockListMhz[middle] as number) <= member.limitW) low = middle;
      else high = middle - 1;
    }
    return Math.min(clockListMhz[low] as number, member.clockMhz);
  }

  /** After any change of clock or work: power from here on, and when the work ends. */
  function replan(): void {
    if (busy && workMs > 0) doneShare = Math.min(1, doneShare + (nowMs - doneShareAtMs) / workMs);
    doneShareAtMs = nowMs;
    clockMhz = Infinity;
    settlesAtMs = Infinity;
    capped = false;
    // Members mostly stand at one clock: its power is worked out once for all of them.
    let powerAtMhz = Number.NaN;
    let powerW = 0;
    for (const member of members) {
      const runsAtMhz = member.limitW === Infinity ? member.clockMhz : cappedClockMhz(member);
      if (runsAtMhz < member.clockMhz) capped = true;
      // A member with a higher clock waits in each collective for the slowest, but waits spinning, at its own power.
      if (runsAtMhz !== powerAtMhz) {
        powerAtMhz = runsAtMhz;
        powerW = busy ? busyPowerW(runsAtMhz) : (restingW ?? physics.idlePowerW(runsAtMhz)) / members.length;
      }
      member.powerW = powerW;
      clockMhz = Math.min(clockMhz, runsAtMhz);
      settlesAtMs = Math.min(settlesAtMs, member.settlesAtMs);
    }
    workMs = busy ? repeats * physics.iterationTimeMs(work, clockMhz) : 0;
    endsAtMs = busy ? nowMs + (1 - doneShare) * workMs : Infinity;
  }

  function advance(toMs: number): void {
    const passedMs = toMs - nowMs;
    if (passedMs <= 0) return;
    const cooling = Math.exp(-passedMs / THERMAL_TIME_MS);
    for (const member of members) {
      tick(member, toMs);
      member.energyJ += (member.powerW * passedMs) / 1000;
      if (busy) member.busyMs += Math.min(passedMs, toMs - member.tickAtMs);
      const steadyC = AMBIENT_C + HEATING_C_PER_W * member.powerW;
      member.temperatureC = steadyC + (member.temperatureC - steadyC) * cooling;
    }
    nowMs = toMs;
  }
  /** Power is constant from `nowMs` to `toMs`, so the counter at its last tick in between follows without stepping there. */
  function tick(member: Member, toMs: number): void {
    const ticks = Math.floor((toMs - member.tickAtMs) / ENERGY_TICK_MS);
    if (ticks < 1) return;
    const tickAtMs = member.tickAtMs + ticks * ENERGY_TICK_MS;
    const windowFromMs = tickAtMs - ENERGY_TICK_MS;
    const earlierBusyMs = ticks > 1 ? 0 : member.busyMs;
    const busyMs = earlierBusyMs + (busy ? tickAtMs - Math.max(nowMs, windowFromMs) : 0);
    member.utilisationPct = Math.min(100, (100 * busyMs) / ENERGY_TICK_MS);
    member.tickEnergyJ = member.energyJ + (member.powerW * (tickAtMs - nowMs)) / 1000;
    member.tickAtMs = tickAtMs;
    member.busyMs = 0;
  }

  function latencyMs(): number {
    const { latencyMs, outlierMs, outlierShare = 0 } = switching;
    if (outlierMs === undefined || random() >= outlierShare) return latencyMs;
    return latencyMs + random() * Math.max(0, outlierMs - latencyMs);
  }
  function startSettling(member: Member, toMhz: number): void {
    member.settlingMhz = toMhz;
    member.settlesAtMs = nowMs + latencyMs();
  }

  replan();
  return {
    devices: members.length,
    clockListMhz,
    clockMhz: () => clockMhz,
    lock: (device, lock, atMs) => {
      const member = memberAt(members, device);
      const targetMhz = lock === null ? defaultMhz : lockedClock(lock, clockListMhz);
      advance(atMs);
      if (member.settlingMhz !== null) member.nextMhz = targetMhz === member.settlingMhz ? null : targetMhz;
      else if (targetMhz !== member.clockMhz) startSettling(member, targetMhz);
      settlesAtMs = Math.min(settlesAtMs, member.settlesAtMs);
    },
    restAt: (powerW, atMs) => {
      advance(atMs);
      restingW = powerW;
      replan();
    },
    limitPower: (device, limitW, atMs) => {
      advance(atMs);
      memberAt(members, device).limitW = limitW ?? Infinity;
      replan();
    },
    begin: (next, times, atMs, share = 0) => {
      assert(!busy, 'a group works on one thing');
      advance(atMs);
      work.prefill.tokens = next.prefill.tokens;
      work.prefill.contextTokens = next.prefill.contextTokens;
      work.decode.sequences = next.decode.sequences;
      work.decode.contextTokens = next.decode.contextTokens;
      repeats = times;
      doneShare = share;
      workMs = 0;
      busy = true;
      replan();
    },
    endsAtMs: () => endsAtMs,
    settlesAtMs: () => settlesAtMs,
    end: (atMs) => {
      advance(atMs);
      busy = false;
      replan();
    },
    advance,
    settle: (atMs) => {
      advance(atMs);
      for (const member of members) {
        if (member.settlingMhz === null || member.settlesAtMs > atMs) continue;
        const { nextMhz } = member;
        member.clockMhz = member.settlingMhz;
        member.settlingMhz = null;
        member.settlesAtMs = Infinity;
        member.nextMhz = null;
        if (nextMhz !== null && nextMhz !== member.clockMhz) startSettling(member, nextMhz);
      }
      replan();
    },
    powerW: () => members.reduce((sumW, member) => sumW + member.powerW, 0),
    energyJ: () => members.reduce((sumJ, member) => sumJ + member.energyJ, 0),
    reading: (device) => {
      const member = memberAt(members, device);
      return {
        clockMhz: member.limitW === Infinity ? member.clockMhz : cappedClockMhz(member),
        powerW: member.powerW,
        energyJ: member.energyJ,
        tickEnergyJ: member.tickEnergyJ,
        tickAtMs: member.tickAtMs,
        utilisationPct: member.utilisationPct,
        temperatureC: member.temperatureC,
        throttleReasons: capped && member.limitW !== Infinity ? THROTTLE_SW_POWER_CAP : 0,
      };
    },
  };
}

/** All measured clocks, and between and below them a device's usual steps. */
export function clockList(measuredMhz: readonly number[]): number[] {
  const clocksMhz = new Set(measuredMhz);
  const highestMhz = measuredMhz.at(-1) as number;
  const fromMhz = Math.min(CLOCK_LIST_FROM_MHZ, measuredMhz[0] as number);
  for (let mhz = highestMhz; mhz >= fromMhz; mhz -= CLOCK_STEP_MHZ) clocksMhz.add(Math.round(mhz));
  return [...clocksMhz].sort((a, b) => a - b);
}

/** A loaded device boosts to the top of its lock: the highest clock of the list within, or the nearest one above the lock. */
function lockedClock({ minMhz, maxMhz }: ClockLock, clockListMhz: readonly number[]): number {
  const highestWithin = clockListMhz.findLast((mhz) => mhz <= maxMhz);
  if (highestWithin !== undefined && highestWithin >= minMhz) return highestWithin;
  return clockListMhz.find((mhz) => mhz >= minMhz) ?? (clockListMhz.at(-1) as number);
}

function memberAt(members: readonly Member[], device: number): Member {
  const member = members[device];
  assert(member !== undefined, `device ${device} of ${members.length}`);
  return member;
}
