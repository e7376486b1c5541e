// npm run -s bench:power: what a rack under a power cap still does for its deadlines, with watts shared out by need and with every device held to the same
// limit, on virtual time. See bench/results/power.
//
//   node bench/power/power.ts [--profile NAME,…] [--cap PCT,…] [--load NAME,…] [--seconds N] [--seed N] [--step] [--json]
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { CONTROL_PERIOD_MS } from '../../src/core/limits.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { chosen, numberOf, refusing } from '../energy/options.ts';
import { cappedRatePerS, type Outcome, type Plan, play, type Played, type Rack, rackOf, type WorthClass } from './scenario.ts';

const ROOT = resolve(import.meta.dirname, '../..');

/** Milliseconds of the slower profile; the other's are so much tighter as its steps are faster. */
const CLASSES: Readonly<Record<'llama-3.1-70b.h100-tp4' | 'llama-3.1-8b.h200', readonly WorthClass[]>> = {
  'llama-3.1-70b.h100-tp4': [
    { name: 'premium', share: 0.3, slo: { ttftMs: 1_000, tpotMs: 40 }, worth: 4 },
    { name: 'standard', share: 0.5, slo: { ttftMs: 2_000, tpotMs: 60 }, worth: 1 },
    { name: 'batch', share: 0.2, slo: { e2eMs: 60_000 }, worth: 0.25 },
  ],
  'llama-3.1-8b.h200': [
    { name: 'premium', share: 0.3, slo: { ttftMs: 400, tpotMs: 16 }, worth: 4 },
    { name: 'standard', share: 0.5, slo: { ttftMs: 800, tpotMs: 25 }, worth: 1 },
    { name: 'batch', share: 0.2, slo: { e2eMs: 30_000 }, worth: 0.25 },
  ],
};
const PROFILES = ['llama-3.1-70b.h100-tp4', 'llama-3.1-8b.h200'] as const;
const CAPS = ['90', '75', '60'] as const;
/** Parts of what the rack takes under its cap, see `cappedRatePerS`. */
const LOADS = { low: 0.3, middle: 0.6, high: 0.9, over: 1.3 } as const;
const LOAD_NAMES = ['low', 'middle', 'high', 'over'] as const;
/** More than the rack takes: for seeing what is shed. */
const OVER_CAP = '60';
const BELIEFS = { right: {}, 'too frugal': { power: 1.15, time: 1.05 } } as const;
/** Where the machines are hungrier and slower than believed. */
const WRONG_CELLS: ReadonlySet<string> = new Set(['75 middle', '60 high']);

/** What is met is told apart to a tenth of a percent: less is one request. */
const EQUAL = 0.001;

interface Case {
  readonly name: string;
  readonly profile: string;
  readonly cap: string;
  readonly load: string;
  readonly belief: keyof typeof BELIEFS;
  readonly ratePerS: number;
  /** Of the worth, what was met with watts allotted; and against every device at the same limit, at maximum clock as fleets are capped today. */
  readonly attainment: number;
  readonly energyJ: number;
  readonly baselineAttainment: number;
  readonly baselineEnergyJ: number;
  readonly longestOverMs: number;
  readonly plans: Readonly<Record<Plan, Outcome>>;
}

