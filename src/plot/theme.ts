// Colours of plots and pages, in light and dark. Series differ by colour, by marker and by dash, so that no one of them is needed
// to tell them apart. The hues are those of Okabe and Ito (Color Universal Design, 2008), lighter on dark ground.

/** More series than these begin again with other dashes. */
export const SERIES_COLOURS = 7;

/** Properties of an element around plots; `dark` under `prefers-color-scheme`, or by `data-theme` where somebody chose. */
const LIGHT: readonly string[] = [
  '--ground:#ffffff', '--raised:#f5f6f8', '--ink:#1b1f24', '--faint:#5a6472', '--rule:#d5dae1', '--accent:#0060a8', '--good:#00704f', '--warn:#9a5b00', '--bad:#b3261e',
  '--s0:#0072b2', '--s1:#c14f00', '--s2:#007f5f', '--s3:#a8457f', '--s4:#7a6a00', '--s5:#3f7fb0', '--s6:#54585e',
];
const DARK: readonly string[] = [
  '--ground:#14171b', '--raised:#1d2127', '--ink:#e8eaed', '--faint:#a3adba', '--rule:#373e48', '--accent:#7fc4ff', '--good:#5fd3ac', '--warn:#f0b35c', '--bad:#ff8a80',
  '--s0:#56b4e9', '--s1:#ff9442', '--s2:#3fd0a4', '--s3:#e39ac6', '--s4:#e8d85a', '--s5:#9cc9ec', '--s6:#b9bec6',
];

export function themeCss(selector: string): string {
  return `${selector}{color-scheme:light dark;${LIGHT.join(';')}}@media(prefers-color-scheme:dark){${selector}:not([data-theme=light]){${DARK.join(';')}}}${selector}[data-theme=dark]{color-scheme:dark;${DARK.join(';')}}${selector}[data-theme=light]{color-scheme:light}`;
}

/** What an SVG of ours needs where it stands. */
export const PLOT_CSS = [
  '.plot{font:12px system-ui,sans-serif;fill:var(--ink);background:var(--ground)}',
  '.plot .grid{stroke:var(--rule);stroke-width:1;fill:none}',
  '.plot .axis{stroke:var(--faint);stroke-width:1;fill:none}',
  '.plot .faint{fill:var(--faint)}',
  '.plot .title{font-weight:600;font-size:13px}',
  '.plot .small{font-size:10.5px}',
  '.plot .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}',
  '.plot .reference{stroke:var(--faint);stroke-dasharray:2 3;fill:none}',
  '.plot .whisker{stroke:var(--ink);stroke-width:1.5;fill:none}',
  ...Array.from({ length: SERIES_COLOURS }, (_, index) => `.plot .c${index}{stroke:var(--s${index})}.plot .f${index}{fill:var(--s${index})}.plot .o${index}{stroke:var(--s${index});fill:var(--ground)}`),
].join('');
