// Power budgets: watts that sets of replicas may draw together, and how those are shared out as a limit for each replica, so that in every
// budget the limits add up to no more than it. Pure: what each would lose at which limit in, limits out.
import type { ReplicaId } from './job.ts';

/** A replica may be under several: of its device, node, rack, fleet. */
export interface PowerBudget {
  readonly name: string;
  readonly watts: number;
  readonly replicaIds: readonly ReplicaId[];
}

/** What a replica would lose under a limit: worth of the deadlines that are expected to be missed. */
export interface LossAtLimit {
  readonly limitW: number;
  readonly loss: number;
}

/** A replica that wants watts. */
export interface PowerClaim {
  readonly replicaId: ReplicaId;
  /** What it draws with nothing to do: nothing lower can be kept. */
  readonly idleW: number;
  /** What it draws at its slowest, whatever it does: under a lower limit it can be sent no work. */
  readonly floorW: number;
  /** No work draws more: a higher limit is none. */
  readonly peakW: number;
  /** It has work now, and so cannot be held to less than its floor. */
  readonly busy: boolean;
  /** What its plan needs where it is alone. */
  readonly wantedW: number;
  /** Its draw cannot be limited: it is taken to draw its peak. */
  readonly fixed?: boolean;
  /** By limit, ascending, the first at `idleW` (it is sent nothing), the last at `wantedW` or above; asked for only where there is not enough for all. */
  readonly losses: () => readonly LossAtLimit[];
}

export interface PowerAllotment {
  /** Watts, in the order of the claims. */
  readonly limitsW: readonly number[];
  /** Below its floor: it is sent nothing more, and draws its idle power once it has nothing left. */
  readonly closed: readonly boolean[];
  /** Names of budgets that are exceeded even with everything at its lowest. */
  readonly exceeded: readonly string[];
  /** All get what they want. */
  readonly enough: boolean;
}

/** A budget in which even idling draws more than it allows. */
export class InfeasibleBudget extends Error {
  override name = 'InfeasibleBudget';
  readonly budget: string;
  readonly watts: number;
  readonly idleW: number;
  constructor(budget: string, watts: number, idleW: number) {
    super(`power budget '${budget}': got ${Math.round(watts)} W, and what is under it draws ${Math.round(idleW)} W with nothing to do; want at least that`);
    this.budget = budget;
    this.watts = watts;
    this.idleW = idleW;
  }
}

/** Throws `InfeasibleBudget` for the first budget below the idle power of what is under it; `idleW` of a replica that is not known: 0. */
export function assertFeasible(budgets: readonly PowerBudget[], idleW: (replicaId: ReplicaId) => number): void {
  for (const { name, watts, replicaIds } of budgets) {
    const sumW = replicaIds.reduce((sum, replicaId) => sum + idleW(replicaId), 0);
    if (watts < sumW) throw new InfeasibleBudget(name, watts, sumW);
  }
}

/** The least watts at which anything under a budget can be served: one at its floor, and the others with nothing to do; 0 where nothing is under it. */
export function leastToServeW(members: readonly Pick<PowerClaim, 'idleW' | 'floorW'>[]): number {
  if (members.length === 0) return 0;
  return members.reduce((sum, { idleW }) => sum + idleW, 0) + Math.min(...members.map(({ idleW, floorW }) => Math.max(0, floorW - idleW)));
}

/** A difference in worth that is none. */
const LOSS_TOLERANCE = 1e-9;

/** Watts that are rounding. */
const WATTS_TOLERANCE = 1e-6;

/**
 * Shares the budgets out. First come floors of what has work; then watts go where the most worth is saved per watt, along the lower convex hull of each
 * claim's losses; then to what plans want beyond (at which they take the least energy); the rest is room for what may come, to all the same part of what they lack of
 * their peaks. Where a floor does not fit its replica is closed.
 *
 * The greedy step is exact for the hulls, and so for losses that are convex, where budgets are nested or disjoint: the limits that fit
 * are then a polymatroid (Federgruen and Groenevelt, The greedy procedure for resource allocation problems, Operations Research 34 (1986)). Where
 * budgets cross each other it is a heuristic, whose limits fit all the same. O(n·levels·log) and a pass over the budgets for each step.
 */
