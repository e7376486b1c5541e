import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createAccountKeeper, type Totals } from '../../src/accounts/account-keeper.ts';
import type { ReplicaRow, UsageRow } from '../../src/accounts/account-record.ts';
import { hourOf } from '../../src/accounts/account-record.ts';
import { type AccountsFile, AccountsFileError, openAccountsFile } from '../../src/accounts/accounts-file.ts';

let directory: string;
const files: AccountsFile[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-accounts-'));
});
afterEach(() => {
  for (const file of files.splice(0)) file.close();
  rmSync(directory, { recursive: true, force: true });
});

function open(name = 'a.sqlite', write = true): AccountsFile {
  const file = openAccountsFile(join(directory, name), { write });
  files.push(file);
  return file;
}

const HOUR = Date.UTC(2026, 10, 26, 15) / 1_000;
const usage = (over: Partial<UsageRow> = {}): UsageRow => ({ tenant: 'acme', model: 'm', sloClass: 'chat', requests: 1, promptTokens: 100, cachedTokens: 10, outputTokens: 20, meteredJ: 30.5, modelledJ: 0.5, maximumClockJ: 40, ...over });
const replica = (over: Partial<ReplicaRow> = {}): ReplicaRow => ({ replica: 'r0', idleMeteredJ: 5, idleModelledJ: 0, othersJ: 1, unapportionedJ: 2, maximumClockIdleJ: 6, ...over });

describe('a file of accounts', () => {
  test('adds to the rows of an hour, and has them by their hour', () => {
    const file = open();
    file.add(HOUR, [usage()], [replica()]);
    file.add(HOUR, [usage(), usage({ tenant: 'other' })], [replica()]);
    file.add(HOUR + 3_600, [usage()], []);
    expect(file.usage(HOUR, HOUR + 3_600)).toEqual([
      { hourAtS: HOUR, ...usage({ requests: 2, promptTokens: 200, cachedTokens: 20, outputTokens: 40, meteredJ: 61, modelledJ: 1, maximumClockJ: 80 }) },
      { hourAtS: HOUR, ...usage({ tenant: 'other' }) },
    ]);
    expect(file.replicas(HOUR, HOUR + 7_200)).toEqual([{ hourAtS: HOUR, ...replica({ idleMeteredJ: 10, othersJ: 2, unapportionedJ: 4, maximumClockIdleJ: 12 }) }]);
    expect(file.usage(0, HOUR)).toEqual([]);
  });

  test('is read by another process while it is written', () => {
    const writer = open();
    writer.add(HOUR, [usage()], []);
    const reader = open('a.sqlite', false);
    expect(reader.usage(0, HOUR + 1)).toHaveLength(1);
    writer.add(HOUR, [usage({ tenant: 'later' })], []);
    expect(reader.usage(0, HOUR + 1)).toHaveLength(2);
    expect(() => reader.add(HOUR, [usage()], [])).toThrow(AccountsFileError);
  });

  test('forgets what is older, and nothing else', () => {
    const file = open();
    file.add(HOUR - 3_600, [usage()], [replica()]);
    file.add(HOUR, [usage()], [replica()]);
    file.prune(HOUR);
    expect(file.usage(0, HOUR + 1).map(({ hourAtS }) => hourAtS)).toEqual([HOUR]);
    expect(file.replicas(0, HOUR + 1).map(({ hourAtS }) => hourAtS)).toEqual([HOUR]);
  });

  test('is refused with its name where it is none, is missing, or is another version’s', () => {
    writeFileSync(join(directory, 'text'), 'no database at all, but long enough to be looked at as one'.repeat(40));
    const other = new DatabaseSync(join(directory, 'other.sqlite'));
    other.exec('CREATE TABLE x (y)');
    other.close();
    open('newer.sqlite').close();
    files.length = 0;
    const newer = new DatabaseSync(join(directory, 'newer.sqlite'));
    newer.exec('PRAGMA user_version = 99');
    newer.close();
    expect(() => open('missing.sqlite', false)).toThrow(/missing\.sqlite: there is no such file/);
    for (const write of [true, false]) {
      expect(() => open('text', write)).toThrow(/text: file is not a database/);
      expect(() => open('other.sqlite', write)).toThrow(/other\.sqlite: it holds no accounts of energy/);
      expect(() => open('newer.sqlite', write)).toThrow(/newer\.sqlite: its layout is number 99, this version has number 1/);
    }
    expect(() => openAccountsFile('/proc/nowhere/a.sqlite', { write: true })).toThrow(AccountsFileError);
  });
});

