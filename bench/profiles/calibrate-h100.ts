// Recovers the busy-phase parameters of Llama-70B on H100 from load tests at fixed rates: the inverse problem behind
// `config/profiles/make/llama-3.1-70b.h100-tp4.ts`. Prints the parameters found, then how well the shipped profile, run on
// the emulated engine under the same load, meets the table. Where the table is not there it says so and ends.
//
//   node bench/profiles/calibrate-h100.ts [--table PATH] [--tp 4] [--evaluations 500] [--check-only]
import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { H100_REFERENCE_MHZ, H100_TP4, batchLoadShare, h100Form, llama70bOnH100 } from '../../config/profiles/make/llama-3.1-70b.h100-tp4.ts';
import type { H100Parameters } from '../../config/profiles/make/llama-3.1-70b.h100-tp4.ts';
import { settledAt } from '../../config/profiles/make/physical-form.ts';
import type { LoadTestRow, Outcome } from './load-tests.ts';
import { emulatedOutcome, readLoadTests } from './load-tests.ts';
import { nelderMead } from './nelder-mead.ts';
import type { LoadTestResult } from './queue-simulation.ts';
import { simulateLoadTest } from './queue-simulation.ts';

/** Requests per simulated test: for the search, where common random numbers make a small sample do, and for the verdict. */
const SEARCH_REQUESTS = 1500;
const CHECK_REQUESTS = 20_000;
/** Relative errors that weigh as one in the search; beyond it they weigh linearly (Huber), so that no row rules. */
const TPOT_TOLERANCE = 0.06;
const TTFT_TOLERANCE = 0.1;
/** ML.ENERGY, four GPUs: 15.28 ms per step at small batches and default clocks. `width` is relative. */
const STEP_PRIOR = { devices: 4, timeMs: 15.2, width: 0.07 };
/** Where the search begins: round numbers, not what it found last, so that the result does not lean on itself. */
const START = { decodeStepMs: 15, perSequenceMs: 0.05, computeRatio: 0.8, sharpness: 5, prefillFixedMs: 10, prefillPerTokenMs: 0.055, decodeLoadW: 200, decodeClockExponent: 1 };
const WEIGHT_PASS = { sequences: 0, contextTokens: 0 };

type Unknowns = Pick<H100Parameters, 'decodeStepMs' | 'perSequenceMs' | 'computeRatio' | 'sharpness' | 'prefillFixedMs' | 'prefillPerTokenMs'> & {
  /** Share of the reference clock at which the board limit holds a prefill of the table's length. */
  readonly prefillCeiling: number;
};
type PowerUnknowns = Pick<H100Parameters, 'decodeLoadW' | 'decodeClockExponent'>;

main();

function main(): void {
  const { values } = parseArgs({
    options: {
      table: { type: 'string', default: '../shared/data/dynamollm-style-h100-llama70b/h100_70b_tp_freq_rps.csv' },
      tp: { type: 'string', default: '4' },
      evaluations: { type: 'string', default: '500' },
      'check-only': { type: 'boolean', default: false },
    },
  });
  if (!existsSync(values.table)) {
    console.log(`no table at ${values.table}; give its place with --table`);
    return;
  }
  const rows = readLoadTests(values.table, Number(values.tp));
  if (rows.length === 0) throw new Error(`${values.table}: no rows with --tp ${values.tp}`);
  if (!values['check-only']) {
    const found = calibrated(rows, { ...H100_TP4, ...START, devices: Number(values.tp) }, Number(values.evaluations));
    console.log('parameters found:', Object.fromEntries(Object.entries(found).map(([name, value]) => [name, Number(value.toPrecision(4))])));
  }
  if (Number(values.tp) !== H100_TP4.devices) return;
  const { profile } = llama70bOnH100();
  report(rows, rows.map((row) => emulatedOutcome(profile, row, CHECK_REQUESTS, 7)));
}

/** First the times, which do not depend on power but for the ceiling of the prefill clock; then the power, given the times. */
function calibrated(rows: readonly LoadTestRow[], start: H100Parameters, evaluations: number): H100Parameters {
  const names = ['decodeStepMs', 'perSequenceMs', 'computeRatio', 'sharpness', 'prefillFixedMs', 'prefillPerTokenMs', 'prefillCeiling'] as const;
  const startTimes: Unknowns = { ...start, prefillCeiling: 0.85 };
  const timesOf = (logs: readonly number[]): Unknowns => Object.fromEntries(names.map((name, index) => [name, Math.exp(logs[index] as number)])) as unknown as Unknowns;
  const times = nelderMead(
    (logs) => timeLoss(rows, start, timesOf(logs)),
    names.map((name) => Math.log(startTimes[name])),
    names.map(() => 0.15),
    evaluations,
  );
  const { prefillCeiling, ...timeParameters } = timesOf(times.x);
  const withTimes = { ...start, ...timeParameters };
  const results = rows.map((row) => simulated(row, withTimes, prefillCeiling, CHECK_REQUESTS / 2));

  const powerNames = ['decodeLoadW', 'decodeClockExponent'] as const;
  const parametersOf = (logs: readonly number[]): H100Parameters => {
    const unknowns = Object.fromEntries(powerNames.map((name, index) => [name, Math.exp(logs[index] as number)])) as unknown as PowerUnknowns;
    return withCeiling({ ...withTimes, ...unknowns }, prefillCeiling, rows);
  };
  console.log(`the board limit holds a prefill at ${Math.round(prefillCeiling * H100_REFERENCE_MHZ)} MHz`);
  const power = nelderMead(
    (logs) => powerLoss(rows, results, parametersOf(logs)),
    powerNames.map((name) => Math.log(start[name])),
    powerNames.map(() => 0.3),
    3000,
  );
  return parametersOf(power.x);
}

