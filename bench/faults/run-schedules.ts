// Fault schedules one after the other, each with what it violated and how to play it again.
import type { Outcome, Seen } from './checking-client.ts';
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
  /** How often clocks were lowered when their holders or their agent were killed, and the longest until they were back. */
  readonly clocksLowered: number;
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
    clocksBackMs.push(...observation.clocks.flatMap(({ lowered, tookMs }) => (lowered === 0 || tookMs === null ? [] : tookMs)));
    for (const { outcome } of observation.seen) outcomes[outcome.kind] = (outcomes[outcome.kind] ?? 0) + 1;
    onLine(`${String(one).padStart(4)}  ${found.length === 0 ? 'holds   ' : 'VIOLATED'}  ${counted(observation.seen)}`);
    if (found.length > 0 || only !== null) onLine(`      ${schedule.routing}, ${schedule.concurrencyMax} at once; ${schedule.faults.map(describeFault).join('; ')}`);
    for (const { invariant, what } of found) onLine(`      ${invariant}: ${what}`);
    if (found.length > 0) onLine(`      again: ${replay}`);
  }
  return { schedules: chosen.length, faults, requests, outcomes, violations, clocksLowered: clocksBackMs.length, clocksBackMsMax: clocksBackMs.length === 0 ? null : Math.max(...clocksBackMs) };
}

/** Most frequent first; errors by their code. */
function counted(seen: readonly Seen[]): string {
  const counts = Map.groupBy(seen, ({ outcome }) => (outcome.kind === 'refused' || outcome.kind === 'broken-off' ? `${outcome.kind} (${outcome.code})` : outcome.kind));
  return [...counts].sort(([, one], [, other]) => other.length - one.length).map(([kind, { length }]) => `${length} ${kind}`).join(', ');
}
