// What sleeping costs, as it is said on the command line.
import type { Profile, SleepCosts } from '../frontier/profile.ts';
import { sleepProblems, sleepSchema } from '../profile-file.ts';
import { UsageError } from './command.ts';

/** `POWERW:SLEEPMS:WAKEMS[:WAKEJ]`. Throws `UsageError`. */
export function parseSleepCosts(option: string, text: string): SleepCosts {
  const numbers = text.split(':').map((part) => (/^[0-9.]+$/.test(part) ? Number(part) : Number.NaN));
  const [powerW, sleepMs, wakeMs, wakeEnergyJ] = numbers;
  const parsed = sleepSchema.safeParse({ powerW, sleepMs, wakeMs, ...(wakeEnergyJ === undefined ? {} : { wakeEnergyJ }) });
  if (!parsed.success || numbers.length > 4) throw new UsageError(`${option}: got '${text}', want POWERW:SLEEPMS:WAKEMS[:WAKEJ] such as 100:2000:5000`);
  return parsed.data;
}

/** The profile with these costs in place of its own. Throws `UsageError` where they cannot be right of it. */
export function withSleep(profile: Profile, sleep: SleepCosts, option: string): Profile {
  const made = { ...profile, sleep };
  const [problem] = sleepProblems(made);
  if (problem !== undefined) throw new UsageError(`${option}: ${profile.name}: ${problem}`);
  return made;
}
