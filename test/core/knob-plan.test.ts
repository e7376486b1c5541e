import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { AwakeLoad } from '../../src/core/awake-plan.ts';
import { type FleetPlan, planKnobs } from '../../src/core/knob-plan.ts';
import type { Profile } from '../../src/frontier/profile.ts';
import { madeProfile } from '../fixtures/profiles.ts';

const SIZES = [2, 4].map((devices) => ({ name: `tp${devices}`, profile: madeProfile({ knob: 'level', settings: [0.5, 1].map((value) => ({ value, speed: (value * devices) / 4 })), devices }) }));
const LOAD: AwakeLoad = { arrivalsPerMs: 0.004, peakPerMs: 0.005, promptTokensMean: 800, prefillTokensMean: 800, outputTokensMean: 200, tpotMs: 60, ttftMs: 4_000 };

function fleets(load: AwakeLoad, devices: number, batchTokens: readonly number[] = [], sleep?: Profile['sleep']): readonly FleetPlan[] {
  const configurations = SIZES.map(({ name, profile }) => ({ name, profile: sleep === undefined ? profile : { ...profile, sleep } }));
  const plan = planKnobs({ configurations, devices, batchTokens }, load);
  if (plan.kind !== 'fleets') throw new Error(plan.kind);
  return plan.fleets;
}

const makeUp = ({ parts }: FleetPlan): string => parts.map(({ name, replicas }) => `${replicas}x${name}`).join('+');

test('looks at every make-up of the fleet that the devices allow, and no other', () => {
  const easy = { ...LOAD, arrivalsPerMs: 0.0001, peakPerMs: 0.0002, tpotMs: 500, ttftMs: 60_000 };
  expect(fleets(easy, 6).map(makeUp).toSorted()).toEqual(['1xtp2', '1xtp2+1xtp4', '1xtp4', '2xtp2', '3xtp2']);
  expect(fleets(easy, 1)).toEqual([]);
});

test('gives the cheapest first, all of which have the devices and serve the load', () => {
  fc.assert(
    fc.property(fc.double({ min: 0.0005, max: 0.02, noNaN: true }), fc.integer({ min: 2, max: 16 }), fc.constantFrom(25, 60, 200), (arrivalsPerMs, devices, tpotMs) => {
      const found = fleets({ ...LOAD, arrivalsPerMs, peakPerMs: 1.2 * arrivalsPerMs, tpotMs }, devices);
      expect(found.map(({ powerW }) => powerW)).toEqual(found.map(({ powerW }) => powerW).toSorted((a, b) => a - b));
      for (const fleet of found) {
        expect(fleet.devices).toBeLessThanOrEqual(devices);
        expect(fleet.parts.reduce((sum, { awake, perMsEach }) => sum + awake * perMsEach, 0)).toBeCloseTo(arrivalsPerMs, 9);
      }
    }),
    { numRuns: 40 },
  );
});

test('a limit that small servers cannot keep leaves the large ones', () => {
  const best = fleets({ ...LOAD, tpotMs: 22 }, 8)[0];
  expect(best?.parts.filter(({ perMsEach }) => perMsEach > 0).map(({ name }) => name)).toEqual(['tp4']);
});

test('servers that may sleep do, where others are enough, and the fleet takes no more for having them', () => {
  const [awake, asleep] = [fleets(LOAD, 16), fleets(LOAD, 16, [], { powerW: 1, sleepMs: 0, wakeMs: 0 })];
  const largest = (of: readonly FleetPlan[]): FleetPlan => of.reduce((most, other) => (other.devices > most.devices ? other : most));
  expect(largest(asleep).powerW).toBeLessThan(largest(awake).powerW);
  expect(largest(asleep).parts.some(({ awake: count, replicas }) => count < replicas)).toBe(true);
});

test('a chunk that takes too long beside a short answer is not taken, and a smaller one is where it helps', () => {
  const tight = { ...LOAD, promptTokensMean: 8_000, prefillTokensMean: 8_000, outputTokensMean: 20, tpotMs: 30, arrivalsPerMs: 0.0002, peakPerMs: 0.0003 };
  const [own, smaller] = [fleets(tight, 4), fleets(tight, 4, [512])];
  expect(own.flatMap(({ parts }) => parts.map(({ name }) => name))).not.toContain('tp4');
  expect(smaller.flatMap(({ parts }) => parts).find(({ name }) => name === 'tp4')?.batchTokens).toBe(512);
});

test('a space too large to look at whole is refused, not cut short', () => {
  const many = Array.from({ length: 8 }, () => SIZES[0] as (typeof SIZES)[number]);
  expect(planKnobs({ configurations: many, devices: 200, batchTokens: [] }, LOAD).kind).toBe('too-many');
});
