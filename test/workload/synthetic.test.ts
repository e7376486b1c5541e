import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { WorkloadRequest } from '../../src/workload/request.ts';
import type { Arrivals, Size, Synthetic } from '../../src/workload/synthetic.ts';
import { makeSynthetic, parseSize } from '../../src/workload/synthetic.ts';
import { takeWindow } from '../../src/workload/window.ts';

const BASE: Synthetic = { arrivals: { kind: 'poisson', ratePerS: 10 }, promptTokens: { kind: 'fixed', tokens: 1023 }, outputTokens: { kind: 'lognormal', meanTokens: 200, cv: 1 }, durationS: 2000, seed: 1 };

function gapCv(requests: readonly WorkloadRequest[]): number {
  const gaps = requests.slice(1).map(({ atMs }, index) => atMs - (requests[index]?.atMs ?? 0));
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  return Math.sqrt(gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length) / mean;
}

test.each<{ arrivals: Arrivals; cv: number }>([
  { arrivals: { kind: 'poisson', ratePerS: 10 }, cv: 1 },
  { arrivals: { kind: 'bursty', ratePerS: 10, cv: 3 }, cv: 3 },
  { arrivals: { kind: 'bursty', ratePerS: 10, cv: 0.3 }, cv: 0.3 },
])('$arrivals come at their rate and with their variation', ({ arrivals, cv }) => {
  const { requests } = makeSynthetic({ ...BASE, arrivals });
  expect(requests.length / 20_000).toBeCloseTo(1, 1);
  expect(gapCv(requests) / cv).toBeCloseTo(1, 1);
});

test('sizes are fixed, or log-normal around their mean', () => {
  const { requests } = makeSynthetic(BASE);
  expect(requests.every(({ promptTokens }) => promptTokens === 1023)).toBe(true);
  expect(requests.reduce((sum, { outputTokens }) => sum + outputTokens, 0) / requests.length / 200).toBeCloseTo(1, 1);
});

test('a seed gives the same workload again; another rate keeps the sizes, other sizes keep the arrivals', () => {
  const base = makeSynthetic(BASE).requests;
  expect(makeSynthetic(BASE).requests).toEqual(base);
  expect(makeSynthetic({ ...BASE, seed: 2 }).requests).not.toEqual(base);
  const slower = makeSynthetic({ ...BASE, arrivals: { kind: 'poisson', ratePerS: 5 } }).requests;
  expect(slower.map(({ outputTokens }) => outputTokens)).toEqual(base.slice(0, slower.length).map(({ outputTokens }) => outputTokens));
  const shorter = makeSynthetic({ ...BASE, outputTokens: { kind: 'fixed', tokens: 1 } }).requests;
  expect(shorter.map(({ atMs }) => atMs)).toEqual(base.map(({ atMs }) => atMs));
});

test('refuses more requests than a workload may hold', () => {
  expect(() => makeSynthetic({ ...BASE, arrivals: { kind: 'poisson', ratePerS: 1e6 } })).toThrow(/more than 2000000 requests; take a lower rate/);
});

test.each<{ text: string; size: Size }>([
  { text: '1023', size: { kind: 'fixed', tokens: 1023 } },
  { text: 'lognormal:1000:0.8', size: { kind: 'lognormal', meanTokens: 1000, cv: 0.8 } },
])('reads the size $text', ({ text, size }) => {
  expect(parseSize(text, '--prompt-tokens')).toEqual(size);
});

test.each(['', '0', '-5', '1.5', 'lognormal:1000', 'lognormal:1000:0', 'lognormal:x:1', 'lognormal:1:1:1', 'normal:5:1', '99999999'])("refuses the size '%s'", (text) => {
  expect(() => parseSize(text, '--prompt-tokens')).toThrow(`--prompt-tokens: got ${JSON.stringify(text)}, want a whole number of tokens`);
});

test('a window keeps the order, starts at 0 or later, and speed divides times only', () => {
  const workload = makeSynthetic({ ...BASE, durationS: 100 });
  fc.assert(
    fc.property(fc.double({ min: 0, max: 90, noNaN: true }), fc.double({ min: 5, max: 200, noNaN: true }), fc.double({ min: 0.1, max: 10, noNaN: true }), (fromS, durationS, speed) => {
      const wanted = workload.requests.filter(({ atMs }) => atMs >= fromS * 1000 && atMs < fromS * 1000 + durationS * 1000);
      const { requests } = takeWindow(workload, { fromS, durationS, speed });
      expect(requests.map(({ promptTokens, outputTokens }) => [promptTokens, outputTokens])).toEqual(wanted.map(({ promptTokens, outputTokens }) => [promptTokens, outputTokens]));
      expect(requests.every(({ atMs }, index) => atMs >= (requests[index - 1]?.atMs ?? 0) && atMs <= (durationS * 1000) / speed)).toBe(true);
    }),
    { numRuns: 50 },
  );
  expect(takeWindow(workload, { requestsMax: 3 }).requests).toEqual(workload.requests.slice(0, 3));
});

test('an empty window says where requests are', () => {
  const workload = { name: 'w', requests: [{ atMs: 5000, promptTokens: 1, outputTokens: 1 }] };
  expect(() => takeWindow(workload, { durationS: 5 })).toThrow('w: no requests 0-5 s; the next one is at 5 s');
  expect(() => takeWindow(workload, { fromS: 6 })).toThrow('w: no requests from 6 s; the last one is at 5 s');
});
