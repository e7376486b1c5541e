// npm run -s bench:ablation: what each mechanism of the planner is worth, one switched off at a time.
//
//   node bench/energy/ablation.ts [--workloads a,b] [--profiles a,b] [--loads low,middle] [--beliefs right,too fast] [--json] [--out FILE]
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { ALL_MECHANISMS, type Mechanisms } from '../../src/core/mechanisms.ts';
import type { Routing } from '../../src/core/routing.ts';
import { createPhysics } from '../../src/engine/physics.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { feasibleAlone } from '../../src/simulator/feasibility.ts';
import { simulate } from '../../src/simulator/simulate.ts';
import { runReport } from '../../src/simulator/run-report.ts';
import { BELIEFS, type Belief, fleetCapacityPerS, sharedOf } from './cell.ts';
import { chosen, refusing } from './options.ts';
import { LOADS, type Load, PROFILES, played, sourceOf, WORKLOADS } from './workloads.ts';

interface Variant {
  readonly name: string;
  readonly mechanisms: Mechanisms;
  readonly routing?: Routing;
}

const without = (name: keyof Mechanisms, label: string): Variant => ({ name: label, mechanisms: { ...ALL_MECHANISMS, [name]: false } });
const VARIANTS: readonly Variant[] = [
  { name: 'everything', mechanisms: ALL_MECHANISMS },
  { name: 'routing by energy and risk (least-loaded instead)', mechanisms: ALL_MECHANISMS, routing: 'least-loaded' },
  without('pacing', 'pacing of prompts by what they put at risk'),
  without('holding', 'waiting for a cheaper moment'),
  without('lengthQuantiles', 'length quantiles (means instead)'),
  without('interference', 'interference of prefills'),
  without('forecast', 'arrival forecast'),
  without('bankedSlack', 'banked slack'),
  without('guardBands', 'guard bands that tune themselves'),
  without('residuals', 'residual correction'),
  without('parking', 'parking of idle replicas'),
  without('immediateRaise', 'immediate raise'),
  without('dwell', 'dwell before lowering'),
];

const ROOT = resolve(import.meta.dirname, '../..');
const { values } = parseArgs({
  options: {
    workloads: { type: 'string', default: 'azure-conversation,mooncake,tenants' },
    profiles: { type: 'string', default: PROFILES.join(',') },
    loads: { type: 'string', default: 'low,middle' },
    beliefs: { type: 'string', default: 'right,too fast' },
    json: { type: 'boolean', default: false },
    out: { type: 'string' },
  },
});
const options = { replicas: 4, seed: 1, clairvoyantEffort: 0 };

const measured = VARIANTS.map(({ name }) => ({ name, energy: [] as number[], attainment: [] as number[] }));

async function measure(): Promise<void> {
  const workloads = chosen('workloads', values.workloads, WORKLOADS);
  const beliefs = chosen('beliefs', values.beliefs, Object.keys(BELIEFS) as Belief[]);
  const loads = chosen('loads', values.loads, Object.keys(LOADS) as Load[]);
  for (const profileName of chosen('profiles', values.profiles, PROFILES)) {
    const model = createPerformanceModel(loadProfile(join(ROOT, `config/profiles/${profileName}.json`)));
    for (const name of workloads) {
      const source = await sourceOf(name, model, options.seed);
      const capacityPerS = fleetCapacityPerS(model, source, options);
      for (const belief of beliefs) {
        for (const load of loads) {
          const shared = sharedOf(model, played(source, LOADS[load] * capacityPerS), belief, options);
          const feasible = feasibleAlone([createPhysics(model.profile, BELIEFS[belief].scale)], shared.requests, shared.classes);
          let everythingJ = 0;
          for (const [index, { mechanisms, routing }] of VARIANTS.entries()) {
            const run = simulate({ ...shared, policy: { kind: 'paceline' }, mechanisms, ...(routing === undefined ? {} : { routing }) });
            if (index === 0) everythingJ = run.energyJ;
            measured[index]?.energy.push(run.energyJ / everythingJ);
            measured[index]?.attainment.push(runReport({ policy: 'paceline', replicas: options.replicas, seed: options.seed }, run, feasible).attainmentOfFeasible);
          }
          process.stderr.write(`${profileName} ${name}${source.recorded || name === 'tenants' ? '' : ' (generated)'} ${load}, belief ${belief}\n`);
        }
      }
    }
  }
  report();
}

function report(): void {
  const rows = measured.map(({ name, energy, attainment }) => ({ without: name, energy: mean(energy), attainmentMean: mean(attainment), attainmentLeast: Math.min(...attainment), below99: attainment.filter((share) => share < 0.99).length, cells: energy.length }));
  const width = Math.max(...rows.map((row) => row.without.length));
  const table = [
    `${'without'.padEnd(width)}   energy  attainment: mean, least, cells below 99 % of ${rows[0]?.cells}`,
    ...rows.map((row) => `${row.without.padEnd(width)}  ${row.energy.toFixed(3).padStart(7)}  ${(100 * row.attainmentMean).toFixed(2).padStart(6)} ${(100 * row.attainmentLeast).toFixed(2).padStart(6)} ${String(row.below99).padStart(3)}`),
  ].join('\n');
  process.stdout.write(values.json ? `${JSON.stringify(rows, null, 2)}\n` : `${table}\n`);
  if (values.out !== undefined) writeFileSync(values.out, `${table}\n`);
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, value) => sum + value, 0) / Math.max(1, numbers.length);
}

await refusing(measure);
