// How a made profile is written: one point or row per line, so that a diff shows which measurement changed.
import type { Profile } from '../../../src/frontier/profile.ts';

/** A made profile and the file, beside `make/`, that holds it. */
export interface MadeProfile {
  readonly file: string;
  readonly profile: Profile;
}

const LISTS_BY_LINE: ReadonlySet<string> = new Set(['points', 'prefill', 'decode', 'sources']);

/** The text of a profile file: the same profile gives the same bytes. */
export function profileText(profile: Profile): string {
  const entries = Object.entries(profile).map(([key, value]) => `  ${JSON.stringify(key)}: ${valueText(key, value)}`);
  return `{\n${entries.join(',\n')}\n}\n`;
}

function valueText(key: string, value: unknown): string {
  if (LISTS_BY_LINE.has(key) && Array.isArray(value)) return `[\n${value.map((item) => `    ${JSON.stringify(item)}`).join(',\n')}\n  ]`;
  return JSON.stringify(value, null, 2).replaceAll('\n', '\n  ');
}
