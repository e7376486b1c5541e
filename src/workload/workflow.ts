// Workflows as clients run them: what each call and tool is said to take, and what it really takes.

export type WorkloadNode =
  | { readonly kind: 'call'; readonly stage: string; readonly promptTokens: number; readonly outputTokens: number; readonly expected: { readonly promptTokens: number; readonly outputTokens: number } }
  | { readonly kind: 'tool'; readonly stage: string; readonly timeMs: number; readonly expectedMs: number };

export interface WorkloadWorkflow {
  /** From the start of the workload. */
  readonly atMs: number;
  /** From its own start. */
  readonly deadlineMs: number;
  readonly name?: string;
  readonly nodes: readonly WorkloadNode[];
  /** From a node to one that needs its end, by their places. */
  readonly edges: readonly (readonly [before: number, after: number])[];
}
