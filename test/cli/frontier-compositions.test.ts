// Compositions as people ask for them: what is printed and written, how it ends, and what each mistake is told.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { UsageError } from '../../src/cli/command.ts';
import { command } from '../../src/cli/frontier.ts';
import { printed } from '../fixtures/printed.ts';

const H200 = 'config/profiles/llama-3.1-8b.h200.json';
const TP4 = 'config/profiles/llama-3.1-70b.h100-tp4.json';
const TP8 = 'config/profiles/llama-3.1-70b.h100-tp8.json';
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'compositions-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

const run = (...argv: string[]): ReturnType<typeof printed> => printed(command, 'compose', ...argv);

test('of a pipeline of unlike stages the faster one is slowed to the slower', async () => {
  const html = join(directory, 'p.html');
  const { code, text } = await run(TP4, TP8, '--as', 'pipeline', '--micro-batches', '200', '--html', html);
  expect(code).toBe(0);
  expect(text).toMatch(/^200 prompts of 1024 tokens through 2 stages: llama-3.1-70b.h100-tp4 → llama-3.1-70b.h100-tp8\n/);
  const { points } = JSON.parse((await run(TP4, TP8, '--as', 'pipeline', '--micro-batches', '200', '--json')).text) as { points: { timeMs: number; energyJ: number; points: [string, string] }[] };
  // Once the slower stage is a little below its most, the faster runs far below its own.
  const clocks = (ids: readonly string[]): number[] => ids.map((id) => Number(/\d+/.exec(id)?.[0]));
  const [slower, faster] = clocks(points[Math.floor(points.length / 3)]?.points ?? []);
  expect(faster).toBeLessThan(0.8 * (slower ?? 0));
  expect(readFileSync(html, 'utf8')).toMatch(/^<!doctype html>.*stage by stage/s);
});

test('of a pipeline the cheapest way in time is named, and it fails where there is none', async () => {
  const within = await run(TP4, TP8, '--as', 'pipeline', '--within-ms', '400');
  expect(within.code).toBe(0);
  expect(within.text).toMatch(/Cheapest within 400 ms: \d+ MHz → \d+ MHz, 3\d\d\.\d ms, \d+ J\./);
  const short = await run(TP4, TP8, '--as', 'pipeline', '--within-ms', '10');
  expect(short.code).toBe(1);
  expect(short.text).toMatch(/Nothing within 10 ms: the fastest takes [\d.]+ ms\./);
});

test('pools keep their limits and serve all of the load, each at its cheapest', async () => {
  const svg = join(directory, 'p.svg');
  const argv = [H200, '--as', 'pools', '--rate', '20', '--prefill', '2', '--decode', '3', '--prompt-tokens', '1500', '--ttft-ms', '200', '--tpot-ms', '20'];
  expect((await run(...argv, '--svg', svg)).text).toMatch(/^20 requests\/s of 1500 tokens in, 256 out\npool .*\nprefill .*\nprefill .*\ndecode /);
  const { answer } = JSON.parse((await run(...argv, '--json')).text) as { answer: { kind: string; powerW: number; boundW: number; replicas: { pool: string; ratePerS: number; latencyMs: number; powerW: number }[] } };
  expect(answer.kind).toBe('meets');
  for (const [pool, limitMs, replicas] of [['prefill', 200, 2], ['decode', 20, 3]] as const) {
    const own = answer.replicas.filter((line) => line.pool === pool);
    expect(own).toHaveLength(replicas);
    expect(own.reduce((sum, { ratePerS }) => sum + ratePerS, 0)).toBeCloseTo(20, 6);
    for (const { latencyMs } of own) expect(latencyMs).toBeLessThanOrEqual(limitMs + 1e-6);
  }
  expect(answer.powerW).toBeGreaterThanOrEqual(answer.boundW - 1e-6);
  expect(readFileSync(svg, 'utf8')).toMatch(/^<svg .*prefill.*decode.*<\/svg>\n$/s);
});

test('unlike replicas share a load, and more than they can serve fails and says what they can', async () => {
  const { code, text } = await run(TP4, TP8, '--as', 'replicas', '--rate', '12', '--each', '2');
  expect(code).toBe(0);
  expect(text.match(/^replicas /gm)).toHaveLength(4);
  expect(text).toMatch(/ W, [\d.]+ J a request; no split of the load takes less than [\d.]+ W\./);
  const short = await run(TP4, TP8, '--as', 'replicas', '--rate', '5000');
  expect(short.code).toBe(1);
  expect(short.text).toMatch(/replicas: 2 replicas serve at most [\d.]+ requests\/s within TPOT 50 ms/);
  expect(JSON.parse((await run(TP4, '--as', 'replicas', '--rate', '5000', '--json')).text)).toMatchObject({ answer: { kind: 'infeasible', pools: [{ pool: 'replicas' }] } });
});

test('a load of nothing is waiting, and costs no joules a request', async () => {
  for (const as of ['replicas', 'pools']) {
    const { code, text } = await run(TP4, '--as', as, '--rate', '0');
    expect(code).toBe(0);
    expect(text).toMatch(/ waits +0\.000 +0 +- +[\d.]+\n\n[\d.]+ W, all of it waiting; no split of the load takes less than [\d.]+ W\.\n$/);
    expect((await run(TP4, '--as', as, '--rate', '0', '--json')).text).not.toMatch(/null|Infinity|NaN/);
  }
});

test.each([
  [['--as', 'pipeline'], /--as pipeline: got 0 files, want one for each stage/],
  [['--as', 'replicas'], /--as replicas: got 0 files/],
  [[H200, TP4, TP8, '--as', 'pools'], /--as pools: got 3 files, want one profile for both pools/],
  [[...Array.from({ length: 3 }, () => H200), '--as', 'replicas', '--each', '60'], /--as replicas: got 180 replicas, at most 64/],
  [[...Array.from({ length: 65 }, () => H200), '--as', 'pipeline'], /got 65 files, .*at most 64/],
  [[H200, TP4], /compose: got 2 files, want one/],
  [[H200, '--as', 'pools', '--within-ms', '5'], /^frontier compose --as pools: got --within-ms, which it does not take; its options are --as, .*--ttft-ms, --tpot-ms, /],
  [[H200, '--as', 'replicas', '--ttft-ms', '5'], /--as replicas: got --ttft-ms, which it does not take/],
  [[H200, '--rate', '5', '--each', '2'], /^frontier compose --as sequence: got --rate, --each, which it does not take; its options are --as, --prompt-tokens, --sequences, --context, --output-tokens, --within-ms, --json, --svg, --html$/],
  [[H200, '--batch-tokens', '512'], /compose --as sequence: got --batch-tokens, which it does not take/],
  [[H200, '--as', 'ring'], /--as: got 'ring', allowed: sequence, pipeline, pools, replicas/],
  [[H200, '--as', 'pools', '--rate', '-1'], /--rate: got '-1'|argument/],
  [[H200, '--as', 'pipeline', '--micro-batches', '0'], /--micro-batches: got '0'/],
])('%j is refused with what was given and what is wanted', async (argv, message) => {
  await expect(async () => run(...argv)).rejects.toThrow(UsageError);
  await expect(async () => run(...argv)).rejects.toThrow(message);
});
