// The sweep: asks the plan what is next, brings the devices there, measures, writes it down; until nothing more is worth it.
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentAddress, AgentError } from '../agent/connection.ts';
import { type ClockHold, holdClocks } from './clock-hold.ts';
import { EndpointError } from './endpoint.ts';
import type { Journal } from './journal.ts';
import { type Measurement, sameWork, type Work, workText } from './measurement.ts';
import { measurementsExpected, type NextMeasurement, nextMeasurement, type PlanOptions } from './plan.ts';
import { type Bench, takeMeasurement, type Taken } from './take-measurement.ts';

export interface SweepProgress {
  readonly done: number;
  /** About so many in all. */
  readonly expected: number;
  readonly next: NextMeasurement | { readonly clockMhz: null; readonly work: Work };
  /** By the measurements so far; `null` before the first. */
  readonly leftMs: number | null;
}

export interface SweepOptions {
  readonly bench: Bench;
  /** Whose clocks are set; `null`: nothing is set, and what is found is measured (`--observe`). */
  readonly control: { readonly address: AgentAddress; readonly devices: readonly string[] } | null;
  readonly plan: PlanOptions;
  readonly journal: Journal;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: SweepProgress) => void;
  readonly onTrouble: (message: string) => void;
}

const SETTLES_WITHIN_MS = 3_000;
const SETTLED_SHARE = 0.02;
const AFTER_SETTLING_MS = 50;
/** A measurement that something came in the way of is taken again so often … */
const TRIES_MAX = 3;
/** … and so is one whose two halves differ by more than this: that was no steady state. The steadiest is kept. */
const UNSTEADINESS_MAX = 0.04;

/** Clocks are at default when it resolves or throws. Resolves early, with what there is, when `signal` aborts. */
export async function runSweep(options: SweepOptions): Promise<'complete' | 'stopped'> {
  const { bench, control, plan, journal, signal } = options;
  const hold = control === null ? null : await holdClocks(control.address, control.devices);
  const startedAtMs = bench.now();
  const before = journal.done.length;
  let heldMhz: number | null = null;
  try {
    for (let next = nextOf(journal.done, plan, hold); next !== null; next = nextOf(journal.done, plan, hold)) {
      if (signal.aborted) return 'stopped';
      const expected = hold === null ? plan.works.length : measurementsExpected(journal.done, plan);
      const taken = journal.done.length - before;
      options.onProgress({ done: journal.done.length, expected, next, leftMs: taken === 0 ? null : ((bench.now() - startedAtMs) / taken) * (expected - journal.done.length) });
      if (hold !== null && next.clockMhz !== heldMhz) {
        await settle(hold, next.clockMhz as number, bench, options.onTrouble);
        heldMhz = next.clockMhz;
      }
      const measurement = await measured(next, hold, options);
      if (measurement === null) return 'stopped';
      journal.add(measurement);
    }
    return 'complete';
  } finally {
    await hold?.close();
  }
}

function nextOf(done: readonly Measurement[], plan: PlanOptions, hold: ClockHold | null): NextMeasurement | { readonly clockMhz: null; readonly work: Work } | null {
  if (hold !== null) return nextMeasurement(done, plan);
  const work = plan.works.find((one) => !done.some((measurement) => sameWork(measurement.work, one)));
  return work === undefined ? null : { clockMhz: null, work };
}

/** `null`: stopped in the middle of it. */
async function measured({ clockMhz, work }: { readonly clockMhz: number | null; readonly work: Work }, hold: ClockHold | null, { bench, journal, signal, onTrouble }: SweepOptions): Promise<Measurement | null> {
  let best: Taken | null = null;
  for (let attempt = 1; ; attempt++) {
    const known = { idlePowerW: journal.done.find((one) => one.clockMhz === clockMhz && one.work.kind === 'idle')?.powerW ?? null, lastTimeMs: journal.done.at(-1)?.timeMs ?? 0 };
    try {
      const taken = await takeMeasurement(work, clockMhz, known, bench);
      hold?.check();
      refuseFaster(taken.measurement.actualClockMhz, clockMhz);
      if (best === null || taken.unsteadiness < best.unsteadiness) best = taken;
      if (best.unsteadiness <= UNSTEADINESS_MAX || attempt >= TRIES_MAX) {
        if (best.unsteadiness > UNSTEADINESS_MAX) onTrouble(`${workText(work)}${clockMhz === null ? '' : ` at ${clockMhz} MHz`}: the halves of the window differ by ${(100 * best.unsteadiness).toFixed(0)} %; is anything else at work on this machine?`);
        return best.measurement;
      }
    } catch (error) {
      if (signal.aborted) return null;
      if (!(error instanceof EndpointError) || attempt >= TRIES_MAX) throw error;
      onTrouble(`${error.message}; measured again`);
    }
  }
}

/** A device may be slower than it was told, by its power or heat; faster it is where somebody else drives it, and then it is measured under another clock's name. */
export function refuseFaster(seenMhz: number | null, clockMhz: number | null): void {
  if (seenMhz === null || clockMhz === null || seenMhz <= clockMhz * (1 + SETTLED_SHARE)) return;
  throw new AgentError(`the devices run at ${Math.round(seenMhz)} MHz and were told ${clockMhz} MHz: somebody else drives them, too; stop its gateway, or drain the replica`, null);
}

/** Success is not effect: the clock is read back. A device that cannot hold it is measured as it is, and that is noted in its rows. */
async function settle(hold: ClockHold, clockMhz: number, { meter, now }: Bench, onTrouble: (message: string) => void): Promise<void> {
  await hold.set(clockMhz);
  const byMs = now() + SETTLES_WITHIN_MS;
  for (let seenMhz: number | null = null; ; ) {
    seenMhz = (await meter?.sample())?.clockMhz ?? null;
    if (seenMhz === null || Math.abs(seenMhz / clockMhz - 1) <= SETTLED_SHARE) break;
    if (now() >= byMs) {
      refuseFaster(seenMhz, clockMhz);
      onTrouble(`the devices run at ${seenMhz} MHz and not at ${clockMhz} MHz; measured as they are`);
      break;
    }
    await delay(20);
  }
  await delay(AFTER_SETTLING_MS);
}
