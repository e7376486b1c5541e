// The frontier of each profile that the fleet runs by, for work as it is now, and where on it the replicas are. Energy is what the
// planner minimises: above what idling parked would burn anyway, so that a point is not shown as beaten which the planner is right to take.
import type { ReplicaId } from '../core/job.ts';
import { parkedPowerW } from '../core/work-energy.ts';
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { Phase } from '../frontier/profile.ts';
import { phaseTitle } from '../frontier-view/figures.ts';
import { phasePointsAbove, settingText, type ViewedWork } from '../frontier-view/phase-points.ts';
import { chart, type Series } from '../plot/chart.ts';
import { escaped } from '../plot/escape.ts';
import { tableHtml } from '../plot/page.ts';
import type { DashboardView, Replica } from './view.ts';

/** Profiles, and points of one at which somebody runs, that are drawn. */
export const PROFILES_MAX = 4;
const PLACES_MAX = 5;
/** Until a request has ended. */
const SIZE_AT_FIRST = { promptTokens: 1_000, outputTokens: 200 };
const NAMES_MAX = 3;

export function frontierFragment(view: DashboardView): string {
  const byModel = new Map<PerformanceModel, Replica[]>();
  for (const replica of view.snapshot.replicas) {
    const model = view.beliefs.get(replica.replicaId);
    if (model === undefined) continue;
    const known = byModel.get(model);
    if (known === undefined) byModel.set(model, [replica]);
    else known.push(replica);
  }
  if (byModel.size === 0) return '<p>No profile is known.</p>';
  const more = byModel.size - PROFILES_MAX;
  const drawn = [...byModel].slice(0, PROFILES_MAX).map(([model, replicas]) => profileFigures(model, replicas, view, byModel.size > 1));
  return `${drawn.join('')}${more > 0 ? `<p>… and ${more} more profiles.</p>` : ''}`;
}

function profileFigures(model: PerformanceModel, replicas: readonly Replica[], { remembered }: DashboardView, named: boolean): string {
  const size = remembered.size ?? SIZE_AT_FIRST;
  const busy = replicas.filter(({ runningStreams }) => runningStreams > 0);
  const work: ViewedWork = {
    promptTokens: Math.max(1, Math.round(size.promptTokens)),
    sequences: Math.max(1, Math.round(busy.reduce((sum, { runningStreams }) => sum + runningStreams, 0) / Math.max(1, busy.length))),
    contextTokens: Math.max(1, Math.round(size.promptTokens + size.outputTokens / 2)),
  };
  const names = replicas.map(({ replicaId }) => replicaId);
  const heading = named ? `<h3>${escaped(shortly(names))}</h3>` : '';
  return `${heading}${(['prefill', 'decode'] as const).map((phase) => phaseFigure(model, phase, replicas, work)).join('')}`;
}

function phaseFigure(model: PerformanceModel, phase: Phase, replicas: readonly Replica[], work: ViewedWork): string {
  const points = phasePointsAbove(model, phase, work, parkedPowerW(model)).toSorted((a, b) => a.timeMs - b.timeMs);
  const efficient = points.filter((point) => point.efficient);
  const places = placesOf(model, phase, replicas);
  const series: Series[] = [
    { name: 'frontier', shape: 'line-and-marks', points: efficient.map(({ point, timeMs, energyJ }) => ({ x: timeMs, y: energyJ, label: settingText(model, point) })) },
    { name: 'beaten by others', shape: 'marks', minor: true, points: points.filter((point) => !point.efficient).map(({ timeMs, energyJ }) => ({ x: timeMs, y: energyJ })) },
    ...places.map(({ pointId, text }): Series => ({ name: text, shape: 'marks', points: points.filter(({ point }) => point.id === pointId).map(({ timeMs, energyJ }) => ({ x: timeMs, y: energyJ })) })),
  ];
  const unit = phase === 'prefill' ? 'prompt' : 'step';
  const svg = chart({
    title: phaseTitle(phase, work),
    description: `Energy above idling against time of each operating point, by the profile. ${places.map(({ text }) => text).join('. ')}`,
    x: { label: `time of the ${unit} (ms)` },
    y: { label: `energy of the ${unit} above idling (J)` },
    series,
    references: places.flatMap(({ pointId }) => points.filter(({ point }) => point.id === pointId).map(({ timeMs }) => ({ axis: 'x' as const, at: timeMs, label: 'now' }))),
    height: 340,
  });
  const table = tableHtml({ columns: ['setting', `time (ms)`, `energy above idling (J)`, 'efficient', 'who is there'], rows: points.map(({ point, timeMs, energyJ, efficient: holds }) => [settingText(model, point), timeMs, energyJ, holds ? 'yes' : 'no', places.find(({ pointId }) => pointId === point.id)?.names ?? '']) });
  return `<figure><div class="scrolls" tabindex="0" role="group" aria-label="plot of ${phase}">${svg}</div><details><summary>The values (${phase})</summary>${table}</details></figure>`;
}

/** Where its devices were told to be; who is driven by nobody runs at default clocks, which is the fastest point. */
function placesOf(model: PerformanceModel, phase: Phase, replicas: readonly Replica[]): { readonly pointId: string; readonly names: string; readonly text: string }[] {
  const fastestId = (model.points[model.fastest] as { readonly id: string }).id;
  const at = new Map<string, ReplicaId[]>();
  for (const replica of replicas) {
    const { controlled, pointId } = replica.groups?.[phase] ?? replica;
    const id = controlled ? (pointId ?? fastestId) : fastestId;
    at.set(id, [...(at.get(id) ?? []), replica.replicaId]);
  }
  return [...at]
    .map(([pointId, ids]) => {
      const point = model.points.find(({ id }) => id === pointId);
      const names = shortly(ids);
      return { pointId, names, count: ids.length, text: `now: ${names} at ${point === undefined ? pointId : settingText(model, point)}` };
    })
    .toSorted((a, b) => b.count - a.count)
    .slice(0, PLACES_MAX);
}

function shortly(names: readonly string[]): string {
  return names.length <= NAMES_MAX ? names.join(', ') : `${names.length} replicas`;
}
