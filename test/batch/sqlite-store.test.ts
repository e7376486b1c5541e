// The store in a file: two gateways on it, what a dead one leaves, and what is not done is not half done.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { BatchRecord, FileRecord } from '../../src/batch/batch-record.ts';
import type { BatchStore } from '../../src/batch/batch-store.ts';
import { BatchStoreError } from '../../src/batch/batch-store.ts';
import { openSqliteStore } from '../../src/batch/sqlite-store.ts';

let directory: string;
let stores: BatchStore[];
const open = (): BatchStore => {
  const store = openSqliteStore(join(directory, 'b.sqlite'));
  stores.push(store);
  return store;
};
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'batch-store-'));
  stores = [];
});
afterEach(async () => {
  for (const store of stores) await store.close();
  rmSync(directory, { recursive: true, force: true });
});

const batch = (more: Partial<BatchRecord> = {}): BatchRecord => ({
  id: 'batch_1', tenant: 't', endpoint: '/v1/chat/completions', inputFileId: 'file-1', completionWindow: '24h', metadata: null, createdAtS: 100, dueAtMs: 1e12, outputSeconds: 100,
  status: 'in_progress', ending: null, stampsS: {}, errors: [], outputFileId: null, errorFileId: null, counts: { total: 3, completed: 0, failed: 0 }, ...more,
});
const file = (id: string, more: Partial<FileRecord> = {}): FileRecord => ({ id, tenant: 't', filename: 'f', purpose: 'batch', bytes: 3, createdAtS: 100, expiresAtS: 1_000, ...more });
const LINES = [1, 2, 3].map((line) => ({ line, customId: `c${line}`, body: '{}' }));
const DONE = { outcome: 'completed', text: 'x' } as const;

async function withLines(store: BatchStore): Promise<void> {
  await store.createBatch(batch(), 10);
  await store.addLines('batch_1', LINES);
}

test('a line that one gateway has claimed is no other’s until that one has died', async () => {
  const [one, two] = [open(), open()];
  await withLines(one);
  await one.beat('one', 0, 1_000);
  await two.beat('two', 0, 5_000);
  expect((await one.claimLines('batch_1', 'one', 2, 0)).map(({ line }) => line)).toEqual([1, 2]);
  expect((await two.claimLines('batch_1', 'two', 9, 999)).map(({ line }) => line)).toEqual([3]);
  expect(await two.claimedLines('batch_1', 999)).toBe(3);
  expect((await two.claimLines('batch_1', 'two', 9, 1_000)).map(({ line }) => line)).toEqual([1, 2]);
});

test('a line has one result, the first, and is counted once', async () => {
  const [one, two] = [open(), open()];
  await withLines(one);
  expect(await one.recordLine('batch_1', 1, DONE)).toBe(true);
  expect(await two.recordLine('batch_1', 1, { outcome: 'failed', text: 'y' })).toBe(false);
  expect((await two.batch('t', 'batch_1'))?.counts).toEqual({ total: 3, completed: 1, failed: 0 });
  expect((await two.results('batch_1', 0, 9)).map(({ text }) => text)).toEqual(['x', null, null]);
  expect(await two.claimLines('batch_1', 'two', 9, 0)).toHaveLength(2);
});

test('what a gateway gives back at its end is free at once, and a line to be tried later only then', async () => {
  const store = open();
  await withLines(store);
  await store.beat('one', 0, 1e9);
  await store.claimLines('batch_1', 'one', 3, 0);
  await store.returnLine('batch_1', 1, { tries: 1, failures: 1 }, 500);
  await store.leave('one');
  await store.beat('two', 0, 1e9);
  expect((await store.claimLines('batch_1', 'two', 9, 499)).map(({ line }) => line)).toEqual([2, 3]);
  expect(await store.claimLines('batch_1', 'two', 9, 500)).toEqual([{ line: 1, customId: 'c1', body: '{}', tries: 1, failures: 1 }]);
});

test('of a batch that is cancelled or finished nothing is begun and nothing recorded', async () => {
  const store = open();
  await withLines(store);
  await store.changeBatch('batch_1', (current) => ({ ...current, status: 'cancelling', ending: 'cancelled' }));
  expect(await store.claimLines('batch_1', 'one', 9, 0)).toEqual([]);
  expect(await store.recordLine('batch_1', 1, DONE)).toBe(false);
});

test('a batch is finished by the gateway that has claimed it, and by nobody else', async () => {
  const store = open();
  await withLines(store);
  await store.beat('one', 0, 1_000);
  expect(await store.claimBatch('batch_1', 'one', 0)).toBe(true);
  expect(await store.claimBatch('batch_1', 'two', 0)).toBe(false);
  expect(await store.claimBatch('batch_1', 'two', 1_000)).toBe(true);
  const done = batch({ status: 'completed', ending: 'completed' });
  expect(await store.finishBatch(done, 'one', [])).toBe(false);
  expect((await store.batch('t', 'batch_1'))?.status).toBe('in_progress');
  expect(await store.finishBatch(done, 'two', [])).toBe(true);
  expect(await store.openBatches()).toEqual([]);
  expect(await store.results('batch_1', 0, 9)).toEqual([]);
});

test('files that have had their time, and those that a dead gateway was writing, are swept away', async () => {
  const store = open();
  await store.beat('alive', 0, 1e9);
  for (const [id, worker] of [['old', 'alive'], ['young', 'alive'], ['half', 'dead'], ['writing', 'alive']] as const) {
    await store.beginFile(id, worker);
    await store.appendFile(id, Buffer.from('abc'), null);
  }
  await store.commitFile(file('old', { expiresAtS: 500 }), null);
  await store.commitFile(file('young', { expiresAtS: 501 }), null);
  await store.sweep(500_000, 0);
  expect((await store.files('t', { after: null, limit: 9, newestFirst: false, purpose: null }))?.items.map(({ id }) => id)).toEqual(['young']);
  expect(await store.appendFile('writing', Buffer.from('abc'), 9)).toBe('ok');
  expect(await store.appendFile('writing', Buffer.from('abc'), 9)).toBe('full');
});

test('a disk that is full is an error that says so, and what was there is there still', async () => {
  const store = open();
  await withLines(store);
  await store.beginFile('f', 'one');
  // The bound of SQLite's own, as of a disk.
  const pages = new DatabaseSync(join(directory, 'b.sqlite'));
  const { page_count: count } = pages.prepare('PRAGMA page_count').get() as { page_count: number };
  pages.close();
  const full = openSqliteStore(join(directory, 'b.sqlite'), { pagesMax: count + 2 });
  stores.push(full);
  const refused = full.appendFile('f', Buffer.alloc(1_000_000), null);
  await expect(refused).rejects.toThrow(BatchStoreError);
  await expect(refused).rejects.toThrow(/full/);
  expect(await full.appendFile('f', Buffer.from('abc'), 3)).toBe('ok');
  expect(await full.results('batch_1', 0, 9)).toHaveLength(3);
});

test('another program’s file is refused, and so is a directory', () => {
  const path = join(directory, 'other.sqlite');
  const other = new DatabaseSync(path);
  other.exec('CREATE TABLE t (a)');
  other.close();
  expect(() => openSqliteStore(path)).toThrow(/choose another file/);
  writeFileSync(join(directory, 'text'), 'no database, and longer than a header of one'.repeat(10));
  for (const name of ['text', '.']) expect(() => openSqliteStore(join(directory, name))).toThrow(BatchStoreError);
});
