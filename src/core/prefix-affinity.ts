// How much of a prompt need not be read, and where? What a server has read before it has in its cache. For each replica a
// belief of what that is, and how far it is to be believed, which the servers' `usage` corrects. It makes no choice: a
// prompt that is shorter somewhere is cheaper there, and routing weighs that against all else.
import { CANDIDATES_MAX, PREFIX } from './limits.ts';
import type { JobOutcome, JobSpec, Usage } from './job.ts';
import { createBelievedCache, type BelievedCache } from './believed-cache.ts';
import type { PendingJob, TrackedJob } from './tracked-job.ts';

/** Replicas go by their place in the list. */
export interface PrefixAffinity {
  /** Prompt tokens of a job that are expected to be cached there; 0 where it says nothing of its prefix. */
  cachedTokens(job: Pick<PendingJob, 'spec' | 'promptTokens'>, replica: number): number;
  /** The most that are expected anywhere. */
  mostCachedTokens(job: Pick<PendingJob, 'spec' | 'promptTokens'>): number;
  /** Replicas that may have more of its prompt than others; `null` where all are few enough to ask each. */
  holders(spec: JobSpec): ReadonlySet<number> | null;
  /** It goes there: what is expected is written on it, and what it brings is there from now on. */
  sent(job: TrackedJob, replica: number): void;
  /** It has ended there, and the server said what it used, or did not. */
  ended(job: TrackedJob, replica: number, outcome: JobOutcome, usage: Usage | undefined): void;
  /** It never came there. */
  returned(job: TrackedJob, replica: number): void;
  /** The server was down; what it had in its memory is gone. */
  lost(replica: number): void;
  /** One more, at the end of the list. */
  joined(kvTokens: number): void;
  /** It is none of them any more; those behind it move up. */
  left(replica: number): void;
  /** Of what we believe to be there, the share that is, as its server says: 0 for one without a cache. */
  trust(replica: number): number;
}

interface Belief {
  readonly cache: BelievedCache;
  readonly kvTokens: number;
  trust: number;
  seen: number;
  capacityTokens: number;
}

/** Before a server has said anything: many have such a cache, some say nothing of it. It weighs as much as `belief` answers. */
const TRUST = { prior: 0.5, belief: 2, rate: 0.05 };

/**
 * What is believed to be held is drawn in where most of it turns out to be gone, and let out where there was more than believed;
 * the memory is also needed for what runs, and other gateways fill it.
 */
const CAPACITY = { drawnIn: 0.9, letOut: 1.02, leastShare: 0.05, goneShare: 0.5 };

