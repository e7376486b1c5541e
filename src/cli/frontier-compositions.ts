// `paceline frontier compose --as …`: several device groups as one whole, balanced so that nobody hurries to wait: stages of a pipeline, pools that prefill and
// decode, unlike replicas that share a load.
import { cheapestWithin, type Frontier } from '../frontier/frontier.ts';
import { type LoadShares, type RatePoint, shareLoad } from '../frontier/load-sharing.ts';
import type { OperatingPoint } from '../frontier/profile.ts';
import type { PerformanceModel, PointIndex } from '../frontier/performance-model.ts';
import { pipeline } from '../frontier/pipeline.ts';
import { decodeRates, prefillRates, type ServedRequest, type ServingChoice } from '../frontier/serving-rates.ts';
import { candidatesFor } from '../frontier/work-frontier.ts';
import type { ViewedProfile } from '../frontier-view/figures.ts';
import { iterationsOf, settingText } from '../frontier-view/phase-points.ts';
import { chart } from '../plot/chart.ts';
import { page } from '../plot/page.ts';
import { tableOf } from '../simulator/format-table.ts';
import { UsageError } from './command.ts';
import { digits, type Outputs, print, profileOf, write } from './frontier-files.ts';

/** A pipeline of more stages, or a fleet of more replicas, is composed of parts first. */
const GROUPS_MAX = 64;
/** Rates of the plot, from nothing to the most. */
const PLOTTED_RATES = 100;
/** Of a replica that gets nothing: no first token comes, and none after it. */
const WAITS = 'waits';

/** One stage for each file, which has an equal part of the model's layers: its times and energies are that part of the profile's. Exit code 1 where nothing is in time. */
export function composePipeline(files: readonly string[], { promptTokens, microBatches, withinMs }: { readonly promptTokens: number; readonly microBatches: number; readonly withinMs: number | null }, outputs: Outputs): number {
  const stages = groupsOf(files, 'pipeline', 'one for each stage');
  const part = 1 / stages.length;
  const ways = stages.map(({ model }) => candidatesFor(model, iterationsOf(model, 'prefill', { promptTokens, sequences: 1, contextTokens: 0 })).map(({ timeMs, energyJ, choice }) => ({ timeMs: timeMs * part, energyJ: energyJ * part, choice })));
  const whole: Frontier<readonly PointIndex[]> = pipeline(ways, { microBatches, idlePowerW: (stage) => parkedW((stages[stage] as ViewedProfile).model) });
  const settings = (choice: readonly PointIndex[]): string => choice.map((point, stage) => settingOf((stages[stage] as ViewedProfile).model, point)).join(' → ');
  const answer = withinMs === null ? null : cheapestWithin(whole, withinMs);
  const title = `${microBatches} prompts of ${promptTokens} tokens through ${stages.length} stages`;
  if (outputs.json) print({ as: 'pipeline', stages: stages.map(({ name }) => name), promptTokens, microBatches, points: whole.map(({ timeMs, energyJ, choice }) => ({ timeMs, energyJ, points: choice.map((point, stage) => (stages[stage] as ViewedProfile).model.points[point]?.id) })), withinMs, answer: answer === null ? null : answer.kind === 'meets' ? { kind: 'meets', timeMs: answer.point.timeMs, energyJ: answer.point.energyJ } : { kind: 'infeasible', fastestMs: answer.fastest?.timeMs ?? null } });
  else process.stdout.write(`${title}: ${stages.map(({ name }) => name).join(' → ')}\n${tableOf([['stage by stage', (row) => settings(row.choice)], ['time ms', (row) => digits(row.timeMs)], ['energy J', (row) => digits(row.energyJ)]], whole)}\n${answer === null ? '' : answer.kind === 'meets' ? `\nCheapest within ${withinMs} ms: ${settings(answer.point.choice)}, ${digits(answer.point.timeMs)} ms, ${digits(answer.point.energyJ)} J.\n` : `\nNothing within ${withinMs} ms: the fastest takes ${digits(answer.fastest?.timeMs ?? Number.NaN)} ms.\n`}`);
  const plot = (standalone: boolean): string =>
    chart({ title, description: 'Energy against time of all micro-batches, fill, drain and waiting included', x: { label: 'time (ms)' }, y: { label: 'energy (J)' }, series: [{ name: 'frontier', shape: 'line-and-marks', points: whole.map(({ timeMs, energyJ }) => ({ x: timeMs, y: energyJ })) }], references: withinMs === null ? [] : [{ axis: 'x', at: withinMs, label: `${withinMs} ms` }], standalone });
  write(outputs, { svg: () => plot(true), html: () => page({ title: 'Pipeline', lead: title, sections: [{ heading: stages.map(({ name }) => name).join(' → '), parts: [{ kind: 'figure', svg: plot(false) }, { kind: 'table', columns: ['stage by stage', 'time (ms)', 'energy (J)'], rows: whole.map(({ timeMs, energyJ, choice }) => [settings(choice), timeMs, energyJ]) }] }] }) });
  return answer?.kind === 'infeasible' ? 1 : 0;
}

