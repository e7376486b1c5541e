// Keeps one lease over the devices of all replicas and says to the agent what the planner demands of them. The newest
// demand of a replica replaces its older ones, one request is under way at a time, and whatever is lost, the devices
// are back at default clocks by themselves: losing the agent costs energy, never a deadline.
import type { ReplicaId } from '../core/job.ts';
import type { OperatingPoint } from '../frontier/profile.ts';
import type { AgentClient, Lease, Target, TargetResult } from './agent-client.ts';
import { AgentError, createAgentClient } from './agent-client.ts';
import { clockOf } from './clock-of-point.ts';

export interface ClockGroup {
  readonly replicaId: ReplicaId;
  readonly devices: readonly string[];
}

/** `held`: demands reach the devices. `none`: the agent is there and has no device for us. */
export type ClockControlState = 'connecting' | 'held' | 'lost' | 'none' | 'closed';

export interface ClockControlOptions {
  readonly socketPath: string;
  readonly holder: string;
  readonly ttlMs: number;
  readonly groups: readonly ClockGroup[];
  readonly now: () => number;
  /** Told at every change: does the replica follow, and which point is it at (`null`: default clocks). */
  readonly onControl: (replicaId: ReplicaId, controlled: boolean, pointId: string | null) => void;
  readonly onState?: (state: ClockControlState, why: string) => void;
  readonly onWarning: (message: string) => void;
}

export interface ClockDemand {
  readonly replicaId: ReplicaId;
  readonly point: OperatingPoint | null;
  readonly holdMs: number;
  readonly change: 'raise' | 'lower' | 'renew';
}

export interface ClockControl {
  demand(demand: ClockDemand): void;
  state(): ClockControlState;
  /** Gives the lease back and resolves when the agent has restored the devices, or cannot be asked. */
  close(): Promise<void>;
}

/** First try again after a fifth of a second (an agent that is being restarted), later every five. */
const RETRY_MS = { first: 200, max: 5_000 };
/** Heartbeats come every second; three missed, and the agent hangs. */
const SILENCE_MS_MAX = 3_500;

interface Wanted {
  readonly point: OperatingPoint | null;
  readonly clockMhz: number | null;
  readonly lapsesAtMs: number;
}

interface Group extends ClockGroup {
  /** All of its devices are there and may be set. */
  available: boolean;
  knobUnsupported: boolean;
  /** Not yet sent. */
  pending: Wanted | null;
  told: { readonly controlled: boolean; readonly pointId: string | null };
}

type Hold = { readonly lease: Lease; seq: number; sending: boolean; sentAtMs: number; heardAtMs: number };

