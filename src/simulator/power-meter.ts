// What sets of replicas truly draw, against what they may: every change of power at its instant, so that nothing between two looks is missed.
import type { ReplicaId } from '../core/job.ts';
import type { PowerBudget } from '../core/power-budget.ts';

export interface BudgetHeld {
  readonly name: string;
  readonly peakW: number;
  readonly meanW: number;
  /** The longest time in one go above what was allowed, and all of it. */
  readonly longestOverMs: number;
  readonly overMs: number;
  /** The most above it, in watts, and what was drawn above it in all. */
  readonly mostOverW: number;
  readonly overJ: number;
}

/** Instants never go back. */
export interface PowerMeter {
  draws(replicaId: ReplicaId, powerW: number, nowMs: number): void;
  /** Budgets that are new begin now; what a name is no longer told of counts on as unlimited. */
  budgetsAre(budgets: readonly PowerBudget[], nowMs: number): void;
  read(nowMs: number): readonly BudgetHeld[];
}

/** Watts that are rounding, as a share of the cap. */
const TOLERANCE = 1e-6;

export function createPowerMeter(): PowerMeter {
  const powers = new Map<ReplicaId, number>();
  const meters = new Map<string, Meter>();

  return {
    draws(replicaId, powerW, nowMs) {
      if (powers.get(replicaId) === powerW) return;
      powers.set(replicaId, powerW);
      for (const meter of meters.values()) if (meter.members.has(replicaId)) change(meter, { drawnW: sumOf(meter.members) }, nowMs);
    },
    budgetsAre(budgets, nowMs) {
      for (const { name, watts, replicaIds } of budgets) {
        const members = new Set(replicaIds);
        const known = meters.get(name);
        if (known === undefined) {
          const drawnW = sumOf(members);
          meters.set(name, { members, capW: watts, drawnW, sinceMs: nowMs, fromMs: nowMs, overSinceMs: null, peakW: drawnW, drawnJ: 0, longestOverMs: 0, overMs: 0, mostOverW: 0, overJ: 0 });
          change(meters.get(name) as Meter, {}, nowMs);
        } else {
          known.members = members;
          change(known, { capW: watts, drawnW: sumOf(members) }, nowMs);
        }
      }
      const told = new Set(budgets.map(({ name }) => name));
      for (const [name, meter] of meters) if (!told.has(name)) change(meter, { capW: Number.POSITIVE_INFINITY }, nowMs);
    },
    read: (nowMs) =>
      [...meters].map(([name, meter]) => {
        change(meter, {}, nowMs);
        const { peakW, drawnJ, fromMs, longestOverMs, overMs, mostOverW, overJ } = meter;
        const stillMs = meter.overSinceMs === null ? 0 : nowMs - meter.overSinceMs;
        return { name, peakW, meanW: nowMs > fromMs ? (1000 * drawnJ) / (nowMs - fromMs) : meter.drawnW, longestOverMs: Math.max(longestOverMs, stillMs), overMs: overMs + stillMs, mostOverW, overJ };
      }),
  };

  function sumOf(members: ReadonlySet<ReplicaId>): number {
    let sumW = 0;
    for (const replicaId of members) sumW += powers.get(replicaId) ?? 0;
    return sumW;
  }
}

interface Meter {
  members: ReadonlySet<ReplicaId>;
  capW: number;
  drawnW: number;
  sinceMs: number;
  readonly fromMs: number;
  overSinceMs: number | null;
  peakW: number;
  drawnJ: number;
  longestOverMs: number;
  overMs: number;
  mostOverW: number;
  overJ: number;
}

/** Up to now it was as it was; from now on it is so. A draw that lasted no time is none. */
function change(meter: Meter, next: { readonly capW?: number; readonly drawnW?: number }, nowMs: number): void {
  const passedMs = nowMs - meter.sinceMs;
  const overW = meter.drawnW - meter.capW;
  if (passedMs > 0) {
    meter.drawnJ += (meter.drawnW * passedMs) / 1000;
    meter.peakW = Math.max(meter.peakW, meter.drawnW);
    if (overW > TOLERANCE * meter.capW) {
      meter.overSinceMs ??= meter.sinceMs;
      meter.mostOverW = Math.max(meter.mostOverW, overW);
      meter.overJ += (overW * passedMs) / 1000;
    }
  }
  meter.sinceMs = nowMs;
  meter.capW = next.capW ?? meter.capW;
  meter.drawnW = next.drawnW ?? meter.drawnW;
  if (meter.overSinceMs === null || meter.drawnW - meter.capW > TOLERANCE * meter.capW) return;
  const lastedMs = nowMs - meter.overSinceMs;
  meter.longestOverMs = Math.max(meter.longestOverMs, lastedMs);
  meter.overMs += lastedMs;
  meter.overSinceMs = null;
}
