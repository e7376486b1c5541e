// From the configuration to the groups of devices whose clocks are driven, and back: the agents' side knows groups by one
// name, the scheduler by their replica and phase.
import { type ClockControl, type ClockNode, createClockControl } from './agent/clock-control.ts';
import type { ClockGroup } from './agent/node-control.ts';
import { type Config, isOneGroup, type ReplicaConfig } from './config.ts';
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
  const nodes: ClockNode[] = config.agents
    .map((agent) => ({ ...agent, groups: config.replicas.filter((replica) => replica.agent === agent.name).flatMap(groupsOf) }))
    .filter(({ groups }) => groups.length > 0);
  if (nodes.length === 0) {
    const missing = config.agents.length === 0 ? 'no agent is configured' : 'no replica names its devices';
    telemetry.warning(`${missing}: requests are served at default clocks, nothing is saved`);
    return null;
  }
  const phases = new Map<ReplicaId, { readonly replicaId: ReplicaId; readonly group: PhaseGroup }>();
  for (const { id, devices } of config.replicas) if (!isOneGroup(devices)) for (const group of PHASE_GROUPS) phases.set(groupName(id, group), { replicaId: id, group });
  const control = createClockControl({
    nodes,
    holder,
    now,
    onControl: (name, controlled, pointId) => {
      const { replicaId, group } = phases.get(name) ?? { replicaId: name, group: undefined };
      telemetry.replicaControl(name, controlled);
      runtime.control(replicaId, controlled, pointId, group);
    },
    onState: telemetry.clockControlState,
    onWarning: telemetry.warning,
  });
  return { control, demand: (demand) => control.demand(demand.group === undefined ? demand : { ...demand, replicaId: groupName(demand.replicaId, demand.group) }) };
}

function groupsOf({ id, devices }: ReplicaConfig): ClockGroup[] {
  if (isOneGroup(devices)) return devices.length === 0 ? [] : [{ replicaId: id, devices }];
  return PHASE_GROUPS.map((group) => ({ replicaId: groupName(id, group), devices: devices[group] }));
}

/** No replica has such a name: an id holds no slash. */
function groupName(replicaId: ReplicaId, group: PhaseGroup): ReplicaId {
  return `${replicaId}/${group}` as ReplicaId;
}
