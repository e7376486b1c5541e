// A workflow as people declare it, in a file or in a request: stages by their names, and which needs the end of which. Every reason to refuse one is
// here; what its calls cost and when each is due is worked out elsewhere.
import { z } from 'zod';
import { WORKFLOW_EDGES_MAX, WORKFLOW_NODES_MAX } from './core/slack-allotment.ts';

export type DeclaredNode =
  /** Sizes may be left out, where somebody knows what such calls have. */
  | { readonly kind: 'call'; readonly stage: string; readonly model: string; readonly promptTokens?: number; readonly outputTokens?: number }
  | { readonly kind: 'tool'; readonly stage: string; readonly timeMs: number };

export interface DeclaredWorkflow {
  readonly name?: string;
  readonly deadlineMs?: number;
  readonly nodes: readonly DeclaredNode[];
  /** By places in `nodes`, from one to another that needs its end; without cycles. */
  readonly edges: readonly (readonly [before: number, after: number])[];
}

export type WorkflowReading = { readonly kind: 'read'; readonly workflow: DeclaredWorkflow } | { readonly kind: 'refused'; readonly problems: readonly string[] };

/** Of a stage, a model or the workflow. */
const NAME_CHARACTERS_MAX = 256;
/** Of a prompt or an answer: no model reads or writes as many. */
export const TOKENS_MAX = 10_000_000;
/** Nothing is served in less. */
export const WORKFLOW_MS_MIN = 1;
/** Thirty days: whoever gives more has given another unit. */
export const WORKFLOW_MS_MAX = 30 * 24 * 3_600_000;
/** More are counted only: they are mostly the same mistake. */
const PROBLEMS_SHOWN_MAX = 10;
/** Characters of what was given. */
const SHOWN_MAX = 60;

const text = z.string().min(1).max(NAME_CHARACTERS_MAX);
const name = text.refine((given) => !isDots(given), 'want a name other than . and .., which no address can end in');
const tokens = z.exactOptional(z.number().int().min(0).max(TOKENS_MAX));
const callSchema = z.strictObject({ stage: name, model: text, promptTokens: tokens, outputTokens: tokens });
const toolSchema = z.strictObject({ stage: name, toolMs: z.number().min(0).max(WORKFLOW_MS_MAX) });
const edgeSchema = z.tuple([text, text]);
const documentSchema = z.strictObject({
  name: z.exactOptional(name),
  deadlineMs: z.exactOptional(z.number().min(WORKFLOW_MS_MIN).max(WORKFLOW_MS_MAX)),
  nodes: z.array(z.unknown()).min(1).max(WORKFLOW_NODES_MAX),
  edges: z.array(z.unknown()).max(WORKFLOW_EDGES_MAX).default([]),
});

/** A client takes it for the folder that it is in, or that above, before it asks for any address that it stands in. */
export function isDots(given: string): boolean {
  return given === '.' || given === '..';
}

/**
 * `{name?, deadlineMs?, nodes: [{stage, model, promptTokens?, outputTokens?} | {stage, toolMs}], edges?: [[stage, stage], …]}`, nothing else: unknown keys are
 * problems, and so are stages that are named twice or nowhere, and cycles. Each problem says where it is, what was given and what is allowed.
 * `also`: further keys that whoever calls knows and has read already.
 */
