// A page around plots, whole in itself: no script, nothing fetched, light and dark as the reader's machine is, readable at 360 px.
import { escaped } from './escape.ts';
import { numberText } from './scale.ts';
import { PLOT_CSS, themeCss } from './theme.ts';

export type Cell = string | number | null;

export type Part =
  | { readonly kind: 'text'; readonly text: string }
  /** `svg`: from `chart` or `bars`. `table`: the same values, for those who do not see the picture, folded. */
  | { readonly kind: 'figure'; readonly svg: string; readonly caption?: string; readonly table?: Table }
  | ({ readonly kind: 'table' } & Table)
  /** A few figures that matter most, large. */
  | { readonly kind: 'figures'; readonly figures: readonly { readonly name: string; readonly value: string; readonly note?: string }[] };

export interface Table {
  readonly columns: readonly string[];
  /** `null`: not measured. */
  readonly rows: readonly (readonly Cell[])[];
}

export interface Page {
  readonly title: string;
  /** Below the title: what it is of, when, on what. */
  readonly lead: string;
  readonly sections: readonly { readonly heading: string; readonly parts: readonly Part[] }[];
}

/** The whole document. The same values give the same bytes. */
export function page({ title, lead, sections }: Page): string {
  const body = sections.map(({ heading, parts }) => `<section><h2>${escaped(heading)}</h2>${parts.map(partHtml).join('')}</section>`).join('');
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><meta http-equiv="content-security-policy" content="default-src 'none';style-src 'unsafe-inline'"><title>${escaped(title)}</title><style>${themeCss(':root')}${PLOT_CSS}${PAGE_CSS}</style></head><body><main><h1>${escaped(title)}</h1><p class="lead">${escaped(lead)}</p>${body}</main></body></html>\n`;
}

function partHtml(part: Part): string {
  switch (part.kind) {
    case 'text':
      return `<p>${escaped(part.text)}</p>`;
    case 'figure':
      return `<figure><div class="scrolls" tabindex="0" role="group" aria-label="plot">${part.svg}</div>${part.caption === undefined ? '' : `<figcaption>${escaped(part.caption)}</figcaption>`}${part.table === undefined ? '' : `<details><summary>The values</summary>${tableHtml(part.table)}</details>`}</figure>`;
    case 'table':
      return tableHtml(part);
    case 'figures':
      return `<dl class="figures">${part.figures.map(({ name, value, note }) => `<div><dt>${escaped(name)}</dt><dd>${escaped(value)}${note === undefined ? '' : `<small>${escaped(note)}</small>`}</dd></div>`).join('')}</dl>`;
  }
}

/** Numbers stand to the right, as people write them. */
export function tableHtml({ columns, rows }: Table): string {
  const cell = (value: Cell): string => (value === null ? '<td class="none">not measured</td>' : typeof value === 'number' ? `<td class="number">${numberText(value)}</td>` : `<td>${escaped(value)}</td>`);
  return `<div class="scrolls" tabindex="0" role="group" aria-label="table"><table><thead><tr>${columns.map((column, index) => `<th scope="col"${rows.some((row) => typeof row[index] === 'number') ? ' class="number"' : ''}>${escaped(column)}</th>`).join('')}</tr></thead><tbody>${rows.map((row) => `<tr>${row.map(cell).join('')}</tr>`).join('')}</tbody></table></div>`;
}

/** Of `page`, and of other pages that look alike. */
export const PAGE_CSS = [
  '*{box-sizing:border-box}',
  'body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif}',
  'main{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 4rem}',
  'h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0;overflow-wrap:anywhere}',
  'h2{font-size:1.15rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--rule);padding-bottom:.3rem}',
  'p{max-width:46rem}.lead{color:var(--faint)}',
  'figure{display:inline-block;vertical-align:top;margin:.5rem 1rem 1rem 0;max-width:100%}',
  'figcaption,summary{color:var(--faint);font-size:.9rem;max-width:33rem}',
  '.scrolls{overflow-x:auto;max-width:100%}',
  '.scrolls:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}',
  '.scrolls .plot{display:block;max-width:none;height:auto;width:max(26rem,min(100%,34rem))}',
  'table{border-collapse:collapse;font-size:.9rem}',
  'th,td{padding:.3rem .7rem;text-align:left;border-bottom:1px solid var(--rule);white-space:nowrap}',
  'th{color:var(--faint);font-weight:600}th.number,.number{text-align:right;font-variant-numeric:tabular-nums}.none{color:var(--faint);font-style:italic}',
  '.figures{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}.figures div{background:var(--raised);border-radius:.5rem;padding:.7rem 1rem;min-width:9rem}',
  '.figures dt{color:var(--faint);font-size:.85rem}.figures dd{margin:0;font-size:1.4rem;font-weight:600}.figures small{display:block;font-size:.8rem;font-weight:400;color:var(--faint)}',
].join('');
