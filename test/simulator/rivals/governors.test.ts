// Those that know no SLO: the driver, the governor by utilisation.
import { describe, expect, test } from 'vitest';
import { createDriver } from '../../../src/simulator/rivals/driver.ts';
import { createOndemand } from '../../../src/simulator/rivals/ondemand.ts';
import { context, FASTEST, R0, SLOWEST, streams, view } from './rival-views.ts';

test('the driver keeps the fastest point with work and without', () => {
  const driver = createDriver(context());
  expect(driver.choose(R0, view(), 'tick')).toBe(FASTEST);
  expect(driver.choose(R0, view({ running: streams(3) }), 'tick')).toBe(FASTEST);
});

describe('ondemand', () => {
  /** What it chooses after an interval of 100 ms with so much work in it. */
  function afterLoad(load: number, margin = 0): number | null {
    const ondemand = createOndemand(context({ busyMs: () => 100 * load, margin }));
    return ondemand.choose(R0, view({ nowMs: 100 }), 'tick');
  }

  test.each([0.81, 0.95, 1])('goes to the top at once above its threshold, at a load of %d', (load) => {
    expect(afterLoad(load)).toBe(FASTEST);
  });

  test('steps down in proportion below it, to the slowest when idle', () => {
    expect(afterLoad(0)).toBe(SLOWEST);
    expect(afterLoad(0.5)).toBe(Math.round(0.5 * FASTEST));
    expect(afterLoad(0.79)).toBeLessThan(FASTEST);
  });

  test('goes to the top earlier with a margin', () => {
    expect(afterLoad(0.65)).toBeLessThan(FASTEST);
    expect(afterLoad(0.65, 0.2)).toBe(FASTEST);
  });

  test('looks at the last interval only', () => {
    let busyMs = 100;
    const ondemand = createOndemand(context({ busyMs: () => busyMs }));
    expect(ondemand.choose(R0, view({ nowMs: 100 }), 'tick')).toBe(FASTEST);
    busyMs += 30;
    expect(ondemand.choose(R0, view({ nowMs: 200 }), 'tick')).toBe(Math.round(0.3 * FASTEST));
  });

  test('leaves everything as it is between its intervals', () => {
    expect(createOndemand(context()).choose(R0, view({ nowMs: 40 }), 'arrival')).toBeNull();
  });
});
