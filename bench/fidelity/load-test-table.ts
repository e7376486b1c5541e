// Reads a table of measured load tests. A line that is not what it should be is refused: the error names file, line and column.
import { readFileSync } from 'node:fs';

/** What one load test gave; power is of the whole group. */
export interface Outcome {
  readonly powerW: number;
  readonly ttftP99Ms: number;
  readonly tpotP99Ms: number;
}

/** One row of the table. */
export interface LoadTestRow extends Outcome {
  readonly devices: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly clockMhz: number;
  readonly requestsPerS: number;
}

export class TableError extends Error {
  override name = 'TableError';
}

interface Column {
  readonly name: string;
  readonly whole: boolean;
  readonly min: number;
  readonly max: number;
}

/** One output token has no time per output token after the first. The clocks are the list of an H100 SXM. */
const COLUMNS: readonly Column[] = [
  { name: 'tp', whole: true, min: 1, max: 64 },
  { name: 'input_len', whole: true, min: 1, max: 131_072 },
  { name: 'output_len', whole: true, min: 2, max: 131_072 },
  { name: 'freq_mhz', whole: false, min: 345, max: 1980 },
  { name: 'rps', whole: false, min: 0.001, max: 1000 },
  { name: 'power_w_sum', whole: false, min: 1, max: 100_000 },
  { name: 'ttft_p99_s', whole: false, min: 1e-6, max: 10_000 },
  { name: 'tpot_p99_s', whole: false, min: 1e-6, max: 1000 },
];
export const HEADER = COLUMNS.map(({ name }) => name).join(',');
/** Far above any table of load tests, and at this size still a matter of minutes. */
const ROWS_MAX = 10_000;

export function readLoadTests(path: string, tpAllowed: readonly number[]): LoadTestRow[] {
  return parseLoadTests(readFileSync(path, 'utf8'), path, tpAllowed);
}

/** `path` is for the messages. Empty lines are skipped; there must be a row. */
export function parseLoadTests(text: string, path: string, tpAllowed: readonly number[]): LoadTestRow[] {
  const [header = '', ...lines] = text.replace(/^\uFEFF/, '').split(/\r?\n/);
  if (header.trim() !== HEADER) throw new TableError(`${path} line 1: got the header ${JSON.stringify(header)}, want "${HEADER}"`);
  const rows = lines.flatMap((line, index) => (line.trim() === '' ? [] : [parseRow(line, `${path} line ${index + 2}`, tpAllowed)]));
  if (rows.length === 0 || rows.length > ROWS_MAX) throw new TableError(`${path}: got ${rows.length} rows below the header, want 1 to ${ROWS_MAX}`);
  return rows;
}

function parseRow(line: string, place: string, tpAllowed: readonly number[]): LoadTestRow {
  const cells = line.split(',').map((cell) => cell.trim());
  if (cells.length !== COLUMNS.length) throw new TableError(`${place}: got ${cells.length} columns, want ${COLUMNS.length}: ${HEADER}`);
  const [devices, promptTokens, outputTokens, clockMhz, requestsPerS, powerW, ttftS, tpotS] = COLUMNS.map((column, index) => parseCell(cells[index] as string, column, place)) as [number, number, number, number, number, number, number, number];
  if (!tpAllowed.includes(devices)) throw new TableError(`${place}, column tp: got ${devices}, want one of ${tpAllowed.join(', ')}: there is a profile of these only`);
  return { devices, promptTokens, outputTokens, clockMhz, requestsPerS, powerW, ttftP99Ms: ttftS * 1000, tpotP99Ms: tpotS * 1000 };
}

function parseCell(cell: string, { name, whole, min, max }: Column, place: string): number {
  // `Number` alone would take '' for 0, and '0x10'.
  const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(cell) ? Number(cell) : Number.NaN;
  if (value >= min && value <= max && (!whole || Number.isInteger(value))) return value;
  throw new TableError(`${place}, column ${name}: got ${JSON.stringify(cell)}, want a ${whole ? 'whole ' : ''}number from ${min} to ${max}`);
}
