// Reads meters four times a second for as long as a comparison lasts, rests included, and answers for windows of it.
import { type DeviceSample, createEnergySeries, type EnergySeries, type EnergyWindow } from './energy-series.ts';
import { type Meter, type MeterSpec, openMeter } from './meter.ts';

export interface WindowEnergy {
  /** `null`: no meter counts for this arm. */
  readonly energy: EnergyWindow | null;
  readonly everyS: number;
  /** Mean power of each stretch of `everyS`, of all meters of the arm. */
  readonly powerW: readonly (number | null)[];
  readonly tickS: number;
}

export interface EnergyLog {
  /** Waits for the reading that comes after the window's end. Of the meters that count for this arm. */
  window(arm: string, fromMs: number, toMs: number): Promise<WindowEnergy>;
  dropBefore(atMs: number): void;
  close(): Promise<void>;
}

const READ_EVERY_MS = 250;
const LATE_MS_MAX = 3_000;
/** More are not drawn apart on any screen. */
const BINS_MAX = 240;
const BIN_S_MIN = 1;

interface Logged {
  readonly spec: MeterSpec;
  readonly meter: Meter;
  readonly series: EnergySeries;
  /** Why the last reading failed; `null`: it did not. */
  trouble: string | null;
}

/** Reads each meter once before it resolves. Throws `AgentError` where one cannot be read. */
export async function startEnergyLog(specs: readonly MeterSpec[], nowMs: () => number): Promise<EnergyLog> {
  const logged: Logged[] = specs.map((spec) => ({ spec, meter: openMeter(spec, nowMs), series: createEnergySeries(), trouble: null }));
  let open = true;
  const timers = new Set<NodeJS.Timeout>();

  async function read(one: Logged): Promise<void> {
    const askedAtMs = nowMs();
    const devices: ReadonlyMap<string, DeviceSample> = await one.meter.read();
    if (open) one.series.add((askedAtMs + nowMs()) / 2, devices);
  }

  function readLater(one: Logged): void {
    const timer = setTimeout(() => {
      timers.delete(timer);
      read(one)
        .then(() => (one.trouble = null), (error: unknown) => (one.trouble = error instanceof Error ? error.message : String(error)))
        .finally(() => open && readLater(one));
    }, READ_EVERY_MS);
    timers.add(timer);
  }

  async function close(): Promise<void> {
    open = false;
    for (const timer of timers) clearTimeout(timer);
    await Promise.all(logged.map(({ meter }) => meter.close()));
  }

  try {
    await Promise.all(logged.map(read));
  } catch (error) {
    await close();
    throw error;
  }
  for (const one of logged) readLater(one);

  async function untilRead({ series }: Logged, atMs: number): Promise<void> {
    while ((series.latestAtMs() ?? 0) < atMs && nowMs() < atMs + LATE_MS_MAX) await new Promise((resolve) => setTimeout(resolve, READ_EVERY_MS / 2));
  }

  return {
    window: async (arm, fromMs, toMs) => {
      const counting = logged.filter(({ spec }) => spec.arm === null || spec.arm === arm);
      await Promise.all(counting.map((one) => untilRead(one, toMs)));
      const tickS = Math.max(0, ...counting.map(({ series }) => series.tickMs() / 1000));
      const everyS = Math.max(BIN_S_MIN, Math.ceil((toMs - fromMs) / 1000 / BINS_MAX), Math.ceil(2 * tickS));
      const parts = counting.map(({ series, trouble }) => {
        const energy = series.energyBetween(fromMs, toMs);
        return energy.kind === 'unknown' && trouble !== null ? { kind: 'unknown' as const, why: `${energy.why} (${trouble})` } : energy;
      });
      return {
        energy: counting.length === 0 ? null : parts.reduce(added),
        everyS,
        powerW: counting.map(({ series }) => series.powerBetween(fromMs, toMs, everyS * 1000)).reduce<readonly (number | null)[] | null>((sum, bins) => (sum === null ? bins : sum.map((value, bin) => plus(value, bins[bin] ?? null))), null) ?? [],
        tickS,
      };
    },
    dropBefore: (atMs) => {
      for (const { series } of logged) series.dropBefore(atMs);
    },
    close,
  };
}

function added(one: EnergyWindow, other: EnergyWindow): EnergyWindow {
  if (one.kind === 'unknown') return one;
  if (other.kind === 'unknown') return other;
  return { kind: 'measured', energyJ: one.energyJ + other.energyJ, how: one.how === 'integrated' || other.how === 'integrated' ? 'integrated' : 'counter' };
}

function plus(one: number | null, other: number | null): number | null {
  return one === null || other === null ? null : one + other;
}
