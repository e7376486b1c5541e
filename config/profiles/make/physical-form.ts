// The physical form behind the shipped profiles: time and power of a device group as functions of work and clock.
// Source of the form: roofline reasoning, checked against public sweeps; each maker says what its numbers rest on.
import type { DecodeRow, DecodeWork, OperatingPoint, PrefillRow, PrefillWork, Profile } from '../../../src/frontier/profile.ts';

/** Milliseconds, linear in the sequences of a decode step and in the context tokens that it reads. */
export interface LinearTime {
  readonly baseMs: number;
  readonly perSequenceMs: number;
  readonly perContextTokenMs: number;
}

/** Times of a prefill pass, at the reference clock but for `fixedMs`, which no clock changes. */
export interface PrefillTimeForm {
  readonly fixedMs: number;
  readonly perTokenMs: number;
  /** Per pair of a token and one it attends to: `n·(n/2 + context)` of them. */
  readonly perTokenPairMs: number;
}

export interface PhysicalForm {
  readonly devices: number;
  /** The clock whose share is 1 in every function below. */
  readonly referenceMhz: number;
  /** Per device. Where the power would pass it the clock drops until it does not. */
  readonly boardLimitW: number;
  /** Milliseconds at the clock that the devices really run at. */
  readonly prefillTimeMs: (work: PrefillWork, clockShare: number) => number;
  readonly decodeTimeMs: (work: DecodeWork, clockShare: number) => number;
  /** Watts per device with the model loaded and nothing to do. */
  readonly idlePowerW: (clockShare: number) => number;
  /** Watts per device while a phase runs, before the board limit. */
  readonly prefillPowerW: (work: PrefillWork, clockShare: number) => number;
  readonly decodePowerW: (work: DecodeWork, clockShare: number) => number;
}

export function prefillTime({ fixedMs, perTokenMs, perTokenPairMs }: PrefillTimeForm): PhysicalForm['prefillTimeMs'] {
  return ({ tokens, contextTokens }, clockShare) => fixedMs + (perTokenMs * tokens + perTokenPairMs * tokens * (tokens / 2 + contextTokens)) / clockShare;
}

/**
 * A decode step known at the reference clock: there it takes exactly `atReference`. It is bound by memory, which no clock
 * changes, and by what follows the SM clock (SMs, caches, interconnect) as 1/clock, the second being `computeRatio` of the
 * first at the reference clock, at every work alike; so a step stays linear in its work at every clock. `sharpness` says how
 * sharply the slower one takes over.
 */
export function proportionalDecodeTime(atReference: LinearTime, computeRatio: number, sharpness: number): PhysicalForm['decodeTimeMs'] {
  const atOne = slower([1, computeRatio], sharpness);
  return ({ sequences, contextTokens }, clockShare) => {
    const { baseMs, perSequenceMs, perContextTokenMs } = atReference;
    const referenceMs = baseMs + perSequenceMs * sequences + perContextTokenMs * contextTokens;
    return (referenceMs * slower([1, computeRatio / clockShare], sharpness)) / atOne;
  };
}

/** The largest of several times, with soft corners: their p-norm. p = 1 adds them up, infinity takes the largest. */
export function slower(timesMs: readonly number[], p: number): number {
  return timesMs.reduce((sum, timeMs) => sum + timeMs ** p, 0) ** (1 / p);
}

/** Clock share and watts per device that the board settles at when `clockShare` is asked for: the limit may lower both. */
export function settledAt(boardLimitW: number, powerW: (clockShare: number) => number, clockShare: number): { readonly clockShare: number; readonly powerW: number } {
  const wantedW = powerW(clockShare);
  if (wantedW <= boardLimitW) return { clockShare, powerW: wantedW };
  let low = 0;
  let high = clockShare;
  for (let step = 0; step < 50; step++) {
    const middle = (low + high) / 2;
    if (powerW(middle) > boardLimitW) high = middle;
    else low = middle;
  }
  return { clockShare: low, powerW: powerW(low) };
}

/** Grid of works that a profile holds at every point. Decode contexts are per sequence. */
export interface Grid {
  readonly clocksMhz: readonly number[];
  readonly prefillTokens: readonly number[];
  readonly prefillContexts: readonly number[];
  readonly decodeSequences: readonly number[];
  readonly decodeContextsEach: readonly number[];
  /** Decode rows whose context passes it are left out: the group could not hold it. */
  readonly kvTokens: number;
}

/** Points and rows of a profile: the form, evaluated on the grid. */
export function pointsAndRows(form: PhysicalForm, grid: Grid): Pick<Profile, 'points' | 'prefill' | 'decode'> {
  const points: OperatingPoint[] = [];
  const prefill: PrefillRow[] = [];
  const decode: DecodeRow[] = [];
  for (const clockMhz of grid.clocksMhz) {
    const point = String(clockMhz);
    const clockShare = clockMhz / form.referenceMhz;
    points.push({ id: point, knobs: { clockMhz }, idlePowerW: rounded(form.devices * form.idlePowerW(clockShare)) });
    for (const contextTokens of grid.prefillContexts) {
      for (const tokens of grid.prefillTokens) {
        const work = { tokens, contextTokens };
        const settled = settledAt(form.boardLimitW, (share) => form.prefillPowerW(work, share), clockShare);
        prefill.push({ point, ...work, ...measurement(form, settled, clockShare, form.prefillTimeMs(work, settled.clockShare)) });
      }
    }
    for (const contextEach of grid.decodeContextsEach) {
      for (const sequences of grid.decodeSequences) {
        const work = { sequences, contextTokens: sequences * contextEach };
        if (work.contextTokens > grid.kvTokens) continue;
        const settled = settledAt(form.boardLimitW, (share) => form.decodePowerW(work, share), clockShare);
        decode.push({ point, ...work, ...measurement(form, settled, clockShare, form.decodeTimeMs(work, settled.clockShare)) });
      }
    }
  }
  return { points, prefill, decode };
}

function measurement(form: PhysicalForm, settled: { clockShare: number; powerW: number }, wantedShare: number, timeMs: number): Pick<PrefillRow, 'timeMs' | 'energyJ' | 'hardware'> {
  const energyJ = (form.devices * settled.powerW * timeMs) / 1000;
  const throttled = settled.clockShare < wantedShare * 0.999;
  const hardware = { actualClockMhz: Math.round(settled.clockShare * form.referenceMhz), throttleReasons: ['sw_power_cap'] };
  return { timeMs: rounded(timeMs), energyJ: rounded(energyJ), ...(throttled ? { hardware } : {}) };
}

/** Five significant digits: finer than any measurement, and the same on every machine. */
function rounded(value: number): number {
  return Number(value.toPrecision(5));
}
