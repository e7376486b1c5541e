// What is kept of a file and of a batch, and how OpenAI's API shows them. Seconds since 1970 where the API has them.

export const FILE_PURPOSES = ['batch', 'user_data'] as const;

/** What the batch routes may be told to do with each line of a file. */
export const BATCH_ENDPOINTS = ['/v1/chat/completions', '/v1/completions', '/v1/embeddings', '/v1/responses'] as const;

export interface FileRecord {
  readonly id: string;
  readonly tenant: string;
  readonly filename: string;
  readonly purpose: string;
  readonly bytes: number;
  readonly createdAtS: number;
  readonly expiresAtS: number;
}

export type BatchStatus = 'validating' | 'failed' | 'in_progress' | 'finalizing' | 'completed' | 'expired' | 'cancelling' | 'cancelled';

/** A line of an input file that cannot be used. */
export interface LineError {
  readonly code: string;
  /** From 1; `null`: the file as a whole. */
  readonly line: number | null;
  readonly param: string | null;
  readonly message: string;
}

export interface BatchRecord {
  readonly id: string;
  readonly tenant: string;
  readonly endpoint: string;
  readonly inputFileId: string;
  readonly completionWindow: string;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly createdAtS: number;
  /** End of its window, on the clock of the day. */
  readonly dueAtMs: number;
  /** How long its output files are kept. */
  readonly outputSeconds: number;
  readonly status: BatchStatus;
  /** What it becomes once its files are written; `null` while its lines are worked on. */
  readonly ending: 'completed' | 'expired' | 'cancelled' | null;
  /** Instants of what has happened, by the name that the API has for it (`in_progress_at` …). */
  readonly stampsS: Readonly<Record<string, number>>;
  readonly errors: readonly LineError[];
  readonly outputFileId: string | null;
  readonly errorFileId: string | null;
  readonly counts: RequestCounts;
}

export interface RequestCounts {
  readonly total: number;
  readonly completed: number;
  readonly failed: number;
}

const STAMPS = ['in_progress_at', 'finalizing_at', 'completed_at', 'failed_at', 'expired_at', 'cancelling_at', 'cancelled_at'] as const;
export type Stamp = (typeof STAMPS)[number];

/** Nothing more happens to it. */
export function isOver(status: BatchStatus): boolean {
  return status === 'failed' || status === 'completed' || status === 'expired' || status === 'cancelled';
}

export function fileObject(file: FileRecord): object {
  return {
    id: file.id,
    object: 'file',
    bytes: file.bytes,
    created_at: file.createdAtS,
    expires_at: file.expiresAtS,
    filename: file.filename,
    purpose: file.purpose,
    status: 'processed',
    status_details: null,
  };
}

export function batchObject(batch: BatchRecord): object {
  return {
    id: batch.id,
    object: 'batch',
    endpoint: batch.endpoint,
    errors: batch.errors.length === 0 ? null : { object: 'list', data: batch.errors },
    input_file_id: batch.inputFileId,
    completion_window: batch.completionWindow,
    status: batch.status,
    output_file_id: batch.outputFileId,
    error_file_id: batch.errorFileId,
    created_at: batch.createdAtS,
    expires_at: Math.ceil(batch.dueAtMs / 1_000),
    ...Object.fromEntries(STAMPS.map((stamp) => [stamp, batch.stampsS[stamp] ?? null])),
    request_counts: batch.counts,
    metadata: batch.metadata,
  };
}
