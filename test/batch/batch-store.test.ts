// What every store of batches does: two gateways on it, what a dead one leaves, bounds, and what is not done is not half done.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BatchStore } from '../../src/batch/batch-store.ts';
import { BatchStoreError } from '../../src/batch/batch-store.ts';
import { createRedisStore } from '../../src/batch/redis-store.ts';
import { openSqliteStore } from '../../src/batch/sqlite-store.ts';
import { singleRedis } from '../../src/store/redis-connection.ts';
import { openRedisScripting } from '../../src/store/redis-scripting.ts';
import { batch, DONE, file, LINES, withLines } from '../fixtures/batch-records.ts';
import { startRedis } from '../fixtures/redis.ts';

interface Place {
  open(): BatchStore;
  close(): Promise<void>;
}

function sqlite(): Promise<Place> {
  const directory = mkdtempSync(join(tmpdir(), 'batch-store-'));
  return Promise.resolve({ open: () => openSqliteStore(join(directory, 'b.sqlite')), close: async () => rmSync(directory, { recursive: true, force: true }) });
}

async function redis(): Promise<Place> {
  const server = await startRedis();
  // Time is what the tests say it is.
  return { open: () => createRedisStore({ redis: openRedisScripting({ target: singleRedis(server.url), connectionName: 'test', what: 'batches', log: { warn: () => {} } }), fleet: 'test', lives: 'caller' }), close: server.stop };
}