export function readWorkflow(value: unknown, also: readonly string[] = []): WorkflowReading {
  const document = documentSchema.safeParse(value);
  if (!document.success) return refused(document.error.issues.map((issue) => problemOf(issue, value, [], also)));
  const problems: string[] = [];
  const nodes: DeclaredNode[] = [];
  const places = new Map<string, number>();
  for (const [place, given] of document.data.nodes.entries()) {
    const node = nodeOf(given, place);
    if (!('kind' in node)) {
      problems.push(...node);
      continue;
    }
    const earlier = places.get(node.stage);
    if (earlier === undefined) places.set(node.stage, place);
    else problems.push(`nodes[${place}].stage: got '${node.stage}', which nodes[${earlier}] is called already; stages are unique`);
    nodes.push(node);
  }
  if (problems.length > 0) return refused(problems);
  const edges: (readonly [number, number])[] = [];
  for (const [index, edge] of document.data.edges.entries()) {
    if (!isPair(edge)) {
      // Those that are only counted need no words.
      problems.push(...(problems.length >= PROBLEMS_SHOWN_MAX ? [''] : (edgeSchema.safeParse(edge).error?.issues ?? []).map((issue) => problemOf(issue, edge, ['edges', index]))));
      continue;
    }
    const [before, after] = [places.get(edge[0]), places.get(edge[1])];
    for (const stage of edge) if (!places.has(stage)) problems.push(`edges[${index}]: got '${shortened(stage)}', and no node has that stage`);
    if (edge[0] === edge[1]) problems.push(`edges[${index}]: '${edge[0]}' cannot need its own end`);
    else if (before !== undefined && after !== undefined) edges.push([before, after]);
  }
  const cycle = problems.length > 0 ? null : cycleIn(nodes.length, edges);
  if (cycle !== null) problems.push(`edges: ${cycleText(cycle.map((node) => (nodes[node] as DeclaredNode).stage))} is a cycle, and none of it could ever begin`);
  if (problems.length > 0) return refused(problems);
  return { kind: 'read', workflow: { ...document.data, nodes, edges } };
}

function refused(problems: readonly string[]): WorkflowReading {
  const hidden = problems.length - PROBLEMS_SHOWN_MAX;
  return { kind: 'refused', problems: hidden > 0 ? [...problems.slice(0, PROBLEMS_SHOWN_MAX), `and ${hidden} more`] : problems };
}

/** Or what is wrong with it, by the shape that it was meant to have: it is a tool where it says how long that takes. */
function nodeOf(given: unknown, place: number): DeclaredNode | readonly string[] {
  const problems = (issues: readonly z.core.$ZodIssue[]): readonly string[] => issues.map((issue) => problemOf(issue, given, ['nodes', place]));
  if (typeof given === 'object' && given !== null && 'toolMs' in given) {
    if ('model' in given) return [`nodes[${place}].toolMs: got ${shown(given.toolMs)} beside the model ${shown(given.model)}; want one of the two: ${NODE_WANTED}`];
    const tool = toolSchema.safeParse(given);
    return tool.success ? { kind: 'tool', stage: tool.data.stage, timeMs: tool.data.toolMs } : problems(tool.error.issues);
  }
  const call = callSchema.safeParse(given);
  return call.success ? { kind: 'call', ...call.data } : problems(call.error.issues);
}

/** By hand: there are twenty thousand, and a schema takes ten times as long. Those that are none are told by it what is wrong. */
function isPair(edge: unknown): edge is [string, string] {
  return Array.isArray(edge) && edge.length === 2 && typeof edge[0] === 'string' && typeof edge[1] === 'string';
}

function problemOf(issue: z.core.$ZodIssue, value: unknown, at: readonly PropertyKey[], also: readonly string[] = []): string {
  const path = [...at, ...issue.path];
  const where = path.map((part, index) => (typeof part === 'number' ? `[${part}]` : `${index === 0 ? '' : '.'}${String(part)}`)).join('');
  if (issue.code === 'unrecognized_keys') return `${where === '' ? '' : `${where}: `}unknown key ${issue.keys.map((key) => `'${key.slice(0, NAME_CHARACTERS_MAX)}'`).join(', ')}; known: ${at.length === 0 ? [...also, 'name', 'deadlineMs', 'nodes', 'edges'].join(', ') : 'stage, model, promptTokens, outputTokens; of a tool stage, toolMs'}`;
  const given = issue.path.reduce<unknown>((inside, part) => (typeof inside === 'object' && inside !== null ? (inside as Record<PropertyKey, unknown>)[part] : undefined), value);
  return `${where === '' ? 'the workflow' : where}: got ${shown(given)}; ${issue.code === 'custom' ? issue.message : (wantedAt(path) ?? issue.message)}`;
}

