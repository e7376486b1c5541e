// npm run -s bench:corrections: what a wrong profile costs, and how much of that live correction makes good. See README.md.
//
//   node bench/learning/corrections.ts [--profiles a,b] [--workloads a,b] [--loads low,middle] [--beliefs right,…] [--json]
import { parseArgs } from 'node:util';
import { tableOf } from '../../src/simulator/format-table.ts';
import { runReport } from '../../src/simulator/run-report.ts';
import { simulate } from '../../src/simulator/simulate.ts';
import { chosen, refusing } from '../energy/options.ts';
import type { Load } from '../energy/workloads.ts';
import { FLEET_OPTIONS, loadedFleets, runOptionsOf } from './loaded-fleets.ts';
import { distorted, WRONG_BELIEFS } from './wrong-beliefs.ts';

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
  const { values } = parseArgs({ options: { ...FLEET_OPTIONS, loads: { type: 'string', default: 'low,middle' }, beliefs: { type: 'string', default: Object.keys(WRONG_BELIEFS).join(',') } } });
  const options = runOptionsOf(values);
  const cells: Cell[] = [];
  for await (const { profile, workload, load, model, shared, feasible, maxClock } of loadedFleets(values, options)) {
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
