// The clocks of all replicas: each demand goes to the node where its replica lives. A node keeps its own connection,
// lease and retries, so that one that is lost disturbs no other.
import type { ReplicaId } from '../core/job.ts';
import { unreachable } from '../core/unreachable.ts';
import type { AgentAddress } from './connection.ts';
import { createLeaseControl } from './lease-control.ts';
import type { ClockDemand, ClockGroup, NodeControl, NodeOptions, NodeState } from './node-control.ts';
import { createZeusdControl } from './zeusd-control.ts';

interface NodeCommon {
  readonly name: string;
  readonly address: AgentAddress;
  readonly groups: readonly ClockGroup[];
}
export type ClockNode = NodeCommon & ({ readonly kind: 'paceline'; readonly ttlMs: number } | { readonly kind: 'zeusd'; readonly watchdogMs: number; readonly lowestClockMhz: number | null });

export interface ClockControlOptions extends Pick<NodeOptions, 'holder' | 'now' | 'onControl' | 'onWarning'> {
  readonly nodes: readonly ClockNode[];
  readonly onState?: (node: string, state: NodeState, why: string) => void;
}

/** What all nodes have in common, or `partial`: some follow and some do not. */
export type ClockControlState = NodeState | 'partial';

export interface NodeStatus {
  readonly kind: ClockNode['kind'];
  readonly state: NodeState;
  readonly why: string;
}

export interface ClockControl {
  demand(demand: ClockDemand): void;
  state(): ClockControlState;
  nodes(): ReadonlyMap<string, NodeStatus>;
  /** Gives everything back and resolves when the devices are at default clocks, or cannot be asked. */
  close(): Promise<void>;
}

export function createClockControl(options: ClockControlOptions): ClockControl {
  const { holder, now, onControl } = options;
  const statuses = new Map<string, NodeStatus>();
  const byReplica = new Map<ReplicaId, NodeControl>();
  const controls: NodeControl[] = [];

  for (const node of options.nodes) {
    statuses.set(node.name, { kind: node.kind, state: 'connecting', why: 'starting' });
    const control = openNode(node, {
      holder,
      groups: node.groups,
      now,
      onControl,
      onState: (state, why) => {
        statuses.set(node.name, { kind: node.kind, state, why });
        options.onState?.(node.name, state, why);
      },
      onWarning: (message) => options.onWarning(options.nodes.length > 1 ? `agent ${node.name}: ${message}` : message),
    });
    controls.push(control);
    for (const { replicaId } of node.groups) byReplica.set(replicaId, control);
  }

  return {
    demand: (demand) => byReplica.get(demand.replicaId)?.demand(demand),
    state: () => common([...statuses.values()].map(({ state }) => state)),
    nodes: () => statuses,
    close: async () => {
      await Promise.all(controls.map((control) => control.close()));
    },
  };
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
