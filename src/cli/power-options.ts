// Caps on the power of a simulated fleet, as the command line tells of them.
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import type { ReplicaId } from '../core/job.ts';
import { assertFeasible, InfeasibleBudget, leastToServeW, type PowerBudget } from '../core/power-budget.ts';
import { createPerformanceModel } from '../frontier/performance-model.ts';
import { type PowerRange, powerRange } from '../frontier/power-limited.ts';
import type { Profile } from '../frontier/profile.ts';
import type { FleetMember, SimulatedPower } from '../simulator/simulate.ts';
import { type OptionValues, UsageError } from './command.ts';

const STEPS_MAX = 100_000;
/** Thirty days. */
const AT_MS_MAX = 30 * 24 * 3_600_000;

export const POWER_OPTIONS = {
  'power-budget': { type: 'text', value: 'W|PCT%', help: "what all devices may draw together: watts, or a part of the fleet's peak (every device at its fastest under full load, as believed) such as 75%" },
  'power-schedule': { type: 'text', value: 'FILE', help: 'the same in time: [{"atMs": 0, "watts": 8000}, …], ascending; the instant 0 is the beginning' },
  'power-policy': { type: 'text', value: 'HOW', help: 'how a power budget is kept: watts allotted to where they are needed, or every device held to the same part of its peak; default: allotted by paceline, uniform by the others, which know nothing of budgets', oneOf: ['allotted', 'uniform'] },
} as const;

const Schedule = z.array(z.strictObject({ atMs: z.number().min(0).max(AT_MS_MAX), watts: z.number().positive() })).min(1).max(STEPS_MAX);

/** `null` without a budget. Throws `UsageError`, also for a budget below what the fleet draws with nothing to do, or one that is in the end too low to serve anything. `sleeps`: replicas may be asleep. */
export function readPower(options: OptionValues<typeof POWER_OPTIONS>, members: readonly FleetMember[], sleeps = false): ((policy: string) => SimulatedPower) | null {
  const { 'power-budget': budget, 'power-schedule': file, 'power-policy': how } = options;
  if (budget === undefined && file === undefined) {
    if (how !== undefined) throw new UsageError('--power-policy: says how a power budget is kept; give one with --power-budget or --power-schedule');
    return null;
  }
  if (budget !== undefined && file !== undefined) throw new UsageError('--power-budget: --power-schedule says the same in time; leave one of the two out');
  const ranges = new Map<Profile, PowerRange>([...new Set(members.map(({ belief }) => belief))].map((belief) => [belief, powerRange(createPerformanceModel(belief))]));
  const rangeOf = ({ belief }: FleetMember): PowerRange => ranges.get(belief) as PowerRange;
  const peakW = members.reduce((sum, member) => sum + rangeOf(member).peakW, 0);
  const replicaIds = members.map((_, index) => `r${index}` as ReplicaId);
  const steps = file === undefined ? [{ atMs: 0, watts: wattsOf(budget ?? '', peakW) }] : scheduleIn(file);
  const schedule = steps.map(({ atMs, watts }) => ({ atMs, budgets: [{ name: 'fleet', watts, replicaIds } satisfies PowerBudget] }));
  const option = `--power-${file === undefined ? 'budget' : 'schedule'}`;
  try {
    for (const { budgets } of schedule) assertFeasible(budgets, (replicaId) => rangeOf(members[replicaIds.indexOf(replicaId)] as FleetMember).idleW);
  } catch (error) {
    throw error instanceof InfeasibleBudget ? new UsageError(`${option}: ${error.message}`, { cause: error }) : error;
  }
  const leastW = leastToServeW(members.map((member) => ({ idleW: sleeps ? (member.belief.sleep?.powerW ?? rangeOf(member).idleW) : rangeOf(member).idleW, floorW: rangeOf(member).floorW })));
  const last = steps.at(-1);
  if (last !== undefined && last.watts < leastW) throw new UsageError(`${option}: got ${Math.round(last.watts)} W${file === undefined ? '' : ` from ${last.atMs} ms on`}, at which not even one replica can work at its slowest clock while the others ${sleeps ? 'sleep' : 'idle'}: nothing would be served, and the simulation would not end; want at least ${Math.ceil(leastW)} W`);
  return (policy) => ({ schedule, how: how === undefined ? (policy === 'paceline' ? 'allotted' : 'uniform') : how === 'uniform' ? 'uniform' : 'allotted' });
}

function wattsOf(text: string, peakW: number): number {
  const [, number = '', percent = ''] = /^([0-9]+(?:\.[0-9]+)?)(%?)$/.exec(text) ?? [];
  const value = number === '' ? Number.NaN : Number(number);
  if (!(value > 0) || (percent === '%' && value > 100)) throw new UsageError(`--power-budget: got '${text}', want watts such as 8000, or a part of the fleet's peak of ${Math.round(peakW)} W such as 75%`);
  return percent === '%' ? (value / 100) * peakW : value;
}

function scheduleIn(file: string): readonly { readonly atMs: number; readonly watts: number }[] {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new UsageError(`--power-schedule: ${file}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  const parsed = Schedule.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new UsageError(`--power-schedule: ${file} ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not a schedule'}; want [{"atMs": 0, "watts": 8000}, …]`);
  }
  const late = parsed.data.findIndex(({ atMs }, index) => index > 0 && atMs <= (parsed.data[index - 1]?.atMs ?? 0));
  if (late >= 0) throw new UsageError(`--power-schedule: ${file} ${late}.atMs: got ${parsed.data[late]?.atMs}, want more than the ${parsed.data[late - 1]?.atMs} before it`);
  return parsed.data;
}