describe.each([{ name: 'in a file', start: sqlite }, { name: 'in Redis', start: redis }])('a store $name', ({ start }) => {
  let place: Place;
  let stores: BatchStore[];
  const open = (): BatchStore => {
    const store = place.open();
    stores.push(store);
    return store;
  };
  beforeEach(async () => {
    place = await start();
    stores = [];
  });
  afterEach(async () => {
    for (const store of stores) await store.close();
    await place.close();
  });

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

  test('keeps bytes as they are, piece by piece, and a deleted file is gone with them', async () => {
    const [one, two] = [open(), open()];
    const pieces = [Buffer.from(Array.from({ length: 512 }, (_, index) => index % 256)), Buffer.alloc(300_000, 'ü'), Buffer.from('\n')];
    await one.beginFile('f', 'one');
    for (const piece of pieces) expect(await one.appendFile('f', piece, 400_000)).toBe('ok');
    expect(await two.file('t', 'f')).toBeNull();
    await one.commitFile(file('f', { filename: 'ä"\'}.jsonl' }), null);
    const read = (): Promise<Buffer> => buffer(two.readFile('f'));
    expect((await read()).equals(Buffer.concat(pieces))).toBe(true);
    expect(await two.file('t', 'f')).toEqual(file('f', { filename: 'ä"\'}.jsonl' }));
    expect(await two.file('other', 'f')).toBeNull();
    expect(await two.deleteFile('other', 'f')).toBe(false);
    expect(await two.deleteFile('t', 'f')).toBe(true);
    expect(await read()).toHaveLength(0);
    await one.beginFile('g', 'one');
    expect(await one.appendFile('g', Buffer.alloc(400_001), 400_000)).toBe('full');
    expect(await one.appendFile('g', Buffer.alloc(400_000), 400_000)).toBe('ok');
  });

  test('has as many files and batches of a tenant as allowed, and another tenant has its own', async () => {
    const store = open();
    const commit = async (id: string, tenant: string): Promise<string> => {
      await store.beginFile(id, 'one');
      await store.appendFile(id, Buffer.from('abc'), null);
      return store.commitFile(file(id, { tenant }), 1);
    };
    expect([await commit('a', 't'), await commit('b', 't'), await commit('c', 'u')]).toEqual(['ok', 'too-many', 'ok']);
    const create = (id: string, tenant: string): Promise<string> => store.createBatch(batch({ id, tenant }), 1);
    expect([await create('a', 't'), await create('b', 't'), await create('c', 'u')]).toEqual(['ok', 'too-many', 'ok']);
    await store.changeBatch('a', (current) => ({ ...current, status: 'failed' }));
    expect(await create('b', 't')).toBe('ok');
    expect((await store.openBatches()).map(({ id }) => id).sort()).toEqual(['b', 'c']);
  });

  test('shows page by page what there is, of one tenant and one purpose', async () => {
    const store = open();
    for (const [id, tenant, purpose] of [['a', 't', 'batch'], ['b', 't', 'user_data'], ['c', 't', 'batch'], ['d', 'u","batch', 'batch'], ['e', 'u', 'batch']] as const) {
      await store.beginFile(id, 'one');
      await store.appendFile(id, Buffer.from('abc'), null);
      await store.commitFile(file(id, { tenant, purpose }), null);
    }
    const page = async (tenant: string, purpose: string | null, after: string | null, limit: number, newestFirst: boolean): Promise<unknown> => {
      const found = await store.files(tenant, { purpose, after, limit, newestFirst });
      return found === null ? null : [found.items.map(({ id }) => id).join(''), found.hasMore];
    };
    expect(await page('t', null, null, 2, true)).toEqual(['cb', true]);
    expect(await page('t', null, 'b', 2, true)).toEqual(['a', false]);
    expect(await page('t', null, 'a', 1, false)).toEqual(['b', true]);
    expect(await page('t', 'batch', null, 9, false)).toEqual(['ac', false]);
    expect(await page('t', 'batch","u', null, 9, false)).toEqual(['', false]);
    expect(await page('u', null, null, 9, false)).toEqual(['e', false]);
    expect(await page('t', null, 'e', 9, false)).toBeNull();
    for (const id of ['b1', 'b2', 'b3']) await store.createBatch(batch({ id }), 9);
    expect((await store.batches('t', { after: 'b3', limit: 1, newestFirst: true }))?.items).toEqual([batch({ id: 'b2' })]);
    expect(await store.batches('u', { after: 'b3', limit: 1, newestFirst: true })).toBeNull();
  });

  test('takes changes of one batch by two gateways one after the other, and loses no count', async () => {
    const [one, two] = [open(), open()];
    await withLines(one);
    const marked = (store: BatchStore, stamp: string): Promise<unknown> => store.changeBatch('batch_1', (current) => ({ ...current, stampsS: { ...current.stampsS, [stamp]: 1 } }));
    await Promise.all([marked(one, 'a'), marked(two, 'b'), one.recordLine('batch_1', 2, DONE), marked(one, 'c'), marked(two, 'd'), two.recordLine('batch_1', 3, { outcome: 'failed', text: 'y' })]);
    expect(await one.batch('t', 'batch_1')).toEqual(batch({ stampsS: { a: 1, b: 1, c: 1, d: 1 }, counts: { total: 3, completed: 1, failed: 1 } }));
    expect(await one.changeBatch('batch_1', () => null)).toEqual(await two.batch('t', 'batch_1'));
    expect(await one.changeBatch('batch_2', () => batch())).toBeNull();
  });

  test('gives a batch again to the gateway that has it, for the answer may have been lost', async () => {
    const store = open();
    await withLines(store);
    await store.beat('one', 0, 1_000);
    expect([await store.claimBatch('batch_1', 'one', 0), await store.claimBatch('batch_1', 'one', 1), await store.claimBatch('batch_1', 'two', 1)]).toEqual([true, true, false]);
    await store.unclaimBatch('batch_1', 'two');
    expect(await store.claimBatch('batch_1', 'two', 1)).toBe(false);
    await store.unclaimBatch('batch_1', 'one');
    expect(await store.claimBatch('batch_1', 'two', 1)).toBe(true);
  });

  test('says so when a file was swept away meanwhile, and a committed one is not dropped', async () => {
    const store = open();
    for (const id of ['f', 'g']) {
      await store.beginFile(id, 'one');
      await store.appendFile(id, Buffer.from('abc'), null);
      if (id === 'f') await store.commitFile(file('f'), null);
    }
    await store.dropFile('f');
    await store.sweep(0, 0);
    expect(await store.file('t', 'f')).toEqual(file('f'));
    await expect(store.appendFile('g', Buffer.from('abc'), null)).rejects.toThrow(BatchStoreError);
    await expect(store.commitFile(file('g'), null)).rejects.toThrow(/gone/);
    await withLines(store);
    await store.claimBatch('batch_1', 'one', 0);
    await expect(store.finishBatch(batch({ status: 'completed' }), 'one', [file('g')])).rejects.toThrow(/gone/);
    expect(await store.results('batch_1', 0, 9)).toHaveLength(3);
  });

  test('writes the files of a batch and ends it in one step, and forgets it after its time', async () => {
    const store = open();
    await withLines(store);
    await store.beat('one', 0, 1_000);
    await store.claimBatch('batch_1', 'one', 0);
    await store.beginFile('out', 'one');
    await store.appendFile('out', Buffer.from('abc'), null);
    const done = batch({ status: 'completed', ending: 'completed', outputFileId: 'out' });
    expect(await store.finishBatch(done, 'one', [file('out', { purpose: 'batch_output' })])).toBe(true);
    expect(await store.finishBatch(done, 'one', [])).toBe(false);
    expect(await store.batch('t', 'batch_1')).toEqual(done);
    expect(await store.file('t', 'out')).toMatchObject({ purpose: 'batch_output' });
    await store.sweep(5_000, 100);
    expect(await store.batch('t', 'batch_1')).toEqual(done);
    await store.sweep(5_000, 101);
    expect(await store.batch('t', 'batch_1')).toBeNull();
    expect((await store.batches('t', { after: null, limit: 9, newestFirst: true }))?.items).toEqual([]);
  });

  test('adds lines once, and none of those that would be there twice', async () => {
    const store = open();
    await withLines(store);
    await expect(store.addLines('batch_1', [{ line: 4, customId: 'c4', body: '{}' }, ...LINES])).rejects.toThrow(BatchStoreError);
    expect(await store.results('batch_1', 0, 9)).toHaveLength(3);
    await store.clearLines('batch_1');
    expect(await store.results('batch_1', 0, 9)).toEqual([]);
    expect(await store.claimLines('batch_1', 'one', 9, 0)).toEqual([]);
    const long = 'ü'.repeat(400_000);
    await store.addLines('batch_1', [1, 2, 12, 100].map((line) => ({ line, customId: `c${line}`, body: long })));
    expect((await store.claimLines('batch_1', 'one', 3, 0)).map(({ line, body }) => [line, body === long])).toEqual([[1, true], [2, true], [12, true]]);
    await store.recordLine('batch_1', 12, { outcome: 'failed', text: `a b ${long}` });
    expect(await store.results('batch_1', 2, 1)).toEqual([{ line: 12, customId: 'c12', outcome: 'failed', text: `a b ${long}` }]);
  });
});
