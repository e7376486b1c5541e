import { describe, expect, test } from 'vitest';
import { createEnergySeries, type DeviceSample, GAP_MS_MAX, POINTS_MAX } from '../../src/compare/energy-series.ts';

function counter(joules: number, powerW: number | null = null): DeviceSample {
  return { counterMj: joules * 1000, energyJ: joules, powerW };
}

function power(powerW: number): DeviceSample {
  return { counterMj: null, energyJ: null, powerW };
}

function devices(samples: Readonly<Record<string, DeviceSample>>): ReadonlyMap<string, DeviceSample> {
  return new Map(Object.entries(samples));
}

describe('a counter', () => {
  test('is read between readings, in a straight line, and devices are added up', () => {
    const series = createEnergySeries();
    for (let second = 0; second <= 10; second++) series.add(second * 1000, devices({ a: counter(5000 + 300 * second), b: counter(100 * second) }));
    expect(series.energyBetween(1500, 4250)).toEqual({ kind: 'measured', energyJ: expect.closeTo(2.75 * 400, 6), how: 'counter' });
    expect(series.powerBetween(0, 3000, 1000)).toEqual([400, 400, 400].map((value) => expect.closeTo(value, 6)));
  });

  test('that begins anew leaves a window with its fall unknown, and later ones known', () => {
    const series = createEnergySeries();
    [10, 20, 3, 13, 23].forEach((joules, index) => series.add(index * 1000, devices({ a: counter(joules) })));
    expect(series.energyBetween(0, 4000)).toEqual({ kind: 'unknown', why: 'the energy counter of a fell from 20000 to 3000 mJ: it began anew' });
    expect(series.energyBetween(2000, 4000)).toMatchObject({ kind: 'measured', energyJ: 20 });
    expect(series.energyBetween(0, 1000)).toMatchObject({ kind: 'measured', energyJ: 10 });
  });

  test('that was carried too far forward is no fall', () => {
    const series = createEnergySeries();
    series.add(0, devices({ a: { counterMj: 1000, energyJ: 1, powerW: 500 } }));
    series.add(100, devices({ a: { counterMj: 1000, energyJ: 51, powerW: 500 } }));
    series.add(200, devices({ a: { counterMj: 40_000, energyJ: 40, powerW: 100 } }));
    series.add(1000, devices({ a: { counterMj: 120_000, energyJ: 120, powerW: 100 } }));
    expect(series.energyBetween(0, 1000)).toEqual({ kind: 'measured', energyJ: 119, how: 'counter' });
  });

  test('need not have been read within the window, but near its ends', () => {
    const series = createEnergySeries();
    for (const atMs of [0, 1000, 60_000, 61_000]) series.add(atMs, devices({ a: counter(atMs / 10) }));
    expect(series.energyBetween(500, 60_500)).toMatchObject({ kind: 'measured', energyJ: 6000 });
    expect(series.energyBetween(500, 30_000)).toEqual({ kind: 'unknown', why: 'no reading near the end of the window' });
    expect(series.energyBetween(30_000, 60_500)).toEqual({ kind: 'unknown', why: 'no reading near the beginning of the window' });
    expect(series.energyBetween(500, 62_000)).toEqual({ kind: 'unknown', why: 'no reading near the end of the window' });
  });

  test('of a device that comes or goes leaves the window unknown', () => {
    const series = createEnergySeries();
    series.add(0, devices({ a: counter(0), b: counter(0) }));
    series.add(1000, devices({ a: counter(10) }));
    series.add(2000, devices({ a: counter(20), b: counter(5) }));
    expect(series.energyBetween(0, 1000)).toEqual({ kind: 'unknown', why: 'device b went away' });
    expect(series.energyBetween(1000, 2000)).toEqual({ kind: 'unknown', why: 'device b came while it was measured' });
  });

  test('tells how long it stood still', () => {
    const series = createEnergySeries();
    for (let atMs = 0; atMs <= 120_000; atMs += 1000) series.add(atMs, devices({ a: counter(100 * Math.floor(atMs / 30_000), 3) }));
    expect(series.tickMs()).toBe(30_000);
  });
});

describe('power alone', () => {
  test('is integrated, and said to be', () => {
    const series = createEnergySeries();
    for (let second = 0; second <= 4; second++) series.add(second * 1000, devices({ a: power(100 * second) }));
    // A ramp from 0 to 400 W over 4 s, by trapezoids.
    expect(series.energyBetween(0, 4000)).toEqual({ kind: 'measured', energyJ: 800, how: 'integrated' });
  });

  test('with a gap is not made up', () => {
    const series = createEnergySeries();
    for (const atMs of [0, 1000, 1000 + GAP_MS_MAX, 2000 + GAP_MS_MAX, 3001 + 2 * GAP_MS_MAX, 4001 + 2 * GAP_MS_MAX]) series.add(atMs, devices({ a: power(100) }));
    expect(series.energyBetween(0, 2000 + GAP_MS_MAX)).toMatchObject({ kind: 'measured' });
    expect(series.energyBetween(0, 4001 + 2 * GAP_MS_MAX)).toEqual({ kind: 'unknown', why: 'no power of a for 6.0 s' });
    expect(series.powerBetween(3000 + GAP_MS_MAX, 5000 + GAP_MS_MAX, 1000)).toEqual([null, null]);
  });
});

test('what is forgotten leaves windows before it unknown, and those after it whole', () => {
  const series = createEnergySeries();
  for (let second = 0; second <= 10; second++) series.add(second * 1000, devices({ a: counter(second) }));
  series.dropBefore(5500);
  expect(series.size()).toBe(6);
  expect(series.energyBetween(5500, 9500)).toMatchObject({ energyJ: 4 });
  expect(series.energyBetween(2000, 9000)).toMatchObject({ kind: 'unknown' });
});

test('at its bound the oldest readings go, and the newest are right', () => {
  const series = createEnergySeries();
  for (let index = 0; index <= POINTS_MAX; index++) series.add(index * 250, new Map([['a', counter(index)]]));
  expect(series.size()).toBeLessThanOrEqual(POINTS_MAX);
  expect(series.energyBetween((POINTS_MAX - 100) * 250, POINTS_MAX * 250)).toMatchObject({ energyJ: 100 });
  expect(series.energyBetween(250, 500)).toMatchObject({ kind: 'unknown' });
});
