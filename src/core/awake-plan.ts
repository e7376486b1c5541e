// How many replicas should be awake, and of which kind? As many as what may come needs, and of those choices the one at which what is
// expected is served at the least power. Tensor-parallel degree, generation and batch cap are what tells one kind from another.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import type { PointScale, Pricing } from './corrections.ts';
import { type LoadShape, type PointRate, pointRate } from './point-rate.ts';
import { parkedPowerW } from './work-energy.ts';

/** Replicas that are alike. */
export interface ReplicaKind {
  readonly model: PerformanceModel;
  readonly timeScale: PointScale;
  readonly priced: Pricing;
  /** Jobs that one may be sent at once. */
  readonly sequencesMax: number;
  readonly replicas: number;
  /** Of them, those that are awake whatever is decided. */
  readonly alwaysAwake: number;
  /** Of one of the others, asleep. */
  readonly sleepPowerW: number;
}

export interface AwakeLoad extends LoadShape {
  readonly arrivalsPerMs: number;
  /** What there must be room for, at the fastest points: an upper quantile of what may come. */
  readonly peakPerMs: number;
  /** What the tightest want; `Infinity` where nobody wants any. */
  readonly ttftMs: number;
}

export interface AwakePlan {
  /** By kind. */
  readonly awake: readonly number[];
  /** By kind, what of the arrivals each one that is awake should serve, per millisecond. */
  readonly perMsEach: readonly number[];
  /** By kind, where those that are awake run; `null`: none of them serves anything. */
  readonly points: readonly (PointIndex | null)[];
  /** Expected, of all of them, asleep ones included. */
  readonly powerW: number;
  /** False where not even all of them have room for what may come: all are awake then. */
  readonly sustains: boolean;
}

/** The arrivals are given out in so many equal parts. */
export const LOAD_PARTS = 24;

/** Combinations of counts that are looked at; of larger fleets evenly spaced ones, the least and the most among them. */
export const COMBINATIONS_MAX = 2_048;

/**
 * The counts with the least expected power, at least `awakeMin` in all, among those with room for the peak. Arrivals are given to
 * kinds in `LOAD_PARTS` equal parts, each kind's alike to its replicas that are awake, each at its cheapest point that sustains it at
 * the TTFT and TPOT wanted: exact over these by dynamic programming over the kinds, for the power of a replica is not convex in what it
 * serves, so that no rule of filling one kind after another is. O(combinations × kinds × parts²) at worst. Ties: fewer awake.
 */
export function planAwake(kinds: readonly ReplicaKind[], load: AwakeLoad, awakeMin: number): AwakePlan {
  const servings = kinds.map((kind) => servingOf(kind, load));
  let best: AwakePlan | null = null;
  for (const awake of combinations(kinds, COMBINATIONS_MAX)) {
    const total = awake.reduce((sum, count) => sum + count, 0);
    const roomPerMs = awake.reduce((sum, count, kind) => sum + count * (servings[kind] as Serving).mostPerMs, 0);
    if (total < awakeMin || roomPerMs < load.peakPerMs) continue;
    const split = cheapestSplit(awake, servings, load.arrivalsPerMs > 0 ? LOAD_PARTS : 0);
    if (split === null) continue;
    const asleepW = kinds.reduce((sum, kind, index) => sum + (kind.replicas - (awake[index] as number)) * kind.sleepPowerW, 0);
    const powerW = split.powerW + asleepW;
    if (best !== null && powerW >= best.powerW) continue;
    const perMsEach = awake.map((count, index) => (count === 0 ? 0 : ((split.parts[index] as number) * load.arrivalsPerMs) / LOAD_PARTS / count));
    best = { awake, perMsEach, points: perMsEach.map((perMs, kind) => (servings[kind] as Serving).cheapestAt(perMs).point), powerW, sustains: true };
  }
  return best ?? { awake: kinds.map(({ replicas }) => replicas), perMsEach: kinds.map(() => 0), points: kinds.map(() => null), powerW: Number.POSITIVE_INFINITY, sustains: false };
}

