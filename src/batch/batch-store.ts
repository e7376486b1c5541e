// Where files and batches are kept. Everything a route or the runner does to them goes through here, each in one transaction;
// several gateways may share one store. A line has one result: the first that is recorded.
import type { BatchRecord, FileRecord } from './batch-record.ts';
import type { InputLine } from './input-lines.ts';

/** The store does not do its work now: a full disk, a lost connection. Nothing was changed, or, where only the answer was lost, all of it. */
export class BatchStoreError extends Error {
  override name = 'BatchStoreError';
}

/** How often a line has been tried, and how often of these the server failed rather than had too much to do. */
export interface Tries {
  readonly tries: number;
  readonly failures: number;
}

export interface StoredLine extends InputLine, Tries {}

/** `failed`: the model server answered with an error. Lines without a result have no outcome yet. */
export type LineOutcome = 'completed' | 'failed';

export interface LineResult {
  readonly line: number;
  readonly customId: string;
  readonly outcome: LineOutcome | null;
  /** A line of the output or error file, without its line end; `null` where there is no outcome. */
  readonly text: string | null;
}

export interface Page<Item> {
  readonly items: readonly Item[];
  readonly hasMore: boolean;
}

export interface PageQuery {
  readonly after: string | null;
  readonly limit: number;
  readonly newestFirst: boolean;
}

/** `workerId` names a gateway process; what it has claimed is free again once its life, renewed by `beat`, has run out. */
export interface BatchStore {
  /** A file that nobody sees until it is committed. Its bytes count from the start. */
  beginFile(fileId: string, workerId: string): Promise<void>;
  /** `full`: all files together would have more than `bytesMax`; `null`: whatever there is. */
  appendFile(fileId: string, bytes: Buffer, bytesMax: number | null): Promise<'ok' | 'full'>;
  commitFile(file: FileRecord, filesMax: number | null): Promise<'ok' | 'too-many'>;
  /** Only as long as it is not committed: whoever drops it may not know that it is. */
  dropFile(fileId: string): Promise<void>;
  file(tenant: string, fileId: string): Promise<FileRecord | null>;
  /** `null`: there is no file `after`. */
  files(tenant: string, query: PageQuery & { readonly purpose: string | null }): Promise<Page<FileRecord> | null>;
  /** Ends early when the file is deleted meanwhile. */
  readFile(fileId: string): AsyncIterable<Buffer>;
  deleteFile(tenant: string, fileId: string): Promise<boolean>;

  createBatch(batch: BatchRecord, activeMax: number): Promise<'ok' | 'too-many'>;
  batch(tenant: string, batchId: string): Promise<BatchRecord | null>;
  batches(tenant: string, query: PageQuery): Promise<Page<BatchRecord> | null>;
  /** Changes it in one transaction; `null` from `change` leaves it as it is. Answers what there is then. */
  changeBatch(batchId: string, change: (batch: BatchRecord) => BatchRecord | null): Promise<BatchRecord | null>;
  /** Those that are not over, by the end of their windows. */
  openBatches(): Promise<readonly BatchRecord[]>;

  beat(workerId: string, nowMs: number, aliveUntilMs: number): Promise<void>;
  /** Gives everything back that it has claimed. */
  leave(workerId: string): Promise<void>;
  /** To check or to finish it, which one gateway does at a time; one's own again, too, for its answer may have been lost. */
  claimBatch(batchId: string, workerId: string, nowMs: number): Promise<boolean>;
  unclaimBatch(batchId: string, workerId: string): Promise<void>;
  clearLines(batchId: string): Promise<void>;
  addLines(batchId: string, lines: readonly InputLine[]): Promise<void>;
  claimLines(batchId: string, workerId: string, linesMax: number, nowMs: number): Promise<readonly StoredLine[]>;
  /** Claimed by gateways that live. */
  claimedLines(batchId: string, nowMs: number): Promise<number>;
  /** `false`: it had one already. */
  recordLine(batchId: string, line: number, result: { readonly outcome: LineOutcome; readonly text: string }): Promise<boolean>;
  /** To be tried again, not before `notBeforeMs`. */
  returnLine(batchId: string, line: number, tries: Tries, notBeforeMs: number): Promise<void>;
  /** In the order of the input file. */
  results(batchId: string, afterLine: number, linesMax: number): Promise<readonly LineResult[]>;
  /** The last step of a batch, only by who has claimed it: its files are seen, its lines are gone. `false`: it is somebody else's by now. */
  finishBatch(batch: BatchRecord, workerId: string, files: readonly FileRecord[]): Promise<boolean>;
  /** Deletes what has had its time, and what gateways that died have left half-written. */
  sweep(nowMs: number, batchesBeforeS: number): Promise<void>;
  close(): Promise<void>;
}
