// Power budgets over the fleet as it stands: which replica has which limit, told so that no budget is exceeded while limits move, and the slower machine
// that each is under its limit. How watts are shared out is `core/power-budget.ts`.
import { planOfGroup, planServer, serverRisk } from '../core/group-plan.ts';
import { pricedUnder } from '../core/corrections.ts';
import type { ReplicaId } from '../core/job.ts';
import { allotPower, leastToServeW, limitsOnTheWay, type LossAtLimit, type PowerBudget, type PowerClaim } from '../core/power-budget.ts';
import type { Plan } from '../core/planner.ts';
import type { ReplicaView } from '../core/replica-view.ts';
import { type LoadShape, pointRate } from '../core/point-rate.ts';
import { NO_DECODE, NO_PREFILL, type IterationWork, type PerformanceModel, type PointIndex } from '../frontier/performance-model.ts';
import { type PowerLimitedModel, limitedModel, powerRange, type PowerRange } from '../frontier/power-limited.ts';
import { isControlled, type Replica } from './replica.ts';
import { isAskedFor, restingClaim, WAKE_ASKED, type WakeAsked, wakingNeedsW } from './resting-claim.ts';

/** What falls to a replica of what arrives and waits, for telling what it is worth to it to be fast. */
export interface PowerDemand extends LoadShape {
  readonly perMs: number;
  readonly worthMean: number;
}

/** For operator routes and the dashboard. */
export interface BudgetStatus {
  readonly name: string;
  readonly watts: number;
  /** What the limits under it add up to; replicas that cannot be limited count with their peaks. */
  readonly allottedW: number;
  /** By the counters of all that is under it; `null` where they are not read. */
  readonly drawnW: number | null;
  /** Even with everything at its lowest it would be exceeded. */
  readonly exceeded: boolean;
  /** By what is believed, not even one of what is under it can be at its floor: nothing is served until it is raised. */
  readonly servesNothing: boolean;
}

export interface PowerLimits {
  /** Some budget was told, ever: limits are spoken of. */
  isOn(): boolean;
  /** From now on; `allot` is to follow. */
  budgetsAre(budgets: readonly PowerBudget[]): void;
  /** New targets for all, and limits as far as they may move now. */
  allot(nowMs: number): void;
  /** Devices have followed: limits that waited for that move on. Whether any did. */
  moveOn(nowMs: number): boolean;
  /** Watts for each device group of the replica; `null`: no limit; `undefined`: nothing was ever told. */
  limitOf(replica: Replica): number | null | undefined;
  /** The fastest point, not faster than the given one, at which the work that is there keeps within the replica's limit. */
  pointWithin(replica: Replica, group: Replica['groups'][number], point: PointIndex, nowMs: number): PointIndex;
  /** It gets nothing more. */
  isClosed(replica: Replica): boolean;
  /** Whether one that is asleep has had the watts for being awake for a while; asking sets them aside, where others do not save more worth with them. */
  mayWake(replica: Replica, nowMs: number): boolean;
  status(drawnW: (replica: Replica) => number | null): readonly BudgetStatus[];
}

interface Held {
  /** What it may draw, as it was told; `null`: anything. */
  limitW: number | null;
  targetW: number | null;
  closed: boolean;
  losses: readonly LossAtLimit[] | null;
  wanted: { readonly structure: number; readonly atMs: number; readonly plan: Plan } | null;
  wakes: WakeAsked | null;
}

/** Limits are whole parts of a replica's peak, so that there are not too many models of slower machines. */
const LIMIT_STEPS = 128;
/** At how many limits losses are looked at. */
const LEVELS_MAX = 12;
/** Losses are looked at anew of so many replicas in one allotment, in turns: a control period must not be spent on a large fleet's. */
const LOSSES_ANEW_MAX = 16;
/** Devices cannot be held below their slowest clock, and may draw so much more there than is believed; less is set aside where that would leave nobody to serve. */
const FLOOR_MARGIN = 1.2;
/** So long what arrives counts when it is weighed what is lost at a limit: limits stand for less, what is lost by then is not. */
const HORIZON_MS = 1_000;
/** Where nothing comes at all, as many as can be are ready for something. */
const READY_WORTH = 0.01;
/** A plan without limits is made anew after so long, or when jobs came or went. */
const WANTED_FOR_MS = 400;
/** Limits are left as they are while everybody has what it wants, and no more than this share of a budget is left idle that somebody lacks. */
const IDLE_SHARE_MAX = 0.05;

