// What may trying things out cost? No more than a small share of all jobs, at any time and whatever comes of what is tried next: the rule
// of conservative bandits. Keeps the account; what is tried, and what it may cost, is the caller's to say.

export interface ExplorationCredit {
  /** One more job with a deadline has ended, or was refused, under whatever. */
  judged(): void;
  /** Misses that trying things out has cost; negative: fewer than there would have been without it. */
  spent(misses: number): void;
  /** Could so many more misses be borne? */
  covers(misses: number): boolean;
}

/** Misses that trying out may add, of all jobs: a fifth of a percent is within what attainment moves by anyway from one quarter of an hour to another. */
export const EXPLORED_MISS_SHARE = 0.002;

/** Jobs beyond which old ones count half: what a quiet month has saved must not be spent in one bad hour. */
export const CREDIT_JOBS_MAX = 500_000;

/**
 * Misses spent so far and those that the next trial may cost at worst are never more than `missShare` of the jobs judged so far.
 * Source: Wu, Shariff, Lattimore and Szepesvári, Conservative Bandits (ICML'16): an arm other than the baseline is played only where the
 * lower bound of what all plays have brought stays above (1 − α) of the baseline's; there α is of the reward, here of its misses.
 */
export function createExplorationCredit(missShare: number): ExplorationCredit {
  let jobs = 0;
  let spentMisses = 0;
  return {
    judged() {
      jobs += 1;
      if (jobs < CREDIT_JOBS_MAX) return;
      jobs /= 2;
      spentMisses /= 2;
    },
    spent(misses) {
      spentMisses = Math.max(0, spentMisses + misses);
    },
    covers: (misses) => spentMisses + misses <= missShare * jobs,
  };
}

/**
 * The share of jobs that may miss, where so many of so many did: the upper end of an interval of 95 %; 1 where nothing was seen.
 * Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
 */
export function missShareUpper({ jobs, missed }: { readonly jobs: number; readonly missed: number }): number {
  if (jobs <= 0) return 1;
  const share = missed / jobs;
  const z2 = Z ** 2;
  return Math.min(1, (share + z2 / (2 * jobs) + Z * Math.sqrt((share * (1 - share)) / jobs + z2 / (4 * jobs ** 2))) / (1 + z2 / jobs));
}

const Z = 1.96;
