// Finds the parameters of Llama-70B on H100 from load tests at fixed rates: the inverse problem behind
// `config/profiles/make/llama-3.1-70b.h100.ts`. With `--folds` it does so without some of the rows, and prints how well the
// rows that were left out are met.
//
//   node bench/fidelity/calibrate.ts [--table PATH] [--folds row|clock|degree] [--iterations 10]
import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { H100Degree, H100Parameters } from '../../config/profiles/make/llama-3.1-70b.h100.ts';
import { H100_DEGREES, H100_LLAMA_70B, h100Form, h100Profile } from '../../config/profiles/make/llama-3.1-70b.h100.ts';
import { createPhysics } from '../../src/engine/physics.ts';
import { dampedLeastSquares } from './damped-least-squares.ts';
import { SUMMARY_HEADER, errorPct, summaryLine } from './errors.ts';
import type { TestPlan } from './load-test.ts';
import { expectedOutcome } from './load-test.ts';
import type { LoadTestRow, Outcome } from './load-test-table.ts';
import { readLoadTests } from './load-test-table.ts';

const TABLE = '../shared/data/dynamollm-style-h100-llama70b/h100_70b_tp_freq_rps.csv';
/** For the search, where equal arrivals from step to step make a small sample do, and for the verdict. */
const SEARCH: TestPlan = { requests: 200, tests: 6, seed: 1 };
const VERDICT: TestPlan = { requests: 200, tests: 30, seed: 7 };
/** Relative errors that weigh as one; beyond it they weigh linearly (Huber), so that no row rules. */
const TOLERANCE: Outcome = { powerW: 0.03, ttftP99Ms: 0.1, tpotP99Ms: 0.05 };
/** ML.ENERGY, 70B on four devices at default clocks: a step and its power at the smallest batches; `width` is relative. */
const STEP_PRIOR = { timeMs: 15.28, timeWidth: 0.05, powerW: 433, powerWidth: 0.02 };
/**
 * Where every search begins, folds included: round numbers from data sheets (weights at 85 % of the bandwidth, operations at
 * 45 % more than the sustained rate, a ring at 300 GB/s) or guesses; not what was found last.
 */
const START: H100Parameters = {
  weightPassMs: 50,
  computeRatio: 0.7,
  sharpness: 5,
  perSequenceMs: 0.05,
  exchangeMs: 2,
  exchangePerPeerMs: 0.5,
  prefillFixedMs: 10,
  prefillPerTokenMs: 0.17,
  prefillExchangePerTokenMs: 0.0087,
  exchangeClockShare: 0.5,
  linearShare: 0.5,
  decodeMemoryW: 100,
  decodeLoadW: 300,
  prefillLoadW: 900,
  exchangeLoadShare: 0.1,
};
const NAMES = Object.keys(START) as (keyof H100Parameters)[];
/** Parameters stay within a factor of e to the power of this of the start, more or less: only what rows say nothing about feels it. */
const START_WIDTH = 1.5;
const ROW_FOLDS = 5;
/** The search moves logarithms, and of the shares that must stay below 1 the log-odds. */
const SHARES: ReadonlySet<keyof H100Parameters> = new Set(['linearShare', 'exchangeClockShare']);

function main(): void {
  const { values } = parseArgs({
    options: {
      table: { type: 'string', default: TABLE },
      folds: { type: 'string' },
      iterations: { type: 'string', default: '10' },
    },
  });
  if (!existsSync(values.table)) {
    console.log(`no table at ${values.table}; give its place with --table`);
    return;
  }
  const rows = readLoadTests(values.table, H100_DEGREES);
  const iterations = Number(values.iterations);
  if (values.folds !== undefined) printFolds(rows, values.folds, iterations);
  else {
    const found = calibrated(rows, iterations);
    console.log(Object.fromEntries(NAMES.map((name) => [name, Number(found[name].toPrecision(3))])));
    console.log(`${SUMMARY_HEADER}\n${summaryLine('all rows, found', errorsOf(rows, found))}\n${summaryLine('all rows, shipped', errorsOf(rows, H100_LLAMA_70B))}`);
  }
}

