import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { drawClasses, mixClasses, readSloClasses, scaleSlos } from '../../src/workload/slo-classes.ts';

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

describe('other mixes and scales', () => {
  const classes = readSloClasses(JSON.stringify({ classes: [{ name: 'a', share: 0.2, ttftMs: 500 }, { name: 'b', share: 0.6, tpotMs: 40 }, { name: 'c', share: 0.2 }] }), 's.json');

  test.each([
    { mix: 'a=0.6', shares: { a: 0.6, b: 0.3, c: 0.1 } },
    { mix: 'a=0.5, b=0.5', shares: { a: 0.5, b: 0.5 } },
    { mix: 'a=0,b=0.5,c=0.5', shares: { b: 0.5, c: 0.5 } },
    { mix: 'b=1', shares: { b: 1 } },
  ])('$mix leaves the others in their proportions', ({ mix, shares }) => {
    const mixed = mixClasses(classes, mix, '--mix');
    expect(mixed.map(({ name }) => name)).toEqual(Object.keys(shares));
    for (const { name, share } of mixed) expect(share).toBeCloseTo(shares[name as 'a'] as number, 9);
  });

  test.each([
    { mix: 'a', says: '--mix: got "a", want CLASS=SHARE with a share from 0 to 1' },
    { mix: 'a=1.5', says: '--mix: got "a=1.5", want CLASS=SHARE' },
    { mix: 'd=0.5', says: '--mix: no class "d"; there are: a, b, c' },
    { mix: 'a=0.1,a=0.2', says: '--mix: class "a" stands twice' },
    { mix: 'a=0.7,b=0.7', says: '--mix: shares sum to 1.4, want at most 1' },
    { mix: 'a=0.1,b=0.2,c=0.3', says: '--mix: shares sum to 0.6, want 1, since they are all classes' },
  ])('refuses $mix', ({ mix, says }) => {
    expect(() => mixClasses(classes, mix, '--mix')).toThrow(says);
  });

  test('a scale is on every limit and on nothing else', () => {
    expect(scaleSlos(classes, 0.5)).toEqual([{ name: 'a', share: 0.2, slo: { ttftMs: 250 } }, { name: 'b', share: 0.6, slo: { tpotMs: 20 } }, { name: 'c', share: 0.2, slo: {} }]);
  });
});
