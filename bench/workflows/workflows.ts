// npm run -s bench:workflows: the slack of whole workflows, allotted by energy, against deadlines that were shared out among their calls beforehand,
// on virtual time. See bench/results/workflows/README.md.
//
//   node bench/workflows/workflows.ts [--profile NAME] [--replicas N] [--runs N] [--shapes LIST] [--loads LIST] [--slack LIST] [--truth-time X] [--seed N] [--json]
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { chosen, numberOf, refusing } from '../energy/options.ts';
import { type Case, type CaseOptions, LOADS, playCase, SHAPES } from './scenario.ts';

const ROOT = resolve(import.meta.dirname, '../..');

await refusing(async () => {
  const { values } = parseArgs({
    options: {
      profile: { type: 'string', default: 'llama-3.1-70b.h100-tp4' },
      replicas: { type: 'string', default: '4' },
      runs: { type: 'string', default: '300' },
      shapes: { type: 'string', default: SHAPES.map(({ name }) => name).join(',') },
      loads: { type: 'string', default: Object.keys(LOADS).join(',') },
      slack: { type: 'string', default: '2,3,4' },
      'truth-time': { type: 'string', default: '1' },
      seed: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
    },
  });
  const profile = loadProfile(resolve(ROOT, `config/profiles/${values.profile}.json`));
  const options: CaseOptions = {
    profile,
    model: createPerformanceModel(profile),
    replicas: numberOf('replicas', values.replicas, { least: 1, most: 64, whole: true }),
    runs: numberOf('runs', values.runs, { least: 5, most: 10_000, whole: true }),
    slacks: values.slack.split(',').map((text) => numberOf('slack', text, { least: 1, most: 100 })),
    truthTime: numberOf('truth-time', values['truth-time'], { least: 0.5, most: 2 }),
    seed: numberOf('seed', values.seed, { least: 0, most: 1_000_000, whole: true }),
  };
  const shapes = chosen('shapes', values.shapes, SHAPES.map(({ name }) => name));
  const loads = chosen('loads', values.loads, Object.keys(LOADS) as (keyof typeof LOADS)[]);
  const cases: Case[] = [];
  if (!values.json) process.stdout.write(`${heading(values.profile, options)}\n`);
  for (const shape of shapes) {
    for (const load of loads) {
      const played = playCase(SHAPES.find(({ name }) => name === shape) as (typeof SHAPES)[number], load, options);
      cases.push(played);
      if (!values.json) process.stdout.write(`${row(played)}\n`);
    }
  }
  process.stdout.write(values.json ? `${JSON.stringify({ profile: values.profile, replicas: options.replicas, slacks: options.slacks, truthTime: options.truthTime, seed: options.seed, cases })}\n` : `\n${summary(cases)}\n`);
});

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function heading(profile: string, { replicas, slacks, truthTime }: CaseOptions): string {
  return [
    `${profile}, ${replicas} replicas (emulated; devices take ${truthTime} x the profile's time). Deadlines are ${slacks.join(', ')} x the path that takes longest at the fastest clock.`,
    "Energy of allotted slack over the rival's: where that shares out the deadline itself, and (in brackets) at the margin that is best for it in hindsight among those that reach the same attainment;",
    '! where none of its margins does, and it is compared with the one that comes nearest.',
    '',
    `${'shape'.padEnd(22)} ${'load'.padEnd(7)} ${'workflows'.padStart(9)} ${'in time'.padStart(8)} ${'proportional share'.padStart(42)} ${'equal share'.padStart(42)} ${'max clock'.padStart(18)}`,
  ].join('\n');
}

function row({ shape, load, workflows, attainment, energyJ, proportional, equal, maxClock }: Case): string {
  const against = (rival: Case['equal']): string => `${(energyJ / rival.plain.energyJ).toFixed(3)} at ${percent(rival.plain.attainment)} (${(energyJ / rival.energyJ).toFixed(3)}, ${rival.margin} x, ${percent(rival.attainment)}${rival.reaches ? '' : '!'})`.padStart(42);
  return `${shape.padEnd(22)} ${load.padEnd(7)} ${String(workflows).padStart(9)} ${percent(attainment).padStart(8)} ${against(proportional)} ${against(equal)} ${`${(energyJ / maxClock.energyJ).toFixed(3)} (${percent(maxClock.attainment)})`.padStart(18)}`;
}

function summary(cases: readonly Case[]): string {
  const mean = (of: (each: Case) => number): string => Math.exp(cases.reduce((sum, each) => sum + Math.log(of(each)), 0) / Math.max(1, cases.length)).toFixed(3);
  const within = cases.filter(({ energyJ, proportional }) => energyJ <= 0.9 * proportional.energyJ).length;
  return `geometric means: ${mean((each) => each.energyJ / each.proportional.energyJ)} of proportional share's energy at its best margins (${within} of ${cases.length} at most 0.90), ${mean((each) => each.energyJ / each.proportional.plain.energyJ)} without, ${mean((each) => each.energyJ / each.equal.energyJ)} of equal share's, ${mean((each) => each.energyJ / each.maxClock.energyJ)} of the maximum clock's`;
}
