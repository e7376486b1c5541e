// Which replicas may be sent jobs of a model: those that are up and whose breaker lets them, and where it lets none the
// one that has been shut out longest, for refusing everything ourselves would be worse than to try.
import type { JobId, ReplicaId } from '../core/job.ts';
import type { PendingJob } from '../core/tracked-job.ts';
import { isAwake, isUnneeded, type Rest } from './rest.ts';

/** As the scheduler sees it. `trial`: the job that tries a half-open one. */
export type Breaker =
  | { readonly kind: 'closed' }
  | { readonly kind: 'open'; readonly sinceMs: number }
  | { readonly kind: 'half-open'; readonly trial: JobId | null };

/** What is asked of a replica; the scheduler changes it, and then says so. */
export interface Servant {
  readonly spec: { readonly replicaId: ReplicaId; readonly models: readonly string[] };
  readonly state: 'up' | 'draining' | 'down';
  /** Its health was told once: whether it is up is not just unknown yet. */
  readonly isHeard: boolean;
  /** It is to be taken out of the fleet; `null`: it stays. */
  readonly leaving: object | null;
  readonly breaker: Breaker;
  /** Absent or `null`: its server never sleeps. */
  readonly rest?: Rest | null;
}

export interface Serving<Replica extends Servant> {
  /** Whether it may have the job now, room aside. */
  may(replica: Replica, job: Pick<PendingJob, 'spec' | 'avoid'>): boolean;
  /** Replicas that jobs of a model go to: those that are needed, or all that are awake, or those that can be woken. */
  count(model: string): number;
  /** Somebody who sleeps, or is about to wake, could have it. */
  mayLater(job: Pick<PendingJob, 'spec' | 'avoid'>): boolean;
  /** Jobs are kept from it: for each of its models there are others. */
  isSpared(replica: Replica): boolean;
  /** Those of a model that leave serve it until one that stays is heard of. */
  isBridged(model: string): boolean;
  /** Some replica came, went, or has another breaker. */
  changed(): void;
}

/** Those of one model that are up and not to be avoided. */
interface Standing<Replica> {
  readonly closed: number;
  /** Of them, those that the others are not enough without. */
  readonly needed: number;
  readonly halfOpen: number;
  readonly longestOpen: Replica | null;
  /** Up, and not awake. */
  readonly asleep: number;
}

export function createServing<Replica extends Servant>(replicas: readonly Replica[]): Serving<Replica> {
  /** Emptied whenever something changes. */
  const byModel = new Map<string, Standing<Replica>>();
  const bridged = new Map<string, boolean>();

  /** Of a model whose replicas are all replaced at once: nobody has heard yet of any that comes, so those that go serve for that long. */
  function isBridged(model: string): boolean {
    const known = bridged.get(model);
    if (known !== undefined) return known;
    const staying = replicas.filter((replica) => replica.leaving === null && replica.spec.models.includes(model));
    const is = staying.some(({ isHeard }) => !isHeard) && !staying.some(({ state }) => state === 'up');
    bridged.set(model, is);
    return is;
  }

  function isUp({ state, leaving, spec }: Servant, model: string, avoid: readonly ReplicaId[] | undefined): boolean {
    return state === 'up' && spec.models.includes(model) && (leaving === null || isBridged(model)) && !avoid?.includes(spec.replicaId);
  }

  function standingOf(model: string, avoid: readonly ReplicaId[] | undefined): Standing<Replica> {
    const known = avoid === undefined ? byModel.get(model) : undefined;
    if (known !== undefined) return known;
    let closed = 0;
    let needed = 0;
    let asleep = 0;
    let halfOpen = 0;
    let longestOpen: { readonly replica: Replica; readonly sinceMs: number } | null = null;
    for (const replica of replicas) {
      if (!isUp(replica, model, avoid)) continue;
      const { breaker, rest = null } = replica;
      if (!isAwake({ rest })) {
        if (rest?.kind !== 'lost') asleep += 1;
        continue;
      }
      if (breaker.kind === 'closed') {
        closed += 1;
        if (!isUnneeded({ rest })) needed += 1;
      }
      else if (breaker.kind === 'half-open') halfOpen += 1;
      else if (longestOpen === null || breaker.sinceMs < longestOpen.sinceMs) longestOpen = { replica, sinceMs: breaker.sinceMs };
    }
    const standing = { closed, needed, halfOpen, longestOpen: longestOpen?.replica ?? null, asleep };
    if (avoid === undefined) byModel.set(model, standing);
    return standing;
  }

  return {
    may(replica, { spec: { model }, avoid }) {
      if (!isUp(replica, model, avoid) || !isAwake({ rest: replica.rest ?? null })) return false;
      const { breaker } = replica;
      if (breaker.kind === 'closed') return true;
      const { closed, halfOpen, longestOpen } = standingOf(model, avoid);
      if (closed > 0) return breaker.kind === 'half-open' && breaker.trial === null;
      return breaker.kind === 'half-open' || (halfOpen === 0 && longestOpen === replica);
    },
    count(model) {
      const { closed, needed, halfOpen, longestOpen, asleep } = standingOf(model, undefined);
      if (closed > 0) return needed > 0 ? needed : closed;
      if (halfOpen > 0) return halfOpen;
      return longestOpen === null ? asleep : 1;
    },
    mayLater: ({ spec: { model }, avoid }) => standingOf(model, avoid).asleep > 0,
    isBridged,
    isSpared: (replica) => replica.breaker.kind !== 'closed' && replica.spec.models.every((model) => standingOf(model, undefined).closed > 0),
    changed: () => {
      byModel.clear();
      bridged.clear();
    },
  };
}
