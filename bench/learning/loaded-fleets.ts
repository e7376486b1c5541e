// The fleets that both benches of learning run: each profile, workload and load that was asked for, with what maximum clock makes of it.
import { join, resolve } from 'node:path';
import { createPhysics } from '../../src/engine/physics.ts';
import { createPerformanceModel, type PerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { feasibleAlone } from '../../src/simulator/feasibility.ts';
import { type SimulatedRun, simulate } from '../../src/simulator/simulate.ts';
import { type CellOptions, fleetCapacityPerS, sharedOf } from '../energy/cell.ts';
import { chosen, numberOf } from '../energy/options.ts';
import { LOADS, type Load, PROFILES, played, sourceOf, WORKLOADS } from '../energy/workloads.ts';

const ROOT = resolve(import.meta.dirname, '../..');

/** For `parseArgs`; a bench has its own `loads`. */
export const FLEET_OPTIONS = {
  workloads: { type: 'string', default: 'azure-conversation,tenants' },
  profiles: { type: 'string', default: PROFILES.join(',') },
  replicas: { type: 'string', default: '4' },
  seed: { type: 'string', default: '1' },
  json: { type: 'boolean', default: false },
} as const;

export interface LoadedFleet {
  readonly profile: string;
  readonly workload: string;
  readonly load: Load;
  readonly model: PerformanceModel;
  /** What every simulation of it has in common. */
  readonly shared: ReturnType<typeof sharedOf> & { readonly sampleEnergyEveryMs?: number };
  /** Of each request: whether it could be met at all. */
  readonly feasible: readonly boolean[];
  readonly maxClock: SimulatedRun;
}

/** Throws an error that `refusing` tells where a number is out of bounds. */
export function runOptionsOf({ replicas, seed }: { readonly replicas: string; readonly seed: string }): CellOptions {
  return { replicas: numberOf('replicas', replicas, { least: 1, most: 100, whole: true }), seed: numberOf('seed', seed, { least: 0, most: 1e9, whole: true }), clairvoyantEffort: 0 };
}

/** One after the other, as they are asked for. Throws an error that `refusing` tells where one is not known. */
export async function* loadedFleets(named: { readonly profiles: string; readonly workloads: string; readonly loads: string }, options: CellOptions, sampling: { readonly sampleEnergyEveryMs?: number } = {}): AsyncGenerator<LoadedFleet> {
  for (const profile of chosen('profiles', named.profiles, PROFILES)) {
    const model = createPerformanceModel(loadProfile(join(ROOT, `config/profiles/${profile}.json`)));
    for (const workload of chosen('workloads', named.workloads, WORKLOADS)) {
      const source = await sourceOf(workload, model, options.seed);
      const capacityPerS = fleetCapacityPerS(model, source, options);
      for (const load of chosen('loads', named.loads, Object.keys(LOADS) as Load[])) {
        const loaded = played(source, LOADS[load] * capacityPerS);
        const shared = { ...sharedOf(model, loaded, 'right', options), ...sampling };
        const feasible = feasibleAlone([createPhysics(model.profile)], shared.requests, shared.classes);
        yield { profile, workload, load, model, shared, feasible, maxClock: simulate({ ...shared, policy: { kind: 'max-clock' } }) };
      }
    }
  }
}