export function createClockControl(options: ClockControlOptions): ClockControl {
  const { now } = options;
  const client: AgentClient = createAgentClient(options.socketPath);
  const groups = new Map<ReplicaId, Group>();
  for (const group of options.groups) groups.set(group.replicaId, { ...group, available: false, knobUnsupported: false, pending: null, told: { controlled: false, pointId: null } });
  let state: ClockControlState = 'connecting';
  let hold: Hold | null = null;
  /** Of the try at a lease that counts; what is heard of older ones is past. */
  let attempt = 0;
  let retryMs = RETRY_MS.first;
  let retryTimer: NodeJS.Timeout | undefined;
  let batched = false;
  const warned = new Set<string>();

  function become(next: ClockControlState, why: string): void {
    if (state === next || state === 'closed') return;
    state = next;
    options.onState?.(next, why);
  }
  function warnOnce(message: string): void {
    if (warned.has(message)) return;
    warned.add(message);
    options.onWarning(message);
  }
  function tell(group: Group, controlled: boolean, pointId: string | null): void {
    if (group.told.controlled === controlled && group.told.pointId === pointId) return;
    group.told = { controlled, pointId };
    options.onControl(group.replicaId, controlled, pointId);
  }

  async function connect(): Promise<void> {
    const mine = ++attempt;
    const mineLost = (why: string): void => {
      if (mine === attempt) lost(why);
    };
    try {
      const usable = groupsThere(await client.devices());
      if (mine !== attempt) return;
      if (usable.length === 0) {
        become('none', 'the agent has no device that is configured here and may be set');
        return retryLater();
      }
      const devices = usable.flatMap((group) => group.devices);
      const lease = await client.lease({ holder: options.holder, devices, ttlMs: options.ttlMs }, heard, mineLost);
      if (mine !== attempt) return lease.abandon();
      hold = { lease, seq: 0, sending: false, sentAtMs: now(), heardAtMs: now() };
      retryMs = RETRY_MS.first;
      become('held', `lease ${lease.leaseId}, epoch ${lease.epoch}`);
      for (const group of usable) if (!group.knobUnsupported) tell(group, true, null);
      void send();
    } catch (error) {
      mineLost(error instanceof Error ? error.message : String(error));
    }
  }

  /** Those whose devices are all there and settable; the others are told of, and stay at default clocks. */
  function groupsThere(devices: Awaited<ReturnType<AgentClient['devices']>>): Group[] {
    const controls = new Map(devices.map(({ device, controls }) => [device, controls]));
    for (const group of groups.values()) {
      const missing = group.devices.filter((device) => !controls.has(device));
      const fixed = group.devices.filter((device) => controls.get(device)?.includes('clock') === false);
      if (missing.length > 0) warnOnce(`replica ${group.replicaId}: the agent does not know ${missing.join(', ')}; it has ${[...controls.keys()].join(', ') || 'none'}; clocks stay at default`);
      if (fixed.length > 0) warnOnce(`replica ${group.replicaId}: the agent's policy lets us set no clock of ${fixed.join(', ')}; clocks stay at default`);
      group.available = missing.length === 0 && fixed.length === 0;
    }
    return [...groups.values()].filter((group) => group.available);
  }

  function heard(): void {
    if (hold !== null) hold.heardAtMs = now();
  }

  function lost(why: string): void {
    attempt++;
    hold?.lease.abandon();
    hold = null;
    become('lost', why);
    for (const group of groups.values()) {
      group.pending = null;
      tell(group, false, null);
    }
    retryLater();
  }

  function retryLater(): void {
    clearTimeout(retryTimer);
    retryTimer = setTimeout(() => void connect(), retryMs);
    retryTimer.unref();
    retryMs = Math.min(RETRY_MS.max, retryMs * 2);
  }

  function demand({ replicaId, point, holdMs, change }: ClockDemand): void {
    const group = groups.get(replicaId);
    if (group === undefined || !group.available || hold === null) return;
    const clock = clockOf(point);
    if (clock.kind === 'unsupported') {
      warnOnce(`replica ${replicaId}: the agent cannot set the knob${clock.knobs.length > 1 ? 's' : ''} ${clock.knobs.join(', ')} of point ${point?.id ?? ''}, only clockMhz; clocks stay at default`);
      group.knobUnsupported = true;
      group.pending = { point: null, clockMhz: null, lapsesAtMs: now() + holdMs };
      tell(group, false, null);
    } else group.pending = { point, clockMhz: clock.clockMhz, lapsesAtMs: now() + holdMs };
    if (change === 'raise') void send();
    else if (!batched) {
      batched = true;
      queueMicrotask(() => {
        batched = false;
        void send();
      });
    }
  }

  /** Sends all that is pending, or an empty list where only the lease needs renewing; and again, until nothing is left. */
  async function send(renewOnly = false): Promise<void> {
    const current = hold;
    if (current === null || current.sending) return;
    const sent = takePending();
    if (sent.length === 0 && !renewOnly) return;
    current.sending = true;
    current.sentAtMs = now();
    try {
      const results = await client.putTargets(current.lease, ++current.seq, sent.map(({ target }) => target));
      if (hold !== current) return;
      current.sending = false;
      current.heardAtMs = now();
      for (const { group, wanted } of sent) settle(group, wanted, results);
      void send();
    } catch (error) {
      if (hold !== current) return;
      if (error instanceof AgentError && error.status === 400) options.onWarning(error.message);
      lost(error instanceof Error ? error.message : String(error));
    }
  }

  function takePending(): { group: Group; wanted: Wanted; target: Target }[] {
    const nowMs = now();
    const taken: { group: Group; wanted: Wanted; target: Target }[] = [];
    for (const group of groups.values()) {
      const wanted = group.pending;
      group.pending = null;
      if (wanted === null) continue;
      // It counts from when it was demanded; what has lapsed while it waited asks for default clocks, as it would there.
      const holdMs = Math.floor(wanted.lapsesAtMs - nowMs);
      const clockMhz = holdMs > 0 ? wanted.clockMhz : null;
      taken.push({ group, wanted, target: { devices: group.devices, clock_mhz: clockMhz, hold_ms: Math.max(1, holdMs) } });
    }
    return taken;
  }

  function settle(group: Group, wanted: Wanted, results: readonly TargetResult[]): void {
    if (group.knobUnsupported) return;
    const own = results.filter((result) => group.devices.includes(result.device));
    const broken = own.find((result) => result.status === 'failed' || result.status === 'stuck');
    if (broken !== undefined || own.length < group.devices.length) {
      warnOnce(`replica ${group.replicaId}: ${broken === undefined ? 'the agent did not answer for all devices' : `${broken.device} is ${broken.status}`}; its group is at default clocks`);
      return tell(group, false, null);
    }
    // Another gateway that wants it faster wins: then the point is not ours, and all we know is that it is no slower.
    const ours = own.every((result) => result.target_mhz != null && result.target_mhz === result.demand_mhz);
    const deferred = own.some((result) => result.status === 'deferred');
    tell(group, true, deferred ? group.told.pointId : ours ? (wanted.point?.id ?? null) : null);
  }

  const keeper = setInterval(() => {
    if (hold === null) return;
    const nowMs = now();
    if (nowMs - hold.heardAtMs > SILENCE_MS_MAX) lost(`nothing heard from the agent for ${SILENCE_MS_MAX} ms`);
    else if (nowMs - hold.sentAtMs >= options.ttlMs / 4) void send(true);
  }, options.ttlMs / 12);
  keeper.unref();

  async function close(): Promise<void> {
    if (state === 'closed') return;
    const held = hold;
    become('closed', 'closing');
    attempt++;
    clearInterval(keeper);
    clearTimeout(retryTimer);
    hold = null;
    if (held !== null) {
      await client.release(held.lease).catch((error: unknown) => options.onWarning(`the lease was not given back (${error instanceof Error ? error.message : String(error)}); the agent ends it by itself`));
      held.lease.abandon();
    }
    await client.close();
  }

  void connect();
  return { demand, state: () => state, close };
}
