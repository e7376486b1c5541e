// How far a measured profile is from the truth that the emulated engine followed: over every row of the truth's grid, at every clock of
// it, the clocks that were not measured included. Between measured clocks the emulator's own rule holds for both.
import { createPhysics } from '../../src/engine/physics.ts';
import { NO_DECODE, NO_PREFILL, type IterationWork } from '../../src/frontier/performance-model.ts';
import type { Phase, Profile } from '../../src/frontier/profile.ts';

export interface PhaseRecovery {
  readonly rows: number;
  /** Mean and worst absolute percentage errors, of iterations of that work. */
  readonly timeErrorPct: number;
  readonly energyErrorPct: number;
  readonly timeErrorMaxPct: number;
  readonly energyErrorMaxPct: number;
}

export interface Recovery {
  readonly gridPoints: number;
  /** Over all rows of both phases. */
  readonly timeErrorPct: number;
  readonly energyErrorPct: number;
  readonly idleErrorPct: number;
  readonly phases: Readonly<Record<Phase, PhaseRecovery>>;
}

export function recoveryOf(truth: Profile, measured: Profile): Recovery {
  const [real, found] = [createPhysics(truth), createPhysics(measured)];
  const clockOf = new Map(truth.points.map(({ id, knobs }) => [id, Number(knobs['clockMhz'])]));
  const off = (work: IterationWork, clockMhz: number): { readonly time: number; readonly energy: number } => ({
    time: 100 * Math.abs(found.iterationTimeMs(work, clockMhz) / real.iterationTimeMs(work, clockMhz) - 1),
    energy: 100 * Math.abs(found.iterationEnergyJ(work, clockMhz) / real.iterationEnergyJ(work, clockMhz) - 1),
  });
  const prefill = truth.prefill.map((row) => off({ prefill: row, decode: NO_DECODE }, clockOf.get(row.point) as number));
  const decode = truth.decode.map((row) => off({ prefill: NO_PREFILL, decode: row }, clockOf.get(row.point) as number));
  const all = [...prefill, ...decode];
  return {
    gridPoints: all.length,
    timeErrorPct: mean(all.map(({ time }) => time)),
    energyErrorPct: mean(all.map(({ energy }) => energy)),
    idleErrorPct: mean([...clockOf.values()].map((clockMhz) => 100 * Math.abs(found.idlePowerW(clockMhz) / real.idlePowerW(clockMhz) - 1))),
    phases: { prefill: phaseOf(prefill), decode: phaseOf(decode) },
  };
}

function phaseOf(errors: readonly { readonly time: number; readonly energy: number }[]): PhaseRecovery {
  const [times, energies] = [errors.map(({ time }) => time), errors.map(({ energy }) => energy)];
  return { rows: errors.length, timeErrorPct: mean(times), energyErrorPct: mean(energies), timeErrorMaxPct: Math.max(...times), energyErrorMaxPct: Math.max(...energies) };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
