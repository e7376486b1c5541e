// What GPUs do when nobody sets their clocks: NVIDIA's default boost.
// Source: nvidia-smi and NVML documentation (performance state P0, auto boost), and what public measurements of A100, H100 and
// H200 show: with work, the highest clock that power and heat allow; with a model loaded and nothing to do, still P0 at that
// clock, because the context keeps the device awake (an idle H100 then draws 120 to 160 W, against 60 to 80 W without one).
// So inside the power limit the default is the maximum clock, at all times; the limit itself is the emulated device's business.
// Left out: thermal slow-down, the ramp of some milliseconds out of a deeper sleep, and drivers that do park a loaded device.
import type { ClockPolicy } from '../../scheduler/clock-policy.ts';
import type { RivalContext } from './rival.ts';

/** It knows no SLO, so a margin changes nothing. */
export function createDriver({ belief }: RivalContext): ClockPolicy {
  return { name: 'driver', choose: () => belief.fastest };
}
