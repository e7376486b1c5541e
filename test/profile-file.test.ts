// Reading profiles: every reason to refuse one, each with its place, and that no input can do worse than be refused.
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createPerformanceModel } from '../src/frontier/performance-model.ts';
import type { Profile } from '../src/frontier/profile.ts';
import { PROFILE_BYTES_MAX, ProfileFileError, loadProfile, parseProfile, profileProblems } from '../src/profile-file.ts';

const WHERE = 'profiles/x.json';

/** The least that passes: two points of a knob that nobody has heard of, three works in each phase. */
function smallProfile(): Record<string, any> {
  const points = ['slow', 'fast'];
  return {
    format: 'paceline-profile/1',
    name: 'x',
    model: 'm',
    engine: { name: 'e' },
    deviceGroup: { device: 'd', devices: 1 },
    knobs: { turbo: { unit: 'level' } },
    points: points.map((id, index) => ({ id, knobs: { turbo: index }, idlePowerW: 50 + index })),
    prefill: points.flatMap((point) => [64, 512, 2048].map((tokens) => ({ point, tokens, contextTokens: 0, timeMs: tokens / 10, energyJ: tokens / 50 }))),
    decode: points.flatMap((point) => [1, 8, 64].map((sequences) => ({ point, sequences, contextTokens: sequences * 100, timeMs: 10 + sequences, energyJ: 2 + sequences / 4 }))),
    launchOverheadMs: 0.2,
    switch: { latencyMs: 15, outlierMs: 480, outlierShare: 0.01 },
    serving: { maxBatchTokens: 2048, maxSequences: 64, kvTokens: 100_000 },
    provenance: { measuredBy: 'a', measuredOn: 'b', measuredAt: 'c', method: 'd', sources: [{ title: 't', url: 'u', licence: 'l', used: 'x' }], licence: 'l', madeBy: 'f' },
  };
}

function messageOf(profile: unknown): string {
  try {
    parseProfile(profile, WHERE);
  } catch (error) {
    expect(error).toBeInstanceOf(ProfileFileError);
    return (error as Error).message;
  }
  throw new Error('the profile was accepted');
}

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-profile-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true });
});

test('a good profile comes back as it was, from a value, from text and from a file', () => {
  const profile = smallProfile();
  const file = join(directory, 'good.json');
  writeFileSync(file, JSON.stringify(profile));
  expect(parseProfile(profile, WHERE)).toEqual(profile);
  expect(parseProfile(JSON.stringify(profile), WHERE)).toEqual(profile);
  expect(loadProfile(file)).toEqual(profile);
  expect(profileProblems(profile as unknown as Profile)).toEqual([]);
});

