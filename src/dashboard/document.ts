// The page around the fragments. It is whole without its script, which only keeps it current: then it loads itself anew now and then.
import { PAGE_CSS } from '../plot/page.ts';
import { PLOT_CSS, themeCss } from '../plot/theme.ts';
import type { FragmentName, Fragments } from './fragments.ts';

/** Where the page finds its script and its events; relative to itself, so that it may stand behind a proxy's path. */
const SCRIPT_PATH = 'dashboard/script.js';
export const EVENTS_PATH = 'dashboard/events';

const SECTIONS: readonly { readonly heading: string; readonly note?: string; readonly parts: readonly (FragmentName | { readonly heading: string; readonly fragment: FragmentName })[] }[] = [
  { heading: 'Fleet now', parts: ['fleet'] },
  { heading: 'Where on the frontier', note: 'Time and energy at each operating point, by the profile, for requests of the size seen lately and streams as there are now. Energy above what idling would burn anyway: that is what the planner saves.', parts: ['frontier'] },
  { heading: 'Deadlines', note: 'Requests that ended in the last 15 minutes, by SLO class.', parts: ['attainment'] },
  { heading: 'Workflows', note: 'Jobs of several calls with one deadline for all of it; those that ended in the last 15 minutes, by name.', parts: ['workflows'] },
  { heading: 'Energy', parts: ['power', 'energy'] },
  { heading: 'Energy by tenant', note: 'Since the start of this gateway, without idling. What a request took of devices that others shared nobody can measure; these are estimates.', parts: ['tenants'] },
  { heading: 'Last decisions', parts: [{ heading: 'Clocks', fragment: 'clocks' }, { heading: 'Requests', fragment: 'requests' }] },
];

export function dashboardDocument(fragments: Fragments): string {
  const slot = (name: FragmentName): string => `<div id="f-${name}" data-fragment="${name}">${fragments[name]}</div>`;
  const sections = SECTIONS.map(({ heading, note, parts }, index) => `<section aria-labelledby="h${index}"><h2 id="h${index}">${heading}</h2>${note === undefined ? '' : `<p class="note">${note}</p>`}${parts.map((part) => (typeof part === 'string' ? slot(part) : `<h3>${part.heading}</h3>${slot(part.fragment)}`)).join('')}</section>`).join('');
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>Paceline</title><link rel="icon" href="data:,"><noscript><meta http-equiv="refresh" content="5"></noscript><style>${STYLE}</style><script src="${SCRIPT_PATH}" defer></script></head><body><a class="skip" href="#main">To the fleet</a><header><h1>Paceline</h1><p class="lead" data-fragment="asof" id="f-asof">${fragments.asof}</p><p class="live"><span id="live" role="status" data-kind="still">Not live</span> <button type="button" id="pause" aria-pressed="false" hidden>Pause</button></p></header><main id="main" tabindex="-1"><div role="status" aria-live="polite" id="f-problems" data-fragment="problems">${fragments.problems}</div><div id="f-figures" data-fragment="figures">${fragments.figures}</div>${sections}</main></body></html>\n`;
}

const DASHBOARD_CSS = [
  'header{max-width:72rem;margin:0 auto;padding:1.2rem 1rem 0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;align-items:baseline}header p{margin:0}header h1{margin:0}',
  'main{padding-top:.6rem}main:focus{outline:none}h3{font-size:1rem;margin:1.2rem 0 .4rem}.note{color:var(--faint);font-size:.9rem;margin:.3rem 0 .6rem}',
  '.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.4rem;background:var(--raised);color:var(--accent);padding:.4rem .8rem}',
  '.live{margin-left:auto}#live[data-kind=live]{color:var(--good)}#live[data-kind=lost]{color:var(--bad)}#live::before{content:"● "}#live[data-kind=still]::before,#live[data-kind=paused]::before{content:"○ "}#live[data-kind=lost]::before{content:"▲ "}',
  'button{font:inherit;color:var(--ink);background:var(--raised);border:1px solid var(--faint);border-radius:.4rem;padding:.25rem .8rem;min-height:2rem;cursor:pointer}button:focus-visible,a:focus-visible{outline:2px solid var(--accent);outline-offset:2px}button[aria-pressed=true]{border-color:var(--accent);color:var(--accent)}a{color:var(--accent)}',
  '.problems{margin:.6rem 0;padding:.6rem 1rem .6rem 2rem;border-left:4px solid var(--warn);background:var(--raised)}',
  '.figures div{flex:1 1 10rem}.figures .bad dd{color:var(--bad)}.figures .bad small{color:var(--faint)}',
  '.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));gap:.8rem}.card{background:var(--raised);border-radius:.5rem;padding:.7rem 1rem;min-width:0;overflow-wrap:anywhere}.card h3{margin:0 0 .3rem}',
  '.chip{font-size:.8rem;font-weight:400;border:1px solid currentcolor;border-radius:1rem;padding:.05rem .55rem;margin-left:.3rem;white-space:nowrap}.chip.good{color:var(--good)}.chip.warn{color:var(--warn)}.chip.bad{color:var(--bad)}',
  '.clock{margin:.3rem 0 0}.clock strong{font-size:1.25rem}.why{margin:0;font-size:.9rem;min-height:2.7em}',
  '.facts{display:grid;grid-template-columns:1fr 1fr;gap:.2rem .8rem;margin:.6rem 0 0;font-size:.85rem}.facts div{display:flex;justify-content:space-between;gap:.5rem}.facts dt{color:var(--faint)}.facts dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}',
  '.none{color:var(--faint);font-style:italic}',
].join('');

/** Of the document's one `style` element; its hash stands in the page's policy. */
export const STYLE = `${themeCss(':root')}${PLOT_CSS}${PAGE_CSS}${DASHBOARD_CSS}`;
