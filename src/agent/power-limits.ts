// The second line under a power budget: limits of the devices themselves, through a lease of its own at paceline-agent. Apart from the
// clocks' lease, so that a limit that cannot be set takes no clock with it. It is taken when there is something to limit, and its
// demands lapse as clocks' do: where we fall silent the devices are back at their default, and the first line, the plan, is all there is.
import type { ReplicaId } from '../core/job.ts';
import type { AgentClient, Lease, Target, TargetResult } from './agent-client.ts';
import { batched } from './batched.ts';
import { createAgentClient } from './agent-client.ts';
import type { AgentAddress } from './connection.ts';
import { AgentError } from './connection.ts';
import type { ClockGroup } from './node-control.ts';

/** `unused`: nothing is limited. `refused`: the agent, or its policy, sets none of ours. `lost`: it is tried again. */
export type PowerLimitState = 'unused' | 'held' | 'refused' | 'lost';

export interface PowerLimits {
  /** Watts that all devices of the group may draw together, for so long unless said again; `null`: no limit. */
  want(replicaId: ReplicaId, limitW: number | null, holdMs: number): void;
  state(): PowerLimitState;
  /** Resolves when the lease is given back, or nobody can be asked. */
  close(): Promise<void>;
}

export interface PowerLimitOptions {
  readonly address: AgentAddress;
  readonly holder: string;
  readonly ttlMs: number;
  readonly groups: readonly ClockGroup[];
  readonly now: () => number;
  readonly onWarning: (message: string) => void;
  /** Told when it changes: watts that all devices of the group are held to together; `null`: to none. */
  readonly onLimit?: ((replicaId: ReplicaId, heldW: number | null) => void) | undefined;
}

const RETRY_MS = { first: 200, max: 5_000 };
/** A policy may be changed meanwhile. */
const REFUSED_RETRY_MS = 60_000;
/** So long after the last limit the lease is given back: held, it would keep others from limiting. */
const UNUSED_MS = 5_000;
const SILENCE_MS_MAX = 3_500;

interface Wanted {
  readonly limitW: number | null;
  readonly lapsesAtMs: number;
}

interface Group extends ClockGroup {
  /** The agent lets us limit all of its devices. */
  available: boolean;
  /** Newest, and what was sent last. */
  wanted: Wanted | null;
  sent: Wanted | null;
  /** As it was told. */
  heldW: number | null;
}

interface Hold {
  readonly lease: Lease;
  seq: number;
  sending: boolean;
  sentAtMs: number;
  heardAtMs: number;
}

