// The runner on a real store and a stand-in for the front door: windows that end, and a store that does not work for a while.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { BatchRecord } from '../../src/batch/batch-record.ts';
import type { BatchRunner } from '../../src/batch/batch-runner.ts';
import { createBatchRunner } from '../../src/batch/batch-runner.ts';
import type { BatchStore } from '../../src/batch/batch-store.ts';
import { BatchStoreError } from '../../src/batch/batch-store.ts';
import type { LineAnswer, LineClient } from '../../src/batch/line-client.ts';
import { openSqliteStore } from '../../src/batch/sqlite-store.ts';
import { chatLines } from '../fixtures/batch-client.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';

let directory: string;
let store: BatchStore;
let runner: BatchRunner | null;
let nowMs: number;
let warnings: string[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'batch-runner-'));
  store = openSqliteStore(join(directory, 'b.sqlite'));
  runner = null;
  nowMs = 1_000_000;
  warnings = [];
});
afterEach(async () => {
  await runner?.close();
  await store.close();
  rmSync(directory, { recursive: true, force: true });
});

const answered: LineAnswer = { kind: 'answered', statusCode: 200, requestId: 'r', retryAfterMs: null, final: false, text: '{}' };

/** `answers`: to so many lines; the rest are in flight until they are called back. */
function clientOf(answers: number): LineClient & { readonly sent: () => number; readonly calledBack: () => number } {
  let [sent, calledBack] = [0, 0];
  return {
    send: () => {
      sent += 1;
      const { promise, resolve } = Promise.withResolvers<LineAnswer>();
      if (sent <= answers) resolve(answered);
      return {
        answer: promise,
        abort: () => {
          calledBack += 1;
          resolve({ kind: 'lost' });
        },
      };
    },
    close: () => {},
    sent: () => sent,
    calledBack: () => calledBack,
  };
}

async function start(client: LineClient, lines: number, used: BatchStore = store): Promise<void> {
  const text = Buffer.from(chatLines(lines));
  await store.beginFile('file-1', 'w');
  await store.appendFile('file-1', text, null);
  await store.commitFile({ id: 'file-1', tenant: 't', filename: 'f', purpose: 'batch', bytes: text.length, createdAtS: 1, expiresAtS: 1e9 }, null);
  const batch: BatchRecord = {
    id: 'batch_1', tenant: 't', endpoint: '/v1/chat/completions', inputFileId: 'file-1', completionWindow: '1h', metadata: null, createdAtS: 1_000, dueAtMs: nowMs + 3_600_000, outputSeconds: 86_400,
    status: 'validating', ending: null, stampsS: {}, errors: [], outputFileId: null, errorFileId: null, counts: { total: 0, completed: 0, failed: 0 },
  };
  await store.createBatch(batch, 1);
  runner = createBatchRunner({
    store: used, client, workerId: 'w', concurrencyMax: 4, lineLimits: { requestsMax: 100, lineBytesMax: 10_000 }, retentionMs: 1e9,
    fleet: () => ({ room: 100, running: 0, queued: 0 }), mayCome: () => true, headers: () => ({}), warn: (message) => warnings.push(message), now: () => nowMs,
  });
}

const batchNow = async (): Promise<BatchRecord> => (await store.batch('t', 'batch_1')) as BatchRecord;
async function textOf(fileId: string | null): Promise<string> {
  let text = '';
  for await (const bytes of store.readFile(fileId ?? '')) text += bytes.toString();
  return text;
}

test('what is not finished when the window ends is in the error file as batch_expired, and what is in flight is called back', async () => {
  const client = clientOf(5);
  await start(client, 12);
  await eventually(async () => (await batchNow()).counts.completed === 5 && client.sent() === 9);
  nowMs += 3_600_000;
  await eventually(async () => (await batchNow()).status === 'expired');
  const { outputFileId, errorFileId, stampsS } = await batchNow();
  expect(client.calledBack()).toBe(4);
  expect((await textOf(outputFileId)).trimEnd().split('\n')).toHaveLength(5);
  const errors = (await textOf(errorFileId)).trimEnd().split('\n').map((line) => JSON.parse(line) as { custom_id: string; response: unknown; error: { code: string } });
  expect(errors).toHaveLength(7);
  expect(errors.every(({ response, error }) => response === null && error.code === 'batch_expired')).toBe(true);
  expect(stampsS).toMatchObject({ expired_at: nowMs / 1_000 });
});

test('while the store does not work no result is lost, no line is sent twice, and that is said once', async () => {
  let broken = false;
  const flaky = new Proxy(store, {
    get: (target, name: keyof BatchStore) =>
      (...values: never[]) => {
        if (broken && name !== 'readFile') return Promise.reject(new BatchStoreError('the disk is full'));
        return (target[name] as (...values: never[]) => unknown)(...values);
      },
  });
  const client = clientOf(100);
  const plain = client.send;
  // It breaks as the third line is answered.
  client.send = (line) => {
    const call = plain(line);
    if (client.sent() === 3) broken = true;
    return call;
  };
  await start(client, 10, flaky);
  await eventually(() => warnings.length > 0);
  broken = false;
  await eventually(async () => (await batchNow()).status === 'completed', 15_000);
  expect((await batchNow()).counts).toEqual({ total: 10, completed: 10, failed: 0 });
  expect(client.sent()).toBe(10);
  expect(warnings).toEqual([expect.stringContaining('the disk is full'), expect.stringContaining('is back')]);
});

test('never more lines are in flight than allowed', async () => {
  const client = clientOf(0);
  await start(client, 50);
  await eventually(() => client.sent() === 4);
  runner?.wake();
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(client.sent()).toBe(4);
  await runner?.close();
  // Given back: another gateway may begin them at once.
  expect(await store.claimedLines('batch_1', nowMs)).toBe(0);
});
