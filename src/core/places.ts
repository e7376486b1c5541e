// Who has the places on the servers? A tenant that has far more than its share of them leaves some free on each, so that
// another one that was here lately finds room when it comes back, however long the answers of the first are.

export interface Places {
  took(tenant: string, weight: number, nowMs: number): void;
  gave(tenant: string): void;
  /** Of `room` places on a replica, so many are not for this tenant now. Never all of them. */
  keptFrom(tenant: string, room: number, nowMs: number): number;
}

interface Holder {
  weight: number;
  jobs: number;
  lastAtMs: number;
}

/** Of a replica's room, for others than those that have the most. */
const KEPT_SHARE = 0.1;
/** Above its share by so much a tenant has to leave room. Not at once: shares are the queue's to keep, and one job more or less is much to a small tenant. */
const FAR_ABOVE = 1.25;
/** A tenant that has not been here for so long is not waited for. */
const REMEMBERED_MS = 600_000;

/** Of one model. Tenants come from the configuration, so that there are no more than it names. */
export function createPlaces(): Places {
  const holders = new Map<string, Holder>();
  let jobs = 0;

  return {
    took(tenant, weight, nowMs) {
      const holder = holders.get(tenant);
      if (holder === undefined) holders.set(tenant, { weight, jobs: 1, lastAtMs: nowMs });
      else Object.assign(holder, { weight, jobs: holder.jobs + 1, lastAtMs: nowMs });
      jobs += 1;
    },
    gave(tenant) {
      const holder = holders.get(tenant);
      if (holder === undefined) return;
      holder.jobs -= 1;
      jobs -= 1;
    },
    keptFrom(tenant, room, nowMs) {
      const own = holders.get(tenant);
      if (own === undefined || own.jobs === 0 || holders.size < 2) return 0;
      let weights = own.weight;
      let others = false;
      for (const [name, { weight, lastAtMs, jobs: has }] of holders) {
        if (name === tenant || (has === 0 && nowMs - lastAtMs > REMEMBERED_MS)) continue;
        others = true;
        weights += weight;
      }
      if (!others || own.jobs * weights <= FAR_ABOVE * jobs * own.weight) return 0;
      return Math.min(room - 1, Math.ceil(KEPT_SHARE * room));
    },
  };
}
