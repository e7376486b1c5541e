// Readings of one meter over time, and what was used between two instants, between which readings may lie anyhow. Pure.

/** One device at one instant. */
export interface DeviceSample {
  /** As the device has it; it falls only where it begins anew. `null`: it tells its power and nothing else. */
  readonly counterMj: number | null;
  /** Carried forward to the instant of the reading. */
  readonly energyJ: number | null;
  readonly powerW: number | null;
}

export type EnergyWindow =
  /** `integrated`: from power alone, sampled; else by a counter. */
  | { readonly kind: 'measured'; readonly energyJ: number; readonly how: 'counter' | 'integrated' }
  | { readonly kind: 'unknown'; readonly why: string };

export interface EnergySeries {
  /** Instants ascend. */
  add(atMs: number, devices: ReadonlyMap<string, DeviceSample>): void;
  energyBetween(fromMs: number, toMs: number): EnergyWindow;
  /** Mean power of each stretch of `everyMs`; `null` where it is not known. */
  powerBetween(fromMs: number, toMs: number, everyMs: number): readonly (number | null)[];
  latestAtMs(): number | null;
  /** The longest time that a counter stood still; 0 before it has moved twice. What is measured at either end is uncertain by so much. */
  tickMs(): number;
  /** Forgets what lies before; the last reading before that instant is kept. */
  dropBefore(atMs: number): void;
  readonly size: () => number;
}

/** Four readings a second for a day. The oldest go first, and windows that need them are unknown. */
export const POINTS_MAX = 345_600;
/** Between readings further apart power is not interpolated, nor a counter at an end of a window. */
export const GAP_MS_MAX = 5_000;

interface Point {
  readonly atMs: number;
  /** Since the first point. */
  readonly joules: number;
  /** Why nobody knows what was used since the point before; `null`: it is known. */
  readonly broken: string | null;
}

export function createEnergySeries(): EnergySeries {
  let points: Point[] = [];
  let last: { readonly atMs: number; readonly devices: ReadonlyMap<string, DeviceSample> } | null = null;
  let integrated = false;
  const moved = new Map<string, { readonly counterMj: number; readonly atMs: number; readonly ticked: boolean }>();
  let tickMs = 0;

  function noteTicks(atMs: number, devices: ReadonlyMap<string, DeviceSample>): void {
    for (const [device, { counterMj }] of devices) {
      const before = moved.get(device);
      if (counterMj === null || before?.counterMj === counterMj) continue;
      if (before?.ticked === true) tickMs = Math.max(tickMs, atMs - before.atMs);
      moved.set(device, { counterMj, atMs, ticked: before !== undefined });
    }
  }

  /** Of the point that is nearest before and after, in a straight line; `null` where none is near. */
  function joulesAt(atMs: number): number | null {
    const after = points.findIndex((point) => point.atMs >= atMs);
    const [next, previous] = [points[after], points[after - 1]];
    if (next === undefined) return null;
    if (next.atMs === atMs) return next.joules;
    if (previous === undefined || next.atMs - previous.atMs > GAP_MS_MAX) return null;
    return previous.joules + ((next.joules - previous.joules) * (atMs - previous.atMs)) / (next.atMs - previous.atMs);
  }

  return {
    add: (atMs, devices) => {
      noteTicks(atMs, devices);
      const delta = last === null ? { joules: 0, broken: null, integrated } : usedBetween(last, { atMs, devices });
      integrated = delta.integrated;
      points.push({ atMs, joules: (points.at(-1)?.joules ?? 0) + delta.joules, broken: delta.broken });
      last = { atMs, devices };
      // In one piece and rarely: shifting one by one costs the whole array each time.
      if (points.length > POINTS_MAX) points = points.slice(Math.ceil(POINTS_MAX / 10));
    },
    energyBetween: (fromMs, toMs) => {
      const [from, to] = [joulesAt(fromMs), joulesAt(toMs)];
      if (from === null) return { kind: 'unknown', why: 'no reading near the beginning of the window' };
      if (to === null) return { kind: 'unknown', why: 'no reading near the end of the window' };
      const broken = points.find((point, index) => point.broken !== null && point.atMs > fromMs && (points[index - 1]?.atMs ?? point.atMs) < toMs);
      if (broken?.broken != null) return { kind: 'unknown', why: broken.broken };
      return { kind: 'measured', energyJ: Math.max(0, to - from), how: integrated ? 'integrated' : 'counter' };
    },
    powerBetween: (fromMs, toMs, everyMs) => {
      const bins = Math.max(0, Math.floor((toMs - fromMs) / everyMs + 1e-9));
      return Array.from({ length: bins }, (_, bin) => {
        const [start, end] = [joulesAt(fromMs + bin * everyMs), joulesAt(fromMs + (bin + 1) * everyMs)];
        return start === null || end === null ? null : Math.max(0, ((end - start) * 1000) / everyMs);
      });
    },
    latestAtMs: () => points.at(-1)?.atMs ?? null,
    tickMs: () => tickMs,
    dropBefore: (atMs) => {
      const first = points.findIndex((point) => point.atMs >= atMs);
      points = points.slice(Math.max(0, (first === -1 ? points.length : first) - 1));
    },
    size: () => points.length,
  };
}

interface Reading {
  readonly atMs: number;
  readonly devices: ReadonlyMap<string, DeviceSample>;
}

function usedBetween(before: Reading, now: Reading): { readonly joules: number; readonly broken: string | null; readonly integrated: boolean } {
  let joules = 0;
  let integrated = false;
  let broken: string | null = null;
  const elapsedMs = now.atMs - before.atMs;
  for (const [device, sample] of now.devices) {
    const earlier = before.devices.get(device);
    if (earlier === undefined) broken ??= `device ${device} came while it was measured`;
    else if (sample.energyJ !== null && earlier.energyJ !== null && sample.counterMj !== null && earlier.counterMj !== null) {
      if (sample.counterMj < earlier.counterMj) broken ??= `the energy counter of ${device} fell from ${earlier.counterMj} to ${sample.counterMj} mJ: it began anew`;
      else joules += sample.energyJ - earlier.energyJ;
    } else {
      integrated = true;
      if (sample.powerW === null || earlier.powerW === null) broken ??= `device ${device} tells neither energy nor power`;
      else if (elapsedMs > GAP_MS_MAX) broken ??= `no power of ${device} for ${(elapsedMs / 1000).toFixed(1)} s`;
      else joules += (((sample.powerW + earlier.powerW) / 2) * elapsedMs) / 1000;
    }
  }
  for (const device of before.devices.keys()) if (!now.devices.has(device)) broken ??= `device ${device} went away`;
  return { joules, broken, integrated };
}
