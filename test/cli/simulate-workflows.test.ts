// What-if questions about workflows: what is answered, and what each mistake is told.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { command } from '../../src/cli/simulate.ts';
import type { WorkflowRunReport } from '../../src/cli/simulate-workflows.ts';
import { printed } from '../fixtures/printed.ts';

const H200 = ['--truth', 'config/profiles/llama-3.1-8b.h200.json', '--replicas', '2', '--duration', '120'];
const NODES = [{ stage: 'a', model: 'm', promptTokens: 500, outputTokens: 100 }, { stage: 'b', toolMs: 300 }, { stage: 'c', model: 'm', promptTokens: 800, outputTokens: 200 }];

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'workflow-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

async function run(...argv: string[]): Promise<string> {
  const { code, text } = await printed(command, ...argv);
  expect(code).toBe(0);
  return text;
}

function fileOf(over: object): string {
  const path = join(directory, 'w.json');
  writeFileSync(path, JSON.stringify({ name: 'two', deadlineMs: 12_000, nodes: NODES, edges: [['a', 'b'], ['b', 'c']], ...over }));
  return path;
}

test('a fleet is asked how many workflows would be in time, three ways', async () => {
  const text = await run('--workflow', fileOf({}), '--workflow-rate', '0.5', ...H200);
  expect(text).toMatch(/^two, \d+ runs of 3 stages, due after 12\.0 s \(at the fastest, 8 streams on a replica, it takes \d\.\d s\), 2 replicas of/);
  expect(text).toMatch(/max-clock .*\npaceline, an SLO for each call .*\npaceline, the whole /);
  const runs = JSON.parse(await run('--workflow', fileOf({}), '--workflow-rate', '0.5', '--json', ...H200)) as WorkflowRunReport[];
  expect(runs.map(({ attainment }) => attainment > 0.95)).toEqual([true, true, true]);
  expect(runs[2]?.energyJ).toBeLessThan(0.8 * (runs[0]?.energyJ ?? 0));
});

test('calls that say no sizes are as large as --like says, as for paceline frontier workflow', async () => {
  const unsized = { nodes: NODES.map((node) => ({ ...node, promptTokens: undefined, outputTokens: undefined })) };
  const [alike] = JSON.parse(await run('--workflow', fileOf(unsized), '--like', '500:100', '--json', ...H200)) as WorkflowRunReport[];
  const [said] = JSON.parse(await run('--workflow', fileOf({ nodes: NODES.map((node) => (node.model === undefined ? node : { ...node, promptTokens: 500, outputTokens: 100 })) }), '--json', ...H200)) as WorkflowRunReport[];
  expect(alike).toEqual(said);
  const [larger] = JSON.parse(await run('--workflow', fileOf(unsized), '--like', '500:1000', '--json', ...H200)) as WorkflowRunReport[];
  expect(larger?.tookShareP50).toBeGreaterThan(alike?.tookShareP50 ?? 0);
});

test.each(['--like', '--workflow-rate', '--workflow-spread'])('%s without a workflow is refused', async (option) => {
  await expect(command.run(['--synthetic', 'poisson', option, option === '--like' ? '5:5' : '1'])).rejects.toThrow(`${option}: is of workflows; name one with --workflow`);
});

test('a deadline that is scaled is tighter for all', async () => {
  const [loose] = JSON.parse(await run('--workflow', fileOf({}), '--json', ...H200)) as WorkflowRunReport[];
  const [tight] = JSON.parse(await run('--workflow', fileOf({}), '--json', '--slo-scale', '0.1', ...H200)) as WorkflowRunReport[];
  expect(tight?.attainment).toBeLessThan(loose?.attainment ?? 0);
});

test.each([
  ['options of requests', {}, ['--rate', '3'], /^--rate: is of requests; --workflow plays runs of a workflow instead/],
  ['a part of a workload', {}, ['--speed', '2'], /^--speed: is of requests/],
  ['sizes that are none', {}, ['--like', '1200'], /^--like: got '1200', want PROMPT:OUTPUT in tokens, such as 1200:300$/],
  ['no deadline', { deadlineMs: undefined }, [], /has no deadlineMs; by when is all of it due\?/],
  ['a call without sizes', { nodes: [{ stage: 'a', model: 'm' }], edges: [] }, [], /nodes\[0\] a: says no promptTokens; give them, or --like PROMPT:OUTPUT for all calls that say none$/],
  ['too many runs', {}, ['--workflow-rate', '10000', '--duration', '1000'], /more than 100000 workflows/],
  ['no run', {}, ['--workflow-rate', '0.00001'], /no workflow comes within 120 s/],
])('%s', async (_, over, argv, message) => {
  await expect(command.run(['--workflow', fileOf(over), ...H200, ...argv])).rejects.toThrow(message);
});
