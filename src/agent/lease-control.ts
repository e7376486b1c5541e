// Keeps one lease of one paceline-agent over the devices of its replicas, and says what the planner demands of them. The
// newest demand of a replica replaces its older ones, one request is under way at a time, and whatever is lost, the
// devices are back at default clocks by themselves: losing the agent costs energy, never a deadline.
import type { OperatingPoint } from '../frontier/profile.ts';
import type { AgentClient, Lease, Target, TargetResult } from './agent-client.ts';
import { batched } from './batched.ts';
import { createAgentClient } from './agent-client.ts';
import { clockOf } from './clock-of-point.ts';
import type { AgentAddress } from './connection.ts';
import { AgentError } from './connection.ts';
import type { LeaseEnd } from './lease-stream.ts';
import type { ClockDemand, ClockGroup, NodeControl, NodeOptions, NodeState } from './node-control.ts';
import { createPowerLimits } from './power-limits.ts';

export interface LeaseControlOptions extends NodeOptions {
  readonly address: AgentAddress;
  readonly ttlMs: number;
}

/** First try again after a fifth of a second (an agent that is being restarted), later every five. */
const RETRY_MS = { first: 200, max: 5_000 };
/** A lease that is no longer known is taken anew at once, but not again and again. */
const RELEASE_ANEW_MS_MIN = 1_000;
/** A policy that was just changed may be changed again. */
const REVOKED_PAUSE_MS = 1_000;
/** A group that failed is tried again: first after five seconds, later every minute, which is what the agent yields for. */
const SPARED_MS = { first: 5_000, max: 60_000 };
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
  /** Sent last. */
  inForce: Wanted | null;
  /** Until when it is left alone after it did not follow, and for how long the next time. */
  spared: NodeJS.Timeout | null;
  sparedMs: number;
  told: { readonly controlled: boolean; readonly pointId: string | null };
}

type Hold = { readonly lease: Lease; seq: number; sending: boolean; sentAtMs: number; heardAtMs: number };

