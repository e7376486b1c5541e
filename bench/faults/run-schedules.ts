// Fault schedules one after the other, each with what it violated and how to play it again.
import type { Outcome } from './checking-client.ts';
import type { Violation } from './invariants.ts';
import { violationsOf } from './invariants.ts';
import { play } from './play.ts';
import { describeFault, makeSchedule, scheduleSeed } from './schedule.ts';

export interface SchedulesResult {
  readonly schedules: number;
  readonly faults: number;
  readonly requests: number;
  readonly outcomes: Readonly<Partial<Record<Outcome['kind'], number>>>;
  readonly violations: readonly (Violation & { readonly replay: string })[];
  /** Of the agents' promises that were put to the test: the slowest. */
  readonly clocksBackMsMax: number | null;
}

export interface SchedulesOptions {
  readonly seed: number;
  readonly schedules: number;
  /** Play this one alone. */
  readonly only: number | null;
  readonly onLine: (line: string) => void;
}

export async function runSchedules({ seed, schedules, only, onLine }: SchedulesOptions): Promise<SchedulesResult> {
  const chosen = only === null ? Array.from({ length: schedules }, (_, index) => index) : [only];
  const outcomes: Partial<Record<Outcome['kind'], number>> = {};
  const violations: SchedulesResult['violations'][number][] = [];
  const clocksBackMs: number[] = [];
  let faults = 0;
  let requests = 0;
  for (const one of chosen) {
    const schedule = makeSchedule(scheduleSeed(seed, one));
    const replay = `npm run -s bench:faults -- --seed ${seed} --only ${one}`;
    const observation = await play(schedule);
    const found = violationsOf(observation);
    faults += schedule.faults.length;
    requests += observation.requests.length;
    violations.push(...found.map((violation) => ({ ...violation, replay })));
    clocksBackMs.push(...observation.clocks.flatMap(({ tookMs }) => tookMs ?? []));
    const counts = Map.groupBy(observation.seen, ({ outcome }) => outcome.kind);
    for (const [kind, { length }] of counts) outcomes[kind] = (outcomes[kind] ?? 0) + length;
    onLine(`${String(one).padStart(4)}  ${found.length === 0 ? 'holds   ' : 'VIOLATED'}  ${[...counts].map(([kind, { length }]) => `${length} ${kind}`).join(', ')}`);
    if (found.length > 0 || only !== null) onLine(`      ${schedule.routing}, ${schedule.concurrencyMax} at once; ${schedule.faults.map(describeFault).join('; ')}`);
    for (const { invariant, what } of found) onLine(`      ${invariant}: ${what}`);
    if (found.length > 0) onLine(`      again: ${replay}`);
  }
  return { schedules: chosen.length, faults, requests, outcomes, violations, clocksBackMsMax: clocksBackMs.length === 0 ? null : Math.max(...clocksBackMs) };
}