export interface PoolLimits {
  readonly ratePerS: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
}

/** The first file's replicas prefill, the second's (or the same) decode. Exit code 1 where the pools cannot keep up within the limits. */
export function composePools(files: readonly string[], request: ServedRequest, { prefill, decode, ...limits }: PoolLimits & { readonly prefill: number; readonly decode: number }, outputs: Outputs): number {
  if (files.length > 2) throw new UsageError(`frontier compose --as pools: got ${files.length} files, want one profile for both pools, or one that prefills and one that decodes`);
  const [first, second = first] = groupsOf(files, 'pools', 'one for both pools, or one each') as [ViewedProfile, ViewedProfile?];
  const pools = [
    { name: 'prefill', limit: `TTFT ${limits.ttftMs} ms`, groups: Array.from({ length: prefill }, () => first), rates: Array.from({ length: prefill }, () => prefillRates(first.model, request, limits)) },
    { name: 'decode', limit: `TPOT ${limits.tpotMs} ms`, groups: Array.from({ length: decode }, () => second), rates: Array.from({ length: decode }, () => decodeRates(second.model, request, { tpotMs: limits.tpotMs, prefills: false })) },
  ];
  return shared('pools', pools, request, limits.ratePerS, outputs);
}

/** `each` replicas of every file serve whole requests. Exit code 1 where all together cannot keep up within the limit. */
export function composeReplicas(files: readonly string[], request: ServedRequest, { each, ...limits }: Omit<PoolLimits, 'ttftMs'> & { readonly each: number }, outputs: Outputs): number {
  const profiles = groupsOf(files, 'replicas', 'one for each kind of replica');
  const groups = profiles.flatMap((profile) => Array.from({ length: each }, () => profile));
  if (groups.length > GROUPS_MAX) throw new UsageError(`frontier compose --as replicas: got ${groups.length} replicas, at most ${GROUPS_MAX}`);
  const rates = profiles.flatMap(({ model }) => {
    const ways = decodeRates(model, request, { tpotMs: limits.tpotMs, prefills: true });
    return Array.from({ length: each }, () => ways);
  });
  return shared('replicas', [{ name: 'replicas', limit: `TPOT ${limits.tpotMs} ms`, groups, rates }], request, limits.ratePerS, outputs);
}

interface Pool {
  readonly name: string;
  readonly limit: string;
  readonly groups: readonly ViewedProfile[];
  readonly rates: readonly (readonly RatePoint<ServingChoice>[])[];
}

interface Line {
  readonly pool: string;
  readonly profile: string;
  readonly setting: string;
  readonly ratePerS: number;
  readonly sequences: number;
  readonly latencyMs: number;
  readonly powerW: number;
}

