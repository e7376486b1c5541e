// Drives the clocks of one node through zeusd, which does what it is told and forgets who told it: no lease, no hold, no
// arbiter. So all of that is done here. Every slow-down lapses by a timer, a process beside this one (`zeusd-watchdog.ts`)
// puts the GPUs back when this one hangs or dies, and without that process nothing is slowed down at all.
import type { OperatingPoint } from '../frontier/profile.ts';
import { clockOf } from './clock-of-point.ts';
import type { AgentAddress } from './connection.ts';
import { AgentError } from './connection.ts';
import type { ClockDemand, ClockGroup, NodeControl, NodeOptions, NodeState } from './node-control.ts';
import { createZeusdClient, gpuIdOf } from './zeusd-client.ts';
import type { ZeusdWatchdog } from './zeusd-watchdog.ts';
import { startZeusdWatchdog } from './zeusd-watchdog.ts';

export interface ZeusdControlOptions extends NodeOptions {
  readonly address: AgentAddress;
  /** No GPU is slow for longer than this after it was last asked for, however long the demand would hold. */
  readonly watchdogMs: number;
  /** From here up to the demanded clock an idle GPU may move; `null`: it is locked to the demanded clock alone, as zeus does. */
  readonly lowestClockMhz: number | null;
}

const RETRY_MS = { first: 200, max: 5_000 };
/** A group that failed is reset until it can be, then tried again: first after five seconds, later every minute. */
const SPARED_MS = { first: 5_000, max: 60_000 };
/** The process beside us comes second, so that a lapse is one reset and not two. */
const WATCHDOG_LATER_MS = 50;
/** A lock that stands is set anew now and then: somebody else may have reset it, and zeusd cannot be asked. */
const SET_ANEW_MS = 5_000;
/** Resets at the end, before they are left to the watchdog. */
const CLOSING_TRIES_MAX = 3;

interface Wanted {
  readonly point: OperatingPoint | null;
  /** `null`: default clocks. */
  readonly clockMhz: number | null;
}
const DEFAULT_CLOCKS: Wanted = { point: null, clockMhz: null };

interface Group extends ClockGroup {
  readonly gpuIds: readonly number[];
  /** zeusd has its GPUs, and they were reset since we came or failed. */
  usable: boolean;
  knobUnsupported: boolean;
  /** Newest demand, not yet sent. */
  pending: Wanted | null;
  /** The request under way; `null` while there is none. */
  sending: Promise<void> | null;
  /** What zeusd has confirmed. */
  set: { readonly clockMhz: number | null; readonly atMs: number };
  lapsesAtMs: number;
  lapse: NodeJS.Timeout | undefined;
  mend: NodeJS.Timeout | undefined;
  sparedMs: number;
  told: { readonly controlled: boolean; readonly pointId: string | null };
}

