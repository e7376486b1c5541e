// What moves together: the devices of a replica, or of one of its phases. What was demanded of them, where they were last
// seen, and why; each group has its own, so that one that is lost leaves the other as it is.
import { planOfGroup } from '../core/group-plan.ts';
import { HOLD_PERIODS, LOWER_DWELL_MS } from '../core/limits.ts';
import type { Plan } from '../core/planner.ts';
import { PHASE_GROUPS, type PhaseGroup } from '../core/replica-view.ts';
import { isFaster, type PerformanceModel, type PointIndex } from '../frontier/performance-model.ts';
import type { Effect, Explanation } from './events.ts';
import type { ReplicaSpec } from './replica.ts';

export interface ClockGroup {
  /** `null`: all devices of the replica. */
  readonly phase: PhaseGroup | null;
  controlled: boolean;
  /** What the devices were last told; `null` = default clocks. */
  demanded: PointIndex | null;
  /** What they were last seen at. */
  applied: PointIndex | null;
  changedAtMs: number;
  why: Explanation;
  /** Watts that it was last told to keep within (`null`: any), and those that its devices are known to; absent before the first word of either. */
  limitToldW?: number | null;
  limitHeldW?: number | null;
}

/** Plain data of a group, for people. */
export interface ClockGroupStatus {
  readonly controlled: boolean;
  readonly pointId: string | null;
  readonly why: Explanation;
}

export type Demand = Extract<Effect, { kind: 'demand' }>;

/** One, or one per phase, in the order of `PHASE_GROUPS`. */
export function clockGroups(disaggregated: boolean): readonly [ClockGroup, ...ClockGroup[]] {
  const group = (phase: PhaseGroup | null): ClockGroup => ({ phase, controlled: false, demanded: null, applied: null, changedAtMs: Number.NEGATIVE_INFINITY, why: { binding: 'uncontrolled' } });
  return disaggregated ? [group(PHASE_GROUPS[0]), group(PHASE_GROUPS[1])] : [group(null)];
}

export function demandOf({ replicaId, belief }: ReplicaSpec, group: ClockGroup, point: PointIndex, why: Explanation, { nowMs, controlPeriodMs, powerLimitW }: { readonly nowMs: number; readonly controlPeriodMs: number; readonly powerLimitW?: number | null | undefined }): Demand {
  const before = group.demanded ?? belief.fastest;
  const faster = isFaster(belief, point, before);
  if (before !== point) group.changedAtMs = nowMs;
  group.demanded = point;
  group.why = why;
  const limits = powerLimitW === undefined ? 0 : (powerLimitW ?? Number.POSITIVE_INFINITY) - (group.limitToldW ?? Number.POSITIVE_INFINITY);
  if (powerLimitW !== undefined) group.limitToldW = powerLimitW;
  // `NaN`: no limit before and none now.
  const change = faster || limits > 0 ? 'raise' : before !== point || limits < 0 ? 'lower' : 'renew';
  return { kind: 'demand', replicaId, ...(group.phase === null ? {} : { group: group.phase }), point: belief.points[point] ?? null, ...(powerLimitW === undefined ? {} : { powerLimitW }), holdMs: HOLD_PERIODS * controlPeriodMs, change, why };
}

/** The point that a plan asks of a group now: what is slower waits until the last change is old enough. */
export function pointNow(belief: PerformanceModel, group: ClockGroup, plan: Plan, { nowMs, dwell }: { readonly nowMs: number; readonly dwell: boolean }): PointIndex {
  const { point } = planOfGroup(plan, group.phase);
  const current = group.demanded ?? belief.fastest;
  const lowers = point !== current && !isFaster(belief, point, current);
  return dwell && lowers && nowMs - group.changedAtMs < LOWER_DWELL_MS ? current : point;
}

/** What the devices say. Returns where they are. */
export function followed(belief: PerformanceModel, group: ClockGroup, controlled: boolean, pointId: string | null): PointIndex | null {
  const index = pointId === null ? -1 : belief.points.findIndex((point) => point.id === pointId);
  group.controlled = controlled;
  group.applied = controlled && index >= 0 ? index : null;
  if (!controlled) {
    group.demanded = null;
    delete group.limitToldW;
    delete group.limitHeldW;
    group.why = { binding: 'uncontrolled' };
  }
  return group.applied;
}

/** Of all groups: those of a disaggregated server as one, and each. */
export function groupsStatus(belief: PerformanceModel, groups: readonly [ClockGroup, ...ClockGroup[]]): ClockGroupStatus & { readonly groups?: Readonly<Record<PhaseGroup, ClockGroupStatus>> } {
  const [first, second] = groups;
  if (second === undefined) return statusOf(belief, first);
  const [prefill, decode] = [statusOf(belief, first), statusOf(belief, second)];
  return { ...decode, controlled: prefill.controlled && decode.controlled, groups: { prefill, decode } };
}

function statusOf(belief: PerformanceModel, { controlled, demanded, why }: ClockGroup): ClockGroupStatus {
  return { controlled, pointId: demanded === null ? null : (belief.points[demanded]?.id ?? null), why };
}
