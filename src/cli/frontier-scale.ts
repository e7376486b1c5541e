// `paceline frontier scale`: the profile of a GPU that is not there yet, for `paceline simulate` to ask what it would do.
import { scaleProfile } from '../frontier-view/hypothetical.ts';
import { profileProblems } from '../profile-file.ts';
import { UsageError } from './command.ts';
import { profileOf, writeText } from './frontier-files.ts';

export interface ScaleOptions {
  readonly name: string | undefined;
  readonly time: number | undefined;
  readonly power: number | undefined;
  readonly 'idle-power': number | undefined;
  readonly out: string | undefined;
}

/** Throws `UsageError` where nothing would change, and where what it makes is no device (idling far above its busy power, say). */
export function scale(file: string, options: ScaleOptions): number {
  const { name, out } = options;
  if (name === undefined) throw new UsageError('frontier scale: --name is missing: what is the device called that is not there yet?');
  const { time = 1, power = 1, 'idle-power': idlePower = power } = options;
  if (time === 1 && power === 1 && idlePower === 1) throw new UsageError('frontier scale: got no factor other than 1, want --time, --power or --idle-power');
  const { profile } = profileOf(file).model;
  if (name === profile.name) throw new UsageError(`frontier scale: --name: got '${name}', which is the name of what was measured; take another`);
  const made = scaleProfile(profile, { time, power, idlePower }, name);
  const [problem] = profileProblems(made);
  if (problem !== undefined) throw new UsageError(`frontier scale: ${file} with time × ${time}, power × ${power}, idle power × ${idlePower} is no device: ${problem}`);
  const text = `${JSON.stringify(made, null, 1)}\n`;
  if (out === undefined) process.stdout.write(text);
  else writeText(out, text, 'out');
  return 0;
}
