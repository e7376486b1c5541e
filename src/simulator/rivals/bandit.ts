// A contextual bandit over operating points: LinUCB with pruning of actions, a change detector, and narrowing once settled.
// Source: Li, Chu, Langford and Schapire, A Contextual-Bandit Approach to Personalized News Article Recommendation (WWW 2010)
// for LinUCB; Ye, Zhang and Tang (AGFT, arXiv 2508.01744) for the pruning and the phases; Page (1954) and Hinkley for the test.
import type { PointIndex } from '../../frontier/performance-model.ts';

export interface Bandit {
  /** The open point with the largest upper confidence bound in this context. */
  choose(context: readonly number[]): PointIndex;
  /** What taking a point in a context cost; smaller is better, above 0. */
  learn(point: PointIndex, context: readonly number[], cost: number): void;
  /** Points that may be chosen, slowest first. */
  open(): readonly PointIndex[];
  readonly phase: 'exploring' | 'exploiting';
}

/** Width of the confidence bound: at first, and how it falls with what was learnt. */
const ALPHA = { first: 1, halvesAfter: 60, least: 0.05 };
/** After so few tries a point this much dearer than the best is out, and with it whatever is slower still (a cascade). */
const EXTREME = { tries: 2, ratio: 1.6 };
/** After so many tries a point this much dearer on average is out. */
const HISTORIC = { tries: 5, ratio: 1.15 };
const OPEN_MIN = 3;
/** Page-Hinkley over relative surprises: tolerance and threshold. A quiet stretch this long counts as settled. */
const CHANGE = { tolerance: 0.05, threshold: 4, quietRounds: 60 };
/** Points on either side of the best that stay open once settled. */
const REFINED_HALF = 2;

interface Arm {
  readonly point: PointIndex;
  /** Inverse of the ridge regression's matrix, row by row. */
  readonly inverse: Float64Array;
  readonly response: Float64Array;
  tries: number;
  costMean: number;
  pruned: boolean;
}

/** `slowestFirst`: all points; `dimensions`: of a context; `first`: the place that wins the very first tie. */
export function createBandit(slowestFirst: readonly PointIndex[], dimensions: number, first: number): Bandit {
  const arms = slowestFirst.map((point): Arm => ({ point, inverse: identity(dimensions), response: new Float64Array(dimensions), tries: 0, costMean: 0, pruned: false }));
  let rounds = 0;
  let quietRounds = 0;
  let phase: Bandit['phase'] = 'exploring';
  let referenceCost = Number.NaN;
  let sum = 0;
  let lowest = 0;

  function best(): Arm {
    const tried = arms.filter(({ tries, pruned }) => tries > 0 && !pruned);
    return tried.reduce((least, arm) => (arm.costMean < least.costMean ? arm : least), tried[0] ?? (arms[0] as Arm));
  }

  function prune(arm: Arm): void {
    if (arms.filter(({ pruned }) => !pruned).length > OPEN_MIN) arm.pruned = true;
  }

  /** By average cost: what is hopeless after two tries, and what is merely worse after five. */
  function pruneDear(arm: Arm): void {
    const least = best();
    if (arm === least) return;
    const ratio = arm.costMean / least.costMean;
    if (arm.tries >= EXTREME.tries && ratio > EXTREME.ratio) {
      const place = arms.indexOf(arm);
      prune(arm);
      if (place < arms.indexOf(least)) for (const slower of arms.slice(0, place)) prune(slower);
    } else if (arm.tries >= HISTORIC.tries && ratio > HISTORIC.ratio) prune(arm);
  }

  function settle(): void {
    phase = 'exploiting';
    const centre = arms.indexOf(best());
    for (const [place, arm] of arms.entries()) if (Math.abs(place - centre) > REFINED_HALF) prune(arm);
  }

  /** The load is another one: what was pruned for the old one may be right now. */
  function startAnew(): void {
    phase = 'exploring';
    rounds = 0;
    quietRounds = 0;
    for (const arm of arms) Object.assign(arm, { pruned: false, tries: 0, costMean: 0 });
  }

  /** Page-Hinkley: whether costs have drifted up beyond the threshold. */
  function hasChanged(surprise: number): boolean {
    sum += surprise - CHANGE.tolerance;
    lowest = Math.min(lowest, sum);
    if (sum - lowest <= CHANGE.threshold) return false;
    sum = 0;
    lowest = 0;
    return true;
  }

  return {
    get phase() {
      return phase;
    },
    open: () => arms.filter(({ pruned }) => !pruned).map(({ point }) => point),
    choose(context) {
      const alpha = phase === 'exploiting' ? ALPHA.least : Math.max(ALPHA.least, ALPHA.first * 0.5 ** (rounds / ALPHA.halvesAfter));
      let chosen: { arm: Arm; score: number } | null = null;
      for (let offset = 0; offset < arms.length; offset++) {
        const arm = arms[(first + offset) % arms.length] as Arm;
        if (arm.pruned) continue;
        const spread = times(arm.inverse, context);
        const score = dot(spread, arm.response) + alpha * Math.sqrt(Math.max(0, dot(spread, context)));
        if (chosen === null || score > chosen.score) chosen = { arm, score };
      }
      return (chosen?.arm ?? (arms.at(-1) as Arm)).point;
    },
    learn(point, context, cost) {
      const arm = arms.find((candidate) => candidate.point === point);
      if (arm === undefined) return;
      if (Number.isNaN(referenceCost)) referenceCost = cost;
      referenceCost += (cost - referenceCost) / Math.min(50, rounds + 1);
      // Normalised by the recent average, so that one width of the bound fits every machine; the best rewards are near 0.
      const reward = 1 - Math.min(3, cost / referenceCost);
      const expected = dot(times(arm.inverse, context), arm.response);
      addOuter(arm.inverse, context);
      for (const [index, value] of context.entries()) arm.response[index] = (arm.response[index] as number) + reward * value;
      arm.tries += 1;
      arm.costMean += (cost - arm.costMean) / arm.tries;
      rounds += 1;
      quietRounds += 1;
      pruneDear(arm);
      if (hasChanged(phase === 'exploiting' ? expected - reward : 0)) startAnew();
      else if (phase === 'exploring' && quietRounds >= CHANGE.quietRounds) settle();
    },
  };
}

function identity(size: number): Float64Array {
  const matrix = new Float64Array(size * size);
  for (let index = 0; index < size; index++) matrix[index * size + index] = 1;
  return matrix;
}

function times(matrix: Float64Array, vector: readonly number[]): Float64Array {
  const size = vector.length;
  return Float64Array.from({ length: size }, (_, row) => vector.reduce((sum, value, column) => sum + (matrix[row * size + column] as number) * value, 0));
}

function dot(a: Float64Array, b: ArrayLike<number>): number {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += (a[index] as number) * (b[index] as number);
  return sum;
}

/** The inverse after adding the vector's outer product to the matrix (Sherman and Morrison). */
function addOuter(inverse: Float64Array, vector: readonly number[]): void {
  const size = vector.length;
  const spread = times(inverse, vector);
  const scale = 1 + dot(spread, vector);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) inverse[row * size + column] = (inverse[row * size + column] as number) - ((spread[row] as number) * (spread[column] as number)) / scale;
  }
}
