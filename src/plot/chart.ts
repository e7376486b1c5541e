// x against y: lines, steps and marks of several series, on linear or logarithmic axes.
import { escaped } from './escape.ts';
import { axes, colourOf, type Frame, legend, type PlotText, px, svg } from './frame.ts';
import { createScale, type Scale, type ScaleKind } from './scale.ts';
import { SERIES_COLOURS } from './theme.ts';

export interface ChartPoint {
  readonly x: number;
  readonly y: number;
  /** Written beside it, where there is room. */
  readonly label?: string;
}

export interface Series {
  readonly name: string;
  /** In the order in which they are joined. Those that are not finite (on a logarithmic axis: not positive) break the line. */
  readonly points: readonly ChartPoint[];
  readonly shape: 'line' | 'steps' | 'marks' | 'line-and-marks';
  /** Drawn fainter, without a label: what is beaten by others. */
  readonly minor?: boolean;
}

export interface Axis {
  /** With its unit: "time per step (ms)". */
  readonly label: string;
  readonly scale?: ScaleKind;
  readonly from?: number;
  readonly to?: number;
}

export interface Chart extends PlotText {
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
  /** Lines across, such as a limit or a target. */
  readonly references?: readonly { readonly axis: 'x' | 'y'; readonly at: number; readonly label: string }[];
  readonly width?: number;
  readonly height?: number;
  /** Default: part of a page of `page.ts`, which has the colours. */
  readonly standalone?: boolean;
}

/** An SVG element. What can be drawn is bounded by the caller; of a curve with more than a thousand points a `thinned` one looks the same. */
export function chart({ x, y, series, references = [], width = 520, height = 320, standalone = false, ...text }: Chart): string {
  const signs = legend(series.map(({ name }) => name), { left: 56, right: width - 14, top: 14 }, (index, atX, atY) => sign(series[index] as Series, index, atX, atY));
  const frame: Frame = { width, height, left: 56, right: width - 16, top: 32 + signs.height, bottom: height - 42 };
  const values = (axis: 'x' | 'y'): number[] => [...series.flatMap(({ points }) => points.map((point) => point[axis])), ...references.filter((reference) => reference.axis === axis).map(({ at }) => at)];
  const xScale = createScale({ kind: x.scale ?? 'linear', values: values('x'), from: x.from, to: x.to, pixels: { from: frame.left, to: frame.right } });
  const yScale = createScale({ kind: y.scale ?? 'linear', values: values('y'), from: y.from, to: y.to, pixels: { from: frame.bottom, to: frame.top } });
  const labels = createLabels(frame);
  const body = [
    signs.body,
    axes(frame, { scale: xScale, label: x.label }, { scale: yScale, label: y.label }),
    ...references.map((reference) => referenceLine(reference, frame, xScale, yScale)),
    ...series.map((one, index) => drawn(one, index, xScale, yScale)),
    ...series.map((one) => (one.minor === true ? '' : one.points.map((point) => labels.place(point.label, xScale.at(point.x), yScale.at(point.y))).join(''))),
  ];
  return svg(text, { width, height }, body.join(''), standalone);
}

function drawn({ points, shape, minor = false }: Series, index: number, x: Scale, y: Scale): string {
  const places = points.map((point) => ({ x: x.at(point.x), y: y.at(point.y) }));
  const faded = minor ? ' opacity="0.45"' : '';
  const marks = shape === 'marks' || shape === 'line-and-marks' ? places.filter(isDrawable).map((place) => marker(index, place.x, place.y)).join('') : '';
  if (shape === 'marks') return `<g${faded}>${marks}</g>`;
  return `<g${faded}><path class="line c${colourOf(index)}"${dashOf(index)} d="${pathOf(places, shape === 'steps')}"/>${marks}</g>`;
}

function pathOf(places: readonly { readonly x: number; readonly y: number }[], steps: boolean): string {
  let path = '';
  let open = false;
  for (const place of places) {
    if (!isDrawable(place)) open = false;
    else {
      path += open ? (steps ? `H${px(place.x)}V${px(place.y)}` : `L${px(place.x)} ${px(place.y)}`) : `M${px(place.x)} ${px(place.y)}`;
      open = true;
    }
  }
  return path;
}

function isDrawable({ x, y }: { readonly x: number; readonly y: number }): boolean {
  return Number.isFinite(x) && Number.isFinite(y);
}

/** The second turn through the colours is dashed, and so is every other series, for those who see no colours. */
function dashOf(index: number): string {
  const dash = ['', '6 4', '2 3', '9 3 2 3'][(index + Math.floor(index / SERIES_COLOURS)) % 4] as string;
  return dash === '' ? '' : ` stroke-dasharray="${dash}"`;
}

