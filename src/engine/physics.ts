// What one engine iteration takes and burns at an actual clock, from a truth profile. Below the waist: here a knob has
// a name, `clockMhz`, and the device may stand between two measured points while it settles.
import type { IterationWork, PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import { createPerformanceModel } from '../frontier/performance-model.ts';
import type { Profile } from '../frontier/profile.ts';

/** How far the truth is from the profile it was made of: 1.2 is 20 % slower, or 20 % hungrier. */
export interface TruthScale {
  readonly time?: number;
  readonly power?: number;
}

/** All figures are of the whole device group. */
export interface Physics {
  readonly profile: Profile;
  /** The clocks that the profile has points for, ascending. */
  readonly measuredClocksMhz: readonly number[];
  /** 0 for an iteration without work. */
  iterationTimeMs(work: IterationWork, clockMhz: number): number;
  /** Mean power while the iteration runs; the idle power where there is no work. */
  iterationPowerW(work: IterationWork, clockMhz: number): number;
  iterationEnergyJ(work: IterationWork, clockMhz: number): number;
  idlePowerW(clockMhz: number): number;
  /**
   * How many whole steps of the same sequences fit into `limitMs`, each adding one token of context per sequence.
   * Exact because a decode step's time is affine in its context; so n steps take n times the step at their mean context.
   */
  decodeStepsWithin(first: { readonly sequences: number; readonly contextTokens: number }, clockMhz: number, limitMs: number): number;
}

/**
 * Between two measured clocks, time is interpolated linearly in 1/clock and power linearly in the clock: the forms that
 * public sweeps follow locally (FITS.md, "A form that fits"). Above the highest clock everything stays as there. Below the
 * lowest, time grows as 1/clock and power stays as there: outside of what was measured, nothing may look like a saving.
 * Throws where a point lacks a `clockMhz` or two points share one: which of them a device would be at could not be told.
 */
export function createPhysics(profile: Profile, scale: TruthScale = {}): Physics {
  const { time: timeScale = 1, power: powerScale = 1 } = scale;
  const model = createPerformanceModel(profile);
  const byClock = pointsByClock(model);
  const measuredClocksMhz = byClock.map(({ clockMhz }) => clockMhz);
  const lowestMhz = measuredClocksMhz[0] as number;
  const highestMhz = measuredClocksMhz.at(-1) as number;

  // The bracket of the clock asked for last: a device asks for the same one thousands of times in a row.
  let bracketMhz = Number.NaN;
  let lower: PointIndex = 0;
  let upper: PointIndex = 0;
  /** Share of the upper point, in 1/clock for time and in clock for power. */
  let timeShare = 0;
  let powerShare = 0;
  /** Above 1 only below the lowest measured clock. */
  let stretch = 1;
  function bracket(clockMhz: number): void {
    if (clockMhz === bracketMhz) return;
    const withinMhz = Math.min(Math.max(clockMhz, lowestMhz), highestMhz);
    let position = 0;
    while (position < byClock.length - 2 && (measuredClocksMhz[position + 1] as number) <= withinMhz) position++;
    const below = byClock[position] as ClockPoint;
    const above = byClock[Math.min(position + 1, byClock.length - 1)] as ClockPoint;
    const spanMhz = above.clockMhz - below.clockMhz;
    bracketMhz = clockMhz;
    lower = below.point;
    upper = above.point;
    timeShare = spanMhz === 0 ? 0 : (1 / below.clockMhz - 1 / withinMhz) / (1 / below.clockMhz - 1 / above.clockMhz);
    powerShare = spanMhz === 0 ? 0 : (withinMhz - below.clockMhz) / spanMhz;
    stretch = Math.max(1, lowestMhz / clockMhz);
  }

  function iterationTimeMs(work: IterationWork, clockMhz: number): number {
    bracket(clockMhz);
    const lowerMs = timeShare === 1 ? 0 : model.iterationTimeMs(work, lower);
    const upperMs = timeShare === 0 ? 0 : model.iterationTimeMs(work, upper);
    return (lowerMs * (1 - timeShare) + upperMs * timeShare) * stretch * timeScale;
  }
  function pointPowerW(work: IterationWork, point: PointIndex): number {
    const timeMs = model.iterationTimeMs(work, point);
    return timeMs > 0 ? (1000 * model.iterationEnergyJ(work, point)) / timeMs : model.idlePowerW(point);
  }
  function iterationPowerW(work: IterationWork, clockMhz: number): number {
    bracket(clockMhz);
    const lowerW = powerShare === 1 ? 0 : pointPowerW(work, lower);
    const upperW = powerShare === 0 ? 0 : pointPowerW(work, upper);
    return (lowerW * (1 - powerShare) + upperW * powerShare) * powerScale;
  }
  function idlePowerW(clockMhz: number): number {
    bracket(clockMhz);
    return (model.idlePowerW(lower) * (1 - powerShare) + model.idlePowerW(upper) * powerShare) * powerScale;
  }

  const decodeOnly = { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };
  function decodeStepMs(sequences: number, contextTokens: number, clockMhz: number): number {
    decodeOnly.decode.sequences = sequences;
    decodeOnly.decode.contextTokens = contextTokens;
    return iterationTimeMs(decodeOnly, clockMhz);
  }

  return {
    profile,
    measuredClocksMhz,
    iterationTimeMs,
    iterationPowerW,
    iterationEnergyJ: (work, clockMhz) => (iterationPowerW(work, clockMhz) * iterationTimeMs(work, clockMhz)) / 1000,
    idlePowerW,
    decodeStepsWithin: ({ sequences, contextTokens }, clockMhz, limitMs) => {
      const firstMs = decodeStepMs(sequences, contextTokens, clockMhz);
      if (!(limitMs >= firstMs) || firstMs <= 0) return 0;
      const growthMs = decodeStepMs(sequences, contextTokens + sequences, clockMhz) - firstMs;
      // steps·first + growth·steps·(steps − 1)/2 <= limit, solved for steps in the form that also holds for no growth.
      const linearMs = firstMs - growthMs / 2;
      return Math.floor((2 * limitMs) / (linearMs + Math.sqrt(linearMs * linearMs + 2 * growthMs * limitMs)) + 1e-9);
    },
  };
}

interface ClockPoint {
  readonly clockMhz: number;
  readonly point: PointIndex;
}

function pointsByClock(model: PerformanceModel): ClockPoint[] {
  const byClock = model.points.map(({ id, knobs }, point): ClockPoint => {
    const clockMhz = knobs['clockMhz'];
    if (typeof clockMhz !== 'number' || !(clockMhz > 0)) throw new RangeError(`point '${id}': the emulated device needs a knob clockMhz in MHz, got ${String(clockMhz)}`);
    return { clockMhz, point };
  });
  byClock.sort((a, b) => a.clockMhz - b.clockMhz);
  for (let index = 1; index < byClock.length; index++) {
    const [before, here] = [byClock[index - 1] as ClockPoint, byClock[index] as ClockPoint];
    if (before.clockMhz === here.clockMhz) throw new RangeError(`points '${model.points[before.point]?.id}' and '${model.points[here.point]?.id}' are both at ${here.clockMhz} MHz; the emulated device tells points apart by clock alone`);
  }
  return byClock;
}
