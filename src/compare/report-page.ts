// A comparison as a page: the verdict first, then what it rests on. Pure: the same file gives the same bytes.
import { bars } from '../plot/bars.ts';
import { chart, cumulative, type Series } from '../plot/chart.ts';
import { page, type Part } from '../plot/page.ts';
import { percent } from '../loadgen/format-result.ts';
import type { Analysis, Against, ArmSummary } from './analysis.ts';
import { ATTAINMENT_MARGIN, SAME_ATTAINMENT } from './analysis.ts';
import type { Comparison, Turn } from './comparison-file.ts';
import { changeInterval, changeText, msInterval, pointsInterval, verdictText } from './verdict-text.ts';

export function comparisonPage(comparison: Comparison, analysis: Analysis): string {
  const { arms, against, rounds } = analysis;
  const { load } = comparison;
  const measured = arms.some(({ energyJ }) => energyJ !== null);
  const counted = `${rounds.length} of ${load.rounds} rounds`;
  return page({
    title: arms.map(({ name }) => name).join(' against '),
    lead: `${load.workload}, ${load.loadS} s in each of ${counted}, ${arms[0]?.requests ?? 0} requests to each arm; ${comparison.arms[0]?.model ?? ''}; ${comparison.startedAt}. Relative to ${arms[0]?.name ?? ''}. Intervals are of 95 %.`,
    sections: [
      { heading: 'What it says', parts: [...against.map(headline), ...(measured || against.length === 0 ? [] : [text('No arm has an energy that was measured, so nothing is said of energy.')]), summaryTable(arms)] },
      { heading: 'Latency', parts: latencyParts(comparison, analysis) },
      { heading: 'Attainment', parts: [attainmentFigure(arms), text('The share of requests that completed within every objective of their class. Whiskers: Wilson intervals, which take requests as independent; where many miss together the true ones are wider than drawn.')] },
      ...(measured ? [{ heading: 'Energy', parts: energyParts(analysis) }] : []),
      { heading: 'How it was measured', parts: methodParts(comparison, analysis) },
      { heading: 'Every turn', parts: [turnsTable(comparison, rounds)] },
    ],
  });
}

function headline(one: Against): Part {
  const { verdict, energyRatio, attainmentDifference } = one;
  // Only a saving at no lower attainment is a figure in large letters.
  if (verdict.kind !== 'saves' || energyRatio === null || attainmentDifference === null) return text(verdictText(one));
  return {
    kind: 'figures',
    figures: [
      { name: `Energy of ${one.arm}, relative to ${one.base}`, value: changeText(energyRatio.mean), note: changeInterval(energyRatio).replace(/^\S+ % /, '95 % ') },
      { name: 'Attainment', value: `${(100 * attainmentDifference.mean).toFixed(2)} points`, note: pointsInterval(attainmentDifference).replace(/^.*points /, '95 % ') },
    ],
  };
}

function summaryTable(arms: readonly ArmSummary[]): Part {
  return {
    kind: 'table',
    columns: ['', 'requests', 'completed', 'attainment', 'TTFT p50 (ms)', 'TTFT p99', 'TPOT p50 (ms)', 'TPOT p99', 'energy per round (J)', 'power (W)', 'J per output token'],
    rows: arms.map((arm) => [arm.name, arm.requests, arm.completed, percent(arm.attainment), arm.ttftMs.p50 ?? '–', arm.ttftMs.p99 ?? '–', arm.tpotMs.p50 ?? '–', arm.tpotMs.p99 ?? '–', arm.energyJ, arm.meanPowerW, arm.joulesPerOutputToken]),
  };
}

function latencyParts({ load }: Comparison, { arms, against }: Analysis): Part[] {
  const objectives = (of: 'ttftMs' | 'tpotMs') => load.classes.flatMap((one) => (one[of] === undefined ? [] : [{ axis: 'x' as const, at: one[of], label: load.classes.length === 1 ? 'objective' : one.name }]));
  const curve = (title: string, of: 'ttftMs' | 'tpotMs', label: string): Part => ({
    kind: 'figure',
    svg: chart({
      title,
      description: `Share of requests at or below each time, of ${arms.map(({ name }) => name).join(' and ')}`,
      x: { label, scale: 'log' },
      y: { label: 'requests (%)', from: 0, to: 100 },
      series: arms.map((arm): Series => ({ name: arm.name, shape: 'steps', points: cumulative(arm.turns.flatMap((turn) => turn[of])) })),
      references: objectives(of),
    }),
    caption: `${title}: further to the left is sooner. Of completed requests, from when each was due to be sent.`,
    table: { columns: ['', 'p50', 'p90', 'p99'], rows: arms.map((arm) => [arm.name, arm[of].p50 ?? '–', arm[of].p90 ?? '–', arm[of].p99 ?? '–']) },
  });
  return [
    curve('Time to first token', 'ttftMs', 'TTFT (ms)'),
    curve('Time per output token', 'tpotMs', 'TPOT (ms)'),
    ...against.map((one): Part => ({ kind: 'table', columns: [`${one.arm} minus ${one.base}`, 'difference, mean of rounds [95 %]'], rows: one.latency.map(({ name, difference }) => [name, difference === null ? 'too few rounds' : msInterval(difference)]) })),
  ];
}

