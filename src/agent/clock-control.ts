// The clocks of all replicas: each demand goes to the node where its replica lives. A node keeps its own connection,
// lease and retries, so that one that is lost disturbs no other.
import { isDeepStrictEqual } from 'node:util';
import type { ReplicaId } from '../core/job.ts';
import { unreachable } from '../core/unreachable.ts';
import type { AgentAddress } from './connection.ts';
import { createLeaseControl } from './lease-control.ts';
import type { ClockDemand, ClockGroup, NodeControl, NodeOptions, NodeState } from './node-control.ts';
import type { PowerLimitState } from './power-limits.ts';
import { createZeusdControl } from './zeusd-control.ts';

interface NodeCommon {
  readonly name: string;
  readonly address: AgentAddress;
  readonly groups: readonly ClockGroup[];
}
export type ClockNode = NodeCommon & ({ readonly kind: 'paceline'; readonly ttlMs: number } | { readonly kind: 'zeusd'; readonly watchdogMs: number; readonly lowestClockMhz: number | null });

export interface ClockControlOptions extends Pick<NodeOptions, 'holder' | 'now' | 'onControl' | 'onLimit' | 'onWarning'> {
  readonly nodes: readonly ClockNode[];
  readonly onState?: (node: string, state: NodeState, why: string) => void;
}

/** What all nodes have in common, or `partial`: some follow and some do not. */
export type ClockControlState = NodeState | 'partial';

export interface NodeStatus {
  readonly kind: ClockNode['kind'];
  readonly state: NodeState;
  readonly why: string;
  /** Of the devices, beside their clocks. */
  readonly powerLimits: PowerLimitState;
}

export interface ClockControl {
  demand(demand: ClockDemand): void;
  state(): ClockControlState;
  nodes(): ReadonlyMap<string, NodeStatus>;
  /**
   * These are all from now on. A node that is as it was is not disturbed; one that is gone or has other replicas gives its devices back, and what it
   * drives from now on it leases anew.
   */
  change(nodes: readonly ClockNode[]): void;
  /** Gives everything back and resolves when the devices are at default clocks, or cannot be asked. */
  close(): Promise<void>;
}

export function createClockControl(options: ClockControlOptions): ClockControl {
  const { holder, now, onControl, onLimit } = options;
  const statuses = new Map<string, Omit<NodeStatus, 'powerLimits'>>();
  const byReplica = new Map<ReplicaId, NodeControl>();
  const open = new Map<string, OpenNode>();
  /** Of nodes that give their devices back; who drives the same ones anew waits for it. */
  const closing = new Map<string, Promise<void>>();
  let wanted: ReadonlyMap<string, ClockNode> = new Map();
  let closed = false;

  function openOne(node: ClockNode): void {
    statuses.set(node.name, { kind: node.kind, state: 'connecting', why: 'starting' });
    const given = { back: false };
    const control = openNode(node, {
      holder,
      groups: node.groups,
      now,
      onControl,
      onLimit,
      onState: (state, why) => {
        if (given.back) return;
        statuses.set(node.name, { kind: node.kind, state, why });
        options.onState?.(node.name, state, why);
      },
      onWarning: (message) => options.onWarning(open.size > 1 ? `agent ${node.name}: ${message}` : message),
    });
    open.set(node.name, { node, control, given });
    for (const { replicaId } of node.groups) byReplica.set(replicaId, control);
  }

  function closeOne(name: string): void {
    const known = open.get(name);
    if (known === undefined) return;
    open.delete(name);
    known.given.back = true;
    statuses.delete(name);
    for (const { replicaId } of known.node.groups) {
      byReplica.delete(replicaId);
      onControl(replicaId, false, null);
    }
    const done = bothDone(closing.get(name), known.control.close());
    closing.set(name, done);
    void done.then(() => closing.get(name) === done && closing.delete(name));
  }

  function change(nodes: readonly ClockNode[]): void {
    wanted = new Map(nodes.map((node) => [node.name, node]));
    for (const [name, { node }] of open) if (!isDeepStrictEqual(node, wanted.get(name))) closeOne(name);
    for (const { name } of nodes) {
      if (open.has(name)) continue;
      const first = closing.get(name);
      if (first === undefined) openWanted(name);
      else void first.then(() => openWanted(name));
    }
  }

  function openWanted(name: string): void {
    const node = wanted.get(name);
    if (node !== undefined && !open.has(name) && !closed) openOne(node);
  }

  change(options.nodes);

  return {
    demand: (demand) => byReplica.get(demand.replicaId)?.demand(demand),
    state: () => common([...statuses.values()].map(({ state }) => state)),
    nodes: () => new Map([...statuses].map(([name, status]) => [name, { ...status, powerLimits: open.get(name)?.control.powerLimits() ?? 'unused' }])),
    change,
    close: async () => {
      closed = true;
      await Promise.all([...closing.values(), ...[...open.values()].map(({ control }) => control.close())]);
    },
  };
}

async function bothDone(earlier: Promise<void> | undefined, last: Promise<void>): Promise<void> {
  await earlier;
  await last;
}

interface OpenNode {
  readonly node: ClockNode;
  readonly control: NodeControl;
  /** What it says on its way out concerns nobody. */
  readonly given: { back: boolean };
}

function openNode(node: ClockNode, options: NodeOptions): NodeControl {
  switch (node.kind) {
    case 'paceline':
      return createLeaseControl({ ...options, address: node.address, ttlMs: node.ttlMs });
    case 'zeusd':
      return createZeusdControl({ ...options, address: node.address, watchdogMs: node.watchdogMs, lowestClockMhz: node.lowestClockMhz });
    default:
      return unreachable(node);
  }
}

/** Where none follows and they differ, `lost` says most. */
function common(states: readonly NodeState[]): ClockControlState {
  const [first] = states;
  if (first !== undefined && states.every((state) => state === first)) return first;
  if (states.includes('held')) return 'partial';
  return states.includes('lost') ? 'lost' : 'connecting';
}
