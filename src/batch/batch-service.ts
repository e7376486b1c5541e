// What the routes of files and batches do: requests checked, bounds kept, each tenant among its own. Of HTTP it knows nothing.
import type { BatchRecord, FileRecord } from './batch-record.ts';
import { BATCH_ENDPOINTS, batchObject, fileObject, FILE_PURPOSES, isOver } from './batch-record.ts';
import { newId, stamped } from './batch-steps.ts';
import type { BatchStore, Page, PageQuery } from './batch-store.ts';
import { BatchStoreError } from './batch-store.ts';
import { completionWindowMs, WINDOW_WANTED } from './completion-window.ts';
import { shown } from './shown.ts';

export interface BatchBounds {
  /** Of one file; of all files of all tenants, half-written ones included. */
  readonly fileBytesMax: number;
  readonly filesBytesMax: number;
  /** Of one tenant. */
  readonly filesMax: number;
  readonly activeBatchesMax: number;
  readonly retentionDays: number;
}

export type BatchRefusal =
  | { readonly kind: 'bad-request'; readonly param: string | null; readonly message: string }
  | { readonly kind: 'body-too-large'; readonly bytesMax: number }
  | { readonly kind: 'no-such-object'; readonly object: 'File' | 'Batch'; readonly id: string }
  | { readonly kind: 'batch-bound'; readonly what: 'files' | 'file bytes' | 'batches in progress'; readonly max: number }
  | { readonly kind: 'conflict'; readonly message: string }
  | { readonly kind: 'batch-store-lost' };

export type Outcome<Value> = { readonly kind: 'ok'; readonly value: Value } | BatchRefusal;

export interface Upload {
  readonly fileId: string;
  readonly bytes: number;
}

export interface ListQuery {
  readonly after: string | undefined;
  readonly limit: string | undefined;
  readonly order: string | undefined;
  readonly purpose: string | undefined;
}

export interface BatchService {
  /** Kept, but not there yet: `commit` says what it is, `drop` forgets it. */
  upload(bytes: AsyncIterable<Buffer>): Promise<Outcome<Upload>>;
  commit(tenant: string, upload: Upload, fields: { readonly filename: string; readonly purpose: string | undefined; readonly expiresAnchor: string | undefined; readonly expiresSeconds: string | undefined }): Promise<Outcome<object>>;
  drop(upload: Upload): Promise<void>;
  file(tenant: string, fileId: string): Promise<Outcome<object>>;
  files(tenant: string, query: ListQuery): Promise<Outcome<object>>;
  content(tenant: string, fileId: string): Promise<Outcome<{ readonly filename: string; readonly size: number; readonly bytes: AsyncIterable<Buffer> }>>;
  deleteFile(tenant: string, fileId: string): Promise<Outcome<object>>;
  create(tenant: string, body: unknown): Promise<Outcome<object>>;
  batch(tenant: string, batchId: string): Promise<Outcome<object>>;
  batches(tenant: string, query: ListQuery): Promise<Outcome<object>>;
  cancel(tenant: string, batchId: string): Promise<Outcome<object>>;
}

const DAY_S = 86_400;
/** OpenAI's, of what is asked for in a request. */
const EXPIRES_S = { min: 3_600, max: 30 * DAY_S };
const METADATA = { pairs: 16, keyCharacters: 64, valueCharacters: 512 };
/** Of a file in the store: short enough to be written between two tokens of others. */
const PIECE_BYTES = 262_144;

