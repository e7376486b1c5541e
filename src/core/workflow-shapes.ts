// What workflows of one name look like, learnt from the runs that were seen: which calls there are, how large, what each waited for, and how
// long nothing was heard between them, which is what tools took.
import { LEARNT_KEYS_MAX } from './limits.ts';
import type { WorkflowEdge, WorkflowNode } from './workflow.ts';

/** A call of a run, as it was. */
export interface SeenCall {
  /** Calls of one stage in turn are told apart: `plan`, `plan#2`, … */
  readonly stage: string;
  readonly model: string;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly beganAtMs: number;
  readonly endedAtMs: number;
}

export interface WorkflowShape {
  readonly nodes: readonly WorkflowNode[];
  readonly edges: readonly WorkflowEdge[];
}

export interface WorkflowShapes {
  /** A run that has ended, in the order of beginning. */
  observe(key: string, calls: readonly SeenCall[]): void;
  /** As most runs had it; `null` where none was seen. */
  shapeOf(key: string): WorkflowShape | null;
}

/** Of each run in the means: about the last ten count. */
const WEIGHT_MIN = 0.1;
/** A stage that fewer of the runs have is not expected. */
const EXPECTED_SHARE = 0.5;
/** Between calls that follow at once there is no tool. */
const TOOL_MS_MIN = 5;

interface LearntStage {
  readonly model: string;
  promptTokens: number;
  outputTokens: number;
  /** From the end of the last that it waited for. */
  toolMs: number;
  /** Share of the runs that have it. */
  share: number;
  runs: number;
  /** What had always ended before it began. */
  after: Set<string>;
}

interface Learnt {
  runs: number;
  readonly stages: Map<string, LearntStage>;
  shape: WorkflowShape | null;
}

/** Bounded by `LEARNT_KEYS_MAX` names, the least lately seen of which is forgotten, and by the calls of a run that whoever tells of it keeps. */
export function createWorkflowShapes(): WorkflowShapes {
  const byKey = new Map<string, Learnt>();
  return {
    observe(key, calls) {
      if (calls.length === 0) return;
      const known = byKey.get(key) ?? { runs: 0, stages: new Map<string, LearntStage>(), shape: null };
      byKey.delete(key);
      const [oldest] = byKey.keys();
      if (byKey.size >= LEARNT_KEYS_MAX && oldest !== undefined) byKey.delete(oldest);
      byKey.set(key, known);
      learn(known, calls);
    },
    shapeOf(key) {
      const known = byKey.get(key);
      if (known === undefined) return null;
      known.shape ??= shapeFrom(known);
      return known.shape;
    },
  };
}

function learn(known: Learnt, calls: readonly SeenCall[]): void {
  known.runs += 1;
  known.shape = null;
  const present = new Set(calls.map(({ stage }) => stage));
  for (const call of calls) {
    const before = calls.filter((other) => other !== call && other.endedAtMs <= call.beganAtMs);
    const toolMs = before.length === 0 ? 0 : call.beganAtMs - Math.max(...before.map(({ endedAtMs }) => endedAtMs));
    const stage = known.stages.get(call.stage);
    if (stage === undefined) {
      known.stages.set(call.stage, { model: call.model, promptTokens: call.promptTokens, outputTokens: call.outputTokens, toolMs, share: 0, runs: 1, after: new Set(before.map((other) => other.stage)) });
      continue;
    }
    stage.runs += 1;
    const weight = Math.max(WEIGHT_MIN, 1 / stage.runs);
    stage.promptTokens += weight * (call.promptTokens - stage.promptTokens);
    stage.outputTokens += weight * (call.outputTokens - stage.outputTokens);
    stage.toolMs += weight * (toolMs - stage.toolMs);
    // Of one that this run has not, nothing is said.
    for (const name of stage.after) if (present.has(name) && !before.some((other) => other.stage === name)) stage.after.delete(name);
  }
  const weight = Math.max(WEIGHT_MIN, 1 / known.runs);
  for (const [name, stage] of known.stages) {
    stage.share += weight * ((present.has(name) ? 1 : 0) - stage.share);
    if (stage.share < FORGOTTEN_SHARE) known.stages.delete(name);
  }
}

/** Ten runs or so in which it was no more. */
const FORGOTTEN_SHARE = 0.02;

function shapeFrom({ stages }: Learnt): WorkflowShape {
  const expected = [...stages].filter(([, { share }]) => share >= EXPECTED_SHARE - 1e-9);
  const nodes: WorkflowNode[] = [];
  const edges: WorkflowEdge[] = [];
  const places = new Map<string, number>();
  // Whoever has ended before it has fewer that have ended before them; in this order no edge goes back.
  const order = expected.toSorted(([, a], [, b]) => a.after.size - b.after.size);
  for (const [name, { model, promptTokens, outputTokens, toolMs, after }] of order) {
    const needs = [...after].filter((other) => places.has(other));
    // What one that it needs has needed itself needs no edge of its own.
    const nearest = needs.filter((other) => !needs.some((between) => stages.get(between)?.after.has(other) === true));
    let from = nearest.map((other) => places.get(other) as number);
    if (toolMs >= TOOL_MS_MIN && from.length > 0) {
      const tool = nodes.push({ kind: 'tool', stage: `${name} (before)`, timeMs: toolMs }) - 1;
      edges.push(...from.map((before): WorkflowEdge => [before, tool]));
      from = [tool];
    }
    const place = nodes.push({ kind: 'call', stage: name, model, promptTokens: Math.round(promptTokens), outputTokens: Math.max(1, Math.round(outputTokens)) }) - 1;
    places.set(name, place);
    edges.push(...from.map((before): WorkflowEdge => [before, place]));
  }
  return { nodes, edges };
}
