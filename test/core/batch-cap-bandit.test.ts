import { describe, expect, test } from 'vitest';
import { ARMS_MAX, type BatchCapBandit, createBatchCapBandit, type LoadContext } from '../../src/core/batch-cap-bandit.ts';
import { createRandom } from '../../src/random/random.ts';

const LOAD: LoadContext = { perMs: 0.004, promptTokensMean: 500, outputTokensMean: 200 };
const QUEUE = { waiting: 0, ttftMs: 10_000 };

interface World {
  /** J per output token at a cap. */
  readonly costJ: (cap: number) => number;
  /** Share of jobs that miss. */
  readonly missShare?: (cap: number) => number;
  readonly waiting?: (cap: number) => number;
}

interface Played {
  readonly bandit: BatchCapBandit;
  readonly capMs: ReadonlyMap<number, number>;
  readonly jobs: number;
  readonly missed: number;
}

/** Four jobs a second of 200 tokens, looked at every 100 ms. */
function play(world: World, lastsS: number, options: { readonly startCap?: number; readonly seed?: number; readonly noise?: number; readonly bandit?: BatchCapBandit; readonly load?: LoadContext; readonly fromS?: number } = {}): Played {
  const { startCap = 256, seed = 1, noise = 0.05, load = LOAD, fromS = 0 } = options;
  const random = createRandom(seed, 'world');
  const bandit = options.bandit ?? createBatchCapBandit({ concurrencyMax: 256, startCap, attainmentTarget: 0.99, random: createRandom(seed, 'bandit') });
  const capMs = new Map<number, number>();
  let [jobs, missed] = [0, 0];
  for (let nowMs = fromS * 1_000; nowMs < (fromS + lastsS) * 1_000; nowMs += 100) {
    const cap = bandit.cap();
    capMs.set(cap, (capMs.get(cap) ?? 0) + 100);
    if (random() < load.perMs * 100) {
      const met = random() >= (world.missShare?.(cap) ?? 0);
      jobs += 1;
      if (!met) missed += 1;
      bandit.tokens(200);
      bandit.consumed(200 * world.costJ(cap) * (1 + noise * (2 * random() - 1)));
      bandit.ended({ arrivedAtMs: nowMs - 50, met });
    }
    bandit.look(load, { ...QUEUE, waiting: world.waiting?.(cap) ?? 0 }, nowMs);
  }
  return { bandit, capMs, jobs, missed };
}

/** Where it was most of the time. */
function favourite({ capMs }: Played): number {
  return [...capMs].reduce((best, other) => (other[1] > best[1] ? other : best))[0];
}

const bowl = (bestCap: number) => (cap: number): number => 1 + 0.3 * Math.abs(Math.log2(cap / bestCap));

describe('a cap learnt online', () => {
  test.each([1, 2, 3, 4, 5])('comes to the cheapest, or next to it, and stays there (seed %d)', (seed) => {
    const { bandit } = play({ costJ: bowl(64) }, 3_000, { seed });
    const later = play({ costJ: bowl(64) }, 1_500, { seed, bandit, fromS: 3_000 });
    expect([45, 64, 91]).toContain(favourite(later));
    expect((later.capMs.get(45) ?? 0) + (later.capMs.get(64) ?? 0) + (later.capMs.get(91) ?? 0)).toBeGreaterThan(0.9 * 1_500_000);
  });

  test('begins where a profile says, and is no worse there than what is configured', () => {
    expect(play({ costJ: bowl(64) }, 1, { startCap: 60 }).bandit.cap()).toBe(64);
    expect(play({ costJ: () => 1 }, 1).bandit.cap()).toBe(256);
  });

  test('never tries again what missed deadlines, though it is the cheapest, until the load has changed', () => {
    const world: World = { costJ: bowl(23), missShare: (cap) => (cap < 64 ? 0.3 : 0) };
    const { bandit } = play(world, 3_000);
    const later = play(world, 3_000, { bandit, fromS: 3_000 });
    expect([...later.capMs.keys()].filter((cap) => cap < 64)).toEqual([]);
    expect(bandit.status().find(({ cap }) => cap === 45)?.stopped).toBe('misses');
    expect(later.missed).toBe(0);
    const quiet = play({ costJ: bowl(23) }, 2_000, { bandit, fromS: 6_000, load: { ...LOAD, perMs: 0.002 } });
    expect([...quiet.capMs.keys()].some((cap) => cap < 64), 'another load, another chance').toBe(true);
  });

  test('lets a cap that misses go long before a window is over', () => {
    const { capMs } = play({ costJ: () => 1, missShare: (cap) => (cap === 256 ? 0.5 : 0) }, 600);
    expect(capMs.get(256)).toBeLessThan(20_000 + 15_000);
  });

  test('lets a cap go under which jobs wait, before they miss', () => {
    const { bandit, capMs } = play({ costJ: bowl(8), waiting: (cap) => (cap < 91 ? 50 : 0) }, 3_000);
    expect(bandit.status().find(({ cap }) => cap === 64)?.stopped).toBe('waits');
    expect(capMs.get(64)).toBeLessThan(2_000);
  });

  test('of a hundred jobs misses no more than a few while it learns, where the larger half of the caps hold', () => {
    const { jobs, missed } = play({ costJ: bowl(128), missShare: (cap) => (cap < 64 ? 0.5 : 0.002) }, 6_000, { seed: 3 });
    expect(missed / jobs).toBeLessThan(0.01);
  });

  test('with every cap missing keeps the one that misses least', () => {
    const { bandit } = play({ costJ: () => 1, missShare: (cap) => (cap === 64 ? 0.2 : 0.6) }, 4_000);
    expect(bandit.status().every(({ stopped }) => stopped === 'misses')).toBe(true);
    expect(bandit.cap()).toBe(64);
  });

  test('learns nothing where nobody meters, and stays where it began', () => {
    const random = createRandom(1, 'b');
    const bandit = createBatchCapBandit({ concurrencyMax: 64, startCap: 64, attainmentTarget: 0.99, random });
    for (let nowMs = 0; nowMs < 1_000_000; nowMs += 100) {
      if (nowMs % 200 === 0) bandit.ended({ arrivedAtMs: nowMs, met: true });
      bandit.look(LOAD, QUEUE, nowMs);
    }
    expect(bandit.cap()).toBe(64);
    expect(bandit.status().every(({ windows }) => windows === 0)).toBe(true);
  });

  test('has a few caps, and remembers a few costs of each', () => {
    const { bandit } = play({ costJ: () => 1 }, 20_000);
    expect(bandit.status().length).toBeLessThanOrEqual(ARMS_MAX);
    expect(Math.max(...bandit.status().map(({ windows }) => windows))).toBeLessThanOrEqual(6);
    expect(createBatchCapBandit({ concurrencyMax: 2, startCap: 2, attainmentTarget: 0.99, random: () => 0.5 }).status().map(({ cap }) => cap)).toEqual([2]);
  });

  test('is the same for the same seed', () => {
    const played = (): unknown => [...play({ costJ: bowl(32) }, 2_000, { seed: 9, noise: 0.4 }).capMs];
    expect(played()).toEqual(played());
  });
});