export function createBatchService(options: { readonly store: BatchStore; readonly workerId: string; readonly bounds: BatchBounds; readonly now: () => number; readonly changed: () => void; readonly warn: (message: string) => void }): BatchService {
  const { store, bounds, now } = options;
  const nowS = (): number => Math.floor(now() / 1_000);

  /** A store that does not work is no fault of the caller's, and passes. */
  async function guarded<Value>(work: () => Promise<Outcome<Value>>): Promise<Outcome<Value>> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof BatchStoreError)) throw error;
      options.warn(`a request for files or batches failed: ${error.message}`);
      return { kind: 'batch-store-lost' };
    }
  }

  async function withFile<Value>(tenant: string, fileId: string, work: (file: FileRecord) => Outcome<Value> | Promise<Outcome<Value>>): Promise<Outcome<Value>> {
    return guarded(async () => {
      const file = await store.file(tenant, fileId);
      return file === null ? { kind: 'no-such-object', object: 'File', id: fileId } : work(file);
    });
  }

  return {
    upload: (bytes) =>
      guarded(async () => {
        const fileId = newId('file-');
        await store.beginFile(fileId, options.workerId);
        let [written, open, openBytes] = [0, [] as Buffer[], 0];
        async function flush(): Promise<BatchRefusal | null> {
          if (openBytes === 0) return null;
          const appended = await store.appendFile(fileId, Buffer.concat(open), bounds.filesBytesMax);
          [open, openBytes] = [[], 0];
          return appended === 'full' ? { kind: 'batch-bound', what: 'file bytes', max: bounds.filesBytesMax } : null;
        }
        try {
          for await (const chunk of bytes) {
            written += chunk.length;
            openBytes += chunk.length;
            open.push(chunk);
            const refusal = written > bounds.fileBytesMax ? ({ kind: 'body-too-large', bytesMax: bounds.fileBytesMax } as const) : openBytes >= PIECE_BYTES ? await flush() : null;
            if (refusal === null) continue;
            await store.dropFile(fileId);
            return refusal;
          }
          const refusal = await flush();
          if (refusal !== null) await store.dropFile(fileId);
          return refusal ?? { kind: 'ok', value: { fileId, bytes: written } };
        } catch (error) {
          await store.dropFile(fileId).catch(() => {});
          throw error;
        }
      }),
    commit: (tenant, { fileId, bytes }, { filename, purpose, expiresAnchor, expiresSeconds }) =>
      guarded(async () => {
        const refuse = async (refusal: BatchRefusal): Promise<BatchRefusal> => {
          await store.dropFile(fileId);
          return refusal;
        };
        if (!(FILE_PURPOSES as readonly (string | undefined)[]).includes(purpose)) return refuse(bad('purpose', `purpose: got ${shown(purpose)}, allowed: ${FILE_PURPOSES.join(', ')}`));
        if (bytes === 0) return refuse(bad('file', 'file: got no bytes'));
        const expires = readExpiry('expires_after', expiresAnchor === undefined && expiresSeconds === undefined ? null : { anchor: expiresAnchor, seconds: Number(expiresSeconds) }, bounds.retentionDays);
        if (expires.kind !== 'ok') return refuse(expires);
        const file: FileRecord = { id: fileId, tenant, filename, purpose: purpose as string, bytes, createdAtS: nowS(), expiresAtS: nowS() + expires.value };
        if ((await store.commitFile(file, bounds.filesMax)) === 'too-many') return refuse({ kind: 'batch-bound', what: 'files', max: bounds.filesMax });
        return { kind: 'ok', value: fileObject(file) };
      }),
    drop: ({ fileId }) => store.dropFile(fileId).catch(() => {}),
    file: (tenant, fileId) => withFile(tenant, fileId, (file) => ({ kind: 'ok', value: fileObject(file) })),
    files: (tenant, query) =>
      guarded(async () => {
        const reading = readPage(query, { usual: 10_000, max: 10_000 });
        if (reading.kind !== 'ok') return reading;
        return pageOutcome(await store.files(tenant, { ...reading.value, purpose: query.purpose ?? null }), query.after, fileObject);
      }),
    content: (tenant, fileId) => withFile(tenant, fileId, ({ filename, bytes }) => ({ kind: 'ok', value: { filename, size: bytes, bytes: whole(store.readFile(fileId), bytes) } })),
    deleteFile: (tenant, fileId) =>
      guarded(async () => ((await store.deleteFile(tenant, fileId)) ? { kind: 'ok', value: { id: fileId, object: 'file', deleted: true } } : { kind: 'no-such-object', object: 'File', id: fileId })),

    create: (tenant, body) =>
      guarded(async () => {
        const reading = readCreation(body, bounds.retentionDays);
        if (reading.kind !== 'ok') return reading;
        const { windowMs, ...asked } = reading.value;
        const file = await store.file(tenant, asked.inputFileId);
        if (file === null) return bad('input_file_id', `input_file_id: there is no file '${asked.inputFileId}'`);
        if (file.purpose !== 'batch') return bad('input_file_id', `input_file_id: the file '${file.id}' was uploaded with the purpose '${file.purpose}', want 'batch'`);
        const batch: BatchRecord = {
          ...asked,
          id: newId('batch_'),
          tenant,
          createdAtS: nowS(),
          dueAtMs: now() + windowMs,
          status: 'validating',
          ending: null,
          stampsS: {},
          errors: [],
          outputFileId: null,
          errorFileId: null,
          counts: { total: 0, completed: 0, failed: 0 },
        };
        if ((await store.createBatch(batch, bounds.activeBatchesMax)) === 'too-many') return { kind: 'batch-bound', what: 'batches in progress', max: bounds.activeBatchesMax };
        options.changed();
        return { kind: 'ok', value: batchObject(batch) };
      }),
    batch: (tenant, batchId) =>
      guarded(async () => {
        const batch = await store.batch(tenant, batchId);
        return batch === null ? { kind: 'no-such-object', object: 'Batch', id: batchId } : { kind: 'ok', value: batchObject(batch) };
      }),
    batches: (tenant, query) =>
      guarded(async () => {
        const reading = readPage(query, { usual: 20, max: 100 });
        return reading.kind === 'ok' ? pageOutcome(await store.batches(tenant, reading.value), query.after, batchObject) : reading;
      }),
    cancel: (tenant, batchId) =>
      guarded(async () => {
        if ((await store.batch(tenant, batchId)) === null) return { kind: 'no-such-object', object: 'Batch', id: batchId };
        const batch = await store.changeBatch(batchId, (current) =>
          isOver(current.status) || current.ending !== null ? null : stamped({ ...current, status: 'cancelling', ending: 'cancelled' }, 'cancelling_at', nowS()),
        );
        if (batch === null) return { kind: 'no-such-object', object: 'Batch', id: batchId };
        if (batch.ending !== 'cancelled' || batch.status !== 'cancelling') return { kind: 'conflict', message: `Cannot cancel a batch with status '${batch.status}'.` };
        options.changed();
        return { kind: 'ok', value: batchObject(batch) };
      }),
  };
}

