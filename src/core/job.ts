// A job: one unit of work in our queue, as the decisions see it. What HTTP made of it stays in http/.

export type JobId = string & { readonly __brand: 'JobId' };
export type ReplicaId = string & { readonly __brand: 'ReplicaId' };
export type WorkflowId = string & { readonly __brand: 'WorkflowId' };

/** Latency objectives, milliseconds, counted from arrival at the gateway; any subset. Empty = best effort. */
export interface Slo {
  /** Time to first token. */
  readonly ttftMs?: number;
  /** Mean time per output token after the first. */
  readonly tpotMs?: number;
  /** The whole request. */
  readonly e2eMs?: number;
}

/** How its prompt begins, for telling which replica has read as much before. */
export interface PromptPrefix {
  /**
   * A hash of each of the prompt's leading blocks, chained to those before it, so that equal ones are equal beginnings; the last
   * block is whole. Two beginnings that hash alike cost a forecast that is too short, and nothing else: the servers compare tokens.
   */
  readonly blocks: readonly number[];
  /** What one block is of the whole prompt. */
  readonly blockShare: number;
}

export interface JobSpec {
  readonly jobId: JobId;
  readonly model: string;
  readonly tenant: string;
  /** Name of the SLO class, from a closed list (config); guard bands and metrics are kept by it. */
  readonly sloClass: string;
  readonly slo: Slo;
  /** Size of the prompt text (UTF-8). Turned into tokens by the ratio learnt for this model and tenant. */
  readonly promptBytes: number;
  /** Known where the client sent token ids. */
  readonly promptTokens?: number;
  /** Left out where nothing is known of it, or it does not matter. */
  readonly prefix?: PromptPrefix;
  /** `max_completion_tokens`, `max_tokens`: bounds the length prediction, is none itself. */
  readonly maxOutputTokens?: number;
  /** What kind of request it was, in its caller's words and from a closed list; passed on to its report. */
  readonly operation?: string;
  /** `embed` has a prefill and no decode. */
  readonly work: 'generate' | 'embed';
  /** A stream shows its first token; without one only the end is seen. */
  readonly streaming: boolean;
  /** Its tenant's share of the fleet where all want more than there is, relative to those of the others; default 1. */
  readonly weight?: number;
  /** What meeting its deadlines counts for, relative to other jobs, where not all can be met; default 1. */
  readonly worth?: number;
  /** What becomes of it where its deadlines cannot be met any more; default `best-effort`. */
  readonly infeasible?: 'refuse' | 'best-effort';
  /** The workflow that it is a call of; unique together with the tenant. */
  readonly workflow?: WorkflowCall;
  /** Longest time in our queue, from arrival. */
  readonly queueTimeoutMs?: number;
}

/** Which part of which workflow a job is. */
export interface WorkflowCall {
  readonly workflowId: WorkflowId;
  /** Of a declared workflow one of its nodes; of a discovered one any name, calls of one name in turn being told apart. */
  readonly stage: string;
  /** Where it was not declared: when all of it is due, from its first call, and whose runs it is like. */
  readonly discovered?: { readonly deadlineMs: number; readonly name: string };
}

/** What the server said it used, from the response's `usage`. */
export interface Usage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
}

export type JobOutcome = 'finished' | 'cancelled' | 'failed';
