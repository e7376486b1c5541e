import { expect, test } from 'vitest';
import type { BenchResult } from '../../src/loadgen/bench-result.ts';
import { benchResult, isBenchResult } from '../../src/loadgen/bench-result.ts';
import { percentiles } from '../../src/statistics/percentiles.ts';
import { formatComparison, formatResult, percent } from '../../src/loadgen/format-result.ts';
import { createProgressPrinter } from '../../src/loadgen/progress.ts';
import type { RequestRecord } from '../../src/loadgen/request-record.ts';

const common = { latenessMs: 1, promptTokens: 100, cachedTokens: 0, outputTokens: 10, wantedOutputTokens: 10, usageReported: true };
const met: RequestRecord = { ...common, className: 'chat', kind: 'completed', times: { ttftMs: 100, tpotMs: 20, e2eMs: 300 }, missed: [] };
const late: RequestRecord = { ...common, className: 'chat', kind: 'completed', times: { ttftMs: 900, tpotMs: 20, e2eMs: 1100 }, missed: ['ttftMs'] };
const refused: RequestRecord = { ...common, className: 'batch', outputTokens: 0, kind: 'failed', reason: 'rejected', detail: '429 rejected-saturated' };

function resultOf(records: readonly RequestRecord[], energyJ: number | null = 1000, windowS = 10): BenchResult {
  const energy = energyJ === null ? null : { kind: 'measured' as const, energyJ, windowS };
  return benchResult({ records, energy, durationS: 9, interrupted: false, unfinished: 0, workload: 'w', seed: 1, promptSalt: 7, url: 'http://x', model: 'm', command: null, startedAt: '2026-01-01T00:00:00.000Z', notes: [] });
}

test('a result counts requests once, by class, and energy over all tokens', () => {
  const result = resultOf([met, met, late, refused]);
  expect(result).toMatchObject({ requests: 4, completed: 3, failed: 1, rejected: 1, attainment: 0.5, attainmentByClass: { chat: 2 / 3, batch: 0 }, requestsByClass: { chat: 3, batch: 1 }, missed: { ttftMs: 1, tpotMs: 0, e2eMs: 0 }, outputTokens: 30, energyJ: 1000, meanPowerW: 100, failures: { 'rejected: 429 rejected-saturated': 1 } });
  expect(result.joulesPerOutputToken).toBeCloseTo(1000 / 30);
  expect(isBenchResult(JSON.parse(JSON.stringify(result)))).toBe(true);
  expect(isBenchResult({ requests: 1 })).toBe(false);
});

test('a run in which nothing ended has no attainment and no percentiles', () => {
  expect(resultOf([], null)).toMatchObject({ requests: 0, attainment: null, ttftMs: { p50: null, p99: null }, energyJ: null, sendLatenessMs: { max: null } });
  expect(formatResult(resultOf([], null))).toContain('not measured');
});

test.each([
  { values: [5], want: { p50: 5, p90: 5, p99: 5 } },
  { values: [4, 1, 3, 2], want: { p50: 2.5, p90: 3.7, p99: 3.97 } },
])('percentiles of $values lie between ranks', ({ values, want }) => {
  const got = percentiles(values);
  for (const name of ['p50', 'p90', 'p99'] as const) expect(got[name]).toBeCloseTo(want[name], 10);
});

test('failures beyond the most frequent kinds are counted together', () => {
  const { failures } = resultOf(Array.from({ length: 30 }, (_, index) => ({ ...refused, detail: String(index) })));
  expect(Object.keys(failures)).toHaveLength(17);
  expect(failures['other']).toBe(14);
});

test.each([
  [1, '100.0 %'],
  [0.999_96, '99.9+ %'],
  [0.985, '98.5 %'],
  [null, '-'],
] as const)('%s is written %s', (share, text) => {
  expect(percent(share)).toBe(text);
});

test('a table shows what matters', () => {
  const text = formatResult(resultOf([met, late, refused]));
  for (const part of ['3: 2 completed, 1 failed (1 rejected)', 'attainment  33.3 %', 'chat      50.0 % of 2', '1000 J over 10.0 s, mean 100 W', '1 × rejected: 429 rejected-saturated', 'J/token     50.000']) expect(text).toContain(part);
});

test('a comparison shows the change of energy, and where it is no fair one', () => {
  const [base, good, bad] = [resultOf([met, met]), resultOf([met, met], 700), resultOf([met, late], 500, 12)];
  const text = formatComparison([{ label: 'max clock', result: base }, { label: 'paceline', result: good }, { label: 'too slow', result: bad }]);
  const lines = text.split('\n');
  expect(lines[2]).toMatch(/^paceline .*100\.0 %.*-30\.0 %$/);
  expect(lines[3]).toMatch(/^too slow .*50\.0 %.*-50\.0 %$/);
  expect(lines.slice(4)).toEqual(['too slow: attainment 50.0 % against 100.0 %: the energies are not of equal attainment', 'too slow: energy over 12.0 s, max clock over 10.0 s; give both the same --window-s']);
  expect(formatComparison([{ label: 'a', result: base }, { label: 'b', result: resultOf([met]) }])).toContain('b: another workload, seed or number of requests than a');
});

test('progress is one redrawn line on a terminal, and elsewhere a line every ten seconds', () => {
  const progress = { elapsedS: 9.9, plannedS: 20, total: 10, sent: 5, inFlight: 1, completed: 4, failed: 0, attainment: 0.75, powerW: 612.4 };
  const written = (isTTY: boolean) => {
    const out: string[] = [];
    const printer = createProgressPrinter({ isTTY, columns: 200, write: (text) => out.push(text) });
    for (const elapsedS of [9.9, 10.1, 11, 20.2]) printer.show({ ...progress, elapsedS });
    printer.end();
    return out;
  };
  expect(written(false)).toEqual(['10/20 s, sent 5/10, in flight 1, done 4, failed 0, attainment 75.0 %, 612 W\n', '20/20 s, sent 5/10, in flight 1, done 4, failed 0, attainment 75.0 %, 612 W\n']);
  const terminal = written(true);
  expect(terminal[0]).toBe('[##########..........] 10/20 s, sent 5/10, in flight 1, done 4, failed 0, attainment 75.0 %, 612 W');
  expect(terminal.filter((text) => text === '\r\u001B[K')).toHaveLength(4);
});
