// Workflows made up from a seed: the shapes that agents have, with calls and tools of unlike sizes, and runs of them whose sizes are
// not what was expected.
import { exponential, logNormal } from '../random/distributions.ts';
import { createRandom, type Random } from '../random/random.ts';
import type { WorkloadNode, WorkloadWorkflow } from './workflow.ts';
import { WorkloadError } from './workload-error.ts';

export type ExpectedNode =
  | { readonly kind: 'call'; readonly stage: string; readonly promptTokens: number; readonly outputTokens: number }
  | { readonly kind: 'tool'; readonly stage: string; readonly timeMs: number };

export interface WorkflowTemplate {
  readonly name: string;
  readonly nodes: readonly ExpectedNode[];
  readonly edges: readonly (readonly [before: number, after: number])[];
}

export const WORKFLOW_SHAPES = ['chain', 'fan-out', 'map-reduce', 'series-parallel', 'layered'] as const;
export type WorkflowShapeName = (typeof WORKFLOW_SHAPES)[number];

/** Coefficients of variation of what is drawn for a run, about what was expected. */
export interface Uncertainty {
  readonly prompt: number;
  readonly output: number;
  readonly tool: number;
}

const call = (stage: string, promptTokens: number, outputTokens: number): ExpectedNode => ({ kind: 'call', stage, promptTokens, outputTokens });
const tool = (stage: string, timeMs: number): ExpectedNode => ({ kind: 'tool', stage, timeMs });

/**
 * `nodes`: how many the random shapes have; the others have a size of their own. Series-parallel: parts one after the other or side by side, split
 * at random until there are so many. Layered: each node needs one to three of the layer before, so that hardly any is series-parallel.
 */
export function workflowTemplate(shape: WorkflowShapeName, { nodes, seed }: { readonly nodes: number; readonly seed: number }): WorkflowTemplate {
  const random = createRandom(seed, `workflow/${shape}`);
  switch (shape) {
    case 'chain':
      return chainOf('chain', [call('plan', 800, 200), call('query', 1_200, 80), tool('search', 900), call('read', 6_000, 250), call('draft', 3_000, 600), call('check', 3_500, 60)]);
    case 'fan-out':
      return fanOut();
    case 'map-reduce':
      return mapReduce();
    case 'series-parallel':
      return seriesParallel(random, nodes);
    case 'layered':
      return layered(random, nodes);
    default:
      throw new WorkloadError(`workflow shape: got '${String(shape)}', want one of ${WORKFLOW_SHAPES.join(', ')}`);
  }
}

function chainOf(name: string, nodes: readonly ExpectedNode[]): WorkflowTemplate {
  return { name, nodes, edges: nodes.slice(1).map((_, place) => [place, place + 1] as const) };
}

/** One long branch, some short ones, and a tool beside them. */
function fanOut(): WorkflowTemplate {
  const branches = [call('analyse', 4_000, 700), call('summarise', 3_000, 250), call('classify', 1_500, 40), call('extract', 2_500, 300), call('translate', 900, 400), tool('lookup', 3_000)];
  const nodes = [call('plan', 1_000, 150), ...branches, call('join', 3_500, 350)];
  return { name: 'fan-out', nodes, edges: branches.flatMap((_, index): [number, number][] => [[0, index + 1], [index + 1, nodes.length - 1]]) };
}

function mapReduce(): WorkflowTemplate {
  const maps = 12;
  const reduces = 3;
  const nodes = [
    call('split', 1_200, 120),
    ...Array.from({ length: maps }, (_, index) => call(`map-${index}`, 2_000 + 400 * (index % 4), 120 + 60 * (index % 5))),
    ...Array.from({ length: reduces }, (_, index) => call(`reduce-${index}`, 2_500, 200 + 150 * index)),
    call('report', 2_000, 500),
  ];
  const edges: [number, number][] = [];
  for (let map = 1; map <= maps; map++) {
    edges.push([0, map], [map, 1 + maps + ((map - 1) % reduces)]);
  }
  for (let reduce = 0; reduce < reduces; reduce++) edges.push([1 + maps + reduce, nodes.length - 1]);
  return { name: 'map-reduce', nodes, edges };
}

