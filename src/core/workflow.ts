// A workflow: calls of models, and tools that use none, that need one another's ends, with one deadline for all of it.
import type { WorkflowId } from './job.ts';

export interface WorkflowSpec {
  /** Unique for its tenant while it is open. */
  readonly workflowId: WorkflowId;
  readonly tenant: string;
  /** Its guard band is this class'. */
  readonly sloClass: string;
  /** Runs of one tenant and name are alike: what is learnt from one serves the next. */
  readonly name?: string;
  /** From its declaration. */
  readonly deadlineMs: number;
  readonly nodes: readonly WorkflowNode[];
  /** From a node to one that needs its end, by their places in `nodes`; no cycles. */
  readonly edges: readonly WorkflowEdge[];
  /** Where it could not be met even with the fastest replicas to itself; default `best-effort`. */
  readonly infeasible?: 'refuse' | 'best-effort';
}

export type WorkflowEdge = readonly [before: number, after: number];

/** Stages are unique in a workflow. */
export type WorkflowNode =
  /** Sizes that are left out are those that the tenant's calls of the model have. */
  | { readonly kind: 'call'; readonly stage: string; readonly model: string; readonly promptTokens?: number; readonly outputTokens?: number }
  /** Begins when all that it needs has ended, and takes about so long; nobody tells us of it. */
  | { readonly kind: 'tool'; readonly stage: string; readonly timeMs: number };

/** Workflows that are open at once, and nodes of all of them: some 200 bytes for each operating point of a node. */
export const WORKFLOWS_MAX = 10_000;
export const OPEN_NODES_MAX = 50_000;
/** Of them one tenant's: whoever opens all that it can leaves as much to the others. */
export const TENANT_NODES_MAX = OPEN_NODES_MAX / 2;
/** Calls of a workflow whose shape is being learnt. */
export const DISCOVERED_CALLS_MAX = 200;
