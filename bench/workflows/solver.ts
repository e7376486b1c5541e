// How long it takes to allot a workflow's slack: the first time, and again after each node's end. Frontiers are calls' on real profiles and made-up
// convex ones; a first solution is the fastest of three, for other work on the machine is not asked about; `--json` for scripts. With `--declare` instead how
// long the event loop is held up by the declaration of the largest that is allowed.
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { callFrontier } from '../../src/core/call-frontier.ts';
import { createGuardBands } from '../../src/core/guard-band.ts';
import type { WorkflowId } from '../../src/core/job.ts';
import { createLengthPredictor } from '../../src/core/length-predictor.ts';
import { createSlackAllotment, lowerHull, topologicalOrder, type TradeOffPoint, WORKFLOW_EDGES_MAX, WORKFLOW_NODES_MAX } from '../../src/core/slack-allotment.ts';
import { longestMs } from '../../src/core/workflow-frontier.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { createRandom, type Random } from '../../src/random/random.ts';
import { createWorkflows } from '../../src/scheduler/workflows.ts';
import { readWorkflow } from '../../src/workflow-document.ts';
import { type Graph, SHAPES } from './shapes.ts';

const { values } = parseArgs({ options: { nodes: { type: 'string', default: '100,1000' }, seeds: { type: 'string', default: '5' }, shape: { type: 'string' }, updates: { type: 'string', default: '50' }, declare: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } } });
const SIZES = values.nodes.split(',').map(Number);
const SEEDS = Number(values.seeds);
const UPDATES = Number(values.updates);
const TURNS = 3;
/** Between all at their fastest and all at their slowest. */
const DEADLINES = { tight: 0.05, medium: 0.35, loose: 0.85 };
const models = ['config/profiles/llama-3.1-8b.h200.json', 'config/profiles/llama-3.1-70b.h100-tp4.json'].map((path) => createPerformanceModel(loadProfile(path)));
const FRONTIERS: Readonly<Record<string, (random: Random) => TradeOffPoint[]>> = { calls: callPoints, 'twelve points': convexPoints };

interface Row {
  readonly shape: string;
  readonly nodes: number;
  readonly edges: number;
  readonly frontiers: string;
  readonly deadline: string;
  readonly firstMs: readonly number[];
  readonly updateMs: readonly number[];
}

/** What is served is unlike only by what it has learnt, so each has all its points. */
const REPLICAS = [1, 4];
const DECLARED = 20;

const machine = `${cpus().length} x ${cpus()[0]?.model.trim()}, Node ${process.version}`;
const shown: object[] = [];
if (values.declare) {
  for (const replicas of REPLICAS) declare(replicas);
  process.exit(0);
}
if (!values.json) process.stdout.write('shape                  nodes  edges  frontiers      deadline  first solution ms    after an end ms\n');
for (const [shape, make] of Object.entries(SHAPES)) {
  if (values.shape !== undefined && !shape.startsWith(values.shape)) continue;
  for (const nodes of SIZES) for (const frontiers of Object.keys(FRONTIERS)) for (const deadline of Object.keys(DEADLINES) as (keyof typeof DEADLINES)[]) {
    const { firstMs, updateMs, ...row } = measure(shape, make, nodes, frontiers, deadline);
    const times = { firstMedianMs: quantile(firstMs, 0.5), firstWorstMs: Math.max(...firstMs), updateMedianMs: quantile(updateMs, 0.5), updateP95Ms: quantile(updateMs, 0.95) };
    shown.push({ ...row, ...times });
    if (!values.json) process.stdout.write(`${row.shape.padEnd(22)} ${String(row.nodes).padStart(5)} ${String(row.edges).padStart(6)}  ${row.frontiers.padEnd(13)}  ${row.deadline.padEnd(8)}  ${times.firstMedianMs.toFixed(2).padStart(8)} ${times.firstWorstMs.toFixed(2).padStart(8)}  ${times.updateMedianMs.toFixed(3).padStart(8)} ${times.updateP95Ms.toFixed(3).padStart(7)}\n`);
  }
}
if (values.json) process.stdout.write(`${JSON.stringify({ machine, seeds: SEEDS, rows: shown }, null, 2)}\n`);
else process.stdout.write(`First solution: median and worst of ${SEEDS} graphs; after an end: median and 95th percentile of ${UPDATES} in each. ${machine}\n`);

function measure(shape: string, make: (typeof SHAPES)[string], nodes: number, kind: string, deadline: keyof typeof DEADLINES): Row {
  const firstMs: number[] = [];
  const updateMs: number[] = [];
  let edges = 0;
  // The first seed is played twice: what is compiled on the way is not what is asked.
  for (let seed = 0; seed <= SEEDS; seed++) {
    const random = createRandom(Math.max(1, seed), `${shape} ${nodes} ${kind}`);
    const graph = make(nodes, random);
    const frontiers = Array.from({ length: nodes }, () => (FRONTIERS[kind] as (typeof FRONTIERS)[string])(random));
    const played = play(graph, frontiers, DEADLINES[deadline], random);
    edges = graph.edges.length;
    if (seed === 0) continue;
    firstMs.push(played.firstMs);
    updateMs.push(...played.updateMs);
  }
  return { shape, nodes, edges, frontiers: kind, deadline, firstMs, updateMs };
}

