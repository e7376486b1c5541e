import { expect, test } from 'vitest';
import { analyse } from '../../src/compare/analysis.ts';
import { COMPARISON_FORMAT, ComparisonFileError, keptLatencies, LATENCIES_MAX, readComparison } from '../../src/compare/comparison-file.ts';
import { comparisonPage } from '../../src/compare/report-page.ts';
import { comparisonText } from '../../src/compare/report-text.ts';
import { makeComparison, type MadeTurn } from './sample-comparison.ts';

const BASE: readonly MadeTurn[] = [10_000, 12_000, 8000, 10_000].map((energyJ) => ({ energyJ }));
const HALF: readonly MadeTurn[] = [5000, 6100, 3900, 5050].map((energyJ) => ({ energyJ }));

function pageOf(comparison: ReturnType<typeof makeComparison>): string {
  return comparisonPage(comparison, analyse(comparison));
}

test('the page of what was read back from JSON is the same to the byte', () => {
  const comparison = makeComparison({ a: BASE, b: HALF.map((turn, index) => ({ ...turn, ttftMs: [0.1 + 0.2, 1 / 3, 1e3 / 7 + index] })) });
  expect(pageOf(readComparison(JSON.stringify(comparison), 'x'))).toBe(pageOf(comparison));
});

test('a saving is a figure in large letters, and nothing else is', () => {
  expect(pageOf(makeComparison({ a: BASE, b: HALF }))).toContain('<dl class="figures"><div><dt>Energy of b, relative to a</dt><dd>-50.0 %<small>95 % [-51.4, -48.5]</small></dd></div>');
  for (const arm of [HALF.map((turn) => ({ ...turn, met: 480 })), HALF.slice(0, 2), BASE.map(() => ({ energyJ: 20_000 })), BASE.map(() => ({ energyJ: null }))]) expect(pageOf(makeComparison({ a: BASE, b: arm }))).not.toContain('<dl class="figures">');
});

test('what was not measured is said to be, and no energy is drawn', () => {
  const none = BASE.map(() => ({ energyJ: null }));
  const comparison = { ...makeComparison({ a: none, b: none }), meters: [] };
  const html = pageOf(comparison);
  expect(html).toContain('none: energy was not measured');
  expect(html).toContain('not measured');
  expect(html).not.toContain('Power over time');
  expect(comparisonText(comparison, analyse(comparison))).toContain('Energy was not measured: there was no meter (--meter)');
});

test('has the plots, the turns that do not count, and names that cannot become markup', () => {
  const html = pageOf({ ...makeComparison({ a: [...BASE, {}], 'b <i>': HALF }, { kind: 'interrupted' }), command: '<script>alert(1)</script>' });
  for (const part of ['Time to first token', 'Time per output token', 'Attainment', 'Energy per round', 'Power over time', 'no: its round is not whole', 'b &lt;i&gt;']) expect(html).toContain(part);
  expect(html).not.toMatch(/<script|<i>/);
});

test('draws what there is with no whole round, too', () => {
  expect(pageOf(makeComparison({ a: [{}], b: [] }, { kind: 'interrupted' }))).toContain('Too few rounds to say');
});

test.each([
  { text: '{', message: 'f.json: not JSON' },
  { text: '{"requests":1}', message: `f.json: format: got none, want "${COMPARISON_FORMAT}"` },
  { text: '{"format":"paceline-comparison/2"}', message: 'f.json: format: got "paceline-comparison/2", want "paceline-comparison/1"' },
  { text: JSON.stringify({ ...makeComparison({ a: BASE, b: HALF }), turns: [{ arm: 'a' }] }), message: 'f.json: turns.0.round: ' },
  { text: JSON.stringify({ ...makeComparison({ a: BASE, b: HALF }), extra: 1 }), message: 'f.json: : Unrecognized key: "extra"' },
  { text: JSON.stringify(makeComparison({ a: BASE, b: HALF })).replaceAll('"arm":"b"', '"arm":"z"'), message: "f.json: turns: got the arm 'z', there are: a, b" },
])('a file that is none is refused: $message', ({ text, message }) => {
  expect(() => readComparison(text, 'f.json')).toThrow(ComparisonFileError);
  expect(() => readComparison(text, 'f.json')).toThrow(message);
});

test('of more latencies than are kept, as many in even steps, the least and the greatest among them', () => {
  expect(keptLatencies([3, 1, 2.005])).toEqual([1, 2.01, 3]);
  expect(keptLatencies(Array.from({ length: LATENCIES_MAX }, (_, index) => index))).toHaveLength(LATENCIES_MAX);
  const kept = keptLatencies(Array.from({ length: 5 * LATENCIES_MAX }, (_, index) => index));
  expect(kept).toHaveLength(LATENCIES_MAX);
  expect([kept[0], kept.at(-1)]).toEqual([0, 5 * LATENCIES_MAX - 1]);
  expect(kept[LATENCIES_MAX / 2] as number).toBeCloseTo(2.5 * LATENCIES_MAX, -2);
});
