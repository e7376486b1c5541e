// What every plot has around it: the svg element with its title and description for those who cannot see it, axes with their
// ticks, and the names of the series.
import { escaped } from './escape.ts';
import { numberText, type Scale } from './scale.ts';
import { PLOT_CSS, SERIES_COLOURS, themeCss } from './theme.ts';

export interface PlotText {
  readonly title: string;
  /** What it shows, in a sentence; read out in the place of the picture. */
  readonly description: string;
}

export interface Frame {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** `standalone`: with its own colours, to be a file of its own. */
export function svg({ title, description }: PlotText, { width, height }: Pick<Frame, 'width' | 'height'>, body: string, standalone = false): string {
  const style = standalone ? `<style>${themeCss('svg')}${PLOT_CSS}</style><rect width="100%" height="100%" style="fill:var(--ground)"/>` : '';
  return `<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" aria-label="${escaped(`${title}. ${description}`)}" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">${style}<title>${escaped(title)}</title>${body}</svg>`;
}

/** Lines of the grid, ticks with their values, and what the axes are called. */
export function axes({ left, right, top, bottom }: Frame, x: { readonly scale: Scale; readonly label: string } | null, y: { readonly scale: Scale; readonly label: string }): string {
  const parts: string[] = [];
  for (const tick of y.scale.ticks) {
    const at = px(y.scale.at(tick));
    parts.push(`<path class="grid" d="M${left} ${at}H${right}"/><text class="small faint" x="${left - 6}" y="${at}" dy=".35em" text-anchor="end">${numberText(tick)}</text>`);
  }
  if (x !== null) {
    for (const tick of apart(x.scale)) {
      const at = px(x.scale.at(tick));
      parts.push(`<path class="grid" d="M${at} ${top}V${bottom}"/><text class="small faint" x="${at}" y="${bottom + 15}" text-anchor="${at > right - 6 ? 'end' : 'middle'}">${numberText(tick)}</text>`);
    }
    parts.push(`<text class="faint" x="${(left + right) / 2}" y="${bottom + 32}" text-anchor="middle">${escaped(x.label)}</text>`);
  }
  parts.push(`<path class="axis" d="M${left} ${top}V${bottom}H${right}"/><text class="faint" x="${left}" y="${top - 10}" text-anchor="start">${escaped(y.label)}</text>`);
  return parts.join('');
}

/** Of ticks whose values would run into each other some are left out. */
function apart({ ticks, at }: Scale): number[] {
  const kept: number[] = [];
  for (const tick of ticks) {
    const last = kept.at(-1);
    if (last === undefined || Math.abs(at(tick) - at(last)) >= 6 * (numberText(tick).length + 1)) kept.push(tick);
  }
  return kept;
}

/** A row of names with the sign of each, wrapped where it gets too long. Returns how high it is, too. */
export function legend(names: readonly string[], { left, right, top }: Pick<Frame, 'left' | 'right' | 'top'>, sign: (index: number, x: number, y: number) => string): { readonly body: string; readonly height: number } {
  if (names.length < 2) return { body: '', height: 0 };
  const parts: string[] = [];
  let x = left;
  let y = top;
  for (const [index, name] of names.entries()) {
    const shown = name.length > NAME_CHARACTERS_MAX ? `${name.slice(0, NAME_CHARACTERS_MAX - 1)}…` : name;
    const width = 38 + 6.9 * shown.length;
    if (x > left && x + width > right) {
      x = left;
      y += LEGEND_LINE;
    }
    parts.push(`${sign(index, x, y)}<text x="${px(x + 22)}" y="${y}" dy=".35em">${escaped(shown)}</text>`);
    x += width;
  }
  return { body: parts.join(''), height: y - top + LEGEND_LINE };
}

const NAME_CHARACTERS_MAX = 40;
const LEGEND_LINE = 18;

/** Shorter paths: a hundredth of a pixel is seen by nobody. */
export function px(value: number): number {
  return Math.round(value * 100) / 100;
}

export function colourOf(index: number): number {
  return index % SERIES_COLOURS;
}