test.each<{ name: string; change: (profile: Record<string, any>) => void; message: RegExp }>([
  { name: 'another format version', change: (p) => (p['format'] = 'paceline-profile/2'), message: /x\.json: format: got "paceline-profile\/2": expected "paceline-profile\/1"/ },
  { name: 'an unknown key at the top', change: (p) => (p['fomat'] = 1), message: /x\.json: got unknown key "fomat"/ },
  { name: 'an unknown key in a row', change: (p) => (p['decode'][3].watts = 1), message: /decode\[3\]: got unknown key "watts"/ },
  { name: 'a missing field', change: (p) => delete p['serving'].kvTokens, message: /serving\.kvTokens: got nothing: expected number/ },
  { name: 'a row of a point that is not there', change: (p) => (p['decode'][3].point = 'p9'), message: /x\.json: decode\[3\]\.point: got "p9", there is no such point; points are "slow", "fast"/ },
  { name: 'two points of one id', change: (p) => (p['points'][1].id = 'slow'), message: /points\[1\]\.id: got "slow" again, points\[0\] has it already/ },
  { name: 'two points of one setting', change: (p) => (p['points'][1].knobs.turbo = 0), message: /points\[1\]\.knobs: got the same setting as points\[0\]/ },
  { name: 'a knob that is not declared', change: (p) => (p['points'][0].knobs.clockMhz = 1), message: /points\[0\]\.knobs\.clockMhz: got a knob that is not declared; knobs are "turbo"/ },
  { name: 'a knob left unset', change: (p) => (p['points'][0].knobs = {}), message: /points\[0\]\.knobs: got no turbo/ },
  { name: 'a knob name that is none', change: (p) => (p['knobs']['a b'] = { unit: '1' }), message: /knobs\.a b: got a name that is not allowed/ },
  { name: 'no knobs', change: (p) => { p['knobs'] = {}; for (const point of p['points']) point.knobs = {}; }, message: /knobs: got none/ },
  { name: 'no points', change: (p) => (p['points'] = []), message: /points: got a list of 0/ },
  { name: 'an empty point id', change: (p) => (p['points'][0].id = ''), message: /points\[0\]\.id: got ""/ },
  { name: 'too few rows of a point', change: (p) => p['decode'].pop(), message: /points\[1\]: got 2 different decode works for "fast", want at least 3/ },
  { name: 'the same work three times over', change: (p) => { for (const row of p['prefill'].slice(0, 3)) row.tokens = 64; }, message: /points\[0\]: got 1 different prefill works for "slow"/ },
  { name: 'a time of nothing', change: (p) => (p['prefill'][0].timeMs = 0), message: /prefill\[0\]\.timeMs: got 0/ },
  { name: 'a negative energy', change: (p) => (p['decode'][0].energyJ = -1), message: /decode\[0\]\.energyJ: got -1/ },
  { name: 'a fraction of a token', change: (p) => (p['prefill'][0].tokens = 1.5), message: /prefill\[0\]\.tokens: got 1\.5/ },
  { name: 'a number in quotes', change: (p) => (p['points'][0].idlePowerW = '50'), message: /points\[0\]\.idlePowerW: got "50": expected number/ },
  { name: 'an infinite time', change: (p) => (p['prefill'][0].timeMs = Infinity), message: /prefill\[0\]\.timeMs: got/ },
  { name: 'an idle power of nothing', change: (p) => (p['points'][0].idlePowerW = 0), message: /points\[0\]\.idlePowerW: got 0/ },
  { name: 'an idle power far above the busy one', change: (p) => (p['points'][0].idlePowerW = 4000), message: /points\[0\]\.idlePowerW: got 4000, far above the 200\.0 W that prefill\[0\] draws/ },
  { name: 'energies in millijoules', change: (p) => { for (const row of p['decode']) row.energyJ *= 1000; }, message: /decode\[0\]: got 2250 J in 11 ms, which is 204545 W; at most 10000 W is believable/ },
  { name: 'a batch smaller than the sequences', change: (p) => (p['serving'].maxBatchTokens = 8), message: /serving\.maxBatchTokens: got 8, below maxSequences 64/ },
  { name: 'a cache smaller than the sequences', change: (p) => (p['serving'].kvTokens = 8), message: /serving\.kvTokens: got 8, below maxSequences 64/ },
  { name: 'half an outlier', change: (p) => delete p['switch'].outlierShare, message: /switch: got one of outlierMs and outlierShare/ },
  { name: 'an outlier faster than the rule', change: (p) => (p['switch'].outlierMs = 5), message: /switch\.outlierMs: got 5, below latencyMs 15/ },
  { name: 'an outlier share above one', change: (p) => (p['switch'].outlierShare = 2), message: /switch\.outlierShare: got 2/ },
])('refuses $name and says where', ({ change, message }) => {
  const profile = smallProfile();
  change(profile);
  expect(messageOf(profile)).toMatch(message);
});

test('lists every problem, up to a number, and counts the rest', () => {
  const profile = smallProfile();
  profile['prefill'] = Array.from({ length: 40 }, () => ({ ...profile['prefill'][0], point: 'nowhere' }));
  const message = messageOf(profile);
  expect(message.match(/there is no such point/g)).toHaveLength(25);
  expect(message).toMatch(/… and 17 more$/);
});

