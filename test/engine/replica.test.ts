import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { limitsOf } from '../../src/engine/batching.ts';
import { createPhysics } from '../../src/engine/physics.ts';
import type { EmulatedReplica } from '../../src/engine/replica.ts';
import { createEmulatedReplica } from '../../src/engine/replica.ts';
import { fixtureProfile } from './fixture-profile.ts';

interface Seen {
  readonly atMs: number;
  readonly id: number;
  readonly kind: string;
  readonly outputTokens: number;
}

const profile = fixtureProfile({ deviceGroup: { device: 'x', devices: 2 }, serving: { maxBatchTokens: 512, maxSequences: 8, kvTokens: 8000 } });
const physics = createPhysics(profile);

function createReplica(tokenEvents: 'each' | 'first-and-last', catchUpMaxMs?: number): { replica: EmulatedReplica<number>; seen: Seen[] } {
  const seen: Seen[] = [];
  const replica = createEmulatedReplica<number>({
    physics,
    limits: limitsOf(profile),
    seed: 3,
    startMs: 0,
    tokenEvents,
    deliver: (events, atMs) => seen.push(...events.map(({ id, kind, outputTokens }) => ({ atMs, id, kind, outputTokens }))),
    ...(catchUpMaxMs === undefined ? {} : { catchUpMaxMs }),
  });
  return { replica, seen };
}

describe('a request alone', () => {
  test('takes its prefill and then one step per token, at the clock of the devices', () => {
    const { replica, seen } = createReplica('each');
    replica.submit({ id: 1, promptTokens: 400, outputTokens: 3 }, 1000);
    replica.advanceTo(5000);
    const none = { tokens: 0, contextTokens: 0 };
    const prefillMs = physics.iterationTimeMs({ prefill: { tokens: 400, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } }, 1980);
    const firstMs = physics.iterationTimeMs({ prefill: none, decode: { sequences: 1, contextTokens: 401 } }, 1980);
    expect(seen.map(({ kind }) => kind)).toEqual(['token', 'token', 'finished']);
    expect(seen[0]?.atMs).toBeCloseTo(1000 + prefillMs, 6);
    expect(seen[1]?.atMs).toBeCloseTo(1000 + prefillMs + firstMs, 6);
  });

  test('is slower and cheaper per second at a lower clock', () => {
    const run = (clockMhz: number): { tookMs: number; energyJ: number } => {
      const { replica, seen } = createReplica('first-and-last');
      replica.lock(0, { minMhz: clockMhz, maxMhz: clockMhz }, 0);
      replica.lock(1, { minMhz: clockMhz, maxMhz: clockMhz }, 0);
      replica.advanceTo(100);
      replica.submit({ id: 1, promptTokens: 400, outputTokens: 100 }, 100);
      replica.advanceTo(3000);
      return { tookMs: (seen.at(-1)?.atMs ?? 0) - 100, energyJ: replica.energyJ() };
    };
    expect(run(795).tookMs).toBeGreaterThan(1.3 * run(1980).tookMs);
    expect(run(795).energyJ).toBeLessThan(run(1980).energyJ);
  });
});

test('a caller that is late finds the same times as one that is not, up to the bound of what is caught up', () => {
  const run = (everyMs: number, catchUpMaxMs?: number): Seen[] => {
    const { replica, seen } = createReplica('each', catchUpMaxMs);
    replica.submit({ id: 1, promptTokens: 400, outputTokens: 200 }, 0);
    for (let atMs = 0; atMs < 4000; atMs += everyMs) replica.advanceTo(atMs);
    return seen;
  };
  expect(run(90)).toEqual(run(1));
  expect(run(90, 100)).toEqual(run(1));
  expect(run(900, 100).at(-1)?.atMs).toBeGreaterThan((run(1).at(-1)?.atMs ?? 0) + 100);
});

// What the simulator relies on: skipping over decode steps changes nothing that it sees.
const eventArbitrary = fc.record({
  afterMs: fc.double({ min: 0, max: 400, noNaN: true }),
  what: fc.oneof(
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('submit' as const), promptTokens: fc.integer({ min: 1, max: 900 }), outputTokens: fc.integer({ min: 0, max: 300 }) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), id: fc.nat({ max: 40 }) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('lock' as const), device: fc.nat({ max: 1 }), clockMhz: fc.constantFrom(500, 795, 1000, 1590, 1980) }) },
    { weight: 1, arbitrary: fc.constant({ kind: 'look' as const }) },
  ),
});

test('runs of decode steps give the same events, times, tokens and energy as single steps', () => {
  fc.assert(
    fc.property(fc.array(eventArbitrary, { minLength: 1, maxLength: 40 }), (events) => {
      const [single, run] = (['each', 'first-and-last'] as const).map((tokenEvents) => {
        const { replica, seen } = createReplica(tokenEvents);
        const looks: number[] = [];
        let atMs = 0;
        events.forEach(({ afterMs, what }, id) => {
          atMs += afterMs;
          // As the simulator does: from event to event.
          while (replica.nextEventAtMs() < atMs) replica.advanceTo(replica.nextEventAtMs());
          replica.advanceTo(atMs);
          if (what.kind === 'submit') replica.submit({ id, promptTokens: what.promptTokens, outputTokens: what.outputTokens }, atMs);
          else if (what.kind === 'cancel') replica.cancel(what.id, atMs);
          else if (what.kind === 'lock') replica.lock(what.device, { minMhz: what.clockMhz, maxMhz: what.clockMhz }, atMs);
          else for (let other = 0; other < id; other++) looks.push(replica.outputTokensOf(other) ?? -1);
        });
        replica.advanceTo(atMs + 200_000);
        return { seen: seen.filter(({ kind, outputTokens }) => kind === 'finished' || outputTokens === 1), looks, stats: replica.stats(), energyJ: replica.energyJ() };
      });
      expect(run?.looks).toEqual(single?.looks);
      expect(run?.stats).toEqual(single?.stats);
      expect((run?.energyJ ?? 0) / (single?.energyJ ?? 1)).toBeCloseTo(1, 4);
      expect(run?.seen.map(({ id, kind, outputTokens }) => [id, kind, outputTokens])).toEqual(single?.seen.map(({ id, kind, outputTokens }) => [id, kind, outputTokens]));
      run?.seen.forEach(({ atMs }, index) => expect(Math.abs(atMs - (single?.seen[index]?.atMs ?? 0))).toBeLessThan(1e-3));
    }),
    { numRuns: 300 },
  );
});