const NODE_WANTED = 'a call has stage, model and, where they are known, promptTokens and outputTokens; a tool has stage and toolMs';
const NAME_TEXT = `a text of 1 to ${NAME_CHARACTERS_MAX} characters`;
const TOKENS_WANTED = `want a whole number of tokens, 0 to ${TOKENS_MAX}`;

/** What may stand in a place of the document, its keys in a row and every index a `*`. */
const WANTED: Readonly<Record<string, string>> = {
  '': 'want an object with nodes and, where there are any, name, deadlineMs and edges',
  name: `want ${NAME_TEXT}`,
  deadlineMs: `want a number of milliseconds, ${WORKFLOW_MS_MIN} to ${WORKFLOW_MS_MAX} (30 days)`,
  nodes: `want a list of 1 to ${WORKFLOW_NODES_MAX} nodes`,
  'nodes.*': `want an object: ${NODE_WANTED}`,
  'nodes.*.stage': `want ${NAME_TEXT}`,
  'nodes.*.model': `want ${NAME_TEXT}, or toolMs where it is a tool`,
  'nodes.*.promptTokens': TOKENS_WANTED,
  'nodes.*.outputTokens': TOKENS_WANTED,
  'nodes.*.toolMs': `want a number of milliseconds, 0 to ${WORKFLOW_MS_MAX} (30 days)`,
  edges: `want a list of at most ${WORKFLOW_EDGES_MAX} edges`,
  'edges.*': 'want a pair of stages, the second of which needs the end of the first',
  'edges.*.*': `want a stage, ${NAME_TEXT}`,
};

function wantedAt(path: readonly PropertyKey[]): string | undefined {
  return WANTED[path.map((part) => (typeof part === 'number' ? '*' : String(part))).join('.')];
}

/** As much of it as tells which it is: what is given may be nested a million times. */
export function shown(given: unknown): string {
  if (given === undefined) return 'nothing';
  if (Array.isArray(given)) return `a list of ${given.length}`;
  if (typeof given === 'object' && given !== null) return `an object${Object.keys(given).length === 0 ? '' : ` of ${shortened(Object.keys(given).slice(0, 4).join(', '))}`}`;
  return typeof given === 'string' ? shortened(JSON.stringify(given.slice(0, SHOWN_MAX + 1))) : String(given);
}

function shortened(given: string): string {
  return given.length > SHOWN_MAX ? `${given.slice(0, SHOWN_MAX)}…` : given;
}

/** The nodes of one cycle, in order; `null`: there is none. What no edge leads out of, and then what leads only to that, is in none. */
function cycleIn(nodes: number, edges: readonly (readonly [number, number])[]): number[] | null {
  const into: number[][] = Array.from({ length: nodes }, () => []);
  const ways = new Int32Array(nodes);
  for (const [before, after] of edges) {
    ways[before] = (ways[before] as number) + 1;
    into[after]?.push(before);
  }
  const ends = Array.from({ length: nodes }, (_, node) => node).filter((node) => ways[node] === 0);
  for (let next = 0; next < ends.length; next++) {
    for (const before of into[ends[next] as number] as number[]) {
      ways[before] = (ways[before] as number) - 1;
      if (ways[before] === 0) ends.push(before);
    }
  }
  const left = new Set(Array.from({ length: nodes }, (_, node) => node).filter((node) => (ways[node] as number) > 0));
  if (left.size === 0) return null;
  // Every one that is left leads to another that is: whoever walks on comes to one twice.
  const next = new Map(edges.filter(([before, after]) => left.has(before) && left.has(after)));
  const seen = new Map<number, number>();
  const walk: number[] = [];
  for (let node = [...left][0] as number; ; node = next.get(node) as number) {
    const from = seen.get(node);
    if (from !== undefined) return walk.slice(from);
    seen.set(node, walk.length);
    walk.push(node);
  }
}

function cycleText(stages: readonly string[]): string {
  const some = stages.length > 12 ? [...stages.slice(0, 11), `… (${stages.length} stages)`] : stages;
  return [...some, stages[0]].join(' → ');
}