function attainmentFigure(arms: readonly ArmSummary[]): Part {
  const classes = [...new Set(arms.flatMap(({ byClass }) => Object.keys(byClass)))].toSorted();
  const shown = classes.length === 1 ? ['all'] : ['all', ...classes];
  const cell = (arm: ArmSummary, name: string) => {
    const { share, interval } = name === 'all' ? { share: arm.attainment, interval: arm.attainmentInterval } : shareOf(arm, name);
    return interval === null ? { value: share === null ? null : 100 * share } : { value: share === null ? null : 100 * share, low: 100 * interval.low, high: 100 * interval.high };
  };
  const lowest = Math.min(100, ...arms.flatMap((arm) => shown.map((name) => cell(arm, name).low ?? 100)));
  return {
    kind: 'figure',
    svg: bars({ title: 'Attainment', description: `Share of requests within their objectives, by class, of ${arms.map(({ name }) => name).join(' and ')}`, label: 'attainment (%)', series: arms.map(({ name }) => name), groups: shown.map((name) => ({ name, bars: arms.map((arm) => cell(arm, name)) })), from: lowest > 85 ? 80 : 0, to: lowest > 85 ? 102 : 108 }),
    ...(lowest > 85 ? { caption: 'The axis begins at 80 %.' } : {}),
    table: { columns: ['class', ...arms.flatMap(({ name }) => [`${name} (%)`, '95 %'])], rows: shown.map((name) => [name, ...arms.flatMap((arm) => { const { value, low, high } = cell(arm, name); return [value, low === undefined || high === undefined ? '–' : `${low.toFixed(2)}–${high.toFixed(2)}`]; })]) },
  };
}

function shareOf(arm: ArmSummary, name: string) {
  const own = arm.byClass[name];
  return own === undefined || own.total === 0 ? { share: null, interval: null } : { share: own.successes / own.total, interval: own.interval };
}

function energyParts({ arms, against, rounds }: Analysis): Part[] {
  const names = arms.map(({ name }) => name);
  const bar = (value: number | null, interval: { readonly low: number; readonly high: number } | null) => (interval === null ? { value } : { value, low: Math.max(0, interval.low), high: interval.high });
  const shownRounds = rounds.slice(0, ROUNDS_SHOWN_MAX);
  return [
    {
      kind: 'figure',
      svg: bars({ title: 'Energy per round', description: `Joules of all metered devices in a turn, mean of the rounds, of ${names.join(' and ')}`, label: 'energy per round (J)', series: names, groups: [{ name: 'mean of the rounds', bars: arms.map((arm) => bar(arm.energyJ, arm.energyInterval)) }] }),
      caption: 'Idling within the window included. Whiskers: 95 % of the mean, rounds taken one by one; arms are compared within rounds, which is sharper (below).',
      table: { columns: ['', 'energy (J)', '95 %'], rows: arms.map((arm) => [arm.name, arm.energyJ, arm.energyInterval === null ? '–' : `${arm.energyInterval.low.toFixed(0)}–${arm.energyInterval.high.toFixed(0)}`]) },
    },
    {
      kind: 'figure',
      svg: bars({ title: 'Energy per output token', description: `Joules per output token of ${names.join(' and ')}`, label: 'J per output token', series: names, groups: [{ name: 'mean of the rounds', bars: arms.map((arm) => bar(arm.joulesPerOutputToken, arm.tokenEnergyInterval)) }] }),
    },
    { kind: 'figure', svg: powerChart(arms), caption: 'Mean power of all metered devices, mean of the rounds, from the first request on; the load ends before the window does.' },
    {
      kind: 'figure',
      svg: bars({ title: 'Round by round', description: 'Energy of each arm in each round', label: 'energy (J)', series: names, groups: shownRounds.map((round, index) => ({ name: String(round + 1), bars: arms.map((arm) => energyOf(arm.turns[index])) })) }),
      ...(rounds.length > ROUNDS_SHOWN_MAX ? { caption: `The first ${ROUNDS_SHOWN_MAX} rounds; the table below has all.` } : {}),
    },
    { kind: 'table', columns: ['relative to the first', 'energy [95 %]', 'J per token [95 %]', 'attainment [95 %]'], rows: against.map((one) => [one.arm, one.energyRatio === null ? 'too few rounds' : changeInterval(one.energyRatio), one.tokenEnergyRatio === null ? 'too few rounds' : changeInterval(one.tokenEnergyRatio), one.attainmentDifference === null ? '–' : pointsInterval(one.attainmentDifference)]) },
  ];
}

