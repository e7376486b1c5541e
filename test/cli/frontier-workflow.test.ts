// A workflow's frontier as people ask for it: what is printed and written, how it ends, and what each mistake is told.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { UsageError } from '../../src/cli/command.ts';
import { command } from '../../src/cli/frontier.ts';
import { printed } from '../fixtures/printed.ts';

const H200 = 'config/profiles/llama-3.1-8b.h200.json';
const RESEARCH = 'config/workflows/research.yaml';
const CALL = { stage: 'a', model: 'm', promptTokens: 500, outputTokens: 100 };

interface Shown {
  points: { timeMs: number; energyJ: number; soonerJPerMs: number | null; critical: string[] }[];
  answer: { kind: string; energyJ: number; fastestMs: number; stages: { stage: string; endAtMs: number; energyJ: number; critical: boolean }[] } | null;
}

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'workflow-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

const run = (...argv: string[]): ReturnType<typeof printed> => printed(command, 'workflow', ...argv);

function fileOf(value: unknown): string {
  const path = join(directory, 'w.json');
  writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value));
  return path;
}

test('the frontier of a workflow is printed with what a second costs and what holds it up, and its plot is written', async () => {
  const [svg, html] = [join(directory, 'w.svg'), join(directory, 'w.html')];
  const { code, text } = await run(RESEARCH, '--profile', H200, '--svg', svg, '--html', html);
  expect(code).toBe(0);
  expect(text).toMatch(/^research: 11 stages, 13 edges, calls as one of 8 streams\. The fastest takes \d+ ms/);
  expect(text).toMatch(/a second less costs J +held up by\n\d+ +[\d.]+ +- +plan, /);
  expect(text).toMatch(/Within 16000 ms for the least energy, [\d.]+ J:\nstage +work/);
  expect(readFileSync(svg, 'utf8')).toMatch(/^<svg .*16000 ms.*<\/svg>\n$/s);
  expect(readFileSync(html, 'utf8')).toMatch(/^<!doctype html>.*What a deadline costs.*Within 16000 ms.*search-2/s);
});

test('a sooner deadline costs ever more, and what was allotted ends in time', async () => {
  const { points, answer } = JSON.parse((await run(RESEARCH, '--profile', `llama-3.1-8b=${H200}`, '--deadline-ms', '14000', '--json')).text) as Shown;
  expect(points.map(({ soonerJPerMs }) => soonerJPerMs).slice(1)).toEqual(points.map(({ soonerJPerMs }) => soonerJPerMs as number).slice(1).toSorted((a, b) => b - a));
  expect(answer?.kind).toBe('meets');
  expect(Math.max(...(answer?.stages ?? []).map(({ endAtMs }) => endAtMs))).toBeCloseTo(14_000, 2);
  expect(answer?.stages.reduce((sum, { energyJ }) => sum + energyJ, 0)).toBeCloseTo(answer?.energyJ ?? Number.NaN, 6);
  expect(answer?.stages.filter(({ critical }) => critical).map(({ stage }) => stage)).toEqual(expect.arrayContaining(['plan', 'draft', 'final']));
  const [before, after] = [points.findLast(({ timeMs }) => timeMs <= 14_000), points.find(({ timeMs }) => timeMs >= 14_000)];
  expect(answer?.energyJ).toBeLessThanOrEqual((before?.energyJ ?? 0) + 1e-6);
  expect(answer?.energyJ).toBeGreaterThanOrEqual((after?.energyJ ?? 0) - 1e-6);
});

test('a deadline that cannot be met is told with what could, and fails', async () => {
  const { code, text } = await run(RESEARCH, '--profile', H200, '--deadline-ms', '3000', '--html', join(directory, 'w.html'));
  expect(code).toBe(1);
  expect(text).toMatch(/Nothing within 3000 ms: the fastest takes \d+ ms, held up by plan, /);
  expect(readFileSync(join(directory, 'w.html'), 'utf8')).toContain('Not possible: the fastest takes');
  expect((JSON.parse((await run(RESEARCH, '--profile', H200, '--deadline-ms', '3000', '--json')).text) as Shown).answer).toMatchObject({ kind: 'infeasible' });
});

