import { describe, expect, test } from 'vitest';
import type { Effect } from '../../src/scheduler/events.ts';
import { type SimulatedRun, simulate, type SimulationOptions } from '../../src/simulator/simulate.ts';
import { makeSynthetic } from '../../src/workload/synthetic.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const PROFILE = { ...CLOCK_PROFILE, sleep: { powerW: 150, sleepMs: 2_000, wakeMs: 5_000 } };
const AWAKE_MIN_ONE = { awakeMin: 1 };

function run(over: Partial<SimulationOptions> & { readonly ratePerS?: number; readonly durationS?: number } = {}): SimulatedRun & { readonly effects: readonly { readonly kind: Effect['kind']; readonly atMs: number }[] } {
  const { ratePerS = 1, durationS = 300, ...options } = over;
  const { requests } = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS }, durationS, seed: 5, promptTokens: { kind: 'lognormal', meanTokens: 800, cv: 0.8 }, outputTokens: { kind: 'lognormal', meanTokens: 150, cv: 0.8 } });
  const effects: { kind: Effect['kind']; atMs: number }[] = [];
  const observer = { onEffect: ({ kind }: Effect, atMs: number): void => void effects.push({ kind, atMs }), onRoute: (): void => {} };
  const simulated = simulate({ requests, classes: requests.map(() => ({ name: 'chat', slo: { ttftMs: 1_000, tpotMs: 50 } })), replicas: 4, truth: PROFILE, belief: PROFILE, policy: { kind: 'paceline' }, seed: 1, untilMs: durationS * 1_000, sleep: AWAKE_MIN_ONE, observer, ...options });
  return { ...simulated, effects };
}

const attainment = ({ reports, rejected }: SimulatedRun): number => reports.filter(({ met }) => met === true).length / (reports.length + rejected);

describe('a fleet in which servers may sleep', () => {
  test('takes at least a tenth less energy at a low load than with its clocks alone, and meets as much', () => {
    const [clocks, both] = [run({ sleep: undefined as never }), run()];
    expect(attainment(both)).toBeGreaterThan(attainment(clocks) - 0.01);
    expect(both.energyJ).toBeLessThan(0.9 * clocks.energyJ);
  });

  test('never draws less than all asleep but those that must be awake', () => {
    const { energyJ, durationMs } = run({ ratePerS: 0.05 });
    expect(energyJ).toBeGreaterThan((durationMs / 1000) * 3 * PROFILE.sleep.powerW);
  });

  test('wakes them for a burst and puts them back to sleep after it', () => {
    const quiet = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: 0.5 }, durationS: 400, seed: 2, promptTokens: { kind: 'fixed', tokens: 800 }, outputTokens: { kind: 'fixed', tokens: 150 } }).requests;
    const burst = makeSynthetic({ arrivals: { kind: 'poisson', ratePerS: 30 }, durationS: 40, seed: 3, promptTokens: { kind: 'fixed', tokens: 800 }, outputTokens: { kind: 'fixed', tokens: 150 } }).requests;
    const requests = [...quiet, ...burst.map((request) => ({ ...request, atMs: request.atMs + 150_000 }))].toSorted((a, b) => a.atMs - b.atMs);
    const { effects, reports } = run({ requests, classes: requests.map(() => ({ name: 'chat', slo: { ttftMs: 8_000 } })), untilMs: 400_000 });
    const atMs = (kind: Effect['kind']): number[] => effects.filter((effect) => effect.kind === kind).map((effect) => effect.atMs);
    expect(atMs('sleep').filter((at) => at < 150_000).length).toBeGreaterThanOrEqual(3);
    expect(atMs('wake').filter((at) => at > 150_000 && at < 170_000).length).toBeGreaterThanOrEqual(2);
    expect(atMs('sleep').filter((at) => at > 190_000).length).toBeGreaterThanOrEqual(2);
    expect(reports.length).toBe(requests.length);
  });

  test('gives the same bytes for the same seed', () => {
    expect(JSON.stringify(run())).toBe(JSON.stringify(run()));
  });

  test('serves all where even the last one may sleep', () => {
    const { reports, effects } = run({ ratePerS: 0.02, durationS: 1_500, sleep: { awakeMin: 0 } });
    expect(reports.every(({ outcome }) => outcome === 'finished')).toBe(true);
    expect(effects.some(({ kind }) => kind === 'wake')).toBe(true);
  });

  test('puts nobody to sleep whose machine has no such mode, whatever is believed of it', () => {
    expect(run({ truth: CLOCK_PROFILE }).effects.some(({ kind }) => kind === 'sleep')).toBe(false);
  });
});

test.each([1, 2, 3, 4])('whatever comes, nothing is sent to a server that sleeps, and none sleeps with work on it (seed %d)', (seed) => {
  // The machines assert both. Bursts and silences, so that servers come and go.
  const requests = makeSynthetic({ arrivals: { kind: 'bursty', ratePerS: 2, cv: 6 }, durationS: 900, seed, promptTokens: { kind: 'lognormal', meanTokens: 900, cv: 1.5 }, outputTokens: { kind: 'lognormal', meanTokens: 200, cv: 1.2 } }).requests;
  const { reports, rejected, effects } = run({ requests, classes: requests.map((_, index) => ({ name: 'chat', slo: index % 3 === 0 ? {} : { ttftMs: 1_500, tpotMs: 60 } })), seed, sleep: { awakeMin: seed % 2 }, metered: true, untilMs: 900_000 });
  expect(reports.length + rejected).toBe(requests.length);
  const count = (kind: Effect['kind']): number => effects.filter((effect) => effect.kind === kind).length;
  expect(count('sleep')).toBeGreaterThan(3);
  expect(count('wake')).toBeGreaterThan(1);
});
