import { describe, expect, test } from 'vitest';
import { bars } from '../../src/plot/bars.ts';
import { chart, cumulative, type Series, thinned } from '../../src/plot/chart.ts';

const TEXT = { title: 'A plot', description: 'What it shows' };
const AXES = { x: { label: 'time (ms)' }, y: { label: 'energy (J)' } };
const line = (points: Series['points'], more: Partial<Series> = {}): Series => ({ name: 'one', shape: 'line', points, ...more });
const points = (...ys: number[]): Series['points'] => ys.map((y, x) => ({ x, y }));
const paths = (svg: string): string[] => [...svg.matchAll(/class="line c\d"[^>]* d="([^"]*)"/g)].map(([, path = '']) => path);

describe('a chart', () => {
  test('says what it is to those who cannot see it', () => {
    const svg = chart({ ...TEXT, ...AXES, series: [line(points(1, 2))] });
    expect(svg).toContain('role="img" aria-label="A plot. What it shows"');
    expect(svg).toContain('<title>A plot</title>');
  });

  test('escapes every text, wherever it comes from', () => {
    const bad = `<script>'"&`;
    const svg = chart({ title: bad, description: bad, x: { label: bad }, y: { label: bad }, series: [line([{ x: 1, y: 1, label: bad }], { name: bad, shape: 'marks' }), line(points(1), { name: bad })], references: [{ axis: 'x', at: 1, label: bad }] });
    expect(svg).not.toContain('<script');
    expect(svg.match(/&lt;script&gt;&#39;&quot;&amp;/g)?.length).toBeGreaterThanOrEqual(7);
  });

  test('breaks a line where there is no value, and draws on behind it', () => {
    const [path = ''] = paths(chart({ ...TEXT, ...AXES, series: [line(points(1, 2, Number.NaN, 3, 4))] }));
    expect(path.match(/M/g)).toHaveLength(2);
    expect(path).not.toContain('NaN');
    const [log = ''] = paths(chart({ ...TEXT, x: AXES.x, y: { label: 'J', scale: 'log' }, series: [line(points(1, 0, 10, 100))] }));
    expect(log.match(/M/g)).toHaveLength(2);
    expect(log).not.toMatch(/NaN|Infinity/);
  });

  test('draws steps at right angles', () => {
    const [path = ''] = paths(chart({ ...TEXT, ...AXES, series: [line(points(1, 2), { shape: 'steps' })] }));
    expect(path).toMatch(/^M[\d.]+ [\d.]+H[\d.]+V[\d.]+$/);
  });

  test('tells series apart without colours: no two have the same dash and marker until they are many', () => {
    const many = Array.from({ length: 4 }, (_, index) => line(points(index, index + 1), { name: `s${index}`, shape: 'line-and-marks' }));
    const svg = chart({ ...TEXT, ...AXES, series: many });
    const dashes = [...svg.matchAll(/<g><path class="line c\d"([^>]*) d=/g)].map(([, dash]) => dash);
    expect(new Set(dashes).size).toBe(4);
    expect(svg).toContain('s3');
  });

  test('leaves labels out that would stand on others', () => {
    const crowded = Array.from({ length: 50 }, (_, index) => ({ x: 100 + index / 1e6, y: 1, label: `label ${index}` }));
    const shown = [...chart({ ...TEXT, ...AXES, series: [line([...crowded, { x: 0, y: 0 }, { x: 200, y: 2 }], { shape: 'marks' })] }).matchAll(/label \d+/g)];
    expect(shown.length).toBeGreaterThanOrEqual(1);
    expect(shown.length).toBeLessThan(6);
  });

  test('without any value is an empty one, and no error', () => {
    expect(chart({ ...TEXT, ...AXES, series: [] })).not.toMatch(/NaN|undefined/);
  });

  test('as a file of its own has its colours, for light and dark', () => {
    const svg = chart({ ...TEXT, ...AXES, series: [line(points(1, 2))], standalone: true });
    expect(svg).toContain('prefers-color-scheme:dark');
    expect(svg).toMatch(/^<svg xmlns="http:\/\/www.w3.org\/2000\/svg"/);
  });
});

test('a thinned curve has the ends, the least and the most of the whole, in order', () => {
  const curve = Array.from({ length: 10_000 }, (_, x) => ({ x, y: x === 5_003 ? 99 : x === 7_777 ? -99 : Math.sin(x / 50) }));
  const thin = thinned(curve, 200);
  expect(thin.length).toBeLessThanOrEqual(200);
  expect([thin[0], thin.at(-1)]).toEqual([curve[0], curve.at(-1)]);
  expect(thin).toContainEqual({ x: 5_003, y: 99 });
  expect(thin).toContainEqual({ x: 7_777, y: -99 });
  expect(thin.map(({ x }) => x)).toEqual(thin.map(({ x }) => x).toSorted((a, b) => a - b));
  expect(thinned(points(1, 2, 3), 10)).toEqual(points(1, 2, 3));
});

test('a cumulative curve ends at 100 %, whatever is not a number', () => {
  expect(cumulative([3, 1, Number.NaN, 2, 4])).toEqual([{ x: 1, y: 25 }, { x: 2, y: 50 }, { x: 3, y: 75 }, { x: 4, y: 100 }]);
  expect(cumulative([])).toEqual([]);
});

describe('bars', () => {
  const base = { ...TEXT, label: 'J per token', series: ['a', 'b'] };
  const heights = (svg: string): number[] => [...svg.matchAll(/height="([\d.]+)" rx="2"\/>(?!<text x)/g)].map(([, height]) => Number(height));

  test('are as high as their values, from 0 on', () => {
    const [a = 0, b = 0] = heights(bars({ ...base, groups: [{ name: 'g', bars: [{ value: 50 }, { value: 100 }] }] }));
    expect(b / a).toBeCloseTo(2, 1);
  });

  test('say so where nothing was measured, and have whiskers where an interval is known', () => {
    const svg = bars({ ...base, groups: [{ name: '<g>', bars: [{ value: null }, { value: 3, low: 2, high: 5 }] }] });
    expect(svg).toContain('not measured');
    expect(svg.match(/class="whisker"/g)).toHaveLength(1);
    expect(svg).toContain('&lt;g&gt;');
    expect(svg).not.toMatch(/NaN|undefined/);
  });
});
