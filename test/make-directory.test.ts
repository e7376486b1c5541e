import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeDirectory } from '../src/make-directory.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'make-directory-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test('what is missing above a directory is made too, with the mode asked for; what is there is left as it is', () => {
  const path = join(directory, 'a', 'b', 'c');
  makeDirectory(path, 0o700);
  makeDirectory(path, 0o755);
  expect([path, join(directory, 'a')].map((made) => statSync(made).mode & 0o777)).toEqual([0o700, 0o700]);
});

test('below a file it is an error', () => {
  writeFileSync(join(directory, 'file'), '');
  expect(() => makeDirectory(join(directory, 'file', 'a', 'b'))).toThrow(/ENOTDIR/);
});

test.runIf(process.platform === 'linux')('where a file system denies that there is a parent it ends all the same: a gateway whose batches were to be kept in /proc hung for ever', () => {
  expect(() => makeDirectory('/proc/nobody/a')).toThrow(/ENOENT/);
});