function drawNode(random: Random, place: number): ExpectedNode {
  if (random() < 0.15) return tool(`tool-${place}`, Math.round(200 + logNormal(random, 1_500, 0.8)));
  return call(`call-${place}`, Math.round(100 + logNormal(random, 1_800, 0.8)), Math.round(20 + logNormal(random, 220, 0.8)));
}

function seriesParallel(random: Random, count: number): WorkflowTemplate {
  const nodes: ExpectedNode[] = [];
  const edges: [number, number][] = [];
  /** First and last nodes of a part that has so many. */
  const build = (size: number, inSeries: boolean): { readonly first: number[]; readonly last: number[] } => {
    if (size <= 1) {
      const place = nodes.push(drawNode(random, nodes.length)) - 1;
      return { first: [place], last: [place] };
    }
    const parts = Math.min(size, 2 + Math.floor(random() * 2));
    const sizes = Array.from({ length: parts }, (_, index) => Math.floor(size / parts) + (index < size % parts ? 1 : 0));
    const built = sizes.map((part) => build(part, !inSeries));
    if (!inSeries) return { first: built.flatMap(({ first }) => first), last: built.flatMap(({ last }) => last) };
    for (const [index, part] of built.slice(1).entries()) for (const before of built[index]?.last ?? []) for (const after of part.first) edges.push([before, after]);
    return { first: built[0]?.first ?? [], last: built.at(-1)?.last ?? [] };
  };
  build(count, true);
  return { name: `series-parallel-${count}`, nodes, edges };
}

function layered(random: Random, count: number): WorkflowTemplate {
  const nodes: ExpectedNode[] = [];
  const edges: [number, number][] = [];
  let before: number[] = [];
  while (nodes.length < count) {
    const width = Math.min(count - nodes.length, 1 + Math.floor(random() * Math.max(2, Math.sqrt(count) / 2)));
    const layer = Array.from({ length: width }, () => nodes.push(drawNode(random, nodes.length)) - 1);
    for (const place of layer) {
      const needed = new Set(Array.from({ length: Math.min(before.length, 1 + Math.floor(random() * 3)) }, () => before[Math.floor(random() * before.length)] as number));
      for (const need of needed) edges.push([need, place]);
    }
    before = layer;
  }
  return { name: `layered-${count}`, nodes, edges };
}

/** Runs of a template, come by Poisson; each with sizes of its own. */
export function drawWorkflows(
  template: WorkflowTemplate,
  { ratePerS, durationS, deadlineMs, uncertainty, seed }: { readonly ratePerS: number; readonly durationS: number; readonly deadlineMs: (run: number) => number; readonly uncertainty: Uncertainty; readonly seed: number },
): readonly WorkloadWorkflow[] {
  const gapS = createRandom(seed, 'workflows/arrivals');
  const sizes = createRandom(seed, 'workflows/sizes');
  const runs: WorkloadWorkflow[] = [];
  for (let atS = exponential(gapS, 1 / ratePerS); atS < durationS; atS += exponential(gapS, 1 / ratePerS)) {
    const nodes = template.nodes.map((node): WorkloadNode => {
      if (node.kind === 'tool') return { kind: 'tool', stage: node.stage, expectedMs: node.timeMs, timeMs: drawn(sizes, node.timeMs, uncertainty.tool) };
      const { stage, promptTokens, outputTokens } = node;
      return { kind: 'call', stage, expected: { promptTokens, outputTokens }, promptTokens: Math.max(1, Math.round(drawn(sizes, promptTokens, uncertainty.prompt))), outputTokens: Math.max(1, Math.round(drawn(sizes, outputTokens, uncertainty.output))) };
    });
    runs.push({ atMs: atS * 1_000, deadlineMs: deadlineMs(runs.length), name: template.name, nodes, edges: template.edges });
  }
  return runs;
}

function drawn(random: Random, mean: number, cv: number): number {
  return cv === 0 ? mean : logNormal(random, mean, cv);
}
