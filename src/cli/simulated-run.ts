// A simulation as commands run it: one that cannot end is the fault of what was asked, and said as such.
import { type SimulatedRun, SimulationStalled, simulate, type SimulationOptions } from '../simulator/simulate.ts';
import { UsageError } from './command.ts';

/** Throws `UsageError` where requests wait for what never comes. */
export function simulatedRun(options: SimulationOptions): SimulatedRun {
  try {
    return simulate(options);
  } catch (error) {
    if (error instanceof SimulationStalled) throw new UsageError(error.message, { cause: error });
    throw error;
  }
}
