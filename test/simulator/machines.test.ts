import { describe, expect, test } from 'vitest';
import { type SimulatedRun, type SimulationOptions, simulate } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import type { WorkloadRequest } from '../../src/workload/request.ts';
import { CLOCK_PROFILE, madeProfile } from '../fixtures/profiles.ts';

const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: 3 }, durationS: 60, seed: 7, promptTokens: { kind: 'lognormal', meanTokens: 900, cv: 0.8 }, outputTokens: { kind: 'lognormal', meanTokens: 150, cv: 0.8 } });

function run(over: Partial<SimulationOptions> = {}): SimulatedRun {
  const played = over.requests ?? requests;
  const classes = played.map(() => ({ name: 'chat', slo: { ttftMs: 1000, tpotMs: 50 } }));
  return simulate({ requests: played, classes, replicas: 2, truth: CLOCK_PROFILE, belief: CLOCK_PROFILE, policy: { kind: 'max-clock' }, seed: 1, ...over });
}

function mean(values: readonly (number | null)[]): number {
  const there = values.filter((value) => value !== null);
  return there.reduce((sum, value) => sum + value, 0) / there.length;
}

function spread(values: readonly (number | null)[]): number {
  const middle = mean(values);
  return Math.sqrt(mean(values.map((value) => (value === null ? null : (value - middle) ** 2))));
}

describe('machines that depart from their profile', () => {
  test('noise spreads the times of iterations and leaves their mean', () => {
    // Alone on a replica: all first tokens take the same time but for the noise.
    const alone = Array.from({ length: 300 }, (_, index) => ({ atMs: index * 4000, promptTokens: 800, outputTokens: 20 }));
    const quiet = run({ requests: alone, replicas: 1 });
    const noisy = run({ requests: alone, replicas: 1, machines: { durationCv: 0.2 } });
    const ttfts = noisy.reports.map(({ ttftMs }) => ttftMs);
    const quietMs = quiet.reports[0]?.ttftMs as number;
    expect(spread(quiet.reports.map(({ ttftMs }) => ttftMs))).toBeLessThan(1e-6);
    expect(mean(ttfts) / quietMs).toBeCloseTo(1, 1);
    expect(spread(ttfts) / quietMs).toBeGreaterThan(0.16);
    expect(spread(ttfts) / quietMs).toBeLessThan(0.24);
    // Nineteen steps: their mean spreads by the root of their number less, whether they were run in one go or not.
    const tpots = noisy.reports.map(({ tpotMs }) => tpotMs);
    expect(spread(tpots) / mean(tpots)).toBeGreaterThan(0.2 / Math.sqrt(19) / 1.3);
    expect(spread(tpots) / mean(tpots)).toBeLessThan((0.2 / Math.sqrt(19)) * 1.3);
    expect(JSON.stringify(run({ machines: { durationCv: 0.2 } }))).toBe(JSON.stringify(run({ machines: { durationCv: 0.2 } })));
  });

  test('switch outliers are the truth profile\'s unless others are asked for', () => {
    const paced = (over: Partial<SimulationOptions>): SimulatedRun => run({ policy: { kind: 'paceline' }, ...over });
    const never = { ...CLOCK_PROFILE, switch: { latencyMs: 15 } };
    const often = { ...CLOCK_PROFILE, switch: { latencyMs: 15, outlierMs: 2000, outlierShare: 0.5 } };
    expect(paced({ truth: never }).energyJ).not.toBe(paced({ truth: often }).energyJ);
    expect(paced({ truth: never, machines: { switchOutliers: { share: 0.5, latencyMs: 2000 } } }).energyJ).toBe(paced({ truth: often }).energyJ);
    expect(paced({ truth: often, machines: { switchOutliers: { share: 0, latencyMs: 2000 } } }).energyJ).toBe(paced({ truth: never }).energyJ);
  });

  test('a power cap slows the devices and keeps their power, and nobody above the machines is told', () => {
    const free = run({ untilMs: 80_000 });
    const capped = run({ untilMs: 80_000, machines: { powerCapW: 1500 } });
    expect(mean(capped.reports.map(({ tpotMs }) => tpotMs))).toBeGreaterThan(1.05 * mean(free.reports.map(({ tpotMs }) => tpotMs)));
    expect(capped.clockMhzMean).toBeLessThan(free.clockMhzMean - 50);
    expect((1000 * capped.energyJ) / 80_000).toBeLessThan(2 * 1500);
    expect((1000 * free.energyJ) / 80_000).toBeGreaterThan((1000 * capped.energyJ) / 80_000);
  });
});

test('a mixed fleet sends more to its better half, and says what each replica is believed to be', () => {
  const slow = { ...madeProfile({ knob: 'clockMhz', settings: [780, 1230, 1830].map((clockMhz) => ({ value: clockMhz, speed: (0.5 * clockMhz) / 1830 })) }), name: 'slow' };
  const fleet = [slow, slow, CLOCK_PROFILE, CLOCK_PROFILE].map((profile) => ({ truth: profile, belief: profile }));
  const { reports } = run({ fleet, policy: { kind: 'paceline' } });
  const share = reports.filter(({ replicaId }) => replicaId === 'r2' || replicaId === 'r3').length / reports.length;
  expect(share).toBeGreaterThan(0.6);
  expect(reports.every(({ outcome }) => outcome === 'finished')).toBe(true);
  const alike = run({ fleet: [CLOCK_PROFILE, CLOCK_PROFILE].map((profile) => ({ truth: profile, belief: profile })) });
  expect(JSON.stringify(alike), 'a fleet of one kind is no other thing').toBe(JSON.stringify(run()));
});

test('prompts that begin alike are answered sooner: their prefix is in the cache', () => {
  // As in Mooncake's traces: ids of blocks of 512 tokens, a system prompt and a document that many questions share.
  const asked = Array.from({ length: 60 }, (_, index): WorkloadRequest => ({ atMs: index * 1500, promptTokens: 4296, outputTokens: 20, prefixBlocks: [0, 1, 2, 3, 4, 5, 6, 7, 1000 + index] }));
  const unlike = asked.map((request, index) => ({ ...request, prefixBlocks: request.prefixBlocks?.map((block) => block + 10_000 * index) ?? [] }));
  const [shared, separate] = [run({ requests: asked, replicas: 1 }), run({ requests: unlike, replicas: 1 })];
  expect(separate.cachedPromptTokens).toBe(0);
  expect(shared.cachedPromptTokens).toBe(59 * 8 * 512);
  const ttftMs = ({ reports }: SimulatedRun): number => mean(reports.slice(1).map((report) => report.ttftMs));
  expect(ttftMs(shared)).toBeLessThan(0.3 * ttftMs(separate));
  expect(shared.energyJ).toBeLessThan(separate.energyJ);
});
