// Who may slow which device how far: leases, their demands, and the one target that follows for each device. Pure, as the
// native agent's arbiter is; writing to devices and speaking HTTP are left to `agent-stand-in.ts`.
import assert from 'node:assert/strict';

export type LeaseId = string & { readonly __brand: 'LeaseId' };
/** Position of a device in the list that the arbitration was made for. */
export type DeviceIndex = number;

export interface LeaseGrant {
  readonly leaseId: LeaseId;
  readonly epoch: number;
  readonly holder: string;
  readonly ttlMs: number;
  readonly devices: readonly DeviceIndex[];
}

export interface Target {
  readonly devices: readonly DeviceIndex[];
  /** `null` asks for default clocks. */
  readonly clockMhz: number | null;
  readonly holdMs: number;
}

export type Clamped = 'floor' | 'ceiling' | 'quantized';

/** What was made of the wish for one device. */
export interface Accepted {
  readonly device: DeviceIndex;
  readonly requestedMhz: number | null;
  readonly demandMhz: number | null;
  readonly clamped: Clamped | null;
}

export type PutOutcome =
  | { readonly kind: 'accepted'; readonly ttlMs: number; readonly accepted: readonly Accepted[] }
  | { readonly kind: 'unknown-lease' }
  | { readonly kind: 'other-epoch'; readonly epoch: number }
  | { readonly kind: 'stale-seq'; readonly lastSeq: number }
  | { readonly kind: 'not-held'; readonly target: number; readonly position: number };

export interface Holder {
  readonly leaseId: LeaseId;
  readonly holder: string;
  /** `null`: at default, with or without having asked for it. */
  readonly clockMhz: number | null;
  readonly holdLeftMs: number | null;
}

export interface Arbitration {
  grant(grant: LeaseGrant, nowMs: number): 'granted' | 'too-many-leases';
  /** All or nothing: what is refused renews nothing and changes nothing. */
  putTargets(request: { readonly leaseId: LeaseId; readonly epoch: number; readonly seq: number; readonly targets: readonly Target[] }, nowMs: number): PutOutcome;
  /** False where there is no such lease (any more). */
  end(leaseId: LeaseId): boolean;
  /** Drops the leases that nobody renewed, and names them. */
  expire(nowMs: number): readonly LeaseId[];
  /** The fastest demand of all leases on the device; `null`: default clocks. */
  target(device: DeviceIndex, nowMs: number): number | null;
  holders(device: DeviceIndex, nowMs: number): readonly Holder[];
  /** When time alone next changes something; `Infinity` when it never does. */
  nextChangeAtMs(nowMs: number): number;
}

/** One per gateway process is usual; the native agent's bound. */
export const LEASES_MAX = 64;

interface Lease extends LeaseGrant {
  expiresAtMs: number;
  lastSeq: number;
  /** A device that is not here is demanded at default clocks. */
  readonly demands: Map<DeviceIndex, { readonly clockMhz: number; readonly lapsesAtMs: number }>;
}