function shared(as: string, pools: readonly Pool[], request: ServedRequest, ratePerS: number, outputs: Outputs): number {
  const answers = pools.map((pool) => ({ pool, shares: shareLoad(pool.rates, ratePerS) }));
  const lines = answers.flatMap(({ pool, shares }) => (shares.kind === 'meets' ? linesOf(pool, shares) : []));
  const short = answers.filter(({ shares }) => shares.kind === 'infeasible');
  const powerW = lines.reduce((sum, line) => sum + line.powerW, 0);
  const boundW = answers.reduce((sum, { shares }) => sum + (shares.kind === 'meets' ? shares.boundW : 0), 0);
  const title = `${ratePerS} requests/s of ${request.promptTokens} tokens in, ${request.outputTokens} out`;
  const problems = short.map(({ pool, shares }) => `${pool.name}: ${pool.groups.length} replicas serve at most ${digits(shares.kind === 'infeasible' ? shares.mostPerS : 0)} requests/s within ${pool.limit}`);
  const perRequestJ = powerW / ratePerS;
  const verdict = `${digits(powerW)} W, ${Number.isFinite(perRequestJ) ? `${digits(perRequestJ)} J a request` : 'all of it waiting'}; no split of the load takes less than ${digits(boundW)} W.`;
  if (outputs.json) print({ as, request, ratePerS, answer: short.length > 0 ? { kind: 'infeasible', pools: short.map(({ pool, shares }) => ({ pool: pool.name, mostPerS: shares.kind === 'infeasible' ? shares.mostPerS : null })) } : { kind: 'meets', powerW, boundW, pools: answers.map(({ pool, shares }) => ({ pool: pool.name, marginalJ: shares.kind === 'meets' ? shares.marginalJ : null })), replicas: lines } });
  else {
    const table = tableOf([['pool', (line) => line.pool], ['profile', (line) => line.profile], ['setting', (line) => line.setting], ['requests/s', (line) => digits(line.ratePerS)], ['streams', (line) => String(line.sequences)], ['TTFT or TPOT ms', (line) => (line.setting === WAITS ? '-' : digits(line.latencyMs))], ['power W', (line) => digits(line.powerW)]], lines);
    process.stdout.write(`${title}\n${short.length > 0 ? problems.join('\n') : `${table}\n\n${verdict}`}\n`);
  }
  const plot = (standalone: boolean): string =>
    chart({
      title: 'Power by load', description: 'The least power of each pool against the load, until it cannot keep up', x: { label: 'requests/s' }, y: { label: 'power (W)' },
      series: pools.map((pool) => ({ name: pool.name, shape: 'line' as const, points: powerByLoad(pool) })), references: [{ axis: 'x', at: ratePerS, label: `${ratePerS}/s` }], standalone,
    });
  write(outputs, { svg: () => plot(true), html: () => page({ title: `Composed as ${as}`, lead: `${title}. ${short.length > 0 ? `${problems.join('; ')}.` : verdict}`, sections: [{ heading: 'Power by load', parts: [{ kind: 'figure', svg: plot(false) }, { kind: 'table', columns: ['pool', 'profile', 'setting', 'requests/s', 'streams', 'TTFT or TPOT (ms)', 'power (W)'], rows: lines.map((line) => [line.pool, line.profile, line.setting, line.ratePerS, line.sequences, line.setting === WAITS ? '–' : line.latencyMs, line.powerW]) }] }] }) });
  return short.length > 0 ? 1 : 0;
}

function linesOf({ name, groups }: Pool, shares: LoadShares<ServingChoice> & { readonly kind: 'meets' }): Line[] {
  return shares.replicas.map(({ ratePerS, point: { choice, powerW } }, index) => {
    const group = groups[index] as ViewedProfile;
    return { pool: name, profile: group.name, setting: choice.point === null ? WAITS : settingOf(group.model, choice.point), ratePerS, sequences: choice.sequences, latencyMs: choice.latencyMs, powerW };
  });
}

function powerByLoad({ rates }: Pool): { readonly x: number; readonly y: number }[] {
  const most = rates.reduce((sum, ways) => sum + Math.max(...ways.map(({ ratePerS }) => ratePerS)), 0);
  return Array.from({ length: PLOTTED_RATES + 1 }, (_, index) => {
    const ratePerS = (most * index) / PLOTTED_RATES;
    const shares = shareLoad(rates, ratePerS);
    return { x: ratePerS, y: shares.kind === 'meets' ? shares.boundW : Number.NaN };
  });
}

function groupsOf(files: readonly string[], as: string, wanted: string): ViewedProfile[] {
  if (files.length === 0 || files.length > GROUPS_MAX) throw new UsageError(`frontier compose --as ${as}: got ${files.length} files, want ${wanted}, at most ${GROUPS_MAX}`);
  return files.map((file) => profileOf(file));
}

function parkedW(model: PerformanceModel): number {
  return Math.min(...model.points.map((_, point) => model.idlePowerW(point)));
}

function settingOf(model: PerformanceModel, point: PointIndex): string {
  return settingText(model, model.points[point] as OperatingPoint);
}