export function createLeaseControl(options: LeaseControlOptions): NodeControl {
  const { now } = options;
  const client: AgentClient = createAgentClient(options.address);
  const limits = createPowerLimits(options);
  const groups = new Map<string, Group>();
  for (const group of options.groups) {
    groups.set(group.replicaId, { ...group, available: false, knobUnsupported: false, pending: null, inForce: null, spared: null, sparedMs: SPARED_MS.first, told: { controlled: false, pointId: null } });
  }
  let state: NodeState = 'connecting';
  let hold: Hold | null = null;
  /** A lease that ended is being taken anew: demands are kept for it, and the replicas are not told. */
  let bridging = false;
  let anewAtMs = Number.NEGATIVE_INFINITY;
  /** Of the try at a lease that counts; what is heard of older ones is past. */
  let attempt = 0;
  let retryMs = RETRY_MS.first;
  let retryTimer: NodeJS.Timeout | undefined;
  const sendSoon = batched(() => void send());
  const warned = new Set<string>();

  function become(next: NodeState, why: string): void {
    if (state === next || state === 'closed') return;
    state = next;
    options.onState(next, why);
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
    const mineLost = (end: LeaseEnd): void => {
      if (mine === attempt) ended(end);
    };
    try {
      const usable = groupsThere(await client.devices());
      if (mine !== attempt) return;
      if (usable.length === 0) return await nothingHere(mine);
      const devices = usable.flatMap((group) => group.devices);
      const lease = await client.lease({ holder: options.holder, devices, ttlMs: options.ttlMs }, heard, mineLost);
      if (mine !== attempt) return lease.abandon();
      hold = { lease, seq: 0, sending: false, sentAtMs: now(), heardAtMs: now() };
      become('held', `lease ${lease.leaseId}, epoch ${lease.epoch}`);
      const anew = bridging;
      bridging = false;
      for (const group of groups.values()) if (anew && !group.available) tell(group, false, null);
      for (const group of usable) if (!group.knobUnsupported && group.spared === null && !(anew && group.told.controlled)) tell(group, true, null);
      void send();
    } catch (error) {
      if (mine !== attempt) return;
      if (error instanceof AgentError && error.status === 409) standBy('observing', 'the agent only observes');
      else lost(messageOf(error));
    }
  }

  async function nothingHere(mine: number): Promise<void> {
    const observes = await client.observes();
    if (mine !== attempt) return;
    if (observes) standBy('observing', 'the agent only observes');
    else standBy('none', 'the agent has no device that is configured here and may be set');
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

  function ended({ why, reason }: LeaseEnd): void {
    // We were too slow to renew it; the agent is there, and what has not lapsed is still wanted.
    if (reason === 'expired') anew(why);
    else if (reason === 'revoked') {
      retryMs = Math.max(retryMs, REVOKED_PAUSE_MS);
      lost(why);
    } else lost(why);
  }

  /**
   * The agent no longer knows the lease. Unless that was so a moment ago, another one is taken at once, with the demands
   * that have not lapsed. After a real loss nothing is sent again: the planner, who was told, decides anew.
   */
  function anew(why: string): void {
    const nowMs = now();
    if (hold === null || nowMs - anewAtMs < RELEASE_ANEW_MS_MIN) return lost(why);
    anewAtMs = nowMs;
    hold.lease.abandon();
    hold = null;
    bridging = true;
    for (const group of groups.values()) {
      group.pending ??= group.inForce;
      if (group.pending !== null && group.pending.lapsesAtMs <= nowMs) group.pending = null;
    }
    void connect();
  }

  function lost(why: string): void {
    standBy('lost', why);
  }

  function standBy(next: NodeState, why: string): void {
    attempt++;
    hold?.lease.abandon();
    hold = null;
    bridging = false;
    become(next, why);
    for (const group of groups.values()) {
      group.pending = null;
      group.inForce = null;
      endSparing(group);
      tell(group, false, null);
    }
    clearTimeout(retryTimer);
    if (state === 'closed') return;
    retryTimer = setTimeout(() => void connect(), retryMs);
    retryTimer.unref();
    retryMs = Math.min(RETRY_MS.max, retryMs * 2);
  }

  function demand({ replicaId, point, powerLimitW, holdMs, change }: ClockDemand): void {
    if (powerLimitW !== undefined) limits.want(replicaId, powerLimitW, holdMs);
    const group = groups.get(replicaId);
    if (group === undefined || !group.available || (hold === null && !bridging)) return;
    const clock = clockOf(point);
    if (clock.kind === 'unsupported') {
      warnOnce(`replica ${replicaId}: the agent cannot set the knob${clock.knobs.length > 1 ? 's' : ''} ${clock.knobs.join(', ')} of point ${point?.id ?? ''}, only clockMhz; clocks stay at default`);
      group.knobUnsupported = true;
      group.pending = { point: null, clockMhz: null, lapsesAtMs: now() + holdMs };
      tell(group, false, null);
    } else group.pending = { point, clockMhz: clock.clockMhz, lapsesAtMs: now() + holdMs };
    if (change === 'raise') void send();
    else sendSoon();
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
      retryMs = RETRY_MS.first;
      for (const { group, wanted } of sent) settle(group, wanted, results);
      void send();
    } catch (error) {
      if (hold !== current) return;
      const status = error instanceof AgentError ? error.status : null;
      if (status === 404 || status === 412) return anew(messageOf(error));
      if (status === 400) options.onWarning(messageOf(error));
      lost(messageOf(error));
    }
  }

  function takePending(): { group: Group; wanted: Wanted; target: Target }[] {
    const nowMs = now();
    const taken: { group: Group; wanted: Wanted; target: Target }[] = [];
    for (const group of groups.values()) {
      const wanted = group.pending;
      group.pending = null;
      if (wanted === null || !group.available) continue;
      group.inForce = wanted;
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
    if (own.some(({ status }) => status === 'observed')) {
      // Nothing is set until another agent stands there, and that ends this lease.
      become('observing', 'the agent only observes');
      return tell(group, false, null);
    }
    const broken = own.find(({ status }) => status !== 'applied' && status !== 'deferred');
    if (broken !== undefined || own.length < group.devices.length) {
      warnOnce(`replica ${group.replicaId}: ${broken === undefined ? 'the agent did not answer for all devices; its group counts as at default clocks' : whyNot(broken)}`);
      tell(group, false, null);
      if (broken?.status === 'yielded') group.sparedMs = SPARED_MS.max;
      return spare(group);
    }
    endSparing(group);
    group.sparedMs = SPARED_MS.first;
    // Another gateway that wants it faster wins: then the point is not ours, and all we know is that it is no slower. A
    // power limit in a clock's place is no point of the profile either.
    const ours = own.every(({ target_mhz: targetMhz, demand_mhz: demandMhz, control }) => targetMhz != null && targetMhz === demandMhz && (control ?? 'clock') === 'clock');
    const deferred = own.some((result) => result.status === 'deferred');
    tell(group, true, deferred ? group.told.pointId : ours ? (wanted.point?.id ?? null) : null);
  }

  /** Nothing is demanded of a replica that does not follow, so it has to be offered to the planner again. */
  function spare(group: Group): void {
    if (group.spared !== null) return;
    group.spared = setTimeout(() => {
      group.spared = null;
      if (hold !== null && state === 'held' && !group.knobUnsupported) tell(group, true, null);
    }, group.sparedMs);
    group.spared.unref();
    group.sparedMs = Math.min(SPARED_MS.max, group.sparedMs * 2);
  }
  function endSparing(group: Group): void {
    clearTimeout(group.spared ?? undefined);
    group.spared = null;
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
    for (const group of groups.values()) endSparing(group);
    hold = null;
    const limitsClosed = limits.close();
    if (held !== null) {
      await client.release(held.lease).catch((error: unknown) => options.onWarning(`the lease was not given back (${messageOf(error)}); the agent ends it by itself`));
      held.lease.abandon();
    }
    await Promise.all([limitsClosed, client.close()]);
  }

  void connect();
  return { demand, powerLimits: limits.state, close };
}

function whyNot({ device, status }: TargetResult): string {
  if (status === 'yielded') return `somebody else sets the clocks of ${device}, and the agent yields; they are not ours for now`;
  if (status === 'failed' || status === 'stuck') return `${device} is ${status}; its group is at default clocks`;
  return `the agent says '${status}' of ${device}; its group counts as at default clocks`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
