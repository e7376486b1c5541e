// Devices that have one meter together, and what a reading of it is good for.
import type { PerformanceModel } from '../frontier/performance-model.ts';
import { createMeterWindow, type MeterReading, type MeterWindow } from './meter-window.ts';
import type { PhaseGroup } from './replica-view.ts';

export interface MeteredGroup {
  /** `null`: all devices of a replica. */
  readonly phase: PhaseGroup | null;
  readonly window: MeterWindow;
  /** Jobs that are under way here. */
  jobs: number;
  /** The last reading and when; `null`: there was none. */
  meter: { readonly reading: MeterReading; readonly atMs: number; readonly unreadSinceMs: number | null; /** It was out of sight for too long. */ readonly lost: boolean } | null;
  /** Measured over modelled joules of late. */
  correction: number;
}

/**
 * `window`: so many joules since the last reading, to be shared out. `gap`: the same, but nobody can say any more whose. `begins`: it
 * is the first of its kind. `waits`: it says nothing new.
 */
export type ReadingUse =
  | { readonly kind: 'window'; readonly measuredJ: number; readonly windowMs: number }
  | { readonly kind: 'gap'; readonly measuredJ: number }
  | { readonly kind: 'begins' }
  | { readonly kind: 'waits' };

/** A meter that was out of sight for longer cannot say any more whose its joules are. */
export const METER_GAP_MS_MAX = 3_000;

/** How fast the measured over modelled joules of late are followed, and within which bounds. */
const CORRECTION = { rate: 0.2, min: 0.2, max: 5 };

export function createMeteredGroup(model: PerformanceModel, phase: PhaseGroup | null): MeteredGroup {
  return { phase, window: createMeterWindow(model, model.fastest), jobs: 0, meter: null, correction: 1 };
}

/** It is read, and not out of sight. */
export function isRead({ meter }: MeteredGroup): boolean {
  return meter !== null && !meter.lost;
}

export function entersGroup(group: MeteredGroup, nowMs: number): void {
  group.jobs += 1;
  if (group.jobs === 1) group.window.works(nowMs);
}

export function leavesGroup(group: MeteredGroup, nowMs: number): void {
  group.jobs -= 1;
  if (group.jobs === 0) group.window.idles(nowMs);
}

export function read(group: MeteredGroup, reading: MeterReading, nowMs: number): ReadingUse {
  const { meter } = group;
  if (meter === null || meter.reading.epoch !== reading.epoch) return seen(group, reading, nowMs, { kind: 'begins' });
  const measuredJ = reading.energyJ - meter.reading.energyJ;
  if (meter.lost) return seen(group, reading, nowMs, measuredJ < 0 ? { kind: 'begins' } : { kind: 'gap', measuredJ });
  if (measuredJ > 0) return seen(group, reading, nowMs, { kind: 'window', measuredJ, windowMs: nowMs - meter.atMs });
  // A counter that is carried on by its power may be a little behind what was carried too far: it is waited for, but not for ever.
  if (measuredJ < 0 && nowMs - meter.atMs > METER_GAP_MS_MAX) return seen(group, reading, nowMs, { kind: 'begins' });
  group.meter = { reading: { ...meter.reading, powerW: reading.powerW }, atMs: meter.atMs, unreadSinceMs: null, lost: false };
  return { kind: 'waits' };
}

/** It could not be read; whether it is out of sight from now on. */
export function unread(group: MeteredGroup, nowMs: number): boolean {
  const { meter } = group;
  if (meter === null || meter.lost) return false;
  const unreadSinceMs = meter.unreadSinceMs ?? nowMs;
  const lost = nowMs - unreadSinceMs > METER_GAP_MS_MAX;
  group.meter = { reading: { ...meter.reading, powerW: null }, atMs: meter.atMs, unreadSinceMs, lost };
  return lost;
}

/** A window in which work was measured at so much for each joule that was modelled. */
export function corrects(group: MeteredGroup, scale: number): void {
  group.correction += CORRECTION.rate * (Math.min(CORRECTION.max, Math.max(CORRECTION.min, scale)) - group.correction);
}

function seen(group: MeteredGroup, reading: MeterReading, nowMs: number, use: ReadingUse): ReadingUse {
  group.meter = { reading, atMs: nowMs, unreadSinceMs: null, lost: false };
  return use;
}
