// Whether a replica's server sleeps, and which of them should: looked over now and then for all that could stand in for each other.
import { type AwakePlan, planAwake, type ReplicaKind } from '../core/awake-plan.ts';
import { pricedUnder } from '../core/corrections.ts';
import { breakEvenMs, wakePowerW } from '../core/sleep-worth.ts';
import { parkedPowerW } from '../core/work-energy.ts';
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { PowerLimitedModel } from '../frontier/power-limited.ts';
import type { SleepCosts } from '../frontier/profile.ts';
import type { Effect } from './events.ts';
import type { FleetDemand } from './fleet-demand.ts';
import type { PowerLimits } from './power-limits.ts';
import type { Replica } from './replica.ts';

/** Of a replica that can sleep. `unneededSinceMs`: the others have been enough for so long, and it gets no jobs that they can have. */
export type Rest =
  | { readonly kind: 'awake'; readonly unneededSinceMs: number | null }
  | { readonly kind: 'falling-asleep'; readonly sinceMs: number }
  | { readonly kind: 'asleep'; readonly sinceMs: number }
  | { readonly kind: 'waking'; readonly sinceMs: number }
  /** It was asked to wake and has not: it counts as down, and is asked again now and then. */
  | { readonly kind: 'lost'; readonly sinceMs: number };

export interface Resting {
  /** At every tick; looks them over as often as is worth it. */
  tick(nowMs: number): readonly Effect[];
  /** A job of the model has come and found nobody awake. */
  called(model: string, nowMs: number): readonly Effect[];
  /** As its server says. */
  told(replica: Replica, state: 'awake' | 'asleep' | 'cannot' | 'lost', nowMs: number): void;
  /** Its server was away, and nobody knows yet how it came back. */
  away(replica: Replica, nowMs: number): void;
  /** It was sent a job after all. */
  needed(replica: Replica): void;
}

export interface RestingOptions {
  readonly replicas: readonly Replica[];
  readonly fleet: Pick<FleetDemand, 'loadOf'>;
  /** Replicas that could share their models' jobs are never fewer awake than this; 0: all of them may sleep. */
  readonly awakeMin: number;
  /** Jobs on a replica. */
  readonly loadOf: (replica: Replica) => number;
  /** Jobs of a model that have no place. */
  readonly placesWanted: (model: string) => number;
  /** What is known of power budgets; absent: there are none. */
  readonly power?: Pick<PowerLimits, 'isClosed' | 'mayWake' | 'limitOf'>;
  /** Some replica may be sent jobs that could not be before, or the other way round. */
  readonly onChange: () => void;
}

/** Arrivals move over seconds, and a plan of many replicas takes a millisecond. */
const LOOK_EVERY_MS = 1_000;

/** A server that has not done what it was asked to within so many times what that should take, and this much more, does not do it. */
const PATIENCE = { times: 3, moreMs: 5_000 };

/** Other replicas than those that are awake, and enough, are taken only where that spares so much of the power, and for long enough to have paid. */
const BETTER_SHARE = 0.95;

/** Nobody is let go where sleep itself would spare less of the power than this: routing fills some replicas and parks the others without being told. */
const SPARED_SHARE_MIN = 0.01;

export function isAwake({ rest }: Pick<Replica, 'rest'>): boolean {
  return rest === null || rest.kind === 'awake';
}

/** It is awake, and the others are enough without it. */
export function isUnneeded({ rest }: Pick<Replica, 'rest'>): boolean {
  return rest?.kind === 'awake' && rest.unneededSinceMs !== null;
}