/** `clocksMhz`: per device, ascending and not empty; the last is the default clock. */
export function createArbitration(clocksMhz: readonly (readonly number[])[]): Arbitration {
  for (const clocks of clocksMhz) assert(clocks.length > 0 && clocks.every((clockMhz, at) => at === 0 || clockMhz > (clocks[at - 1] as number)), 'the clocks of a device ascend');
  const leases = new Map<LeaseId, Lease>();

  function liveLease(leaseId: LeaseId, nowMs: number): Lease | null {
    const lease = leases.get(leaseId);
    return lease === undefined || lease.expiresAtMs <= nowMs ? null : lease;
  }
  function holding(device: DeviceIndex, nowMs: number): Lease[] {
    return [...leases.values()].filter((lease) => lease.expiresAtMs > nowMs && lease.devices.includes(device));
  }

  return {
    grant: (grant, nowMs) => {
      if (leases.size >= LEASES_MAX) return 'too-many-leases';
      leases.set(grant.leaseId, { ...grant, expiresAtMs: nowMs + grant.ttlMs, lastSeq: -1, demands: new Map() });
      return 'granted';
    },

    putTargets: ({ leaseId, epoch, seq, targets }, nowMs) => {
      const lease = liveLease(leaseId, nowMs);
      if (lease === null) return { kind: 'unknown-lease' };
      if (lease.epoch !== epoch) return { kind: 'other-epoch', epoch: lease.epoch };
      if (seq <= lease.lastSeq) return { kind: 'stale-seq', lastSeq: lease.lastSeq };
      for (const [target, { devices }] of targets.entries()) {
        const position = devices.findIndex((device) => !lease.devices.includes(device));
        if (position !== -1) return { kind: 'not-held', target, position };
      }
      lease.lastSeq = seq;
      lease.expiresAtMs = nowMs + lease.ttlMs;
      const accepted: Accepted[] = [];
      for (const { devices, clockMhz: requestedMhz, holdMs } of targets) {
        for (const device of devices) {
          if (requestedMhz === null) {
            lease.demands.delete(device);
            accepted.push({ device, requestedMhz, demandMhz: null, clamped: null });
          } else {
            const { clockMhz, clamped } = fit(clocksMhz[device] as readonly number[], requestedMhz);
            lease.demands.set(device, { clockMhz, lapsesAtMs: nowMs + holdMs });
            accepted.push({ device, requestedMhz, demandMhz: clockMhz, clamped });
          }
        }
      }
      return { kind: 'accepted', ttlMs: lease.ttlMs, accepted };
    },

    end: (leaseId) => leases.delete(leaseId),

    expire: (nowMs) => {
      const expired = [...leases.values()].filter((lease) => lease.expiresAtMs <= nowMs).map(({ leaseId }) => leaseId);
      for (const leaseId of expired) leases.delete(leaseId);
      return expired;
    },

    target: (device, nowMs) => {
      const defaultMhz = clocksMhz[device]?.at(-1) as number;
      let fastestMhz: number | null = null;
      for (const { demands } of holding(device, nowMs)) {
        const demand = demands.get(device);
        if (demand === undefined || demand.lapsesAtMs <= nowMs) return null;
        fastestMhz = Math.max(fastestMhz ?? 0, demand.clockMhz);
      }
      // A lock at the fastest clock holds nothing back, and a device that is not locked needs no restoring.
      return fastestMhz === defaultMhz ? null : fastestMhz;
    },

    holders: (device, nowMs) =>
      holding(device, nowMs).map(({ leaseId, holder, demands }) => {
        const demand = demands.get(device);
        if (demand === undefined || demand.lapsesAtMs <= nowMs) return { leaseId, holder, clockMhz: null, holdLeftMs: null };
        return { leaseId, holder, clockMhz: demand.clockMhz, holdLeftMs: demand.lapsesAtMs - nowMs };
      }),

    nextChangeAtMs: (nowMs) => {
      const instants = [...leases.values()].flatMap(({ expiresAtMs, demands }) => [expiresAtMs, ...[...demands.values()].map(({ lapsesAtMs }) => lapsesAtMs).filter((atMs) => atMs > nowMs)]);
      return Math.min(Infinity, ...instants);
    },
  };
}

/** The step that serves a request, never slower than asked; what is out of the range is clamped to its ends. */
export function fit(clocksMhz: readonly number[], requestedMhz: number): { readonly clockMhz: number; readonly clamped: Clamped | null } {
  const floorMhz = clocksMhz[0] as number;
  const ceilingMhz = clocksMhz.at(-1) as number;
  if (requestedMhz < floorMhz) return { clockMhz: floorMhz, clamped: 'floor' };
  const clockMhz = clocksMhz.find((stepMhz) => stepMhz >= requestedMhz);
  if (clockMhz === undefined) return { clockMhz: ceilingMhz, clamped: 'ceiling' };
  return { clockMhz, clamped: clockMhz === requestedMhz ? null : 'quantized' };
}
