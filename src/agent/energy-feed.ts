// What the devices of each replica have used, read from their nodes a few times a second while something is under way there,
// and seldom else. Nodes know nothing of each other: one that cannot be read leaves the others as they are.
import type { MeterReading } from '../core/meter-window.ts';
import type { AgentAddress } from './connection.ts';
import { type CounterReading, createEnergyCounters, type EnergyCounters } from './energy-counters.ts';
import type { ClockGroup } from './node-control.ts';

export interface EnergyNode {
  readonly name: string;
  readonly kind: 'paceline' | 'zeusd';
  readonly address: AgentAddress;
  readonly groups: readonly ClockGroup[];
}

export interface EnergyFeedOptions {
  readonly nodes: readonly EnergyNode[];
  /** While something is under way on the node, and while nothing is. */
  readonly everyMs: number;
  readonly idleEveryMs: number;
  /** Something of ours is under way on the group's devices, or has ended and waits for a reading. */
  readonly isBusy: (group: ClockGroup['replicaId']) => boolean;
  /** `null`: not all of its devices can be read. */
  readonly onReading: (group: ClockGroup['replicaId'], reading: MeterReading | null) => void;
  /** All that a node's daemon told, whoever's it is. */
  readonly onCounters?: (node: string, counters: ReadonlyMap<string, CounterReading>) => void;
  /** Told at every change: why a group's counters cannot be read, `null` where they are. */
  readonly onState: (group: ClockGroup['replicaId'], why: string | null) => void;
  readonly now: () => number;
}

export interface EnergyFeed {
  close(): Promise<void>;
}

/** A node that does not answer is asked so often: not more, and often enough to say in time that it is out of sight. */
const RETRY_MS = 1_000;

interface Node {
  readonly name: string;
  readonly counters: EnergyCounters;
  readonly groups: readonly CountedGroup[];
  reading: boolean;
  dueAtMs: number;
}

export function createEnergyFeed(options: EnergyFeedOptions): EnergyFeed {
  const { now, everyMs, idleEveryMs } = options;
  const nodes: readonly Node[] = options.nodes.map(({ name, kind, address, groups }) => ({
    name,
    counters: createEnergyCounters(kind, address),
    groups: groups.map(createCountedGroup),
    reading: false,
    dueAtMs: Number.NEGATIVE_INFINITY,
  }));
  const states = new Map<string, string | null>();
  let closed = false;

  function look(): void {
    for (const node of nodes) {
      if (node.reading) continue;
      if (now() >= node.dueAtMs || node.groups.some(({ group, failing }) => !failing() && options.isBusy(group.replicaId))) void read(node);
    }
  }

  async function read(node: Node): Promise<void> {
    node.reading = true;
    try {
      const counters = await node.counters.read();
      if (closed) return;
      options.onCounters?.(node.name, counters);
      for (const counted of node.groups) tell(counted, counted.reading(counters));
      node.dueAtMs = now() + idleEveryMs;
    } catch (error) {
      if (closed) return;
      const why = error instanceof Error ? error.message : String(error);
      for (const counted of node.groups) tell(counted, counted.unread(why));
      node.dueAtMs = now() + RETRY_MS;
    } finally {
      node.reading = false;
    }
  }

  function tell({ group }: CountedGroup, { reading, why }: { readonly reading: MeterReading | null; readonly why: string | null }): void {
    options.onReading(group.replicaId, reading);
    if (states.get(group.replicaId) === why) return;
    states.set(group.replicaId, why);
    options.onState(group.replicaId, why);
  }

  const timer = setInterval(look, everyMs);
  timer.unref();
  look();
  return {
    close: async () => {
      closed = true;
      clearInterval(timer);
      await Promise.all(nodes.map(({ counters }) => counters.close()));
    },
  };
}

interface CountedGroup {
  readonly group: ClockGroup;
  /** It could not be read the last time. */
  failing(): boolean;
  reading(counters: ReadonlyMap<string, CounterReading>): { readonly reading: MeterReading | null; readonly why: string | null };
  unread(why: string): { readonly reading: null; readonly why: string };
}

/** The counters of a group's devices as one. */
export function createCountedGroup(group: ClockGroup): CountedGroup {
  const last = new Map<string, number>();
  let epoch = 1;
  let failing = false;

  function unread(why: string): { readonly reading: null; readonly why: string } {
    failing = true;
    return { reading: null, why };
  }

  return {
    group,
    failing: () => failing,
    unread,
    reading(counters) {
      let energyJ = 0;
      let powerW: number | null = 0;
      for (const device of group.devices) {
        const counter = counters.get(device) ?? { kind: 'unread', why: 'is not there' };
        if (counter.kind === 'unread') return unread(`${device} ${counter.why}`);
        energyJ += counter.sample.energyJ;
        powerW = powerW === null || counter.sample.powerW === null ? null : powerW + counter.sample.powerW;
      }
      // A driver that was reloaded counts from zero again: what it counted before is not known any more.
      const fell = group.devices.some((device) => counterOf(counters, device) < (last.get(device) ?? 0));
      if (fell) epoch += 1;
      for (const device of group.devices) last.set(device, counterOf(counters, device));
      failing = false;
      return { reading: { energyJ, epoch, powerW }, why: null };
    },
  };
}

function counterOf(counters: ReadonlyMap<string, CounterReading>, device: string): number {
  const counter = counters.get(device);
  return counter?.kind === 'read' ? counter.sample.counterMj : 0;
}
