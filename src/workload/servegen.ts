// ServeGen's clients (github.com/alibaba/ServeGen): a `chunk-N-trace.csv` says how a client's requests arrive in each
// window of ten minutes, its `chunk-N-dataset.json` how long prompts and answers were. Requests are sampled from both.
import { z } from 'zod';
import type { WorkloadRequest } from './request.ts';
import type { Discrete } from '../random/distributions.ts';
import { discrete, drawDiscrete, gamma, weibull } from '../random/distributions.ts';
import { REQUEST_TOKENS_MAX, WORKLOAD_REQUESTS_MAX } from './limits.ts';
import { createRandom } from '../random/random.ts';
import { inOrderOfArrival, traceLines } from './trace-text.ts';
import { WorkloadError, malformed, quoted } from './workload-error.ts';

/**
 * One row of a trace: from `startS`, `ratePerS` requests arrive with gaps of this law. The row's coefficient of
 * variation is checked and dropped: the law's two parameters already say it.
 */
interface ArrivalWindow {
  readonly startS: number;
  readonly ratePerS: number;
  readonly law: { readonly kind: 'Gamma' | 'Weibull'; readonly shape: number; readonly scale: number } | null;
}

/** Lengths of the requests from `startS` until the next entry; `null`: the client sent none then. */
interface LengthWindow {
  readonly startS: number;
  readonly promptTokens: Discrete | null;
  readonly outputTokens: Discrete | null;
}

export interface ServeGenClient {
  readonly name: string;
  readonly arrivals: readonly ArrivalWindow[];
  readonly lengths: readonly LengthWindow[];
  readonly datasetFile: string;
}

/** Length of the last row, and of a file with one row. */
const WINDOW_S = 600;
const COLUMNS = ['start second', 'rate', 'cv', 'distribution', 'shape', 'scale'] as const;

export function readServeGenClient(client: { readonly name: string; readonly traceFile: string; readonly traceText: string; readonly datasetFile: string; readonly datasetText: string }): ServeGenClient {
  return {
    name: client.name,
    arrivals: readArrivals(client.traceText, client.traceFile),
    lengths: readLengths(client.datasetText, client.datasetFile),
    datasetFile: client.datasetFile,
  };
}

/**
 * Requests of these clients in [from, from + duration) seconds, in order. As upstream's `construct.py` does it: rate × window
 * gaps are drawn from the window's law and scaled to fill the window. Unlike there, prompt and answer lengths are drawn apart:
 * upstream uses one number for both, which ties the longest answer to the longest prompt.
 * A window's numbers depend on the seed, the client and the window, not on where the part begins.
 */
export function sampleServeGen(clients: readonly ServeGenClient[], { fromS, durationS, seed }: { readonly fromS: number; readonly durationS: number; readonly seed: number }): WorkloadRequest[] {
  const untilS = fromS + durationS;
  const busy = clients.flatMap((client) =>
    client.arrivals.flatMap((window, index) => {
      const endS = client.arrivals[index + 1]?.startS ?? window.startS + WINDOW_S;
      return window.ratePerS > 0 && window.startS < untilS && endS > fromS ? [{ client, window, endS }] : [];
    }),
  );
  const expected = busy.reduce((sum, { window, endS }) => sum + window.ratePerS * (endS - window.startS), 0);
  if (expected > WORKLOAD_REQUESTS_MAX) throw new WorkloadError(`servegen ${fromS}-${untilS} s holds about ${Math.round(expected)} requests, more than ${WORKLOAD_REQUESTS_MAX}; take a shorter --duration or one chunk`);
  const requests: WorkloadRequest[] = [];
  for (const { client, window, endS } of busy) {
    for (const request of sampleWindow(client, window, endS, seed)) {
      if (request.atMs >= fromS * 1000 && request.atMs < untilS * 1000) requests.push(request);
    }
  }
  return inOrderOfArrival(requests);
}

/** Where these clients first send at or after `fromS`; `null` where they never do. For the message of an empty part. */
export function firstBusyS(clients: readonly ServeGenClient[], fromS: number): number | null {
  const starts = clients.flatMap(({ arrivals }) => arrivals.filter(({ startS, ratePerS }) => ratePerS > 0 && startS >= fromS).map(({ startS }) => startS));
  return starts.length === 0 ? null : starts.reduce((one, other) => Math.min(one, other));
}

function sampleWindow(client: ServeGenClient, { startS, ratePerS, law }: ArrivalWindow, endS: number, seed: number): WorkloadRequest[] {
  const lengths = client.lengths.findLast((entry) => entry.startS <= startS);
  if (law === null || lengths?.promptTokens == null || lengths.outputTokens === null) {
    throw new WorkloadError(`${client.datasetFile}: no lengths for second ${startS}, when its trace sends ${ratePerS} requests/s; take another part or leave ${client.name} out`);
  }
  const random = createRandom(seed, `servegen/${client.name}/${startS}`);
  const draw = law.kind === 'Gamma' ? gamma : weibull;
  const gaps = Array.from({ length: Math.ceil(ratePerS * (endS - startS)) }, () => draw(random, law.shape, law.scale));
  const scale = (endS - startS) / gaps.reduce((sum, gap) => sum + gap, 0);
  const requests: WorkloadRequest[] = [];
  // The window begins somewhere within the first gap, so that all requests fall inside it. Upstream begins with the gap,
  // which puts the last request of every window on its end, and drops it.
  let atS = startS - (1 - random()) * (gaps[0] ?? 0) * scale;
  for (const gap of gaps) {
    atS += gap * scale;
    const promptTokens = drawDiscrete(random, lengths.promptTokens);
    const outputTokens = drawDiscrete(random, lengths.outputTokens);
    if (atS < endS) requests.push({ atMs: atS * 1000, promptTokens, outputTokens });
  }
  return requests;
}

