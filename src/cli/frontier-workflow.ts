// `paceline frontier workflow`: what a deadline of a whole workflow costs, and how its slack is best spent. What is computed is `core/`.
import { callFrontier } from '../core/call-frontier.ts';
import { createSlackAllotment, energyAt, lowerHull, type TradeOffPoint } from '../core/slack-allotment.ts';
import { timingsOf, workflowFrontier } from '../core/workflow-frontier.ts';
import type { PerformanceModel } from '../frontier/performance-model.ts';
import { chart } from '../plot/chart.ts';
import { page, type Part } from '../plot/page.ts';
import { tableOf } from '../simulator/format-table.ts';
import type { DeclaredWorkflow } from '../workflow-document.ts';
import { UsageError } from './command.ts';
import { digits, type Outputs, print, profileOf, write } from './frontier-files.ts';
import { loadWorkflow, sizedNodes } from './workflow-file.ts';

export interface WorkflowOptions {
  /** `MODEL=PATH`, or one `PATH` for all. */
  readonly profiles: readonly string[];
  /** Streams in the batches that a call shares, itself included. */
  readonly company: number;
  /** `PROMPT:OUTPUT` of calls that say none. */
  readonly like: string | undefined;
  readonly deadlineMs: number | undefined;
}

interface Stage {
  readonly stage: string;
  /** Of a model, or of a tool. */
  readonly work: string;
  readonly startAtMs: number;
  readonly timeMs: number;
  readonly endAtMs: number;
  /** So much later it may end. */
  readonly floatMs: number;
  readonly energyJ: number;
  readonly critical: boolean;
}

interface Row extends TradeOffPoint {
  /** What being a second faster than this would cost, per millisecond; `null`: nothing is faster. */
  readonly soonerJPerMs: number | null;
  readonly critical: readonly string[];
}

/** Float that is rounding. */
const CRITICAL_FLOAT_MS = 1e-3;
/** Stages named in a line; all are in the JSON. */
const STAGES_SHOWN_MAX = 4;
/** Lines of the table on the terminal; the plot and the JSON have all points. */
const ROWS_SHOWN_MAX = 24;

/** Exit code 1 where the deadline cannot be met. */
export function workflow(file: string, options: WorkflowOptions, outputs: Outputs): number {
  const declared = loadWorkflow(file);
  const frontiers = frontiersOf(declared, options);
  const { edges } = declared;
  const whole = workflowFrontier({ frontiers, edges });
  const solver = createSlackAllotment({ frontiers, edges, deadlineMs: 0 });
  const hulls = frontiers.map(lowerHull);
  const allotted = (deadlineMs: number): Stage[] | null => {
    solver.setDeadline(deadlineMs + 1e-6);
    const solved = solver.solve();
    if (solved.kind === 'infeasible') return null;
    const timings = timingsOf(solved.nodes.map(({ timeMs }) => timeMs), edges);
    const wholeMs = timings.reduce((most, { endAtMs }) => Math.max(most, endAtMs), 0);
    return declared.nodes.map((node, index): Stage => {
      const { timeMs } = solved.nodes[index] as (typeof solved.nodes)[number];
      const timing = timings[index] as (typeof timings)[number];
      // What the deadline leaves beyond the last end nobody needs.
      const floatMs = timing.floatMs + Math.max(0, deadlineMs - wholeMs);
      return { stage: node.stage, work: node.kind === 'tool' ? 'tool' : node.model, ...timing, floatMs, timeMs, energyJ: energyAt(hulls[index] as TradeOffPoint[], timeMs), critical: floatMs < CRITICAL_FLOAT_MS };
    });
  };
  const rows = whole.points.map((point, index): Row => {
    const faster = whole.points[index - 1];
    return { ...point, soonerJPerMs: faster === undefined ? null : (faster.energyJ - point.energyJ) / (point.timeMs - faster.timeMs), critical: criticalOf(allotted(point.timeMs) ?? []) };
  });
  const deadlineMs = options.deadlineMs ?? declared.deadlineMs ?? null;
  const stages = deadlineMs === null ? null : allotted(deadlineMs);
  const [fastest, least] = [rows[0] as Row, rows.at(-1) as Row];
  const name = declared.name ?? 'workflow';
  const lead = `${declared.nodes.length} stages, ${edges.length} edges, calls as one of ${options.company} streams. The fastest takes ${digits(fastest.timeMs)} ms and ${digits(fastest.energyJ)} J; with ${digits(least.timeMs)} ms it takes its least, ${digits(least.energyJ)} J.`;
  const thinned = whole.thinned ? `The curve has more bends than the ${rows.length} points; between them it is lower by at most ${digits(whole.missingJ)} J.` : null;
  const stagesJ = stages?.reduce((sum, { energyJ }) => sum + energyJ, 0) ?? null;

  if (outputs.json) print({ workflow: name, company: options.company, points: rows, thinned: whole.thinned, missingJ: whole.missingJ, deadlineMs, answer: deadlineMs === null ? null : stages === null ? { kind: 'infeasible', fastestMs: fastest.timeMs } : { kind: 'meets', energyJ: stagesJ, stages } });
  else {
    const table = tableOf([['time ms', (row) => digits(row.timeMs)], ['energy J', (row) => digits(row.energyJ)], ['a second less costs J', (row) => (row.soonerJPerMs === null ? '-' : digits(1000 * row.soonerJPerMs))], ['held up by', (row) => shortened(row.critical)]], shownOf(rows));
    process.stdout.write(`${name}: ${lead}\n${thinned === null ? '' : `${thinned}\n`}\n${table}\n${rows.length > ROWS_SHOWN_MAX ? `${ROWS_SHOWN_MAX} of ${rows.length} points; --json has all.\n` : ''}`);
    if (stages !== null) process.stdout.write(`\nWithin ${deadlineMs} ms for the least energy, ${digits(stagesJ ?? 0)} J:\n${tableOf([['stage', (row) => row.stage], ['work', (row) => row.work], ['begins ms', (row) => digits(row.startAtMs)], ['ends ms', (row) => digits(row.endAtMs)], ['may end later by', (row) => digits(row.floatMs)], ['energy J', (row) => digits(row.energyJ)]], stages.map((stage) => (stage.critical ? { ...stage, floatMs: 0 } : stage)))}\n`);
    else if (deadlineMs !== null) process.stdout.write(`\nNothing within ${deadlineMs} ms: the fastest takes ${digits(fastest.timeMs)} ms, held up by ${shortened(fastest.critical)}.\n`);
  }
  const plot = (standalone: boolean): string =>
    chart({
      title: `${name}: energy by deadline`, description: 'The least energy of the whole workflow against the time that it may take',
      x: { label: 'deadline (ms)' }, y: { label: 'energy of all calls (J)' },
      series: [{ name: 'least energy', shape: rows.length > 60 ? 'line' : 'line-and-marks', points: rows.map(({ timeMs, energyJ }) => ({ x: timeMs, y: energyJ })) }],
      references: deadlineMs === null ? [] : [{ axis: 'x', at: deadlineMs, label: `${deadlineMs} ms` }], standalone,
    });
  write(outputs, {
    svg: () => plot(true),
    html: () => page({
      title: name, lead,
      sections: [
        { heading: 'What a deadline costs', parts: [{ kind: 'figure', svg: plot(false), caption: `Below the curve nothing is possible, on it every stage has the time that is best for the whole.${thinned === null ? '' : ` ${thinned}`}` }, { kind: 'table', columns: ['time (ms)', 'energy (J)', 'a second less costs (J)', 'held up by'], rows: shownOf(rows).map((row) => [row.timeMs, row.energyJ, row.soonerJPerMs === null ? '–' : 1000 * row.soonerJPerMs, shortened(row.critical)]) }] },
        ...(deadlineMs === null ? [] : [{ heading: `Within ${deadlineMs} ms`, parts: stagesPart(stages, fastest) }]),
      ],
    }),
  });
  return deadlineMs !== null && stages === null ? 1 : 0;
}