function play(graph: Graph, frontiers: readonly TradeOffPoint[][], share: number, random: Random): { firstMs: number; updateMs: number[] } {
  const hulls = frontiers.map(lowerHull);
  const [fastestMs, slowestMs] = [longestMs(hulls.map((hull) => (hull[0] as TradeOffPoint).timeMs), graph.edges), longestMs(hulls.map((hull) => (hull.at(-1) as TradeOffPoint).timeMs), graph.edges)];
  const deadlineMs = fastestMs + share * (slowestMs - fastestMs);
  let firstMs = Number.POSITIVE_INFINITY;
  let allotment = createSlackAllotment({ frontiers, edges: graph.edges, deadlineMs });
  for (let turn = 0; turn < TURNS; turn++) {
    const startMs = performance.now();
    allotment = createSlackAllotment({ frontiers, edges: graph.edges, deadlineMs });
    allotment.solve();
    firstMs = Math.min(firstMs, performance.now() - startMs);
  }
  let solved = allotment.solve();
  const updateMs: number[] = [];
  const order = topologicalOrder(graph.nodes, graph.edges);
  // Most end as they were allotted; every so often one is early or late, and all behind it is allotted anew.
  const step = Math.max(1, Math.floor(graph.nodes / UPDATES));
  for (const [index, node] of order.entries()) {
    if (solved.kind === 'infeasible') break;
    const { startAtMs, timeMs } = solved.nodes[node] as (typeof solved.nodes)[number];
    if (index % step !== step - 1) {
      allotment.endedAt(node, startAtMs + timeMs);
      continue;
    }
    allotment.solve();
    const beganMs = performance.now();
    allotment.endedAt(node, startAtMs + timeMs * (0.85 + 0.25 * random()));
    solved = allotment.solve();
    updateMs.push(performance.now() - beganMs);
  }
  return { firstMs, updateMs };
}

/** Of a call of usual sizes on one of the profiles, or for one in ten of a tool. */
function callPoints(random: Random): TradeOffPoint[] {
  if (random() < 0.1) return [{ timeMs: 50 + 2_000 * random() ** 2, energyJ: 0 }];
  return callFrontier(models[random() < 0.7 ? 0 : 1] as (typeof models)[number], { promptTokens: 100 + Math.floor(4_000 * random() ** 2), outputTokens: 20 + Math.floor(800 * random() ** 2), company: 1 + Math.floor(random() * 16) });
}

/** Twelve of unlike steepness, all on the hull. */
function convexPoints(random: Random): TradeOffPoint[] {
  let [timeMs, energyJ, slope] = [10 + 300 * random(), 20 + 300 * random(), 0.5 + 2 * random()];
  return Array.from({ length: 12 }, () => {
    const at = { timeMs, energyJ };
    const longer = timeMs * (0.03 + 0.12 * random());
    slope *= 0.6 + 0.3 * random();
    [timeMs, energyJ] = [timeMs + longer, energyJ - slope * longer];
    return at;
  });
}

function quantile(samples: readonly number[], share: number): number {
  return samples.toSorted((a, b) => a - b)[Math.floor(share * (samples.length - 1))] ?? Number.NaN;
}

/** From the text of a declaration to its answer: one after another, each of its own workflows, as a gateway takes them. */
function declare(replicas: number): void {
  const random = createRandom(1, 'declarations');
  const stage = (node: number): string => `stage-${node}`;
  const nodes = Array.from({ length: WORKFLOW_NODES_MAX }, (_, node) => ({ stage: stage(node), model: 'm', promptTokens: 100 + Math.floor(4_000 * random() ** 2), outputTokens: 20 + Math.floor(800 * random() ** 2) }));
  const edges = Array.from({ length: WORKFLOW_EDGES_MAX }, () => {
    const before = Math.floor(random() * (nodes.length - 1));
    return [stage(before), stage(before + 1 + Math.floor(random() * (nodes.length - 1 - before)))];
  });
  const text = JSON.stringify({ name: 'large', deadlineMs: 7_200_000, nodes, edges });
  const took: Record<'parse' | 'read' | 'take in' | 'of that allot', number[]> = { parse: [], read: [], 'take in': [], 'of that allot': [] };
  const timed = <Value>(what: keyof typeof took, work: () => Value): Value => {
    const startMs = performance.now();
    const value = work();
    took[what].push(performance.now() - startMs);
    return value;
  };
  for (let turn = 0; turn < DECLARED; turn++) {
    const workflows = createWorkflows({ lengths: createLengthPredictor(), guards: createGuardBands(0.99), promptTokensOf: () => null, replicasOf: () => Array.from({ length: replicas }, () => models[0] as (typeof models)[number]), companyOf: () => ({ company: 8, interference: 0.1 }), leftOf: () => null });
    const content = timed('parse', (): unknown => JSON.parse(text));
    const reading = timed('read', () => readWorkflow(content));
    if (reading.kind === 'refused') throw new Error(reading.problems[0]);
    const { nodes: read, edges: pairs } = reading.workflow;
    timed('take in', () => workflows.declare({ workflowId: `w${turn}` as WorkflowId, tenant: 't', sloClass: 'c', deadlineMs: 7_200_000, nodes: read, edges: pairs }, 0));
    const frontiers = read.map((node) => (node.kind === 'tool' ? [] : lowerHull(callFrontier(models[0] as (typeof models)[number], { promptTokens: node.promptTokens ?? 0, outputTokens: node.outputTokens ?? 0, company: 8, interference: 0.1 }))));
    timed('of that allot', () => createSlackAllotment({ frontiers, edges: pairs, deadlineMs: 7_200_000 }).solve());
  }
  process.stdout.write(`declared: ${WORKFLOW_NODES_MAX} nodes, ${WORKFLOW_EDGES_MAX} edges, ${(text.length / 1_024).toFixed(0)} KiB, ${replicas} replica${replicas === 1 ? '' : 's'}; ms, first / least / median of ${DECLARED}: ${Object.entries(took).map(([what, ms]) => `${what} ${(ms[0] as number).toFixed(1)} / ${Math.min(...ms).toFixed(1)} / ${quantile(ms, 0.5).toFixed(1)}`).join(', ')}\n`);
}