test('a file that is missing, too large or no JSON is refused by its name', () => {
  const huge = join(directory, 'huge.json');
  writeFileSync(huge, '');
  truncateSync(huge, PROFILE_BYTES_MAX + 1);
  const broken = join(directory, 'broken.json');
  writeFileSync(broken, '{"format":');
  expect(() => loadProfile(join(directory, 'none.json'))).toThrow(/none\.json: cannot be read: ENOENT/);
  expect(() => loadProfile(directory)).toThrow(ProfileFileError);
  expect(() => loadProfile(huge)).toThrow(/huge\.json: got 16777217 bytes, a profile may have 16777216/);
  expect(() => loadProfile(broken)).toThrow(/broken\.json: is not JSON/);
});

test('whatever one value is replaced by, the profile is accepted or refused as a profile, never anything else', () => {
  const paths = leafPaths(smallProfile());
  fc.assert(
    fc.property(fc.constantFrom(...paths), fc.oneof(fc.jsonValue(), fc.double(), fc.constantFrom('__proto__', 'constructor', Number.NaN, undefined)), (path, value) => {
      const profile = smallProfile();
      replace(profile, path, value);
      expectAcceptedOrRefused(profile);
    }),
    { numRuns: 1000 },
  );
});

test('whatever happens to its text, the profile is accepted or refused as a profile', () => {
  const text = JSON.stringify(smallProfile());
  fc.assert(
    fc.property(fc.nat(text.length - 1), fc.nat(40), fc.string({ maxLength: 20 }), (start, cut, inserted) => {
      expectAcceptedOrRefused(text.slice(0, start) + inserted + text.slice(start + cut));
    }),
    { numRuns: 1000 },
  );
});

function expectAcceptedOrRefused(source: unknown): void {
  try {
    const model = createPerformanceModel(parseProfile(source, WHERE));
    for (const point of model.points.keys()) expect(Number.isFinite(model.decodeEnergyJ({ sequences: 4, contextTokens: 1000 }, point))).toBe(true);
  } catch (error) {
    if (!(error instanceof ProfileFileError)) throw error;
    expect(error.problems.length).toBeGreaterThan(0);
    for (const problem of error.problems) expect(problem.startsWith(`${WHERE}: `)).toBe(true);
  }
}

function leafPaths(value: unknown, path: readonly string[] = []): (readonly string[])[] {
  if (typeof value !== 'object' || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, item]) => leafPaths(item, [...path, key]))].filter((found) => found.length > 0);
}

function replace(root: Record<string, any>, path: readonly string[], value: unknown): void {
  const parent = path.slice(0, -1).reduce<Record<string, any>>((object, key) => object[key], root);
  parent[path.at(-1) as string] = value;
}

test('a profile may say what sleeping costs, and which knobs only a restart changes', () => {
  const profile = { ...smallProfile(), sleep: { powerW: 20, sleepMs: 1000, wakeMs: 4000, wakeEnergyJ: 300 }, knobs: { turbo: { unit: 'level', changes: 'restart' } } };
  expect(parseProfile(profile, WHERE)).toEqual(profile);
});

test.each([
  { sleep: { powerW: 51, sleepMs: 1000, wakeMs: 4000 }, says: 'sleep.powerW: got 51, above the 50 W that the group idles at' },
  { sleep: { powerW: 20, sleepMs: 1000, wakeMs: 4, wakeEnergyJ: 3000 }, says: 'sleep.wakeEnergyJ: got 3000 J in 4 ms' },
  { sleep: { powerW: 20, sleepMs: -1, wakeMs: 4 }, says: 'sleep.sleepMs: got -1' },
  { sleep: { powerW: 20, sleepMs: 1 }, says: 'sleep.wakeMs: got nothing' },
  { sleep: { powerW: 20, sleepMs: 1, wakeMs: 1, level: 2 }, says: 'sleep: got unknown key "level"' },
])('a sleep that cannot be is refused: $says', ({ sleep, says }) => {
  expect(messageOf({ ...smallProfile(), sleep })).toContain(`${WHERE}: ${says}`);
});
