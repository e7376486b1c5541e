import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { UsageError } from '../../src/cli/command.ts';
import { readFleet } from '../../src/cli/fleet-options.ts';
import { CLOCK_PROFILE, madeProfile } from '../fixtures/profiles.ts';

const folder = mkdtempSync(join(tmpdir(), 'paceline-fleet-'));
const SLOW = { ...madeProfile({ knob: 'clockMhz', settings: [780, 1830].map((clockMhz) => ({ value: clockMhz, speed: clockMhz / 3660 })) }), name: 'slow' };
mkdirSync(join(folder, 'profiles'));
const [fast, slow] = (['fast', 'slow'] as const).map((name) => {
  const path = join(folder, 'profiles', `${name}.json`);
  writeFileSync(path, JSON.stringify(name === 'fast' ? { ...CLOCK_PROFILE, name } : SLOW));
  return path;
}) as [string, string];

const NONE = { replicas: undefined, truth: undefined, belief: undefined, fleet: undefined, 'time-error': 0, 'power-error': 0, noise: 0, 'switch-outliers': undefined, 'power-cap': undefined, sleep: undefined, 'awake-min': 1, 'batch-tokens': undefined };

function names(fleet: string): string[] {
  return readFleet({ ...NONE, fleet }).members.map(({ truth, belief }) => `${truth.name} believed ${belief.name}`);
}

test('a fleet is a list of profiles with their numbers and beliefs; the belief is the truth unless said', () => {
  expect(names(`2x${fast}, ${slow}=${fast}`)).toEqual(['fast believed fast', 'fast believed fast', 'slow believed fast']);
  expect(readFleet({ ...NONE, fleet: `2x${fast},${slow}` }).name).toBe('2 x fast, 1 x slow');
  const [one, two] = readFleet({ ...NONE, fleet: `2x${fast}` }).members;
  expect(one?.belief, 'replicas of one profile share it').toBe(two?.belief);
});

test('a fleet file says the same, with paths from where it lies', () => {
  const file = join(folder, 'fleet.json');
  writeFileSync(file, JSON.stringify({ fleet: [{ replicas: 2, truth: 'profiles/fast.json' }, { truth: 'profiles/slow.json', belief: 'profiles/fast.json' }] }));
  expect(names(file)).toEqual(['fast believed fast', 'fast believed fast', 'slow believed fast']);
});

test.each([
  { content: { fleet: [] }, says: /--fleet: .*fleet\.json fleet: / },
  { content: { fleet: [{ replicas: 0, truth: 'a.json' }] }, says: /fleet\.0\.replicas: / },
  { content: { fleet: [{ truth: 'a.json', count: 2 }] }, says: /fleet\.0: .*count/ },
  { content: { fleet: [{ truth: 'a.json' }] }, says: /--fleet: .*a\.json/ },
])('refuses the fleet file $content', ({ content, says }) => {
  const file = join(folder, 'bad-fleet.json');
  writeFileSync(file, JSON.stringify(content));
  expect(() => names(file)).toThrow(UsageError);
  expect(() => names(file)).toThrow(says);
});

test('without a fleet there are four replicas, and a belief of their own if one is named', () => {
  expect(readFleet({ ...NONE, truth: fast }).members).toHaveLength(4);
  const { members, name } = readFleet({ ...NONE, truth: fast, belief: slow, replicas: 1 });
  expect(members.map(({ truth, belief }) => [truth.name, belief.name])).toEqual([['fast', 'slow']]);
  expect(name).toBe('1 replica of fast');
});

test.each([
  { sleep: '100:2000:5000', costs: { powerW: 100, sleepMs: 2000, wakeMs: 5000 } },
  { sleep: '90.5:0:400:700', costs: { powerW: 90.5, sleepMs: 0, wakeMs: 400, wakeEnergyJ: 700 } },
])('what sleeping costs is said for all: $sleep', ({ sleep, costs }) => {
  const { members, sleep: rule } = readFleet({ ...NONE, fleet: `2x${fast},${slow}`, sleep, 'awake-min': 2 });
  expect(members.map(({ truth, belief }) => [truth.sleep, belief.sleep])).toEqual(members.map(() => [costs, costs]));
  expect(members[0].truth, 'replicas of one profile share it still').toBe(members[1]?.truth);
  expect(rule).toEqual({ awakeMin: 2 });
});

test.each([
  { sleep: 'deep', says: /--sleep: got 'deep', want POWERW:SLEEPMS:WAKEMS/ },
  { sleep: '100:2000', says: /got '100:2000', want/ },
  { sleep: '100:1:2:3:4', says: /want POWERW/ },
  { sleep: '100:-1:5', says: /want POWERW/ },
  { sleep: '5000:2000:5000', says: /sleep.powerW: got 5000, above the .* W that the group idles at/ },
  { sleep: '10:2000:5:90000', says: /sleep.wakeEnergyJ: got 90000 J in 5 ms/ },
  { sleep: 'profile', says: /does not say what sleeping costs/ },
])('a sleep that makes no sense is refused: $sleep', ({ sleep, says }) => {
  expect(() => readFleet({ ...NONE, fleet: fast, sleep })).toThrow(says);
});

test('a chunk size is that of all servers, and holds a token of each sequence', () => {
  const { members } = readFleet({ ...NONE, fleet: `2x${fast}`, 'batch-tokens': 512 });
  expect(members.map(({ truth, belief }) => [truth.serving.maxBatchTokens, belief.serving.maxBatchTokens])).toEqual([[512, 512], [512, 512]]);
  expect(() => readFleet({ ...NONE, fleet: fast, 'batch-tokens': 100 })).toThrow(/--batch-tokens: got 100, below the 256 sequences/);
});
