// Bars in groups, each with the interval in which its value lies where one is known.
import { escaped } from './escape.ts';
import { axes, colourOf, type Frame, legend, type PlotText, px, svg } from './frame.ts';
import { createScale, numberText } from './scale.ts';

export interface Bar {
  /** `null`: not measured; said so in the place of a bar. */
  readonly value: number | null;
  readonly low?: number;
  readonly high?: number;
}

export interface Bars extends PlotText {
  /** With its unit. */
  readonly label: string;
  /** Names beside each other in each group. */
  readonly series: readonly string[];
  readonly groups: readonly { readonly name: string; readonly bars: readonly Bar[] }[];
  readonly from?: number;
  readonly to?: number;
  readonly width?: number;
  readonly height?: number;
  readonly standalone?: boolean;
}

/** An SVG element. Bars stand on 0, or on `from`. */
export function bars({ label, series, groups, from, to, width = 520, height = 280, standalone = false, ...text }: Bars): string {
  const signs = legend(series, { left: 56, right: width - 14, top: 14 }, (index, x, y) => `<rect class="f${colourOf(index)}" x="${px(x)}" y="${y - 6}" width="14" height="12" rx="2"/>`);
  const frame: Frame = { width, height, left: 56, right: width - 16, top: 32 + signs.height, bottom: height - 30 };
  const all = groups.flatMap((group) => group.bars.flatMap(({ value, low, high }) => [value, low, high])).filter((value) => typeof value === 'number');
  const scale = createScale({ kind: 'linear', values: from === undefined ? [0, ...all] : all, from, to, pixels: { from: frame.bottom, to: frame.top } });
  const groupWidth = (frame.right - frame.left) / Math.max(1, groups.length);
  const barWidth = Math.min(64, (groupWidth * 0.8) / Math.max(1, series.length));
  const floor = scale.at(Math.max(scale.from, Math.min(scale.to, 0)));
  const drawn = groups.map(({ name, bars: own }, group) => {
    const middle = frame.left + (group + 0.5) * groupWidth;
    const first = middle - (own.length * barWidth) / 2;
    const inside = own.map((bar, index) => oneBar(bar, index, first + index * barWidth, barWidth, floor, scale.at)).join('');
    return `${inside}<text class="faint" x="${px(middle)}" y="${frame.bottom + 17}" text-anchor="middle">${escaped(name)}</text>`;
  });
  return svg(text, { width, height }, [signs.body, axes(frame, null, { scale, label }), ...drawn].join(''), standalone);
}

function oneBar({ value, low, high }: Bar, index: number, x: number, width: number, floor: number, at: (value: number) => number): string {
  const middle = px(x + width / 2);
  if (value === null || !Number.isFinite(value)) return `<text class="small faint" transform="translate(${middle} ${px(floor - 6)}) rotate(-90)" dy=".35em">not measured</text>`;
  const top = Math.min(at(value), floor);
  const bar = `<rect class="f${colourOf(index)}" x="${px(x + 2)}" y="${px(top)}" width="${px(width - 4)}" height="${px(Math.abs(floor - at(value)))}" rx="2"/>`;
  const whisker = low === undefined || high === undefined ? '' : `<path class="whisker" d="M${middle} ${px(at(low))}V${px(at(high))}m-4 0h8M${px(x + width / 2 - 4)} ${px(at(low))}h8"/>`;
  const above = high === undefined ? top : Math.min(top, at(high));
  return `${bar}${whisker}<text class="small" x="${middle}" y="${px(above - 5)}" text-anchor="middle">${numberText(value)}</text>`;
}
