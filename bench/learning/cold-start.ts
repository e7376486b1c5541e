// npm run -s bench:cold-start: a fleet of which nothing is known but its clocks, learnt while it serves, against the right profile and
// against maximum clock, minute by minute. See bench/results/cold-start/README.md.
//
//   node bench/learning/cold-start.ts [--profiles a,b] [--workloads a,b] [--loads low,middle] [--replicas N] [--seed N] [--json]
import { parseArgs } from 'node:util';
import { startingProfile } from '../../src/cold-start/starting-profile.ts';
import type { PerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Profile } from '../../src/frontier/profile.ts';
import { tableOf } from '../../src/simulator/format-table.ts';
import { type SimulatedRun, simulate } from '../../src/simulator/simulate.ts';
import { refusing } from '../energy/options.ts';
import type { Load } from '../energy/workloads.ts';
import { FLEET_OPTIONS, loadedFleets, runOptionsOf } from './loaded-fleets.ts';

/** Board limits of the devices of the shipped profiles, as their vendors name them. */
const POWER_LIMIT_W: Readonly<Record<string, number>> = { 'llama-3.1-70b.h100-tp4': 700, 'llama-3.1-8b.h200': 700, 'mistral-7b.v100': 300 };
/** Ends of the stretches that are told apart, in seconds. */
const STRETCH_ENDS_S = [15, 30, 60, 120, 300, Number.POSITIVE_INFINITY];

interface Stretch {
  readonly untilS: number;
  readonly requests: number;
  /** Of the requests that arrived in it and could be met at all. */
  readonly attainment: { readonly cold: number; readonly right: number; readonly maxClock: number };
  /** Over the same stretch. */
  readonly coldVsRight: number;
  readonly coldVsMaxClock: number;
}

interface Cell {
  readonly profile: string;
  readonly workload: string;
  readonly load: Load;
  readonly requests: number;
  readonly stretches: readonly Stretch[];
  /** The whole run. */
  readonly attainment: Stretch['attainment'];
  readonly coldVsRight: number;
  readonly coldVsMaxClock: number;
  readonly rightVsMaxClock: number;
}

await refusing(main);

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { ...FLEET_OPTIONS, loads: { type: 'string', default: 'low,middle,high' } } });
  const options = runOptionsOf(values);
  const cells: Cell[] = [];
  for await (const { profile, workload, load, model, shared, feasible, maxClock } of loadedFleets(values, options, { sampleEnergyEveryMs: 1_000 })) {
    const right = simulate({ ...shared, policy: { kind: 'paceline' }, metered: true });
    const cold = simulate({ ...shared, policy: { kind: 'paceline' }, metered: true, belief: nothingKnown(profile, model), learns: true });
    const arrivedAtS = shared.requests.map(({ atMs }) => atMs / 1_000);
    const stretches = STRETCH_ENDS_S.flatMap((untilS, index): Stretch[] => {
      const fromS = STRETCH_ENDS_S[index - 1] ?? 0;
      const within = arrivedAtS.map((atS, request) => atS >= fromS && atS < untilS && feasible[request] !== false);
      const requests = within.filter(Boolean).length;
      const joules = (run: SimulatedRun): number => energyAtS(run, untilS) - energyAtS(run, fromS);
      if (requests === 0) return [];
      return [{ untilS, requests, attainment: attainments({ cold, right, maxClock }, within), coldVsRight: joules(cold) / joules(right), coldVsMaxClock: joules(cold) / joules(maxClock) }];
    });
    const cell = { profile, workload, load, requests: shared.requests.length, stretches, attainment: attainments({ cold, right, maxClock }, feasible), coldVsRight: cold.energyJ / right.energyJ, coldVsMaxClock: cold.energyJ / maxClock.energyJ, rightVsMaxClock: right.energyJ / maxClock.energyJ };
    cells.push(cell);
    process.stderr.write(`${profile} ${workload} ${load}: ${cell.coldVsRight.toFixed(3)} of the right profile's energy, attainment ${percent(cell.attainment.cold)} against ${percent(cell.attainment.right)} and ${percent(cell.attainment.maxClock)} at maximum clock\n`);
  }
  process.stdout.write(values.json ? `${JSON.stringify({ summary: summaryOf(cells), options, cells }, null, 2)}\n` : `${formatted(cells)}\n`);
}

/** What an agent tells of the devices, and what the server was started with; no time and no joule of the truth. */
function nothingKnown(name: string, { profile }: PerformanceModel): Profile {
  const { deviceGroup, points, serving } = profile;
  return startingProfile({ name: 'learnt', model: profile.model, engine: profile.engine.name, device: deviceGroup.device, devices: deviceGroup.devices, clocksMhz: points.map(({ knobs }) => Number(knobs['clockMhz'])), powerLimitW: POWER_LIMIT_W[name] ?? 700, serving });
}

