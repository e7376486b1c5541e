// npm run -s bench:energy: what Paceline saves, cell by cell, against everything else at the same attainment. See README.md.
//
//   node bench/energy/energy.ts [--workloads a,b] [--profiles a,b] [--loads low,middle,high] [--beliefs right,…] [--json] [--out DIR]
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { chosen, numberOf, refusing } from './options.ts';
import { BELIEFS, type Belief, type CellOptions, type CellResult, fleetCapacityPerS, runCell } from './cell.ts';
import { formatCells, summaryOf } from './table.ts';
import { LOADS, type Load, PROFILES, sourceOf, WORKLOADS, type WorkloadName } from './workloads.ts';

const ROOT = resolve(import.meta.dirname, '../..');

/** All cells of a workload on a profile: they share the search for the fleet's capacity. */
interface Task {
  readonly profile: string;
  readonly workload: WorkloadName;
  readonly loads: readonly Load[];
  readonly beliefs: readonly Belief[];
  readonly options: CellOptions;
}

if (isMainThread) await refusing(main);
else await work(workerData as Task);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      workloads: { type: 'string', default: WORKLOADS.join(',') },
      profiles: { type: 'string', default: PROFILES.join(',') },
      loads: { type: 'string', default: Object.keys(LOADS).join(',') },
      beliefs: { type: 'string', default: Object.keys(BELIEFS).join(',') },
      replicas: { type: 'string', default: '4' },
      seed: { type: 'string', default: '1' },
      effort: { type: 'string', default: '0.2' },
      threads: { type: 'string', default: String(Math.max(1, cpus().length)) },
      json: { type: 'boolean', default: false },
      out: { type: 'string' },
    },
  });
  const loads = chosen('loads', values.loads, Object.keys(LOADS) as Load[]);
  const beliefs = chosen('beliefs', values.beliefs, Object.keys(BELIEFS) as Belief[]);
  const options = { replicas: numberOf('replicas', values.replicas, { least: 1, most: 1000, whole: true }), seed: numberOf('seed', values.seed, { least: 0, most: 1e9, whole: true }), clairvoyantEffort: numberOf('effort', values.effort, { least: 0, most: 10 }) };
  const threads = numberOf('threads', values.threads, { least: 1, most: 64, whole: true });
  const tasks = chosen('profiles', values.profiles, PROFILES).flatMap((profile) => chosen('workloads', values.workloads, WORKLOADS).map((workload): Task => ({ profile, workload, loads, beliefs, options })));
  const cells: CellResult[] = [];
  const total = tasks.length * loads.length * beliefs.length;
  const next = async (): Promise<void> => {
    for (let task = tasks.shift(); task !== undefined; task = tasks.shift()) {
      await done(task, (cell) => {
        cells.push(cell);
        process.stderr.write(`${cells.length}/${total} ${cell.profile} ${cell.workload} ${cell.load}, belief ${cell.belief}: ${(cell.paceline.energyJ / cell.maxClock.energyJ).toFixed(3)} at ${(100 * cell.paceline.attainment).toFixed(2)} %\n`);
      });
    }
  };
  await Promise.all(Array.from({ length: threads }, next));
  cells.sort((a, b) => a.profile.localeCompare(b.profile) || WORKLOADS.indexOf(a.workload) - WORKLOADS.indexOf(b.workload) || a.belief.localeCompare(b.belief) || LOADS[a.load] - LOADS[b.load]);
  const result = { summary: summaryOf(cells), options, cells };
  const table = formatCells(cells);
  process.stdout.write(values.json ? `${JSON.stringify(result, null, 2)}\n` : `${table}\n`);
  if (values.out === undefined) return;
  mkdirSync(values.out, { recursive: true });
  writeFileSync(join(values.out, 'cells.json'), `${JSON.stringify(result, null, 1)}\n`);
  writeFileSync(join(values.out, 'table.txt'), `${table}\n`);
}

function done(task: Task, onCell: (cell: CellResult) => void): Promise<void> {
  return new Promise((resolveTask, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: task });
    worker.on('message', onCell);
    worker.on('error', reject);
    worker.on('exit', (code) => (code === 0 ? resolveTask() : reject(new Error(`${task.profile} ${task.workload}: the worker ended with ${code}`))));
  });
}

async function work({ profile, workload, loads, beliefs, options }: Task): Promise<void> {
  const model = createPerformanceModel(loadProfile(join(ROOT, `config/profiles/${profile}.json`)));
  const source = await sourceOf(workload, model, options.seed);
  const capacityPerS = fleetCapacityPerS(model, source, options);
  for (const belief of beliefs) {
    for (const load of loads) {
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker's port, not a window
      parentPort?.postMessage(runCell(model, source, capacityPerS, load, belief, options));
    }
  }
}