function marker(index: number, x: number, y: number): string {
  const [at, down] = [px(x), px(y)];
  const colour = colourOf(index);
  switch (index % 4) {
    case 0:
      return `<circle class="f${colour}" cx="${at}" cy="${down}" r="3.5"/>`;
    case 1:
      return `<rect class="f${colour}" x="${px(x - 3.2)}" y="${px(y - 3.2)}" width="6.4" height="6.4"/>`;
    case 2:
      return `<path class="f${colour}" d="M${at} ${px(y - 4.4)}l4.2 7.4h-8.4z"/>`;
    default:
      return `<path class="o${colour}" stroke-width="2" d="M${at} ${px(y - 4.6)}l4.6 4.6l-4.6 4.6l-4.6 -4.6z"/>`;
  }
}

function sign({ shape }: Series, index: number, x: number, y: number): string {
  const line = shape === 'marks' ? '' : `<path class="line c${colourOf(index)}"${dashOf(index)} d="M${px(x)} ${y}h17"/>`;
  return line + (shape === 'marks' || shape === 'line-and-marks' ? marker(index, x + 8.5, y) : '');
}

function referenceLine({ axis, at, label }: { readonly axis: 'x' | 'y'; readonly at: number; readonly label: string }, { left, right, top, bottom }: Frame, x: Scale, y: Scale): string {
  const place = px(axis === 'x' ? x.at(at) : y.at(at));
  if (!Number.isFinite(place)) return '';
  const line = axis === 'x' ? `M${place} ${top}V${bottom}` : `M${left} ${place}H${right}`;
  // On the other side of the line where there is no room for it.
  const beyond = place + 4 + 6 * label.length > right;
  const text = axis === 'x' ? `x="${beyond ? place - 4 : place + 4}" y="${top + 10}"${beyond ? ' text-anchor="end"' : ''}` : `x="${right - 4}" y="${place - 5}" text-anchor="end"`;
  return `<path class="reference" d="${line}"/><text class="small faint" ${text}>${escaped(label)}</text>`;
}

/** Beside their points, and only where they hit no other one. */
function createLabels({ left, right, top }: Frame): { place(label: string | undefined, x: number, y: number): string } {
  const taken: { readonly x: number; readonly y: number; readonly width: number }[] = [];
  return {
    place(label, x, y) {
      if (label === undefined || !isDrawable({ x, y })) return '';
      const width = 6 * label.length;
      const spots = [{ x: x + 6, y: y - 7 }, { x: x - 6 - width, y: y + 12 }, { x: x + 6, y: y + 12 }, { x: x - 6 - width, y: y - 7 }];
      const spot = spots.find((one) => one.x >= left && one.x + width <= right + 12 && one.y > top && !taken.some((other) => Math.abs(other.y - one.y) < 12 && one.x < other.x + other.width + 4 && other.x < one.x + width + 4));
      if (spot === undefined) return '';
      taken.push({ ...spot, width });
      return `<text class="small" x="${px(spot.x)}" y="${px(spot.y)}">${escaped(label)}</text>`;
    },
  };
}

/** At most so many points of a curve, the first and the last among them, and of each stretch that is left out its least and greatest `y`. */
export function thinned(points: readonly ChartPoint[], pointsMax: number): readonly ChartPoint[] {
  if (points.length <= pointsMax || pointsMax < 4) return points;
  const kept: ChartPoint[] = [points[0] as ChartPoint];
  const stretches = Math.floor((pointsMax - 2) / 2);
  const inner = points.length - 2;
  for (let stretch = 0; stretch < stretches; stretch++) {
    const part = points.slice(1 + Math.floor((stretch * inner) / stretches), 1 + Math.floor(((stretch + 1) * inner) / stretches));
    const low = part.reduce((least, point) => (point.y < least.y ? point : least));
    const high = part.reduce((most, point) => (point.y > most.y ? point : most));
    kept.push(...(low === high ? [low] : part.indexOf(low) < part.indexOf(high) ? [low, high] : [high, low]));
  }
  kept.push(points.at(-1) as ChartPoint);
  return kept;
}

/** The share of values at or below each of them, in percent, as `steps`; thinned. Values in any order, those that are not finite are left out. */
export function cumulative(values: readonly number[], pointsMax = 400): readonly ChartPoint[] {
  const sorted = values.filter(Number.isFinite).toSorted((a, b) => a - b);
  return thinned(sorted.map((x, index) => ({ x, y: (100 * (index + 1)) / sorted.length })), pointsMax);
}
