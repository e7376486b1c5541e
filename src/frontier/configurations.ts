// A profile may have columns that only a restart of the server changes: its tensor-parallel degree, its chunk size. Each setting of
// them is a server of its own, with the points that it can be moved between while it serves.
import type { Profile } from './profile.ts';

/** Settings of the knobs that only a restart changes; empty where a profile has none. */
export type Settings = Readonly<Record<string, number | string>>;

export interface Configuration {
  readonly settings: Settings;
  /** The profile with only the points and rows of these settings. */
  readonly profile: Profile;
}

/** One for each setting of the knobs that only a restart changes, in the order of their first points; never none. The shape of each was checked with the whole. */
export function configurationsOf(profile: Profile): readonly Configuration[] {
  const fixed = Object.entries(profile.knobs).flatMap(([name, { changes }]) => (changes === 'restart' ? [name] : []));
  if (fixed.length === 0) return [{ settings: {}, profile }];
  const settingsOf = (knobs: Settings): Settings => Object.fromEntries(fixed.map((name) => [name, knobs[name] as number | string]));
  const groups = Map.groupBy(profile.points, ({ knobs }) => JSON.stringify(settingsOf(knobs)));
  return [...groups.values()].map((points) => {
    const ids = new Set(points.map(({ id }) => id));
    return {
      settings: settingsOf((points[0] as (typeof points)[number]).knobs),
      profile: { ...profile, points, prefill: profile.prefill.filter(({ point }) => ids.has(point)), decode: profile.decode.filter(({ point }) => ids.has(point)) },
    };
  });
}

/**
 * The one with these settings; those that are not given may be any, where that leaves one. Otherwise what to say of it, after the name of the
 * file: which settings there are.
 */
export function configurationWith(profile: Profile, settings: Settings): { readonly kind: 'one'; readonly profile: Profile } | { readonly kind: 'none'; readonly problem: string } {
  const configurations = configurationsOf(profile);
  const given = Object.entries(settings);
  const [first] = configurations as [Configuration, ...Configuration[]];
  const unknown = given.find(([name]) => !Object.hasOwn(first.settings, name));
  if (unknown !== undefined) {
    const names = Object.keys(first.settings);
    return { kind: 'none', problem: `has no '${unknown[0]}' that only a restart changes; ${names.length === 0 ? 'it has one configuration, which needs no settings' : `there is ${names.join(', ')}`}` };
  }
  const found = configurations.filter((one) => given.every(([name, value]) => one.settings[name] === value));
  const [only] = found;
  if (only !== undefined && found.length === 1) return { kind: 'one', profile: only.profile };
  const has = (of: readonly Configuration[]): string => of.map((one) => settingsName(one.settings)).join('; ');
  if (found.length === 0) return { kind: 'none', problem: `has no configuration with ${settingsName(settings)}; it has: ${has(configurations)}` };
  return { kind: 'none', problem: `has ${found.length} configurations that only a restart changes (${has(found)})${given.length === 0 ? '' : ` with ${settingsName(settings)}`}; want the settings that this server runs with` };
}

/** For people: `a 2, b 4`; empty where there are none. */
export function settingsName(settings: Settings): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}
