// A profile for people: what a typical piece of work of each phase costs at every operating point, and which of these are efficient.
import { type FrontierPoint, paretoFrontier, withIdleUntil } from '../frontier/frontier.ts';
import { NO_DECODE, NO_PREFILL, type IterationWork, type PerformanceModel } from '../frontier/performance-model.ts';
import type { OperatingPoint, Phase } from '../frontier/profile.ts';
import { candidatesFor } from '../frontier/work-frontier.ts';

/** The sizes that a view is of. */
export interface ViewedWork {
  /** Of a prompt; beyond `serving.maxBatchTokens` it is read in chunks of that. */
  readonly promptTokens: number;
  readonly sequences: number;
  /** Of each sequence. */
  readonly contextTokens: number;
}

export interface PointCost {
  readonly point: OperatingPoint;
  readonly timeMs: number;
  /** With a horizon: of the work, and of idling at the same point until then. Above a power: less that for as long as the work takes. */
  readonly energyJ: number;
  readonly powerW: number;
  /** No other point is as fast for less. */
  readonly efficient: boolean;
}

/** Of one prompt, or of one decode step of all sequences; in the profile's order of points. */
export function phasePoints(model: PerformanceModel, phase: Phase, work: ViewedWork, horizonMs: number | null = null): PointCost[] {
  const candidates = candidatesFor(model, iterationsOf(model, phase, work));
  const counted = horizonMs === null ? candidates : withIdleUntil(candidates, horizonMs, (point) => model.idlePowerW(point));
  return marked(model, candidates, counted);
}

/** As `phasePoints`, with energy above what `parkedW` would have drawn in the time of the work. */
export function phasePointsAbove(model: PerformanceModel, phase: Phase, work: ViewedWork, parkedW: number): PointCost[] {
  const candidates = candidatesFor(model, iterationsOf(model, phase, work));
  return marked(model, candidates, candidates.map(({ timeMs, energyJ, choice }) => ({ timeMs, energyJ: energyJ - (parkedW * timeMs) / 1_000, choice })));
}

/** `counted`: the candidates, one for one, by the energy that is compared. */
function marked(model: PerformanceModel, candidates: readonly FrontierPoint<number>[], counted: readonly FrontierPoint<number>[]): PointCost[] {
  const efficient = new Set(paretoFrontier(counted).map(({ choice }) => choice));
  return counted.map(({ timeMs, energyJ, choice }, index) => ({
    point: model.points[choice] as OperatingPoint,
    timeMs,
    energyJ,
    powerW: (1000 * (candidates[index] as FrontierPoint<number>).energyJ) / timeMs,
    efficient: efficient.has(choice),
  }));
}

/** A prompt in chunks, each as an iteration of its own; or one step. */
export function iterationsOf({ profile }: PerformanceModel, phase: Phase, { promptTokens, sequences, contextTokens }: ViewedWork): IterationWork[] {
  if (phase === 'decode') return [{ prefill: NO_PREFILL, decode: { sequences, contextTokens: sequences * contextTokens } }];
  const { maxBatchTokens } = profile.serving;
  return Array.from({ length: Math.ceil(promptTokens / maxBatchTokens) }, (_, chunk) => {
    const from = chunk * maxBatchTokens;
    return { prefill: { tokens: Math.min(maxBatchTokens, promptTokens - from), contextTokens: from }, decode: NO_DECODE };
  });
}

/** "1290 MHz", or all knobs where there are several. */
export function settingText(model: PerformanceModel, { knobs }: OperatingPoint): string {
  return Object.entries(knobs)
    .map(([name, value]) => `${Object.keys(knobs).length > 1 ? `${name} ` : ''}${value}${typeof value === 'number' ? ` ${model.profile.knobs[name]?.unit ?? ''}`.trimEnd() : ''}`)
    .join(', ');
}
