// What one group of devices does between two readings of its energy counters: when it idles, and what others' work on it costs
// by the profile. `energy-ledger.ts` adds what jobs do, and shares out what the counters say.
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import { noWork, type WorkCost } from './energy-work.ts';

/** Joules of all its counters together. Only differences of one epoch mean something: a new one begins where a counter fell or devices changed. */
export interface MeterReading {
  readonly energyJ: number;
  readonly epoch: number;
  /** Of this instant; `null` where that cannot be told. */
  readonly powerW: number | null;
}

/** How the joules of a window were shared out. They add up to what the counters said. */
export interface Shares {
  readonly idleJ: number;
  /** Of work that was modelled at 1 J: so many joules were measured. 0 where there was no work. */
  readonly scale: number;
  /** There were jobs, and nothing that they are believed to have done: this is shared alike. */
  readonly evenlyJ: number;
}

export interface MeterWindow {
  /** Nothing of ours is under way there any more, or something is. */
  idles(nowMs: number): void;
  works(nowMs: number): void;
  isIdle(): boolean;
  /** It is at another point from now on. Work that was done before it has to be added first. */
  movesTo(point: PointIndex, nowMs: number): void;
  point(): PointIndex;
  /** With nothing to do it draws so much from now on, whatever its point is; `null`: it idles. */
  restsAt(powerW: number | null, nowMs: number): void;
  /** What idling has cost since the last `restart`, as is believed. */
  idleCost(nowMs: number): { readonly energyJ: number; readonly fastestJ: number };
  /** It has worked so long since then. */
  busyMs(nowMs: number): number;
  /** One point all the while. */
  isSteady(): boolean;
  /** As is believed by now. */
  idlePowerW(point: PointIndex): number;
  /** The same where it was measured; `null` elsewhere. */
  idleMeasuredW(point: PointIndex): number | null;
  /** `jobs`: that are there though no work of theirs is known; `others`: there are streams that are not ours, and nothing is idle. */
  share(measuredJ: number, work: Readonly<WorkCost>, there: { readonly jobs: number; readonly others: boolean }, nowMs: number): Shares;
  /** The next window begins. */
  restart(nowMs: number): void;
}

/** A stretch of idling that is long enough, against a tick of the counters, to tell its power by. */
const IDLE_SAMPLE_MS_MIN = 400;
const IDLE_RATE = 0.2;
/** What is measured of idling is believed this far from the profile, and not beyond: a counter may stand still, or others may work there. */
const IDLE_SCALE = { min: 0.25, max: 4 };

/** It begins when it is first told of anything. */
export function createMeterWindow(model: PerformanceModel, startPoint: PointIndex): MeterWindow {
  let point = startPoint;
  let idle = true;
  let sinceMs = Number.POSITIVE_INFINITY;
  let startedAtMs = Number.POSITIVE_INFINITY;
  let steady = true;
  /** `null`: it idles when it has nothing to do. */
  let restingW: number | null = null;
  let idleMs = 0;
  const idled = noWork();
  /** Measured over believed power of idling, by point. */
  const idleScale = new Map<PointIndex, number>();

  function bringUpTo(nowMs: number): void {
    if (startedAtMs === Number.POSITIVE_INFINITY) startedAtMs = sinceMs = nowMs;
    const lastedMs = Math.max(0, nowMs - sinceMs);
    sinceMs = Math.max(sinceMs, nowMs);
    if (!idle) return;
    idleMs += lastedMs;
    idled.energyJ += (lastedMs / 1_000) * (restingW ?? idlePowerW(point));
    idled.fastestJ += (lastedMs / 1_000) * idlePowerW(model.fastest);
  }

  /** Where it was never measured, as far off as at the point where it was. */
  function idlePowerW(at: PointIndex): number {
    return model.idlePowerW(at) * (idleScale.get(at) ?? idleScale.get(point) ?? 1);
  }

  function learnIdle(measuredJ: number, lastedMs: number): void {
    const believedJ = (lastedMs / 1_000) * model.idlePowerW(point);
    if (!steady || lastedMs < IDLE_SAMPLE_MS_MIN || believedJ <= 0) return;
    const ratio = Math.min(IDLE_SCALE.max, Math.max(IDLE_SCALE.min, measuredJ / believedJ));
    const known = idleScale.get(point);
    idleScale.set(point, known === undefined ? ratio : known + IDLE_RATE * (ratio - known));
  }

  return {
    idles(nowMs) {
      bringUpTo(nowMs);
      idle = true;
    },
    works(nowMs) {
      bringUpTo(nowMs);
      idle = false;
    },
    isIdle: () => idle,
    movesTo(next, nowMs) {
      bringUpTo(nowMs);
      if (next !== point) steady = false;
      point = next;
    },
    point: () => point,
    restsAt(powerW, nowMs) {
      bringUpTo(nowMs);
      // What its counters say of a rest tells nothing of idling.
      if (powerW !== restingW) steady = false;
      restingW = powerW;
    },
    idleCost(nowMs) {
      bringUpTo(nowMs);
      return idled;
    },
    busyMs(nowMs) {
      bringUpTo(nowMs);
      return Math.max(0, nowMs - startedAtMs - idleMs);
    },
    isSteady: () => steady,
    idlePowerW,
    idleMeasuredW: (at) => (idleScale.has(at) ? idlePowerW(at) : null),
    share(measuredJ, work, { jobs, others }, nowMs) {
      bringUpTo(nowMs);
      if (jobs === 0 && work.energyJ <= 0) {
        learnIdle(measuredJ, nowMs - startedAtMs);
        return { idleJ: measuredJ, scale: 0, evenlyJ: 0 };
      }
      if (work.energyJ <= 0) {
        const idleJ = Math.min(idled.energyJ, measuredJ);
        return { idleJ, scale: 0, evenlyJ: measuredJ - idleJ };
      }
      // Idling is the better known of the two: it has its believed power, unless the counters say less than both together.
      const believedJ = others ? 0 : idled.energyJ;
      const bothJ = believedJ + work.energyJ;
      const idleJ = measuredJ >= bothJ ? believedJ : (measuredJ * believedJ) / bothJ;
      return { idleJ, scale: (measuredJ - idleJ) / work.energyJ, evenlyJ: 0 };
    },
    restart(nowMs) {
      bringUpTo(nowMs);
      Object.assign(idled, noWork());
      idleMs = 0;
      startedAtMs = nowMs;
      steady = restingW === null;
    },
  };
}