/** Of a file that is deleted while it is read: what was promised cannot be kept, and only a broken connection says so. */
async function* whole(pieces: AsyncIterable<Buffer>, size: number): AsyncIterable<Buffer> {
  let read = 0;
  for await (const piece of pieces) {
    read += piece.length;
    yield piece;
  }
  if (read < size) throw new BatchStoreError(`the file was deleted after ${read} of its ${size} bytes were read`);
}

function readPage({ after, limit, order }: ListQuery, limits: { readonly usual: number; readonly max: number }): Outcome<PageQuery> {
  const count = limit === undefined ? limits.usual : /^\d{1,6}$/.test(limit) ? Number(limit) : 0;
  if (count < 1 || count > limits.max) return bad('limit', `limit: got ${shown(limit)}, want 1 to ${limits.max}`);
  if (order !== undefined && order !== 'asc' && order !== 'desc') return bad('order', `order: got ${shown(order)}, allowed: asc, desc`);
  return { kind: 'ok', value: { after: after ?? null, limit: count, newestFirst: order !== 'asc' } };
}

function pageOutcome<Item extends { readonly id: string }>(page: Page<Item> | null, after: string | undefined, toObject: (item: Item) => object): Outcome<object> {
  if (page === null) return bad('after', `after: there is no '${after}' in this list`);
  return { kind: 'ok', value: { object: 'list', data: page.items.map(toObject), first_id: page.items[0]?.id ?? null, last_id: page.items.at(-1)?.id ?? null, has_more: page.hasMore } };
}

type Creation = Pick<BatchRecord, 'inputFileId' | 'endpoint' | 'completionWindow' | 'metadata' | 'outputSeconds'> & { readonly windowMs: number };

function readCreation(body: unknown, retentionDays: number): Outcome<Creation> {
  if (!isObject(body)) return bad(null, 'The body must be a JSON object');
  const { input_file_id: inputFileId, endpoint, completion_window: completionWindow, metadata = null, output_expires_after: expiresAfter = null } = body;
  if (typeof inputFileId !== 'string') return bad('input_file_id', `input_file_id: got ${shown(inputFileId)}, want the id of an uploaded file`);
  if (!(BATCH_ENDPOINTS as readonly unknown[]).includes(endpoint)) return bad('endpoint', `endpoint: got ${shown(endpoint)}, allowed: ${BATCH_ENDPOINTS.join(', ')}`);
  const windowMs = typeof completionWindow === 'string' ? completionWindowMs(completionWindow) : null;
  if (windowMs === null) return bad('completion_window', `completion_window: got ${shown(completionWindow)}, ${WINDOW_WANTED}`);
  if (metadata !== null) {
    const { pairs, keyCharacters, valueCharacters } = METADATA;
    if (!isObject(metadata) || Object.keys(metadata).length > pairs) return bad('metadata', `metadata: want an object of at most ${pairs} pairs`);
    const wrong = Object.entries(metadata).find(([key, value]) => key.length > keyCharacters || typeof value !== 'string' || value.length > valueCharacters);
    if (wrong !== undefined) return bad('metadata', `metadata: '${wrong[0].slice(0, 64)}': want a key of at most ${keyCharacters} characters, and a string of at most ${valueCharacters}`);
  }
  const expires = readExpiry('output_expires_after', expiresAfter, retentionDays);
  if (expires.kind !== 'ok') return expires;
  return { kind: 'ok', value: { inputFileId, endpoint: endpoint as string, completionWindow: completionWindow as string, metadata: metadata as Creation['metadata'], windowMs, outputSeconds: expires.value } };
}

/** In seconds; no longer than what is kept anyway. */
function readExpiry(param: string, value: unknown, retentionDays: number): Outcome<number> {
  if (value === null) return { kind: 'ok', value: retentionDays * DAY_S };
  const { anchor, seconds } = isObject(value) ? value : {};
  if (anchor !== 'created_at') return bad(param, `${param}.anchor: got ${shown(anchor)}, want 'created_at'`);
  if (!Number.isInteger(seconds) || (seconds as number) < EXPIRES_S.min || (seconds as number) > EXPIRES_S.max) return bad(param, `${param}.seconds: got ${shown(seconds)}, want ${EXPIRES_S.min} to ${EXPIRES_S.max}`);
  return { kind: 'ok', value: Math.min(seconds as number, retentionDays * DAY_S) };
}

function bad(param: string | null, message: string): Extract<BatchRefusal, { kind: 'bad-request' }> {
  return { kind: 'bad-request', param, message };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
