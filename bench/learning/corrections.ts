// npm run -s bench:corrections: what a wrong profile costs, and how much of that live correction makes good. See README.md.
//
//   node bench/learning/corrections.ts [--profiles a,b] [--workloads a,b] [--loads low,middle] [--beliefs right,…] [--json]
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { createPhysics } from '../../src/engine/physics.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { feasibleAlone } from '../../src/simulator/feasibility.ts';
import { tableOf } from '../../src/simulator/format-table.ts';
import { runReport } from '../../src/simulator/run-report.ts';
import { simulate } from '../../src/simulator/simulate.ts';
import { fleetCapacityPerS, sharedOf } from '../energy/cell.ts';
import { chosen, numberOf, refusing } from '../energy/options.ts';
import { LOADS, type Load, PROFILES, played, sourceOf, WORKLOADS } from '../energy/workloads.ts';
import { distorted, WRONG_BELIEFS } from './wrong-beliefs.ts';

const ROOT = resolve(import.meta.dirname, '../..');

interface Cell {
  readonly profile: string;
  readonly workload: string;
  readonly load: Load;
  readonly belief: string;
  readonly attainment: number;
  readonly energyJ: number;
  /** Over that of a right belief. */
  readonly vsRight: number | null;
  readonly vsMaxClock: number;
}

await refusing(main);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      workloads: { type: 'string', default: 'azure-conversation,tenants' },
      profiles: { type: 'string', default: PROFILES.join(',') },
      loads: { type: 'string', default: 'low,middle' },
      beliefs: { type: 'string', default: Object.keys(WRONG_BELIEFS).join(',') },
      replicas: { type: 'string', default: '4' },
      seed: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
    },
  });
  const options = { replicas: numberOf('replicas', values.replicas, { least: 1, most: 100, whole: true }), seed: numberOf('seed', values.seed, { least: 0, most: 1e9, whole: true }), clairvoyantEffort: 0 };
  const cells: Cell[] = [];
  for (const profile of chosen('profiles', values.profiles, PROFILES)) {
    const model = createPerformanceModel(loadProfile(join(ROOT, `config/profiles/${profile}.json`)));
    for (const workload of chosen('workloads', values.workloads, WORKLOADS)) {
      const source = await sourceOf(workload, model, options.seed);
      const capacityPerS = fleetCapacityPerS(model, source, options);
      for (const load of chosen('loads', values.loads, Object.keys(LOADS) as Load[])) {
        const loaded = played(source, LOADS[load] * capacityPerS);
        const shared = sharedOf(model, loaded, 'right', options);
        const feasible = feasibleAlone([createPhysics(model.profile)], shared.requests, shared.classes);
        const maxClock = simulate({ ...shared, policy: { kind: 'max-clock' } });
        let rightJ: number | null = null;
        for (const belief of chosen('beliefs', values.beliefs, Object.keys(WRONG_BELIEFS))) {
          const run = simulate({ ...shared, belief: distorted(model.profile, WRONG_BELIEFS[belief] as (typeof WRONG_BELIEFS)[string]), policy: { kind: 'paceline' }, metered: true });
          const { attainmentOfFeasible, energyJ } = runReport({ policy: belief, ...options }, run, feasible);
          if (belief === 'right') rightJ = energyJ;
          const cell = { profile, workload, load, belief, attainment: attainmentOfFeasible, energyJ, vsRight: rightJ === null ? null : energyJ / rightJ, vsMaxClock: energyJ / maxClock.energyJ };
          cells.push(cell);
          process.stderr.write(`${profile} ${workload} ${load}, ${belief}: ${energyJ.toFixed(0)} J at ${(100 * attainmentOfFeasible).toFixed(2)} %, ${cell.vsRight?.toFixed(4)} of right\n`);
        }
      }
    }
  }
  const columns: readonly (readonly [string, (cell: Cell) => string])[] = [
    ['profile', ({ profile }) => profile],
    ['workload', ({ workload }) => workload],
    ['load', ({ load }) => load],
    ['belief', ({ belief }) => belief],
    ['attainment', ({ attainment }) => `${(100 * attainment).toFixed(2)} %`],
    ['J / right belief', ({ vsRight }) => vsRight?.toFixed(3) ?? ''],
    ['J / max-clock', ({ vsMaxClock }) => vsMaxClock.toFixed(3)],
  ];
  process.stdout.write(values.json ? `${JSON.stringify({ options, cells }, null, 2)}\n` : `${tableOf(columns, cells)}\n`);
}