describe('a keeper', () => {
  function keeping(file: AccountsFile, totals: () => Totals, unixNowMs: () => number = () => HOUR * 1_000 + 5) {
    const states: (string | null)[] = [];
    return { keeper: createAccountKeeper({ file, read: totals, flushEveryMs: 60_000, retentionDays: 2, unixNowMs, onState: (why) => states.push(why) }), states };
  }

  test('writes what has grown since the last time, each in the hour in which it is written', () => {
    const file = open();
    let totals: Totals = { usage: [usage()], replicas: [replica()] };
    let nowMs = HOUR * 1_000 + 5;
    const { keeper } = keeping(file, () => totals, () => nowMs);
    keeper.flush();
    keeper.flush();
    totals = { usage: [usage({ requests: 3, meteredJ: 100 })], replicas: [replica()] };
    nowMs += 3_600_000;
    keeper.flush();
    expect(file.usage(0, HOUR + 7_200)).toEqual([
      { hourAtS: HOUR, ...usage() },
      { hourAtS: HOUR + 3_600, ...usage({ requests: 2, promptTokens: 0, cachedTokens: 0, outputTokens: 0, meteredJ: 69.5, modelledJ: 0, maximumClockJ: 0 }) },
    ]);
    expect(file.replicas(0, HOUR + 7_200)).toHaveLength(1);
  });

  test('writes a correction downwards too, such as of what was modelled and then metered', () => {
    const file = open();
    let totals: Totals = { usage: [usage({ modelledJ: 10 })], replicas: [] };
    const { keeper } = keeping(file, () => totals);
    keeper.flush();
    totals = { usage: [usage({ modelledJ: 0, meteredJ: 42 })], replicas: [] };
    keeper.flush();
    expect(file.usage(0, HOUR + 1)).toMatchObject([{ modelledJ: 0, meteredJ: 42, requests: 1 }]);
  });

  test('loses nothing where the file cannot be written for a while, and says so once', () => {
    const file = open();
    let broken = true;
    const flaky: AccountsFile = { ...file, add: (...all) => {
      if (broken) throw new AccountsFileError('disk full');
      file.add(...all);
    } };
    let totals: Totals = { usage: [usage()], replicas: [] };
    const { keeper, states } = keeping(flaky, () => totals);
    keeper.flush();
    totals = { usage: [usage({ requests: 5 })], replicas: [] };
    keeper.flush();
    broken = false;
    keeper.flush();
    keeper.flush();
    expect(file.usage(0, HOUR + 1)).toMatchObject([{ requests: 5 }]);
    expect(states).toEqual(['disk full', null]);
  });

  test('another process that held the file kept every stream waiting for a second; what is written is put off instead', () => {
    const file = open();
    const { keeper, states } = keeping(file, () => ({ usage: [usage()], replicas: [] }));
    const other = new DatabaseSync(join(directory, 'a.sqlite'));
    other.exec('BEGIN IMMEDIATE');
    const beganAtMs = performance.now();
    expect(keeper.flush()).toBe(false);
    // 20 ms are wanted; this is far from either on a busy machine, too.
    expect(performance.now() - beganAtMs).toBeLessThan(600);
    other.exec('ROLLBACK');
    other.close();
    expect(keeper.flush()).toBe(true);
    expect(file.usage(0, HOUR + 1)).toMatchObject([{ requests: 1 }]);
    expect(states).toEqual([expect.stringContaining('locked'), null]);
  });

  test('writes the rest when it is closed, and deletes what is older than it is to be kept', () => {
    const file = open();
    file.add(HOUR - 3 * 86_400, [usage()], [replica()]);
    file.add(HOUR - 86_400, [usage()], []);
    const { keeper } = keeping(file, () => ({ usage: [usage()], replicas: [] }));
    keeper.close();
    const reader = open('a.sqlite', false);
    files.splice(0, 1);
    expect(reader.usage(0, HOUR + 1).map(({ hourAtS }) => hourAtS)).toEqual([HOUR - 86_400, HOUR]);
    expect(reader.replicas(0, HOUR + 1)).toEqual([]);
  });
});

test('an hour begins where it does in UTC', () => {
  expect(hourOf(Date.UTC(2026, 10, 26, 15, 59, 59, 999))).toBe(HOUR);
});
