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

/** For people: `a 2, b 4`; empty where there are none. */
export function settingsName(settings: Settings): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}
