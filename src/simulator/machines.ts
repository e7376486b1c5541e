// The machines of a simulated run: emulated replicas that follow a truth profile, and how they depart from it.
import type { JobId } from '../core/job.ts';
import { limitsOf } from '../engine/batching.ts';
import { createPhysics, type Physics, type TruthScale } from '../engine/physics.ts';
import { createEmulatedReplica, type EmulatedReplica, type ReplicaOptions } from '../engine/replica.ts';
import type { Profile } from '../frontier/profile.ts';
import { PREFIX_BLOCK_TOKENS } from '../workload/prefix-block.ts';

/** Beyond being slower or hungrier throughout (`TruthScale`). The scheduler is told none of it. */
export interface MachineOptions {
  /** Coefficient of variation of each iteration's time around the modelled one. */
  readonly durationCv?: number;
  /** Instead of the profile's: this share of clock switches takes up to so long. */
  readonly switchOutliers?: { readonly share: number; readonly latencyMs: number };
  /** Of a device group, in equal parts on its devices. */
  readonly powerCapW?: number;
}

export interface MachineFactory {
  create(truth: Profile, options: Pick<ReplicaOptions<JobId>, 'seed' | 'tokenEvents' | 'deliver'>): EmulatedReplica<JobId>;
}

export function createMachineFactory(scale: TruthScale | undefined, { durationCv = 0, switchOutliers, powerCapW }: MachineOptions): MachineFactory {
  const physicsOf = new Map<Profile, Physics>();
  function physicsFor(truth: Profile): Physics {
    const known = physicsOf.get(truth);
    if (known !== undefined) return known;
    const switching = switchOutliers === undefined ? truth.switch : { ...truth.switch, outlierShare: switchOutliers.share, outlierMs: switchOutliers.latencyMs };
    const physics = createPhysics({ ...truth, switch: switching }, scale);
    physicsOf.set(truth, physics);
    return physics;
  }
  return {
    create(truth, options) {
      const machine = createEmulatedReplica<JobId>({ ...options, physics: physicsFor(truth), limits: { ...limitsOf(truth), prefixBlockTokens: PREFIX_BLOCK_TOKENS }, startMs: 0, durationCv });
      if (powerCapW !== undefined) for (let device = 0; device < machine.devices; device++) machine.limitPower(device, powerCapW / machine.devices, 0);
      return machine;
    },
  };
}
