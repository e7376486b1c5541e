// From the configuration to the groups of devices whose clocks are driven, and back: the agents' side knows groups by one
// name, the scheduler by their replica and phase.
import { type ClockControlState, type ClockNode, createClockControl, type NodeStatus } from './agent/clock-control.ts';
import type { ClockGroup } from './agent/node-control.ts';
import { type AgentConfig, type Config, isOneGroup, type ReplicaConfig } from './config.ts';
import type { ReplicaId } from './core/job.ts';
import { PHASE_GROUPS, type PhaseGroup } from './core/replica-view.ts';
import type { Demand, Runtime } from './runtime.ts';
import type { Telemetry } from './telemetry/events.ts';

export interface GatewayClocks {
  demand(demand: Demand): void;
  /** `off` where no node has devices of ours. */
  state(): ClockControlState | 'off';
  nodes(): ReadonlyMap<string, NodeStatus>;
  /** These are all from now on; what stays as it is is not disturbed. */
  change(fleet: Fleet): void;
  close(): Promise<void>;
}

/** The replicas that there are, and the agents of their nodes. */
export type Fleet = Pick<Config, 'agents' | 'replicas'>;

interface Joined {
  readonly holder: string;
  readonly now: () => number;
  readonly runtime: Runtime;
  readonly telemetry: Telemetry;
  /** Its devices do not follow any more. */
  readonly uncontrolled: (replicaId: ReplicaId) => void;
}

/** Without an agent, or without devices, requests are served at default clocks, and that is said once. */
export function openClocks(fleet: Fleet, { holder, now, runtime, telemetry, uncontrolled }: Joined): GatewayClocks {
  const nodes: readonly ClockNode[] = nodesOf(fleet);
  if (nodes.length === 0) {
    const missing = fleet.agents.length === 0 ? 'no agent is configured' : 'no replica names its devices';
    telemetry.warning(`${missing}: requests are served at default clocks, nothing is saved`);
  }
  /** What was told last of each group: what its clocks do and what its power limit is are told by different leases, and together to the scheduler. */
  const told = new Map<ReplicaId, { readonly controlled: boolean; readonly pointId: string | null }>();
  const limitsW = new Map<ReplicaId, number | null>();
  function tell(name: ReplicaId): void {
    const { controlled, pointId } = told.get(name) ?? { controlled: false, pointId: null };
    const { replicaId, group } = placeOf(name);
    runtime.control(replicaId, controlled, pointId, group, limitsW.get(name));
  }
  const control = createClockControl({
    nodes,
    holder,
    now,
    onControl: (name, controlled, pointId) => {
      telemetry.replicaControl(name, controlled);
      if (!controlled) uncontrolled(placeOf(name).replicaId);
      told.set(name, { controlled, pointId });
      tell(name);
    },
    onLimit: (name, heldW) => {
      limitsW.set(name, heldW);
      if (told.get(name)?.controlled === true) tell(name);
    },
    onState: telemetry.clockControlState,
    onWarning: telemetry.warning,
  });
  return {
    demand: (demand) => control.demand(demand.group === undefined ? demand : { ...demand, replicaId: groupName(demand.replicaId, demand.group) }),
    state: () => (control.nodes().size === 0 ? 'off' : control.state()),
    nodes: control.nodes,
    change: (next) => control.change(nodesOf(next)),
    close: control.close,
  };
}

/** Agents that have devices of ours, with their groups. */
export function nodesOf({ agents, replicas }: Fleet): (AgentConfig & { readonly groups: readonly ClockGroup[] })[] {
  return agents.map((agent) => ({ ...agent, groups: replicas.filter((replica) => replica.agent === agent.name).flatMap(groupsOf) })).filter(({ groups }) => groups.length > 0);
}

/** From a group's name to its replica, and which of its groups it is. */
export function placeOf(name: ReplicaId): { readonly replicaId: ReplicaId; readonly group: PhaseGroup | undefined } {
  const [replicaId, phase] = name.split('/');
  return { replicaId: replicaId as ReplicaId, group: PHASE_GROUPS.find((group) => group === phase) };
}

function groupsOf({ id, devices }: ReplicaConfig): ClockGroup[] {
  if (isOneGroup(devices)) return devices.length === 0 ? [] : [{ replicaId: id, devices }];
  return PHASE_GROUPS.map((group) => ({ replicaId: groupName(id, group), devices: devices[group] }));
}

/** No replica has such a name: an id holds no slash. */
function groupName(replicaId: ReplicaId, group: PhaseGroup): ReplicaId {
  return `${replicaId}/${group}` as ReplicaId;
}
