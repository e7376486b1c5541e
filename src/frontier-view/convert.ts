// Public formats of sweeps to frontiers: which columns, which units, and what cannot be made of them. Nothing is guessed: a table that
// has no time or no energy of a piece of work is refused with the reason.
import { type FrontiersFile, frontiersSchema, type MeasuredFrontier, type MeasuredPoint } from './frontiers-file.ts';

/** The text is not in that format, or nothing can be made of it; with the line where one is to blame. */
export class ConversionError extends Error {
  override name = 'ConversionError';
}

interface SourceFormat {
  readonly what: string;
  readonly columns: readonly string[];
  readonly knobs: FrontiersFile['knobs'];
  readonly notes: readonly string[];
  /** Which frontier a row belongs to, and its point; throws where a cell is no number. */
  readonly point: (row: Row) => { readonly work: string; readonly point: MeasuredPoint };
}

type Row = (column: string) => { readonly text: string; readonly number: number };

export const SOURCE_FORMATS: Readonly<Record<string, SourceFormat>> = {
  'perseus-profile': {
    what: "Perseus' and lowtime's pipeline profiles: MHz, seconds, joules",
    columns: ['stage', 'instruction', 'frequency', 'time', 'energy'],
    knobs: { clockMhz: { unit: 'MHz' } },
    notes: ['one frontier for each instruction of each stage; energies are of the device while it worked, waiting is not in them'],
    point: (row) => ({ work: `stage ${row('stage').text}, ${row('instruction').text}`, point: { knobs: { clockMhz: row('frequency').number }, timeMs: row('time').number * 1_000, energyJ: row('energy').number } }),
  },
  'zeus-power-sweep': {
    what: "Zeus' power-limit sweeps of training (NSDI'23): watts, seconds per epoch",
    columns: ['dataset', 'network', 'batch_size', 'optimizer', 'power_limit', 'time_per_epoch', 'average_power'],
    knobs: { powerLimitW: { unit: 'W' } },
    notes: ['one epoch of training; its energy is its time at the average power'],
    point: (row) => ({
      work: `${row('network').text} on ${row('dataset').text}, batch ${row('batch_size').text}, ${row('optimizer').text}: one epoch`,
      point: { knobs: { powerLimitW: row('power_limit').number }, timeMs: row('time_per_epoch').number * 1_000, energyJ: row('time_per_epoch').number * row('average_power').number },
    }),
  },
  'load-test': {
    what: 'load tests at fixed request rates and clocks, as of DynamoLLM-style tables: MHz, requests/s, watts of all GPUs, p99 seconds',
    columns: ['tp', 'input_len', 'output_len', 'freq_mhz', 'rps', 'power_w_sum', 'ttft_p99_s', 'tpot_p99_s'],
    knobs: { clockMhz: { unit: 'MHz' } },
    notes: ['time is what the slowest of a hundred requests takes: TTFT p99 and as many TPOT p99 as there are further tokens', 'energy is the power of all GPUs over the request rate: idling between requests is in it, and so is what requests shared'],
    point: (row) => {
      const outputTokens = row('output_len').number;
      return {
        work: `one request of ${row('input_len').text} in, ${row('output_len').text} out, ${row('tp').text} GPUs, at ${row('rps').text} requests/s`,
        point: { knobs: { clockMhz: row('freq_mhz').number }, timeMs: 1_000 * (row('ttft_p99_s').number + Math.max(0, outputTokens - 1) * row('tpot_p99_s').number), energyJ: row('power_w_sum').number / row('rps').number },
      };
    },
  },
};

/** Columns of tables that people try, and why nothing comes of them. */
const HOPELESS: readonly { readonly columns: readonly string[]; readonly why: string }[] = [
  { columns: ['latency_ms', 'power_w', 'gemm_dtype'], why: 'this is a table of single kernels at one clock: it has no operating points to choose from, and a layer is more than its kernels' },
  { columns: ['latency_ms', 'power_w', 'attn_dtype'], why: 'this is a table of single kernels at one clock: it has no operating points to choose from, and a layer is more than its kernels' },
];

const ROWS_MAX = 100_000;

/** `source` and `licence` are not in these tables; who converts one must know them. Throws `ConversionError`. */
export function convertSweep(text: string, format: string, about: { readonly name: string; readonly source: string; readonly licence: string }): FrontiersFile {
  const known = Object.hasOwn(SOURCE_FORMATS, format) ? SOURCE_FORMATS[format] : undefined;
  if (known === undefined) throw new ConversionError(`format: got '${format}', allowed: ${Object.keys(SOURCE_FORMATS).join(', ')}`);
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/);
  const header = (lines[0] ?? '').split(',').map((column) => column.trim());
  const hopeless = HOPELESS.find(({ columns }) => columns.every((column) => header.includes(column)));
  if (hopeless !== undefined) throw new ConversionError(hopeless.why);
  const missing = known.columns.filter((column) => !header.includes(column));
  if (missing.length > 0) {
    const other = Object.entries(SOURCE_FORMATS).find(([, { columns }]) => columns.every((column) => header.includes(column)));
    throw new ConversionError(`line 1: got the columns ${header.slice(0, 20).join(', ') || 'none'}; ${format} has ${known.columns.join(', ')}${other === undefined ? '' : `. This looks like ${other[0]}`}`);
  }
  const frontiers = new Map<string, MeasuredPoint[]>();
  let rows = 0;
  for (const [index, line] of lines.entries()) {
    if (index === 0 || line.trim() === '') continue;
    rows += 1;
    if (rows > ROWS_MAX) throw new ConversionError(`line ${index + 1}: more than ${ROWS_MAX} rows`);
    const { work, point } = known.point(rowOf(line, header, index + 1));
    if (![point.timeMs, point.energyJ].every((value) => value > 0 && Number.isFinite(value))) throw new ConversionError(`line ${index + 1}: got ${point.timeMs} ms and ${point.energyJ} J, want more than nothing of both, and an end`);
    const points = frontiers.get(work);
    if (points === undefined) frontiers.set(work, [point]);
    else points.push(point);
  }
  if (frontiers.size === 0) throw new ConversionError('the table has no rows');
  const file: FrontiersFile = {
    format: 'paceline-frontiers/1',
    name: about.name,
    knobs: known.knobs,
    frontiers: [...frontiers].map(([work, points]): MeasuredFrontier => ({ work, points })),
    provenance: { source: about.source, licence: about.licence, convertedFrom: format, notes: known.notes },
  };
  // What is written here must be read again.
  const [issue] = frontiersSchema.safeParse(file).error?.issues ?? [];
  if (issue !== undefined) throw new ConversionError(`what comes of it is no file of frontiers: ${issue.path.map(String).join('.')}: ${issue.message}`);
  return file;
}

/** As people and programs print them; no hexadecimal ones, which `Number` takes as well. */
const DECIMAL = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

function rowOf(line: string, header: readonly string[], lineNumber: number): Row {
  if (line.includes('"')) throw new ConversionError(`line ${lineNumber}: got a quotation mark; none of these formats quotes its cells, and what a quoted comma means would be guessed`);
  const cells = line.split(',');
  if (cells.length !== header.length) throw new ConversionError(`line ${lineNumber}: got ${cells.length} cells, want ${header.length}`);
  return (column) => {
    const cell = (cells[header.indexOf(column)] ?? '').trim();
    return {
      text: cell,
      get number() {
        const value = DECIMAL.test(cell) ? Number(cell) : Number.NaN;
        if (!Number.isFinite(value)) throw new ConversionError(`line ${lineNumber}: ${column}: got '${cell.slice(0, 40)}', want a number`);
        return value;
      },
    };
  };
}