export interface PowerLimitsOptions {
  readonly replicas: readonly Replica[];
  readonly demandOf: (replica: Replica, nowMs: number) => PowerDemand;
}

export function createPowerLimits({ replicas, demandOf }: PowerLimitsOptions): PowerLimits {
  let budgets: readonly PowerBudget[] = [];
  let on = false;
  /** Of allotments; sets whose losses are looked at anew. */
  let turn = 0;
  let exceeded: readonly string[] = [];
  const held = new WeakMap<Replica, Held>();
  /** Made anew with each allotment, for learnt models move. */
  let ranges = new Map<PerformanceModel, PowerRange>();
  /** Of those under a budget that has not room for `FLOOR_MARGIN` with even one of them at its floor; no less than 1. */
  let margins: ReadonlyMap<ReplicaId, number> = new Map();
  let servesNothing: readonly string[] = [];
  /** By belief and limit: no more than `LIMIT_STEPS` of each. */
  const models = new WeakMap<PerformanceModel, Map<number, PowerLimitedModel>>();

  function heldOf(replica: Replica): Held {
    let state = held.get(replica);
    if (state === undefined) {
      state = { limitW: null, targetW: null, closed: false, losses: null, wanted: null, wakes: null };
      held.set(replica, state);
    }
    return state;
  }

  function rangeOf({ spec: { belief } }: Replica): PowerRange {
    let range = ranges.get(belief);
    if (range === undefined) {
      range = powerRange(belief);
      ranges.set(belief, range);
    }
    return range;
  }

  function modelUnder(belief: PerformanceModel, groupLimitW: number): PowerLimitedModel {
    let byLimit = models.get(belief);
    if (byLimit === undefined) {
      byLimit = new Map();
      models.set(belief, byLimit);
    }
    let model = byLimit.get(groupLimitW);
    if (model === undefined) {
      model = limitedModel(belief, groupLimitW);
      byLimit.set(groupLimitW, model);
    }
    return model;
  }

  /** Of one group, rounded down to a whole step. */
  function stepped(replica: Replica, groupW: number): number {
    const stepW = rangeOf(replica).peakW / LIMIT_STEPS;
    return Math.floor(groupW / stepW + 1e-6) * stepW;
  }

  function viewWithout(replica: Replica, nowMs: number): ReplicaView {
    return { ...replica.queue.view(nowMs), model: replica.spec.belief, priced: replica.queue.corrections.priced };
  }

  function wantedPlan(replica: Replica, nowMs: number): Plan {
    const state = heldOf(replica);
    const structure = replica.queue.structure();
    if (state.wanted !== null && state.wanted.structure === structure && nowMs - state.wanted.atMs < WANTED_FOR_MS && state.wanted.plan.kind === 'meets') return state.wanted.plan;
    const plan = planServer(viewWithout(replica, nowMs));
    state.wanted = { structure, atMs: nowMs, plan };
    return plan;
  }

  function groupFloorW(replica: Replica, margin = marginOf(replica)): number {
    const { floorW, peakW } = rangeOf(replica);
    const { belief } = replica.spec;
    return Math.min(peakW, Math.max(margin * floorW, ...belief.points.map((_, point) => belief.idlePowerW(point))));
  }

  function marginOf({ spec }: Replica): number {
    return margins.get(spec.replicaId) ?? FLOOR_MARGIN;
  }

  /** By what is believed, with nothing set aside for its being wrong. `mayFallAsleep`: as if all that can sleep did. */
  function bareClaimOf(replica: Replica, mayFallAsleep: boolean): Pick<PowerClaim, 'idleW' | 'floorW'> {
    const groups = replica.groups.length;
    const { idleW, peakW } = rangeOf(replica);
    if (!isAllControlled(replica)) return { idleW: groups * peakW, floorW: groups * peakW };
    return { idleW: replica.rest?.kind === 'asleep' || (mayFallAsleep && replica.rest !== null) ? (replica.spec.sleep?.powerW ?? 0) : groups * idleW, floorW: groups * groupFloorW(replica, 1) };
  }

  /** What is set aside for beliefs that are wrong, budget by budget. */
  function setMargins(): void {
    const next = new Map<ReplicaId, number>();
    const none: string[] = [];
    for (const { name, watts, replicaIds } of budgets) {
      const ids = new Set(replicaIds);
      const members = replicas.filter(({ spec }) => ids.has(spec.replicaId));
      const leastW = leastToServeW(members.map((replica) => bareClaimOf(replica, false)));
      if (watts >= FLOOR_MARGIN * leastW) continue;
      // Who cannot be limited is not closed either.
      if (watts < leastW && members.every(isAllControlled) && watts < leastToServeW(members.map((replica) => bareClaimOf(replica, true)))) none.push(name);
      for (const replicaId of replicaIds) next.set(replicaId, Math.min(next.get(replicaId) ?? FLOOR_MARGIN, Math.max(1, watts / leastW)));
    }
    margins = next;
    servesNothing = none;
  }

  function claimOf(replica: Replica, nowMs: number): PowerClaim {
    const { idleW, peakW, pointsW } = rangeOf(replica);
    const { replicaId } = replica.spec;
    const groups = replica.groups.length;
    if (!isAllControlled(replica)) return { replicaId, idleW: groups * idleW, floorW: groups * peakW, peakW: groups * peakW, busy: true, wantedW: groups * peakW, fixed: true, losses: () => [] };
    const floorW = groupFloorW(replica);
    const asked = replica.rest?.kind === 'asleep' && isAskedFor(heldOf(replica).wakes, nowMs);
    const resting = restingClaim(replica, { floorW: groups * floorW, idleW: marginOf(replica) * groups * idleW }, asked);
    if (resting !== null) return resting;
    const leastW = asked ? (replica.spec.sleep?.powerW ?? 0) : marginOf(replica) * groups * idleW;
    const busy = !isIdle(replica);
    const plan = wantedPlan(replica, nowMs);
    const wantedW = busy ? replica.groups.reduce((sum, group) => sum + (pointsW[planOfGroup(plan, group.phase).point] as number), 0) : groups * floorW;
    return {
      replicaId,
      idleW: Math.min(groups * floorW, leastW),
      floorW: groups * floorW,
      peakW: groups * peakW,
      busy,
      wantedW,
      losses: () => {
        const state = heldOf(replica);
        const isItsTurn = (replica.index + turn * LOSSES_ANEW_MAX) % Math.max(1, replicas.length) < LOSSES_ANEW_MAX;
        if (isItsTurn || state.losses === null) state.losses = lossesOf(replica, { idleW: leastW, floorW, groups }, nowMs);
        return state.losses;
      },
    };
  }

  /** Worth of what is there and would be late, and of what arrives within the horizon beyond what can be taken. */
  function lossesOf(replica: Replica, { idleW, floorW, groups }: { readonly idleW: number; readonly floorW: number; readonly groups: number }, nowMs: number): readonly LossAtLimit[] {
    const { belief } = replica.spec;
    const view = viewWithout(replica, nowMs);
    const { corrections } = replica.queue;
    const demand = demandOf(replica, nowMs);
    const learnt = { timeScale: corrections.time, priced: corrections.priced, parkedW: 0 };
    const arrivesWorth = demand.perMs * HORIZON_MS * demand.worthMean;
    const levels = levelsOf(rangeOf(replica), floorW).map((groupW): LossAtLimit => {
      const model = modelUnder(belief, stepped(replica, groupW));
      const { mostPerMs } = pointRate(model, belief.fastest, demand, learnt);
      const beyond = demand.perMs <= 0 ? 0 : Math.max(0, 1 - Math.max(0, mostPerMs) / demand.perMs);
      const { expected } = serverRisk({ ...view, model, priced: pricedUnder(corrections.priced, model) });
      return { limitW: groups * groupW, loss: expected + arrivesWorth * beyond };
    });
    return [{ limitW: idleW, loss: (levels[0]?.loss ?? 0) + arrivesWorth + READY_WORTH }, ...levels];
  }

  /** What it may draw until its devices have followed. */
  function mayDrawW(replica: Replica): number {
    const { limitW } = heldOf(replica);
    const { pointsW, peakW } = rangeOf(replica);
    // Whatever its clocks, a server that sleeps draws no more than that.
    if (replica.rest?.kind === 'asleep' && isControlled(replica)) return replica.spec.sleep?.powerW ?? 0;
    const ofGroupW = replica.groups.reduce((sum, { applied, controlled, limitHeldW }) => {
      if (!controlled) return sum + peakW;
      return sum + Math.min(peakW, limitHeldW === undefined || limitHeldW === null ? (pointsW[applied ?? replica.spec.belief.fastest] as number) : limitHeldW);
    }, 0);
    return Math.max(ofGroupW, Math.min(limitW ?? 0, replica.groups.length * peakW));
  }

  function setLimit(replica: Replica, limitW: number | null, nowMs: number): boolean {
    const state = heldOf(replica);
    const groups = replica.groups.length;
    const steppedW = limitW === null ? null : groups * stepped(replica, limitW / groups);
    if (state.limitW === steppedW) return false;
    state.limitW = steppedW;
    const capsAnything = steppedW !== null && steppedW < groups * rangeOf(replica).peakW;
    replica.queue.limited(capsAnything ? modelUnder(replica.spec.belief, steppedW / groups) : null, nowMs);
    return true;
  }

  /** Lowered at once, raised as far as what others are known to have given up allows. */
  function move(nowMs: number): boolean {
    const states = replicas.map((replica) => heldOf(replica));
    const onTheWay = limitsOnTheWay(
      replicas.map((replica, index) => ({ replicaId: replica.spec.replicaId, holdsW: mayDrawW(replica), targetW: states[index]?.targetW ?? Number.POSITIVE_INFINITY })),
      budgets,
    );
    let moved = false;
    for (const [index, replica] of replicas.entries()) {
      const limitW = onTheWay[index] as number;
      if (setLimit(replica, limitW === Number.POSITIVE_INFINITY ? null : limitW, nowMs)) moved = true;
    }
    return moved;
  }

  return {
    isOn: () => on,
    budgetsAre(next) {
      budgets = next;
      on ||= next.length > 0;
    },
    allot(nowMs) {
      ranges = new Map();
      turn += 1;
      setMargins();
      const under = new Set(budgets.flatMap(({ replicaIds }) => replicaIds));
      const claims = replicas.filter(({ spec }) => under.has(spec.replicaId)).map((replica) => ({ replica, claim: claimOf(replica, nowMs) }));
      const allotment = allotPower(claims.map(({ claim }) => claim), budgets);
      exceeded = allotment.exceeded;
      const targets = new Map(claims.map(({ replica }, index) => [replica, allotment.limitsW[index] as number]));
      const closed = new Map(claims.map(({ replica }, index) => [replica, allotment.closed[index] === true]));
      const stay = allotment.enough && claims.every(({ replica, claim }) => mayStay(replica, claim, targets.get(replica) as number)) && fits(claims.map(({ replica }) => replica));
      for (const replica of replicas) {
        const state = heldOf(replica);
        state.closed = closed.get(replica) ?? false;
        if (!stay || !targets.has(replica)) state.targetW = targets.get(replica) ?? null;
      }
      move(nowMs);
    },
    moveOn(nowMs) {
      return on && move(nowMs);
    },
    limitOf(replica) {
      if (!on) return undefined;
      const { limitW } = heldOf(replica);
      return limitW === null ? null : limitW / replica.groups.length;
    },
    pointWithin(replica, group, point, nowMs) {
      const { limitW } = heldOf(replica);
      if (!on || limitW === null) return point;
      const { belief } = replica.spec;
      const groupW = limitW / replica.groups.length;
      const model = modelUnder(belief, groupW);
      // Devices that are not heard to be held to a limit are kept within it by their clock alone, whatever comes.
      if (group.limitHeldW === undefined || group.limitHeldW === null) {
        const { pointsW } = rangeOf(replica);
        return belief.bySlowness.findLast((candidate) => (pointsW[candidate] as number) <= groupW && (belief.speedRank[candidate] as number) >= (belief.speedRank[point] as number)) ?? (belief.bySlowness[0] as PointIndex);
      }
      if (isIdle(replica)) return heldOf(replica).closed ? leastIdle(belief) : point;
      return model.heldAt(steadyWork(replica.queue.view(nowMs), group.phase), point);
    },
    isClosed: (replica) => on && heldOf(replica).closed,
    mayWake(replica, nowMs) {
      const state = heldOf(replica);
      if (!on || state.targetW === null || !isControlled(replica)) return true;
      const hasRoom = isAskedFor(state.wakes, nowMs) && !state.closed && state.targetW >= wakingNeedsW(replica, replica.groups.length * groupFloorW(replica));
      const roomSinceMs = hasRoom ? (state.wakes?.roomSinceMs ?? nowMs) : null;
      state.wakes = { askedAtMs: nowMs, roomSinceMs };
      return roomSinceMs !== null && nowMs - roomSinceMs >= WAKE_ASKED.roomForMs;
    },
    status: (drawnOf) =>
      budgets.map(({ name, watts, replicaIds }) => {
        const members = replicas.filter(({ spec }) => replicaIds.includes(spec.replicaId));
        const drawn = members.map(drawnOf);
        return {
          name,
          watts,
          allottedW: members.reduce((sum, replica) => sum + (isControlled(replica) ? (heldOf(replica).limitW ?? mayDrawW(replica)) : mayDrawW(replica)), 0),
          drawnW: drawn.some((powerW) => powerW === null) ? null : drawn.reduce<number>((sum, powerW) => sum + (powerW ?? 0), 0),
          exceeded: exceeded.includes(name),
          servesNothing: servesNothing.includes(name),
        };
      }),
  };

  /** Its limit is what it wants or more, and not far below what it could have. */
  function mayStay(replica: Replica, { wantedW, peakW }: PowerClaim, targetW: number): boolean {
    const { targetW: standsW } = heldOf(replica);
    return standsW !== null && standsW >= wantedW && targetW - standsW <= IDLE_SHARE_MAX * peakW;
  }

  function fits(members: readonly Replica[]): boolean {
    const standsW = new Map(members.map((replica) => [replica.spec.replicaId, heldOf(replica).targetW ?? Number.POSITIVE_INFINITY]));
    return budgets.every(({ watts, replicaIds }) => replicaIds.reduce((sum, replicaId) => sum + (standsW.get(replicaId) ?? 0), 0) <= watts);
  }
}

