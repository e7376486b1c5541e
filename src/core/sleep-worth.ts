// When does it pay to put a server to sleep? Falling asleep and waking take energy, so a short rest costs more than it spares, and
// how long a rest will be nobody knows.
import type { SleepCosts } from '../frontier/profile.ts';

/**
 * A rest from the call that puts it to sleep to the instant at which it serves again costs no more asleep than parked once it is this
 * long, in milliseconds; `Infinity` where sleeping draws as much as parking.
 *
 * It is also how long to wait, parked, before putting to sleep what nobody needs: whatever comes then, no more than twice the energy is
 * taken of what somebody who knew the length of the rest would take, and no rule that does not know it can promise less. Source: the
 * ski-rental argument; Karlin, Manasse, McGeoch and Owicki, Competitive randomized algorithms for nonuniform problems (1994), and for
 * devices with sleep states Irani, Shukla and Gupta, Online strategies for dynamic power management (2003).
 */
export function breakEvenMs(sleep: SleepCosts, parkedW: number, fastestIdleW: number): number {
  const { powerW, sleepMs, wakeMs } = sleep;
  if (powerW >= parkedW) return Number.POSITIVE_INFINITY;
  // What a rest of no length would cost more than parking, over what each millisecond of it spares.
  const extraJ = (sleepMs * (parkedW - powerW)) / 1000 + wakeEnergyJ(sleep, fastestIdleW) - (wakeMs * powerW) / 1000;
  return Math.max(sleepMs + wakeMs, (1000 * extraJ) / (parkedW - powerW));
}

/** Of waking once. `fastestIdleW`: what the group idles at at its fastest point, at which it loads where nothing better is known. */
export function wakeEnergyJ({ wakeEnergyJ: known, wakeMs }: SleepCosts, fastestIdleW: number): number {
  return known ?? (fastestIdleW * wakeMs) / 1000;
}

/** Mean power while it wakes. */
export function wakePowerW(sleep: SleepCosts, fastestIdleW: number): number {
  return sleep.wakeMs <= 0 ? fastestIdleW : (1000 * wakeEnergyJ(sleep, fastestIdleW)) / sleep.wakeMs;
}