await refusing(async () => {
  const { values } = parseArgs({
    options: {
      profile: { type: 'string', default: PROFILES.join(',') },
      cap: { type: 'string', default: CAPS.join(',') },
      load: { type: 'string', default: LOAD_NAMES.join(',') },
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string', default: '1' },
      step: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const durationS = numberOf('seconds', values.seconds, { least: 20, most: 3_600 });
  const seed = numberOf('seed', values.seed, { least: 0, most: 1_000_000, whole: true });
  const cases: Case[] = [];
  for (const profile of chosen('profile', values.profile, PROFILES)) {
    const rack = rackOf(loadProfile(resolve(ROOT, `config/profiles/${profile}.json`)), CLASSES[profile]);
    if (!values.step) {
      for (const cap of chosen('cap', values.cap, CAPS)) {
        for (const load of chosen('load', values.load, LOAD_NAMES)) {
          if (load === 'over' && cap !== OVER_CAP) continue;
          for (const belief of ['right', 'too frugal'] as const) {
            if (belief === 'right' || WRONG_CELLS.has(`${cap} ${load}`)) cases.push(caseOf(rack, { profile, cap, load, belief }, { caps: [{ atS: 0, share: Number(cap) / 100 }], ratePerS: LOADS[load] * cappedRatePerS(rack, Number(cap) / 100), durationS, seed }));
          }
        }
      }
    }
    // Demand response: the grid asks for less for a third of the time.
    const caps = [{ atS: 0, share: 1 }, { atS: durationS / 3, share: 0.6 }, { atS: (2 * durationS) / 3, share: 1 }];
    cases.push(caseOf(rack, { profile, cap: '100 to 60 to 100', load: 'middle', belief: 'right' }, { caps, ratePerS: 0.8 * cappedRatePerS(rack, 0.6), durationS, seed }));
  }
  process.stdout.write(values.json ? `${JSON.stringify({ cases })}\n` : text(cases));
});

function caseOf(rack: Rack, { profile, cap, load, belief }: Pick<Case, 'profile' | 'cap' | 'load' | 'belief'>, played: Omit<Played, 'rack' | 'truthScale'>): Case {
  const run = (plan: Plan): Outcome => play(plan, { ...played, rack, truthScale: BELIEFS[belief] });
  const plans = { 'max clock, uniform': run('max clock, uniform'), 'planned, uniform': run('planned, uniform'), allotted: run('allotted') };
  const { attainment, energyJ, longestOverMs } = plans.allotted;
  const baseline = plans['max clock, uniform'];
  const name = `${profile}, ${cap} %, ${load}${belief === 'right' ? '' : ', machines hungrier than believed'}`;
  process.stderr.write(`${name}\n`);
  return { name, profile, cap, load, belief, ratePerS: played.ratePerS, attainment, energyJ, baselineAttainment: baseline.attainment, baselineEnergyJ: baseline.energyJ, longestOverMs, plans };
}

function text(cases: readonly Case[]): string {
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`.padStart(8);
  const rows = cases.map(({ name, ratePerS, plans }) => {
    const [uniform, planned, allotted] = [plans['max clock, uniform'], plans['planned, uniform'], plans.allotted];
    const verdict = Math.abs(allotted.attainment - uniform.attainment) <= EQUAL ? 'equal' : allotted.attainment > uniform.attainment ? 'above' : 'BELOW';
    return [
      `${name} (${ratePerS.toFixed(1)}/s)`,
      ...[uniform, planned, allotted].map((outcome, place) => `  ${['max clock, uniform', 'planned, uniform', 'allotted'][place]?.padEnd(20)} ${percent(outcome.attainment)} of the worth  ${outcome.goodputPerS.toFixed(1).padStart(6)} met/s  ${(outcome.energyJ / 1000).toFixed(0).padStart(6)} kJ  over the cap ${outcome.longestOverMs.toFixed(0)} ms at most   ${Object.entries(outcome.attainmentByClass).map(([sloClass, met]) => `${sloClass} ${percent(met).trim()}`).join(', ')}`),
      `  ${verdict}, energy ${(allotted.energyJ / uniform.energyJ).toFixed(2)}`,
    ].join('\n');
  });
  const worst = Math.max(...cases.map(({ longestOverMs }) => longestOverMs));
  const below = cases.filter(({ attainment, baselineAttainment }) => attainment < baselineAttainment - EQUAL);
  return `${rows.join('\n')}\n\nlongest time above a cap: ${worst.toFixed(0)} ms (one control period: ${CONTROL_PERIOD_MS.default} ms); below uniform capping: ${below.length} of ${cases.length} cells\n`;
}