export function createZeusdControl(options: ZeusdControlOptions): NodeControl {
  const { now } = options;
  const client = createZeusdClient(options.address);
  const groups = new Map<string, Group>();
  for (const group of options.groups) {
    const gpuIds = group.devices.map(gpuIdOf).filter((gpuId) => gpuId !== null);
    groups.set(group.replicaId, {
      ...group,
      gpuIds,
      usable: false,
      knobUnsupported: false,
      pending: null,
      sending: null,
      set: { clockMhz: null, atMs: Number.NEGATIVE_INFINITY },
      lapsesAtMs: 0,
      lapse: undefined,
      mend: undefined,
      sparedMs: SPARED_MS.first,
      told: { controlled: false, pointId: null },
    });
  }
  const allGpuIds = [...groups.values()].flatMap(({ gpuIds }) => gpuIds);
  let state: NodeState = 'connecting';
  let watchdog: ZeusdWatchdog | null = null;
  let attempt = 0;
  let retryMs = RETRY_MS.first;
  let retryTimer: NodeJS.Timeout | undefined;
  const warned = new Set<string>();

  options.onWarning(
    `zeusd has no leases: only a watchdog process of this gateway (${options.watchdogMs} ms) puts its GPUs back to default clocks. If gateway and watchdog are killed together while they are slowed, they stay slow until somebody resets them (nvidia-smi -rgc). One gateway only may drive them, and whoever else reaches zeusd can override it; paceline-agent has none of these limits`,
  );

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
    try {
      const found = await client.discover();
      if (mine !== attempt) return;
      const there = groupsThere(found.gpus.map(({ id }) => id), found.enabled_api_groups);
      if (there.length === 0) return standBy('none', 'zeusd has no GPU that is configured here and may be set');
      const started = watchdog?.alive() === true ? watchdog : await startZeusdWatchdog({ address: options.address, gpuIds: allGpuIds, onEnd: () => standBy('lost', 'the watchdog process ended; nothing is slowed down without it') });
      watchdog = started;
      if (mine !== attempt) return closedMeanwhile(started);
      // What an earlier gateway left is not known and cannot be asked for.
      const unmended = (await Promise.all(there.map(async (group) => ((await reset(group)) ? null : group)))).filter((group) => group !== null);
      if (mine !== attempt) return;
      if (unmended.length === there.length) return standBy('lost', 'zeusd could not reset the clocks of any replica');
      retryMs = RETRY_MS.first;
      become('held', `zeusd has ${found.gpus.length} GPUs, watchdog ${options.watchdogMs} ms`);
      for (const group of there) {
        if (unmended.includes(group)) mendLater(group, RETRY_MS.first);
        else offer(group);
      }
    } catch (error) {
      if (mine === attempt) standBy('lost', messageOf(error));
    }
  }

  function closedMeanwhile(started: ZeusdWatchdog): void {
    if (state === 'closed') started.dismiss();
  }

  function groupsThere(gpuIds: readonly number[], apiGroups: readonly string[]): Group[] {
    if (!apiGroups.includes('gpu-control')) {
      warnOnce(`zeusd has only ${apiGroups.join(', ') || 'no API group'} enabled; clocks need gpu-control; they stay at default`);
      return [];
    }
    return [...groups.values()].filter((group) => {
      const missing = group.gpuIds.filter((gpuId) => !gpuIds.includes(gpuId));
      if (missing.length > 0) warnOnce(`replica ${group.replicaId}: zeusd has no ${missing.map((gpuId) => `zeusd:${gpuId}`).join(', ')}; it has ${gpuIds.map((gpuId) => `zeusd:${gpuId}`).join(', ') || 'none'}; clocks stay at default`);
      return missing.length === 0;
    });
  }

  /** Every group is let go of, and the node is tried again. What is slow, the watchdog puts back when it is due. */
  function standBy(next: NodeState, why: string): void {
    attempt++;
    become(next, why);
    for (const group of groups.values()) letGo(group);
    clearTimeout(retryTimer);
    if (state === 'closed') return;
    retryTimer = setTimeout(() => void connect(), retryMs);
    retryTimer.unref();
    retryMs = Math.min(RETRY_MS.max, retryMs * 2);
  }

  function letGo(group: Group): void {
    clearTimeout(group.lapse);
    clearTimeout(group.mend);
    group.usable = false;
    group.pending = null;
    tell(group, false, null);
  }

  function offer(group: Group): void {
    group.usable = true;
    if (!group.knobUnsupported) tell(group, true, null);
  }

  function demand({ replicaId, point, powerLimitW = null, holdMs }: ClockDemand): void {
    // zeusd can set a limit and neither tell nor restore what it was, so that nobody could put it back after us.
    if (powerLimitW !== null) warnOnce('zeusd has no way to put a power limit back, so none is set: power budgets are kept by clocks alone on its GPUs');
    const group = groups.get(replicaId);
    if (group === undefined || !group.usable || state !== 'held') return;
    const clock = clockOf(point);
    if (clock.kind === 'unsupported') {
      warnOnce(`replica ${replicaId}: zeusd is only asked for clocks, not for ${clock.knobs.join(', ')} of point ${point?.id ?? ''}; clocks stay at default`);
      group.knobUnsupported = true;
      tell(group, false, null);
      return want(group, DEFAULT_CLOCKS);
    }
    if (clock.clockMhz === null) return want(group, { point, clockMhz: null });
    const boundMs = Math.min(holdMs, options.watchdogMs - WATCHDOG_LATER_MS);
    group.lapsesAtMs = now() + boundMs;
    clearTimeout(group.lapse);
    group.lapse = setTimeout(() => want(group, DEFAULT_CLOCKS), boundMs);
    watchdog?.guard(group.gpuIds, boundMs + WATCHDOG_LATER_MS);
    want(group, { point, clockMhz: clock.clockMhz });
  }

  function want(group: Group, wanted: Wanted): void {
    if (wanted.clockMhz === null) clearTimeout(group.lapse);
    group.pending = wanted;
    pump(group);
  }

  function pump(group: Group): void {
    if (group.sending !== null || group.pending === null) return;
    group.sending = sendAll(group).finally(() => {
      group.sending = null;
      pump(group);
    });
  }

  /** One request at a time; what was demanded meanwhile goes next, and only the newest of it. */
  async function sendAll(group: Group): Promise<void> {
    while (group.pending !== null) {
      const wanted = group.pending;
      group.pending = null;
      try {
        if (wanted.clockMhz === null || now() >= group.lapsesAtMs || watchdog?.alive() !== true) await putBack(group);
        else await slowDown(group, wanted, wanted.clockMhz);
      } catch (error) {
        return failed(group, error);
      }
    }
  }

  async function slowDown(group: Group, { point }: Wanted, clockMhz: number): Promise<void> {
    if (group.set.clockMhz !== clockMhz || now() - group.set.atMs > SET_ANEW_MS) {
      await client.lockClocks(group.gpuIds, { minMhz: Math.min(options.lowestClockMhz ?? clockMhz, clockMhz), maxMhz: clockMhz });
      group.set = { clockMhz, atMs: now() };
    }
    if (group.usable && !group.knobUnsupported) tell(group, true, point?.id ?? null);
  }

  async function putBack(group: Group): Promise<void> {
    if (group.set.clockMhz !== null || now() - group.set.atMs > SET_ANEW_MS) {
      await client.resetClocks(group.gpuIds);
      group.set = { clockMhz: null, atMs: now() };
    }
    // A slow-down that was demanded meanwhile is guarded already, and is not to be forgotten.
    if (group.pending === null) watchdog?.guard(group.gpuIds, 0);
    if (group.usable && !group.knobUnsupported) tell(group, true, null);
  }

  /** One GPU that fails fails its group, all of which goes to default; no answer at all, and the node is lost. */
  function failed(group: Group, error: unknown): void {
    group.set = { clockMhz: Number.NaN, atMs: Number.NEGATIVE_INFINITY };
    if (!group.usable) return;
    if (!(error instanceof AgentError) || error.status === null || error.status === 401) return standBy('lost', messageOf(error));
    warnOnce(`replica ${group.replicaId}: ${error.message}; its GPUs go to default clocks`);
    letGo(group);
    mendLater(group, 0);
  }

  function mendLater(group: Group, waitMs: number): void {
    const mine = attempt;
    group.mend = setTimeout(async () => {
      const mended = await reset(group);
      if (mine !== attempt) return;
      if (!mended) return mendLater(group, Math.min(RETRY_MS.max, Math.max(RETRY_MS.first, waitMs * 2)));
      group.mend = setTimeout(() => offer(group), group.sparedMs);
      group.mend.unref();
      group.sparedMs = Math.min(SPARED_MS.max, group.sparedMs * 2);
    }, waitMs);
    group.mend.unref();
  }

  async function reset(group: Group): Promise<boolean> {
    // A slow-down under way must not come after it.
    await group.sending;
    try {
      await client.resetClocks(group.gpuIds);
      group.set = { clockMhz: null, atMs: now() };
      watchdog?.guard(group.gpuIds, 0);
      return true;
    } catch (error) {
      warnOnce(`replica ${group.replicaId}: ${messageOf(error)}; tried again until its GPUs are at default clocks`);
      return false;
    }
  }

  async function close(): Promise<void> {
    if (state === 'closed') return;
    become('closed', 'closing');
    attempt++;
    clearTimeout(retryTimer);
    for (const group of groups.values()) letGo(group);
    await Promise.all([...groups.values()].map(({ sending }) => sending));
    let left = watchdog === null ? [] : [...groups.values()].filter((group) => group.set.clockMhz !== null);
    for (let tries = 0; tries < CLOSING_TRIES_MAX && left.length > 0; tries++) {
      left = (await Promise.all(left.map(async (group) => ((await reset(group)) ? null : group)))).filter((group) => group !== null);
    }
    if (left.length === 0) watchdog?.dismiss();
    else {
      options.onWarning(`zeusd did not confirm default clocks of ${left.map(({ replicaId }) => replicaId).join(', ')}; the watchdog process goes on asking`);
      watchdog?.takeOver();
    }
    await client.close();
  }

  void connect();
  return { demand, powerLimits: () => 'refused', close };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