const ROUNDS_SHOWN_MAX = 12;

function energyOf(turn: Turn | undefined): { readonly value: number | null } {
  return { value: turn?.energy?.kind === 'measured' ? turn.energy.energyJ : null };
}

function powerChart(arms: readonly ArmSummary[]): string {
  const everyS = Math.max(...arms.flatMap(({ turns }) => turns.map(({ power }) => power.everyS)));
  const lengthS = Math.max(...arms.flatMap(({ turns }) => turns.map(({ power }) => power.everyS * power.meanW.length)));
  const meanAt = (arm: ArmSummary, atS: number): number => {
    const values = arm.turns.flatMap(({ power }) => power.meanW[Math.floor(atS / power.everyS)] ?? []);
    // A gap in the line where nothing was measured.
    return values.length === 0 ? Number.NaN : values.reduce((sum, value) => sum + value, 0) / values.length;
  };
  return chart({
    title: 'Power over time',
    description: `Mean power within a turn, of ${arms.map(({ name }) => name).join(' and ')}`,
    x: { label: 'since the first request (s)', from: 0 },
    y: { label: 'power (W)', from: 0 },
    series: arms.map((arm): Series => ({ name: arm.name, shape: 'line', points: Array.from({ length: Math.floor(lengthS / everyS) }, (_, bin) => ({ x: (bin + 0.5) * everyS, y: meanAt(arm, (bin + 0.5) * everyS) })) })),
  });
}

function methodParts(comparison: Comparison, { notes, rounds }: Analysis): Part[] {
  const { load, meters, turns } = comparison;
  const order = rounds.map((round) => turns.filter((turn) => turn.round === round).map(({ arm }) => arm).join(', then ')).slice(0, 4);
  return [
    text(`Arms took turns: in each round every arm got the same requests at the same times, with other words in them, so that no prefix cache was warm from another arm. The order was drawn from the seed and mirrored in every second round (${order.join('; ')}${rounds.length > 4 ? '; …' : ''}). A turn was ${load.restS} s of rest, ${load.warmUpS} s of warm-up load that was discarded, ${load.loadS} s of load, and ${load.tailS} s for its last answers.`),
    text(`Energy is of the devices that the meters know, over the same ${load.loadS + load.tailS} s of each turn, idling included. Ratios and differences are of turns in the same round; their intervals are Student's t (ratios: of their logarithms), those of shares Wilson's, of their difference the wider one of Newcombe's and Student's. A saving is called one where the interval of energy is wholly below the first arm's, attainment is not lower by more than ${100 * SAME_ATTAINMENT} points, and its interval does not reach lower than ${100 * ATTAINMENT_MARGIN} point below.`),
    {
      kind: 'table',
      columns: ['what', ''],
      rows: [
        ...comparison.arms.map(({ name, target, model }) => [`arm ${name}`, `${target}, ${model}`]),
        ['meter', meters.length === 0 ? 'none: energy was not measured' : meters.map(({ arm, kind, devices }) => `${arm === null ? '' : `${arm}: `}${kind}${devices.length === 0 ? ', all devices' : ` (${devices.join(', ')})`}`).join('; ')],
        ['load', `${load.workload}, seed ${load.seed}, ${load.endpoint}, lengths ${load.lengths}`],
        ['objectives', load.classes.map(({ name, share, ttftMs, tpotMs, e2eMs }) => `${name} ${(100 * share).toFixed(0)} %: ${[ttftMs === undefined ? '' : `TTFT ${ttftMs} ms`, tpotMs === undefined ? '' : `TPOT ${tpotMs} ms`, e2eMs === undefined ? '' : `e2e ${e2eMs} ms`].filter((part) => part !== '').join(', ') || 'none'}`).join('; ')],
        ['command', comparison.command ?? '–'],
        ['again from its JSON', 'paceline bench --report-from FILE.json --report FILE.html'],
      ],
    },
    ...notes.map((note) => text(`Note: ${note}.`)),
  ];
}

const TURNS_SHOWN_MAX = 200;

function turnsTable({ turns }: Comparison, rounds: readonly number[]): Part {
  return {
    kind: 'table',
    columns: ['round', 'arm', 'began (s)', 'requests', 'met', 'failed', 'output tokens', 'energy (J)', 'counts'],
    rows: turns.slice(0, TURNS_SHOWN_MAX).map((turn) => [turn.round + 1, turn.arm, turn.startedAtS, turn.requests, turn.met, turn.failed, turn.outputTokens, energyOf(turn).value, turn.interrupted ? 'no: cut short' : rounds.includes(turn.round) ? 'yes' : 'no: its round is not whole']),
  };
}

function text(words: string): Part {
  return { kind: 'text', text: words };
}
