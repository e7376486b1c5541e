// Frontiers as pictures: time against energy, the operating points named.
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { Phase } from '../frontier/profile.ts';
import { chart, type Series } from '../plot/chart.ts';
import type { Part } from '../plot/page.ts';
import { phasePoints, type PointCost, settingText, type ViewedWork } from './phase-points.ts';

export interface ViewedProfile {
  readonly name: string;
  readonly model: PerformanceModel;
}

/** One chart for a phase: the frontier of each profile, and where there is one only, fainter, what is beaten. */
export function frontierSvg(profiles: readonly ViewedProfile[], phase: Phase, work: ViewedWork, options: { readonly horizonMs?: number | null; readonly standalone?: boolean } = {}): string {
  const { horizonMs = null, standalone = false } = options;
  const series = profiles.flatMap(({ name, model }): Series[] => {
    const points = phasePoints(model, phase, work, horizonMs).toSorted((a, b) => a.timeMs - b.timeMs);
    const beaten = points.filter(({ efficient }) => !efficient);
    const own: Series = { name: profiles.length === 1 ? 'frontier' : name, shape: 'line-and-marks', points: points.filter(({ efficient }) => efficient).map(({ point, timeMs, energyJ }) => ({ x: timeMs, y: energyJ, label: settingText(model, point) })) };
    return profiles.length > 1 || beaten.length === 0 ? [own] : [own, { name: 'beaten by others', shape: 'marks', minor: true, points: beaten.map(({ timeMs, energyJ }) => ({ x: timeMs, y: energyJ })) }];
  });
  return chart({
    title: `${phaseTitle(phase, work)}${horizonMs === null ? '' : `, idling until ${horizonMs} ms`}`,
    description: `Energy against time of ${profiles.map(({ name }) => name).join(' and ')}, one point for each operating point`,
    x: { label: phase === 'prefill' ? 'time of the prompt (ms)' : 'time of a step (ms)' },
    y: { label: phase === 'prefill' ? 'energy of the prompt (J)' : 'energy of a step (J)' },
    series,
    standalone,
  });
}

export function phaseTitle(phase: Phase, { promptTokens, sequences, contextTokens }: ViewedWork): string {
  return phase === 'prefill' ? `Prefill of ${promptTokens} tokens` : `Decode step of ${sequences} sequences, ${contextTokens} tokens of context each`;
}

export function pointsTable(model: PerformanceModel, points: readonly PointCost[]): Part & { readonly kind: 'table' } {
  return {
    kind: 'table',
    columns: ['point', 'setting', 'time (ms)', 'energy (J)', 'power (W)', 'idle (W)', 'efficient'],
    rows: points.map(({ point, timeMs, energyJ, powerW, efficient }) => [point.id, settingText(model, point), timeMs, energyJ, powerW, point.idlePowerW, efficient ? 'yes' : 'no']),
  };
}
