// A share of the fault schedules (`npm run -s bench:faults` plays more of them), with everything real.
import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { violationsOf } from '../../bench/faults/invariants.ts';
import { play } from '../../bench/faults/play.ts';
import { AGENT_BINARY } from '../../bench/faults/rig.ts';
import { describeFault, FAULT_KINDS, makeSchedule, scheduleSeed, SHAPE } from '../../bench/faults/schedule.ts';

describe('a schedule', () => {
  test('is the same for the same seed, and another for another', () => {
    expect(makeSchedule(7)).toEqual(makeSchedule(7));
    expect(makeSchedule(8).faults).not.toEqual(makeSchedule(7).faults);
  });

  test('breaks one thing once at a time, within its bounds', () => {
    for (let seed = 0; seed < 300; seed++) {
      const { faults } = makeSchedule(seed);
      expect(faults.length, `seed ${seed}`).toBeGreaterThanOrEqual(SHAPE.faults.min);
      faults.forEach((one, index) => {
        const overlapping = faults.slice(index + 1).filter((other) => other.target === one.target && other.index === one.index && other.atMs <= one.atMs + one.lengthMs);
        expect(overlapping.map(describeFault), `seed ${seed}`).toEqual([]);
      });
    }
  });

  test('leaves no kind of fault out, over some seeds', () => {
    const drawn = new Set(Array.from({ length: 60 }, (_, seed) => makeSchedule(seed)).flatMap(({ faults }) => faults.map(({ target, kind }) => `${target} ${kind}`)));
    expect(drawn.size).toBe(Object.values(FAULT_KINDS).flat().length);
  });
});

/** Whose first three schedules have every kind of fault, and a while in which no model server is alive. */
const SEED = 1623;

describe('whatever is broken, every invariant holds', () => {
  test('and everything is broken in these schedules', () => {
    const broken = new Set([0, 1, 2].flatMap((only) => makeSchedule(scheduleSeed(SEED, only)).faults.map(({ target, kind }) => `${target} ${kind}`)));
    expect([...broken].sort()).toEqual(Object.entries(FAULT_KINDS).flatMap(([target, kinds]) => kinds.map((kind) => `${target} ${kind}`)).sort());
  });

  test.each([0, 1, 2])('schedule %i', { timeout: 90_000 }, async (only) => {
    expect(existsSync(AGENT_BINARY), 'make agent builds the agent these tests need').toBe(true);
    const schedule = makeSchedule(scheduleSeed(SEED, only));
    const observation = await play(schedule);
    expect(violationsOf(observation), `npm run -s bench:faults -- --seed ${SEED} --only ${only}; ${schedule.faults.map(describeFault).join('; ')}`).toEqual([]);
    // The load was there, and all faults took place.
    expect(observation.seen.filter(({ outcome }) => outcome.kind === 'whole').length).toBeGreaterThan(20);
    expect(observation.faults).toHaveLength(schedule.faults.length);
    expect(observation.clocks.length, 'the devices were looked at when all gateways had been killed').toBeGreaterThan(0);
  });
});