export function createPowerLimits({ address, holder, ttlMs, now, onWarning, onLimit, ...options }: PowerLimitOptions): PowerLimits {
  const client: AgentClient = createAgentClient(address);
  const groups = new Map<string, Group>(options.groups.map((group) => [group.replicaId, { ...group, available: false, wanted: null, sent: null, heldW: null }]));
  let state: PowerLimitState | 'connecting' | 'closed' = 'unused';
  let hold: Hold | null = null;
  /** Of the try at a lease that counts. */
  let attempt = 0;
  let retryMs = RETRY_MS.first;
  let retryTimer: NodeJS.Timeout | undefined;
  const sendSoon = batched(() => void send());
  let limitedAtMs = Number.NEGATIVE_INFINITY;
  const warned = new Set<string>();

  function warnOnce(message: string): void {
    if (warned.has(message)) return;
    warned.add(message);
    onWarning(message);
  }

  function tell(group: Group, heldW: number | null): void {
    if (group.heldW === heldW) return;
    group.heldW = heldW;
    onLimit?.(group.replicaId, heldW);
  }

  async function connect(): Promise<void> {
    const mine = ++attempt;
    state = 'connecting';
    try {
      const devices = groupsThere(await client.devices());
      if (mine !== attempt) return;
      if (devices.length === 0) return standBy('refused', REFUSED_RETRY_MS);
      const lease = await client.lease({ holder, devices, controls: ['power_limit'], ttlMs }, heard, ({ why }) => mine === attempt && lost(why));
      if (mine !== attempt) return lease.abandon();
      hold = { lease, seq: 0, sending: false, sentAtMs: now(), heardAtMs: now() };
      state = 'held';
      for (const group of groups.values()) group.sent = null;
      void send();
    } catch (error) {
      if (mine !== attempt) return;
      const refused = error instanceof AgentError && (error.status === 403 || error.status === 409);
      if (refused) warnOnce(`the agent lets us set no power limit (${error.message}); power budgets are kept by clocks alone`);
      if (refused) standBy('refused', REFUSED_RETRY_MS);
      else lost(error instanceof Error ? error.message : String(error));
    }
  }

  /** Devices of the groups that may be limited; of the others it is said once. */
  function groupsThere(devices: Awaited<ReturnType<AgentClient['devices']>>): string[] {
    const controls = new Map(devices.map((device) => [device.device, device.controls]));
    for (const group of groups.values()) {
      const fixed = group.devices.filter((device) => controls.get(device)?.includes('power_limit') !== true);
      group.available = fixed.length === 0;
      if (fixed.length > 0) warnOnce(`replica ${group.replicaId}: the agent's policy lets us set no power limit of ${fixed.join(', ')}; power budgets are kept by its clocks alone`);
    }
    return [...groups.values()].filter(({ available }) => available).flatMap((group) => group.devices);
  }

  function heard(): void {
    if (hold !== null) hold.heardAtMs = now();
  }

  function lost(why: string): void {
    if (state === 'closed') return;
    warnOnce(`power limits are not held at the agent (${why}); it is tried again, and power budgets are kept by clocks alone meanwhile`);
    standBy('lost', retryMs);
    retryMs = Math.min(RETRY_MS.max, retryMs * 2);
  }

  function standBy(next: 'refused' | 'lost' | 'unused', againInMs: number | null): void {
    attempt++;
    hold?.lease.abandon();
    hold = null;
    state = next;
    for (const group of groups.values()) tell(group, null);
    clearTimeout(retryTimer);
    if (againInMs === null) return;
    retryTimer = setTimeout(() => (isLimiting() ? void connect() : (state = 'unused')), againInMs);
    retryTimer.unref();
  }

  /** Some group is to be limited still. */
  function isLimiting(): boolean {
    const nowMs = now();
    return [...groups.values()].some(({ wanted }) => wanted !== null && wanted.limitW !== null && wanted.lapsesAtMs > nowMs);
  }

  function want(replicaId: ReplicaId, limitW: number | null, holdMs: number): void {
    const group = groups.get(replicaId);
    if (group === undefined || state === 'closed') return;
    group.wanted = { limitW, lapsesAtMs: now() + holdMs };
    if (limitW !== null) limitedAtMs = now();
    if (state === 'unused' && limitW !== null) void connect();
    sendSoon();
  }

  /** All that has changed or has used half of its hold; an empty list where only the lease needs renewing. */
  async function send(renewOnly = false): Promise<void> {
    const current = hold;
    if (current === null || current.sending) return;
    const due = [...groups.values()].filter(isDue);
    if (due.length === 0 && !renewOnly) return;
    current.sending = true;
    current.sentAtMs = now();
    const targets = due.map(targetOf);
    try {
      const results = await client.putTargets(current.lease, ++current.seq, targets);
      if (hold !== current) return;
      current.sending = false;
      current.heardAtMs = now();
      retryMs = RETRY_MS.first;
      for (const group of due) settle(group, results.filter(({ device }) => group.devices.includes(device)));
      void send();
    } catch (error) {
      if (hold === current) lost(error instanceof Error ? error.message : String(error));
    }
  }

  function isDue({ available, wanted, sent }: Group): boolean {
    if (!available || wanted === null || wanted === sent) return false;
    if (sent === null || sent.limitW !== wanted.limitW) return wanted.limitW !== null || (sent !== null && sent.limitW !== null);
    // Renewed at half of its hold: clocks are every period, and limits need not be.
    return wanted.limitW !== null && sent.lapsesAtMs - now() < (wanted.lapsesAtMs - now()) / 2;
  }

  function targetOf(group: Group): Target {
    const { limitW, lapsesAtMs } = group.wanted as Wanted;
    group.sent = group.wanted;
    const holdMs = Math.floor(lapsesAtMs - now());
    const limitMw = limitW === null || holdMs <= 0 ? null : Math.floor((limitW * 1_000) / group.devices.length);
    return { devices: group.devices, power_limit_mw: limitMw, hold_ms: Math.max(1, holdMs) };
  }

  function settle(group: Group, results: readonly TargetResult[]): void {
    for (const { device, status, clamped, demand_mw: demandMw } of results) {
      if (status !== 'applied' && status !== 'deferred') warnOnce(`the agent says '${status}' of the power limit of ${device}; power budgets are kept by clocks alone there`);
      else if (clamped === 'floor') warnOnce(`the power limit of ${device} can go no lower than ${(demandMw ?? 0) / 1_000} W; below that power budgets are kept by clocks alone`);
    }
    // It is applied later, and until then what was told before holds.
    if (results.some(({ status }) => status === 'deferred')) return;
    const applied = results.length === group.devices.length && results.every(({ status, target_mw: targetMw }) => status === 'applied' && targetMw != null);
    tell(group, applied ? results.reduce((sum, { target_mw: targetMw }) => sum + (targetMw ?? 0), 0) / 1_000 : null);
  }

  const keeper = setInterval(() => {
    const current = hold;
    if (current === null) return;
    const nowMs = now();
    if (nowMs - current.heardAtMs > SILENCE_MS_MAX) lost(`nothing heard from the agent for ${SILENCE_MS_MAX} ms`);
    else if (nowMs - limitedAtMs > UNUSED_MS && !current.sending) {
      hold = null;
      void giveBack(current);
      standBy('unused', null);
    } else if (nowMs - current.sentAtMs >= ttlMs / 4) void send(true);
  }, ttlMs / 12);
  keeper.unref();

  async function giveBack({ lease }: Hold): Promise<void> {
    await client.release(lease).catch((error: unknown) => onWarning(`the lease of power limits was not given back (${error instanceof Error ? error.message : String(error)}); the agent ends it by itself`));
    lease.abandon();
  }

  return {
    want,
    state: () => (state === 'connecting' || state === 'closed' ? 'unused' : state),
    close: async () => {
      if (state === 'closed') return;
      const held = hold;
      hold = null;
      standBy('unused', null);
      state = 'closed';
      clearInterval(keeper);
      if (held !== null) await giveBack(held);
      await client.close();
    },
  };
}
