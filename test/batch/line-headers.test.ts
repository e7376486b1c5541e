import { expect, test } from 'vitest';
import { lineHeaders } from '../../src/batch/line-headers.ts';

test.each([
  { deadlineMs: 3_600_000, bounds: {}, headers: ['3600000', '60000', '3600000'] },
  { deadlineMs: 5_000.2, bounds: {}, headers: ['5001', '5001', '5001'] },
  { deadlineMs: 6e8, bounds: {}, headers: ['86400000', '60000', '86400000'] },
  { deadlineMs: 3_600_000, bounds: { ttftMs: { max: 10_000 }, tpotMs: { min: 70_000 }, e2eMs: { max: 60_000 } }, headers: ['10000', '70000', '60000'] },
])('a line with $deadlineMs ms says so within $bounds', ({ deadlineMs, bounds, headers }) => {
  expect(lineHeaders(deadlineMs, bounds)).toEqual({ 'x-slo-ttft-ms': headers[0], 'x-slo-tpot-ms': headers[1], 'x-request-deadline-ms': headers[2] });
});