export function allotPower(claims: readonly PowerClaim[], budgets: readonly PowerBudget[]): PowerAllotment {
  const left = createBudgetsLeft(claims, budgets);
  const limitsW = claims.map((claim) => lowestOf(claim));
  const exceeded = left.exceeded(limitsW);
  if (exceeded.length > 0 && claims.some(({ busy }) => busy)) {
    // Who would be served if nobody had work yet: the others get nothing more, so that their watts come free.
    const { limitsW: wouldBeW } = allotPower(claims.map((claim) => ({ ...claim, busy: false })), budgets);
    return { limitsW, closed: claims.map(({ floorW, fixed = false }, index) => !fixed && Math.min(limitsW[index] as number, wouldBeW[index] as number) < floorW - WATTS_TOLERANCE), exceeded, enough: false };
  }
  for (const [index, limitW] of limitsW.entries()) left.take(index, limitW);
  const wanted = claims.map((claim, index) => Math.max(limitsW[index] as number, Math.min(claim.peakW, Math.max(claim.floorW, claim.wantedW))));
  const enough = exceeded.length === 0 && left.fits(wanted.map((watts, index) => watts - (limitsW[index] as number)));
  const closed = enough ? claims.map(() => false) : saveWorthOpen(claims, limitsW, left);
  const open = (index: number): boolean => closed[index] === false;
  fill(limitsW, (index) => (open(index) ? (wanted[index] as number) : 0), left);
  fill(limitsW, (index) => (open(index) && claims[index]?.fixed !== true ? (claims[index] as PowerClaim).peakW : 0), left);
  return { limitsW, closed, exceeded, enough };
}

/**
 * Limits on the way from those that hold now to their targets: what is lowered is lowered at once, and what is raised gets as much as is free already. `holdsW`:
 * what each may draw until then, by the limits that its devices are known to have. Called again when a device has followed.
 */
export function limitsOnTheWay(replicas: readonly { readonly replicaId: ReplicaId; readonly holdsW: number; readonly targetW: number }[], budgets: readonly PowerBudget[]): readonly number[] {
  const left = createBudgetsLeft(replicas, budgets);
  for (const [index, { holdsW }] of replicas.entries()) left.take(index, holdsW);
  const raisedW = replicas.map(({ holdsW }) => holdsW);
  // Who is under no budget has no limit to wait for.
  fill(raisedW, (index) => (Number.isFinite(replicas[index]?.targetW) ? (replicas[index]?.targetW ?? 0) : 0), left);
  return replicas.map(({ targetW }, index) => (targetW === Number.POSITIVE_INFINITY ? targetW : Math.min(targetW, raisedW[index] as number)));
}

/** What it cannot be held below. */
function lowestOf({ idleW, floorW, peakW, busy, fixed = false }: PowerClaim): number {
  return fixed ? peakW : busy ? floorW : idleW;
}

/**
 * Raises limits where that saves the most worth, and tells who is closed for not having got to its floor: beyond its idle power, watts below that are of no use to
 * it, and the others have them instead. Each round closes somebody, or is the last.
 */
function saveWorthOpen(claims: readonly PowerClaim[], limitsW: number[], left: BudgetsLeft): boolean[] {
  const closed = claims.map(() => false);
  for (;;) {
    saveWorth(claims, limitsW, left, closed);
    const short = claims.flatMap((claim, index) => (claim.fixed === true || (limitsW[index] as number) >= claim.floorW - WATTS_TOLERANCE ? [] : [{ index, backW: (limitsW[index] as number) - lowestOf(claim) }]));
    const givingBack = short.filter(({ backW }) => backW > WATTS_TOLERANCE);
    for (const { index, backW } of givingBack) {
      closed[index] = true;
      left.take(index, -backW);
      limitsW[index] = (limitsW[index] as number) - backW;
    }
    if (givingBack.length > 0) continue;
    for (const { index } of short) closed[index] = true;
    return closed;
  }
}

/** Raises limits along the hulls, the most worth for a watt first. */
function saveWorth(claims: readonly PowerClaim[], limitsW: number[], left: BudgetsLeft, closed: readonly boolean[]): void {
  const steps = claims.flatMap((claim, index) => (claim.fixed === true || closed[index] === true ? [] : lowerHull(claim.losses().filter(({ limitW }) => limitW >= (limitsW[index] as number) - WATTS_TOLERANCE)).map((segment) => ({ index, ...segment }))));
  steps.sort((a, b) => b.lossPerW - a.lossPerW || a.toW - b.toW || a.index - b.index);
  const full = new Set<number>();
  for (const { index, toW } of steps) {
    if (full.has(index)) continue;
    const moreW = toW - (limitsW[index] as number);
    if (moreW <= 0) continue;
    const fitsW = Math.min(moreW, left.roomOf(index));
    // Of a hull a replica must have the steeper part first.
    if (fitsW < moreW) full.add(index);
    if (fitsW <= 0) continue;
    limitsW[index] = (limitsW[index] as number) + fitsW;
    left.take(index, fitsW);
  }
}

