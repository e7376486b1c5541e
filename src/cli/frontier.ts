// `paceline frontier`: the narrow waist for people. Each action is a function below; what is computed and drawn is `frontier-view/`.
import { realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { convertSweep, ConversionError, SOURCE_FORMATS } from '../frontier-view/convert.ts';
import { compareProfiles } from '../frontier-view/comparison.ts';
import { frontierSvg, phaseTitle, pointsTable, type ViewedProfile } from '../frontier-view/figures.ts';
import { type FrontiersFile, frontiersSchema } from '../frontier-view/frontiers-file.ts';
import { iterationsOf, phasePoints, settingText, type ViewedWork } from '../frontier-view/phase-points.ts';
import { doubtsOf, notesOf } from '../frontier-view/plausibility.ts';
import { cheapestWithin, type Frontier, paretoFrontier, sequence } from '../frontier/frontier.ts';
import { createPerformanceModel, NO_PREFILL, type PerformanceModel, type PointIndex } from '../frontier/performance-model.ts';
import { frontierOf } from '../frontier/work-frontier.ts';
import { chart } from '../plot/chart.ts';
import { page, type Part } from '../plot/page.ts';
import { loadProfile, ProfileFileError } from '../profile-file.ts';
import { tableOf } from '../simulator/format-table.ts';
import { WORKFLOW_MS_MAX } from '../workflow-document.ts';
import { defineCommand, UsageError } from './command.ts';
import { composePipeline, composePools, composeReplicas } from './frontier-compositions.ts';
import { fleet } from './frontier-fleet.ts';
import { digits, type Outputs, print, profileOf, read, write, writeText } from './frontier-files.ts';
import { scale } from './frontier-scale.ts';
import { workflow } from './frontier-workflow.ts';

const ACTIONS = ['show', 'compare', 'compose', 'workflow', 'scale', 'fleet', 'validate', 'convert'] as const;
/** Beyond these it is no other generation of a device, but a slip of the pen. */
const FACTOR = { min: 0.01, max: 10 };

export const command = defineCommand({
  name: 'frontier',
  summary: `Profiles and their time-energy frontiers, for people: ${ACTIONS.join(', ')}.`,
  positionals: ['ACTION', 'FILE…'],
  options: {
    'prompt-tokens': { type: 'number', value: 'N', help: 'of the prompt that is prefilled', default: 1024, min: 1, max: 10_000_000, integer: true },
    sequences: { type: 'number', value: 'N', help: 'that get a token in a decode step', default: 16, min: 1, max: 100_000, integer: true },
    context: { type: 'number', value: 'N', help: 'tokens of context of each of them', default: 1024, min: 0, max: 10_000_000, integer: true },
    'output-tokens': { type: 'number', value: 'N', help: 'compose, fleet: tokens that are decoded after the prompt', default: 256, min: 1, max: 1_000_000, integer: true },
    as: { type: 'text', value: 'HOW', help: 'compose: a prompt and then its answer; stages of a pipeline, one file each; a pool that prefills and one that decodes; replicas that share a load', oneOf: ['sequence', 'pipeline', 'pools', 'replicas'], default: 'sequence' },
    'micro-batches': { type: 'number', value: 'N', help: 'compose --as pipeline: prompts that go through all stages', default: 8, min: 1, max: 100_000, integer: true },
    rate: { type: 'number', value: 'R', help: 'compose --as pools, replicas; fleet: requests a second', default: 1, min: 0, max: 1_000_000 },
    'ttft-ms': { type: 'number', value: 'MS', help: 'compose --as pools; fleet: mean time to the first token, at most', default: 500, min: 0.001 },
    'tpot-ms': { type: 'number', value: 'MS', help: 'compose --as pools, replicas; fleet: mean time from one token to the next, at most', default: 50, min: 0.001 },
    prefill: { type: 'number', value: 'P', help: 'compose --as pools: replicas that prefill', default: 1, min: 1, max: 64, integer: true },
    decode: { type: 'number', value: 'D', help: 'compose --as pools: replicas that decode', default: 1, min: 1, max: 64, integer: true },
    each: { type: 'number', value: 'N', help: 'compose --as replicas: of each file', default: 1, min: 1, max: 64, integer: true },
    'within-ms': { type: 'number', value: 'MS', help: 'compose: names the cheapest way that takes no longer', min: 0.001 },
    'horizon-ms': { type: 'number', value: 'MS', help: 'show: counts the energy of idling until then; what is burnt anyway is no saving', min: 0.001 },
    profile: { type: 'texts', value: 'MODEL=PATH', help: 'workflow: what calls of that model cost; PATH alone: of every model' },
    company: { type: 'number', value: 'N', help: 'workflow: streams in the batches that a call shares, itself included', default: 8, min: 1, max: 100_000, integer: true },
    like: { type: 'text', value: 'PROMPT:OUTPUT', help: 'workflow: tokens of calls that say none' },
    'deadline-ms': { type: 'number', value: 'MS', help: "workflow: allots each stage's time for the least energy within it; default: the file's", min: 0.001, max: WORKFLOW_MS_MAX },
    devices: { type: 'number', value: 'N', help: 'fleet: devices that there are', default: 8, min: 1, max: 4096, integer: true },
    peak: { type: 'number', value: 'X', help: 'fleet: has room for so many times the rate', default: 1.3, min: 1, max: 100 },
    'batch-tokens': { type: 'text', value: 'LIST', help: "fleet: chunk sizes to look at beside the profiles' own, separated by commas" },
    sleep: { type: 'text', value: 'COSTS', help: 'fleet: servers may sleep, POWERW:SLEEPMS:WAKEMS of each' },
    time: { type: 'number', value: 'X', help: 'scale: all times of prefill and decode times X; below 1 is faster, default 1', ...FACTOR },
    power: { type: 'number', value: 'X', help: 'scale: power while busy times X, default 1', ...FACTOR },
    'idle-power': { type: 'number', value: 'X', help: 'scale: power while idle, asleep and waking times X; default: as --power', ...FACTOR },
    name: { type: 'text', value: 'NAME', help: 'scale: what the device that nobody has measured is called' },
    from: { type: 'text', value: 'FORMAT', help: 'convert: what the file is', oneOf: Object.keys(SOURCE_FORMATS) },
    source: { type: 'text', value: 'TEXT', help: 'convert: where the table is from; kept as provenance' },
    licence: { type: 'text', value: 'TEXT', help: 'convert: its licence, e.g. Apache-2.0' },
    json: { type: 'flag', help: 'JSON on standard output' },
    svg: { type: 'text', value: 'FILE', help: 'show, compare, compose, workflow: the plot of decode (compose, workflow: of the whole) as a file' },
    html: { type: 'text', value: 'FILE', help: 'show, compare, compose, workflow: plots and tables as a page' },
    out: { type: 'text', value: 'FILE', help: 'scale, convert: where to; default: standard output' },
  },
  examples: [
    'paceline frontier show config/profiles/llama-3.1-8b.h200.json --sequences 32 --html frontier.html',
    'paceline frontier compare config/profiles/llama-3.1-70b.h100-tp4.json config/profiles/llama-3.1-70b.h100-tp8.json',
    'paceline frontier compose config/profiles/llama-3.1-8b.h200.json --prompt-tokens 2000 --output-tokens 300 --within-ms 4000',
    'paceline frontier compose config/profiles/llama-3.1-70b.h100-tp4.json config/profiles/llama-3.1-70b.h100-tp8.json --as replicas --rate 3',
    'paceline frontier workflow config/workflows/research.yaml --profile config/profiles/llama-3.1-8b.h200.json --html workflow.html',
    'paceline frontier fleet config/profiles/llama-3.1-70b.h100-tp2.json config/profiles/llama-3.1-70b.h100-tp4.json --devices 8 --rate 4',
    'paceline frontier scale config/profiles/llama-3.1-70b.h100-tp4.json --time 0.7 --power 1.1 --idle-power 0.8 --name next.gpu --out next.json',
    'paceline frontier validate config/profiles/llama-3.1-8b.h200.json',
    "paceline frontier convert sweep.csv --from perseus-profile --source 'our pipeline, 2026-11' --licence CC0-1.0 --out sweep.json",
  ],
  run: async (options, [action, ...files]) => {
    if (!ACTIONS.some((known) => known === action)) throw new UsageError(`frontier: got '${action ?? ''}', want one of ${ACTIONS.join(', ')}; see: paceline frontier --help`);
    const work: ViewedWork = { promptTokens: options['prompt-tokens'], sequences: options.sequences, contextTokens: options.context };
    const outputs: Outputs = { json: options.json, svg: options.svg, html: options.html };
    refuseOverInput([...files, ...options.profile.map((given) => given.slice(given.indexOf('=') + 1))], { svg: options.svg, html: options.html, out: options.out });
    switch (action) {
      case 'show':
        return show(oneOf(files, 'show'), work, options['horizon-ms'] ?? null, outputs);
      case 'compare':
        return compare(files, work, outputs);
      case 'compose':
        return composed(files, work, options, outputs);
      case 'workflow':
        return workflow(oneOf(files, 'workflow'), { profiles: options.profile, company: options.company, like: options.like, deadlineMs: options['deadline-ms'] }, outputs);
      case 'fleet':
        return fleet(files, { devices: options.devices, ratePerS: options.rate, peak: options.peak, promptTokens: work.promptTokens, outputTokens: options['output-tokens'], ttftMs: options['ttft-ms'], tpotMs: options['tpot-ms'], batchTokens: options['batch-tokens'], sleep: options.sleep }, options.json);
      case 'scale':
        return scale(oneOf(files, 'scale'), options);
      case 'validate':
        return validate(files, options.json);
      default:
        return convert(oneOf(files, 'convert'), options);
    }
  },
});

const PHASES = ['prefill', 'decode'] as const;

interface ComposeOptions {
  readonly as: string;
  readonly 'output-tokens': number;
  readonly 'within-ms': number | undefined;
  readonly 'micro-batches': number;
  readonly rate: number;
  readonly 'ttft-ms': number;
  readonly 'tpot-ms': number;
  readonly prefill: number;
  readonly decode: number;
  readonly each: number;
}

function composed(files: readonly string[], work: ViewedWork, options: ComposeOptions, outputs: Outputs): number {
  const request = { promptTokens: work.promptTokens, outputTokens: options['output-tokens'] };
  const limits = { ratePerS: options.rate, ttftMs: options['ttft-ms'], tpotMs: options['tpot-ms'] };
  const withinMs = options['within-ms'] ?? null;
  if (withinMs !== null && (options.as === 'pools' || options.as === 'replicas')) throw new UsageError(`frontier compose --as ${options.as}: got --within-ms, and its limits are --ttft-ms and --tpot-ms`);
  switch (options.as) {
    case 'pipeline':
      return composePipeline(files, { promptTokens: work.promptTokens, microBatches: options['micro-batches'], withinMs }, outputs);
    case 'pools':
      return composePools(files, request, { ...limits, prefill: options.prefill, decode: options.decode }, outputs);
    case 'replicas':
      return composeReplicas(files, request, { ...limits, each: options.each }, outputs);
    default:
      return compose(oneOf(files, 'compose'), work, { outputTokens: options['output-tokens'], withinMs }, outputs);
  }
}

function show(file: string, work: ViewedWork, horizonMs: number | null, outputs: Outputs): number {
  const loaded = load(file);
  if (loaded.kind === 'frontiers') return showFrontiers(loaded.file, outputs);
  const { name, model } = loaded;
  const phases = PHASES.map((phase) => ({ phase, title: phaseTitle(phase, work), points: phasePoints(model, phase, work, horizonMs) }));
  const { fitError, profile } = model;
  const fit = `Fit against its own rows: prefill ${fitError.prefill.timePct.toFixed(1)} % of time, ${fitError.prefill.energyPct.toFixed(1)} % of energy; decode ${fitError.decode.timePct.toFixed(1)} %, ${fitError.decode.energyPct.toFixed(1)} %`;
  if (outputs.json) {
    print({ profile: profile.name, work, horizonMs, fitError, phases: phases.map(({ phase, points }) => ({ phase, points: points.map(({ point, ...cost }) => ({ id: point.id, knobs: point.knobs, idlePowerW: point.idlePowerW, ...cost })) })) });
  } else {
    const text = phases.map(({ title, points }) => `${title}${horizonMs === null ? '' : `, idling until ${horizonMs} ms`}\n${tableOf([['point', (row) => settingText(model, row.point)], ['time ms', (row) => digits(row.timeMs)], ['energy J', (row) => digits(row.energyJ)], ['power W', (row) => digits(row.powerW)], ['idle W', (row) => digits(row.point.idlePowerW)], ['efficient', (row) => (row.efficient ? 'yes' : '-')]], points)}`);
    process.stdout.write(`${profile.name}: ${profile.model} on ${profile.deviceGroup.devices} × ${profile.deviceGroup.device}\n\n${text.join('\n\n')}\n\n${fit}.\n`);
  }
  write(outputs, {
    svg: () => frontierSvg([loaded], 'decode', work, { horizonMs, standalone: true }),
    html: () => page({
      title: name,
      lead: `${profile.model} on ${profile.deviceGroup.devices} × ${profile.deviceGroup.device}, ${profile.engine.name}${profile.engine.version === undefined ? '' : ` ${profile.engine.version}`}. Measured by ${profile.provenance.measuredBy}, ${profile.provenance.measuredAt}. ${fit}.`,
      sections: phases.map(({ phase, title, points }) => ({ heading: title, parts: [{ kind: 'figure', svg: frontierSvg([loaded], phase, work, { horizonMs }), caption: 'Further to the left is sooner, further down is less energy. Each point is a setting of the knobs.' }, pointsTable(model, points)] })),
    }),
  });
  return 0;
}

function showFrontiers(file: FrontiersFile, outputs: Outputs): number {
  const shown = file.frontiers.map(({ work, points }) => ({ work, points, efficient: paretoFrontier(points.map((point) => ({ timeMs: point.timeMs, energyJ: point.energyJ, choice: point }))) }));
  const setting = (knobs: Readonly<Record<string, number | string>>): string => Object.entries(knobs).map(([name, value]) => `${value} ${file.knobs[name]?.unit ?? ''}`.trimEnd()).join(', ');
  if (outputs.json) print({ name: file.name, frontiers: shown.map(({ work, efficient, points }) => ({ work, measured: points.length, points: efficient.map(({ timeMs, energyJ, choice }) => ({ knobs: choice.knobs, timeMs, energyJ })) })) });
  else {
    const text = shown.map(({ work, efficient, points }) => `${work} (${efficient.length} of ${points.length} points are efficient)\n${tableOf([['setting', (row) => setting(row.choice.knobs)], ['time ms', (row) => digits(row.timeMs)], ['energy J', (row) => digits(row.energyJ)]], efficient)}`);
    process.stdout.write(`${file.name}\n\n${text.join('\n\n')}\n`);
  }
  const plot = ({ work, points, efficient }: (typeof shown)[number], standalone: boolean): string =>
    chart({
      title: work, description: 'Energy against time', x: { label: 'time (ms)' }, y: { label: 'energy (J)' }, standalone,
      series: [{ name: 'frontier', shape: 'line-and-marks', points: efficient.map(({ timeMs, energyJ, choice }) => ({ x: timeMs, y: energyJ, label: setting(choice.knobs) })) }, { name: 'measured', shape: 'marks', minor: true, points: points.map(({ timeMs, energyJ }) => ({ x: timeMs, y: energyJ })) }],
    });
  write(outputs, {
    svg: () => plot(shown[0] as (typeof shown)[number], true),
    html: () => page({ title: file.name, lead: `${file.provenance.source}; ${file.provenance.licence}. ${file.provenance.notes.join('; ')}.`, sections: shown.slice(0, SECTIONS_MAX).map((one) => ({ heading: one.work, parts: [{ kind: 'figure', svg: plot(one, false) }] })) }),
  });
  return 0;
}

/** A page with more plots than this is read by nobody; the table on standard output has them all. */
const SECTIONS_MAX = 100;

function compare(files: readonly string[], work: ViewedWork, outputs: Outputs): number {
  const [first, ...others] = files.map((file) => profileOf(file));
  if (first === undefined || others.length === 0) throw new UsageError(`frontier compare: got ${files.length} files, want two or more profiles`);
  const compared = others.map((other) => ({ name: other.name, phases: compareProfiles(first.model, other.model, work) }));
  if (outputs.json) print({ first: first.name, work, others: compared.map(({ name, phases }) => ({ name, phases: phases.map(({ points, ...rest }) => ({ ...rest, points: points.map(({ point, other, ...cost }) => ({ id: point.id, ...cost, other: other === null ? null : { ...other, point: other.point.id } })) })) })) });
  else {
    const text = compared.map(({ name, phases }) => phases.map(({ phase, points, fastestTimeRatio, leastEnergyRatio, meanEnergyRatio }) => [
      `${name} beside ${first.name}: ${phaseTitle(phase, work).toLowerCase()}`,
      tableOf([['setting', (row) => settingText(first.model, row.point)], ['time ms', (row) => digits(row.timeMs)], ['energy J', (row) => digits(row.energyJ)], ['the other, no slower', (row) => (row.other === null ? 'cannot' : digits(row.other.energyJ))], ['ratio', (row) => (row.other === null ? '-' : row.other.energyRatio.toFixed(2))]], points),
      `Fastest: ${fastestTimeRatio.toFixed(2)} × the time. Least energy: ${leastEnergyRatio.toFixed(2)} ×. ${meanEnergyRatio === null ? 'It is never as fast.' : `At equal time: ${meanEnergyRatio.toFixed(2)} × the energy on the mean.`}`,
    ].join('\n')).join('\n\n'));
    process.stdout.write(`${text.join('\n\n')}\n`);
  }
  write(outputs, {
    svg: () => frontierSvg([first, ...others], 'decode', work, { standalone: true }),
    html: () => page({
      title: [first, ...others].map(({ name }) => name).join(' and '),
      lead: `The same work on each; ratios are relative to ${first.name}.`,
      sections: PHASES.map((phase) => ({
        heading: phaseTitle(phase, work),
        parts: [
          { kind: 'figure', svg: frontierSvg([first, ...others], phase, work) },
          ...compared.flatMap(({ name, phases }): Part[] => phases.filter((one) => one.phase === phase).map(({ points }) => ({ kind: 'table', columns: [first.name, 'time (ms)', 'energy (J)', `${name}, no slower (J)`, 'ratio'], rows: points.map(({ point, timeMs, energyJ, other }) => [settingText(first.model, point), timeMs, energyJ, other?.energyJ ?? 'cannot be as fast', other?.energyRatio ?? '–']) }))),
        ],
      })),
    }),
  });
  return 0;
}

/** A prompt and its answer's tokens, the knobs set anew between them: every efficient pair of settings. */
function compose(file: string, work: ViewedWork, { outputTokens, withinMs }: { readonly outputTokens: number; readonly withinMs: number | null }, outputs: Outputs): number {
  const { name, model } = profileOf(file);
  const prompt = frontierOf(model, iterationsOf(model, 'prefill', work));
  const whole = sequence([prompt, decodeFrontier(model, work, outputTokens)]);
  const answer = withinMs === null ? null : cheapestWithin(whole, withinMs);
  const settings = (choice: readonly PointIndex[]): string => choice.map((point) => settingText(model, model.points[point] as PerformanceModel['points'][number])).join(' → ');
  const title = `${work.promptTokens} tokens in, ${outputTokens} out, as one of ${work.sequences} streams`;
  if (outputs.json) print({ profile: model.profile.name, work, outputTokens, points: whole.map(({ timeMs, energyJ, choice }) => ({ timeMs, energyJ, points: choice.map((point) => model.points[point]?.id) })), withinMs, answer: answer === null ? null : answer.kind === 'meets' ? { kind: 'meets', timeMs: answer.point.timeMs, energyJ: answer.point.energyJ } : { kind: 'infeasible', fastestMs: answer.fastest?.timeMs ?? null } });
  else {
    process.stdout.write(`${name}: ${title}\n${tableOf([['prefill → decode', (row) => settings(row.choice)], ['time ms', (row) => digits(row.timeMs)], ['energy J', (row) => digits(row.energyJ)]], whole)}\n`);
    if (answer?.kind === 'meets') process.stdout.write(`\nCheapest within ${withinMs} ms: ${settings(answer.point.choice)}, ${digits(answer.point.timeMs)} ms, ${digits(answer.point.energyJ)} J.\n`);
    if (answer?.kind === 'infeasible') process.stdout.write(`\nNothing within ${withinMs} ms: the fastest takes ${digits(answer.fastest?.timeMs ?? Number.NaN)} ms.\n`);
  }
  const plot = (standalone: boolean): string =>
    chart({ title, description: 'Energy against time of prompt and answer together', x: { label: 'time (ms)' }, y: { label: "energy (J), this stream's part" }, series: [{ name: 'frontier', shape: 'line-and-marks', points: whole.map(({ timeMs, energyJ, choice }) => ({ x: timeMs, y: energyJ, label: settings(choice) })) }], references: withinMs === null ? [] : [{ axis: 'x', at: withinMs, label: `${withinMs} ms` }], standalone });
  write(outputs, { svg: () => plot(true), html: () => page({ title: name, lead: title, sections: [{ heading: 'Prefill, then decode', parts: [{ kind: 'figure', svg: plot(false) }, { kind: 'table', columns: ['prefill → decode', 'time (ms)', 'energy (J)'], rows: whole.map(({ timeMs, energyJ, choice }) => [settings(choice), timeMs, energyJ]) }] }] }) });
  return answer?.kind === 'infeasible' ? 1 : 0;
}

/** All steps at one point; the stream's part of each is an equal share. */
function decodeFrontier(model: PerformanceModel, { sequences, contextTokens, promptTokens }: ViewedWork, outputTokens: number): Frontier<PointIndex> {
  const context = (sequences - 1) * contextTokens + promptTokens + outputTokens / 2;
  const step = frontierOf(model, [{ prefill: NO_PREFILL, decode: { sequences, contextTokens: context } }]);
  return step.map(({ timeMs, energyJ, choice }) => ({ timeMs: timeMs * outputTokens, energyJ: (energyJ * outputTokens) / sequences, choice }));
}

/** Exit code 1 where one is no profile, or a person should look at one. */
function validate(files: readonly string[], json: boolean): number {
  if (files.length === 0) throw new UsageError('frontier validate: got no file, want one or more profiles');
  const results = files.map((file) => {
    try {
      const model = createPerformanceModel(loadProfile(file));
      return { file, problems: [], doubts: doubtsOf(model), notes: notesOf(model), fitError: model.fitError };
    } catch (error) {
      if (!(error instanceof ProfileFileError)) throw error;
      return { file, problems: error.problems, doubts: [], notes: [], fitError: null };
    }
  });
  if (json) print({ profiles: results });
  else {
    for (const { file, problems, doubts, notes, fitError } of results) {
      if (problems.length > 0) process.stdout.write(`${file}: refused\n${problems.map((problem) => `  ${problem}`).join('\n')}\n`);
      else process.stdout.write(`${file}: ${doubts.length === 0 ? 'good' : `usable, and to be looked at (${doubts.length})`}; time off by ${fitError?.prefill.timePct.toFixed(1)} % (prefill), ${fitError?.decode.timePct.toFixed(1)} % (decode) of its own rows\n${[...doubts, ...notes.map(({ where, what }) => ({ where: `note: ${where}`, what }))].map(({ where, what }) => `  ${where}: ${what}\n`).join('')}`);
    }
  }
  return results.every(({ problems, doubts }) => problems.length === 0 && doubts.length === 0) ? 0 : 1;
}

function convert(file: string, options: { readonly from: string | undefined; readonly source: string | undefined; readonly licence: string | undefined; readonly out: string | undefined }): number {
  const { from, source, licence, out } = options;
  if (from === undefined) throw new UsageError(`frontier convert: --from FORMAT is missing; there are:\n${Object.entries(SOURCE_FORMATS).map(([name, { what, columns }]) => `  ${name}: ${what}; columns ${columns.join(',')}`).join('\n')}`);
  if (source === undefined || licence === undefined) throw new UsageError('frontier convert: --source and --licence are wanted: nobody may use figures of which nobody knows whence they are');
  try {
    const text = `${JSON.stringify(convertSweep(read(file), from, { name: basename(file).replace(/\.csv$/, ''), source, licence }), null, 1)}\n`;
    if (out === undefined) process.stdout.write(text);
    else writeText(out, text, 'out');
  } catch (error) {
    if (error instanceof ConversionError) throw new UsageError(`${file}: ${error.message}`);
    throw error;
  }
  return 0;
}

/** A plot in the place of the profile that it was made of is an hour of measuring gone. */
function refuseOverInput(files: readonly string[], outputs: Readonly<Record<string, string | undefined>>): void {
  const inputs = new Set(files.map(realPathOf));
  for (const [option, path] of Object.entries(outputs)) {
    const real = path === undefined ? null : realPathOf(path);
    if (real !== null && inputs.has(real)) throw new UsageError(`--${option} ${path}: is one of the files that are read; give it another name`);
  }
}

/** `null`: there is none. */
function realPathOf(path: string): string | null {
  try {
    return realpathSync(path);
  } catch {
    return null;
  }
}

type Loaded = ({ readonly kind: 'profile' } & ViewedProfile) | { readonly kind: 'frontiers'; readonly file: FrontiersFile };

function load(file: string): Loaded {
  const text = read(file);
  if (!/"format"\s*:\s*"paceline-frontiers\/1"/.test(text.slice(0, 4_096))) return { kind: 'profile', ...profileOf(file, text) };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${file}: is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const parsed = frontiersSchema.safeParse(value);
  if (parsed.success) return { kind: 'frontiers', file: parsed.data };
  const [issue] = parsed.error.issues;
  throw new UsageError(`${file}: ${issue?.path.map(String).join('.') ?? ''}: ${issue?.message ?? 'no frontiers'}`);
}

function oneOf(files: readonly string[], action: string): string {
  const [file, ...more] = files;
  if (file === undefined || more.length > 0) throw new UsageError(`frontier ${action}: got ${files.length} files, want one`);
  return file;
}
