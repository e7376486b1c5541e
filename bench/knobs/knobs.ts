// npm run -s bench:knobs: what software knobs are worth beside the clock, on virtual time: replicas awake, batch cap, tensor-parallel
// degree. See bench/results/knobs/README.md.
//
//   node bench/knobs/knobs.ts [--seconds N] [--learn-seconds N] [--seed N] [--sleep W:SLEEPMS:WAKEMS (of one device)] [--only knobs|fleets|caps] [--json]
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Profile, SleepCosts } from '../../src/frontier/profile.ts';
import { loadProfile } from '../../src/profile-file.ts';
import type { FleetMember } from '../../src/simulator/simulate.ts';
import type { SloClass } from '../../src/workload/slo-classes.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { numberOf, refusing } from '../energy/options.ts';
import { capacityPerS, CHAT, type Load, LOADS, play, type Played, requestsOf, withSleep } from './scenario.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const AWAKE_MIN = 1;
const LONG: readonly SloClass[] = [{ name: 'long', share: 1, slo: { ttftMs: 20_000, tpotMs: 150 } }];
const CAPS = [16, 24, 32, 64];

interface Case extends Played {
  readonly name: string;
  readonly load: string;
  readonly knobs: string;
  /** Of what it is compared with: the same fleet and load with clocks alone. */
  readonly baselineEnergyJ: number;
  readonly baselineAttainment: number;
}

const profileOf = (name: string): Profile => loadProfile(resolve(ROOT, `config/profiles/${name}.json`));
const fleetOf = (profiles: readonly Profile[]): readonly FleetMember[] => profiles.map((profile) => ({ truth: profile, belief: profile }));
const times = (profile: Profile, count: number): readonly Profile[] => Array.from({ length: count }, () => profile);

await refusing(async () => {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '600' },
      'learn-seconds': { type: 'string', default: '3600' },
      seed: { type: 'string', default: '1' },
      sleep: { type: 'string', default: '60:3000:8000' },
      only: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const lengthS = numberOf('seconds', values.seconds, { least: 60, most: 7_200, whole: true });
  const learnS = numberOf('learn-seconds', values['learn-seconds'], { least: 300, most: 36_000, whole: true });
  const seed = numberOf('seed', values.seed, { least: 0, most: 1_000_000, whole: true });
  const sleep = sleepOf(values.sleep);
  const wants = (part: string): boolean => values.only === undefined || values.only === part;
  const cases = [
    ...(wants('knobs') ? knobCases(sleep, { lengthS, seed }) : []),
    ...(wants('fleets') ? fleetCases(sleep, { lengthS, seed }) : []),
    ...(wants('caps') ? capCases({ lengthS: learnS, seed }) : []),
  ];
  process.stdout.write(values.json ? `${JSON.stringify({ sleepOfOneDevice: sleep, seconds: lengthS, learnSeconds: learnS, seed, cases })}\n` : text(cases));
});

interface Lasting {
  readonly lengthS: number;
  readonly seed: number;
}

/** One fleet: clocks alone, and more and more beside them. */
function knobCases(sleep: SleepCosts, lasting: Lasting): readonly Case[] {
  const profile = withSleep(profileOf('llama-3.1-70b.h100-tp4'), sleep);
  const capacity = 4 * capacityPerS(createPerformanceModel(profile));
  const fleet = fleetOf(times(profile, 4));
  return (Object.keys(LOADS) as Load[]).flatMap((load) => {
    const requests = requestsOf(load, capacity, lasting);
    const at = (over: Parameters<typeof play>[3]): Played => play(fleet, requests, CHAT, over);
    const clocks = at(lasting);
    return [
      cased('4 x TP4', load, 'maximum clock', at({ ...lasting, policy: { kind: 'max-clock' } }), clocks),
      cased('4 x TP4', load, 'clock', clocks, clocks),
      cased('4 x TP4', load, 'clock, awake', at({ ...lasting, sleep: { awakeMin: AWAKE_MIN } }), clocks),
      cased('4 x TP4', load, 'clock, awake, batch cap', at({ ...lasting, sleep: { awakeMin: AWAKE_MIN }, batchCap: 'plan' }), clocks),
    ];
  });
}