test('calls that say no sizes are like those that are given, and a workflow without a deadline has no answer', async () => {
  const bare = fileOf({ nodes: [{ stage: 'a', model: 'm' }, { stage: 'b', toolMs: 100 }], edges: [['a', 'b']] });
  const like = JSON.parse((await run(bare, '--profile', H200, '--like', '500:100', '--json')).text) as Shown;
  const said = JSON.parse((await run(fileOf({ nodes: [CALL, { stage: 'b', toolMs: 100 }], edges: [['a', 'b']] }), '--profile', H200, '--json')).text) as Shown;
  expect(like).toEqual(said);
  expect(like.answer).toBeNull();
  expect(like.points[0]?.critical).toEqual(['a', 'b']);
});

test('company makes calls cheaper and slower', async () => {
  const [alone, many] = await Promise.all(['1', '32'].map(async (company) => JSON.parse((await run(RESEARCH, '--profile', H200, '--company', company, '--json')).text) as Shown));
  expect(many?.points.at(-1)?.energyJ).toBeLessThan(alone?.points.at(-1)?.energyJ ?? 0);
  expect(many?.points[0]?.timeMs).toBeGreaterThan(alone?.points[0]?.timeMs ?? Number.POSITIVE_INFINITY);
});

test('a workflow of tools alone takes what they take', async () => {
  const { text } = await run(fileOf({ nodes: [{ stage: 'a', toolMs: 100 }, { stage: 'b', toolMs: 50 }], edges: [['a', 'b']] }), '--json');
  expect((JSON.parse(text) as Shown).points).toEqual([{ timeMs: 150, energyJ: 0, soonerJPerMs: null, critical: ['a', 'b'] }]);
});

test.each<[string, unknown, readonly string[], RegExp]>([
  ['no profile', { nodes: [CALL] }, [], /nodes\[0\] a: got model 'm', and no profile; give --profile m=PATH/],
  ['the profile of another model', { nodes: [CALL] }, ['--profile', `other=${H200}`], /nodes\[0\] a: got model 'm', and profiles of other only; give --profile m=PATH/],
  ['no sizes', { nodes: [{ stage: 'a', model: 'm' }] }, ['--profile', H200], /nodes\[0\] a: says no promptTokens; give them, or --like PROMPT:OUTPUT/],
  ['sizes that are none', { nodes: [CALL] }, ['--profile', H200, '--like', '500'], /--like: got '500', want PROMPT:OUTPUT/],
  ['two profiles for all', { nodes: [CALL] }, ['--profile', H200, '--profile', H200], /--profile: got two for all models, want one/],
  ['a profile of nothing', { nodes: [CALL] }, ['--profile', '=x'], /--profile: got '=x', want MODEL=PATH or PATH/],
  ['a cycle', { nodes: [CALL, { ...CALL, stage: 'b' }], edges: [['a', 'b'], ['b', 'a']] }, ['--profile', H200], /w\.json: edges: a → b → a is a cycle/],
  ['what is no YAML', '{ nodes: [', ['--profile', H200], /w\.json: is neither YAML nor JSON: /],
  ['aliases', 'nodes: &x [{ stage: a, toolMs: 1 }]\nedges: *x', ['--profile', H200], /w\.json: .*alias/i],
  ['a deadline that is none', { nodes: [CALL] }, ['--deadline-ms', '0'], /--deadline-ms: got '0'/],
  ['a plot in the place of the workflow', { nodes: [CALL] }, ['--profile', H200, '--html', H200], /--html .*h200\.json: is one of the files that are read/],
])('%s is refused with what was given and what is wanted', async (_, value, options, message) => {
  await expect(async () => run(fileOf(value), ...options)).rejects.toThrow(UsageError);
  await expect(async () => run(fileOf(value), ...options)).rejects.toThrow(message);
});
