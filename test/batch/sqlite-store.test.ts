// The store in a file, beside what every store does: a disk that is full, and files that are no store.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { BatchStore } from '../../src/batch/batch-store.ts';
import { BatchStoreError } from '../../src/batch/batch-store.ts';
import { openSqliteStore } from '../../src/batch/sqlite-store.ts';
import { withLines } from '../fixtures/batch-records.ts';

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
