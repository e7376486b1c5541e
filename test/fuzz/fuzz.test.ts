// The fuzzer itself: a short run of it, and that it finds what it is there to find.
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { createSseScanner } from '../../src/upstream/sse-scanner.ts';
import { usageIn } from '../../src/upstream/usage.ts';
import type { Targets } from './laws.ts';
import { TARGETS, violationOf } from './laws.ts';
import { inputOf } from './inputs.ts';
import { feedEndless, runFuzz } from './run-fuzz.ts';

const SEED = 20_261_126;

test('twenty thousand spoilt answers and requests violate nothing', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['test/fuzz/fuzz.ts', '--inputs', '20000', '--seed', String(SEED)], { encoding: 'utf8' });
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' });
  expect(stdout).toMatch(/^20000 inputs .*seed 20261126.*nothing violated\n$/);
});

test('one seed and index give one input', () => {
  expect(inputOf(SEED, 17)).toEqual(inputOf(SEED, 17));
  expect(inputOf(SEED, 17)).not.toEqual(inputOf(SEED, 18));
});

test('the inputs reach what they are to test: requests that are read, some with two models, and answers with output and usage', () => {
  let [renamed, withOutput, withUsage, failed] = [0, 0, 0, 0];
  for (let index = 0; index < 4_000; index++) {
    const { kind, bytes, endpoint } = inputOf(SEED, index);
    if (kind === 'request') renamed += TARGETS.readInferenceRequest(endpoint, bytes).kind === 'ok' ? 1 : 0;
    else {
      const scanner = createSseScanner();
      withOutput += scanner.push(bytes) > 0 ? 1 : 0;
      withUsage += scanner.usage() === null ? 0 : 1;
      failed += scanner.failed() ? 1 : 0;
    }
  }
  for (const count of [renamed, withOutput, withUsage]) expect(count).toBeGreaterThan(400);
  expect(failed).toBeGreaterThan(20);
});

/** Forgets what a line began with when it is cut: what the scanner would do without `held`. */
const forgetful: Targets['createSseScanner'] = () => {
  let tokens = 0;
  return {
    push: (chunk) => {
      const events = chunk.toString('latin1').split('\n\n').length - 1;
      tokens += events;
      return events;
    },
    usage: () => null,
    failed: () => false,
    atBoundary: () => tokens >= 0,
    passed: () => Buffer.alloc(0),
    rest: () => Buffer.alloc(0),
  };
};

test.each<[string, Partial<Targets>, string]>([
  ['a scanner that depends on where it is cut', { createSseScanner: forgetful }, 'the scanner reads'],
  ['a usage that throws on odd bytes', { usageIn: (bytes) => (bytes.includes('"usage":n') ? JSON.parse(bytes.toString()) : usageIn(bytes)) }, 'threw'],
  ['a cache that has more than the prompt', { usageIn: (bytes) => (bytes.includes('cached_tokens') ? { promptTokens: 1, cachedTokens: 2, outputTokens: 0 } : null) }, 'usageIn answers'],
  ['a rename that takes the first model', { withModelName: (body, model) => Buffer.from(body.toString().replace(/"model"\s*:\s*"[^"]*"/, () => `"model":${JSON.stringify(model)}`)) }, 'withModelName'],
  ['a rename that prints the JSON anew', { withModelName: (body, model) => Buffer.from(JSON.stringify({ ...(JSON.parse(body.toString()) as object), model })) }, 'withModelName'],
  ['a rename that does nothing', { withModelName: (body) => body }, 'withModelName left'],
  ['a reader that throws on what is no JSON', { readInferenceRequest: (endpoint, body) => TARGETS.readInferenceRequest(endpoint, Buffer.from(JSON.stringify(JSON.parse(body.toString())))) }, 'threw'],
])('%s is found, and made short', (_what, broken, violation) => {
  const targets = { ...TARGETS, ...broken };
  const result = runFuzz({ inputs: 20_000, seed: SEED, targets });
  if (result.kind !== 'violated') return expect(result.kind).toBe('violated');
  expect(result.violation).toContain(violation);
  expect(result.shortest.bytes.length).toBeLessThanOrEqual(result.input.bytes.length);
  expect(violationOf(result.shortest, targets)).not.toBeNull();
  expect(violationOf(inputOf(SEED, result.index), targets)).toContain(result.violation.split('\n')[0]);
});

test('a scanner that keeps all it is given is found', () => {
  const kept: Buffer[] = [];
  const result = feedEndless({ createSseScanner: () => ({ ...createSseScanner(), push: (chunk) => (kept.push(chunk), 0) }) });
  expect(result).toMatchObject({ kind: 'grew', what: 'a line without end' });
});