interface Serving {
  /** Of one replica at its fastest point. */
  readonly mostPerMs: number;
  /** Of one replica that serves so much; `Infinity`: it cannot. */
  cheapestAt(perMs: number): { readonly powerW: number; readonly point: PointIndex | null };
  /** Of so many of the kind that serve so many parts of the load together; `Infinity`: they cannot. */
  powerW(awake: number, parts: number): number;
}

function servingOf({ model, timeScale, priced, sequencesMax }: ReplicaKind, load: AwakeLoad): Serving {
  const parkedW = parkedPowerW(priced);
  const rates = model.points.map((_, point) => pointRate(model, point, load, { timeScale, priced, parkedW }, sequencesMax));
  const known = new Map<number, number>();
  function cheapestAt(perMs: number): { readonly powerW: number; readonly point: PointIndex | null } {
    if (perMs <= 0) return { powerW: parkedW, point: null };
    let best: { readonly powerW: number; readonly point: PointIndex | null } = { powerW: Number.POSITIVE_INFINITY, point: null };
    for (const [point, rate] of rates.entries()) {
      const powerW = holds(rate, perMs, load) ? parkedW + 1000 * perMs * rate.excessJ(perMs) : Number.POSITIVE_INFINITY;
      if (powerW < best.powerW) best = { powerW, point };
    }
    return best;
  }
  const fastest = rates[model.fastest] as PointRate;
  return {
    mostPerMs: Math.max(0, fastest.mostPerMs),
    cheapestAt,
    powerW(awake, parts) {
      if (awake === 0) return parts === 0 ? 0 : Number.POSITIVE_INFINITY;
      const key = awake * (LOAD_PARTS + 1) + parts;
      const cached = known.get(key);
      if (cached !== undefined) return cached;
      const powerW = awake * cheapestAt((parts * load.arrivalsPerMs) / LOAD_PARTS / awake).powerW;
      known.set(key, powerW);
      return powerW;
    },
  };
}

function holds(rate: PointRate, perMs: number, { ttftMs }: AwakeLoad): boolean {
  return perMs <= rate.mostPerMs && rate.firstTokenMs(perMs) <= ttftMs;
}

/** `null`: they cannot serve it all. */
function cheapestSplit(awake: readonly number[], servings: readonly Serving[], partsToGive: number): { readonly powerW: number; readonly parts: readonly number[] } | null {
  // By parts given out so far: the least power, and what each kind got for it.
  let least: ({ readonly powerW: number; readonly parts: readonly number[] } | null)[] = [{ powerW: 0, parts: [] }, ...Array.from({ length: partsToGive }, () => null)];
  for (const [kind, count] of awake.entries()) {
    const serving = servings[kind] as Serving;
    const isLast = kind === awake.length - 1;
    const next: typeof least = Array.from({ length: partsToGive + 1 }, () => null);
    for (const [given, before] of least.entries()) {
      if (before === null) continue;
      for (let parts = isLast ? partsToGive - given : 0; parts <= partsToGive - given; parts++) {
        if (count === 0 && parts > 0) break;
        const powerW = before.powerW + serving.powerW(count, parts);
        const known = next[given + parts];
        if (powerW < Number.POSITIVE_INFINITY && (known === null || known === undefined || powerW < known.powerW)) next[given + parts] = { powerW, parts: [...before.parts, parts] };
      }
    }
    least = next;
  }
  return least[partsToGive] ?? null;
}

/** Counts of each kind, from those that are always awake to all of them, fewer first. */
function combinations(kinds: readonly ReplicaKind[], most: number): readonly (readonly number[])[] {
  const eachMost = Math.max(2, Math.floor(most ** (1 / Math.max(1, kinds.length))));
  const counts = kinds.map(({ replicas, alwaysAwake }) => spaced(alwaysAwake, replicas, eachMost));
  const all = counts.reduce<readonly (readonly number[])[]>((before, own) => before.flatMap((some) => own.map((count) => [...some, count])), [[]]);
  return all.toSorted((a, b) => a.reduce((sum, count) => sum + count, 0) - b.reduce((sum, count) => sum + count, 0));
}

function spaced(from: number, to: number, most: number): readonly number[] {
  const length = Math.min(to - from + 1, most);
  return Array.from({ length }, (_, index) => (length === 1 ? from : Math.round(from + (index * (to - from)) / (length - 1))));
}