/** Segments of the lower convex hull that save something, the steepest first. */
function lowerHull(losses: readonly LossAtLimit[]): { readonly toW: number; readonly lossPerW: number }[] {
  const hull: LossAtLimit[] = [];
  for (const point of losses) {
    while (hull.length >= 2 && slope(hull.at(-2) as LossAtLimit, hull.at(-1) as LossAtLimit) <= slope(hull.at(-1) as LossAtLimit, point)) hull.pop();
    if (hull.length > 0 && point.limitW <= (hull.at(-1) as LossAtLimit).limitW) continue;
    hull.push(point);
  }
  return hull.slice(1).flatMap((to, index) => {
    const lossPerW = slope(hull[index] as LossAtLimit, to);
    return lossPerW > LOSS_TOLERANCE ? [{ toW: to.limitW, lossPerW }] : [];
  });
}

/** Worth saved per watt. */
function slope(from: LossAtLimit, to: LossAtLimit): number {
  return (from.loss - to.loss) / (to.limitW - from.limitW);
}

/** Raises all towards their targets by one and the same part of what each lacks; who meets a full budget stays where it is. */
function fill(limitsW: number[], targetOf: (index: number) => number, left: BudgetsLeft): void {
  const lacksW = limitsW.map((limitW, index) => Math.max(0, targetOf(index) - limitW));
  const stopped = lacksW.map((watts) => watts <= WATTS_TOLERANCE);
  let done = 0;
  while (done < 1 && stopped.includes(false)) {
    const part = Math.min(1 - done, left.partThatFits((index) => (stopped[index] === true ? 0 : (lacksW[index] as number))));
    for (const [index, watts] of lacksW.entries()) {
      if (stopped[index] === true) continue;
      limitsW[index] = (limitsW[index] as number) + part * watts;
      left.take(index, part * watts);
    }
    done += part;
    let stoppedOne = false;
    for (const index of lacksW.keys()) {
      if (stopped[index] === true || left.roomOf(index) > WATTS_TOLERANCE) continue;
      stopped[index] = true;
      stoppedOne = true;
    }
    if (!stoppedOne) return;
  }
}

interface BudgetsLeft {
  take(index: number, watts: number): void;
  /** The least that is left in any budget over it; `Infinity` under none. */
  roomOf(index: number): number;
  fits(moreW: readonly number[]): boolean;
  /** The largest part of what all want more that fits into every budget. */
  partThatFits(moreOf: (index: number) => number): number;
  exceeded(limitsW: readonly number[]): readonly string[];
}

function createBudgetsLeft(claims: readonly { readonly replicaId: ReplicaId }[], budgets: readonly PowerBudget[]): BudgetsLeft {
  const indexOf = new Map(claims.map(({ replicaId }, index) => [replicaId, index]));
  const sets = budgets.map(({ name, watts, replicaIds }) => ({ name, leftW: watts, watts, members: [...new Set(replicaIds)].flatMap((replicaId) => indexOf.get(replicaId) ?? []) }));
  const over = claims.map((_, index) => sets.filter(({ members }) => members.includes(index)));
  const sum = (members: readonly number[], of: (index: number) => number): number => members.reduce((total, index) => total + of(index), 0);
  return {
    take(index, watts) {
      for (const set of over[index] ?? []) set.leftW -= watts;
    },
    roomOf: (index) => (over[index] ?? []).reduce((least, { leftW }) => Math.min(least, Math.max(0, leftW)), Number.POSITIVE_INFINITY),
    fits: (moreW) => sets.every(({ leftW, members }) => sum(members, (index) => moreW[index] as number) <= leftW + WATTS_TOLERANCE),
    partThatFits: (moreOf) =>
      sets.reduce((part, { leftW, members }) => {
        const moreW = sum(members, moreOf);
        return moreW <= 0 ? part : Math.min(part, Math.max(0, leftW) / moreW);
      }, 1),
    exceeded: (limitsW) => sets.filter(({ watts, members }) => sum(members, (index) => limitsW[index] as number) > watts + WATTS_TOLERANCE).map(({ name }) => name),
  };
}
