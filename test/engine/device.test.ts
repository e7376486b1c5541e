import { describe, expect, test } from 'vitest';
import type { EmulatedGroup } from '../../src/engine/device.ts';
import { createEmulatedGroup } from '../../src/engine/device.ts';
import { createPhysics } from '../../src/engine/physics.ts';
import { fixtureProfile } from './fixture-profile.ts';

const WORK = { prefill: { tokens: 2000, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };

function createGroup(devices = 1, overrides: Parameters<typeof fixtureProfile>[0] = {}): { group: EmulatedGroup; physics: ReturnType<typeof createPhysics> } {
  const physics = createPhysics(fixtureProfile({ deviceGroup: { device: 'x', devices }, ...overrides }));
  return { group: createEmulatedGroup({ physics, seed: 7, startMs: 0 }), physics };
}
const lockedAt = (clockMhz: number): { minMhz: number; maxMhz: number } => ({ minMhz: clockMhz, maxMhz: clockMhz });

describe('a lock', () => {
  test('settles after the switch latency', () => {
    const { group } = createGroup();
    group.lock(0, lockedAt(1200), 100);
    expect(group.settlesAtMs()).toBe(115);
    expect(group.clockMhz()).toBe(1980);
    group.settle(115);
    expect(group.clockMhz()).toBe(1200);
  });

  test('that comes while another settles follows it, and the latest of several wins', () => {
    const { group } = createGroup();
    group.lock(0, lockedAt(1200), 0);
    group.lock(0, lockedAt(795), 5);
    group.lock(0, null, 10);
    group.settle(15);
    expect(group.clockMhz()).toBe(1200);
    expect(group.settlesAtMs()).toBe(30);
    group.settle(30);
    expect(group.clockMhz()).toBe(1980);
    expect(group.settlesAtMs()).toBe(Infinity);
  });

  test.each([
    { minMhz: 0, maxMhz: 1201, clockMhz: 1200 },
    { minMhz: 0, maxMhz: 5000, clockMhz: 1980 },
    { minMhz: 100, maxMhz: 200, clockMhz: 345 },
    { minMhz: 1301, maxMhz: 1304, clockMhz: 1305 },
  ])('from $minMhz to $maxMhz runs at $clockMhz MHz', ({ minMhz, maxMhz, clockMhz }) => {
    const { group } = createGroup();
    group.lock(0, { minMhz, maxMhz }, 0);
    group.settle(15);
    expect(group.clockMhz()).toBe(clockMhz);
  });

  test('settles late as often and at most as much as the profile says', () => {
    const { group } = createGroup(1, { switch: { latencyMs: 10, outlierMs: 480, outlierShare: 0.2 } });
    const latenciesMs: number[] = [];
    for (let atMs = 0; latenciesMs.length < 500; atMs += 1000) {
      group.lock(0, latenciesMs.length % 2 === 0 ? lockedAt(795) : null, atMs);
      latenciesMs.push(group.settlesAtMs() - atMs);
      group.settle(group.settlesAtMs());
    }
    const late = latenciesMs.filter((latencyMs) => latencyMs > 10);
    expect(Math.min(...latenciesMs)).toBe(10);
    expect(Math.max(...latenciesMs)).toBeLessThanOrEqual(480);
    expect(late.length / latenciesMs.length).toBeCloseTo(0.2, 1);
  });
});

test('a group is as fast as its slowest member', () => {
  const { group, physics } = createGroup(4);
  group.lock(2, lockedAt(795), 0);
  group.settle(15);
  group.begin(WORK, 1, 20);
  expect(group.endsAtMs()).toBeCloseTo(20 + physics.iterationTimeMs(WORK, 795), 9);
});

test('work under way goes on at the new speed when a clock settles', () => {
  const { group, physics } = createGroup();
  group.begin(WORK, 1, 0);
  const fastMs = physics.iterationTimeMs(WORK, 1980);
  const slowMs = physics.iterationTimeMs(WORK, 795);
  group.lock(0, lockedAt(795), 5);
  group.settle(20);
  expect(group.endsAtMs()).toBeCloseTo(20 + (1 - 20 / fastMs) * slowMs, 9);
});

test('energy is the busy power while there is work and the idle power while there is none', () => {
  const { group, physics } = createGroup(2);
  group.begin(WORK, 1, 0);
  const workMs = group.endsAtMs();
  group.end(workMs);
  group.advance(workMs + 1000);
  expect(group.energyJ()).toBeCloseTo(physics.iterationEnergyJ(WORK, 1980) + physics.idlePowerW(1980), 6);
});

test('the energy counter shows the energy of its last tick, and ticks every 100 ms', () => {
  const { group, physics } = createGroup();
  const { tickAtMs: firstTickMs } = group.reading(0);
  const seen = new Set<number>();
  for (let atMs = 0; atMs <= 2000; atMs += 7) {
    group.advance(atMs);
    const { tickAtMs, tickEnergyJ } = group.reading(0);
    seen.add(tickAtMs);
    expect(atMs - tickAtMs).toBeLessThan(100 + 1e-6);
    expect(tickEnergyJ).toBeCloseTo((physics.idlePowerW(1980) * Math.max(0, tickAtMs)) / 1000, 6);
    expect(((tickAtMs - firstTickMs) / 100) % 1).toBeCloseTo(0, 6);
  }
  expect(seen.size).toBeGreaterThanOrEqual(20);
});

test('utilisation is the share of the last tick period with work', () => {
  const { group } = createGroup();
  const { tickAtMs } = group.reading(0);
  group.advance(tickAtMs + 300);
  group.begin(WORK, 1, tickAtMs + 310);
  group.end(tickAtMs + 335);
  group.advance(tickAtMs + 401);
  expect(group.reading(0).utilisationPct).toBeCloseTo(25, 6);
  group.advance(tickAtMs + 1000);
  expect(group.reading(0).utilisationPct).toBe(0);
});

test('a power limit slows work until it keeps within, and says so', () => {
  const { group, physics } = createGroup();
  group.limitPower(0, 400, 0);
  expect(group.clockMhz()).toBe(1980);
  group.begin(WORK, 1, 0);
  expect(group.clockMhz()).toBeLessThan(1980);
  expect(physics.iterationPowerW(WORK, group.clockMhz())).toBeLessThanOrEqual(400);
  expect(physics.iterationPowerW(WORK, group.clockMhz() + 15)).toBeGreaterThan(400);
  expect(group.reading(0).throttleReasons).toBe(4);
});

test('a lock and the energy of an earlier life are kept', () => {
  const physics = createPhysics(fixtureProfile());
  const group = createEmulatedGroup({ physics, seed: 1, startMs: 0, initial: [{ lock: lockedAt(1200), energyJ: 1234 }] });
  expect(group.clockMhz()).toBe(1200);
  expect(group.reading(0).tickEnergyJ).toBe(1234);
});
