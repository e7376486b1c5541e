import { readFileSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { drawClasses, readSloClasses } from '../../src/workload/slo-classes.ts';

const MIXED = '{"classes":[{"name":"premium","share":0.2,"ttftMs":600,"tpotMs":35},{"name":"batch","share":0.8,"e2eMs":120000}]}';

test('reads classes with any subset of objectives', () => {
  expect(readSloClasses(MIXED, 's.json')).toEqual([
    { name: 'premium', share: 0.2, slo: { ttftMs: 600, tpotMs: 35 } },
    { name: 'batch', share: 0.8, slo: { e2eMs: 120_000 } },
  ]);
});

test.each([
  { text: '{', message: 's.json: not JSON' },
  { text: '{"classes":[]}', message: 's.json classes:' },
  { text: '{"classes":[{"name":"a","share":1,"ttft":5}]}', message: /s\.json classes\[0\]: .*ttft/ },
  { text: '{"classes":[{"name":"a","share":1,"ttftMs":0}]}', message: /s\.json classes\[0\]\.ttftMs: .*got "0"/ },
  { text: '{"classes":[{"name":"a","share":1,"ttftMs":"1e400"}]}', message: /s\.json classes\[0\]\.ttftMs/ },
  { text: '{"classes":[{"name":"two words","share":1}]}', message: /s\.json classes\[0\]\.name: want 1 to 64/ },
  { text: '{"classes":[{"name":"a","share":0.5},{"name":"a","share":0.5}]}', message: "s.json: class 'a' stands twice" },
  { text: '{"classes":[{"name":"a","share":0.5},{"name":"b","share":0.4}]}', message: 's.json: shares sum to 0.9 (a 0.5, b 0.4), want 1' },
  { text: '{"classes":[{"name":"a","share":1}],"default":"a"}', message: /s\.json file: .*default/ },
])('refuses $text', ({ text, message }) => {
  expect(() => readSloClasses(text, 's.json')).toThrow(message);
});

test('thirds that do not add up exactly are shares of 1', () => {
  expect(readSloClasses('{"classes":[{"name":"a","share":0.3333333},{"name":"b","share":0.3333333},{"name":"c","share":0.3333333}]}', 's.json')).toHaveLength(3);
});

test('classes come by their share, the same for a seed, whatever the number of requests', () => {
  const classes = readSloClasses(MIXED, 's.json');
  const drawn = drawClasses(classes, 20_000, 4);
  expect(drawn.filter(({ name }) => name === 'premium').length / drawn.length).toBeCloseTo(0.2, 1.5);
  expect(drawClasses(classes, 100, 4)).toEqual(drawn.slice(0, 100));
  expect(drawClasses(classes, 100, 5)).not.toEqual(drawn.slice(0, 100));
});

test('the files in config/slo are read', () => {
  const files = readdirSync('config/slo');
  expect(files).toContain('chat.json');
  for (const file of files) expect(readSloClasses(readFileSync(`config/slo/${file}`, 'utf8'), file).length).toBeGreaterThan(0);
});
