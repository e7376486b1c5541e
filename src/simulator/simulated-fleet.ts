// The modelled machines of a run on virtual time: emulated replicas, each looked at only when something happens there, so
// that a replica in the middle of a thousand equal steps costs nothing, and a thousand replicas little more than one.
import type { JobId, ReplicaId } from '../core/job.ts';
import type { EngineEvent, EngineRequest, Submission } from '../engine/batching.ts';
import { createIndexedHeap, type HeapItem } from '../engine/indexed-heap.ts';
import type { EmulatedReplica } from '../engine/replica.ts';
import { wakePowerW } from '../core/sleep-worth.ts';
import type { SleepCosts } from '../frontier/profile.ts';

/** What the devices of a replica are to be set to; `null`: default clocks. */
export interface Setting {
  readonly clockMhz: number | null;
  readonly pointId: string | null;
  /** Watts of the whole group, in equal parts on its devices; `null`: no limit; absent: it stays as it is. */
  readonly powerLimitW?: number | null;
}

/** What a machine brought: a request's first token, any further one (where the engine tells of each), or its end. */
export interface Brought {
  readonly replicaId: ReplicaId;
  readonly jobId: JobId;
  readonly finished: boolean;
  readonly outputTokens: number;
  readonly cachedTokens: number;
}

/** What a replica's devices have been set to. */
export interface Applied {
  readonly replicaId: ReplicaId;
  readonly pointId: string | null;
  readonly powerLimitW?: number | null;
}

/** A server that fell asleep, or woke. */
export interface Rested {
  readonly replicaId: ReplicaId;
  readonly state: 'asleep' | 'awake';
}

/** Time never goes back from call to call. */
export interface SimulatedFleet {
  /** Nothing happens by itself before this instant; `Infinity` when all is idle and settled. */
  nextAtMs(): number;
  /** Lets all that is due by then happen; it must be no later than `nextAtMs()`. */
  advanceTo(nowMs: number): { readonly brought: readonly Brought[]; readonly applied: readonly Applied[]; readonly rested: readonly Rested[] };
  submit(replicaId: ReplicaId, request: EngineRequest<JobId>, nowMs: number): Submission;
  /** The latest demand wins over one that has not been applied yet. */
  set(replicaId: ReplicaId, setting: Setting, atMs: number): void;
  /** Its server is put to sleep, or woken, as its profile says that this goes; when it has gone so, `advanceTo` tells. */
  rest(replicaId: ReplicaId, to: 'asleep' | 'awake', nowMs: number): void;
  /** At once, whatever is on its way: watts of each group. */
  limitPower(replicaId: ReplicaId, watts: number | null, nowMs: number): void;
  /** Output tokens of streams there that were not handed out before, and when the last of them came. */
  newTokens(replicaId: ReplicaId, nowMs: number, each: (jobId: JobId, tokens: number, lastAtMs: number) => void): void;
  /** The same of one stream, of which the machine has just told; how many. */
  takeTokens(told: Brought): number;
  /** Of one replica's devices as their counters show it, which move about every 100 ms. */
  meterJ(replicaId: ReplicaId, nowMs: number): number;
  busyMs(replicaId: ReplicaId, nowMs: number): number;
  /** Over all replicas, up to `nowMs`. */
  totals(nowMs: number): DoneByReplicas;
  /** Of each replica by itself, in the order in which the fleet was made, up to `nowMs`. */
  each(nowMs: number): readonly DoneByReplicas[];
}

export interface DoneByReplicas {
  readonly energyJ: number;
  readonly busyMs: number;
  /** Clock times time. */
  readonly clockMhzMs: number;
}

interface FleetReplica extends HeapItem {
  readonly index: number;
  readonly replicaId: ReplicaId;
  readonly machine: EmulatedReplica<JobId>;
  /** A setting on its way to the devices. */
  pending: (Setting & { readonly atMs: number }) | null;
  /** Its server is on its way to sleep, or to wake. */
  resting: { readonly to: 'asleep' | 'awake'; readonly atMs: number } | null;
  /** When something next happens here. */
  nextAtMs: number;
  /** Tokens handed out of each request that has its first. */
  readonly handedOut: Map<JobId, number>;
  clockMhzMs: number;
  busyMs: number;
  seenAtMs: number;
}

