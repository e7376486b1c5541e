// The clocks that a clairvoyant plan chooses from, as pairs: prefill and decode pay differently for going faster.
import type { IterationWork } from '../frontier/performance-model.ts';
import type { Physics } from '../engine/physics.ts';

export interface Gear {
  /** While a prompt is being read, decode steps in the same iterations included. */
  readonly prefillMhz: number;
  readonly decodeMhz: number;
}

/** Of the work that stands for a phase where the gears are set out. */
const TYPICAL = {
  prefill: { prefill: { tokens: 1024, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } },
  decode: { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 32, contextTokens: 32_768 } },
} satisfies Record<string, IterationWork>;

/** One clock for both phases, from the slowest up. */
export function uniformGears(physics: Physics): Gear[] {
  return physics.measuredClocksMhz.map((clockMhz) => ({ prefillMhz: clockMhz, decodeMhz: clockMhz }));
}

/**
 * From the slowest gear to the fastest, each step the one that buys time for the least energy, in whichever phase that is: the
 * steepest descent on both phases' curves of excess energy over time.
 */
export function phasedGears(physics: Physics): Gear[] {
  const clocksMhz = physics.measuredClocksMhz;
  const parkedW = Math.min(...clocksMhz.map((mhz) => physics.idlePowerW(mhz)));
  const last = clocksMhz.length - 1;
  const cost = (work: IterationWork, clock: number): { timeMs: number; excessJ: number } => {
    const timeMs = physics.iterationTimeMs(work, clocksMhz[clock] as number);
    return { timeMs, excessJ: physics.iterationEnergyJ(work, clocksMhz[clock] as number) - (parkedW * timeMs) / 1000 };
  };
  /** Joules per share of time bought by the next step up. */
  const price = (work: IterationWork, clock: number): number => {
    if (clock === last) return Infinity;
    const [here, next] = [cost(work, clock), cost(work, clock + 1)];
    return here.timeMs > next.timeMs ? (next.excessJ - here.excessJ) / (here.timeMs - next.timeMs) : Infinity;
  };
  let prefill = 0;
  let decode = 0;
  const gears: Gear[] = [];
  for (;;) {
    gears.push({ prefillMhz: clocksMhz[prefill] as number, decodeMhz: clocksMhz[decode] as number });
    if (prefill === last && decode === last) return gears;
    if (decode < last && (prefill === last || price(TYPICAL.decode, decode) <= price(TYPICAL.prefill, prefill))) decode++;
    else prefill++;
  }
}