function timeLoss(rows: readonly LoadTestRow[], start: H100Parameters, unknowns: Unknowns): number {
  // Outside, the form is no longer what it means to be.
  if (unknowns.sharpness > 12 || unknowns.prefillCeiling > 1.3) return Infinity;
  const prior = start.devices !== STEP_PRIOR.devices ? 0 : (Math.log(unknowns.decodeStepMs / STEP_PRIOR.timeMs) / STEP_PRIOR.width) ** 2;
  return rows.reduce((sum, row) => {
    const result = simulated(row, { ...start, ...unknowns }, unknowns.prefillCeiling, SEARCH_REQUESTS);
    return sum + huber(Math.log(result.tpotP99Ms / row.tpotP99Ms) / TPOT_TOLERANCE) + huber(Math.log(result.ttftP99Ms / row.ttftP99Ms) / TTFT_TOLERANCE);
  }, prior);
}

function powerLoss(rows: readonly LoadTestRow[], results: readonly LoadTestResult[], parameters: H100Parameters): number {
  return rows.reduce((sum, row, index) => sum + Math.log(meanPowerW(row, results[index] as LoadTestResult, parameters) / row.powerW) ** 2, 0);
}

function simulated(row: LoadTestRow, parameters: H100Parameters, prefillCeiling: number, requests: number): LoadTestResult {
  const form = h100Form(parameters);
  const share = row.clockMhz / H100_REFERENCE_MHZ;
  const prefillShare = Math.min(share, prefillCeiling);
  const { requestsPerS, promptTokens, outputTokens } = row;
  const { maxBatchTokens, maxSequences } = llama70bOnH100().profile.serving;
  return simulateLoadTest(
    { requestsPerS, promptTokens, outputTokens, maxBatchTokens, maxSequences, requests, seed: 1 },
    {
      prefillTimeMs: (tokens, contextTokens) => form.prefillTimeMs({ tokens, contextTokens }, prefillShare),
      decodeTimeMs: (sequences, contextTokens) => form.decodeTimeMs({ sequences, contextTokens }, share),
      weightPassMs: form.decodeTimeMs(WEIGHT_PASS, share),
      launchOverheadMs: 0,
      decodeWeight: batchLoadShare,
    },
  );
}

/** The prefill's load such that the board limit holds a prompt of the table's length just at the ceiling. */
function withCeiling(parameters: H100Parameters, prefillCeiling: number, rows: readonly LoadTestRow[]): H100Parameters {
  const work = { tokens: (rows[0] as LoadTestRow).promptTokens, contextTokens: 0 };
  const form = h100Form({ ...parameters, prefillLoadW: 1 });
  const idleW = form.idlePowerW(prefillCeiling);
  return { ...parameters, prefillLoadW: (form.boardLimitW - idleW) / (form.prefillPowerW(work, prefillCeiling) - idleW) };
}

/** Of the whole group over the whole test: idle power all the time, and what each phase adds to it in its share. */
function meanPowerW(row: LoadTestRow, result: LoadTestResult, parameters: H100Parameters): number {
  const form = h100Form(parameters);
  const share = row.clockMhz / H100_REFERENCE_MHZ;
  const idleW = form.idlePowerW(share);
  const prefillW = settledAt(form.boardLimitW, (at) => form.prefillPowerW({ tokens: row.promptTokens, contextTokens: 0 }, at), share).powerW;
  const smallBatchW = parameters.decodeLoadW * share ** parameters.decodeClockExponent;
  const largeBatchW = form.decodePowerW({ sequences: Infinity, contextTokens: 0 }, share) - idleW - smallBatchW;
  return row.devices * (idleW + (prefillW - idleW) * result.prefillShare + smallBatchW * result.decodeShare + largeBatchW * result.decodeWeighedShare);
}

function report(rows: readonly LoadTestRow[], outcomes: readonly Outcome[]): void {
  const errorsPct = (name: keyof Outcome): number[] => rows.map((row, index) => 100 * ((outcomes[index] as Outcome)[name] / row[name] - 1));
  const power = errorsPct('powerW');
  const tpot = errorsPct('tpotP99Ms');
  const ttft = errorsPct('ttftP99Ms');
  console.log('\nshipped profile on the emulated engine against the table: error in % (power, TPOT p99, TTFT p99)');
  rows.forEach((row, index) => {
    console.log([`${row.clockMhz} MHz`.padStart(9), `${row.requestsPerS.toFixed(2)}/s`.padStart(8), ...[power, tpot, ttft].map((errors) => (errors[index] as number).toFixed(1).padStart(7))].join(' '));
  });
  for (const [name, errors] of Object.entries({ power, 'TPOT p99': tpot, 'TTFT p99': ttft })) {
    const sizes = errors.map(Math.abs).sort((a, b) => a - b);
    console.log(`${name}: median ${(sizes[sizes.length >> 1] as number).toFixed(1)} %, largest ${(sizes.at(-1) as number).toFixed(1)} %`);
  }
}

function huber(error: number): number {
  const size = Math.abs(error);
  return size < 1 ? size ** 2 / 2 : size - 0.5;
}
