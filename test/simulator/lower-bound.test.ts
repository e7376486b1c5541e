import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Slo } from '../../src/core/job.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Profile } from '../../src/frontier/profile.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { createRandom } from '../../src/random/random.ts';
import { simulateClairvoyant } from '../../src/simulator/clairvoyant.ts';
import { chargesOf, energyLowerBoundJ, fitOf } from '../../src/simulator/lower-bound.ts';
import { type SimulatedRun, type SimulationOptions, simulate } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const DIRECTORY = join(import.meta.dirname, '../../config/profiles');
const PROFILES = [CLOCK_PROFILE, ...['llama-3.1-70b.h100-tp4', 'llama-3.1-8b.h200', 'mistral-7b.v100'].map((name) => loadProfile(join(DIRECTORY, `${name}.json`)))];
const SHIPPED = readdirSync(DIRECTORY)
  .filter((file) => file.endsWith('.json'))
  .map((file) => loadProfile(join(DIRECTORY, file)));
const SLOS: readonly Slo[] = [{ ttftMs: 4000, tpotMs: 120 }, { ttftMs: 2500 }, { tpotMs: 100 }, { e2eMs: 60_000 }, {}];
const TAIL_MS = 20_000;

type Drawn = Omit<SimulationOptions, 'policy'> & { readonly untilMs: number };

/** A small workload on a profile, and machines, drawn from the seed. */
function drawn(seed: number): Drawn {
  const random = createRandom(seed, 'lower-bound');
  const truth = PROFILES[seed % PROFILES.length] as (typeof PROFILES)[number];
  const { requests } = makeSynthetic({
    arrivals: random() < 0.5 ? { kind: 'poisson', ratePerS: 0.2 + 3 * random() } : { kind: 'bursty', ratePerS: 0.2 + 2 * random(), cv: 3 },
    durationS: 25,
    seed,
    promptTokens: { kind: 'lognormal', meanTokens: 100 + 600 * random(), cv: 1 },
    outputTokens: { kind: 'lognormal', meanTokens: 20 + 150 * random(), cv: 1 },
  });
  const truthScale = random() < 0.5 ? {} : { time: 0.9 + 0.2 * random(), power: 0.8 + 0.4 * random() };
  return {
    requests,
    classes: requests.map(() => ({ name: 'drawn', slo: SLOS[Math.floor(random() * SLOS.length)] as Slo })),
    replicas: 1 + Math.floor(3 * random()),
    truth,
    truthScale,
    belief: truth,
    seed,
    untilMs: (requests.at(-1)?.atMs ?? 0) + TAIL_MS,
  };
}

function boundJ(options: Omit<Drawn, 'belief' | 'seed'>): number {
  return energyLowerBoundJ({ ...options, slos: options.classes.map(({ slo }) => slo), windowMs: options.untilMs });
}

function meetsAll({ reports }: SimulatedRun): boolean {
  return reports.every(({ met, outcome }) => met ?? outcome === 'finished');
}

interface Worst {
  /** Of the excess over what is charged for it, 1 being all of it; and of the time over what its price is put on. */
  readonly energy: number;
  readonly time: number;
  readonly at: string;
}

