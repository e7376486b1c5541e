import { expect, test } from 'vitest';
import { busyPower } from '../../src/profiler/take-measurement.ts';

test.each([
  { what: 'the whole of it where the server was never waited for', powerW: 300, idleW: 100, share: 1, busyW: 300 },
  { what: 'without what was idled away', powerW: 200, idleW: 100, share: 0.5, busyW: 300 },
  { what: 'as measured where it was below idling: carried on from there it fell below nothing', powerW: 60, idleW: 95, share: 0.2, busyW: 60 },
  { what: 'as measured where nobody knows what idling takes', powerW: 200, idleW: null, share: 0.5, busyW: 200 },
  { what: 'unknown where nothing was measured', powerW: null, idleW: 100, share: 0.5, busyW: null },
])('the power of work is $what', ({ powerW, idleW, share, busyW }) => {
  expect(busyPower(powerW, idleW, share)).toBe(busyW);
});