/** Every row is left out once, and judged by what the others gave. */
function printFolds(rows: readonly LoadTestRow[], by: string, iterations: number): void {
  const parts = foldsBy(rows, by);
  console.log(SUMMARY_HEADER);
  const errors = parts.map(({ name, leftOut }) => {
    const foldErrors = errorsOf(leftOut, calibrated(rows.filter((row) => !leftOut.includes(row)), iterations));
    console.log(summaryLine(`  ${name} left out`, foldErrors));
    return foldErrors;
  });
  console.log(summaryLine(`left out by ${by}`, errors.flat()));
}

interface Fold {
  readonly name: string;
  readonly leftOut: readonly LoadTestRow[];
}

function foldsBy(rows: readonly LoadTestRow[], by: string): Fold[] {
  const among = (values: readonly number[], of: (row: LoadTestRow) => number, unit: string): Fold[] => values.map((value) => ({ name: `${value} ${unit}`, leftOut: rows.filter((row) => of(row) === value) }));
  switch (by) {
    case 'row':
      return Array.from({ length: ROW_FOLDS }, (_, fold) => ({ name: `every fifth row from ${fold + 1}`, leftOut: rows.filter((_row, index) => index % ROW_FOLDS === fold) }));
    case 'clock':
      return among([...new Set(rows.map(({ clockMhz }) => clockMhz))].sort((a, b) => a - b), ({ clockMhz }) => clockMhz, 'MHz');
    case 'degree':
      return among(H100_DEGREES, ({ devices }) => devices, 'devices');
    default:
      throw new Error(`--folds: got ${JSON.stringify(by)}, want row, clock or degree`);
  }
}

function calibrated(rows: readonly LoadTestRow[], iterations: number): H100Parameters {
  const start = NAMES.map((name) => coordinate(name, START[name]));
  const residuals = (x: readonly number[]): number[] => {
    const parameters = parametersOf(x);
    const { decodeTimeMs, decodePowerW } = h100Form(parameters, 4);
    const smallest = { sequences: 1, contextTokens: 0 };
    return [
      ...rows.flatMap((row, index) => {
        const outcome = outcomeOf(row, parameters, { ...SEARCH, seed: SEARCH.seed + index });
        return (Object.keys(TOLERANCE) as (keyof Outcome)[]).map((metric) => bounded(Math.log(outcome[metric] / row[metric]) / TOLERANCE[metric]));
      }),
      Math.log(decodeTimeMs(smallest, 1) / STEP_PRIOR.timeMs) / STEP_PRIOR.timeWidth,
      Math.log(decodePowerW(smallest, 1) / STEP_PRIOR.powerW) / STEP_PRIOR.powerWidth,
      ...x.map((value, index) => (value - (start[index] as number)) / START_WIDTH),
    ];
  };
  return parametersOf(dampedLeastSquares(residuals, start, iterations).x);
}

function errorsOf(rows: readonly LoadTestRow[], parameters: H100Parameters): Outcome[] {
  return rows.map((row) => errorPct(row, outcomeOf(row, parameters, VERDICT)));
}

function outcomeOf(row: LoadTestRow, parameters: H100Parameters, plan: TestPlan): Outcome {
  return expectedOutcome(createPhysics(h100Profile(row.devices as H100Degree, parameters, [row.clockMhz])), row, plan);
}

function coordinate(name: keyof H100Parameters, value: number): number {
  return SHARES.has(name) ? Math.log(value / (1 - value)) : Math.log(value);
}

function parametersOf(x: readonly number[]): H100Parameters {
  return Object.fromEntries(
    NAMES.map((name, index) => {
      const value = Math.exp(x[index] as number);
      return [name, SHARES.has(name) ? value / (1 + value) : value];
    }),
  ) as unknown as H100Parameters;
}

/** The square of it is Huber's loss. */
function bounded(error: number): number {
  const size = Math.abs(error);
  return size < 1 ? error : Math.sign(error) * Math.sqrt(2 * size - 1);
}

// Last: what `main` uses is a constant above.
if (import.meta.main) main();
