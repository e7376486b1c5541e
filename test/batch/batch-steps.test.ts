// The long steps of a batch, where the store changes under them.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { BatchRecord } from '../../src/batch/batch-record.ts';
import { validateBatch } from '../../src/batch/batch-steps.ts';
import type { BatchStore } from '../../src/batch/batch-store.ts';
import { openSqliteStore } from '../../src/batch/sqlite-store.ts';
import { chatLines } from '../fixtures/batch-client.ts';

let directory: string;
let store: BatchStore;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'batch-steps-'));
  store = openSqliteStore(join(directory, 'b.sqlite'));
});
afterEach(async () => {
  await store.close();
  rmSync(directory, { recursive: true, force: true });
});

test('a batch whose file is deleted while it is read is not taken for the part that was read', async () => {
  const pieces = [chatLines(3, 'first'), chatLines(3, 'second')].map((text) => Buffer.from(text));
  await store.beginFile('file-1', 'w');
  for (const piece of pieces) await store.appendFile('file-1', piece, null);
  await store.commitFile({ id: 'file-1', tenant: 't', filename: 'f', purpose: 'batch', bytes: Buffer.concat(pieces).length, createdAtS: 100, expiresAtS: 1e9 }, 10);
  const batch: BatchRecord = {
    id: 'batch_1', tenant: 't', endpoint: '/v1/chat/completions', inputFileId: 'file-1', completionWindow: '24h', metadata: null, createdAtS: 100, dueAtMs: 1e12, outputSeconds: 100,
    status: 'validating', ending: null, stampsS: {}, errors: [], outputFileId: null, errorFileId: null, counts: { total: 0, completed: 0, failed: 0 },
  };
  await store.createBatch(batch, 10);
  const deletedMeanwhile: BatchStore = {
    ...store,
    async *readFile(fileId) {
      for await (const piece of store.readFile(fileId)) {
        yield piece;
        await store.deleteFile('t', fileId);
      }
    },
  };
  await validateBatch(deletedMeanwhile, batch, { requestsMax: 100, lineBytesMax: 10_000 }, () => 100);
  expect(await store.batch('t', 'batch_1')).toMatchObject({ status: 'failed', errors: [{ code: 'file_not_found' }], counts: { total: 0 } });
  expect(await store.results('batch_1', 0, 10)).toEqual([]);
});
