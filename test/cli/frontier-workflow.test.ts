// A workflow's frontier as people ask for it: what is printed and written, how it ends, and what each mistake is told.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { UsageError } from '../../src/cli/command.ts';
import { command } from '../../src/cli/frontier.ts';
import { createRandom } from '../../src/random/random.ts';
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

test.each<[string, string, RegExp]>([
  ['lists without end', '['.repeat(200_000), /is nested too deeply to be a workflow$/],
  ['lists in lists', `{"nodes":${'['.repeat(50_000)}${']'.repeat(50_000)}}`, /is nested too deeply to be a workflow$/],
  ['objects in objects', `{"nodes":[{"stage":${'{"a":'.repeat(9_000)}1${'}'.repeat(9_000)},"toolMs":1}]}`, /is nested too deeply to be a workflow$/],
  ['half of it', JSON.stringify({ nodes: [CALL] }).slice(0, -5), /is neither YAML nor JSON: /],
  ['nothing', '', /the workflow: got null; /],
  ['a key that is a list', '? [a, b]\n: c\nnodes: [{ stage: a, toolMs: 1 }]', /unknown key '\[ a, b \]'/],
  ['an alias of itself', 'nodes: &a [*a]', /Alias resolution is disabled/],
  ['no number', '{"nodes":[{"stage":"a","toolMs":.nan}]}', /nodes\[0\]\.toolMs: got NaN; /],
  ['a time without end', '{"nodes":[{"stage":"a","toolMs":.inf}]}', /nodes\[0\]\.toolMs: got Infinity; /],
  ['a number too many', JSON.stringify({ nodes: Array.from({ length: 1_001 }, (_, index) => ({ stage: `${index}`, toolMs: 1 })) }), /nodes: got a list of 1001; want a list of 1 to 1000 nodes/],
  ['an edge too many', JSON.stringify({ nodes: [CALL, { stage: 'b', toolMs: 1 }], edges: Array.from({ length: 20_001 }, () => ['a', 'b']) }), /edges: got a list of 20001; want a list of at most 20000 edges/],
  ['a token too many', JSON.stringify({ nodes: [{ ...CALL, outputTokens: 10_000_001 }] }), /nodes\[0\]\.outputTokens: got 10000001; want a whole number of tokens, 0 to 10000000/],
])('a file of %s is told so', async (_, text, message) => {
  await expect(run(fileOf(text), '--profile', H200)).rejects.toThrow(UsageError);
  await expect(run(fileOf(text), '--profile', H200)).rejects.toThrow(message);
});

test('options say no more than a file may', async () => {
  const file = fileOf({ nodes: [{ stage: 'a', model: 'm' }] });
  await expect(run(file, '--profile', H200, '--like', '10000001:1')).rejects.toThrow(/--like: got '10000001:1', want at most 10000000 tokens of either/);
  await expect(run(file, '--profile', H200, '--like', '1:1', '--deadline-ms', '2592000001')).rejects.toThrow(/--deadline-ms: got '2592000001'/);
});

test('whatever a file says, there is a frontier of finite numbers or one line for each thing that is wrong with it', async () => {
  const random = createRandom(7, 'files of workflows');
  const pick = <Value>(among: readonly Value[]): Value => among[Math.floor(random() * among.length)] as Value;
  const odd = (): unknown => pick([null, true, -1, 0, 1e308, -0, 1.5, '', 'x'.repeat(300), '.', '..', [], {}, [[]], { a: 1 }, '__proto__', 'constructor', 2 ** 60, 5e-324, 'NaN']);
  const tokens = (): number => pick([0, 1, 900, 1e5, 1e7, Math.floor(1e7 * random())]);
  let [shown, refused] = [0, 0];
  for (let turn = 0; turn < 250; turn++) {
    const count = pick([1, 2, 5, 20, 40]);
    const nodes: unknown[] = Array.from({ length: count }, (_, place) => (random() < 0.35 ? { stage: `s${place}`, toolMs: pick([0, 5e-324, 1e-9, 1, 1_000, 2.592e9, 2.592e9 * random()]) } : { stage: `s${place}`, model: 'm', promptTokens: tokens(), outputTokens: tokens() }));
    const density = pick([0, 0.1, 0.4]);
    const edges: unknown[] = Array.from({ length: count }, (_, after) => Array.from({ length: after }, (__, before) => [`s${before}`, `s${after}`])).flat().filter(() => random() < density);
    const document: Record<string, unknown> = { nodes, edges };
    const wrong = pick(['nothing', 'nothing', 'nothing', 'a node', 'an edge', 'a key', 'a key of a node', 'a cycle', 'a stage twice']);
    if (wrong === 'a node') nodes[Math.floor(random() * count)] = odd();
    if (wrong === 'an edge') edges.push(odd());
    if (wrong === 'a key') document[pick(['nodes', 'edges', 'name', 'deadlineMs', 'bogus'])] = odd();
    if (wrong === 'a key of a node') nodes[0] = { ...(nodes[0] as object), [pick(['stage', 'model', 'promptTokens', 'outputTokens', 'toolMs', 'bogus'])]: odd() };
    if (wrong === 'a cycle') edges.push([`s${count - 1}`, 's0'], ['s0', `s${count - 1}`]);
    if (wrong === 'a stage twice') nodes.push(nodes[0]);
    const outcome = await run(fileOf(document), '--profile', H200, '--json', '--deadline-ms', pick(['0.001', '60000', '2592000000']), '--company', pick(['1', '8', '100000'])).catch((error: unknown) => error);
    if (outcome instanceof Error) {
      expect(outcome).toBeInstanceOf(UsageError);
      expect(outcome.message.split('\n').length).toBeLessThanOrEqual(11);
      refused += 1;
      continue;
    }
    const { code, text } = outcome as Awaited<ReturnType<typeof run>>;
    const { points, answer } = JSON.parse(text) as Shown;
    expect([0, 1]).toContain(code);
    // JSON has null for what is not finite.
    for (const [index, { timeMs, energyJ, soonerJPerMs }] of points.entries()) expect([typeof timeMs, typeof energyJ, soonerJPerMs === null]).toEqual(['number', 'number', index === 0]);
    expect(answer?.kind).toBe(code === 0 ? 'meets' : 'infeasible');
    shown += 1;
  }
  expect(shown).toBeGreaterThan(80);
  expect(refused).toBeGreaterThan(80);
}, 60_000);
