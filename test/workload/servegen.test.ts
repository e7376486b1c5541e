import { expect, test } from 'vitest';
import { firstBusyS, readServeGenClient, sampleServeGen } from '../../src/workload/servegen.ts';

const TRACE = '0,0,0,,0,0\n600,2,1.1,Gamma,0.8,0.6\n1200,5,2,Weibull,0.5,0.1\n1800,0,0,,0,0\n';
const DATASET = JSON.stringify({
  0: { input_tokens: '{10: 0.5, 20: 0.5}', output_tokens: '{1: 1.0}' },
  1200: { input_tokens: '{7: 1e-05, 300: 0.99999}', output_tokens: '{9: 0.25, 11: 0.75}' },
});

function client(traceText = TRACE, datasetText = DATASET) {
  return readServeGenClient({ name: 'chunk-0', traceFile: 't.csv', traceText, datasetFile: 'd.json', datasetText });
}

test('a window sends rate × length requests, with the lengths of its time', () => {
  const requests = sampleServeGen([client()], { fromS: 0, durationS: 2400, seed: 1 });
  const [early, late] = [requests.filter(({ atMs }) => atMs < 1_200_000), requests.filter(({ atMs }) => atMs >= 1_200_000)];
  expect([early.length, late.length]).toEqual([1200, 3000]);
  expect(requests.every(({ atMs }, index) => atMs >= 600_000 && atMs < 1_800_000 && atMs >= (requests[index - 1]?.atMs ?? 0))).toBe(true);
  expect(new Set(early.map(({ promptTokens }) => promptTokens))).toEqual(new Set([10, 20]));
  expect(late.filter(({ outputTokens }) => outputTokens === 11).length / late.length).toBeCloseTo(0.75, 1);
});

test('a seed gives the same requests again, and a part of the time gives a part of them', () => {
  const whole = sampleServeGen([client()], { fromS: 0, durationS: 2400, seed: 5 });
  expect(sampleServeGen([client()], { fromS: 0, durationS: 2400, seed: 5 })).toEqual(whole);
  expect(sampleServeGen([client()], { fromS: 0, durationS: 2400, seed: 6 })).not.toEqual(whole);
  expect(sampleServeGen([client()], { fromS: 900, durationS: 500, seed: 5 })).toEqual(whole.filter(({ atMs }) => atMs >= 900_000 && atMs < 1_400_000));
});

test('several clients are merged in order', () => {
  const other = { ...client(), name: 'chunk-1' };
  const requests = sampleServeGen([client(), other], { fromS: 600, durationS: 600, seed: 1 });
  expect(requests).toHaveLength(2 * 1200);
  expect(requests.every(({ atMs }, index) => atMs >= (requests[index - 1]?.atMs ?? 0))).toBe(true);
});

test('says when a silent client speaks next', () => {
  expect(firstBusyS([client()], 0)).toBe(600);
  expect(firstBusyS([client()], 601)).toBe(1200);
  expect(firstBusyS([client()], 1201)).toBeNull();
});

test.each([
  { trace: '0,1,1,Gamma,1\n', message: 't.csv:1 line: got "0,1,1,Gamma,1", want 6 fields' },
  { trace: '0,0,0,,0,0\n600,fast,1,Gamma,1,1\n', message: 't.csv:2 rate: got "fast", want a number, at least 0' },
  { trace: '0,1,1,Pareto,1,1\n', message: 't.csv:1 distribution: got "Pareto", want Gamma or Weibull' },
  { trace: '0,1,1,Gamma,0,1\n', message: 't.csv:1 shape: got "0", want more than 0' },
  { trace: '600,0,0,,0,0\n600,0,0,,0,0\n', message: 't.csv:2 start second: got "600", want more than the line above (600)' },
  { trace: '', message: 't.csv: no lines' },
])('refuses the trace $trace', ({ trace, message }) => {
  expect(() => client(trace)).toThrow(message);
});

test.each([
  { dataset: '{', message: 'd.json: not JSON' },
  { dataset: '{"0": {"input_tokens": "{}"}}', message: 'd.json 0.output_tokens' },
  { dataset: '{"0": {"input_tokens": "[1]", "output_tokens": "{}"}}', message: 'd.json 0.input_tokens: got "[1]", want a dict' },
  { dataset: '{"0": {"input_tokens": "{}", "output_tokens": "{5: __import__}"}}', message: 'd.json 0.output_tokens: got "5: __import__", want TOKENS: PROBABILITY' },
  { dataset: '{"0": {"input_tokens": "{0: 1.0}", "output_tokens": "{}"}}', message: 'd.json 0.input_tokens: got "0: 1.0"' },
])('refuses the dataset $dataset', ({ dataset, message }) => {
  expect(() => client(TRACE, dataset)).toThrow(message);
});

test('refuses to send requests that have no lengths', () => {
  const silent = client(TRACE, '{"0": {"input_tokens": "{}", "output_tokens": "{}"}}');
  expect(() => sampleServeGen([silent], { fromS: 600, durationS: 600, seed: 1 })).toThrow('d.json: no lengths for second 600, when its trace sends 2 requests/s');
  expect(sampleServeGen([silent], { fromS: 0, durationS: 600, seed: 1 })).toEqual([]);
});

test('refuses more requests than a workload may hold, before drawing any', () => {
  expect(() => sampleServeGen([client('0,1000000,1,Gamma,1,1\n')], { fromS: 0, durationS: 600, seed: 1 })).toThrow(/about 600000000 requests, more than 2000000/);
});