export function createResting({ replicas, fleet, awakeMin, loadOf, placesWanted, power, onChange }: RestingOptions): Resting {
  let lookedAtMs = Number.NEGATIVE_INFINITY;
  /** By models: since when another set than the one that is awake would be better. Bounded by what is configured. */
  const betterSince = new Map<string, number>();
  /** Models of which a job has come and nobody could be woken yet. Bounded by what is configured. */
  const calling = new Set<string>();

  function move(replica: Replica, rest: Rest | null, nowMs: number): void {
    const before = replica.rest;
    replica.rest = rest;
    if (before?.kind === rest?.kind && isUnneeded({ rest: before }) === isUnneeded(replica)) return;
    replica.energy?.rests(drawnW(replica), nowMs);
    onChange();
  }

  function wake(replica: Replica, nowMs: number): Effect {
    move(replica, { kind: 'waking', sinceMs: nowMs }, nowMs);
    return { kind: 'wake', replicaId: replica.spec.replicaId };
  }

  /** Where a power budget has no room for it, it sleeps on. */
  function wakeIfRoom(replica: Replica, nowMs: number): Effect[] {
    return power === undefined || power.mayWake(replica, nowMs) ? [wake(replica, nowMs)] : [];
  }

  /** A power budget has nothing left for it: it gets no jobs, and so is nobody's spare. */
  function isClosed(replica: Replica): boolean {
    return power?.isClosed(replica) === true && replica.rest?.kind !== 'asleep';
  }

  function look(nowMs: number): Effect[] {
    lookedAtMs = nowMs;
    const staying = replicas.filter(({ state, leaving, breaker }) => state === 'up' && leaving === null && breaker.kind === 'closed');
    const effects: Effect[] = [];
    for (const [key, pool] of Map.groupBy(staying, ({ spec }) => spec.models.toSorted().join('\n'))) {
      if (pool.some(({ rest }) => rest !== null)) effects.push(...lookAt(key, pool, nowMs));
    }
    return effects;
  }

  function lookAt(key: string, pool: readonly Replica[], nowMs: number): Effect[] {
    const effects: Effect[] = [];
    const [closed, open] = [pool.filter(isClosed), pool.filter((replica) => !isClosed(replica))];
    for (const replica of closed) if (replica.rest?.kind === 'awake' && !isUnneeded(replica)) move(replica, { kind: 'awake', unneededSinceMs: nowMs }, nowMs);
    const kinds = kindsOf(open, (replica) => power?.limitOf(replica) ?? Number.POSITIVE_INFINITY);
    const wanted = open.length === 0 ? [] : wantedOf(key, open, kinds, nowMs);
    for (const [index, { members }] of kinds.entries()) effects.push(...adjust(members, wanted[index] as number, nowMs));
    for (const replica of pool) effects.push(...restIfWorth(replica, nowMs));
    return effects;
  }

  /** How many of each kind should be awake: of those that are, where they are enough, unless others have been better for as long as waking them takes to pay. */
  function wantedOf(key: string, pool: readonly Replica[], kinds: readonly Kind[], nowMs: number): readonly number[] {
    const load = fleet.loadOf((pool[0] as Replica).spec.models, Math.max(...pool.map(({ spec }) => spec.sleep?.wakeMs ?? 0)), nowMs);
    const all = planAwake(kinds, load, awakeMin);
    const there = kinds.map(({ members }) => members.filter(isPresent).length);
    const ofThose = planAwake(kinds.map((kind, index) => ({ ...kind, replicas: there[index] as number })), load, awakeMin);
    const sparedW = kinds.reduce((sum, { priced, sleepPowerW }, index) => sum + ((there[index] as number) - (ofThose.awake[index] as number)) * Math.max(0, parkedPowerW(priced) - sleepPowerW), 0);
    const present = sparedW < SPARED_SHARE_MIN * ofThose.powerW ? { ...ofThose, awake: there } : ofThose;
    const enough = present.sustains && present.awake.reduce((sum, count) => sum + count, 0) >= awakeMin;
    if (!enough) {
      betterSince.delete(key);
      return all.awake;
    }
    if (all.powerW >= BETTER_SHARE * presentPowerW(present, kinds)) {
      betterSince.delete(key);
      return present.awake;
    }
    const since = betterSince.get(key) ?? nowMs;
    betterSince.set(key, since);
    const worthMs = Math.max(...pool.flatMap((replica) => (replica.spec.sleep === undefined ? [] : [breakEvenOf(replica, replica.spec.sleep)])));
    if (nowMs - since < worthMs) return present.awake;
    betterSince.delete(key);
    return all.awake;
  }

  function adjust(members: readonly Replica[], wanted: number, nowMs: number): Effect[] {
    const present = members.filter(isPresent);
    if (present.length < wanted) {
      for (const replica of present) if (isUnneeded(replica)) move(replica, { kind: 'awake', unneededSinceMs: null }, nowMs);
      return members
        .filter(({ rest }) => rest?.kind === 'asleep')
        .slice(0, wanted - present.length)
        .flatMap((replica) => wakeIfRoom(replica, nowMs));
    }
    // Those that are let go already stay so, and then those with the least to do; of equals the last, so that the first fill up.
    const byNeed = present
      .filter(({ rest }) => rest?.kind === 'awake')
      .toSorted((a, b) => Number(isUnneeded(b)) - Number(isUnneeded(a)) || loadOf(a) + a.queue.foreignCount() - loadOf(b) - b.queue.foreignCount() || b.index - a.index);
    for (const [place, replica] of byNeed.entries()) {
      if (replica.rest?.kind !== 'awake') continue;
      const unneeded = place < present.length - wanted;
      if (unneeded !== isUnneeded(replica)) move(replica, { kind: 'awake', unneededSinceMs: unneeded ? nowMs : null }, nowMs);
    }
    return [];
  }

  function restIfWorth(replica: Replica, nowMs: number): Effect[] {
    const { rest, spec, queue } = replica;
    if (rest?.kind !== 'awake' || rest.unneededSinceMs === null || spec.sleep === undefined) return [];
    if (loadOf(replica) > 0 || queue.foreignCount() > 0 || (!isClosed(replica) && spec.models.some((model) => placesWanted(model) > 0))) return [];
    if (nowMs - rest.unneededSinceMs < breakEvenOf(replica, spec.sleep)) return [];
    move(replica, { kind: 'falling-asleep', sinceMs: nowMs }, nowMs);
    return [{ kind: 'sleep', replicaId: spec.replicaId }];
  }

  /** Who should have slept or woken by now is woken again; one that was to wake counts as lost until it has. */
  function overdue(nowMs: number): Effect[] {
    return replicas.flatMap((replica) => {
      const { rest, spec } = replica;
      if (rest === null || rest.kind === 'awake' || rest.kind === 'asleep' || spec.sleep === undefined) return [];
      const shouldTakeMs = rest.kind === 'falling-asleep' ? spec.sleep.sleepMs : spec.sleep.wakeMs;
      if (nowMs - rest.sinceMs < PATIENCE.times * shouldTakeMs + PATIENCE.moreMs) return [];
      if (rest.kind === 'falling-asleep') return [wake(replica, nowMs)];
      move(replica, { kind: 'lost', sinceMs: nowMs }, nowMs);
      return [{ kind: 'wake', replicaId: spec.replicaId } as const];
    });
  }

  /** As many as it takes until those on their way have places for all that want one. */
  function wakeFor(model: string, wantedPlaces: number, nowMs: number): Effect[] {
    const pool = replicas.filter(({ state, spec, leaving }) => state === 'up' && leaving === null && spec.models.includes(model));
    let coming = pool.reduce((sum, { rest, spec }) => sum + (rest?.kind === 'waking' ? spec.concurrencyMax : 0), 0);
    const effects: Effect[] = [];
    for (const replica of pool.filter(({ rest }) => rest?.kind === 'asleep').toSorted((a, b) => (a.spec.sleep?.wakeMs ?? 0) - (b.spec.sleep?.wakeMs ?? 0))) {
      if (coming >= wantedPlaces) break;
      effects.push(...wakeIfRoom(replica, nowMs));
      coming += replica.spec.concurrencyMax;
    }
    return effects;
  }

  function called(model: string, nowMs: number): Effect[] {
    const effects = wakeFor(model, 1, nowMs);
    if (replicas.some((replica) => replica.spec.models.includes(model) && isPresent(replica))) calling.delete(model);
    else calling.add(model);
    return effects;
  }

  return {
    tick(nowMs) {
      const effects: Effect[] = overdue(nowMs);
      const sleepers = replicas.filter(({ rest }) => rest?.kind === 'asleep');
      for (const model of new Set(sleepers.flatMap(({ spec }) => spec.models))) if (placesWanted(model) > 0) effects.push(...wakeFor(model, placesWanted(model), nowMs));
      for (const model of calling) effects.push(...called(model, nowMs));
      if (nowMs - lookedAtMs >= LOOK_EVERY_MS) effects.push(...look(nowMs));
      return effects;
    },
    called,
    told(replica, state, nowMs) {
      if (state === 'cannot') move(replica, null, nowMs);
      else if (state === 'awake') move(replica, { kind: 'awake', unneededSinceMs: null }, nowMs);
      else move(replica, { kind: state, sinceMs: nowMs }, nowMs);
    },
    away(replica, nowMs) {
      if (replica.rest !== null) move(replica, { kind: 'awake', unneededSinceMs: null }, nowMs);
    },
    needed(replica) {
      if (!isUnneeded(replica)) return;
      replica.rest = { kind: 'awake', unneededSinceMs: null };
      onChange();
    },
  };
}