/** The iteration that comes closest to its charges, over many sizes at every point. */
function closest(profile: Profile, passShare: number, streamsMax: number): Worst {
  const model = createPerformanceModel(profile);
  const { maxBatchTokens } = profile.serving;
  const parkedW = Math.min(...profile.points.map(({ idlePowerW }) => idlePowerW));
  const tokenCounts = [0, 1, 3, 16, 50, 100, 130, 170, 250, 400, 1000, maxBatchTokens >> 1, maxBatchTokens - streamsMax, maxBatchTokens - 1];
  const streamCounts = [0, 1, 2, 5, 16, 60, 130, streamsMax].filter((streams) => streams <= streamsMax);
  let worst: Worst = { energy: Infinity, time: Infinity, at: '' };
  profile.points.forEach(({ id }, point) => {
    const charges = chargesOf(fitOf(model, point), { parkedW, passShare, streamsMax });
    const [fixedMs, perStreamMs, perContextMs] = charges.stepMs;
    for (const tokens of tokenCounts) {
      for (const before of tokens === 0 ? [0] : [0, 300, 20_000]) {
        for (const streams of streamCounts) {
          for (const context of streams === 0 ? [0] : [1, 700, 9000]) {
            if (tokens + streams === 0) continue;
            const attention = tokens * (tokens / 2 + before);
            const work = { prefill: { tokens, contextTokens: before }, decode: { sequences: streams, contextTokens: streams * context } };
            const timeMs = model.iterationTimeMs(work, point);
            const excessJ = model.iterationEnergyJ(work, point) - (parkedW * timeMs) / 1000;
            const prefillJ = tokens * (charges.prefillPerTokenJ[tokens] as number) + attention * (charges.prefillPerAttentionJ[tokens] as number);
            const decodeJ = streams * ((charges.decodePerStreamJ[streams] as number) + context * (charges.decodePerContextJ[streams] as number));
            const stepMs = streams === 0 ? 0 : fixedMs + perStreamMs * streams + perContextMs * streams * context;
            const energy = Math.min(prefillJ, decodeJ) < -1e-9 ? -1 : excessJ / (prefillJ + decodeJ);
            const time = streams === 0 ? Infinity : timeMs / stepMs;
            const mixed = tokens > 0 && streams > 0;
            // A step without prefill is charged in full, which says nothing of mixed ones; only one that falls short counts.
            if (energy < worst.energy && (mixed || energy < 1 - 1e-9)) worst = { ...worst, energy, at: `${id}, ${tokens} tokens after ${before}, ${streams} streams of ${context}` };
            if (time < worst.time) worst = { ...worst, time };
          }
        }
      }
    }
  });
  return worst;
}

describe('the lower bound', () => {
  const SPLITS = [CLOCK_PROFILE, ...SHIPPED].flatMap((profile) => [0, 0.3, 1].flatMap((passShare) => [6, profile.serving.maxSequences].map((streamsMax) => ({ name: profile.name, profile, passShare, streamsMax }))));
  test.each(SPLITS)('charges no iteration more than its excess, and some all of it: $name, $passShare of the shared pass to decode, up to $streamsMax streams', ({ profile, passShare, streamsMax }) => {
    const { energy, time, at } = closest(profile, passShare, streamsMax);
    expect(energy, at).toBeGreaterThan(1 - 1e-9);
    expect(energy, at).toBeLessThan(1.02);
    expect(time).toBeGreaterThan(1 - 1e-9);
  });

  test.each(Array.from({ length: 16 }, (_, index) => index + 1))('is below the energy of every run that meets all SLOs (seed %d)', (seed) => {
    const options = drawn(seed);
    const points = options.truth.points.filter((_, index) => index % 4 === 0);
    const runs = [
      simulate({ ...options, policy: { kind: 'max-clock' } }),
      simulate({ ...options, policy: { kind: 'paceline' } }),
      ...points.map(({ id }) => simulate({ ...options, policy: { kind: 'static', pointId: id }, routing: 'energy' })),
      simulateClairvoyant({ ...options, effort: 0.1 }),
    ].filter(meetsAll);
    const leastJ = boundJ(options);
    expect(runs.length, `seed ${seed}: some run meets all`).toBeGreaterThan(0);
    for (const { energyJ } of runs) expect(energyJ, `seed ${seed}`).toBeGreaterThanOrEqual(leastJ);
  });

  test('is what idling takes, parked, where nothing arrives', () => {
    const parkedW = Math.min(...CLOCK_PROFILE.points.map(({ idlePowerW }) => idlePowerW));
    expect(energyLowerBoundJ({ requests: [], slos: [], truth: CLOCK_PROFILE, replicas: 3, windowMs: 60_000 })).toBeCloseTo(3 * 60 * parkedW, 6);
  });

  test('is not lower for less patience, nor for more requests', () => {
    const options = drawn(4);
    const tighter = { ...options, classes: options.requests.map(() => ({ name: 'tight', slo: { ttftMs: 2000, tpotMs: 60 } })) };
    const looser = { ...options, classes: options.requests.map(() => ({ name: 'loose', slo: { ttftMs: 8000, tpotMs: 120 } })) };
    expect(boundJ(tighter)).toBeGreaterThanOrEqual(boundJ(looser));
    const fewer = { ...looser, requests: options.requests.slice(0, -5), classes: looser.classes.slice(0, -5) };
    expect(boundJ(looser)).toBeGreaterThan(boundJ(fewer));
  });

  test('follows a truth that draws more, in proportion', () => {
    const options = { ...drawn(2), truthScale: {} };
    expect(boundJ({ ...options, truthScale: { power: 1.3 } })).toBeCloseTo(1.3 * boundJ(options), 3);
  });
});