function stagesPart(stages: readonly Stage[] | null, fastest: Row): Part[] {
  if (stages === null) return [{ kind: 'text', text: `Not possible: the fastest takes ${digits(fastest.timeMs)} ms, held up by ${shortened(fastest.critical)}.` }];
  return [{ kind: 'table', columns: ['stage', 'work', 'begins (ms)', 'ends (ms)', 'may end later by (ms)', 'energy (J)'], rows: stages.map((row) => [row.stage, row.work, row.startAtMs, row.endAtMs, row.critical ? 0 : row.floatMs, row.energyJ]) }];
}

/** Tools and calls that nothing waits for longer: those that any delay of is a delay of the whole. */
function criticalOf(stages: readonly Stage[]): string[] {
  return stages.filter(({ critical }) => critical).map(({ stage }) => stage);
}

function shortened(stages: readonly string[]): string {
  return stages.length <= STAGES_SHOWN_MAX ? stages.join(', ') : `${stages.slice(0, STAGES_SHOWN_MAX).join(', ')} and ${stages.length - STAGES_SHOWN_MAX} more`;
}

/** Both ends, and evenly in between. */
function shownOf(rows: readonly Row[]): Row[] {
  if (rows.length <= ROWS_SHOWN_MAX) return [...rows];
  return Array.from({ length: ROWS_SHOWN_MAX }, (_, index) => rows[Math.round((index * (rows.length - 1)) / (ROWS_SHOWN_MAX - 1))] as Row);
}

function frontiersOf({ nodes }: DeclaredWorkflow, { profiles, company, like }: WorkflowOptions): TradeOffPoint[][] {
  const models = modelsOf(profiles);
  return sizedNodes(nodes, like).map((node, place) => {
    if (node.kind === 'tool') return [{ timeMs: node.timeMs, energyJ: 0 }];
    const model = models.get(node.model) ?? models.get(ALL_MODELS);
    if (model === undefined) throw new UsageError(`nodes[${place}] ${node.stage}: got model '${node.model}', and ${models.size === 0 ? 'no profile' : `profiles of ${[...models.keys()].join(', ')} only`}; give --profile ${node.model}=PATH`);
    return callFrontier(model, { ...node, company });
  });
}

/** No model is called so. */
const ALL_MODELS = '';

function modelsOf(profiles: readonly string[]): Map<string, PerformanceModel> {
  const models = new Map<string, PerformanceModel>();
  for (const given of profiles) {
    const equals = given.indexOf('=');
    const model = equals < 0 ? ALL_MODELS : given.slice(0, equals);
    const path = given.slice(equals + 1);
    if (equals === 0 || path === '') throw new UsageError(`--profile: got '${given}', want MODEL=PATH or PATH`);
    if (models.has(model)) throw new UsageError(`--profile: got two ${model === ALL_MODELS ? 'for all models' : `of ${model}`}, want one`);
    models.set(model, profileOf(path).model);
  }
  return models;
}