interface Kind extends ReplicaKind {
  readonly members: readonly Replica[];
}

/** Awake, or about to be. */
function isPresent({ rest }: Replica): boolean {
  return rest === null || rest.kind === 'awake' || rest.kind === 'waking';
}

/**
 * In the order of their first members. Times and joules are as learnt of the first. Under power limits all of a kind count as the slower machine that the
 * one of them with the middle limit is: limits change with each control period, and a kind for each would be too many to look through.
 */
function kindsOf(pool: readonly Replica[], limitOf: (replica: Replica) => number): readonly Kind[] {
  const byBelief = new Map<PerformanceModel, Map<number, Replica[]>>();
  for (const replica of pool) {
    const { belief } = replica.spec;
    const concurrencyMax = placesOf(replica);
    const byPlaces = byBelief.get(belief) ?? new Map<number, Replica[]>();
    byBelief.set(belief, byPlaces);
    byPlaces.set(concurrencyMax, [...(byPlaces.get(concurrencyMax) ?? []), replica]);
  }
  return [...byBelief.values()].flatMap((byPlaces) =>
    [...byPlaces.values()].map((members): Kind => {
      const [{ spec, queue }] = members as [Replica, ...Replica[]];
      const { time, priced } = queue.corrections;
      const awake = members.filter(isAwake).toSorted((a, b) => limitOf(a) - limitOf(b));
      const model = awake[Math.floor((awake.length - 1) / 2)]?.queue.model() ?? spec.belief;
      return {
        members,
        model,
        timeScale: time,
        priced: 'heldAt' in model ? pricedUnder(priced, model as PowerLimitedModel) : priced,
        sequencesMax: placesOf(members[0] as Replica),
        replicas: members.length,
        alwaysAwake: members.filter(({ rest }) => rest === null).length,
        sleepPowerW: members.find(({ spec: own }) => own.sleep !== undefined)?.spec.sleep?.powerW ?? 0,
      };
    }),
  );
}

/** What it may be sent at once for good. */
function placesOf({ spec, batchCap }: Replica): number {
  return Math.min(spec.concurrencyMax, batchCap);
}

/** Of the plan for those that are present, with what the others draw asleep. */
function presentPowerW({ powerW }: AwakePlan, kinds: readonly Kind[]): number {
  return powerW + kinds.reduce((sum, { members, sleepPowerW }) => sum + members.filter((replica) => !isPresent(replica)).length * sleepPowerW, 0);
}

function breakEvenOf({ spec: { belief }, queue }: Replica, sleep: SleepCosts): number {
  const { priced } = queue.corrections;
  return breakEvenMs(sleep, parkedPowerW(priced), priced.idlePowerW(belief.fastest));
}

/** What it is believed to draw instead of idling; `null`: it idles. */
function drawnW({ rest, spec, queue }: Replica): number | null {
  if (rest === null || spec.sleep === undefined) return null;
  switch (rest.kind) {
    case 'asleep':
    case 'lost':
      return spec.sleep.powerW;
    case 'waking':
      return wakePowerW(spec.sleep, queue.corrections.priced.idlePowerW(spec.belief.fastest));
    case 'awake':
    case 'falling-asleep':
      return null;
    default:
      return rest satisfies never;
  }
}
