// From the configuration to the groups of devices whose clocks are driven, and back: the agents' side knows groups by one
// name, the scheduler by their replica and phase.
import { type ClockControl, type ClockNode, createClockControl } from './agent/clock-control.ts';
import type { ClockGroup } from './agent/node-control.ts';
import { type AgentConfig, type Config, isOneGroup, type ReplicaConfig } from './config.ts';
import type { ReplicaId } from './core/job.ts';
import { PHASE_GROUPS, type PhaseGroup } from './core/replica-view.ts';
import type { Demand, Runtime } from './runtime.ts';
import type { Telemetry } from './telemetry/events.ts';

export interface GatewayClocks {
  demand(demand: Demand): void;
  readonly control: ClockControl;
}

interface Joined {
  readonly holder: string;
  readonly now: () => number;
  readonly runtime: Runtime;
  readonly telemetry: Telemetry;
}

/** Without an agent, or without devices, requests are served at default clocks, and that is said once. */
export function openClocks(config: Config, { holder, now, runtime, telemetry }: Joined): GatewayClocks | null {
  const nodes: readonly ClockNode[] = nodesOf(config);
  if (nodes.length === 0) {
    const missing = config.agents.length === 0 ? 'no agent is configured' : 'no replica names its devices';
    telemetry.warning(`${missing}: requests are served at default clocks, nothing is saved`);
    return null;
  }
  const placeOf = placesOf(config.replicas);
  const control = createClockControl({
    nodes,
    holder,
    now,
    onControl: (name, controlled, pointId) => {
      const { replicaId, group } = placeOf(name);
      telemetry.replicaControl(name, controlled);
      runtime.control(replicaId, controlled, pointId, group);
    },
    onState: telemetry.clockControlState,
    onWarning: telemetry.warning,
  });
  return { control, demand: (demand) => control.demand(demand.group === undefined ? demand : { ...demand, replicaId: groupName(demand.replicaId, demand.group) }) };
}

/** Agents that have devices of ours, with their groups. */
export function nodesOf({ agents, replicas }: Pick<Config, 'agents' | 'replicas'>): (AgentConfig & { readonly groups: readonly ClockGroup[] })[] {
  return agents.map((agent) => ({ ...agent, groups: replicas.filter((replica) => replica.agent === agent.name).flatMap(groupsOf) })).filter(({ groups }) => groups.length > 0);
}

/** From a group's name to its replica, and which of its groups it is. */
export function placesOf(replicas: readonly Pick<ReplicaConfig, 'id' | 'devices'>[]): (name: ReplicaId) => { readonly replicaId: ReplicaId; readonly group: PhaseGroup | undefined } {
  const phases = new Map<ReplicaId, { readonly replicaId: ReplicaId; readonly group: PhaseGroup }>();
  for (const { id, devices } of replicas) if (!isOneGroup(devices)) for (const group of PHASE_GROUPS) phases.set(groupName(id, group), { replicaId: id, group });
  return (name) => phases.get(name) ?? { replicaId: name, group: undefined };
}

function groupsOf({ id, devices }: ReplicaConfig): ClockGroup[] {
  if (isOneGroup(devices)) return devices.length === 0 ? [] : [{ replicaId: id, devices }];
  return PHASE_GROUPS.map((group) => ({ replicaId: groupName(id, group), devices: devices[group] }));
}

/** No replica has such a name: an id holds no slash. */
function groupName(replicaId: ReplicaId, group: PhaseGroup): ReplicaId {
  return `${replicaId}/${group}` as ReplicaId;
}
