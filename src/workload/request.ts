// A workload: requests in order of arrival, as the load generator replays them and the simulator serves them.

export interface WorkloadRequest {
  /** From the start of the workload; never decreases along it. */
  readonly atMs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** Ids of the prompt's KV blocks (Mooncake: 512 tokens each); equal leading ids share a prefix. */
  readonly prefixBlocks?: readonly number[];
  /** Line of the trace that it comes from, for messages. */
  readonly line?: number;
}

export interface Workload {
  /** For people: `azure conv 0-600 s`. */
  readonly name: string;
  readonly requests: readonly WorkloadRequest[];
}