export function createPrefixAffinity(kvTokensOfReplicas: readonly number[], enabled: boolean): PrefixAffinity {
  const beliefs = kvTokensOfReplicas.map((kvTokens) => newBelief(kvTokens, kvTokensOfReplicas.length));
  let large = beliefs.length > CANDIDATES_MAX;
  /** Of a large fleet: by block, who was sent it last, the latest first. The least lately sent block is the first. */
  const holdersOf = new Map<number, readonly number[]>();
  let everybody = beliefs.map((_, place) => place);

  function noteHolder(blocks: readonly number[], replica: number): void {
    if (!large) return;
    for (let index = blocks.length - 1; index >= 0; index--) {
      const hash = blocks[index] as number;
      const others = holdersOf.get(hash) ?? [];
      holdersOf.delete(hash);
      holdersOf.set(hash, [replica, ...others.filter((other) => other !== replica).slice(0, PREFIX.holdersMax - 1)]);
    }
    for (const hash of holdersOf.keys()) {
      if (holdersOf.size <= PREFIX.entriesMax) break;
      holdersOf.delete(hash);
    }
  }

  /** Those of the longest beginning that anybody has. */
  function nearest({ blocks }: { readonly blocks: readonly number[] }): readonly number[] {
    if (!large) return everybody;
    let there = 0;
    let end = blocks.length;
    while (there < end) {
      const middle = (there + end) >>> 1;
      if (holdersOf.has(blocks[middle] as number)) there = middle + 1;
      else end = middle;
    }
    return there === 0 ? [] : (holdersOf.get(blocks[there - 1] as number) ?? []);
  }

  function expected({ spec: { prefix }, promptTokens }: Pick<PendingJob, 'spec' | 'promptTokens'>, { trust }: Belief, hits: number): number {
    if (prefix === undefined || hits === 0) return 0;
    return Math.min(promptTokens - 1, Math.floor(trust * Math.min(1, hits * prefix.blockShare) * promptTokens));
  }

  function cachedTokens(job: Pick<PendingJob, 'spec' | 'promptTokens'>, replica: number): number {
    const { prefix } = job.spec;
    const belief = beliefs[replica] as Belief;
    return !enabled || prefix === undefined ? 0 : expected(job, belief, belief.cache.hits(prefix.blocks));
  }

  function learn(belief: Belief, claimedTokens: number, cachedTokens: number, blockTokens: number): void {
    if (claimedTokens > 0) {
      belief.seen += 1;
      belief.trust += (Math.min(1, cachedTokens / claimedTokens) - belief.trust) * Math.max(TRUST.rate, 1 / (TRUST.belief + belief.seen));
    }
    const gone = cachedTokens < CAPACITY.goneShare * claimedTokens;
    const more = cachedTokens >= claimedTokens + blockTokens;
    if (!gone && !more) return;
    belief.capacityTokens = Math.min(belief.kvTokens, Math.max(CAPACITY.leastShare * belief.kvTokens, belief.capacityTokens * (gone ? CAPACITY.drawnIn : CAPACITY.letOut)));
    belief.cache.resize(belief.capacityTokens);
  }

  return {
    cachedTokens,
    mostCachedTokens(job) {
      const { prefix } = job.spec;
      if (!enabled || prefix === undefined) return 0;
      return nearest(prefix).reduce((most, replica) => Math.max(most, cachedTokens(job, replica)), 0);
    },
    holders: ({ prefix }) => (!enabled || prefix === undefined || !large ? null : new Set(nearest(prefix))),
    sent(job, replica) {
      const { prefix } = job.spec;
      if (!enabled || prefix === undefined) return;
      const belief = beliefs[replica] as Belief;
      job.prefixHits = belief.cache.hits(prefix.blocks);
      job.cachedTokens = expected(job, belief, job.prefixHits);
      job.prefilledTokens = job.cachedTokens;
      belief.cache.keep(prefix.blocks, prefix.blockShare * job.promptTokens);
      noteHolder(prefix.blocks, replica);
    },
    ended(job, replica, outcome, usage) {
      const { prefix } = job.spec;
      if (!enabled || prefix === undefined) return;
      const belief = beliefs[replica] as Belief;
      const promptTokens = usage?.promptTokens ?? job.promptTokens;
      if (usage !== undefined && promptTokens > 0) learn(belief, Math.min(promptTokens - 1, job.prefixHits * prefix.blockShare * promptTokens), usage.cachedTokens, prefix.blockShare * promptTokens);
      // Let go before its first token it may never have been read; what has run to its end is the last that was used.
      if (outcome !== 'finished' && job.firstTokenAtMs === null) belief.cache.drop(prefix.blocks, job.prefixHits);
      else belief.cache.keep(prefix.blocks, prefix.blockShare * promptTokens);
    },
    returned({ spec: { prefix }, prefixHits }, replica) {
      if (prefix !== undefined) beliefs[replica]?.cache.drop(prefix.blocks, prefixHits);
    },
    lost(replica) {
      beliefs[replica]?.cache.clear();
    },
    joined(kvTokens) {
      beliefs.push(newBelief(kvTokens, beliefs.length + 1));
      large = beliefs.length > CANDIDATES_MAX;
      everybody = beliefs.map((_, place) => place);
    },
    left(replica) {
      beliefs.splice(replica, 1);
      large = beliefs.length > CANDIDATES_MAX;
      everybody = beliefs.map((_, place) => place);
      for (const [hash, holders] of holdersOf) {
        const others = holders.filter((holder) => holder !== replica).map((holder) => (holder > replica ? holder - 1 : holder));
        if (others.length === 0 || !large) holdersOf.delete(hash);
        else holdersOf.set(hash, others);
      }
    },
    trust: (replica) => beliefs[replica]?.trust ?? 0,
  };
}

/** `replicas`: how many there are with it; each has its part of the memory, as of then. */
function newBelief(kvTokens: number, replicas: number): Belief {
  const entriesMax = Math.min(PREFIX.entriesPerReplicaMax, Math.max(64, Math.floor(PREFIX.entriesMax / Math.max(1, replicas))));
  return { cache: createBelievedCache(kvTokens, entriesMax), kvTokens, trust: TRUST.prior, seen: 0, capacityTokens: kvTokens };
}
