import { expect, test } from 'vitest';
import { refuseFaster } from '../../src/profiler/run-sweep.ts';

test('devices that another gateway kept at 1980 MHz were measured as if they ran at 1590', () => {
  expect(() => refuseFaster(1_980, 1_590)).toThrow(/run at 1980 MHz and were told 1590 MHz: somebody else drives them/);
});

test.each([
  { what: 'slower, for want of power', seenMhz: 1_300, clockMhz: 1_590 },
  { what: 'as told, about', seenMhz: 1_600, clockMhz: 1_590 },
  { what: 'at a clock that nobody tells', seenMhz: null, clockMhz: 1_590 },
  { what: 'as found', seenMhz: 1_980, clockMhz: null },
])('devices are measured that run $what', ({ seenMhz, clockMhz }) => {
  expect(() => refuseFaster(seenMhz, clockMhz)).not.toThrow();
});
