// Who has had more than its share of a fleet that has not enough for all? Weighted fair queueing by start tags: each tenant
// has a tag, what it was given over its weight, and those that wait are brought up to the least of them. What a tenant
// takes while nobody waits is free: neither credit nor debt outlives a busy time.
// Source: Goyal, Vin and Cheng, Start-time Fair Queueing, SIGCOMM 1996.

export interface FairShares {
  /** A job of the tenant waits from now on (`1`), or no more (`-1`). */
  waits(name: string, weight: number, by: 1 | -1, nowMs: number): void;
  /** It was given so much of a replica's time; less than zero takes back what was charged too much. */
  charge(name: string, weight: number, workMs: number, nowMs: number): void;
  /**
   * How long the whole of `replicas` would have had to serve this tenant alone to bring it as far ahead of those that wait as it
   * is. 0 where it is not, or nobody waits.
   */
  aheadMs(name: string, replicas: number): number;
  /** Others were given something lately, too, and it was given more than its weight's part of all that was: whether anybody waits or not. */
  hasHadMore(name: string, nowMs: number): boolean;
  /** Somebody waits, or did a moment ago, and more than one tenant was given something meanwhile. */
  shared(): boolean;
  /** Its weight over that of all that wait, itself included. */
  shareOf(name: string, weight: number): number;
}

interface Tenant {
  weight: number;
  /** What it was given over its weight; starts where the others are. */
  tag: number;
  waiting: number;
  leftAtMs: number;
  /** What it was given, forgotten with time. */
  lately: number;
}

/** So long nobody has to wait until what was is forgotten: a queue that is empty for a moment ends no busy time. */
const FORGOTTEN_MS = 1_000;
/** Memory of what was given lately. */
const LATELY_MS = 10_000;

/** Of one model. Tenants come from the configuration, so that there are no more than it names. */
export function createFairShares(): FairShares {
  const tenants = new Map<string, Tenant>();
  /** Those of them that wait. */
  const waiting = new Map<string, Tenant>();
  /** The least tag of those that wait, or waited last. */
  let virtual = 0;
  let idleSinceMs = Number.NEGATIVE_INFINITY;
  let decayedAtMs = 0;

  /** One factor for all of them. */
  function decayTo(nowMs: number): void {
    if (nowMs - decayedAtMs < LATELY_MS / 100) return;
    const kept = Math.exp((decayedAtMs - nowMs) / LATELY_MS);
    for (const tenant of tenants.values()) tenant.lately *= kept;
    decayedAtMs = nowMs;
  }

  function of(name: string, weight: number): Tenant {
    const known = tenants.get(name);
    if (known !== undefined) {
      // A reload may have changed it.
      known.weight = weight;
      return known;
    }
    const tenant = { weight, tag: virtual, waiting: 0, leftAtMs: Number.NEGATIVE_INFINITY, lately: 0 };
    tenants.set(name, tenant);
    return tenant;
  }

  function forgetAfterIdling(nowMs: number): void {
    if (waiting.size > 0 || nowMs - idleSinceMs < FORGOTTEN_MS) return;
    tenants.clear();
    idleSinceMs = nowMs;
  }

  function advance(): void {
    let least = Number.POSITIVE_INFINITY;
    for (const { tag } of waiting.values()) if (tag < least) least = tag;
    if (least !== Number.POSITIVE_INFINITY) virtual = least;
  }

  return {
    waits(name, weight, by, nowMs) {
      forgetAfterIdling(nowMs);
      const tenant = of(name, weight);
      if (tenant.waiting === 0) {
        // Who was in the queue a moment ago is owed what it was.
        if (nowMs - tenant.leftAtMs >= FORGOTTEN_MS) tenant.tag = Math.max(tenant.tag, virtual);
        waiting.set(name, tenant);
      }
      tenant.waiting += by;
      if (tenant.waiting === 0) {
        waiting.delete(name);
        tenant.leftAtMs = nowMs;
        if (waiting.size === 0) idleSinceMs = nowMs;
      }
      advance();
    },
    charge(name, weight, workMs, nowMs) {
      forgetAfterIdling(nowMs);
      const tenant = of(name, weight);
      // Who waits keeps what it is owed by a correction; who does not is where the others are.
      if (tenant.waiting === 0 && workMs > 0 && nowMs - tenant.leftAtMs >= FORGOTTEN_MS) tenant.tag = Math.max(tenant.tag, virtual);
      tenant.tag += workMs / weight;
      decayTo(nowMs);
      tenant.lately = Math.max(0, tenant.lately + workMs);
      advance();
    },
    aheadMs(name, replicas) {
      const tenant = tenants.get(name);
      if (tenant === undefined || waiting.size === 0) return 0;
      return (Math.max(0, tenant.tag - virtual) * tenant.weight) / Math.max(1, replicas);
    },
    hasHadMore(name, nowMs) {
      decayTo(nowMs);
      const own = tenants.get(name);
      if (own === undefined) return false;
      let given = 0;
      let weights = 0;
      for (const { lately, weight } of tenants.values()) {
        given += lately;
        weights += weight;
      }
      return own.lately * weights > given * own.weight;
    },
    shared: () => tenants.size > 1,
    shareOf(name, weight) {
      let all = weight;
      for (const [other, tenant] of waiting) if (other !== name) all += tenant.weight;
      return weight / all;
    },
  };
}
