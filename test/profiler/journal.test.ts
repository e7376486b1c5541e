import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { JournalError, openJournal } from '../../src/profiler/journal.ts';
import type { Measurement, Work } from '../../src/profiler/measurement.ts';

let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'journal-'));
  path = join(directory, 'sweep.ndjson');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const SUBJECT = { model: 'm', devices: ['sim:0'] };
const WORKS: readonly Work[] = [{ kind: 'idle' }];
const at = (clockMhz: number): Measurement => ({ clockMhz, work: { kind: 'prefill', tokens: 64 }, timeMs: 3, powerW: 200, tokens: 64, windowMs: 1_000, count: 9, actualClockMhz: clockMhz, throttleReasons: [] });

test('what was written is there when it is opened again', () => {
  const first = openJournal(path, SUBJECT, WORKS);
  first.add(at(900));
  first.add(at(1_000));
  expect(openJournal(path, SUBJECT, WORKS).done).toEqual([at(900), at(1_000)]);
});

test('a line that was cut off in the middle of writing is measured again', () => {
  openJournal(path, SUBJECT, WORKS).add(at(900));
  appendFileSync(path, '{"clockMhz":1000,"work":{"ki');
  expect(openJournal(path, SUBJECT, WORKS).done).toEqual([at(900)]);
});

test('what was cut off is not grown together with what is measured next', () => {
  openJournal(path, SUBJECT, WORKS).add(at(900));
  appendFileSync(path, '{"clockMhz":1000,"work":{"ki');
  openJournal(path, SUBJECT, WORKS).add(at(1_100));
  expect(openJournal(path, SUBJECT, WORKS).done).toEqual([at(900), at(1_100)]);
});

test('a sweep goes on although the server was slower the second time, for which other works would be chosen', () => {
  openJournal(path, SUBJECT, WORKS).add(at(900));
  const again = openJournal(path, SUBJECT, [{ kind: 'decode', sequences: 20, promptTokens: 5_642 }]);
  expect(again.done).toEqual([at(900)]);
  expect(again.works).toEqual(WORKS);
});

test.each([
  ['another model', () => ({ ...SUBJECT, model: 'n' }), /its model is "m", this one's "n"/],
  ['other devices', () => ({ ...SUBJECT, devices: ['sim:1'] }), /is of another sweep: its devices/],
])('a journal of %s is refused, and stays as it is', (_, subject, message) => {
  openJournal(path, SUBJECT, WORKS).add(at(900));
  const before = readFileSync(path, 'utf8');
  expect(() => openJournal(path, subject(), WORKS)).toThrow(JournalError);
  expect(() => openJournal(path, subject(), WORKS)).toThrow(message);
  expect(readFileSync(path, 'utf8')).toBe(before);
});

test('what is no journal is refused and not written over', () => {
  writeFileSync(path, 'my notes\n');
  expect(() => openJournal(path, SUBJECT, WORKS)).toThrow(/is no journal of a sweep/);
  expect(readFileSync(path, 'utf8')).toBe('my notes\n');
  rmSync(path);
  openJournal(path, SUBJECT, WORKS).add(at(900));
  appendFileSync(path, 'garbage\n{"more":1}\n');
  expect(() => openJournal(path, SUBJECT, WORKS)).toThrow(/line 3: is no measurement/);
});

test('a place that cannot be written to is told', () => {
  expect(() => openJournal('/dev/null/x', SUBJECT, WORKS)).toThrow(JournalError);
});
