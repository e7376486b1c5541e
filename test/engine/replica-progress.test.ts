import { expect, test } from 'vitest';
import { limitsOf } from '../../src/engine/batching.ts';
import { createPhysics } from '../../src/engine/physics.ts';
import { createEmulatedReplica } from '../../src/engine/replica.ts';
import { fixtureProfile } from './fixture-profile.ts';

const profile = fixtureProfile();
const physics = createPhysics(profile);

/** Tokens of each request and when the last came, looked at every few milliseconds; and what there was in the end. */
function looksOf(tokenEvents: 'each' | 'first-and-last', durationCv = 0): { looks: (number | boolean)[][]; lastAtMs: number; energyJ: number } {
  let lastAtMs = 0;
  const replica = createEmulatedReplica<number>({ physics, limits: limitsOf(profile), seed: 9, startMs: 0, tokenEvents, durationCv, deliver: (_, atMs) => (lastAtMs = atMs) });
  const looks: (number | boolean)[][] = [];
  replica.submit({ id: 1, promptTokens: 700, outputTokens: 120 }, 0);
  for (let nowMs = 3; nowMs < 2000; nowMs += 3.7) {
    if (looks.length === 40) replica.submit({ id: 2, promptTokens: 300, outputTokens: 60 }, nowMs);
    if (looks.length === 90) replica.lock(0, { minMhz: 1200, maxMhz: 1200 }, nowMs);
    replica.advanceTo(nowMs);
    const [one, two] = [replica.outputTokensOf(1), replica.outputTokensOf(2)];
    looks.push([one ?? -1, two ?? -1, replica.busy(), replica.busy() && (one ?? two ?? 0) > 0 ? replica.lastStepAtMs() : 0]);
  }
  return { looks, lastAtMs, energyJ: replica.energyJ() };
}

test('looking at a run of equal steps sees every token at its time and changes nothing', () => {
  const [each, run] = [looksOf('each'), looksOf('first-and-last')];
  each.looks.forEach((look, index) => {
    const seen = run.looks[index] as typeof look;
    expect(seen.slice(0, 3), `look ${index}`).toEqual(look.slice(0, 3));
    expect(seen[3], `look ${index}`).toBeCloseTo(look[3] as number, 6);
  });
  expect(run.lastAtMs).toBeCloseTo(each.lastAtMs, 6);
  // A run is played at its mean context, whose power is not quite the mean power.
  expect(run.energyJ / each.energyJ).toBeCloseTo(1, 5);
});

test('under noise what has been seen never goes back, and the last step is never ahead', () => {
  const { looks } = looksOf('first-and-last', 0.3);
  for (let index = 1; index < looks.length; index++) {
    const [before, now] = [looks[index - 1]?.[0] as number, looks[index]?.[0] as number];
    if (now >= 0) expect(now).toBeGreaterThanOrEqual(before);
    expect(looks[index]?.[3]).toBeLessThanOrEqual(3 + index * 3.7 + 1e-9);
  }
});