function isAllControlled({ groups }: Replica): boolean {
  return groups.every(({ controlled }) => controlled);
}

function isIdle({ queue }: Replica): boolean {
  return queue.waitingCount() + queue.runningCount() + queue.foreignCount() === 0;
}

function leastIdle(belief: PerformanceModel): PointIndex {
  return belief.points.reduce((least, _, point) => (belief.idlePowerW(point) < belief.idlePowerW(least) ? point : least), 0);
}

/** Limits of one group that are looked at, ascending: its floor, and what its points draw. */
function levelsOf({ pointsW }: PowerRange, floorW: number): readonly number[] {
  const levels = [...new Set([floorW, ...pointsW.filter((watts) => watts > floorW)])].sort((a, b) => a - b);
  if (levels.length <= LEVELS_MAX) return levels;
  return Array.from({ length: LEVELS_MAX }, (_, index) => levels[Math.round((index * (levels.length - 1)) / (LEVELS_MAX - 1))] as number);
}

/**
 * What a group is at for most of the time: its streams; prompts where it has no others. Devices that hold a limit throttle what is hungrier by themselves,
 * for as long as a prompt takes; a clock for that would hold back every step between prompts, too.
 */
function steadyWork(view: ReplicaView, phase: Replica['groups'][number]['phase']): IterationWork {
  const { maxBatchTokens } = view.model.profile.serving;
  const unread = view.waiting.reduce((sum, { promptTokens, prefilledTokens }) => sum + Math.max(1, promptTokens - prefilledTokens), 0);
  const sequences = view.runningCount + view.foreignSequences;
  return {
    prefill: phase === 'decode' || (phase !== 'prefill' && sequences > 0) || unread === 0 ? NO_PREFILL : { tokens: Math.min(maxBatchTokens, unread), contextTokens: 0 },
    decode: phase === 'prefill' || sequences === 0 ? NO_DECODE : { sequences, contextTokens: view.contextTokens },
  };
}
