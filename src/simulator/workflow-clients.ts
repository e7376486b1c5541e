// Clients that run workflows on virtual time: each call comes when all that it needs has ended, tools take their time, and nobody is told
// beforehand how long anything will get. What is expected of it is what a declaration would say.
import type { Slo, WorkflowId } from '../core/job.ts';
import type { WorkflowSpec } from '../core/workflow.ts';
import { createIndexedHeap, type HeapItem } from '../engine/indexed-heap.ts';
import type { WorkloadNode, WorkloadWorkflow } from '../workload/workflow.ts';

export interface SimulatedWorkflow extends WorkloadWorkflow {
  readonly sloClass: string;
  /**
   * What the gateway is told: all of it beforehand; only to which workflow a call belongs, and by when all of it is due; or nothing but
   * an SLO for each call, by place (tools have none). `byStage`: each stage then comes as a tenant of its own, so that how long its answers
   * get is learnt for it alone, as it is of workflows.
   */
  readonly told: 'declared' | 'discovered' | { readonly callSlos: readonly Slo[]; readonly byStage?: boolean };
}

export interface WorkflowOutcome {
  readonly place: number;
  readonly met: boolean;
  /** `null`: a call of it was refused, so that it never ended. */
  readonly tookMs: number | null;
}

/** A call that comes now. */
export interface ComingCall {
  readonly workflow: SimulatedWorkflow;
  readonly workflowId: WorkflowId;
  readonly node: Extract<WorkloadNode, { kind: 'call' }>;
  readonly slo: Slo;
  /** To be handed back with its end. */
  readonly ticket: CallTicket;
}

export interface CallTicket {
  readonly run: Running;
  readonly node: number;
}

export interface WorkflowClients {
  /** The next that something comes of them, unless a call ends before. */
  nextAtMs(): number;
  /** What comes by now, in order: declarations and calls. */
  take(nowMs: number): ({ readonly kind: 'declare'; readonly workflow: WorkflowSpec } | { readonly kind: 'call'; readonly call: ComingCall })[];
  ended(ticket: CallTicket, nowMs: number): void;
  refused(ticket: CallTicket): void;
  isDone(): boolean;
  outcomes(): readonly WorkflowOutcome[];
}

interface Running {
  readonly place: number;
  readonly waitsFor: Int32Array;
  left: number;
  given: boolean;
}

interface Due extends HeapItem {
  readonly atMs: number;
  readonly run: Running;
  /** `null`: the workflow begins. */
  readonly node: number | null;
}

export function createWorkflowClients(workflows: readonly SimulatedWorkflow[], models: { readonly model: string; readonly tenant: string }): WorkflowClients {
  const due = createIndexedHeap<Due>((a, b) => a.atMs < b.atMs || (a.atMs === b.atMs && a.run.place < b.run.place));
  const outcomes: WorkflowOutcome[] = [];
  const after = workflows.map(({ nodes, edges }) => {
    const lists: number[][] = nodes.map(() => []);
    for (const [before, behind] of edges) lists[before]?.push(behind);
    return lists;
  });
  for (const [place, { atMs, nodes, edges }] of workflows.entries()) {
    const waitsFor = new Int32Array(nodes.length);
    for (const [, behind] of edges) waitsFor[behind] = (waitsFor[behind] as number) + 1;
    due.push({ atMs, run: { place, waitsFor, left: nodes.length, given: false }, node: null, heapSlot: -1 });
  }

  function specOf(place: number): WorkflowSpec {
    const { name, sloClass, deadlineMs, nodes, edges } = workflows[place] as SimulatedWorkflow;
    return {
      workflowId: idOf(place),
      tenant: models.tenant,
      sloClass,
      ...(name === undefined ? {} : { name }),
      deadlineMs,
      nodes: nodes.map((node) => (node.kind === 'tool' ? { kind: 'tool', stage: node.stage, timeMs: node.expectedMs } : { kind: 'call', stage: node.stage, model: models.model, ...node.expected })),
      edges,
    };
  }

  /** It can begin: a tool ends by itself. */
  function begin(run: Running, node: number, nowMs: number): void {
    const at = (workflows[run.place] as SimulatedWorkflow).nodes[node] as WorkloadNode;
    due.push({ atMs: at.kind === 'tool' ? nowMs + at.timeMs : nowMs, run, node, heapSlot: -1 });
  }

  function end(run: Running, node: number, nowMs: number): void {
    run.left -= 1;
    for (const next of after[run.place]?.[node] ?? []) {
      run.waitsFor[next] = (run.waitsFor[next] as number) - 1;
      if (run.waitsFor[next] === 0 && !run.given) begin(run, next, nowMs);
    }
    if (run.left > 0 || run.given) return;
    const { atMs, deadlineMs } = workflows[run.place] as SimulatedWorkflow;
    outcomes.push({ place: run.place, met: nowMs - atMs <= deadlineMs, tookMs: nowMs - atMs });
  }

  return {
    nextAtMs: () => due.first()?.atMs ?? Number.POSITIVE_INFINITY,
    take(nowMs) {
      const taken: ReturnType<WorkflowClients['take']> = [];
      for (let first = due.first(); first !== undefined && first.atMs <= nowMs; first = due.first()) {
        const { run, node, atMs } = first;
        due.shift();
        const workflow = workflows[run.place] as SimulatedWorkflow;
        if (node === null) {
          if (workflow.told === 'declared') taken.push({ kind: 'declare', workflow: specOf(run.place) });
          for (const [index, count] of run.waitsFor.entries()) if (count === 0) begin(run, index, atMs);
          continue;
        }
        const at = workflow.nodes[node] as WorkloadNode;
        if (at.kind === 'tool') end(run, node, atMs);
        else taken.push({ kind: 'call', call: { workflow, workflowId: idOf(run.place), node: at, slo: typeof workflow.told === 'string' ? {} : (workflow.told.callSlos[node] ?? {}), ticket: { run, node } } });
      }
      return taken;
    },
    ended: ({ run, node }, nowMs) => end(run, node, nowMs),
    refused({ run }) {
      if (run.given) return;
      run.given = true;
      outcomes.push({ place: run.place, met: false, tookMs: null });
    },
    isDone: () => outcomes.length === workflows.length,
    outcomes: () => outcomes,
  };
}

function idOf(place: number): WorkflowId {
  return `w${place}` as WorkflowId;
}
