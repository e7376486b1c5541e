import { describe, expect, test } from 'vitest';
import { createPhysics } from '../../src/engine/physics.ts';
import { extrapolations, oversized, uncapped } from '../../src/simulator/coverage.ts';
import { aloneAtFastest, couldBeMet } from '../../src/simulator/feasibility.ts';
import { simulate } from '../../src/simulator/simulate.ts';
import { CLOCK_PROFILE } from '../fixtures/profiles.ts';

const request = (promptTokens: number, outputTokens = 100): { atMs: number; promptTokens: number; outputTokens: number } => ({ atMs: 0, promptTokens, outputTokens });
const SMALL = { ...CLOCK_PROFILE, name: 'small', serving: { ...CLOCK_PROFILE.serving, kvTokens: 5000 } };

describe('what a profile covers', () => {
  test('a request that fits into the largest replica of a fleet is not too large', () => {
    expect(oversized([request(6000)], [SMALL])).toBe('request 0: 6000+100 tokens, small holds kvTokens 5000');
    expect(oversized([request(6000)], [SMALL, CLOCK_PROFILE])).toBeNull();
    expect(oversized([request(100), { ...request(900_000), line: 7 }], [SMALL, CLOCK_PROFILE])).toBe('request 1 (trace line 7): 900000+100 tokens, made-clockMhz holds kvTokens 400000');
  });

  test('work beyond the largest measured is named with the point whose measurements end first', () => {
    const few = { ...CLOCK_PROFILE, decode: CLOCK_PROFILE.decode.filter(({ point, sequences }) => sequences <= (point === '1230' ? 8 : 64)) };
    const many = Array.from({ length: 300 }, () => request(1000));
    expect(extrapolations(few, many, Number.POSITIVE_INFINITY)).toEqual(['made-clockMhz: largest measured decode batch 8 sequences at point 1230, asked up to 256: extrapolated']);
    expect(extrapolations(few, many, 8)).toEqual([]);
    expect(extrapolations(few, many.slice(0, 8), Number.POSITIVE_INFINITY)).toEqual([]);
    expect(extrapolations(CLOCK_PROFILE, many, 256)).toEqual([]);
  });

  test('a power cap below what the lowest clock draws is said not to be kept', () => {
    const physics = createPhysics(CLOCK_PROFILE);
    expect(uncapped(physics, 2000)).toBeNull();
    expect(uncapped(physics, 600)).toMatch(/^made-clockMhz: a prefill of 2048 tokens draws \d+ W even at 780 MHz, the lowest clock measured: a cap of 600 W is not kept there$/);
  });
});

test('a request alone takes as long in the simulator as is said of it', () => {
  const asked = request(5000, 40);
  const alone = aloneAtFastest(createPhysics(CLOCK_PROFILE), asked);
  const [report] = simulate({ requests: [asked], classes: [{ name: 'c', slo: {} }], replicas: 1, truth: CLOCK_PROFILE, belief: CLOCK_PROFILE, policy: { kind: 'max-clock' }, seed: 1 }).reports;
  expect(alone.ttftMs).toBeCloseTo(report?.ttftMs as number, 6);
  expect(alone.tpotMs).toBeCloseTo(report?.tpotMs as number, 6);
  expect(alone.e2eMs).toBeCloseTo(report?.e2eMs as number, 6);
});

test.each([
  { slo: {}, met: true },
  { slo: { ttftMs: 1 }, met: false },
  { slo: { tpotMs: 5 }, met: false },
  { slo: { ttftMs: 1000, tpotMs: 50, e2eMs: 1_000_000 }, met: true },
  { slo: { ttftMs: 1000, tpotMs: 50, e2eMs: 500 }, met: false },
])('$slo can be met alone: $met', ({ slo, met }) => {
  expect(couldBeMet([createPhysics(CLOCK_PROFILE)], request(1000), slo)).toBe(met);
});
