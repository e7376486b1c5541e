// npm run -s bench:prices: what it is worth to move work with hours of slack to the hours in which energy is cheap. The same requests,
// machines and prices in both runs of a row; one is told the prices. An hour is five minutes here, for the simulator's sake: slack, prices and
// load are all shortened by twelve, and what a request takes is not, so that the hours of real life have more room than these.
//
//   node bench/power/prices.ts [--shares 0.2,0.5] [--fleets awake,sleeping] [--loads low,high] [--seed 1] [--json]
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { EnergyPrice } from '../../src/core/energy-prices.ts';
import type { Profile } from '../../src/frontier/profile.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { type RunReport, runReport } from '../../src/simulator/run-report.ts';
import { simulate, type SimulationOptions } from '../../src/simulator/simulate.ts';
import { drawClasses } from '../../src/workload/slo-classes.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { chosen, numberOf, refusing } from '../energy/options.ts';

const PROFILE = resolve(import.meta.dirname, '../../config/profiles/llama-3.1-70b.h100-tp4.json');
const HOUR_MS = 300_000;
/** Grams of CO2 equivalent per kilowatt-hour, or money: dear twice and cheap twice, as where the sun or the night is cheap. */
const PRICES: readonly EnergyPrice[] = [300, 310, 100, 90, 300, 310, 100, 90, 300, 310].map((price, hour) => ({ fromMs: hour * HOUR_MS, price }));
const HOURS = 8;
/** Of what can be moved: four of these hours. */
const LATER_MS = 4 * HOUR_MS;
const SLEEP = { powerW: 80, sleepMs: 5_000, wakeMs: 5_000 };

const FLEETS = {
  awake: { replicas: 2, sleeps: false, ratePerS: { low: 4, high: 7 } },
  sleeping: { replicas: 6, sleeps: true, ratePerS: { low: 4, high: 10 } },
} as const;
type FleetName = keyof typeof FLEETS;
const LOADS = ['low', 'high'] as const;
type Load = (typeof LOADS)[number];

interface Case {
  readonly name: string;
  readonly deferrableShare: number;
  readonly attainment: number;
  readonly baselineAttainment: number;
  readonly attainmentByClass: RunReport['attainmentByClass'];
  readonly energyJ: number;
  readonly baselineEnergyJ: number;
  readonly cost: number;
  readonly baselineCost: number;
}

function play(fleet: FleetName, load: Load, share: number, seed: number): Case {
  const { replicas, sleeps, ratePerS } = FLEETS[fleet];
  const plain = loadProfile(PROFILE);
  const profile: Profile = sleeps ? { ...plain, sleep: SLEEP } : plain;
  const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: ratePerS[load] }, promptTokens: { kind: 'fixed', tokens: 1_000 }, outputTokens: { kind: 'fixed', tokens: 100 }, durationS: (HOURS * HOUR_MS) / 1_000, seed });
  const shared: SimulationOptions = {
    requests,
    classes: drawClasses([{ name: 'chat', share: 1 - share, slo: { ttftMs: 2_000, tpotMs: 80 } }, { name: 'later', share, slo: { e2eMs: LATER_MS } }], requests.length, seed),
    replicas,
    truth: profile,
    belief: profile,
    policy: { kind: 'paceline' },
    seed,
    prices: PRICES,
    // Until nothing can be left of what was moved: both idle for as long.
    untilMs: HOURS * HOUR_MS + LATER_MS,
    ...(sleeps ? { sleep: { awakeMin: 1 } } : {}),
  };
  const report = (movesWork: boolean): RunReport => runReport({ policy: 'paceline', replicas, seed }, simulate({ ...shared, movesWork }));
  const [baseline, moved] = [report(false), report(true)];
  return {
    name: `${fleet}, ${load} load (${ratePerS[load]}/s), ${Math.round(100 * share)} % can be moved`,
    deferrableShare: share,
    attainment: moved.attainment,
    baselineAttainment: baseline.attainment,
    attainmentByClass: moved.attainmentByClass,
    energyJ: moved.energyJ,
    baselineEnergyJ: baseline.energyJ,
    cost: moved.cost ?? 0,
    baselineCost: baseline.cost ?? 0,
  };
}

function line({ name, attainment, baselineAttainment, energyJ, baselineEnergyJ, cost, baselineCost }: Case): string {
  const percent = (value: number): string => `${(100 * value).toFixed(2)} %`;
  return `${name.padEnd(48)} ${percent(baselineAttainment).padStart(9)} -> ${percent(attainment).padStart(9)}  energy ${(energyJ / baselineEnergyJ).toFixed(3)}  cost ${(cost / baselineCost).toFixed(3)}`;
}

await refusing(async () => {
  const { values } = parseArgs({ options: { shares: { type: 'string', default: '0.2,0.5' }, fleets: { type: 'string', default: 'awake,sleeping' }, loads: { type: 'string', default: LOADS.join(',') }, seed: { type: 'string', default: '1' }, json: { type: 'boolean', default: false } } });
  const seed = numberOf('seed', values.seed, { least: 0, most: 1e9, whole: true });
  const shares = values.shares.split(',').map((share) => numberOf('shares', share, { least: 0.01, most: 0.99 }));
  const fleets = chosen('fleets', values.fleets, Object.keys(FLEETS) as FleetName[]);
  const loads = chosen('loads', values.loads, LOADS);
  const cases: Case[] = [];
  if (!values.json) process.stdout.write('attainment without -> with moving; energy and cost against not moving\n');
  for (const fleet of fleets) {
    for (const load of loads) {
      for (const share of shares) {
        const played = play(fleet, load, share, seed);
        cases.push(played);
        if (!values.json) process.stdout.write(`${line(played)}\n`);
      }
    }
  }
  if (values.json) process.stdout.write(`${JSON.stringify({ cases }, null, 2)}\n`);
});