function attainments({ cold, right, maxClock }: Readonly<Record<'cold' | 'right' | 'maxClock', SimulatedRun>>, counted: readonly boolean[]): Stretch['attainment'] {
  const requests = counted.filter((counts) => counts !== false).length;
  const of = ({ reports }: SimulatedRun): number => reports.filter(({ jobId, met, outcome }) => counted[Number(jobId)] !== false && (met ?? outcome === 'finished')).length / Math.max(1, requests);
  return { cold: of(cold), right: of(right), maxClock: of(maxClock) };
}

function energyAtS({ energySamples = [], energyJ }: SimulatedRun, atS: number): number {
  if (atS === 0) return 0;
  return energySamples.find(({ atMs }) => atMs >= atS * 1_000)?.energyJ ?? energyJ;
}

interface Summary {
  /** Of all cells' requests that arrived by then, since the stretch before. */
  readonly byStretch: readonly { readonly untilS: number | null; readonly requests: number; readonly attainment: Stretch['attainment']; readonly coldVsRight: number; readonly coldVsMaxClock: number }[];
  readonly coldVsRight: number;
  readonly coldVsMaxClock: number;
  readonly attainmentLeast: Stretch['attainment'];
}

function summaryOf(cells: readonly Cell[]): Summary {
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  const least = (of: (cell: Cell) => number): number => Math.min(...cells.map(of));
  return {
    byStretch: STRETCH_ENDS_S.map((untilS) => {
      const all = cells.flatMap(({ stretches }) => stretches.filter((stretch) => stretch.untilS === untilS));
      const requests = all.reduce((sum, stretch) => sum + stretch.requests, 0);
      const met = (of: keyof Stretch['attainment']): number => all.reduce((sum, stretch) => sum + stretch.requests * stretch.attainment[of], 0) / Math.max(1, requests);
      return { untilS: Number.isFinite(untilS) ? untilS : null, requests, attainment: { cold: met('cold'), right: met('right'), maxClock: met('maxClock') }, coldVsRight: mean(all.map(({ coldVsRight }) => coldVsRight)), coldVsMaxClock: mean(all.map(({ coldVsMaxClock }) => coldVsMaxClock)) };
    }),
    coldVsRight: mean(cells.map(({ coldVsRight }) => coldVsRight)),
    coldVsMaxClock: mean(cells.map(({ coldVsMaxClock }) => coldVsMaxClock)),
    attainmentLeast: { cold: least(({ attainment }) => attainment.cold), right: least(({ attainment }) => attainment.right), maxClock: least(({ attainment }) => attainment.maxClock) },
  };
}

function formatted(cells: readonly Cell[]): string {
  const { byStretch, coldVsRight, coldVsMaxClock } = summaryOf(cells);
  const perCell = tableOf<Cell>(
    [
      ['profile', ({ profile }) => profile],
      ['workload', ({ workload }) => workload],
      ['load', ({ load }) => load],
      ['met: cold', ({ attainment }) => percent(attainment.cold)],
      ['right', ({ attainment }) => percent(attainment.right)],
      ['max-clock', ({ attainment }) => percent(attainment.maxClock)],
      ['J cold/max-clock', (cell) => cell.coldVsMaxClock.toFixed(3)],
      ['right/max-clock', (cell) => cell.rightVsMaxClock.toFixed(3)],
      ['cold/right', (cell) => cell.coldVsRight.toFixed(3)],
      ['last stretch', ({ stretches }) => stretches.at(-1)?.coldVsRight.toFixed(3) ?? ''],
    ],
    cells,
  );
  const perStretch = tableOf<Summary['byStretch'][number]>(
    [
      ['until', ({ untilS }) => (untilS === null ? 'end' : `${untilS} s`)],
      ['requests', ({ requests }) => `${requests}`],
      ['met: cold', ({ attainment }) => percent(attainment.cold)],
      ['right', ({ attainment }) => percent(attainment.right)],
      ['max-clock', ({ attainment }) => percent(attainment.maxClock)],
      ['J cold/max-clock', (stretch) => stretch.coldVsMaxClock.toFixed(3)],
      ['cold/right', (stretch) => stretch.coldVsRight.toFixed(3)],
    ],
    byStretch,
  );
  return `${perCell}\n\n${perStretch}\n\nmean of the cells: ${coldVsRight.toFixed(3)} of the right profile's energy, ${coldVsMaxClock.toFixed(3)} of maximum clock's`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`;
}