/** `create` is given what to deliver to, because events must be known by their replica. `sleepOf`: what sleeping takes there, in truth. `onPower`: told of each replica's draw whenever it may have changed. */
export function createSimulatedFleet(
  replicaIds: readonly ReplicaId[],
  sleepOf: (index: number) => SleepCosts,
  create: (index: number, deliver: (events: readonly EngineEvent<JobId>[]) => void) => EmulatedReplica<JobId>,
  onPower?: (replicaId: ReplicaId, powerW: number, nowMs: number) => void,
): SimulatedFleet {
  const brought: Brought[] = [];
  const applied: Applied[] = [];
  const rested: Rested[] = [];
  const byNext = createIndexedHeap<FleetReplica>((a, b) => a.nextAtMs < b.nextAtMs || (a.nextAtMs === b.nextAtMs && a.index < b.index));
  const replicas = replicaIds.map((replicaId, index): FleetReplica => {
    const machine = create(index, (events) => {
      for (const { kind, id, outputTokens, cachedTokens } of events) brought.push({ replicaId, jobId: id, finished: kind === 'finished', outputTokens, cachedTokens });
    });
    return { index, replicaId, machine, pending: null, resting: null, nextAtMs: machine.nextEventAtMs(), handedOut: new Map(), clockMhzMs: 0, busyMs: 0, seenAtMs: 0, heapSlot: -1 };
  });
  const byId = new Map(replicas.map((replica) => [replica.replicaId, replica]));
  for (const replica of replicas) byNext.push(replica);
  if (onPower !== undefined) for (const { replicaId, machine } of replicas) onPower(replicaId, machine.powerW(), 0);

  /** Clock and load of a machine only change where something happens there, so what passed since is all alike. */
  function bringTo(replica: FleetReplica, nowMs: number): void {
    const { machine } = replica;
    const passedMs = nowMs - replica.seenAtMs;
    if (passedMs > 0) {
      replica.clockMhzMs += machine.clockMhz() * passedMs;
      if (machine.busy()) replica.busyMs += passedMs;
      replica.seenAtMs = nowMs;
    }
    machine.advanceTo(nowMs);
  }
  function placeInOrder(replica: FleetReplica): void {
    const nextAtMs = Math.min(replica.machine.nextEventAtMs(), replica.pending?.atMs ?? Number.POSITIVE_INFINITY, replica.resting?.atMs ?? Number.POSITIVE_INFINITY);
    if (nextAtMs === replica.nextAtMs) return;
    byNext.remove(replica);
    replica.nextAtMs = nextAtMs;
    byNext.push(replica);
  }
  function of(replicaId: ReplicaId): FleetReplica {
    return byId.get(replicaId) as FleetReplica;
  }

  function limit({ machine }: FleetReplica, watts: number | null, nowMs: number): void {
    for (let device = 0; device < machine.devices; device++) machine.limitPower(device, watts === null ? null : watts / machine.devices, nowMs);
  }

  function apply(replica: FleetReplica, { clockMhz, pointId, powerLimitW }: Setting, nowMs: number): void {
    const { machine, replicaId } = replica;
    replica.pending = null;
    const lowestMhz = machine.clockListMhz[0] as number;
    for (let device = 0; device < machine.devices; device++) machine.lock(device, clockMhz === null ? null : { minMhz: lowestMhz, maxMhz: clockMhz }, nowMs);
    if (powerLimitW !== undefined) limit(replica, powerLimitW, nowMs);
    applied.push({ replicaId, pointId, ...(powerLimitW === undefined ? {} : { powerLimitW }) });
  }

  /** Asleep it draws what its profile says; awake it idles again. */
  function settle(replica: FleetReplica, to: 'asleep' | 'awake', nowMs: number): void {
    replica.resting = null;
    replica.machine.rest(to === 'asleep' ? sleepOf(replica.index).powerW : null, nowMs);
    rested.push({ replicaId: replica.replicaId, state: to });
  }

  return {
    nextAtMs: () => byNext.first()?.nextAtMs ?? Number.POSITIVE_INFINITY,
    advanceTo(nowMs) {
      brought.length = 0;
      applied.length = 0;
      rested.length = 0;
      for (let replica = byNext.first(); replica !== undefined && replica.nextAtMs <= nowMs; replica = byNext.first()) {
        bringTo(replica, nowMs);
        if (replica.pending !== null && replica.pending.atMs <= nowMs) apply(replica, replica.pending, nowMs);
        if (replica.resting !== null && replica.resting.atMs <= nowMs) settle(replica, replica.resting.to, nowMs);
        placeInOrder(replica);
        onPower?.(replica.replicaId, replica.machine.powerW(), nowMs);
      }
      return { brought, applied, rested };
    },
    submit(replicaId, request, nowMs) {
      const replica = of(replicaId);
      bringTo(replica, nowMs);
      const submission = replica.machine.submit(request, nowMs);
      placeInOrder(replica);
      onPower?.(replicaId, replica.machine.powerW(), nowMs);
      return submission;
    },
    set(replicaId, setting, atMs) {
      const replica = of(replicaId);
      const { pending } = replica;
      // A limit that is on its way is not put off by the next demand, however soon that comes.
      replica.pending = pending?.powerLimitW === undefined ? { ...setting, atMs } : { powerLimitW: pending.powerLimitW, ...setting, atMs: Math.min(pending.atMs, atMs) };
      placeInOrder(replica);
    },
    limitPower(replicaId, watts, nowMs) {
      const replica = of(replicaId);
      bringTo(replica, nowMs);
      limit(replica, watts, nowMs);
      placeInOrder(replica);
      onPower?.(replicaId, replica.machine.powerW(), nowMs);
    },
    rest(replicaId, to, nowMs) {
      const replica = of(replicaId);
      const { machine } = replica;
      const sleep = sleepOf(replica.index);
      bringTo(replica, nowMs);
      // Falling asleep it idles still; loading, it draws what that takes.
      if (to === 'awake') machine.rest(wakePowerW(sleep, machine.idlePowerW(machine.clockListMhz.at(-1) as number)), nowMs);
      replica.resting = { to, atMs: nowMs + (to === 'awake' ? sleep.wakeMs : sleep.sleepMs) };
      placeInOrder(replica);
      onPower?.(replicaId, machine.powerW(), nowMs);
    },
    newTokens(replicaId, nowMs, each) {
      const { handedOut, machine } = of(replicaId);
      if (handedOut.size === 0) return;
      bringTo(of(replicaId), nowMs);
      const lastAtMs = machine.lastStepAtMs();
      for (const [jobId, known] of handedOut) {
        const tokens = (machine.outputTokensOf(jobId) ?? known) - known;
        if (tokens <= 0) continue;
        handedOut.set(jobId, known + tokens);
        each(jobId, tokens, lastAtMs);
      }
    },
    takeTokens({ replicaId, jobId, outputTokens, finished }) {
      const { handedOut } = of(replicaId);
      const tokens = outputTokens - (handedOut.get(jobId) ?? 0);
      if (finished) handedOut.delete(jobId);
      else handedOut.set(jobId, outputTokens);
      return tokens;
    },
    meterJ(replicaId, nowMs) {
      const { machine } = of(replicaId);
      bringTo(of(replicaId), nowMs);
      let energyJ = 0;
      for (let device = 0; device < machine.devices; device++) energyJ += machine.reading(device).tickEnergyJ;
      return energyJ;
    },
    busyMs(replicaId, nowMs) {
      bringTo(of(replicaId), nowMs);
      return of(replicaId).busyMs;
    },
    totals(nowMs) {
      const sums = { energyJ: 0, busyMs: 0, clockMhzMs: 0 };
      for (const replica of replicas) {
        bringTo(replica, nowMs);
        sums.energyJ += replica.machine.energyJ();
        sums.busyMs += replica.busyMs;
        sums.clockMhzMs += replica.clockMhzMs;
      }
      return sums;
    },
    each(nowMs) {
      return replicas.map((replica) => {
        bringTo(replica, nowMs);
        return { energyJ: replica.machine.energyJ(), busyMs: replica.busyMs, clockMhzMs: replica.clockMhzMs };
      });
    },
  };
}