function readArrivals(text: string, file: string): ArrivalWindow[] {
  const windows: ArrivalWindow[] = [];
  for (const line of traceLines(text)) {
    const fields = line.text.split(',');
    if (fields.length !== COLUMNS.length) throw malformed({ file, line: line.number, column: 'line', given: line.text, want: `${COLUMNS.length} fields (${COLUMNS.join(', ')})` });
    const numberAt = (column: number): number => {
      const given = fields[column] ?? '';
      const value = given.trim() === '' ? Number.NaN : Number(given);
      if (!Number.isFinite(value) || value < 0) throw malformed({ file, line: line.number, column: COLUMNS[column] ?? '', given, want: 'a number, at least 0' });
      return value;
    };
    const [startS, ratePerS, , shape, scale] = [numberAt(0), numberAt(1), numberAt(2), numberAt(4), numberAt(5)] as const;
    const previousS = windows.at(-1)?.startS;
    if (previousS !== undefined && startS <= previousS) throw malformed({ file, line: line.number, column: 'start second', given: String(startS), want: `more than the line above (${previousS})` });
    windows.push({ startS, ratePerS, law: ratePerS === 0 ? null : readLaw({ kind: fields[3] ?? '', shape, scale }, { file, line: line.number }) });
  }
  if (windows.length === 0) throw new WorkloadError(`${file}: no lines; want ${COLUMNS.join(', ')}`);
  return windows;
}

function readLaw({ kind, shape, scale }: { readonly kind: string; readonly shape: number; readonly scale: number }, at: { readonly file: string; readonly line: number }): ArrivalWindow['law'] {
  if (kind !== 'Gamma' && kind !== 'Weibull') throw malformed({ ...at, column: 'distribution', given: kind, want: 'Gamma or Weibull where the rate is above 0' });
  if (!(shape > 0 && scale > 0)) throw malformed({ ...at, column: shape > 0 ? 'scale' : 'shape', given: String(shape > 0 ? scale : shape), want: 'more than 0 where the rate is above 0' });
  return { kind, shape, scale };
}

const Dataset = z.record(z.string().regex(/^\d{1,12}$/), z.looseObject({ input_tokens: z.string(), output_tokens: z.string() }));

function readLengths(text: string, file: string): LengthWindow[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new WorkloadError(`${file}: not JSON (${cause instanceof Error ? cause.message : String(cause)})`, { cause });
  }
  const parsed = Dataset.safeParse(value);
  if (!parsed.success) {
    const path = parsed.error.issues[0]?.path.map(String).join('.') ?? '';
    throw new WorkloadError(`${file} ${path}: ${parsed.error.issues[0]?.message ?? 'not a dataset'}; want {"0": {"input_tokens": "{163: 0.25}", "output_tokens": "{9: 1.0}"}}, keyed by start second`);
  }
  return Object.entries(parsed.data)
    .map(([start, { input_tokens, output_tokens }]) => ({
      startS: Number(start),
      promptTokens: discrete(readPythonDict(input_tokens, `${file} ${start}.input_tokens`)),
      outputTokens: discrete(readPythonDict(output_tokens, `${file} ${start}.output_tokens`)),
    }))
    .sort((one, other) => one.startS - other.startS);
}

/** `{163: 0.25, 165: 0.75}`: tokens and their probability. Read by hand; upstream's `eval` is not for files of others. */
function readPythonDict(text: string, where: string): (readonly [number, number])[] {
  const inner = /^\{(.*)\}$/s.exec(text.trim())?.[1];
  if (inner === undefined) throw new WorkloadError(`${where}: got ${quoted(text)}, want a dict such as {163: 0.25, 165: 0.75}`);
  if (inner.trim() === '') return [];
  return inner.split(',').map((entry) => {
    const [, key = '', weight = ''] = /^\s*(\d{1,9})\s*:\s*([0-9.eE+-]+)\s*$/.exec(entry) ?? [];
    const [tokens, probability] = [Number(key), weight === '' ? Number.NaN : Number(weight)];
    if (!(tokens >= 1 && tokens <= REQUEST_TOKENS_MAX && probability >= 0 && Number.isFinite(probability))) {
      throw new WorkloadError(`${where}: got ${quoted(entry)}, want TOKENS: PROBABILITY with tokens from 1 to ${REQUEST_TOKENS_MAX}`);
    }
    return [tokens, probability] as const;
  });
}