/** Sixteen devices as servers of two, four or eight, and of all three sizes: the same requests to each. */
function fleetCases(sleep: SleepCosts, lasting: Lasting): readonly Case[] {
  const [tp2, tp4, tp8] = (['tp2', 'tp4', 'tp8'] as const).map((degree) => withSleep(profileOf(`llama-3.1-70b.h100-${degree}`), sleep)) as [Profile, Profile, Profile];
  const capacity = 4 * capacityPerS(createPerformanceModel(tp4));
  const fleets = { '8 x TP2': times(tp2, 8), '4 x TP4': times(tp4, 4), '2 x TP8': times(tp8, 2), '2 x TP2, 1 x TP4, 1 x TP8': [tp2, tp2, tp4, tp8] };
  return (['low', 'middle', 'day'] as const).flatMap((load) => {
    const requests = requestsOf(load, capacity, lasting);
    const baseline = play(fleetOf(fleets['4 x TP4']), requests, CHAT, lasting);
    return Object.entries(fleets).flatMap(([name, profiles]) => [
      cased(name, load, 'clock', play(fleetOf(profiles), requests, CHAT, { ...lasting, batchCap: 'plan' }), baseline),
      cased(name, load, 'clock, awake', play(fleetOf(profiles), requests, CHAT, { ...lasting, batchCap: 'plan', sleep: { awakeMin: AWAKE_MIN } }), baseline),
    ]);
  });
}

/** Long answers: what is configured, each fixed cap, what the profile says, and what is learnt while serving; the last two also where the profile is wrong about the memory. */
function capCases({ lengthS, seed }: Lasting): readonly Case[] {
  const scenes = [
    { name: '4 x TP2, long answers', profile: profileOf('llama-3.1-70b.h100-tp2'), ratePerS: 1.6, outputTokens: 800, memoryErrors: [2, 0.5] },
    { name: '4 x V100, long answers', profile: profileOf('mistral-7b.v100'), ratePerS: 6, outputTokens: 400, memoryErrors: [] },
  ];
  return scenes.flatMap(({ name, profile, ratePerS, outputTokens, memoryErrors }) => {
    const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS }, durationS: lengthS, seed, promptTokens: { kind: 'fixed', tokens: 600 }, outputTokens: { kind: 'lognormal', meanTokens: outputTokens, cv: 0.5 } });
    const at = (over: Partial<Parameters<typeof play>[3]>, belief = profile): Played => play(times(profile, 4).map((truth) => ({ truth, belief })), requests, LONG, { lengthS, seed, ...over });
    const configured = at({});
    return [
      cased(name, `${ratePerS}/s`, 'configured', configured, configured),
      ...CAPS.map((cap) => cased(name, `${ratePerS}/s`, `fixed at ${cap}`, at({ concurrencyMax: cap }), configured)),
      cased(name, `${ratePerS}/s`, 'planned', at({ batchCap: 'plan' }), configured),
      cased(name, `${ratePerS}/s`, 'learnt', at({ batchCap: 'learn' }), configured),
      ...memoryErrors.flatMap((factor) => {
        const belief = { ...profile, serving: { ...profile.serving, kvTokens: Math.round(factor * profile.serving.kvTokens) } };
        return (['plan', 'learn'] as const).map((batchCap) => cased(name, `${ratePerS}/s`, `${batchCap === 'plan' ? 'planned' : 'learnt'}, believes ${factor}x`, at({ batchCap }, belief), configured));
      }),
    ];
  });
}

function cased(name: string, load: string, knobs: string, played: Played, baseline: Played): Case {
  return { name, load, knobs, ...played, baselineEnergyJ: baseline.energyJ, baselineAttainment: baseline.attainment };
}

function sleepOf(given: string): SleepCosts {
  const [powerW = Number.NaN, sleepMs = Number.NaN, wakeMs = Number.NaN] = given.split(':').map(Number);
  if (![powerW, sleepMs, wakeMs].every((value) => value >= 0)) throw new RangeError(`--sleep: got '${given}', want W:SLEEPMS:WAKEMS of one device, such as 60:3000:8000`);
  return { powerW, sleepMs, wakeMs };
}

function text(cases: readonly Case[]): string {
  const line = (cells: readonly string[]): string => cells.map((cell, column) => (column < 3 ? cell.padEnd([27, 8, 25][column] as number) : cell.padStart(13))).join(' ');
  const rows = cases.map(({ name, load, knobs, attainment, perTokenJ, meanPowerW, energyJ, baselineEnergyJ, ttftP99Ms }) =>
    line([name, load, knobs, `${(100 * attainment).toFixed(2)} %`, perTokenJ.toFixed(3), meanPowerW.toFixed(0), `${(100 * (energyJ / baselineEnergyJ - 1)).toFixed(1)} %`, ttftP99Ms.toFixed(0)]),
  );
  return `${[line(['fleet', 'load', 'knobs', 'attainment', 'J/token', 'W', 'energy', 'TTFT p99 ms']), ...rows].join('\n')}\n`;
}
