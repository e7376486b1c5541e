// One node with one replica on it, for the same scenario over either daemon.
import type { ClockNode } from '../../src/agent/clock-control.ts';
import type { ReplicaId } from '../../src/core/job.ts';
import type { OperatingPoint } from '../../src/frontier/profile.ts';

export function clockNode(kind: ClockNode['kind'], socketPath: string, devices: readonly string[]): ClockNode {
  const common = { name: kind, address: { kind: 'socket', path: socketPath } as const, groups: [{ replicaId: 'r0' as ReplicaId, devices }] };
  return kind === 'zeusd' ? { ...common, kind, watchdogMs: 2_000, lowestClockMhz: 210 } : { ...common, kind, ttlMs: 3_000 };
}

export function pointOf(clockMhz: number): OperatingPoint {
  return { id: `c${clockMhz}`, knobs: { clockMhz }, idlePowerW: 90 };
}
